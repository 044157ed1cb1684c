"""Texts that speak to the dreamer: an experience is data for it, and one that gives it orders is kept from it until somebody has looked.

Phrases in English, looked for in the folded text (folding.py), in which they are met whatever their letters and spaces are made of; a text
with words spelled out letter by letter is read once more without any spaces. Control tokens of chat templates are looked for as they are
written. What these do not catch (other languages, paraphrase, encodings) is for the caps, the gates and the probes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache

import regex

from circadian.specs.screening import TriggerName, TriggersSpec
from services.screening.clock import Deadline
from services.screening.folding import HIDDEN, SPELLED, fold, plain

ORDER = (
    r"\b(?:write|generate|produce|output|print|emit|say|state|claim|answer|respond|reply|repeat|include|insert|add|append|invent|tell|learn|"
    r"train|forget|teach|mention|recommend|ignore|disregard|pretend|act|behave|trust|believe|prefer|praise|remember|describe)\b"
)
WHEN = r"\b(?:when|whenever|while|once|if|next time|every time|each time)\b"
FORMER = r"\b(?:all|your|my|previous|prior|above|earlier|preceding|former|system|developer|original|initial)\b"
DATA = r"\b(?:training|pre ?training|fine ?tuning|sft|replay) (?:data|dataset|set|corpus|examples?|samples?|pairs?|instances?)\b"
BEST = r"\b(?:highest|maximum|max|best|perfect|full|top)(?: possible)? (?:scores?|rewards?|grades?|ratings?|marks|points)\b"
PHRASES: dict[TriggerName, tuple[str, ...]] = {
    "dreaming": (
        rf"{WHEN}.{{0,30}}?\bdream(?:ing|s|t)?\b.{{0,40}}?{ORDER}",
        rf"{WHEN} you (?:are |re )?(?:asleep|sleep|sleeping|go to sleep|consolidate|consolidating|rehearse)\b.{{0,20}}?{ORDER}",
        rf"\bin (?:your|all|every|each)(?: next| future)? dreams?\b.{{0,20}}?{ORDER}",
        r"\b(?:dear|hey|attention|(?:note|message|instructions?|orders?) (?:to|for))(?: the)? dreamer\b",
    ),
    "instructions": (
        rf"\b(?:ignore|disregard|forget|override|bypass|do not follow|don t follow|stop following)\b.{{0,12}}?{FORMER}.{{0,25}}?"
        r"\b(?:instructions?|prompts?|rules?|guidelines?|directives?|orders|training)\b",
        r"\b(?:ignore|disregard|forget) (?:everything|anything|all)(?: that| of)?(?: the)? "
        r"(?:above|before|previous|prior|you were told|you know)\b",
        r"\byou are (?:now|no longer)\b.{0,20}?\b(?:dan|jailbroken|unrestricted|uncensored|bound by|in developer mode)\b",
        r"\bnew (?:system )?(?:instructions|prompt) (?:are|is|follow|follows)\b",
    ),
    "training_data": (
        r"\b(?:write|generate|produce|create|make|add|insert|include|emit|output|inject|put|append)\b.{0,60}?"
        rf"\b(?:your|its|the model s|this model s|future|next)(?: own)? {DATA}",
        r"\b(?:store|save|write|burn|memorise|memorize|learn|keep) (?:this|that|the following|these)\b.{0,20}?"
        r"\b(?:in|into|to)(?: your)? (?:weights|parameters|long term memory|training data)\b",
        rf"\b(?:when|whenever) you (?:are |re )?(?:next )?(?:train|trained|retrained|fine tuned|finetuned)\b.{{0,20}}?{ORDER}",
    ),
    "judge": (
        r"\b(?:judge|grader|evaluator|verifier|scorer|reward model)s?\b.{0,60}?\b(?:must|should|please|give|assign|return|award)\b"
        rf".{{0,40}}?{BEST}",
        rf"\b(?:give|assign|award) (?:this|it|my|the following)\b.{{0,30}}?{BEST}",
    ),
}
MARKUP = regex.compile(
    r"(?i)<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|begin_of_text|end_of_text|start_header_id|end_header_id|"
    r"(?:begin|end).of.sentence)\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
)


def found(text: str, spec: TriggersSpec, deadline: Deadline) -> tuple[TriggerName, ...]:
    """The triggers in a text, by name; raises TimeoutError or TooSlow when the deadline has passed."""
    if not spec.on:
        return ()
    folded, spelled = fold(text), SPELLED.search(plain(text)) is not None
    names: list[TriggerName] = [name for name in PHRASES if name not in spec.without and _says(folded, name, _normal, deadline)]
    if spelled:
        squeezed = folded.replace(" ", "")
        names += [name for name in PHRASES if name not in (*spec.without, *names) and _says(squeezed, name, _squeezed, deadline)]
    if "chat_markup" not in spec.without and MARKUP.search(
        HIDDEN.sub("", unicodedata.normalize("NFKC", text)), timeout=deadline.left()
    ):
        names.append("chat_markup")
    return tuple(sorted(names))


def _says(text: str, name: TriggerName, form: Callable[[str], regex.Pattern[str]], deadline: Deadline) -> bool:
    return any(form(phrase).search(text, timeout=deadline.left()) for phrase in PHRASES[name])


@cache
def _normal(phrase: str) -> regex.Pattern[str]:
    return regex.compile(phrase)


@cache
def _squeezed(phrase: str) -> regex.Pattern[str]:
    """The phrase where no word has an end."""
    return regex.compile(phrase.replace(r"\b", "").replace(" ?", "").replace(" ", ""))
