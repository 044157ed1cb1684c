"""`python -m services.monitoring [FOLDER]`: write all that is made of the metrics, below FOLDER or here."""

from __future__ import annotations

import sys
from pathlib import Path

from services.monitoring.files import write

if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
