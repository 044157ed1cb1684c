"""The tables of docs/accelerator.md, made of the result, so that no number there is typed by hand.

Bold is where we lose: where another contender needs less than BETTER of ours, or memory costs more than LIMIT where it may not.
"""

from __future__ import annotations

from typing import Any

from benchmarks.page import DOCS

PAGE = DOCS / "accelerator.md"
OURS = "circadian"
UNFIT = "did not fit"
BETTER = 0.97
"""Less is noise."""
LIMIT, LIMITED = 0.05, ("memory-16", "packed-16", "aligned-16")
"""What 16 experts may cost where memory lies by default (docs/serving-speed.md)."""
Result = dict[str, Any]


def tables(result: Result) -> str:
    """As Markdown; a part that was not measured has no table."""
    makers = {
        "correctness": _correctness,
        "forward": _forward,
        "learner": _learner,
        "divergence": _divergence,
        "delivery": _delivery,
    }
    return "\n\n".join(
        "\n".join([*_made(result, part), "", *make(result[part])]) for part, make in makers.items() if part in result
    )


def _made(result: Result, part: str) -> list[str]:
    """On what, with what."""
    made = result["made"][part]
    return [f"### {part.capitalize()}", "", *sorted({_where(one) for one in made.values()})]


def _where(made: Result) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items() if number)
    return f"{made['device']['name']}, {made['dtype']}; {versions}."


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*titles: str) -> list[str]:
    return [_row(*titles), "|" + "---|" * len(titles)]


def _correctness(part: Result) -> list[str]:
    names = list(part)
    promises = list(dict.fromkeys(promise for shape in part.values() for promise in shape))
    held = {True: "held", False: "**broken**", None: ""}
    return [*_head("promise", *names), *(_row(promise, *(held[part[name].get(promise)] for name in names)) for promise in promises)]


def _forward(part: Result) -> list[str]:
    """What each contender costs beyond the base: by CUDA graph, and of one read as Hugging Face calls it."""
    lines: list[str] = []
    for shape, found in part.items():
        if not _fits(found):
            lines += [f"{shape}: {UNFIT}.", ""]
            continue
        reads = {read: ways for read, ways in found.items() if isinstance(ways, dict) and "eager" in ways}
        columns = [(f"{read}, graph", ways["graph"], ways) for read, ways in reads.items() if "graph" in ways]
        columns += [(f"{read}, eager", ways["eager"], ways) for read, ways in [*reads.items()][:1]]
        layers = ", ".join(map(str, found["layers"]))
        lines += [
            f"{shape}, memory in layers {layers}; LoRA by {found['lora']}:",
            "",
            *_head("", "weights", *(one[0] for one in columns)),
        ]
        base = found["bytes"]["base"]
        if all("floor_ms" in ways for _, _, ways in columns):
            lines.append(_row("floor of the base", "", *(f"{ways['floor_ms']['base']:.2f} ms" for _, _, ways in columns)))
        lines.append(_row("base", f"{base / 1e9:.2f} GB", *(f"{times['base']['ms']:.2f} ms" for _, times, _ in columns)))
        for name, size in found["bytes"].items():
            if name != "base":
                cells = [_cost(name, times[name]["ratio"] - 1, times["base"]["ms"]) for _, times, _ in columns]
                lines.append(_row(name, f"{size / base - 1:+.1%}", *cells))
        lines.append("")
    return lines[:-1]


def _cost(name: str, cost: float, base: float) -> str:
    """base: its milliseconds."""
    text = f"**{cost:+.1%}**" if name in LIMITED and cost > LIMIT else f"{cost:+.1%}"
    return f"{text} ({cost * base:.2f} ms)"


