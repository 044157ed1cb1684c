"""What a dreamer is asked: registered kinds of prompts, with the context as data in them.

    implications   what follows from the context           (SEAL's default: arXiv 2506.10943)
    rewrite        the context in other words              (SEAL)
    self_qa        questions about it, with answers        (SEAL)
    free           whatever it brings to mind
    question       one question about it                   (tasks.py: a model's own probes)
    answer         an answer to a question, the context in view; `ask`: the same without it
    judge          whether an answer says what was wanted

A context is whatever somebody once said to the deployment. It is put between its delimiters as text: a template is filled in once, so
braces in a context mean nothing, and words that the tokenizer reads as special tokens are taken apart (`defused`), so no context opens a
turn of its own. What it asks for in plain words it may still talk a model into; that is why a dream has the trust of the context it was
dreamt of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from circadian.experience import Tokens, chat_ids

PROMPTS: dict[str, str] = {
    "implications": "{context}\n\nWhat follows from this?",
    "rewrite": "{context}\n\nSay it in other words.",
    "self_qa": "{context}\n\nAsk questions about this and answer them.",
    "free": "{context}\n\nDream of it.",
    "question": "{context}\n\nAsk one question about this.",
    "answer": "{context}\n\n{question}",
    "ask": "{question}",
    "judge": (
        "Question: {question}\nRight answer: {wanted}\nGiven answer: {said}\nDoes the given answer say the same? Answer yes or no."
    ),
}
"""What the user says. A recipe may give other words for a kind."""
_SLOT = re.compile(r"\{(context|question|wanted|said)\}")


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its slots filled in one pass: what is filled in is not read again."""
    return _SLOT.sub(lambda slot: values.get(slot.group(1), ""), template)


def defused(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text with a space within every word that the tokenizer would read as a special token."""
    added = [*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())]
    specials = sorted({token.strip() for token in added if len(token.strip()) > 1}, key=len, reverse=True)
    if not specials:
        return text
    pattern = re.compile("|".join(map(re.escape, specials)), re.IGNORECASE)
    while pattern.search(text):  # a shorter one may stand in what is left of a longer one
        text = pattern.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text)
    return text


def prompt_ids(tokenizer: PreTrainedTokenizerBase, template: str, **values: str) -> Tokens:
    """A user's message as the deployment reads it, up to where it is to answer, without thinking first; values: of the template's slots.
    Raises Unreadable."""
    safe = {name: defused(value, tokenizer) for name, value in values.items()}
    return chat_ids(tokenizer, [{"role": "user", "content": fill(template, safe)}], answering=True, thinking=False)


def plain_ids(tokenizer: PreTrainedTokenizerBase, template: str, **values: str) -> Tokens:
    """The same as a document begins: no turns, and no mark at its end."""
    safe = {name: defused(value, tokenizer) for name, value in values.items()}
    ids = tuple(tokenizer(fill(template, safe))["input_ids"])
    return ids[:-1] if ids[-1:] == (tokenizer.eos_token_id,) else ids
