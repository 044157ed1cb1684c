"""Sections of a report as Markdown or HTML: one table of contents, two writers.

Whatever a text holds stays text in both. The HTML is one page that asks for nothing else: no script, no font, no picture.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from services.night_report import Section

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}th,td{border:1px solid #ccc;padding:.2rem .6rem;text-align:left;overflow-wrap:anywhere}"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}"
)
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")
"""What Markdown would take for a sign of its own."""


def markdown(sections: Sequence[Section]) -> str:
    return "\n\n".join(part for number, section in enumerate(sections) for part in _markdown(section, number == 0)) + "\n"


def page(sections: Sequence[Section]) -> str:
    """A whole HTML page."""
    body = "".join(_html(section, number == 0) for number, section in enumerate(sections))
    title = html.escape(sections[0].title)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _markdown(section: Section, first: bool) -> Iterable[str]:
    yield f"{'#' if first else '##'} {_plain(section.title)}"
    yield from (_plain(line) for line in section.lines)
    if section.rows:
        rows = [section.head, ("---",) * len(section.head)]
        yield "\n".join(
            f"| {' | '.join(cells)} |" for cells in [*rows, *(tuple(_plain(cell) for cell in row) for row in section.rows)]
        )


def _html(section: Section, first: bool) -> str:
    tag = "h1" if first else "h2"
    text = f"<{tag}>{html.escape(section.title)}</{tag}>" + "".join(f"<p>{html.escape(line)}</p>" for line in section.lines)
    if not section.rows:
        return text
    rows = "".join(f"<tr>{_cells('td', row)}</tr>" for row in section.rows)
    return f"{text}<table><thead><tr>{_cells('th', section.head)}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(tag: str, cells: Iterable[str]) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)


def _plain(text: str) -> str:
    """On one line, with nothing in it that Markdown would read."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
