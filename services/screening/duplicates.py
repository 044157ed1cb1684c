"""Whether two texts are nearly the same, by signatures that a database can keep and look up.

The signature of a text is 120 minimal hashes of its words and word pairs (MinHash), 481 bytes; the share of hashes that two signatures have
in common estimates the share of words and pairs that the texts have in common, with a standard deviation of 0.04 or less. A text of fewer
than eight words has too few of them: its signature is one hash of all its words, 17 bytes, and only the same words are similar. Words are
those of `folding.plain`, so that disguises of letters and spaces make no difference. The first byte tells the two apart, and either from
what a later version of this file may write.

To find what is similar among many, keep one row (band, experience) for each of `bands(signature)`, with an index on band, and ask
`SELECT DISTINCT experience ... WHERE band IN (...)`. Of texts that are 0.85 alike 0.9999 share a band, of texts that are 0.7 alike 0.92,
of texts that are 0.3 alike 0.014. Then compare the signatures.
"""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import regex

from services.screening.folding import plain

if TYPE_CHECKING:
    from datasketch import MinHash

SHORT, LONG = b"\x01", b"\x02"
FEWEST_WORDS = 8
BANDS, ROWS = 20, 6
"""A band is so many of the hashes; one that two signatures share makes them candidates."""
HASHES = BANDS * ROWS
SEED = 1
AT_ONCE = 4096
"""Shingles hashed together, so that a long text takes [shingles, HASHES] numbers of memory for these alone."""
HASH_TYPE = "<u4"
LENGTH = 1 + HASHES * np.dtype(HASH_TYPE).itemsize
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORDS = regex.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]++")
"""Where a script puts no spaces between words, each letter counts as one."""


def signature(text: str) -> bytes:
    """What is compared; the same for the same text in every process and on every machine."""
    words = WORDS.findall(plain(text))
    if len(words) < FEWEST_WORDS:
        said = " ".join(words) or text
        return SHORT + hashlib.blake2b(said.encode(), digest_size=16).digest()
    shingles = [shingle.encode() for shingle in {*words, *(f"{a} {b}" for a, b in pairwise(words))}]
    hashes = _empty().copy()
    for start in range(0, len(shingles), AT_ONCE):
        hashes.update_batch(shingles[start : start + AT_ONCE])
    return LONG + hashes.hashvalues.astype(HASH_TYPE).tobytes()


@cache
def _empty() -> MinHash:
    # Brings scipy (60 MB), so it waits for the first text.
    from datasketch import MinHash

    return MinHash(num_perm=HASHES, seed=SEED, scheme="affine32")


def similar(one: bytes, other: bytes) -> float:
    """How much two texts have in common, by their signatures: 0 to 1."""
    if one[:1] != LONG or other[:1] != LONG:
        return float(one == other)
    return float(np.mean(_hashes(one) == _hashes(other)))


def bands(signature: bytes) -> list[str]:
    """Keys of which similar texts share at least one."""
    if signature[:1] != LONG:
        return [signature.hex()]
    of_band = _hashes(signature).reshape(BANDS, ROWS)
    return [f"{band:02d}-{hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()}" for band, rows in enumerate(of_band)]


def _hashes(signature: bytes) -> np.ndarray:
    if len(signature) != LENGTH:
        raise ValueError(f"a signature of {len(signature)} bytes is not of this version; make it again with signature(text)")
    return np.frombuffer(signature, HASH_TYPE, offset=1)
