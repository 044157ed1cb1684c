"""What is known of a version folder without torch: the names that matter, and how it is refused. version.py tells what is in it."""

from __future__ import annotations

MEMORY_FILE = "memory.safetensors"
RECORD_FILE = "version.json"
CONFIG_FILE = "config.json"


class VersionBroken(Exception):
    """A version folder does not hold what its record says."""
