"""What a dream would teach, before it is learned: its gradient, as one short vector.

    g_i = grad over theta of L_SFT(DREAM_i)

over the parameters that would learn, the B of a fresh instance: with B = 0 the gradient of A is zero. All dreams are read in one pass,
each as an instance of its own (instances.py), so one backward pass gives every dream's gradient apart, and no two are added up.

The gradient is sketched (count sketch, Charikar et al. 2002): every coordinate is added, with a random sign, to one of S places. Dot
products of sketches are those of the gradients, without bias, with a standard deviation of at most |a| |b| sqrt(2 / S).

The paper leaves open how a gradient becomes a number ("gradient-based selection"; it cites G-DIG and GREATS). Registered:

    norm          |g_i|
    alignment     cos(g_i, g of the context's own text): a dream that teaches what the context says
    validation    cos(g_i, g of questions and answers about the context that are kept for this): GREATS' direction
    none          no score: all dreams are alike

I dreams, S places of a sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circadian.dreaming.instances import MOST_TOKENS, Pack
from circadian.experience import Row
from circadian.memory.graft import View
from circadian.specs.dreaming import AdapterSpec

PLACES = 4096
"""S: a cosine is off by 0.02."""
Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(sketches of dreams [I, S], of the context's text [S], of its validation [S]) -> the higher the better [I]"""


def sketches(
    model: nn.Module,
    texts: Sequence[Sequence[Row]],
    spec: AdapterSpec,
    seed: int,
    places: int = PLACES,
    view: View = "rested",
    most_tokens: int = MOST_TOKENS,
) -> Tensor:
    """Sketches of the gradients [I, S] of texts, each a list of rows; those of one seed can be compared. view, most_tokens: as of
    fine_tune."""
    if not all(texts):
        raise ValueError("a text without rows has no gradient; leave it out")
    model.requires_grad_(False)
    pack = Pack(model, len(texts), spec, seed)
    with pack.attached():
        _, gradients = pack.gradients(texts, view, most_tokens, [layer.B for layer in pack.layers.values()])
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(texts), places)
    for gradient in gradients:
        flat = gradient.flatten(1).float().cpu()
        where = torch.randint(places, (flat.shape[1],), generator=generator)
        sign = torch.randint(2, (flat.shape[1],), generator=generator) * 2.0 - 1.0
        total.index_add_(1, where, flat * sign)
    return total


def norm(dreams: Tensor, context: Tensor, validation: Tensor) -> Tensor:
    del context, validation
    return dreams.norm(dim=1)


def alignment(dreams: Tensor, context: Tensor, validation: Tensor) -> Tensor:
    del validation
    return F.cosine_similarity(dreams, context[None], dim=1)


def validation(dreams: Tensor, context: Tensor, validation: Tensor) -> Tensor:
    del context
    return F.cosine_similarity(dreams, validation[None], dim=1)


def none(dreams: Tensor, context: Tensor, validation: Tensor) -> Tensor:
    del context, validation
    return torch.zeros(len(dreams))


SCORES: dict[str, Score] = {"norm": norm, "alignment": alignment, "validation": validation, "none": none}
