"""The memory grafted onto vLLM's own decoders: the same `MemoryLayer` beside the MLP as in graft.py.

A grafted class is vLLM's native class; after it is built, the MLP of each chosen layer becomes one that adds what the heard experts
of its memory say (vllm_heard.py). Names of base weights do not change, so the base is loaded by vLLM's loader as it is, sharded and
quantised as vLLM likes. The memory is small and whole on every tensor-parallel rank: it reads what every rank has (the MLP's input)
and adds to what every rank has (the MLP's reduced output). LoRA adapters go onto the base's linear layers as ever; the memory has none.

One mask is shared by all layers of an engine, so a view is engine-wide here. The banks are what is written and checked; after every
change of them, or of the mask, `set_view` makes it what is computed.

M experts over all levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.llama import LlamaForCausalLM, LlamaMLP
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM, Qwen3MLP

from circadian.memory.folder import MEMORY_FILE, RECORD_FILE, VersionBroken, read_record
from circadian.memory.graft import NoGraft, grafted_layers
from circadian.memory.layer import MemoryLayer
from circadian.memory.raw import parse_name
from circadian.memory.state import MemoryState
from circadian.memory.tensors import checksum, write_tensors
from circadian.memory.version import base_folder, weights_sha256
from circadian.memory.vllm_heard import HeardExperts
from circadian.specs import MemorySpec


class _MemoryMLP(nn.Module):
    """MLP(x) + memory(x), for the engine's one mask."""

    memory: MemoryLayer
    heard: HeardExperts

    def forward(self, x: Tensor) -> Tensor:
        added = self.heard(x)
        out = super().forward(x)
        return out if added is None else out + added


class Qwen3MemoryMLP(_MemoryMLP, Qwen3MLP):
    """A Qwen3 MLP with memory beside it."""


class LlamaMemoryMLP(_MemoryMLP, LlamaMLP):
    """A Llama MLP with memory beside it."""


class VllmGraft(nn.Module):
    """What the grafted vLLM classes add to the native ones. Base class of the served model, asked for by the worker extension."""

    memory_mlp: ClassVar[type[_MemoryMLP]]
    model: Any
    allow_patterns_overrides: ClassVar[list[str]] = [MEMORY_FILE]
    fall_back_to_pt_during_load = False
    """With the line above: of the version folder vLLM's loader reads the memory's file and nothing else."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, **kwargs)
        if get_pp_group().world_size > 1:
            raise NoGraft("memory cannot be split over pipeline stages; serve with pipeline_parallel_size=1")
        config = vllm_config.model_config.hf_config
        self.memory_spec = MemorySpec.model_validate(config.memory["spec"])
        self.memory_state = MemoryState.parse(config.memory["experts"])
        self.version_folder = Path(vllm_config.model_config.model)
        self.pinned: list[float] | None = None
        self.mask: list[float] = []
        self.memory_layers: dict[int, MemoryLayer] = {}
        for i in grafted_layers(self.memory_spec, config.num_hidden_layers):
            mlp = self.model.layers[i].mlp
            mlp.__class__ = self.memory_mlp  # keeps the names of the base's weights, which a wrapper would change
            mlp.memory = self.memory_layers[i] = MemoryLayer(config.hidden_size, self.memory_spec)
            mlp.heard = HeardExperts(mlp.memory, fixed=not vllm_config.model_config.enforce_eager)
        self.set_view(None)

    @property
    def secondary_weights(self) -> Iterable[DefaultModelLoader.Source]:
        """Where the base's weights are. Raises VersionBroken where they are not those the version was made from."""
        record = read_record(self.version_folder)
        source = base_folder(record.base)
        if weights_sha256(source) != record.base.sha256:
            raise VersionBroken(
                f"the weights in {source} are not those that {record.id} was made from; "
                f"restore the base of SHA-256 {record.base.sha256}"
            )
        return [DefaultModelLoader.Source(str(source), revision=None, fall_back_to_pt=False, allow_patterns_overrides=None)]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Base weights go where vLLM puts them, experts into their slices.

        Raises VersionBroken for a memory that is not the record's.
        """
        memory: dict[str, Tensor] = {}
        loaded: set[str] = super().load_weights(_apart(weights, memory))  # type: ignore[misc]
        record = read_record(self.version_folder)
        if checksum(memory) != record.memory_sha256:
            raise VersionBroken(f"{self.version_folder / MEMORY_FILE} does not match the checksum in {RECORD_FILE}")
        write_tensors(self.memory_layers, memory)
        self.set_view(self.pinned)
        return loaded | {name for name, _ in self.named_parameters() if ".mlp.memory." in name or ".mlp.heard." in name}

    def set_view(self, mask: Sequence[float] | None) -> None:
        """Hear exactly the experts of this mask [M], or (None) follow what is awake, also through deliveries, as they are held now."""
        heard = [float(entry) for entry in (self.memory_state.view("awake") if mask is None else mask)]
        if len(heard) != len(self.memory_state.ids()):
            raise ValueError(f"mask of {len(heard)} entries; this memory has {len(self.memory_state.ids())} experts")
        for i in self.memory_layers:
            self.model.layers[i].mlp.heard.listen(heard)
        self.pinned, self.mask = None if mask is None else heard, heard


def _apart(weights: Iterable[tuple[str, Tensor]], memory: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The base's weights as they come; the experts' tensors are put into `memory` on the way."""
    for name, tensor in weights:
        if _is_expert(name):
            memory[name] = tensor
        else:
            yield name, tensor


def _is_expert(name: str) -> bool:
    try:
        parse_name(name)
    except KeyError:
        return False
    return True


class Qwen3MemoryForCausalLM(VllmGraft, Qwen3ForCausalLM):
    """Qwen3 with memory."""

    memory_mlp = Qwen3MemoryMLP


class LlamaMemoryForCausalLM(VllmGraft, LlamaForCausalLM):
    """Llama with memory."""

    memory_mlp = LlamaMemoryMLP
