"""A rollout worker in this process: the same deliveries and views as vLLM's, on the Hugging Face model.

The nursery model is so small that vLLM's start would take longer than what is written with it, and ten nights of thirteen methods and three
seeds start many engines. tests/ prove that the two agree to 1e-4 in every view; here only the one is used.

B prompts of one length, T tokens, V vocabulary, M experts over all levels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from actors.replies import Read
from benchmarks.generate import Tokens, complete
from circadian.dreaming.instances import Pack
from circadian.dreaming.peft_files import CONFIG_FILE, read_adapter
from circadian.memory.delivery import receive
from circadian.memory.envelope import Receipt
from circadian.memory.graft import Grafted
from circadian.memory.version import beginning_token, load_tokenizer, load_version
from circadian.specs.dreaming import AdapterSpec

READ_AT_ONCE = 64


@contextmanager
def wearing(model: Grafted, folder: str) -> Iterator[None]:
    """The model with an adapter on."""
    config = json.loads((Path(folder) / CONFIG_FILE).read_text())
    spec = AdapterSpec(rank=config["r"], alpha=config["lora_alpha"], targets=tuple(config["target_modules"]))
    pack = Pack(model, 1, spec, 0)
    pack.go_on_from(read_adapter(Path(folder), spec))
    with pack.attached():
        yield


class LocalEngine:
    """Samples and reads in any view, as the learner asks (actors/learn_student.py: Rollouts)."""

    def __init__(self, version: Path) -> None:
        tokenizer = load_tokenizer(version)
        self.model: Grafted = load_version(version, torch.float32)
        self.beginning, self.stop = beginning_token(tokenizer), [tokenizer.eos_token_id]

    def deliver(self, payload: bytes) -> Receipt:
        receipt, self.model.memory_state = receive(self.model.memory_layers, payload)
        return receipt

    def sample(
        self,
        view: Sequence[float],
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int],
    ) -> list[list[int]]:
        """`samples` completions of each prompt, those of one prompt next to each other."""
        asked = [prompt for prompt in prompts for _ in range(samples)]
        return [
            list(completion)
            for completion in complete(self.model, asked, max_tokens, temperature, seed, stop, view=self._hear(view))
        ]

    def sample_with(
        self,
        view: Sequence[float],
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        temperature: float,
        seed: int,
        adapters: Sequence[str],
    ) -> list[Tokens]:
        """One completion of each prompt by the adapter in its folder ("" for none), one adapter after the other."""
        written: dict[int, Tokens] = {}
        mask = self._hear(view)
        for number, folder in enumerate(dict.fromkeys(adapters)):
            members = [i for i, own in enumerate(adapters) if own == folder]
            asked = [prompts[i] for i in members]
            with wearing(self.model, folder) if folder else nullcontext():
                answers = complete(self.model, asked, max_tokens, temperature, seed + number, self.stop, view=mask)
            written |= dict(zip(members, answers, strict=True))
        return [written[i] for i in range(len(prompts))]

    def read(self, view: Sequence[float], tokens: Sequence[Sequence[int]]) -> list[list[Read]]:
        """Each token of each text but its first, as the view expects it where it stands."""
        return [
            [Read(token, float(place), bool(first)) for token, place, first in zip(text[1:], log_probs, firsts, strict=True)]
            for text, log_probs, firsts in self._read(view, tokens)
        ]

    @torch.no_grad()
    def _read(self, view: Sequence[float], texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], list[float], list[bool]]]:
        mask = self._hear(view)
        for start in range(0, len(texts), READ_AT_ONCE):
            some = [list(text) for text in texts[start : start + READ_AT_ONCE]]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in some], batch_first=True)
            log_probs = self.model(input_ids=ids, view=mask).logits[:, :-1].log_softmax(-1)
            found = log_probs.gather(-1, ids[:, 1:, None])[..., 0]
            firsts = log_probs.argmax(-1) == ids[:, 1:]
            for row, text in enumerate(some):
                yield text, found[row, : len(text) - 1].tolist(), firsts[row, : len(text) - 1].tolist()

    def _hear(self, view: Sequence[float]) -> Tensor:
        heard = tuple(bool(entry) for entry in view)
        for layer in self.model.memory_layers.values():
            layer.narrow(heard, heard)
        return torch.tensor([float(entry) for entry in view])


class LocalPool:
    """The engine as a night asks (pipelines/rollouts.py: Sampler)."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine, self.beginning, self.names = engine, engine.beginning, ("local",)

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def deliver(self, payload: bytes) -> None:
        self.engine.deliver(payload)

    def sample(
        self,
        view: Sequence[bool],
        prompts: Sequence[Tokens],
        max_tokens: int,
        temperature: float,
        seed: int,
        adapters: Sequence[str] = (),
    ) -> list[Tokens]:
        if not prompts:
            return []
        mask = [float(heard) for heard in view]
        if any(adapters):
            return self.engine.sample_with(mask, prompts, max_tokens, temperature, seed, adapters)
        written = self.engine.sample(
            mask, prompts, samples=1, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=self.engine.stop
        )
        return [tuple(tokens) for tokens in written]

    def read(self, view: Sequence[bool], texts: Sequence[Tokens]) -> list[list[Read]]:
        return self.engine.read([float(heard) for heard in view], texts) if texts else []
