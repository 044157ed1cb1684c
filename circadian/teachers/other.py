"""Another model as a teacher: it writes, and it says what it expects. Any causal model that transformers can load.

It is in memory only while it is asked; of what it says, the learner keeps its final hidden states, and its head to read them with.

N taught tokens, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import weights_sha256
from circadian.objectives.divergence import Head
from circadian.objectives.rows import TaughtRow, pad

Tokens = tuple[int, ...]
ROWS_AT_ONCE = 32
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""Between a model's logits and its head's, which are the same numbers computed twice."""


class TeacherUnusable(ValueError):
    """The other model cannot teach as it is asked to; the message names the field and the remedy."""


def load_other(folder: Path, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    """The model in evaluation mode; code from the folder is never run. Raises TeacherUnusable."""
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        # what transformers raises for a folder without weights, an unknown architecture, torn files, shapes that do not fit
        remedy = "give a folder with config.json and *.safetensors of an architecture that transformers knows"
        raise TeacherUnusable(f"model: {folder} cannot be loaded as a causal language model ({error}); {remedy}") from error
    return model.eval().requires_grad_(False).to(device)


def load_other_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Its tokenizer. Raises TeacherUnusable."""
    try:
        return load_tokenizer(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TeacherUnusable(
            f"model: {folder} has no tokenizer that can be loaded ({error}); put its tokenizer files there"
        ) from error


def head_of(model: PreTrainedModel) -> nn.Module:
    """What makes logits of its final hidden states. Raises TeacherUnusable where that is not all that does."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise TeacherUnusable("it has no output embedding")
    ids = torch.arange(min(8, model.config.vocab_size), device=model.device)[None]
    with torch.no_grad():
        logits, again = model(input_ids=ids).logits, head(_hidden(model, ids))
    if logits.shape != again.shape or not torch.allclose(logits, again, atol=TOLERANCE.get(model.dtype, 1e-3), rtol=1e-2):
        raise TeacherUnusable("its logits are not its output embedding of its final hidden states: something else comes after it")
    return head


@torch.no_grad()
def states_of(model: PreTrainedModel, rows: Sequence[TaughtRow]) -> list[Tensor]:
    """Of each row the final hidden states [N, D] where the model predicts the taught tokens."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    found: dict[int, Tensor] = {}
    for begin in range(0, len(order), ROWS_AT_ONCE):
        some = order[begin : begin + ROWS_AT_ONCE]
        hidden = _hidden(
            model, pad([rows[i].ids for i in some]).to(model.device)
        )  # causal: nothing looks at what is padded behind it
        for i, states in zip(some, hidden, strict=True):
            found[i] = states[max(rows[i].start, 1) - 1 : len(rows[i].ids) - 1].clone()
    return [found[i] for i in range(len(rows))]


def _hidden(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """[B, T] -> [B, T, D]"""
    return model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state


class Lent:
    """A teacher that the learner has only while it takes lessons."""

    def __init__(self, folder: Path, sha256: str) -> None:
        self.folder, self.sha256 = folder, sha256

    def states(self, rows: Sequence[TaughtRow], dtype: torch.dtype, device: torch.device) -> tuple[list[Tensor], Head]:
        """See states_of, and the head that reads them, also where they are padded; the rest of the model is in memory no more. Raises
        TeacherUnusable."""
        if weights_sha256(self.folder) != self.sha256:
            raise TeacherUnusable(f"the weights in {self.folder} changed during the night; sleep again")
        model = load_other(self.folder, dtype, device)
        head, states = head_of(model), states_of(model, rows)
        width = states[0].shape[-1]
        return states, lambda kept: head(kept[..., :width])


@torch.no_grad()
def write(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    tokens: int,
    temperature: float,
    seed: int,
    ends: Sequence[int],
    **forward: object,
) -> list[Tokens]:
    """One completion of each prompt, without the prompt; it ends at a token of `ends`, which it keeps. Temperature 0 is greedy.

    forward: what the model's forward takes besides, such as a view.
    """
    chance = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    settings = GenerationConfig(max_new_tokens=tokens, eos_token_id=list(ends), pad_token_id=ends[0], **chance)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: dict[int, Tokens] = {}
    with _seeded(model.device, seed):
        for begin in range(0, len(order), ROWS_AT_ONCE):
            some = order[begin : begin + ROWS_AT_ONCE]
            length = max(len(prompts[i]) for i in some)
            ids = torch.tensor([[ends[0]] * (length - len(prompts[i])) + list(prompts[i]) for i in some], device=model.device)
            mask = torch.tensor([[0] * (length - len(prompts[i])) + [1] * len(prompts[i]) for i in some], device=model.device)
            out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, **forward)  # type: ignore[operator]
            for i, row in zip(some, out[:, length:].tolist(), strict=True):
                written[i] = _up_to(row, ends)
    return [written[i] for i in range(len(prompts))]


def _up_to(row: Sequence[int], ends: Sequence[int]) -> Tokens:
    """Up to and with the first end."""
    last = next((place for place, token in enumerate(row) if token in ends), len(row))
    return tuple(row[: last + 1])


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Chance from a seed, without a trace in the process's own."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
