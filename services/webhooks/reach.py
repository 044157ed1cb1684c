"""What an operator decides about webhooks; a part of the service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from circadian.specs import Seconds


class Reach(BaseModel):
    """What an operator decides about deliveries."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    allow_private: bool = False
    """Receivers may have private and loopback addresses, and be asked without TLS there. Only where everybody who may make an endpoint
    may also send requests to everything in the cluster that does not check who asks."""
    seconds: Seconds = 10.0
    """For the whole attempt, from the first question to DNS to the end of the answer."""
    most_answer_bytes: Annotated[int, Field(ge=1)] = 64 * 1024
    """Of an answer are read; the connection is closed then."""
    ca_file: Path | None = None
    """Certificates (PEM) of authorities that are trusted beside the public ones."""
