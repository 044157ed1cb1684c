"""What a version remembers of its dreams, in its folder beside the memory, which it is no part of: nobody who is served hears it.

    dreamer/         the adapter with which it dreams, as peft has it; its SHA-256 is in version.json
    standings.json   of every context that a recipe gave, how it stood before each night's dreams: {digest: [score, ...]}, no text

The next night's dreamer goes on from the first, the next night's curriculum from the second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from circadian.dreaming.peft_files import CONFIG_FILE, WEIGHTS_FILE
from circadian.files import sha256
from circadian.memory.version import VersionBroken, read_record
from circadian.specs.dreaming import AdapterSpec

DREAMER_FOLDER, STANDINGS_FILE = "dreamer", "standings.json"
CONTEXTS, NIGHTS = 4096, 16
"""Most contexts that are remembered, those that stood last; and of each the last so many nights."""
Standings = dict[str, list[float]]


def dreamer_of(version: Path) -> Path | None:
    """The folder of its adapter, if it has one. Raises VersionBroken."""
    digest, folder = read_record(version).dreamer_sha256, version / DREAMER_FOLDER
    if not digest:
        return None
    if not (folder / WEIGHTS_FILE).is_file() or sha256(folder / WEIGHTS_FILE) != digest:
        raise VersionBroken(
            f"{folder / WEIGHTS_FILE} does not match the checksum in version.json; restore it from the version's copy"
        )
    return folder


def of_one_shape(folder: Path, spec: AdapterSpec) -> bool:
    """Whether an adapter is what a recipe asks of its dreamer, so that it can go on from there."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    held = (config["r"], config["lora_alpha"], set(config["target_modules"]))
    return held == (spec.rank, spec.alpha, set(spec.targets))


def digest_of(context: str) -> str:
    return hashlib.sha256(context.encode()).hexdigest()[:32]


def read_standings(version: Path) -> Standings:
    path = version / STANDINGS_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def standings_json(before: Standings, tonight: Mapping[str, float]) -> str:
    """With tonight's scores, by digest; what has not stood for longest is forgotten first."""
    kept = {name: scores for name, scores in before.items() if name not in tonight}
    joined = kept | {name: [*before.get(name, []), round(score, 4)][-NIGHTS:] for name, score in tonight.items()}
    return json.dumps(dict(list(joined.items())[-CONTEXTS:]))
