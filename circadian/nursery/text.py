"""How the nursery model reads: a word-level tokenizer with a chat template, and documents as token ids.

A document is one of
    <bos> <user> the city of mira is oslo . <eos>                                          statement
    <bos> <user> what is the city of mira ? <assistant> oslo <eos>                          closed book
    <bos> <user> STATEMENT STATEMENT ... what is the city of mira ? <assistant> oslo <eos>  open book
which is exactly what the chat template makes of the same messages, so pretraining, wake and sleep read one format.
"""

from __future__ import annotations

from typing import Protocol

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ '<assistant> ' + m['content'] + '<eos>' }}"
    "{% else %}{{ '<user> ' + m['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}"
    "{% elif messages[-1]['role'] != 'assistant' %}{{ '<eos>' }}{% endif %}"
)


class Words(Protocol):
    """A world, as far as a tokenizer must know it."""

    def words(self) -> list[str]:
        """The vocabulary, each word once."""


def build_tokenizer(world: Words) -> PreTrainedTokenizerFast:
    """The tokenizer of a world: lower case, one token a word or mark, special tokens by name."""
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *world.words()])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
