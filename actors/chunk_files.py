"""The files of a chunk that is learned online: who plans chunks and who delivers them need no torch.

day/chunk-0003/  job.json              what is to be learned (ChunkJob), written by whoever planned it
                 rows.jsonl            its rows, for later chunks to repeat
                 expert.safetensors    the expert after it, fp32
                 wake.delivery         the same, for the serving replicas
                 chunk.json            ChunkRecord: appears last and whole, and commits the chunk
"""

from __future__ import annotations

from pathlib import Path

from circadian.specs import ChunkRecord

JOB_FILE, ROWS_FILE, EXPERT_FILE, DELIVERY_FILE, RECORD_FILE = (
    "job.json",
    "rows.jsonl",
    "expert.safetensors",
    "wake.delivery",
    "chunk.json",
)


class ChunkFailed(Exception):
    """The chunk cannot be learned; learning it again would fail again."""


def chunk_folder(day: Path, number: int) -> Path:
    """Where a chunk's files are."""
    return day / f"chunk-{number:04d}"


def read_chunk(day: Path, number: int) -> ChunkRecord | None:
    """The record of a committed chunk; None where it is not committed."""
    path = chunk_folder(day, number) / RECORD_FILE
    return ChunkRecord.model_validate_json(path.read_text()) if path.exists() else None
