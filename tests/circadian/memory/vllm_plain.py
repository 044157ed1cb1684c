"""Run as a program by test_vllm_graft.py: somebody's vLLM script, which knows nothing of Circadian.

Reads {"folder", "adapter", "prompt", "broken": [folders]} from standard input; the last line it writes is JSON: the log-probs of
the likeliest next tokens, plain and with the adapter, and how loading each broken folder failed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

OPTIONS: dict[str, Any] = {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 4, "max_model_len": 256}


def likeliest(llm: LLM, prompt: list[int], adapter: LoRARequest | None) -> dict[int, float]:
    params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20)
    output = llm.generate([{"prompt_token_ids": prompt}], params, lora_request=adapter, use_tqdm=False)[0].outputs[0]
    return {token: entry.logprob for token, entry in output.logprobs[0].items()}


def failure(folder: str) -> str:
    """How loading fails. Only here is Circadian imported, for the name of its error."""
    from circadian.memory.folder import VersionBroken

    try:
        LLM(folder, **OPTIONS)
    except VersionBroken as error:
        return str(error)
    return "served"


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    assert not any(name.startswith("circadian") for name in sys.modules)
    llm = LLM(asked["folder"], enable_lora=True, max_loras=2, max_lora_rank=8, **OPTIONS)
    answers: dict[str, Any] = {
        "plain": likeliest(llm, asked["prompt"], None),
        "adapted": likeliest(llm, asked["prompt"], LoRARequest("adapter", 1, asked["adapter"])),
    }
    del llm
    answers["failures"] = [failure(folder) for folder in asked["broken"]]
    sys.stdout.write("\n" + json.dumps(answers) + "\n")
