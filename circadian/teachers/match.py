"""Do two tokenizers read and write the same? Only then is one model's distribution one over the other's tokens.

Compared is what they do, not what they are called: every token and its id, the token a text ends with, and how each cue at hand is read,
chat template included. Equal vocabularies can hide other merges, another normalisation, or another template.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from circadian.experience import chat_ids
from circadian.specs import TeacherSpec

Tokens = tuple[int, ...]


def read_cue(tokenizer: PreTrainedTokenizerBase, cue: str, spec: TeacherSpec) -> Tokens:
    """A cue as its model is given it. Raises Unreadable."""
    if spec.asked == "text":
        return tuple(tokenizer(cue)["input_ids"])
    return chat_ids(tokenizer, [{"role": "user", "content": cue}], answering=True)


def vocabularies_differ(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> str:
    """How, or nothing."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    for token in sorted(ours.keys() | theirs.keys()):
        if ours.get(token) != theirs.get(token):
            return f"token {token!r} is {ours.get(token)} here and {theirs.get(token)} there"
    if student.eos_token_id != teacher.eos_token_id:
        return f"a text ends with {student.eos_token!r} here and with {teacher.eos_token!r} there"
    return ""


def readings_differ(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, cues: Sequence[str], spec: TeacherSpec
) -> str:
    """How the tokenizers of a teacher and its student differ, or nothing."""
    if reason := vocabularies_differ(student, teacher):
        return reason
    for cue in cues:
        if read_cue(student, cue, spec) != read_cue(teacher, cue, spec):
            return f"{cue!r} is read as other tokens there (another chat template, or other merges)"
    return ""
