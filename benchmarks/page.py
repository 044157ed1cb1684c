"""Tables of the pages in docs/ that a benchmark makes of its result, so that no number there is typed by hand."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put(page: Path, maker: str, table: str) -> None:
    """Put a table between the maker's two marks in a page, in the place of the one that is there."""
    begin, end = (f"<!-- made by {maker}: {edge} -->" for edge in ("begin", "end"))
    head, rest = page.read_text().split(begin)
    page.write_text(f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}")
