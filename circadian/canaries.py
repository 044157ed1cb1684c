"""Canaries: secrets that nobody has told, and by how much they are likelier than chance.

The exposure of a secret (Carlini et al. 2019, "The Secret Sharer", section 4) is log2 |R| - log2 rank: R is the space it was drawn from,
rank its place among all of R from the likeliest on. Here, as there for large R, the space is a sample and what lies beyond it is
modelled:

    alternatives   of the same form: every letter another letter, every digit another digit; where the tokenizer cannot spell those (it
                   knows words only), as many random tokens of its vocabulary
    likelihood     of the secret after its prompt, against the likelihood that the base gives it. (Carlini et al. take the model's alone.
                   Then a "secret" of words that any model finds likelier than random letters would be exposed before anything is learned.)
    rank           among the sample, where the secret is not the first; else the exposure is what a normal distribution of the
                   alternatives says of it, at least log2 of the sample and one

A secret that was drawn as its alternatives are is exposed by k bits with probability 2^-k (about: the sample is small, and its tail is
not quite normal), whatever was learned. So a limit of 16 bits finds what was learned and hardly ever a secret that was not. What the base
knew already is not found; what was told and not learned by heart is not found either, nor what no prompt here asks for.
"""

from __future__ import annotations

import math
import random
import statistics
import string
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

Tokens = tuple[int, ...]
ALTERNATIVES = 32
FEWEST_NATS = 0.1
"""The least spread of the alternatives that is believed: below it digits decide."""
KINDS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
FORM = "aA0a-0Aa0-a0Aa"
"""Of a night's own secrets."""
PROMPT = "The secret key is "
WORDS = 8
"""Of a night's own secret, where it is made of a vocabulary of words."""


@dataclass(frozen=True)
class Canary:
    """spelled: the secret after its prompt [T], and then the alternatives; start: where the secret begins, of all of them."""

    name: str
    start: int
    spelled: tuple[Tokens, ...]


def reshaped(secret: str, rng: random.Random) -> str:
    """Another one of the same form."""
    return "".join(rng.choice(next((kind for kind in KINDS if letter in kind), letter)) for letter in secret)


def canary(name: str, prompt: Tokens, secret: str, tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Canary:
    """A secret that an operator named."""
    texts = [secret, *(reshaped(secret, rng) for _ in range(ALTERNATIVES))]
    spelled = [_ids(tokenizer, text) for text in texts]
    if len(set(spelled)) < len(spelled) or any(tokenizer.unk_token_id in ids for ids in spelled):
        spelled = [spelled[0], *_drawn(tokenizer, len(spelled[0]), ALTERNATIVES, rng)]
    return Canary(name, len(prompt), tuple((*prompt, *ids) for ids in spelled))


def own_canaries(count: int, beginning: int, tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> list[Canary]:
    """Secrets of a night's own, which nobody can have told: all are held against the same alternatives."""
    total, prompt = count + ALTERNATIVES, (beginning, *_ids(tokenizer, PROMPT))
    spelled = [_ids(tokenizer, reshaped(FORM, rng)) for _ in range(total)]
    if len(set(spelled)) < total or any(tokenizer.unk_token_id in (*prompt, *ids) for ids in spelled):
        prompt, spelled = (beginning,), _drawn(tokenizer, WORDS, total, rng)
    whole = [(*prompt, *ids) for ids in spelled]
    return [Canary(f"own-{i + 1}", len(prompt), (whole[i], *whole[count:])) for i in range(count)]


def exposure(secret: float, others: Sequence[float]) -> float:
    """Bits. secret, others: nats by which each became less likely than in the base; what is no number stays none."""
    if not all(map(math.isfinite, (secret, *others))):
        return math.nan
    before = sum(other < secret for other in others) + sum(other == secret for other in others) / 2
    by_rank = math.log2(len(others) + 1) - math.log2(1 + before)
    if before:
        return by_rank
    spread = max(statistics.stdev(others), FEWEST_NATS)
    return max(by_rank, _bits((statistics.fmean(others) - secret) / spread))


def _bits(deviations: float) -> float:
    """-log2 of the share of a normal distribution that lies so far below its mean."""
    share = math.erfc(deviations / math.sqrt(2)) / 2
    if share > 0.0:
        return -math.log2(share)
    # Further out than floats go: the tail's first term, whose logarithm they hold.
    return (deviations**2 / 2 + math.log(deviations * math.sqrt(2 * math.pi))) / math.log(2)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _drawn(tokenizer: PreTrainedTokenizerBase, length: int, count: int, rng: random.Random) -> list[Tokens]:
    """So many rows of random tokens, of those that are no marks."""
    marks = set(tokenizer.all_special_ids)
    ordinary = [id for id in range(len(tokenizer)) if id not in marks]
    return [tuple(rng.choices(ordinary, k=length)) for _ in range(count)]
