"""Rows that share a row."""

import pytest

from circadian.objectives.packing import ROW_TOKENS, pack


@pytest.mark.parametrize("lengths", [[5], [9, 11, 48, 3, 12] * 7, [ROW_TOKENS] * 3, [200, 30, 30, 199, 150, 40]])
def test_every_text_lies_in_one_row_and_no_row_is_longer_than_it_must_be(lengths: list[int]) -> None:
    bins = pack(lengths)
    assert sorted(text for row in bins for text in row) == list(range(len(lengths)))
    widest = max(sum(lengths[text] for text in row) for row in bins)
    assert widest <= max(ROW_TOKENS, *lengths)


def test_short_texts_fill_the_rows_that_a_long_one_makes() -> None:
    assert len(pack([200, *[20] * 9])) == 2
