"""What a version remembers of its dreams, in its folder beside the memory, which it is no part of: nobody who is served hears it.

    dreamer/         the adapter with which it dreams, as peft has it
    standings.json   of every context that a recipe gave, how it stood before each night's dreams: {digest: [score, ...]}, no text

The next night's dreamer goes on from the first, the next night's curriculum from the second. version.json has the SHA-256 of all of it,
what the dreamer was trained on, and how far that is trusted: whatever it dreams is trusted no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from circadian.dreaming.peft_files import CONFIG_FILE
from circadian.memory.folder import check_files, read_record
from circadian.specs.dreaming import AdapterSpec

DREAMER_FOLDER, STANDINGS_FILE = "dreamer", "standings.json"
CONTEXTS, NIGHTS = 4096, 16
"""Most contexts that are remembered, those that stood last; and of each the last so many nights."""
Standings = dict[str, list[float]]


def dreamer_of(version: Path) -> Path | None:
    """The folder of its adapter, if it has one. Raises VersionBroken."""
    names = [name for name in read_record(version).files if name.startswith(f"{DREAMER_FOLDER}/")]
    check_files(version, names)
    return version / DREAMER_FOLDER if names else None


def of_one_shape(folder: Path, spec: AdapterSpec) -> bool:
    """Whether an adapter is what a recipe asks of its dreamer, so that it can go on from there."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    held = (config["r"], config["lora_alpha"], set(config["target_modules"]))
    return held == (spec.rank, spec.alpha, set(spec.targets))


def digest_of(context: str) -> str:
    return hashlib.sha256(context.encode()).hexdigest()[:32]


def read_standings(version: Path) -> Standings:
    """Raises VersionBroken."""
    if STANDINGS_FILE not in read_record(version).files:
        return {}
    check_files(version, [STANDINGS_FILE])
    return json.loads((version / STANDINGS_FILE).read_text())


def standings_json(before: Standings, tonight: Mapping[str, float]) -> str:
    """With tonight's scores, by digest; what has not stood for longest is forgotten first."""
    kept = {name: scores for name, scores in before.items() if name not in tonight}
    joined = kept | {name: [*before.get(name, []), round(score, 4)][-NIGHTS:] for name, score in tonight.items()}
    return json.dumps(dict(list(joined.items())[-CONTEXTS:]))
