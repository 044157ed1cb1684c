"""What names a person in a text by its form (addresses, numbers), found by presidio's recognisers and their check digits.

No model is loaded and nothing is fetched: presidio gets words from a regular expression, so that it can look for "phone" before a number,
and the public suffixes of e-mail addresses come from the copy inside tldextract. Importing presidio brings spaCy, torch and transformers
where they are installed (450 MB and 5 seconds), so that waits for the first text. The analyzer is one for all threads: it keeps
nothing of what it reads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from circadian.specs.screening import RedactionSpec
from services.screening.clock import Deadline
from services.screening.spans import Span, windows

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

PII_RANK = 2
LANGUAGE = "en"
WINDOW, OVERLAP = 2048, 256
"""Characters: presidio looks for the words before each find among all words it was given."""
_building = threading.Lock()


def found(text: str, spec: RedactionSpec, deadline: Deadline) -> Iterator[Span]:
    """What is of the spec's kinds, with its score or more; raises TooSlow when the deadline has passed."""
    entities = [kind.upper() for kind in spec.kinds]
    if not entities:
        return
    reader = analyzer(spec.phone_regions)
    for begin, end in windows(text, WINDOW, OVERLAP):
        deadline.left()
        for result in reader.analyze(text[begin:end], LANGUAGE, entities=entities, score_threshold=spec.min_score):
            yield Span(begin + result.start, begin + result.end, result.entity_type.lower(), PII_RANK)


def analyzer(phone_regions: tuple[str, ...]) -> AnalyzerEngine:
    """The analyzer for these regions, built once."""
    with _building:
        return _built(phone_regions)


@cache
def _built(phone_regions: tuple[str, ...]) -> AnalyzerEngine:
    # At debug level presidio writes words of the texts it reads.
    logging.getLogger("presidio-analyzer").setLevel(logging.WARNING)
    # Takes seconds and hundreds of megabytes: see above.
    from services.screening.recognisers import build

    return build(LANGUAGE, phone_regions)