def _learner(part: Result) -> list[str]:
    """Tokens a second, and bytes at the peak of a step."""
    found = {f"{shape}/{point}": numbers for shape, points in part.items() if _fits(points) for point, numbers in points.items()}
    names = list(dict.fromkeys(name for numbers in found.values() for name in numbers))
    lines = _head("rows", "", f"{OURS}, rows met once", *names)
    for point, numbers in found.items():
        ours = numbers[OURS]
        once = f"{ours['tokens_per_second_once']:,}" if _fits(ours) else ""
        teaching = f"{ours['teach_ms']:,.1f} of teaching" if _fits(ours) else ""
        night = f"{_gb(_peak(ours, 'night_bytes'))} with a night's lessons" if _fits(ours) else ""
        lines.append(_row(point, "tokens/s", once, *(_speed(numbers.get(name), ours, name) for name in names)))
        lines.append(_row("", "ms a step", teaching, *(_step(numbers.get(name)) for name in names)))
        lines.append(_row("", "GB at the peak", night, *(_memory(numbers.get(name), ours, name) for name in names)))
    return [*lines, *(_row(shape, UNFIT, *[""] * (len(names) + 1)) for shape, points in part.items() if not _fits(points))]


def _fits(numbers: Result | None) -> bool:
    return numbers is not None and not numbers.get("out_of_memory")


def _speed(theirs: Result | None, ours: Result, name: str) -> str:
    if theirs is None:
        return ""
    if not _fits(theirs):
        return UNFIT
    text = f"{theirs['tokens_per_second']:,}"
    return f"**{text}**" if name != OURS and ours.get("tokens_per_second", 0) < BETTER * theirs["tokens_per_second"] else text


def _memory(theirs: Result | None, ours: Result, name: str) -> str:
    """Bold also where ours needs more with the lessons of a whole night."""
    if theirs is None or not _fits(theirs):
        return ""
    mine = _peak(ours, "night_bytes") if _fits(ours) else 0
    return f"**{_gb(_peak(theirs))}**" if name != OURS and _peak(theirs) < BETTER * mine else _gb(_peak(theirs))


def _peak(numbers: Result, lessons: str = "lesson_bytes") -> int:
    """Of a step, with so many lessons."""
    others = numbers.get(lessons, 0) - numbers.get("lesson_bytes", 0)
    return numbers["held_bytes"] + numbers["step_bytes"] + others


def _step(numbers: Result | None) -> str:
    return f"{numbers['step_ms']:,.1f}" if numbers is not None and _fits(numbers) else ""


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}"


def _divergence(part: Result) -> list[str]:
    """Milliseconds of loss and gradient, bytes, and errors against float64."""
    lines = _head("shape, tokens", "", "ms", "GB", "loss error: far", "near", "gradient error: far", "near")
    for shape, dtypes in part.items():
        if not _fits(dtypes):
            lines.append(_row(shape, UNFIT, *[""] * 6))
            continue
        for dtype, sizes in dtypes.items():
            for tokens, contenders in sizes.items():
                lines += [_row(f"{shape}, {dtype}, {tokens}", *_compared(name, contenders)) for name in contenders]
    return lines


def _compared(name: str, contenders: Result) -> list[str]:
    mine, ours = contenders[name], contenders["chunked"]
    title = f"{name} (teacher's slope: {mine['kept_ms']:.1f} ms, once)" if "kept_ms" in mine else name
    cells = [(mine["ms"], ours["ms"], f"{mine['ms']:.2f}"), (mine["bytes"], ours["bytes"], _gb(mine["bytes"]))]
    for what in ("loss_error", "gradient_error"):
        cells += [(mine[away][what], ours[away][what], f"{mine[away][what]:.1e}") for away in ("far", "near")]
    return [title, *(f"**{text}**" if theirs < BETTER * own else text for theirs, own, text in cells)]


def _delivery(part: Result) -> list[str]:
    lines = _head("delivery", "", "MB", "p50 ms", "p99 ms", "times")
    for shape, found in part.items():
        if not _fits(found):
            lines.append(_row(shape, UNFIT, *[""] * 4))
            continue
        for what in ("expert", "version", "full"):
            if what in found:
                one = found[what]
                numbers = [f"{one['bytes'] / 1e6:,.1f}", f"{one['p50_ms']:,.1f}", f"{one['p99_ms']:,.1f}", str(one["times"])]
                lines.append(_row(shape, what, *numbers))
    said = [
        f"{shape}: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in found["parts"].items())
        for shape, found in part.items()
        if _fits(found)
    ]
    return [*lines, "", f"Of a delivery of one expert, each alone: {'; '.join(said)}."]
