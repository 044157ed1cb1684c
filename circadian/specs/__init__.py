"""Every setting a user can make, checked before anything starts. Importable without torch, Ray or vLLM."""

from __future__ import annotations

from circadian.specs.base import Fraction, PositiveInt, Resource, Seconds, Spec
from circadian.specs.cluster import MOST_REPLICAS, Autoscale, EngineSpec, LearnerSpec, RolloutSpec
from circadian.specs.experience import Experience, Message
from circadian.specs.gates import GateSpec
from circadian.specs.learning import (
    BaseJudge,
    DivergenceSpec,
    EmbeddingJudge,
    EndpointJudge,
    FastLearningSpec,
    ImitationSpec,
    JudgeSpec,
    NoJudge,
    OnlineLearningSpec,
    SeedingSpec,
)
from circadian.specs.memory import BaseModelRef, ExpertRecord, Level, MemorySpec, VersionRecord
from circadian.specs.night import ChunkJob, ChunkRecord, FastStart, NightJob, Recipe, TeacherSpec
from circadian.specs.nursery import NurserySpec
from circadian.specs.probes import ProbeItem, UserProbe
from circadian.specs.promotion import CanarySpec, PromotionSpec
from circadian.specs.screening import CapsSpec, DuplicatesSpec, RedactionSpec, RuleSpec, ScreeningSpec, TriggersSpec

__all__ = [
    "MOST_REPLICAS",
    "Autoscale",
    "BaseJudge",
    "BaseModelRef",
    "CanarySpec",
    "CapsSpec",
    "ChunkJob",
    "ChunkRecord",
    "DivergenceSpec",
    "DuplicatesSpec",
    "EmbeddingJudge",
    "EndpointJudge",
    "EngineSpec",
    "Experience",
    "ExpertRecord",
    "FastLearningSpec",
    "FastStart",
    "Fraction",
    "GateSpec",
    "ImitationSpec",
    "JudgeSpec",
    "LearnerSpec",
    "Level",
    "MemorySpec",
    "Message",
    "NightJob",
    "NoJudge",
    "NurserySpec",
    "OnlineLearningSpec",
    "PositiveInt",
    "ProbeItem",
    "PromotionSpec",
    "Recipe",
    "RedactionSpec",
    "Resource",
    "RolloutSpec",
    "RuleSpec",
    "ScreeningSpec",
    "Seconds",
    "SeedingSpec",
    "Spec",
    "TeacherSpec",
    "TriggersSpec",
    "UserProbe",
    "VersionRecord",
]
