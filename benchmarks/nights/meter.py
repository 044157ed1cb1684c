"""What a method spends: tokens that pass through a model, a pass with gradients counting three times.

Counted at the final norm, through which every pass of every method goes, whichever code calls the model. Padding counts: it is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

FORWARD, FORWARD_AND_BACKWARD = 1, 3


class Meter:
    """Token passes since the start."""

    def __init__(self) -> None:
        self.passes = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count every pass of every model in this process."""
        handle = register_module_forward_hook(self._count)
        try:
            yield
        finally:
            handle.remove()

    def _count(self, module: nn.Module, inputs: object, output: object) -> None:
        if getattr(module, FINAL, False) and isinstance(output, Tensor):
            learns = torch.is_grad_enabled() and output.requires_grad
            self.passes += output.shape[:-1].numel() * (FORWARD_AND_BACKWARD if learns else FORWARD)


FINAL = "is_final_norm"


def metered(model: nn.Module) -> nn.Module:
    """The model, its final norm known to every meter."""
    setattr(model.model.norm, FINAL, True)
    return model
