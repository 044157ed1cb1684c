"""The heavy work of dreaming, as Ray tasks in the learner's place, which is free then: dreams are weighed and tried out pack by pack.

    weigh     sketches of the gradients of texts                      (circadian/dreaming/gradients.py)
    tune      an adapter for each text, as a folder                   (circadian/dreaming/instances.py)
    novel     a random expert that is as loud as the recipe asks      (circadian/dreaming/novelty.py)

A pack is as many texts as `pack_tokens` and `pack_instances` allow, so a task's memory does not grow with the number of dreams. No more
tasks run at once than there are learner processes. One that held a GPU ends with its process (Ray's default), model and all. A task
that dies is done again, up to `learner.max_failures` times: what it writes it writes whole.

S places of a sketch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from actors import names
from circadian.experience import Row
from circadian.memory.state import Mask
from circadian.specs import LearnerSpec, Spec
from circadian.specs.dreaming import AdapterSpec, DreamingSpec

if TYPE_CHECKING:
    from circadian.memory.graft import Grafted

Texts = Sequence[Sequence[Row]]
INSTANCES: int = DreamingSpec.model_fields["pack_instances"].default
Line = tuple[tuple[int, ...], tuple[float, ...]]
"""A row as JSON has it: ids and weights."""


class DreamingModel(Spec):
    """Who dreams: a version with what tonight wrote over it, in one view. Files are on storage that every task reads."""

    version: str
    overlays: tuple[str, ...] = ()
    experts: tuple[tuple[str, ...], ...]
    """The state of every expert."""
    view: Mask
    on_gpu: bool = False


class Pack(Spec):
    """Some texts of a call: which of them they are, and their rows."""

    numbers: tuple[int, ...]
    texts: tuple[tuple[Line, ...], ...]

    def rows(self) -> list[list[Row]]:
        return [[Row(ids, weight) for ids, weight in text] for text in self.texts]


class TuneRequest(Spec):
    """An instance for each text of a pack; instance n goes to the folder `n` below `folder`."""

    model: DreamingModel
    pack: Pack
    adapter: AdapterSpec
    seed: int
    folder: str
    most_tokens: int
    """Of a pass; what is more than that is learned in several passes of one step."""
    begin: str = ""
    """Folder of the adapter that every instance goes on from; from nothing, where none is given."""


class WeighRequest(Spec):
    """The sketch of each text of a pack."""

    model: DreamingModel
    pack: Pack
    adapter: AdapterSpec
    seed: int
    most_tokens: int


class NovelRequest(Spec):
    """A random expert for a place (level, expert), as a safetensors file."""

    model: DreamingModel
    reads: tuple[tuple[int, ...], ...]
    place: tuple[int, int]
    strength: float
    seed: int
    file: str


Request = WeighRequest | TuneRequest | NovelRequest


class Hands(ABC):
    """Who does the work, pack by pack."""

    def __init__(self, pack_tokens: int, pack_instances: int = INSTANCES) -> None:
        self._pack_tokens, self._pack_instances = pack_tokens, pack_instances

    def weigh(self, model: DreamingModel, texts: Texts, adapter: AdapterSpec, seed: int) -> list[list[float]]:
        """A sketch [S] of each text."""
        wide = packs(texts, max(map(len, texts), default=1), self._pack_tokens, self._pack_instances)
        known = {"model": model, "adapter": adapter, "seed": seed, "most_tokens": self._pack_tokens}
        return self._all(weigh_in_process, [WeighRequest.model_validate({"pack": pack, **known}) for pack in wide])

    def tune(
        self, model: DreamingModel, texts: Texts, adapter: AdapterSpec, seed: int, folder: Path, begin: str = "", first: int = 0
    ) -> list[list[float]]:
        """The losses of each instance's steps, nats a token; the adapter of text n lies below `folder/(first + n)`. begin: folder of
        the adapter that all go on from, if any. Of an instance that broke (what it ended in is no number) there are neither losses nor an
        adapter.
        """
        own = packs(texts, adapter.batch, self._pack_tokens, self._pack_instances)
        requests = [
            TuneRequest(
                model=model,
                pack=pack.model_copy(update={"numbers": tuple(number + first for number in pack.numbers)}),
                adapter=adapter,
                seed=seed,
                folder=str(folder),
                begin=begin,
                most_tokens=self._pack_tokens,
            )
            for pack in own
        ]
        return self._all(tune_in_process, requests)

    def novel(self, request: NovelRequest) -> None:
        """Write the expert's file."""
        self.do(novel_in_process, [request])

    @abstractmethod
    def do(self, work: Callable[[str], Any], requests: Sequence[Request]) -> list[Any]:
        """The answer to each request, in order."""

    def _all(self, work: Callable[[str], list[Any]], requests: Sequence[WeighRequest | TuneRequest]) -> list[Any]:
        """What is found of each text, in the order of the call."""
        answers = self.do(work, requests)
        found = {
            n: one
            for request, answer in zip(requests, answers, strict=True)
            for n, one in zip(request.pack.numbers, answer, strict=True)
        }
        return [found[n] for n in sorted(found)]


