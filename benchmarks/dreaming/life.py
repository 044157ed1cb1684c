"""One method and seed in a process of its own: `python -m benchmarks.dreaming.life REQUEST.json RECORD.json`."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from benchmarks.dreaming.rounds import Request, live
from benchmarks.in_process import alone
from benchmarks.nights.meter import Meter


def main(asked: Path, told: Path) -> None:
    """Live, and say what was measured."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    request = Request(**json.loads(asked.read_text()))
    with alone():
        record = live(request, Meter())
    told.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
