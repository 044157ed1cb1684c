"""The picture of traces, drawn from what a collector was sent: a bar a span, by time, and dashed lines where one is linked to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from collector import Got
from matplotlib.figure import Figure

COLOURS = {"SPAN_KIND_SERVER": "#d39a3a", "SPAN_KIND_INTERNAL": "#39456e"}
FAILED = "#c0563b"
SHORTEST = 0.004
"""Of the whole width: a request would not be seen beside a night."""


def draw(traces: Sequence[tuple[str, Sequence[Got]]], path: Path) -> None:
    """Write the picture as PNG. traces: what each is called, and its spans."""
    matplotlib.rcParams.update({"font.size": 9})
    rows = [(title, span, depth) for title, spans in traces for span, depth in _in_order(spans)]
    start, end = min(span.start for _, span, _ in rows), max(span.end for _, span, _ in rows)
    figure = Figure(figsize=(10.5, 0.27 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = {(span.trace, span.id): (row, span) for row, (_, span, _) in enumerate(rows)}
    for row, (title, span, depth) in enumerate(rows):
        colour = FAILED if span.failed else COLOURS[span.span.SpanKind.Name(span.span.kind)]
        width = max(span.end - span.start, SHORTEST * (end - start))
        axes.barh(row, width, left=span.start - start, height=0.62, color=colour, alpha=1.0 if depth < 2 else 0.75)
        told = f"{1000 * (span.end - span.start):.0f} ms" if span.end - span.start < 1 else f"{span.end - span.start:.1f} s"
        axes.text(span.start - start + width, row, f" {told}", va="center", fontsize=7.5, color="#555555")
        if depth == 0:
            axes.axhline(row - 0.5, color="#dddddd", lw=0.8)
            axes.text(1.0, row, f"{title} ", ha="right", va="center", color="#888888", transform=axes.get_yaxis_transform())
        for link in span.span.links:
            if (place := places.get((link.trace_id.hex(), link.span_id.hex()))) is not None:
                there, linked = place
                axes.plot([linked.end - start, span.start - start], [there, row], ls="--", lw=0.8, color="#888888")
    axes.set_yticks(range(len(rows)), ["    " * depth + span.name for _, span, depth in rows], ha="left")
    axes.tick_params(axis="y", pad=185, length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, (end - start) * 1.25)
    axes.set_xlabel("seconds")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _in_order(spans: Sequence[Got], parent: str | None = None, depth: int = 0) -> list[tuple[Got, int]]:
    """Each behind its parent, by time; the first ones are those whose parents are not among them."""
    ids = {span.id for span in spans}
    mine = [span for span in spans if (span.parent not in ids if parent is None else span.parent == parent)]
    found = []
    for span in sorted(mine, key=lambda span: span.start):
        found += [(span, depth), *_in_order(spans, span.id, depth + 1)]
    return found