class RayHands(Hands):
    """Hands on the cluster."""

    def __init__(self, learner: LearnerSpec, pack_tokens: int, pack_instances: int = INSTANCES) -> None:
        super().__init__(pack_tokens, pack_instances)
        self._learner = learner

    def do(self, work: Callable[[str], Any], requests: Sequence[Request]) -> list[Any]:
        """`learner.workers` tasks at a time. Raises what a task raised, and GetTimeoutError."""
        task = ray.remote(work).options(
            num_cpus=self._learner.cpus_per_worker,
            num_gpus=self._learner.gpus_per_worker,
            resources=names.role("learner"),
            max_retries=self._learner.max_failures,
            runtime_env={"env_vars": names.learner_environment()},
        )
        answers: list[Any] = []
        for start in range(0, len(requests), self._learner.workers):
            under_way = [task.remote(request.model_dump_json()) for request in requests[start : start + self._learner.workers]]
            try:
                answers += ray.get(under_way, timeout=self._learner.stage_seconds)
            except ray.exceptions.GetTimeoutError:
                for one in under_way:
                    ray.cancel(one, force=True)
                raise
        return answers


def packs(texts: Texts, batch: int, pack_tokens: int, pack_instances: int = INSTANCES) -> list[Pack]:
    """Texts of like length together, longest first, each pack within the bounds, or a single text where that alone is above them.

    batch: rows of a text that are in one step.
    """

    def longest(number: int) -> int:
        return max(len(row.ids) for row in texts[number])

    order = sorted(range(len(texts)), key=lambda number: (-longest(number), number))
    found: list[list[int]] = []
    for number in order:
        members = found[-1] if found else []
        if members and len(members) < pack_instances and (len(members) + 1) * batch * longest(members[0]) <= pack_tokens:
            found[-1].append(number)
        else:
            found.append([number])
    return [
        Pack(numbers=tuple(members), texts=tuple(tuple((row.ids, row.weight) for row in texts[number]) for number in members))
        for members in found
    ]


def weigh_in_process(request_json: str) -> list[list[float]]:
    """The work itself, in the process that is called."""
    from circadian.dreaming.gradients import sketches  # torch takes seconds to import, and the driver needs only the hands

    request = WeighRequest.model_validate_json(request_json)
    model, view = loaded(request.model), request.model.view
    found = sketches(model, request.pack.rows(), request.adapter, request.seed, view=view, most_tokens=request.most_tokens)
    return found.tolist()


def tune_in_process(request_json: str) -> list[list[float]]:
    """The work itself, in the process that is called. A text learns the same in whatever pack it is."""
    from circadian.dreaming.instances import fine_tune
    from circadian.dreaming.peft_files import read_adapter, write_adapter

    request = TuneRequest.model_validate_json(request_json)
    model, pack = loaded(request.model), request.pack
    begin = read_adapter(Path(request.begin), request.adapter) if request.begin else None
    learned = fine_tune(
        model,
        pack.rows(),
        request.adapter,
        request.seed,
        view=request.model.view,
        begin=begin,
        most_tokens=request.most_tokens,
    )
    for number, adapter in zip(pack.numbers, learned, strict=True):
        if adapter.finite:
            write_adapter(Path(request.folder) / str(number), adapter, request.model.version)
    return [list(adapter.losses) if adapter.finite else [] for adapter in learned]


def novel_in_process(request_json: str) -> None:
    """The work itself, in the process that is called."""
    from safetensors.torch import save

    from circadian.dreaming.novelty import novel_expert
    from circadian.files import write_whole
    from circadian.memory.state import ExpertId
    from circadian.objectives.rows import pad

    request = NovelRequest.model_validate_json(request_json)
    model, where = loaded(request.model), ExpertId(*request.place)
    tensors = novel_expert(model, pad(request.reads), request.model.view, where, request.strength, request.seed)
    write_whole(Path(request.file), save(tensors))


@lru_cache(maxsize=1)
def loaded(who: DreamingModel) -> Grafted:
    """Loaded once a process: a worker process of Ray's does one task after another."""
    import torch
    from safetensors.torch import load_file

    from circadian.memory.state import MemoryState
    from circadian.memory.tensors import write_tensors
    from circadian.memory.version import load_version

    model = load_version(Path(who.version), None if who.on_gpu else torch.float32)
    for overlay in who.overlays:
        write_tensors(model.memory_layers, {name: tensor.to(model.dtype) for name, tensor in load_file(overlay).items()})
    model.memory_state = MemoryState.parse([list(level) for level in who.experts])
    for layer in model.memory_layers.values():
        layer.narrow(who.view, who.view)
    model.to(device="cuda" if who.on_gpu else "cpu")  # type: ignore[call-arg]
    return model.eval()
