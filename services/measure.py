"""What a deployment knows, measured through its REST interface as any client could.

recall   share of the day's facts, asked in forms that the day did not have, answered greedily with the right word; no wake row and no
         sleep prompt contains one of these questions
base     the same for facts the model knows from pretraining
nll      mean nats a token on documents it has never seen
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from circadian.nursery.curriculum import FACTS_PER_PASSAGE, Curriculum
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import Day, Probe, World
from services.client import Circadian

CONCURRENCY = 32
VERSION_HEADER = "x-deployment-version"
HELD_OUT_SEED = 10_000
"""Of the documents that nll is measured on; pretraining has another."""
HELD_OUT_DOCUMENTS = 64


@dataclass(frozen=True)
class Measured:
    """Three numbers, and the versions that gave the answers."""

    recall: float
    base: float
    nll: float
    versions: tuple[str, ...]


class Examiner:
    """Asks one deployment."""

    def __init__(self, client: Circadian, model: str, world: World, day: Day) -> None:
        self.client, self.model = client, model
        self.day_probes, self.base_probes = day.probes(), world.base_probes()
        self.documents = held_out_documents(world)

    def measure(self) -> Measured:
        """Every question once. Raises ApiError."""
        versions: set[str] = set()
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            recall = self._accuracy(pool, self.day_probes, versions)
            base = self._accuracy(pool, self.base_probes, versions)
            scored = list(pool.map(lambda words: self._nll(words, versions), self.documents))
        nll = sum(nats for nats, _ in scored) / sum(tokens for _, tokens in scored)
        return Measured(recall, base, nll, tuple(sorted(versions)))

    def ask(self, question: str) -> str:
        """One greedy answer."""
        return self._ask(question, set())

    def _accuracy(self, pool: ThreadPoolExecutor, probes: Sequence[Probe], versions: set[str]) -> float:
        answers = pool.map(lambda probe: self._ask(probe.question, versions), probes)
        return sum(answer == probe.answer for answer, probe in zip(answers, probes, strict=True)) / len(probes)

    def _ask(self, question: str, versions: set[str]) -> str:
        messages = [{"role": "user", "content": question}]
        answer = self._post("/v1/chat/completions", {"messages": messages, "max_tokens": 1, "temperature": 0.0}, versions)
        return (answer["choices"][0]["message"]["content"] or "").strip()

    def _nll(self, words: Sequence[str], versions: set[str]) -> tuple[float, int]:
        """Nats and tokens of one document; the first token has nothing before it and does not count."""
        body = {"prompt": " ".join(words), "max_tokens": 1, "echo": True, "logprobs": 0, "add_special_tokens": False}
        answer = self._post("/v1/completions", {**body, "temperature": 0.0}, versions)
        logprobs = answer["choices"][0]["logprobs"]["token_logprobs"][1 : len(words)]
        return -sum(logprobs), len(words) - 1

    def _post(self, path: str, body: dict[str, Any], versions: set[str]) -> dict[str, Any]:
        response = self.client.request("POST", path, {"model": self.model, **body})
        versions.add(response.headers[VERSION_HEADER])
        return response.json()


def held_out_documents(world: World) -> list[list[str]]:
    """Open-book documents, word by word, that pretraining has not seen."""
    reader = Curriculum(world, build_tokenizer(world), seed=HELD_OUT_SEED, steps=1)
    sizes = [FACTS_PER_PASSAGE[i % len(FACTS_PER_PASSAGE)] for i in range(HELD_OUT_DOCUMENTS)]
    return [reader.passage(size)[0] for size in sizes]
