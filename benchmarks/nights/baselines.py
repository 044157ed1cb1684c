"""What a plain engineer would do with a day's chats, at the same cost: every method but Sleep.

    sft          cross entropy on the day, all weights
    sft_replay   the same, half of every batch from the days before, which are stored as they were: the only one that stores raw data
    sft_cues     the same, and KL to the model as it was the evening before, on what it writes after the cues of earlier nights and from
                 nothing: Sleep's cues and its rested teacher, without its memory
    lora         cross entropy on the day, one low-rank adapter on every matrix for all nights (peft)
    ewc          cross entropy on the day, and the Fisher-weighted distance from what earlier nights left (Kirkpatrick et al. 2017)
    opsd         on-policy self-distillation: the student answers the day's questions from memory, and is taught, at every token it wrote,
                 by the evening's model with the fact in front of it

Each night a method takes steps until it has spent as much as it is given. All learn with AdamW, the learning rate falling linearly over
the second half, as Sleep's does.

B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.generate import Tokens, complete
from benchmarks.nights.meter import Meter, metered
from circadian.experience import Row
from circadian.objectives.knowledge_seeding import shares
from circadian.objectives.rows import pad
from circadian.objectives.schedule import lr_at
from circadian.specs import SeedingSpec

ROWS = 32
RECIPE = SeedingSpec()
"""Sleep's: what sft_cues asks its evening's model, how often and in which proportion, and how long every answer is."""
LORA_RANK, LORA_ALPHA = 64, 128
EWC_STRENGTH = 1000.0
FISHER_ROWS = 256
FIRST_STEPS = 20
"""Steps after which the cost of one is known, and with it how many there are."""


@dataclass(frozen=True)
class Lived:
    """A day as every method gets it: rows to learn, the cues of it that may be kept, and for opsd each question with its fact."""

    rows: list[Row]
    cues: list[Tokens]
    told: list[tuple[Tokens, Tokens]]
    """(question, the question after a statement of the fact)."""


class Method(ABC):
    """One model through many nights."""

    def __init__(self, base: PreTrainedModel, lr: float, seed: int) -> None:
        self.model: nn.Module = metered(copy.deepcopy(base)).requires_grad_(True)
        self.lr, self.seed, self.nights = lr, seed, 0
        self.rng = random.Random(f"baseline-{seed}")

    def logits(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, V]"""
        return self.model(input_ids=ids).logits

    def night(self, day: Lived, budget: int, meter: Meter) -> None:
        """Learn a day for `budget` token passes."""
        start = meter.passes
        self.before(day)
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        adam = torch.optim.AdamW(learned, lr=0.0, weight_decay=0.0)
        step, steps = 0, FIRST_STEPS + 1
        first = meter.passes
        while step < steps:
            for group in adam.param_groups:
                group["lr"] = lr_at(step, steps, self.lr) if step >= FIRST_STEPS else self.lr
            loss = self.loss(day)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            adam.step()
            step += 1
            if step == FIRST_STEPS:
                steps = max(FIRST_STEPS, int((budget - (first - start)) / ((meter.passes - first) / FIRST_STEPS)))
        self.after(day)
        self.nights += 1

    def before(self, day: Lived) -> None:
        """Dusk."""
        del day

    @abstractmethod
    def loss(self, day: Lived) -> Tensor:
        """Of one step."""

    def after(self, day: Lived) -> None:
        """Dawn."""
        del day

    def draw(self, rows: Sequence[Row], count: int) -> list[Row]:
        return self.rng.sample(rows, count) if count <= len(rows) else self.rng.choices(rows, k=count)

    def cross_entropy(self, rows: Sequence[Row]) -> Tensor:
        """Weighted mean over the tokens that are learned, nats."""
        ids, weight = pad([row.ids for row in rows]), pad([row.weight for row in rows])[:, 1:]
        learned = weight > 0
        losses = F.cross_entropy(self.logits(ids)[:, :-1][learned], ids[:, 1:][learned], reduction="none")
        return (losses * weight[learned]).sum() / weight[learned].sum()


class SFT(Method):
    """All weights, the day alone."""

    def loss(self, day: Lived) -> Tensor:
        return self.cross_entropy(self.draw(day.rows, ROWS))


class LoRA(SFT):
    """One adapter for all nights."""

    def __init__(self, base: PreTrainedModel, lr: float, seed: int) -> None:
        super().__init__(base, lr, seed)
        config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.0, target_modules="all-linear")
        torch.manual_seed(seed)
        self.model = get_peft_model(self.model, config)


class Replay(Method):
    """Half of every batch from the days before."""

    def __init__(self, base: PreTrainedModel, lr: float, seed: int) -> None:
        super().__init__(base, lr, seed)
        self.stored: list[Row] = []

    def loss(self, day: Lived) -> Tensor:
        past = ROWS // 2 if self.stored else 0
        return self.cross_entropy(self.draw(day.rows, ROWS - past) + self.draw(self.stored, past))

    def after(self, day: Lived) -> None:
        self.stored += day.rows


