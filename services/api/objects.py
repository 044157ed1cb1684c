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
    " canary:object? wake:string state:string active_version:string error:string?",
    "DeploymentStatus": "object:string deployment:string state:string active_version:string current_sleep:string? waiting:string?"
    " pending:object wake:string fast_memory:object? last_sleep:string? error:string?",
    "Life": "object:string data:array first_id:string? last_id:string? has_more:boolean versions:array? matrix:array? experts:object?"
    " numbers:object depths:array ray_dashboard:string",
    "Model": "id:string object:string created:integer owned_by:string root:string parent:string? version:string",
    "Experience": HEAD + " deployment:string source:string trust:string tokens:integer status:string reasons:array findings:object"
    " subject_id:string? session_id:string? uri:string? consent:boolean? occurred_at:number? dedupe_key:string? left_out:string?"
    " sleep:string? version:string?",
    "Feedback": HEAD + " experience:string reward:number? label:string? comment:string? given_by:string",
    "Sleep": HEAD + " deployment:string finished_at:integer? status:string queue_state:string? waiting:string? placement:object?"
    " phase:string? outcome:string? error:object? attempt:integer seed:integer recipe:object parent_version:string result_version:string?"
    " left_out:object progress:object links:object",
    "SleepReport": "object:string sleep:string outcome:string? version:string? left_out:object",
    "Event": "object:string id:string created_at:number type:string seq:integer level:string message:string data:object",
    "Dream": "object:string id:string",
    "DreamContext": "object:string id:string",
    "Version": HEAD + " deployment:string parent:string? sleep:string? status:string digest:string base_model:object lineage:array"
    " gates:array signature:object?",
    "VersionDiff": "object:string",
    "Rollout": HEAD + " deployment:string kind:string strategy:string from_version:string to_version:string status:string"
    " reason:string? by:string overridden_gates:array canary:object? finished_at:integer? error:string?",
    "Schedule": HEAD + " deployment:string trigger:object sleep_template:object next_at:number? queued:object? fired:integer"
    " last_fired_at:number? owner:string",
    "ScheduleRun": HEAD + " schedule:string occurrence:string trigger:string due_at:number outcome:string reason:string"
    " message:string sleep:string?",
    "WebhookEndpoint": HEAD + " url:string events:array deployments:array? enabled:boolean disabled:string?",
    "WebhookDelivery": HEAD + " endpoint:string event:string type:string status:string attempts:integer next_at:number?"
    " last_at:number? last_status:integer? last_reason:string?",
    "ApiKey": HEAD + " name:string tenant:string prefix:string scopes:array deployments:array? requests_per_minute:integer?"
    " created_by:string? expires_at:integer? last_used_at:integer? revoked_at:integer?",
    "AuditEvent": HEAD + " actor:string action:string target:string request_id:string? data:object digest:string",
    "UsageDay": "object:string deployment:string day:integer requests:integer prompt_tokens:integer completion_tokens:integer",
    "Object": "object:string",
}
OF_PATHS = {
    "deployments": "Deployment",
    "deployments/status": "DeploymentStatus",
    "deployments/nights": "Life",
    "models": "Model",
    "experiences": "Experience",
    "experiences/feedback": "Feedback",
    "experiences/quarantine": "Experience",
    "experiences/release": "Experience",
    "sleeps": "Sleep",
    "sleeps/cancel": "Sleep",
    "sleeps/report": "SleepReport",
    "sleeps/events": "Event",
    "sleeps/dreams": "Dream",
    "sleeps/curriculum": "DreamContext",
    "deployments/rollback": "Rollout",
    "versions": "Version",
    "versions/diff": "VersionDiff",
    "versions/promote": "Rollout",
    "versions/reject": "Version",
    "versions/revoke": "Version",
    "rollouts": "Rollout",
    "rollouts/abort": "Rollout",
    "schedules": "Schedule",
    "schedules/run": "Sleep",
    "schedules/runs": "ScheduleRun",
    "webhook_endpoints": "WebhookEndpoint",
    "webhook_endpoints/rotate": "WebhookEndpoint",
    "webhook_endpoints/test": "WebhookDelivery",
    "webhook_endpoints/deliveries": "WebhookDelivery",
    "api_keys": "ApiKey",
    "api_keys/rotate": "ApiKey",
    "audit_events": "AuditEvent",
    "usage": "UsageDay",
}
"""Which object a route answers with, by its path without /v1 and ids; others answer with some object."""
LISTS = frozenset({"sleeps/events", "sleeps/dreams", "sleeps/curriculum", "schedules/runs", "webhook_endpoints/deliveries"})
"""Routes below an object that answer with a list of them."""
NO_PAGES = frozenset({"models", "usage"})
"""Lists that are whole."""


def components() -> dict[str, Schema]:
    """Schemas of all objects."""
    return {name: _object(fields) for name, fields in OBJECTS.items()}


def answer(path: str, method: str) -> Schema:
    """What a route answers with where all is well."""
    parts = [part for part in path.split("/")[2:] if not part.startswith("{")]
    where = "/".join(parts)
    one = {"$ref": f"#/components/schemas/{OF_PATHS.get(where, 'Object')}"}
    many = where in LISTS or (method == "get" and "{" not in path and where in OF_PATHS)
    return _list(one, paged=where not in NO_PAGES) if many else one


def _object(fields: str) -> Schema:
    pairs = dict(field.split(":") for field in fields.split())
    return {"type": "object", "required": list(pairs), "properties": {name: _type(kind) for name, kind in pairs.items()}}


def _type(kind: str) -> Schema:
    name = kind.removesuffix("?")
    base: Schema = {"type": name, "items": {}} if name == "array" else {"type": name}
    return {"anyOf": [base, {"type": "null"}]} if kind.endswith("?") else base


def _list(of: Schema, paged: bool) -> Schema:
    properties: Schema = {"object": {"const": "list"}, "data": {"type": "array", "items": of}}
    if paged:
        properties |= {"first_id": _type("string?"), "last_id": _type("string?"), "has_more": {"type": "boolean"}}
    return {"type": "object", "required": list(properties), "properties": properties}
