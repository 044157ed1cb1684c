"""Adapters as peft writes them, in safetensors, so that peft and vLLM read them: a folder of adapter_config.json and
adapter_model.safetensors. peft itself is not needed for it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save

from circadian.dreaming.instances import Adapter
from circadian.files import write_whole
from circadian.specs.dreaming import AdapterSpec

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""In front of a layer's name in the base."""


class AdapterBroken(ValueError):
    """A folder does not hold an adapter that this code wrote."""


def write_adapter(folder: Path, adapter: Adapter, base: str = "") -> None:
    """base: of the model that it belongs to, as peft records it; nothing reads it here."""
    spec = adapter.spec
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(spec.targets),
        "inference_mode": True,
    }
    tensors = {}
    for name, (A, B) in adapter.tensors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"], tensors[f"{PREFIX}{name}.lora_B.weight"] = A.contiguous(), B.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS_FILE, save(tensors))
    write_whole(folder / CONFIG_FILE, json.dumps(config, indent=1) + "\n")


def read_adapter(folder: Path, spec: AdapterSpec) -> Adapter:
    """The inverse; spec: how it was made. Raises AdapterBroken."""
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError) as error:
        raise AdapterBroken(f"{folder} holds no adapter ({error}); give a folder with {WEIGHTS_FILE} and {CONFIG_FILE}") from error
    names = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in tensors}
    try:
        held = {
            name: (tensors[f"{PREFIX}{name}.lora_A.weight"], tensors[f"{PREFIX}{name}.lora_B.weight"]) for name in sorted(names)
        }
    except KeyError as error:
        raise AdapterBroken(f"{folder / WEIGHTS_FILE} lacks {error}; write it again") from error
    wrong = [name for name, (A, _) in held.items() if A.shape[0] != spec.rank]
    if wrong:
        raise AdapterBroken(f"{folder} is of another rank than {spec.rank}; give the spec that it was made with")
    return Adapter(spec, held)
