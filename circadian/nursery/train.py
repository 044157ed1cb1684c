"""Pretraining of the nursery models: `circadian nursery train`.

A Qwen3-shaped decoder of under a million parameters reads the documents of one world. Muon steps the matrices, AdamW the rest,
both with a linear warm-up and a linear decay to zero; tokens are weighed as the curriculum says. Everything is deterministic from
`NurserySpec.seed` on one machine; on another, floating point may differ in the last bits, so the report carries accuracies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from circadian.experience import chat_ids
from circadian.nursery.curriculum import Batch, Curriculum, Documents
from circadian.nursery.muon import Muon
from circadian.nursery.school import School
from circadian.nursery.school_curriculum import SchoolCurriculum
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import Probe, World
from circadian.specs import NurserySpec

Progress = Callable[[int, int, float], None]
"""progress(step, steps, loss)"""


def build_model(spec: NurserySpec, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A fresh, seeded Qwen3 of the nursery's size, fp32."""
    torch.manual_seed(spec.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=spec.width,
        intermediate_size=spec.mlp_width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        head_dim=spec.head_width,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def documents_of(spec: NurserySpec) -> Documents:
    """What the model of a spec reads."""
    if spec.world == "school":
        school = School(spec.world_seed)
        return SchoolCurriculum(school, build_tokenizer(school), spec.seed, spec.steps)
    world = World(spec.world_seed)
    return Curriculum(world, build_tokenizer(world), spec.seed, spec.steps)


def pretrain(
    spec: NurserySpec,
    progress: Progress | None = None,
    curriculum: Documents | None = None,
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train the nursery model from scratch, or one that reads something else."""
    curriculum = curriculum or documents_of(spec)
    tokenizer = curriculum.tokenizer
    model = build_model(spec, tokenizer).train()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=spec.muon_lr),
        torch.optim.AdamW(others, lr=spec.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda s: _schedule(s, spec.steps)) for o in optimizers]
    for step in range(spec.steps):
        loss = torch.zeros(())
        for batch in (curriculum.closed_book(step, spec.closed_book_rows), curriculum.open_book(step, spec.open_book_rows)):
            part = weighted_loss(model, batch)
            part.backward()
            loss = loss + part.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        if progress:
            progress(step + 1, spec.steps, float(loss))
    return model.eval(), tokenizer


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over 50 steps, flat, linear decay to zero over the last 40 %."""
    return min(1.0, (step + 1) / 50, max(0.0, (steps - step) / (0.4 * steps)))


def weighted_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Weighted mean cross entropy of predicting each token from those before it, a scalar in nats."""
    logits = model(input_ids=batch.ids).logits[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    weight = batch.weight[:, 1:].flatten()
    return (losses * weight).sum() / weight.sum()


@torch.no_grad()
def accuracy(model: nn.Module, tokenizer: PreTrainedTokenizerFast, probes: list[Probe], **forward: object) -> float:
    """Share of probes whose most likely next word is the answer, read closed book."""
    prompts = [chat_ids(tokenizer, [{"role": "user", "content": p.question}], answering=True) for p in probes]
    answers = torch.tensor([tokenizer.get_vocab()[p.answer] for p in probes])
    right = 0
    for start in range(0, len(prompts), 128):
        rows = prompts[start : start + 128]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True)
        last = torch.tensor([len(r) - 1 for r in rows])
        logits = model(input_ids=ids, **forward).logits[torch.arange(len(rows)), last]
        right += int((logits.argmax(-1) == answers[start : start + 128]).sum())
    return right / len(probes)
