"""What every vLLM worker can do once Circadian is installed: take a delivery, change the view, prove what it holds.

vLLM calls these by name through `collective_rpc`, on every tensor-parallel rank, between two steps of the engine. Arguments and
results are plain bytes, numbers and strings, because they may cross processes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from circadian.memory.delivery import receive
from circadian.memory.envelope import DeliveryRefused
from circadian.memory.state import written_experts
from circadian.memory.tensors import checksum, expert_tensors
from circadian.memory.vllm_graft import VllmGraft

EXTENSION = f"{__name__}.MemoryWorkerExtension"
"""For vLLM's `worker_extension_cls`."""


class MemoryWorkerExtension:
    """Mixed into vLLM's worker class."""

    def memory_deliver(self, payload: bytes) -> dict[str, Any]:
        """A receipt's fields, or `{"refused": reason}` and nothing changed, which the engine raises as DeliveryRefused."""
        model = self._grafted()
        try:
            receipt, state = receive(model.memory_layers, payload)
        except DeliveryRefused as refusal:
            return {"refused": str(refusal)}
        model.memory_state = state
        model.set_view(model.pinned)
        return asdict(receipt)

    def memory_view(self, mask: list[float] | None) -> list[float]:
        """Hear this mask [M], or (None) what is awake; returns the mask now in force."""
        model = self._grafted()
        model.set_view(mask)
        return model.mask

    def memory_checksum(self) -> dict[str, Any]:
        """The checksum of every written expert as it lies in this worker, their states and the mask in force."""
        model = self._grafted()
        held = expert_tensors(model.memory_layers, written_experts(model.memory_state))
        return {"checksum": checksum(held), "experts": model.memory_state.names(), "mask": model.mask}

    def _grafted(self) -> VllmGraft:
        model: torch.nn.Module = self.get_model()  # type: ignore[attr-defined]
        if not isinstance(model, VllmGraft):
            raise TypeError(f"the served model is a {type(model).__name__}, which carries no memory; serve a version folder")
        return model
