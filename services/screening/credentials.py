"""Secrets in a text: keys and tokens of known forms, passwords that follow their name, and long strings that look random.

The forms of the providers' keys, the words that name a secret and the measure of randomness are detect-secrets' own. It reads lines of
files and reports values, and a text needs the places; so its expressions are compiled anew, by `regex`, which can be stopped. Left out are
its public addresses (they are no secrets) and two of which it sees only the beginning, private keys and JSON web tokens, which are here.

Prose is spared: a form of a provider counts only with a digit in it, a password after its name only if it does not read like a word, a
random string only if it mixes capitals, small letters and digits. A secret with whitespace in it is not promised to be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise

import regex
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.filters import heuristic
from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString
from detect_secrets.plugins.keyword import DENYLIST

from services.screening.clock import Deadline
from services.screening.spans import Span, windows

NOT_TAKEN = ("Public IP (ipv4)", "Private Key", "JSON Web Token")
NO_DIGIT_NEEDED = ("Basic Auth Credentials",)
KNOWN_RANK, NAMED_RANK, RANDOM_RANK = 0, 3, 4
OWN_FORMS = {
    # To its end, or to the last line of its body where the end was cut off.
    "private_key": r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----BEGIN)[\s\S])*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?:\s*+[A-Za-z0-9+/=]{16,}+)*+)"
    r"|PuTTY-User-Key-File-\d:(?:(?!PuTTY-User-Key-File)[\s\S])*?Private-MAC: *\w++",
    "json_web_token": r"\beyJ[\w-]{6,}+\.[\w-]{6,}+(?:\.[\w-]++)?",
    "api_key": r"\b(?:sk-(?:ant|proj|svcacct|admin)-[\w-]{24,}+|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}+|github_pat_\w{30,}+|xai-\w{30,}+"
    r"|gsk_\w{30,}+|whsec_[A-Za-z0-9+/=]{24,}+|ck_[\w-]{32}(?![\w-]))",
    "bearer_token": r"(?i:\bbearer) +(?P<value>(?=[^\s]*\d)[A-Za-z0-9._~+/=-]{20,}+)",
}
CREDENTIAL, RANDOM = "credential", "random_string"
NAMES = "|".join((*DENYLIST, "api[ -]key", "passphrase", "passcode", "access[_ -]?token", "auth[_ -]?token"))
NAMED = regex.compile(
    rf"(?i)(?:{NAMES})(?:\w{{0,40}}[\"'\]]{{1,2}}|\w{{0,40}})[ \t]{{0,3}}(?P<sign>:=|=>|={{1,3}}|:|\bis\b|\bwas\b)[ \t]{{0,3}}"
    r"(?P<quote>[\"'`]?)(?P<value>[^\s\"'`,;]{6,}+)(?P<closed>(?P=quote))?"
)
SENTENCE_END = ".!?):"
NOT_A_SECRET = regex.compile(r"(?:https?:|[/~$]|\./|[\w.]+[(\[])")
"""How links, paths, variables and calls begin."""
LONG = regex.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{24,}+={0,2}")
LEAST_OF_EACH = 2
"""Capitals, small letters and digits in a random string."""
LEAST_CHANGES = 0.4
"""Of neighbours, the share that is of different sorts. Random strings have 0.6, names that join words 0.3."""
ENTROPY = Base64HighEntropyString()
LEAST_ENTROPY = 4.0
"""Bits a character. Of random strings of 32 characters one in 25 has less, of 40 one in 80."""
REST = regex.compile(r"[A-Za-z0-9_-]*+")


def kinds() -> list[str]:
    """Every kind there is."""
    return sorted({*OWN_FORMS, *(kind for kind, *_ in _provider_forms()), CREDENTIAL, RANDOM})


@cache
def _own_forms() -> tuple[tuple[str, regex.Pattern[str]], ...]:
    return tuple((kind, regex.compile(expression)) for kind, expression in OWN_FORMS.items())


@cache
def _provider_forms() -> tuple[tuple[str, regex.Pattern[str], bool], ...]:
    """Of known keys the kind, the expression, and whether what it finds must have a digit."""
    forms: list[tuple[str, regex.Pattern[str], bool]] = []
    plugins: Mapping[str, type[BasePlugin]] = get_mapping_from_secret_type_to_class()
    for name, plugin in sorted(plugins.items()):
        if issubclass(plugin, RegexBasedDetector) and name not in NOT_TAKEN:
            kind = regex.sub(r"\W+", "_", name).lower()
            forms += [(kind, regex.compile(form.pattern, form.flags), name not in NO_DIGIT_NEEDED) for form in plugin().denylist]
    return tuple(forms)


def found(text: str, deadline: Deadline) -> Iterator[Span]:
    """Secrets in a text; raises TimeoutError or TooSlow when the deadline has passed."""
    for kind, own in _own_forms():
        for match in own.finditer(text, timeout=deadline.left()):
            yield Span.over(match.span("value" if "value" in own.groupindex else 0), kind, KNOWN_RANK)
    for begin, end in windows(text):
        yield from _provided(text, begin, end, deadline)
    yield from _named(text, deadline)
    for match in LONG.finditer(text, timeout=deadline.left()):
        if _random(match[0]):
            yield Span.over(match.span(), RANDOM, RANDOM_RANK)


def _provided(text: str, begin: int, end: int, deadline: Deadline) -> Iterator[Span]:
    """Keys of known providers in a part of the text, for some of the forms take the square of its length."""
    for kind, form, digit in _provider_forms():
        for match in form.finditer(text, begin, end, timeout=deadline.left()):
            value = match[0].strip()
            if not digit or any(sign.isdigit() for sign in value):
                start = match.start() + match[0].index(value)
                stop = start + len(value)
                # A key may be longer than its form was when the form was written down: nothing of it stays.
                rest = REST.match(text, stop).end() if REST.fullmatch(value[-1]) else stop
                yield Span(start, rest, kind, KNOWN_RANK)


def _named(text: str, deadline: Deadline) -> Iterator[Span]:
    """What follows `password:`, `api_key =` or `secret is`."""
    for match in NAMED.finditer(text, timeout=deadline.left()):
        value = match["value"] if match["quote"] else match["value"].rstrip(SENTENCE_END)
        quoted = bool(match["quote"]) and match["closed"] is not None
        if len(value) >= 6 and _is_secret(value, quoted, said=match["sign"].isalpha()):
            start = match.start("value")
            yield Span(start, start + len(value), CREDENTIAL, NAMED_RANK)


def _is_secret(value: str, quoted: bool, said: bool) -> bool:
    """Rather than a word of prose. What was only said (`the password is ...`) must have a digit, what was assigned may be odd otherwise."""
    if NOT_A_SECRET.match(value) or heuristic.is_templated_secret(value) or not any(sign.isalnum() for sign in value):
        return False
    if quoted or any(sign.isdigit() for sign in value):
        return True
    return not said and not regex.fullmatch(r"[\w.-]+", value)


def _random(value: str) -> bool:
    """Does it look as if drawn by chance?"""
    sorts = [_sort(sign) for sign in value if sign.isalnum()]
    if min(sorts.count(sort) for sort in (0, 1, 2)) < LEAST_OF_EACH or heuristic.is_sequential_string(value):
        return False
    changes = sum(one != other for one, other in pairwise(sorts)) / (len(sorts) - 1)
    return changes >= LEAST_CHANGES and ENTROPY.calculate_shannon_entropy(value) >= LEAST_ENTROPY


def _sort(sign: str) -> int:
    return 0 if sign.islower() else 1 if sign.isupper() else 2
