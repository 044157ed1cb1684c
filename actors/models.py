"""Models that requests name: which may be loaded at all, and why one is refused. No torch: the service asks this too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from circadian.specs import Spec

COMMIT = re.compile(r"[0-9a-f]{40}")
"""As a hub names one."""


class Refusal(Spec):
    """Why a request cannot be done: plain data, which any process reads."""

    code: str
    """As the service's errors have it, such as `model_not_allowed`."""
    detail: str
    """Names the field and the remedy."""
    param: str
    """The field."""


class Refused(Exception):
    """With a Refusal."""

    def __init__(self, code: str, detail: str, param: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code=code, detail=detail, param=param)


def is_path(model: str) -> bool:
    """A folder, and no hub id."""
    return Path(model).is_dir() or model.startswith(("/", ".", "~"))


def refused_name(model: str, patterns: Sequence[str]) -> str:
    """What the model is called where no pattern fits: a folder with every link followed, as this machine sees it; nothing where one fits,
    or there are none."""
    named = str(Path(model).expanduser().resolve()) if is_path(model) else model
    return named if patterns and not any(fnmatchcase(named, pattern) for pattern in patterns) else ""


def check_model(model: str, patterns: Sequence[str], where: str) -> None:
    """Raises Refused where no pattern fits. where: the field that names it."""
    if named := refused_name(model, patterns):
        detail = f"{where}: {named} is none of the models that this service may load; ask its operator (CIRCADIAN_ALLOWED_MODELS)"
        raise Refused("model_not_allowed", detail, where)
