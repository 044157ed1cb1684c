"""The resources of the REST interface, verb by verb. What a request's fields mean is said where the service takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal

import httpx

from services.client import answers
from services.client.calls import Call, Json, Resource, S, at, delete, following, get, given, listing, nothing, patch, post, verb

ReportFormat = Literal["text/markdown", "text/html"]
CancelMode = Literal["checkpoint", "immediate"]
PauseMode = Literal["save", "latest"]
RetryFrom = Literal["last_checkpoint", "start"]


class Deployments(Resource[S]):
    """A model, its memory and its replicas under one name. Where an id is asked for, the name does too."""

    @verb
    def create(self, name: str, base_model: Json, *, idempotency_key: str | None = None, **more: Any) -> Call[answers.Deployment]:
        """`more`: memory, recipe, wake, serving, screening, metadata."""
        body = {"name": name, "base_model": base_model} | given(**more)
        return post(at("deployments"), answers.Deployment, body, key=idempotency_key)

    @listing
    def list(self) -> Call[answers.Page[answers.Deployment]]:
        return get(at("deployments"), answers.Page[answers.Deployment])

    @verb
    def get(self, id: str) -> Call[answers.Deployment]:
        return get(at("deployments", id), answers.Deployment)

    @verb
    def status(self, id: str) -> Call[answers.DeploymentStatus]:
        """What it is doing now."""
        return get(at("deployments", id, "status"), answers.DeploymentStatus)

    @verb
    def update(self, id: str, fields: Json, *, etag: str | None = None) -> Call[answers.Deployment]:
        """A merge patch."""
        return patch(at("deployments", id), answers.Deployment, fields, etag)

    @verb
    def delete(self, id: str, *, etag: str | None = None) -> Call[None]:
        return delete(at("deployments", id), etag)

    @verb
    def rollback(
        self, id: str, reason: str, *, to_version: str | None = None, expected_active_version: str | None = None
    ) -> Call[answers.Rollout]:
        """To the version before, unless one is named."""
        body = given(reason=reason, to_version=to_version, expected_active_version=expected_active_version)
        return post(at("deployments", id, "rollback"), answers.Rollout, body)


class Experiences(Resource[S]):
    """What a deployment met while awake."""

    @verb
    def create(
        self,
        deployment: str,
        *,
        messages: Sequence[Json] | None = None,
        text: str | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> Call[answers.Experience]:
        """A chat or a document. `more`: source, trust, subject_id, session_id, uri, consent, occurred_at, dedupe_key, metadata."""
        body = given(deployment=deployment, messages=messages, text=text, **more)
        return post(at("experiences"), answers.Experience, body, key=idempotency_key)

    @listing
    def list(self, deployment: str | None = None) -> Call[answers.Page[answers.Experience]]:
        return get(at("experiences"), answers.Page[answers.Experience], deployment=deployment)

    @verb
    def get(self, id: str) -> Call[answers.Experience]:
        return get(at("experiences", id), answers.Experience)

    @verb
    def feedback(
        self, id: str, *, reward: float | None = None, label: str | None = None, comment: str | None = None
    ) -> Call[answers.Feedback]:
        return post(at("experiences", id, "feedback"), answers.Feedback, given(reward=reward, label=label, comment=comment))

    @verb
    def quarantine(self, id: str, reason: str) -> Call[answers.Experience]:
        return post(at("experiences", id, "quarantine"), answers.Experience, {"reason": reason})

    @verb
    def release(self, id: str, reason: str) -> Call[answers.Experience]:
        return post(at("experiences", id, "release"), answers.Experience, {"reason": reason})

    @verb
    def delete(self, id: str) -> Call[None]:
        return delete(at("experiences", id))


class Sleeps(Resource[S]):
    """Nights of a deployment."""

    @verb
    def create(self, deployment: str, *, idempotency_key: str | None = None, **more: Any) -> Call[answers.Sleep]:
        """Begin a night. `more`: id, recipe, teachers, seed, held_out, selection, budget, gates, promotion, placement, metadata."""
        return post(at("sleeps"), answers.Sleep, {"deployment": deployment} | given(**more), key=idempotency_key)

    @verb
    def plan(self, deployment: str, **more: Any) -> Call[answers.Plan]:
        """What a night would do and cost if it were begun now with these fields; none is begun."""
        return post(at("sleeps"), answers.Plan, {"deployment": deployment, "dry_run": True} | given(**more))

    @listing
    def list(self, deployment: str | None = None) -> Call[answers.Page[answers.Sleep]]:
        return get(at("sleeps"), answers.Page[answers.Sleep], deployment=deployment)

    @verb
    def get(self, id: str, *, wait: float | None = None) -> Call[answers.Sleep]:
        """With `wait`: as soon as it has ended, or after that many seconds."""
        return get(at("sleeps", id), answers.Sleep, wait=wait)

    @following
    def watch(self, id: str, *, after: int = 0) -> Call[None]:
        """Its events as they happen, each once, until it has ended; from behind event number `after`. A broken stream is taken up."""
        return Call("GET", at("sleeps", id, "events"), nothing, params={"after_seq": after})

    @verb
    def cancel(self, id: str, *, mode: CancelMode | None = None) -> Call[answers.Sleep]:
        """At once, or (`checkpoint`) where a retry loses nothing."""
        return post(at("sleeps", id, "cancel"), answers.Sleep, given(mode=mode) or None)

    @verb
    def pause(self, id: str, *, checkpoint: PauseMode | None = None) -> Call[answers.Sleep]:
        """Once its next checkpoint is saved, or (`latest`) at once, to go on from the last one."""
        return post(at("sleeps", id, "pause"), answers.Sleep, given(checkpoint=checkpoint) or None)

    @verb
    def resume(self, id: str) -> Call[answers.Sleep]:
        return post(at("sleeps", id, "resume"), answers.Sleep)

    @verb
    def retry(self, id: str, *, begin: RetryFrom | None = None) -> Call[answers.Sleep]:
        """One that failed or was cancelled, in another attempt: from its last checkpoint on, or from the start."""
        return post(at("sleeps", id, "retry"), answers.Sleep, None if begin is None else {"from": begin})

    @verb
    def report(self, id: str) -> Call[answers.Report]:
        return get(at("sleeps", id, "report"), answers.Report)

    @verb
    def report_as(self, id: str, media_type: ReportFormat) -> Call[str]:
        return Call("GET", at("sleeps", id, "report"), _text, headers={"Accept": media_type})

    @listing
    def dreams(self, id: str, *, round: str | None = None) -> Call[answers.Page[answers.Dream]]:
        return get(at("sleeps", id, "dreams"), answers.Page[answers.Dream], round=round)

    @verb
    def curriculum(self, id: str) -> Call[answers.Page[answers.DreamContext]]:
        """Where every context stood in every round of dreams."""
        return get(at("sleeps", id, "curriculum"), answers.Page[answers.DreamContext])


class Versions(Resource[S]):
    """The states a deployed model has been in."""

    @listing
    def list(self, deployment: str | None = None) -> Call[answers.Page[answers.Version]]:
        return get(at("versions"), answers.Page[answers.Version], deployment=deployment)

    @verb
    def get(self, id: str) -> Call[answers.Version]:
        return get(at("versions", id), answers.Version)

    @verb
    def promote(
        self,
        id: str,
        *,
        canary: Json | None = None,
        expected_active_version: str | None = None,
        override_gates: bool | None = None,
        reason: str | None = None,
    ) -> Call[answers.Rollout]:
        """At once, or with `canary` ({percent, seconds, ...}) for some of the clients first."""
        more = given(canary=canary, expected_active_version=expected_active_version, override_gates=override_gates, reason=reason)
        return post(at("versions", id, "promote"), answers.Rollout, more)

    @verb
    def reject(self, id: str, reason: str) -> Call[answers.Version]:
        return post(at("versions", id, "reject"), answers.Version, {"reason": reason})

    @verb
    def revoke(self, id: str, reason: str) -> Call[answers.Version]:
        """The active one too: its deployment is rolled back then."""
        return post(at("versions", id, "revoke"), answers.Version, {"reason": reason})

    @verb
    def diff(self, id: str, against: str | None = None) -> Call[answers.Plain]:
        return get(at("versions", id, "diff"), answers.Plain, against=against)

    @verb
    def delete(self, id: str) -> Call[None]:
        return delete(at("versions", id))


class Rollouts(Resource[S]):
    """Changes of what a deployment serves."""

    @listing
    def list(self, deployment: str | None = None) -> Call[answers.Page[answers.Rollout]]:
        return get(at("rollouts"), answers.Page[answers.Rollout], deployment=deployment)

    @verb
    def get(self, id: str) -> Call[answers.Rollout]:
        return get(at("rollouts", id), answers.Rollout)

    @verb
    def abort(self, id: str) -> Call[answers.Rollout]:
        return post(at("rollouts", id, "abort"), answers.Rollout)


class Schedules(Resource[S]):
    """When deployments fall asleep by themselves."""

    @verb
    def create(self, deployment: str, trigger: Json, *, idempotency_key: str | None = None, **more: Any) -> Call[answers.Schedule]:
        """`more`: min_interval_seconds, blackout, concurrency, starting_deadline_seconds, suspend, sleep_template, metadata."""
        body = {"deployment": deployment, "trigger": trigger} | given(**more)
        return post(at("schedules"), answers.Schedule, body, key=idempotency_key)

    @listing
    def list(self, deployment: str | None = None) -> Call[answers.Page[answers.Schedule]]:
        return get(at("schedules"), answers.Page[answers.Schedule], deployment=deployment)

    @verb
    def get(self, id: str) -> Call[answers.Schedule]:
        return get(at("schedules", id), answers.Schedule)

    @verb
    def update(self, id: str, fields: Json, *, etag: str | None = None) -> Call[answers.Schedule]:
        """A merge patch."""
        return patch(at("schedules", id), answers.Schedule, fields, etag)

    @verb
    def delete(self, id: str) -> Call[None]:
        return delete(at("schedules", id))

    @verb
    def run(self, id: str) -> Call[answers.Sleep]:
        """A sleep now, as the schedule begins them."""
        return post(at("schedules", id, "run"), answers.Sleep)

    @listing
    def runs(self, id: str) -> Call[answers.Page[answers.ScheduleRun]]:
        return get(at("schedules", id, "runs"), answers.Page[answers.ScheduleRun])


class Probes(Resource[S]):
    """What versions are asked, to be judged."""

    @verb
    def create(self, *, idempotency_key: str | None = None, **fields: Any) -> Call[answers.Probe]:
        return post(at("probes"), answers.Probe, given(**fields), key=idempotency_key)

    @listing
    def list(self, deployment: str | None = None) -> Call[answers.Page[answers.Probe]]:
        return get(at("probes"), answers.Page[answers.Probe], deployment=deployment)

    @verb
    def get(self, id: str) -> Call[answers.Probe]:
        return get(at("probes", id), answers.Probe)

    @verb
    def update(self, id: str, fields: Json, *, etag: str | None = None) -> Call[answers.Probe]:
        """A merge patch."""
        return patch(at("probes", id), answers.Probe, fields, etag)

    @verb
    def delete(self, id: str) -> Call[None]:
        return delete(at("probes", id))

    @verb
    def run(self, id: str, version: str | None = None) -> Call[answers.ProbeRun]:
        return post(at("probes", id, "runs"), answers.ProbeRun, given(version=version))

    @listing
    def runs(self, id: str) -> Call[answers.Page[answers.ProbeRun]]:
        return get(at("probes", id, "runs"), answers.Page[answers.ProbeRun])


class Keys(Resource[S]):
    """Who may do what. A key is in the answer that makes it, and in no other: the service keeps no such answer to repeat it."""

    @verb
    def create(self, name: str, scopes: Sequence[str], **more: Any) -> Call[answers.ApiKey]:
        """`more`: deployments, requests_per_minute, expires_in_seconds, tenant, metadata."""
        return post(at("api_keys"), answers.ApiKey, {"name": name, "scopes": scopes} | given(**more), keeps=False)

    @listing
    def list(self) -> Call[answers.Page[answers.ApiKey]]:
        return get(at("api_keys"), answers.Page[answers.ApiKey])

    @verb
    def get(self, id: str) -> Call[answers.ApiKey]:
        return get(at("api_keys", id), answers.ApiKey)

    @verb
    def rotate(self, id: str) -> Call[answers.ApiKey]:
        """A new key that may do what this one may, which opens nothing from now on."""
        return post(at("api_keys", id, "rotate"), answers.ApiKey, keeps=False)

    @verb
    def revoke(self, id: str) -> Call[answers.ApiKey]:
        return Call("DELETE", at("api_keys", id), get(at("api_keys", id), answers.ApiKey).read)


class Webhooks(Resource[S]):
    """Where events are sent. A secret is in the answer that makes it, and in no other."""

    @verb
    def create(self, url: str, **more: Any) -> Call[answers.Webhook]:
        """`more`: events, deployments, metadata."""
        return post(at("webhook_endpoints"), answers.Webhook, {"url": url} | given(**more), keeps=False)

    @listing
    def list(self) -> Call[answers.Page[answers.Webhook]]:
        return get(at("webhook_endpoints"), answers.Page[answers.Webhook])

    @verb
    def get(self, id: str) -> Call[answers.Webhook]:
        return get(at("webhook_endpoints", id), answers.Webhook)

    @verb
    def update(self, id: str, fields: Json) -> Call[answers.Webhook]:
        return patch(at("webhook_endpoints", id), answers.Webhook, fields, None)

    @verb
    def delete(self, id: str) -> Call[None]:
        return delete(at("webhook_endpoints", id))

    @verb
    def rotate(self, id: str) -> Call[answers.Webhook]:
        return post(at("webhook_endpoints", id, "rotate"), answers.Webhook, keeps=False)

    @verb
    def test(self, id: str) -> Call[answers.WebhookDelivery]:
        return post(at("webhook_endpoints", id, "test"), answers.WebhookDelivery, keeps=False)

    @listing
    def deliveries(self, id: str) -> Call[answers.Page[answers.WebhookDelivery]]:
        return get(at("webhook_endpoints", id, "deliveries"), answers.Page[answers.WebhookDelivery])

    @verb
    def replay(self, id: str, delivery: str) -> Call[answers.WebhookDelivery]:
        return post(at("webhook_endpoints", id, "deliveries", delivery, "replay"), answers.WebhookDelivery, keeps=False)


class Audit(Resource[S]):
    """Who did what."""

    @listing
    def list(
        self, *, object: str | None = None, actor: str | None = None, action: str | None = None
    ) -> Call[answers.Page[answers.AuditEvent]]:
        return get(at("audit_events"), answers.Page[answers.AuditEvent], object=object, actor=actor, action=action)


class Usage(Resource[S]):
    """What deployments were asked."""

    @verb
    def days(self, deployment: str | None = None, *, days: int | None = None) -> Call[answers.Page[answers.UsageDay]]:
        return get(at("usage"), answers.Page[answers.UsageDay], deployment=deployment, days=days)


class Resources(Generic[S]):
    """All of them, sent by one client."""

    def __init__(self, sender: S) -> None:
        self.deployments: Deployments[S] = Deployments(sender)
        self.experiences: Experiences[S] = Experiences(sender)
        self.sleeps: Sleeps[S] = Sleeps(sender)
        self.versions: Versions[S] = Versions(sender)
        self.rollouts: Rollouts[S] = Rollouts(sender)
        self.schedules: Schedules[S] = Schedules(sender)
        self.probes: Probes[S] = Probes(sender)
        self.keys: Keys[S] = Keys(sender)
        self.webhooks: Webhooks[S] = Webhooks(sender)
        self.audit: Audit[S] = Audit(sender)
        self.usage: Usage[S] = Usage(sender)


def _text(response: httpx.Response) -> str:
    return response.text
