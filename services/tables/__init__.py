"""Tables of the registry: deployments and their lives in life.py, what becomes of versions in rollouts.py, what comes in and goes in
data.py, keys and audit in access.py, traces in traces.py; database.py opens it."""

from services.tables.access import ApiKey, AuditEvent, Leadership, Repeatable
from services.tables.automatic import Schedule, ScheduleRun, Traffic, WebhookDelivery, WebhookEndpoint
from services.tables.base import Base, Json, Row, new_id
from services.tables.data import BatchError, Erasure, ExperienceBatch, StoredCompletion
from services.tables.database import Database, SchemaBehind
from services.tables.life import (
    Deployment,
    Event,
    ExperienceBand,
    ExperienceRow,
    FastMemory,
    Feedback,
    Learned,
    Sleep,
    StrayJob,
    Taken,
    Version,
)
from services.tables.probes import Probe, ProbeRun
from services.tables.rollouts import Lineage, Rollout
from services.tables.traces import UntoldTrace

__all__ = [
    "ApiKey",
    "AuditEvent",
    "Base",
    "BatchError",
    "Database",
    "Deployment",
    "Erasure",
    "Event",
    "ExperienceBand",
    "ExperienceBatch",
    "ExperienceRow",
    "FastMemory",
    "Feedback",
    "Json",
    "Leadership",
    "Learned",
    "Lineage",
    "Probe",
    "ProbeRun",
    "Repeatable",
    "Rollout",
    "Row",
    "Schedule",
    "ScheduleRun",
    "SchemaBehind",
    "Sleep",
    "StoredCompletion",
    "StrayJob",
    "Taken",
    "Traffic",
    "UntoldTrace",
    "Version",
    "WebhookDelivery",
    "WebhookEndpoint",
    "new_id",
]
