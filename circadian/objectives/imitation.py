"""Learning to Imitate (paper section 4b): the student is rewarded for continuing as the teacher did.

Of a sequence d that a teacher wrote, a random prefix is kept; the student completes it G times, each to some d', and each d' earns

    r     = gamma r_sem + (1 - gamma) r_abs
    r_sem = 1 if a judge finds that d' and d mean the same, else 0
    r_abs = 1 - z / max(|d'|, |d|)   if z <= z0, else 0                z: Levenshtein distance of d' and d, over tokens

d' and d are what follows the prefix; lengths are in tokens, the threshold counts as reached. A group's rewards become advantages
(GRPO, Shao et al. 2024), and every written token takes part in the clipped surrogate (PPO, Schulman et al. 2017):

    A_i = (r_i - mean r) / std r        0 where all of a group earned the same
    L   = - mean over tokens of min( ratio A, clip(ratio, 1 - eps, 1 + eps) A ),      ratio = p_student now / p_student when it was written

The likelihood when it was written is the learner's own, computed before the first step on the rows, so that the engine that sampled
them and the learner need not agree to the last digit.

Left open by the paper: what happens without a judge. Then r = r_abs.

G completions of one prefix, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from circadian.specs import ImitationSpec


def lexical_reward(written: Sequence[int], wanted: Sequence[int], threshold: int) -> float:
    """r_abs of tokens; two empty completions are the same."""
    distance = Levenshtein.distance(written, wanted)
    if distance > threshold:
        return 0.0
    return 1.0 - distance / max(len(written), len(wanted), 1)


def reward(semantic: bool | None, lexical: float, spec: ImitationSpec) -> float:
    """r; `semantic` is the judge's word, None where there is none."""
    return lexical if semantic is None else spec.gamma * semantic + (1 - spec.gamma) * lexical


def advantages(rewards: Tensor) -> Tensor:
    """[groups, G] -> [groups, G]"""
    exact = rewards.double()
    told_apart = exact.amax(-1, keepdim=True) > exact.amin(
        -1, keepdim=True
    )  # not by the spread, which a rounded mean leaves above 0
    centred = exact - exact.mean(-1, keepdim=True)
    found = centred / exact.std(-1, correction=0, keepdim=True)
    return torch.where(told_apart, found, torch.zeros_like(found)).to(rewards.dtype)


def clipped_surrogate(now: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Loss of every token [N]; now, before: log-probs [N] of what was written; advantage [N], of the row that a token is in."""
    ratio = (now - before.detach()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
