"""A version folder is a model to any vLLM in whose environment Circadian is installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from random_base import write_base
from safetensors.torch import load_file, save_file

from actors.names import vllm_environment
from circadian.memory.folder import MEMORY_FILE, read_record
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, ExpertState, MemoryState
from circadian.memory.version import found_version, load_version, save_version
from circadian.specs import Level, MemorySpec

pytestmark = pytest.mark.engine

PLAIN = Path(__file__).with_name("vllm_plain.py")
START_SECONDS = 400
STOP_SECONDS = 30
TOLERANCE = 1e-4
SPEC = MemorySpec(levels=(Level(period=8, experts=2, rank=8), Level(period=64, experts=3, rank=8)), layers=(0, 2))
OPEN_FAST, SEALED_SLOW, OPEN_SLOW = ExpertId(0, 1), ExpertId(1, 0), ExpertId(1, 1)


def written_version(parent: Path, folder: Path) -> Grafted:
    """A version with random experts on disk; its model as learned."""
    model, generator = load_version(parent), torch.Generator().manual_seed(1)
    for layer in model.memory_layers.values():
        for where in (OPEN_FAST, SEALED_SLOW, OPEN_SLOW):
            for tensor in layer.levels[where.level].slices(where.expert).values():
                tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
    reserved, opened, sealed = ExpertState.RESERVED, ExpertState.OPEN, ExpertState.SEALED
    model.memory_state = MemoryState(((reserved, opened), (sealed, opened, reserved)))
    save_version(folder, model, read_record(parent).model_copy(update={"id": folder.name, "parent": parent.name}), parent)
    return model


def random_adapter(model: Grafted, folder: Path) -> Path:
    """A LoRA adapter in PEFT's format on one attention and both sides of the MLP."""
    folder.mkdir()
    targets, tensors, generator = ["q_proj", "up_proj", "down_proj"], {}, torch.Generator().manual_seed(2)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in targets:
            rows, columns = module.weight.shape
            tensors[f"base_model.model.{name}.lora_A.weight"] = 0.3 * torch.randn(4, columns, generator=generator)
            tensors[f"base_model.model.{name}.lora_B.weight"] = 0.3 * torch.randn(rows, 4, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 4, "bias": "none", "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@torch.no_grad()
def merge(model: Grafted, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name, A in tensors.items():
        if name.endswith("lora_A.weight"):
            module = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            module.weight += tensors[name.replace("lora_A", "lora_B")] @ A


@torch.no_grad()
def distance(model: Grafted, prompt: list[int], view: Any, got: dict[str, float]) -> float:
    expected = torch.log_softmax(model(input_ids=torch.tensor([prompt]), view=view).logits[0, -1], -1)
    return max(abs(float(expected[int(token)]) - logprob) for token, logprob in got.items())


def spoilt(version: Path, home: Path, file: str) -> Path:
    """A copy of a version (or, with a file of the base's, of its base too) with the last byte of a file changed."""
    copy = shutil.copytree(version, home)
    path = copy / file
    if not path.is_file():
        base = shutil.copytree(read_record(version).base.model, copy / "base")
        record = read_record(version)
        moved = record.model_copy(update={"base": record.base.model_copy(update={"model": str(base)})})
        (copy / "version.json").write_text(moved.model_dump_json())
        path = base / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return copy


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a plain vLLM script makes of a Llama version, of the same with spoilt files, and of the same with an adapter."""
    home = tmp_path_factory.mktemp("llama")
    found_version(str(write_base(home / "base", "llama", layers=3)), None, SPEC, home / "v0")
    model = written_version(home / "v0", home / "v1")
    adapter, prompt = random_adapter(model, home / "adapter"), torch.randint(6, 400, (60,)).tolist()
    broken = [spoilt(home / "v1", home / "memory", MEMORY_FILE), spoilt(home / "v1", home / "weights", "model.safetensors")]
    asked = {"broken": list(map(str, broken)), "folder": str(home / "v1"), "adapter": str(adapter), "prompt": prompt}
    run = subprocess.run(
        [sys.executable, str(PLAIN)],
        input=json.dumps(asked),
        cwd=home,
        env={**os.environ, **vllm_environment()},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return {"model": model, "prompt": prompt, "adapter": adapter, **json.loads(run.stdout.strip().splitlines()[-1])}


def test_a_version_folder_is_served_awake_by_plain_vllm(served: dict[str, Any]) -> None:
    assert distance(served["model"], served["prompt"], "awake", served["plain"]) < TOLERANCE
    for other in ("base", "rested", "student"):
        assert distance(served["model"], served["prompt"], other, served["plain"]) > 100 * TOLERANCE, other


def test_an_adapter_goes_onto_the_base_beside_the_memory(served: dict[str, Any]) -> None:
    model = served["model"]
    assert distance(model, served["prompt"], "awake", served["adapted"]) > 100 * TOLERANCE
    merge(model, served["adapter"])
    assert distance(model, served["prompt"], "awake", served["adapted"]) < TOLERANCE


def test_a_version_that_is_not_what_its_record_says_is_not_served(served: dict[str, Any]) -> None:
    memory, weights = served["failures"]
    assert f"{MEMORY_FILE} does not match the checksum" in memory
    assert "not those that v1 was made from" in weights


@contextmanager
def vllm_serve(folder: Path) -> Iterator[str]:
    """`vllm serve FOLDER` as anybody would start it; its address once it answers. Ended with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            [Path(sys.executable).with_name("vllm"), "serve", folder, "--host", "127.0.0.1", "--port", port, "--dtype", "float32"],
            cwd=folder.parent,
            env={**os.environ, **vllm_environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    left: list[psutil.Process] = []
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            itself = psutil.Process(server.pid)
            processes = [itself, *itself.children(recursive=True)]
            server.terminate()
            _, left = psutil.wait_procs(processes, timeout=STOP_SECONDS)
            if left:
                os.killpg(server.pid, signal.SIGKILL)  # its own session, and so its own group
            server.wait(STOP_SECONDS)
    assert not left, f"processes of vllm serve did not end by themselves: {left}"


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).is_success
    except httpx.TransportError:
        return False


@torch.no_grad()
def greedy(model: Grafted, prompt: list[int], tokens: int, view: Any) -> list[int]:
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(model(input_ids=torch.tensor([ids]), view=view).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_vllm_serve_answers_from_a_version_folder(tmp_path: Path) -> None:
    found_version(str(write_base(tmp_path / "base")), None, SPEC, tmp_path / "v0")
    model = written_version(tmp_path / "v0", tmp_path / "v1")
    prompt = torch.randint(6, 400, (40,), generator=torch.Generator().manual_seed(3)).tolist()
    body = {"model": str(tmp_path / "v1"), "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    with vllm_serve(tmp_path / "v1") as address:
        answer = httpx.post(f"{address}/v1/completions", json={**body, "return_token_ids": True}, timeout=START_SECONDS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["token_ids"] == greedy(model, prompt, 12, "awake") != greedy(model, prompt, 12, "base")
