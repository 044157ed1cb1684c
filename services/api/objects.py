"""What the objects of the interface look like, for its OpenAPI file: the fields that are always there. There may be more.

One line is one object: `name:type`, a question mark for what may be null. The views (views.py and its like) make them; that each answer
is what is said here is tested on every route.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
HEAD = "object:string id:string created_at:integer metadata:object"
"""Of everything that clients make or list."""
OBJECTS = {
    "Deployment": HEAD
    + " name:string base_model:object memory:object recipe:object serving:object screening:object promotion:object"
    " canary:object? retention:object wake:string state:string active_version:string error:string?",
    "DeploymentStatus": "object:string deployment:string state:string active_version:string candidate_version:string?"
    " accepting_requests:boolean current_sleep:string? waiting:string? pending:object wake:string fast_memory:object?"
    " last_sleep:string? next_sleep_at:number? error:string?",
    "Life": "object:string data:array first_id:string? last_id:string? has_more:boolean versions:array? matrix:array? experts:object?"
    " numbers:object depths:array ray_dashboard:string",
    "Model": "id:string object:string created:integer owned_by:string root:string parent:string? version:string",
    "Experience": HEAD + " deployment:string source:string trust:string tokens:integer status:string reasons:array findings:object"
    " subject_id:string? session_id:string? uri:string? consent:boolean? occurred_at:number? dedupe_key:string? left_out:string?"
    " sleep:string? version:string? trace_id:string?",
    "Feedback": HEAD + " experience:string reward:number? label:string? comment:string? given_by:string",
    "Sleep": HEAD + " deployment:string finished_at:integer? status:string queue_state:string? waiting:string? placement:object?"
    " phase:string? outcome:string? error:object? attempt:integer seed:integer recipe:object parent_version:string result_version:string?"
    " left_out:object progress:object links:object trace_id:string?",
    "SleepPlan": "object:string",
    "SleepReport": "object:string sleep:string outcome:string? version:string? left_out:object",
    "Event": "object:string id:string created_at:number type:string seq:integer level:string message:string data:object",
    "Dream": "object:string id:string",
    "DreamContext": "object:string id:string",
    "Version": HEAD + " deployment:string parent:string? sleep:string? kind:string status:string digest:string base_model:object"
    " lineage:array tokens:integer kept:object gates:array signature:object? trace_id:string?",
    "VersionDiff": "object:string",
    "Rollout": HEAD + " deployment:string kind:string strategy:string from_version:string to_version:string status:string"
    " reason:string? by:string overridden_gates:array canary:object? finished_at:integer? error:string? trace_id:string?",
    "Schedule": HEAD
    + " deployment:string trigger:object sleep_template:object next_at:number? cooling_until:number? queued:object?"
    " fired:integer last_fired_at:number? owner:string",
    "ScheduleRun": HEAD + " schedule:string occurrence:string trigger:string due_at:number outcome:string reason:string"
    " message:string sleep:string?",
    "WebhookEndpoint": HEAD + " url:string events:array deployments:array? enabled:boolean disabled:string?",
    "WebhookDelivery": HEAD + " endpoint:string event:string type:string status:string attempts:integer next_at:number?"
    " last_at:number? last_status:integer? last_reason:string?",
    "ApiKey": HEAD + " name:string tenant:string prefix:string scopes:array deployments:array? requests_per_minute:integer?"
    " created_by:string? expires_at:integer? last_used_at:integer? revoked_at:integer?",
    "AuditEvent": HEAD + " actor:string action:string target:string request_id:string? data:object digest:string",
    "UsageDay": "object:string deployment:string day:integer requests:integer prompt_tokens:integer completion_tokens:integer",
    "Batch": HEAD + " deployment:string? status:string waiting:string? error:object? bytes:integer sha256:string lines:integer"
    " lines_done:integer counts:object errors_url:string finished_at:integer?",
    "BatchError": "object:string id:string line:integer code:string pointer:string? detail:string",
    "StoredChat": "id:string object:string created:integer model:string choices:array usage:object? system_fingerprint:string?"
    " metadata:object version:string? experience:string experience_status:string",
    "StoredMessage": "id:string role:string content:string name:string?",
    "Deleted": "id:string object:string deleted:boolean",
    "Erasure": HEAD + " deployment:string? subject_id:string? experience_ids:array? mode:string status:string waiting:string?"
    " affected_versions:array actions:array finished_at:integer?",
    "Artifact": "object:string id:string",
    "Checkpoint": "object:string id:string",
    "MetricSeries": "object:string id:string",
    "SleepLog": "object:string sleep:string attempt:integer lines:array truncated:boolean",
    "Probe": HEAD + " deployment:string kind:string scorer:string threshold:number? max_regression:number? max_tokens:integer"
    " visibility:string n:integer items:array?",
    "ProbeRun": HEAD + " finished_at:integer? deployment:string probe:string version:string status:string score:number? ci95:array?"
    " n:integer per_item:array error:object?",
    "Object": "object:string",
}
FIELDS: dict[str, Schema] = {
    "trace_id": {
        "description": "Under which a collector of traces has it (OpenTelemetry); null where the service sends none",
        "examples": ["4bf92f3577b34da6a3ce929d0e0e4736"],
    }
}
"""What is said of a field beside its type, wherever it is."""
OF_PATHS = {
    "deployments": "Deployment",
    "deployments/status": "DeploymentStatus",
    "deployments/nights": "Life",
    "models": "Model",
    "experiences": "Experience",
    "experiences/batches": "Batch",
    "experiences/batches/errors": "BatchError",
    "experiences/feedback": "Feedback",
    "experiences/quarantine": "Experience",
    "experiences/release": "Experience",
    "experiences/versions": "Version",
    "chat/completions": "StoredChat",
    "chat/completions/messages": "StoredMessage",
    "delete chat/completions": "Deleted",
    "erasures": "Erasure",
    "sleeps": "Sleep",
    "200 post sleeps": "SleepPlan",
    "sleeps/artifacts": "Artifact",
    "sleeps/cancel": "Sleep",
    "sleeps/checkpoints": "Checkpoint",
    "sleeps/logs": "SleepLog",
    "sleeps/metrics": "MetricSeries",
    "sleeps/pause": "Sleep",
    "sleeps/resume": "Sleep",
    "sleeps/retry": "Sleep",
    "sleeps/report": "SleepReport",
    "sleeps/events": "Event",
    "sleeps/dreams": "Dream",
    "sleeps/curriculum": "DreamContext",
    "deployments/rollback": "Rollout",
    "versions": "Version",
    "versions/diff": "VersionDiff",
    "versions/experiences": "Experience",
    "versions/promote": "Rollout",
    "versions/reject": "Version",
    "versions/revoke": "Version",
    "rollouts": "Rollout",
    "rollouts/abort": "Rollout",
    "probes": "Probe",
    "probes/runs": "ProbeRun",
    "schedules": "Schedule",
    "schedules/run": "Sleep",
    "schedules/runs": "ScheduleRun",
    "webhook_endpoints": "WebhookEndpoint",
    "webhook_endpoints/rotate": "WebhookEndpoint",
    "webhook_endpoints/test": "WebhookDelivery",
    "webhook_endpoints/deliveries": "WebhookDelivery",
    "webhook_endpoints/deliveries/replay": "WebhookDelivery",
    "api_keys": "ApiKey",
    "api_keys/rotate": "ApiKey",
    "audit_events": "AuditEvent",
    "usage": "UsageDay",
}
"""Which object a route answers with, by its path without /v1 and ids, where it matters with method and status; others: some object."""
LISTS = frozenset(
    """sleeps/artifacts sleeps/checkpoints sleeps/curriculum sleeps/dreams sleeps/events sleeps/metrics schedules/runs probes/runs
    webhook_endpoints/deliveries experiences/batches/errors experiences/versions versions/experiences chat/completions/messages""".split()
)
"""Paths below an object under which GET lists them."""
OTHER_MEDIA = {
    "get /v1/sleeps/{id}/report": ("text/markdown", "text/html"),
    "get /v1/sleeps/{id}/events": ("text/event-stream",),
    "get /v1/sleeps/{id}/artifacts/{name}": ("*/*",),
}
"""Media types that a route answers with beside JSON, or instead of it."""
NO_PAGES = frozenset({"models", "usage"})
"""Lists that are whole."""


def components() -> dict[str, Schema]:
    """Schemas of all objects."""
    return {name: _object(fields) for name, fields in OBJECTS.items()}


def answer(path: str, method: str, status: str) -> Schema:
    """What a route answers with where all is well."""
    parts = [part for part in path.split("/")[2:] if not part.startswith("{")]
    where = "/".join(parts)
    name = OF_PATHS.get(f"{status} {method} {where}") or OF_PATHS.get(f"{method} {where}") or OF_PATHS.get(where, "Object")
    one = {"$ref": f"#/components/schemas/{name}"}
    many = method == "get" and not path.endswith("}") and (where in LISTS or ("{" not in path and where in OF_PATHS))
    return _list(one, paged=where not in NO_PAGES) if many else one


def _object(fields: str) -> Schema:
    pairs = dict(field.split(":") for field in fields.split())
    properties = {name: _type(kind) | FIELDS.get(name, {}) for name, kind in pairs.items()}
    return {"type": "object", "required": list(pairs), "properties": properties}


def _type(kind: str) -> Schema:
    name = kind.removesuffix("?")
    base: Schema = {"type": name, "items": {}} if name == "array" else {"type": name}
    return {"anyOf": [base, {"type": "null"}]} if kind.endswith("?") else base


def _list(of: Schema, paged: bool) -> Schema:
    properties: Schema = {"object": {"const": "list"}, "data": {"type": "array", "items": of}}
    if paged:
        properties |= {"first_id": _type("string?"), "last_id": _type("string?"), "has_more": {"type": "boolean"}}
    return {"type": "object", "required": list(properties), "properties": properties}
