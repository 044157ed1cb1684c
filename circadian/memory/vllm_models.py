"""The vLLM plugin: which architectures vLLM can serve because Circadian is installed.

vLLM calls `register` in every one of its processes (entry point group `vllm.general_plugins`), so a version folder is served by
`vllm.LLM(FOLDER)` and `vllm serve FOLDER` alike. Classes are named, not imported: a vLLM that serves something else pays nothing.
"""

from __future__ import annotations

ARCHITECTURES = {
    "Qwen3MemoryForCausalLM": "circadian.memory.vllm_graft:Qwen3MemoryForCausalLM",
    "LlamaMemoryForCausalLM": "circadian.memory.vllm_graft:LlamaMemoryForCausalLM",
}
"""By the name in a version's `config.json`, which is that of the grafted Hugging Face class."""


def register() -> None:
    """Make the architectures known to vLLM; may be called more than once in a process."""
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    for architecture, where in ARCHITECTURES.items():
        if architecture not in known:
            ModelRegistry.register_model(architecture, where)
