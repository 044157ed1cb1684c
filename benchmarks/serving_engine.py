"""One engine of the serving benchmark, a process of its own: `python -m benchmarks.serving_engine FOLDER DTYPE`.

It serves a base or a version with the settings that Circadian's own engines have (actors/engine.py), and answers one JSON line
on standard output for each on standard input:

    {"seal": N, "spec": {...}, "layers": [...]}    become the version with N sealed experts -> bytes and milliseconds of the delivery
    {"measure": {...Load}, "seed": S}               [wall, processor] seconds of every step that reads, and of every step that writes
    {"parts": ROWS}                                 processor seconds of what one step computes beside the MLPs, and of the MLPs

vLLM's own messages go to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

KV_CACHE_BYTES = 256 << 20
"""Room for more than is asked at once; two engines are in memory at a time."""
PART_REPEATS = 15


@dataclass(frozen=True)
class Load:
    """What is asked of every contender in every round."""

    prefill_rows: int = 1
    prefill_tokens: int = 128
    """Tokens of each prompt that is only read; all rows are read in one step."""
    prefill_repeats: int = 3
    """The median counts, so whatever the first read after a delivery alone has to build does not."""
    decode_rows: int = 8
    """Requests that are answered at once."""
    decode_prompt: int = 16
    decode_tokens: int = 9
    """Tokens written to each; the first comes with the reading and is not counted."""


Seconds = tuple[float, float]
"""Wall clock, and processor time of this process over all its threads."""


class Bench:
    """The engine and the clock."""

    def __init__(self, folder: Path, dtype: Any) -> None:
        from vllm import LLM

        from circadian.memory.folder import RECORD_FILE
        from circadian.memory.vllm_worker import EXTENSION

        self.dtype, self.asked = getattr(torch, dtype), 0
        self.llm = LLM(
            str(folder),
            dtype=dtype,
            worker_extension_cls=EXTENSION if (folder / RECORD_FILE).exists() else "",
            enforce_eager=not torch.cuda.is_available(),
            max_model_len=512,
            max_num_seqs=64,
            max_num_batched_tokens=512,  # a start reads that many once to warm up
            enable_prefix_caching=True,
            skip_tokenizer_init=True,
            disable_log_stats=True,
            kv_cache_memory_bytes=KV_CACHE_BYTES,
        )
        self.engine, self.config = self.llm.llm_engine, self.llm.model_config.hf_config

    def seal(self, experts: int, spec: dict[str, Any], layers: list[int]) -> dict[str, float]:
        """Become the version with this many sealed experts."""
        from benchmarks.serving_world import sealed
        from circadian.specs import MemorySpec

        payload = sealed(MemorySpec.model_validate(spec), tuple(layers), self.config.hidden_size, experts, self.dtype)
        (receipt,) = self.llm.collective_rpc("memory_deliver", args=(payload,))
        if "refused" in receipt:
            raise RuntimeError(receipt["refused"])
        self.llm.reset_prefix_cache()  # the next contender is asked the same
        return {"bytes": receipt["bytes"], "milliseconds": receipt["milliseconds"]}

    def measure(self, load: Load, seed: int) -> dict[str, list[Seconds]]:
        """`prefill`: one step a repeat reads all rows' prompts; `decode`: each step writes one token to each row."""
        prefill = []
        for repeat in range(load.prefill_repeats):
            steps = self._steps(load.prefill_rows, load.prefill_tokens, 1, 1000 * seed + repeat)
            if len(steps) != 1:
                raise RuntimeError(
                    f"{load.prefill_rows} x {load.prefill_tokens} tokens were read in {len(steps)} steps, not in one"
                )
            prefill += steps
        return {"prefill": prefill, "decode": self._steps(load.decode_rows, load.decode_prompt, load.decode_tokens, seed)[1:]}

    def parts(self, rows: int) -> dict[str, float]:
        """Processor seconds a step of `rows` tokens spends in the MLPs and in each part of the memory, over all layers.

        `banks` is what the memory would cost as the learner's model computes it: every place of every level, heard or not.
        """
        (seconds,) = self.llm.apply_model(lambda model: _parts(model, rows))
        return seconds

    def _steps(self, rows: int, prompt: int, tokens: int, seed: int) -> list[Seconds]:
        """What each step of the engine takes until all rows have `tokens` tokens."""
        from vllm import SamplingParams

        generator = torch.Generator().manual_seed(seed)
        params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True, detokenize=False)
        for ids in torch.randint(self.config.vocab_size, (rows, prompt), generator=generator).tolist():
            self.asked += 1
            self.engine.add_request(str(self.asked), {"prompt_token_ids": ids}, params)
        taken = []
        while self.engine.has_unfinished_requests():
            wall, processor = time.perf_counter(), time.process_time()
            self.engine.step()
            taken.append((time.perf_counter() - wall, time.process_time() - processor))
        return taken


@torch.inference_mode()
def _parts(model: Any, rows: int) -> dict[str, float]:
    from vllm.model_executor.models.qwen3 import Qwen3MLP

    mlps = [layer.mlp for layer in model.model.layers]
    heard = [mlp.heard for mlp in mlps if getattr(getattr(mlp, "heard", None), "count", 0)]
    x = torch.randn(rows, model.config.hidden_size, dtype=model.config.dtype)
    mask = torch.tensor(getattr(model, "mask", []))
    ups = [each.up(x) for each in heard]
    hidden = [each.gated(up) for each, up in zip(heard, ups, strict=True)]
    return {
        "mlp": _median(lambda: [Qwen3MLP.forward(mlp, x) for mlp in mlps]),  # the base's own, also where memory is beside it
        "up": _median(lambda: [each.up(x) for each in heard]),
        "gate": _median(lambda: [each.gated(up) for each, up in zip(heard, ups, strict=True)]),
        "down": _median(lambda: [each.down(row) for each, row in zip(heard, hidden, strict=True)]),
        "banks": _median(lambda: [mlp.memory(x, mask) for mlp in mlps if hasattr(mlp, "heard")]),
    }


def _median(compute: Callable[[], Any]) -> float:
    """Processor seconds."""
    taken = []
    for _ in range(PART_REPEATS):
        started = time.process_time()
        compute()
        taken.append(time.process_time() - started)
    return sorted(taken)[PART_REPEATS // 2]


def serve(bench: Bench, asks: TextIO, replies: TextIO) -> None:
    """Answer until the asking ends."""
    if torch.get_num_threads() != 1 and not torch.cuda.is_available():
        raise RuntimeError(
            "an engine's environment must be set before it starts (serving.py): its threads would wait for each other"
        )
    _say(replies, {"ready": True})
    for line in asks:
        ask = json.loads(line)
        if "seal" in ask:
            _say(replies, bench.seal(ask["seal"], ask["spec"], ask["layers"]))
        elif "measure" in ask:
            _say(replies, bench.measure(Load(**ask["measure"]), ask["seed"]))
        else:
            _say(replies, bench.parts(ask["parts"]))


def _say(replies: TextIO, answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM writes to standard output is no answer
    serve(Bench(Path(sys.argv[1]), sys.argv[2]), sys.stdin, replies)
