"""What must not be stored is replaced, nothing else is, and what was replaced is told nowhere. All numbers and keys are made up."""

from __future__ import annotations

import itertools
import logging
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest

from circadian.specs import RedactionSpec, RuleSpec, ScreeningSpec
from circadian.specs.screening import PiiKind
from services.screening import recognisers
from services.screening.clock import Deadline, TooSlow
from services.screening.redaction import Redacted, redact
from services.screening.spans import Finding, windows

SPEC = ScreeningSpec()
RANDOM = "Lf80gSb7tgNoh0fscA2xMBdK4kCNVKr7NDMGqOxY"
TOKEN = ".".join(("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "3DUd5sOHM59sYzX0himcDQWLThw1w3bOnZja6GX"))
BODY = "\n".join(["hpJrKsg5I+oPIuJ6ItrqSI3WjP1z5k6dsEWtUmD9Y8oj2HU6k9x2qQYTAWzuiWch"] * 3)
BEGIN, END = ("-----" + word + " RSA PRIVATE KEY-----" for word in ("BEGIN", "END"))
FOUND = [
    ("email", "bob.smith+x@mail.example.com", "write to {} today."),
    ("email", "b\u00fcro@exam\u00e4ple.de", "<{}>"),
    ("email", "alice@mail.corp", "her email: {}"),
    ("phone", "+1 (415) 555-2671", "call {}, please"),
    ("phone", "030 901820", "Tel. {} in Berlin"),
    ("phone", "4155552671", "my phone number is {}"),
    ("credit_card", "4111 1111 1111 1111", "card {} it is"),
    ("iban", "DE89 3704 0044 0532 0130 00", "pay to {} now"),
    ("ip_address", "203.0.113.7", "from {}:8080"),
    ("ip_address", "2001:db8::8a2e:370:7334", "host {} is up"),
    ("us_ssn", "536-90-4399", "SSN {}."),
    ("us_itin", "911-70-1234", "itin {}"),
    ("uk_nino", "AB123456C", "national insurance {}"),
    ("crypto_wallet", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "send it to {}"),
    ("crypto_wallet", "0x52908400098527886E0F7030069857D2E4169EE7", "or to {}"),
    ("aws_access_key", "AKIA" + "IOSFODNN7EXAMPLE", "id {} here"),
    ("github_token", "ghp_" + "a1B2" * 9, "with {}, see"),
    ("gitlab_token", "glpat-" + "a1B2c" * 4, "with {}"),
    ("slack_token", "xoxb-" + "123456789-abcdefghij", "bot {}"),
    ("stripe_access_key", "sk_live_" + "a1B2c3" * 4, "pay {}"),
    ("api_key", "sk-ant-" + "a1B2" * 8, "key {}"),
    ("api_key", "ck_" + "a1B2" * 8, "ours {}"),
    ("json_web_token", TOKEN, "session {} ends"),
    ("bearer_token", "abcdefghijklmnopqrst123", "Authorization: Bearer {}"),
    ("basic_auth_credentials", "://admin:s3cret@", "https{}db.example/x"),
    ("private_key", f"{BEGIN}\n{BODY}\n{END}", "it is\n{}\nand so on"),
    ("private_key", f"{BEGIN}\n{BODY}", "it was cut:\n{}\n\nand so on"),
    ("private_key", f"{BEGIN}\n{BODY}\n{END}".replace("\n", "\\n"), '"key": "{}"'),
    ("credential", "hunter2", "my password is {}."),
    ("credential", "correcthorse", "password = '{}'"),
    ("credential", "tr0ub4dor&3", "passphrase: {}, remember"),
    ("credential", "9f8g7h6j5k", '"api_key": "{}"'),
    ("random_string", RANDOM, "take {} for it"),
]
LEFT = [
    "The quick brown fox jumps over the lazy dog in 1989, 2000 times, on pages 100-200.",
    "x = a@b.T + c.T @ d",
    "listen on 127.0.0.1 or ::1 or 0.0.0.0",
    "order 9876543210 of 2024-01-03 12:30, ISBN 978-3-16-148410-0",
    "rows 1 2 3 4 5 6 7 8 9 10, losses 0.992 / 0.995 / 1.836, 1,234,567,890 people",
    "The password is incorrect. The secret is practice. Password: required",
    'password = get_password() and pwd: /home/user/dir and "password": "Password must be long"',
    "password: $PASSWORD, password: <PASSWORD>, api_key=YOUR_API_KEY_HERE",
    "commit a94a8fe5ccb19ba61c4c0873d391e987982fbbd3, uuid e3b0c442-98fc-1c14-9afb-f4c8996fb924",
    "APERIODICALLY, Wav2Vec2Model, transformers/models/qwen3/modeling_qwen3.py, TheQuickBrownFoxJumpsOverTheLazyDog",
    "total tokens: 1000000, keyboard key, tokenizer.json",
]


def rule(name: str, expression: str) -> RuleSpec:
    return RuleSpec(name=name, expression=expression, action="redact")


@pytest.mark.parametrize(("kind", "value", "around"), FOUND)
def test_what_has_the_form_is_replaced_whole_and_told_nowhere(kind: str, value: str, around: str) -> None:
    redacted = redact(around.replace("{}", value), SPEC)
    assert redacted.text == around.replace("{}", f"<{kind.upper()}>")
    assert redacted.findings == (Finding(kind, 1),)
    assert value not in repr(redacted)


@pytest.mark.parametrize("text", LEFT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, SPEC).text == text


def test_a_redacted_text_is_left_as_it_is() -> None:
    everything = " \n".join([*(around.replace("{}", value) for _, value, around in FOUND), *LEFT])
    once = redact(everything, SPEC)
    again = redact(once.text, SPEC)
    assert again.text == once.text
    assert again.findings == ()
    assert not [value for _, value, _ in FOUND if value in once.text]


@pytest.mark.parametrize("seed", range(40))
def test_so_is_any_mixture_of_pieces(seed: int) -> None:
    draw = random.Random(seed)
    pieces = [
        *(value for _, value, _ in FOUND),
        *(around for *_, around in FOUND),
        *LEFT,
        "<EMAIL>",
        "<",
        "@",
        "password: ",
        "::",
        "phone ",
        "12",
    ]
    text = "".join(draw.choice(pieces)[: draw.choice((3, 8, 20, 100))] + draw.choice(("", " ", ", ", "\n")) for _ in range(12))
    spec = SPEC.model_copy(update={"rules": (rule("at", r"\S+@\S*"), rule("capitals", r"\b[A-Z]{5,}\b"))})
    once = redact(text, spec)
    assert redact(once.text, spec) == Redacted(once.text, ())


def test_a_private_key_takes_nothing_of_the_prose_after_it() -> None:
    text = redact(f"{BEGIN}\n{BODY}\nThen we went home, and {BEGIN} is how one begins.", SPEC).text
    assert text == "<PRIVATE_KEY>\nThen we went home, and <PRIVATE_KEY> is how one begins."


@pytest.mark.parametrize("before", [1960, 2000, 2040, 2048, 4015, 4030, 4090])
def test_what_lies_where_the_text_is_cut_into_parts_is_found_whole(before: int) -> None:
    filler = ("word " * 2000)[:before]
    redacted = redact(f"{filler} bob@example.com, {RANDOM}, ghp_{'a1B2' * 9} {filler}", SPEC)
    assert redacted.text == f"{filler} <EMAIL>, <RANDOM_STRING>, <GITHUB_TOKEN> {filler}"


@pytest.mark.parametrize("text", ["x" * 1000, "a word or two " * 70, "x" * 300 + " " + "y" * 700, " " * 500, "short", ""])
def test_whatever_is_no_longer_than_the_overlap_is_whole_in_a_part(text: str) -> None:
    parts = list(windows(text, 100, 20))
    assert all(any(begin <= place and place + 20 <= end for begin, end in parts) for place in range(len(text) - 20 + 1))
    assert [part for part in parts if part[1] - part[0] > 140] == []
    assert {place for begin, end in parts for place in range(begin, end)} == set(range(len(text)))


def test_overlapping_finds_become_one_and_leave_nothing() -> None:
    rules = (rule("name", "bob@exam"), rule("host", r"example\.com/\w+"))
    redacted = redact("see bob@example.com/private now", SPEC.model_copy(update={"rules": rules}))
    assert redacted.text == "see <HOST> now"
    assert redacted.findings == (Finding("host", 1),)


def test_the_order_of_rules_and_kinds_does_not_matter() -> None:
    text = "TCK-123456 of bob@example.com, 203.0.113.7, TCK-1 at 415-555-2671 says password: hunter22"
    rules = (rule("ticket", r"TCK-\d+"), rule("number", r"\d{6}"), rule("mail", r"bob\S+"))
    results = set()
    for order in itertools.permutations(range(3)):
        redaction = SPEC.redaction.model_copy(update={"kinds": tuple(SPEC.redaction.kinds[place] for place in (*order, 3, 4))})
        spec = SPEC.model_copy(update={"rules": tuple(rules[place] for place in order), "redaction": redaction})
        results.add(redact(text, spec))
    assert len(results) == 1


@pytest.mark.parametrize(
    ("expression", "text", "kept"),
    [
        ("[A-Z]+", "OK <EMAIL> go", "<X> <EMAIL> go"),
        (".+", "all of it", "<X>"),
        (".", "abc", "<X>"),
        ("of <E", "mail of <EMAIL>", "mail <X>"),
        (r"\w+ <EMAIL> \w+", "mail to <EMAIL> at noon", "mail <X> noon"),
    ],
)
def test_placeholders_are_never_broken(expression: str, text: str, kept: str) -> None:
    spec = SPEC.model_copy(update={"rules": (rule("x", expression),)})
    assert redact(text, spec).text == kept
    assert redact(kept, spec).findings == ()


def test_a_rule_that_would_eat_its_way_on_is_no_endless_loop() -> None:
    spec = SPEC.model_copy(update={"rules": (rule("x", "^[a-z]|(?<=>)[a-z]"),)})
    assert redact("abc", spec).text == "<X><X><X>"
    with pytest.raises(TooSlow):
        redact("abcdefgh", spec)


def test_a_text_that_looks_like_a_placeholder_hides_nothing() -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLE"
    assert redact(f"<{key}> and <DE89370400440532013000>", SPEC).text == "<<AWS_ACCESS_KEY>> and <<IBAN>>"


def test_redaction_is_switched_off_as_a_whole_and_in_parts() -> None:
    text = "bob@example.com with password: hunter22 from 203.0.113.7"
    assert redact(text, ScreeningSpec(redaction=RedactionSpec(on=False))).text == text
    assert redact(text, ScreeningSpec(redaction=RedactionSpec(kinds=()))).text == text.replace("hunter22", "<CREDENTIAL>")
    only = ScreeningSpec(redaction=RedactionSpec(kinds=("ip_address",), secrets=False))
    assert redact(text, only).text == text.replace("203.0.113.7", "<IP_ADDRESS>")
    sure = ScreeningSpec(redaction=RedactionSpec(min_score=0.9, secrets=False))
    assert redact(text, sure).text == text.replace("bob@example.com", "<EMAIL>")


def test_every_kind_has_a_recogniser() -> None:
    supported = recognisers.build("en", ("US",)).get_supported_entities("en")
    assert {kind.upper() for kind in get_args(PiiKind)} == set(supported)


def test_nothing_is_looked_up_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*where: object, **_: object) -> None:
        asked.append(where)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    fresh = recognisers.build("en", ("US",))
    assert fresh.analyze("write to bob@example.com", "en", entities=["EMAIL"], score_threshold=0.9)
    assert asked == []


def test_no_log_quotes_the_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        redact("Zebedee, my phone number is 4155552671", SPEC)
    assert "zebedee" not in caplog.text.lower()
    assert "4155552671" not in caplog.text


def test_threads_share_the_analyzer() -> None:
    text = "\n".join(around.replace("{}", value) for _, value, around in FOUND)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: redact(text, SPEC), range(8)))) == 1


def test_a_text_without_time_is_not_half_redacted() -> None:
    with pytest.raises(TooSlow):
        redact("bob@example.com", SPEC, Deadline(0.0))