class Cues(Method):
    """The day by cross entropy, the past by what the evening's model says after old cues and from nothing."""

    def __init__(self, base: PreTrainedModel, lr: float, seed: int, beginning: int, end: int) -> None:
        super().__init__(base, lr, seed)
        self.cues: list[Tokens] = []
        self.beginning, self.end = beginning, end

    def before(self, day: Lived) -> None:
        self.evening = copy.deepcopy(self.model).requires_grad_(False)
        seed = self.rng.getrandbits(31)
        asked = self.rng.choices(self.cues, k=RECIPE.teacher_rows) if self.cues else []
        self.old = _after(self.evening, asked, RECIPE.completion_tokens, seed, self.end)
        nothing = [(self.beginning,)] * RECIPE.free_run_rows
        self.free = _after(self.evening, nothing, RECIPE.free_run_tokens, seed + 1, self.end)

    def loss(self, day: Lived) -> Tensor:
        mixed = shares(RECIPE, bool(self.old))
        kinds = self.rng.choices(list(mixed), list(mixed.values()), k=ROWS)
        past = [self.rng.choice(self.old if kind == "old" else self.free) for kind in kinds if kind != "day"]
        days = self.draw(day.rows, kinds.count("day"))
        kept = _kl(self, self.evening, [ids for ids, _ in past], [start for _, start in past])
        return kept * len(past) / ROWS + (self.cross_entropy(days) * len(days) / ROWS if days else 0.0)

    def after(self, day: Lived) -> None:
        self.cues += day.cues


class EWC(Method):
    """Online: one Fisher information, summed over the base's own writing and every night."""

    def __init__(self, base: PreTrainedModel, lr: float, seed: int, beginning: int, end: int) -> None:
        super().__init__(base, lr, seed)
        written = _after(self.model, [(beginning,)] * FISHER_ROWS, RECIPE.free_run_tokens, seed, end)
        self.fisher = [torch.zeros_like(parameter) for parameter in self.model.parameters()]
        self._inform([Row.of_text(ids, ()) for ids, _ in written])

    def loss(self, day: Lived) -> Tensor:
        far = sum(
            (weight * (now - then) ** 2).sum()
            for weight, now, then in zip(self.fisher, self.model.parameters(), self.then, strict=True)
        )
        return self.cross_entropy(self.draw(day.rows, ROWS)) + EWC_STRENGTH / 2 * far

    def after(self, day: Lived) -> None:
        self._inform(self.draw(day.rows, min(FISHER_ROWS, len(day.rows))))

    def _inform(self, rows: Sequence[Row]) -> None:
        """Add the mean squared gradient of single rows, and stand where the model stands."""
        for row in rows:
            self.model.zero_grad()
            self.cross_entropy([row]).backward()
            for weight, parameter in zip(self.fisher, self.model.parameters(), strict=True):
                if parameter.grad is not None:
                    weight += parameter.grad**2 / len(rows)
        self.then = [parameter.detach().clone() for parameter in self.model.parameters()]


class OPSD(Method):
    """The student's own answers, judged by the evening's model with the fact in context."""

    def __init__(self, base: PreTrainedModel, lr: float, seed: int, end: int) -> None:
        super().__init__(base, lr, seed)
        self.end = end

    def before(self, day: Lived) -> None:
        self.evening = copy.deepcopy(self.model).requires_grad_(False)

    def loss(self, day: Lived) -> Tensor:
        asked = self.rng.choices(day.told, k=ROWS)
        answers = complete(self.model, [q for q, _ in asked], RECIPE.completion_tokens, 1.0, self.rng.getrandbits(31), (self.end,))
        rows = [(*question, *answer) for (question, _), answer in zip(asked, answers, strict=True)]
        open_book = [(*told, *answer) for (_, told), answer in zip(asked, answers, strict=True)]
        return _kl(self, self.evening, rows, [len(q) for q, _ in asked], open_book, [len(told) for _, told in asked])


def _after(model: nn.Module, asked: Sequence[Tokens], tokens: int, seed: int, end: int) -> list[tuple[Tokens, int]]:
    """Of each prompt the whole text after it, and where what was written begins."""
    written = complete(model, asked, tokens, 1.0, seed, (end,)) if asked else []
    return [((*prompt, *rest), len(prompt)) for prompt, rest in zip(asked, written, strict=True) if rest]


def _kl(
    method: Method,
    teacher: nn.Module,
    rows: Sequence[Tokens],
    starts: Sequence[int],
    teacher_rows: Sequence[Tokens] | None = None,
    teacher_starts: Sequence[int] | None = None,
) -> Tensor:
    """KL(teacher || student), mean over what stands from each row's start on, nats; the teacher may read something in front of it."""
    read, from_ = teacher_rows or rows, teacher_starts or starts
    with torch.no_grad():
        p = _places(teacher(input_ids=pad(read)).logits, read, from_).log_softmax(-1)
    q = _places(method.logits(pad(rows)), rows, starts).log_softmax(-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()


def _places(logits: Tensor, rows: Sequence[Tokens], starts: Sequence[int]) -> Tensor:
    """The logits [N, V] that predict each row's tokens from its start on."""
    return torch.cat([logits[i, start - 1 : len(row) - 1] for i, (row, start) in enumerate(zip(rows, starts, strict=True))])
