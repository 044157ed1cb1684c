"""presidio with the recognisers that need no model, each told what this service calls its kind. `pii.py` imports this at the first text."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import regex
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, Pattern, PatternRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts, NoOpNlpEngine
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    CryptoRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    MacAddressRecognizer,
    NhsRecognizer,
    PhoneRecognizer,
    UkNinoRecognizer,
    UsItinRecognizer,
    UsSsnRecognizer,
)
from spacy.lang.en.stop_words import STOP_WORDS
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tldextract import TLDExtract

WORD = regex.compile(r"<[A-Z][A-Z0-9_]*+>|[^\W_]++|[^\s]")
WEAK = 0.3
"""Of a form that much else has, too: with a word before it that says what it is, presidio makes it 0.65."""
DIGITS = regex.compile(r"(?<!\w)[+(]{0,2}\d(?:[ \t\u00a0().\-\u2010-\u2015/]{0,3}\d){6,40}+")
"""Where a phone number may be, or several. Only that is read by phonenumbers, once for every region."""
STRICT_GROUPING = 2
"""phonenumbers' leniency: the groups of digits are as that country writes them. With less, rows of numbers are phone numbers."""
ADDRESS = (
    r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w!#$%&'*+/=?^`{|}~-][\w.!#$%&'*+/=?^`{|}~-]{0,63}+@(?:\w[\w-]{0,62}+\.){1,8}\w[\w-]{1,62}+"
)
"""Of an e-mail: in time that grows with the text and no more, which presidio's own expression does not promise."""


class Words(NoOpNlpEngine):
    """A text's words as they stand there, for presidio to find the ones before a number. Placeholders say nothing about what follows."""

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        found = list(WORD.finditer(text))
        words = [match[0] for match in found]
        return NlpArtifacts(
            entities=[],
            # A vocabulary for this text alone: a shared one would keep its words for good.
            tokens=Doc(Vocab(), words=words),
            tokens_indices=[match.start() for match in found],
            lemmas=["" if word.startswith("<") else word.lower() for word in words],
            nlp_engine=self,
            language=language,
        )

    def is_stopword(self, word: str, language: str) -> bool:
        return word in STOP_WORDS

    def is_punct(self, word: str, language: str) -> bool:
        return not word.isalnum()


class Email(EmailRecognizer):
    """An address under a public suffix for certain, any other only where the text says so: `a@b.T` is a product of matrices."""

    def __init__(self) -> None:
        super().__init__(supported_entity="EMAIL", patterns=[Pattern("email", ADDRESS, WEAK)], context=["email", "mail", "contact"])
        self._suffix = TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)

    def validate_result(self, pattern_text: str) -> bool | None:
        return True if self._suffix(pattern_text).suffix else None


class Phone(PhoneRecognizer):
    """Digits alone may be anything: they count where the text says phone."""

    def __init__(self, regions: Sequence[str]) -> None:
        super().__init__(supported_entity="PHONE", supported_regions=regions, leniency=STRICT_GROUPING)

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None) -> list[RecognizerResult]:
        results = []
        for digits in DIGITS.finditer(text):
            for result in super().analyze(digits[0], entities):
                result.start, result.end = result.start + digits.start(), result.end + digits.start()
                if text[result.start : result.end].isdigit():
                    result.score = WEAK
                results.append(result)
        return results


class Ip(IpRecognizer):
    """An address that leads to somebody: not one's own machine, not none."""

    def invalidate_result(self, pattern_text: str) -> bool:
        if super().invalidate_result(pattern_text):
            return True
        address = ipaddress.ip_interface(pattern_text).ip
        return address.is_loopback or address.is_unspecified


def build(language: str, regions: Sequence[str]) -> AnalyzerEngine:
    """An analyzer of these recognisers and no others. Of the regions, phone numbers are known without their country's code."""
    ethereum = Pattern("ethereum", r"\b0x[0-9a-f]{40}\b", 0.5)
    recognisers: Sequence[EntityRecognizer] = [
        Email(),
        Phone(regions),
        CreditCardRecognizer(supported_entity="CREDIT_CARD"),
        IbanRecognizer(supported_entity="IBAN"),
        Ip(supported_entity="IP_ADDRESS"),
        UsSsnRecognizer(supported_entity="US_SSN"),
        UsItinRecognizer(supported_entity="US_ITIN"),
        UkNinoRecognizer(supported_entity="UK_NINO"),
        NhsRecognizer(supported_entity="UK_NHS"),
        CryptoRecognizer(supported_entity="CRYPTO_WALLET"),
        PatternRecognizer("CRYPTO_WALLET", name="ethereum", patterns=[ethereum]),
        MacAddressRecognizer(supported_entity="MAC_ADDRESS"),
    ]
    engine = Words([{"lang_code": language, "model_name": ""}])
    return AnalyzerEngine(RecognizerRegistry(recognisers, supported_languages=[language]), engine, supported_languages=[language])
