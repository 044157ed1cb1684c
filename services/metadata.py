"""What clients call things, and what they write on objects for themselves: short texts, and a few pairs of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

METADATA_PAIRS, METADATA_KEY, METADATA_VALUE = 16, 64, 512
"""OpenAI's limits: pairs, characters of a key, characters of a value."""
NUL = "\0"


def _metadata(given: dict[str, str]) -> dict[str, str]:
    if len(given) > METADATA_PAIRS:
        raise ValueError(f"metadata has {len(given)} pairs; keep {METADATA_PAIRS} of them")
    for key, value in given.items():
        if NUL in key or NUL in value:
            raise ValueError("metadata has a text with a NUL character (\\u0000), which no database finds again; leave it out")
        if len(key) > METADATA_KEY or len(value) > METADATA_VALUE:
            raise ValueError(
                f"metadata {key[:METADATA_KEY]!r}: keys have at most {METADATA_KEY} characters, values {METADATA_VALUE}"
            )
    return given


Metadata = Annotated[dict[str, str], AfterValidator(_metadata)]


def _no_nul(given: str) -> str:
    if NUL in given:
        raise ValueError("it has a NUL character (\\u0000), which no database keeps; leave it out")
    return given


Line = Annotated[str, AfterValidator(_no_nul)]
ShortText = Annotated[Line, Field(min_length=1, max_length=256)]
