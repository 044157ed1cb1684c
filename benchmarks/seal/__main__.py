"""`python -m benchmarks.seal squad|arc --data DIR --model DIR_OR_HUB_ID --out RESULT.json`: see docs/seal.md."""

from __future__ import annotations

import os
import sys

from services.stack import RAY_ENVIRONMENT

os.environ |= RAY_ENVIRONMENT  # Ray reads it when it is imported

from benchmarks.seal.command import main

if __name__ == "__main__":
    main(sys.argv[1:])
