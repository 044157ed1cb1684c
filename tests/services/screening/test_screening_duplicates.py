"""Nearly the same is found, what is different is not, and a database finds both by an index."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from itertools import pairwise

import pytest

from services.screening.duplicates import bands, signature, similar

STORY = (
    "Last spring the harbour office moved its records from the old mill to a brick house near the bridge, because the river had come into "
    "the cellar three winters in a row. Nobody threw anything away; the clerk numbered every box, wrote down who had asked for it since "
    "the war, and found that most of them had been opened once, by the same retired captain, who was looking for a boat that never was."
)


def edited(text: str, changes: int, seed: int = 0) -> str:
    """With so many words replaced."""
    words = text.split()
    for place in random.Random(seed).sample(range(len(words)), changes):
        words[place] = f"edit{place}"
    return " ".join(words)


def texts(count: int, words: int = 40) -> list[str]:
    """Different ones, of a common vocabulary."""
    draw = random.Random(1)
    vocabulary = [f"word{number}" for number in range(500)]
    return [" ".join(draw.choices(vocabulary, k=words)) for _ in range(count)]


def test_a_signature_is_the_same_wherever_it_is_made() -> None:
    # Stored signatures are compared with ones made years later: if this changes, the first byte of a signature must, too.
    assert hashlib.sha256(signature(STORY)).hexdigest() == "c58365ee37d7b55e5ca02b759a8fb072c1587789556afe5e3f0b62fc17dc6e2f"
    assert signature("Only a few words").hex() == "017fcf0a16050355cda6a62aadd628f859"


@pytest.mark.parametrize(
    "copy",
    [
        STORY,
        STORY.upper(),
        STORY.replace(" ", "  \n"),
        STORY.replace("a", "\u0430"),
        STORY.replace("e", "e\u200b"),
        STORY.replace(";", " --").replace(",", ""),
    ],
)
def test_disguises_are_exact_copies(copy: str) -> None:
    assert similar(signature(STORY), signature(copy)) == 1.0


@pytest.mark.parametrize("copy", [edited(STORY, 1), edited(STORY, 2), edited(STORY, 3), STORY + " And so on.", "Well. " + STORY])
def test_small_edits_are_near_duplicates(copy: str) -> None:
    assert 0.85 <= similar(signature(STORY), signature(copy)) < 1.0
    assert set(bands(signature(STORY))) & set(bands(signature(copy)))


@pytest.mark.parametrize(
    "other",
    [
        edited(STORY, 40),
        " ".join(reversed(STORY.split()[:40])),
        "The capital of France is Paris, and the capital of Spain is Madrid.",
        "Only a few words",
        "",
    ],
)
def test_different_texts_are_not(other: str) -> None:
    assert similar(signature(STORY), signature(other)) < 0.5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The dog bites the man.", "the  DOG bites: the man", True),
        ("The dog bites the man.", "The man bites the dog.", False),
        ("Paris is in France", "Paris is in Spain", False),
        ("\U0001f600\U0001f600", "\U0001f600\U0001f600", True),
        ("\U0001f600", "\U0001f680", False),
    ],
)
def test_short_texts_are_copies_if_all_words_are_the_same(one: str, other: str, same: bool) -> None:
    assert similar(signature(one), signature(other)) == float(same)
    assert (bands(signature(one)) == bands(signature(other))) is same


def test_a_text_without_spaces_has_words_too() -> None:
    text = (
        "\u6625\u7720\u4e0d\u89ba\u66c9\u8655\u8655\u805e\u557c\u9ce5\u591c\u4f86\u98a8\u96e8\u8072\u82b1\u843d\u77e5\u591a\u5c11"
        * 2
    )
    assert similar(signature(text), signature(text + "\u6708")) > 0.85
    assert similar(signature(text), signature(text[::-1])) < 0.7


def test_similarity_estimates_what_is_in_common() -> None:
    for seed in range(5):
        for changes in (2, 6, 12):
            one, other = (
                set(words) | set(pairwise(words)) for words in (STORY.lower().split(), edited(STORY, changes, seed).lower().split())
            )
            truth = len(one & other) / len(one | other)
            assert similar(signature(STORY), signature(edited(STORY, changes, seed))) == pytest.approx(truth, abs=0.15)


def test_one_indexed_query_finds_the_copies_and_little_else() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE bands (band TEXT, experience INTEGER)")
    database.execute("CREATE INDEX by_band ON bands (band)")
    stored = texts(1000)
    for number, text in enumerate(stored):
        database.executemany("INSERT INTO bands VALUES (?, ?)", [(band, number) for band in bands(signature(text))])
    others = 0
    for number in range(0, 1000, 20):
        keys = bands(signature(edited(stored[number], 1)))
        query = f"SELECT DISTINCT experience FROM bands WHERE band IN ({','.join('?' * len(keys))})"
        plan = database.execute(f"EXPLAIN QUERY PLAN {query}", keys).fetchall()
        assert "by_band" in str(plan)
        candidates = {experience for (experience,) in database.execute(query, keys)}
        assert number in candidates
        others += len(candidates) - 1
    assert others < 50


@pytest.mark.parametrize("broken", [b"\x02", b"\x02" + bytes(100), b"\x02" + bytes(484)])
def test_a_signature_of_another_version_is_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match="make it again"):
        similar(broken, signature(STORY))
    with pytest.raises(ValueError, match="make it again"):
        bands(broken)
