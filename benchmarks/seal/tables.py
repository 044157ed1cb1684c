"""What a run found, in the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def table(result: dict[str, Any]) -> Table:
    """Accuracy by round of every arm, and what its rounds took."""
    rounds = max((len(record["rounds"]) for record in result["methods"].values()), default=1)
    titles = ["before any round", *(f"after {n}" for n in range(1, rounds))]
    found = Table("arm", *titles, "tried", "rewarded", "token passes", title=f"{result['protocol']}, {result['model']['model']}")
    for arm, record in result["methods"].items():
        accuracy = [f"{told['accuracy']:.3f}" for told in record["rounds"]]
        learned = record["learned"]
        passes = learned[-1]["passes"] if learned else None
        found.add_row(
            arm,
            *accuracy,
            *[""] * (rounds - len(accuracy)),
            *(str(sum(told[name] for told in learned)) if learned else "" for name in ("tried", "rewarded")),
            "" if passes is None else f"{passes / 1e6:.2f} M",
        )
    return found
