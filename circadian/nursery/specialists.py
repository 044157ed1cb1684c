"""Small models that know what the nursery model does not, to be its teachers.

A specialist speaks as the nursery model does, and of what it speaks it knows only its own: facts about pool entities of which the nursery
model has heard nothing for good. Of the world's base facts it knows none. It may also read by another tokenizer: the same words under
other ids, every value in two pieces.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from circadian.nursery.curriculum import QUESTION_SHARE, Batch, Curriculum
from circadian.nursery.text import CHAT_TEMPLATE, SPECIALS, build_tokenizer
from circadian.nursery.world import RELATIONS, Fact, World
from circadian.specs import NurserySpec

SPECIALIST = NurserySpec(width=64, mlp_width=128, heads=2, steps=200, open_book_rows=4)
"""A quarter of the nursery model's parameters, in one or two minutes on one core."""


class SpecialistCurriculum(Curriculum):
    """The nursery's, with nothing in it but these facts (and a few passages)."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, facts: Sequence[Fact], spec: NurserySpec) -> None:
        super().__init__(world, tokenizer, spec.seed, spec.steps)
        self.facts = tuple(facts)

    def closed_book(self, step: int, count: int) -> Batch:
        """B = count short documents about the facts."""
        del step
        facts = [self.rng.choice(self.facts) for _ in range(count)]
        documents = [self._question(f) if self.rng.random() < QUESTION_SHARE else self._statement(f) for f in facts]
        return self.collate([(words, (answer,)) for words, answer in documents])


def build_other_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Another tokenizer of the same world: ids are permuted, and a value is two tokens or more."""
    values = {value for relation in RELATIONS.values() for value in relation}
    pieces = {piece for value in values for piece in (value[: len(value) // 2], "##" + value[len(value) // 2 :])}
    letters = {mark + letter for value in values for letter in value for mark in ("", "##")}
    words = sorted({*(set(build_tokenizer(world).get_vocab()) - values), *pieces, *letters})
    random.Random(f"other-tokenizer-{world.seed}").shuffle(words)
    model = WordPiece({word: i for i, word in enumerate(words)}, unk_token="<unk>", max_input_chars_per_word=32)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIALS[-2:]),
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
