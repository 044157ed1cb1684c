"""Settings of the service: one place, every wait named. Each field can be given as the environment variable CIRCADIAN_<FIELD>; secrets
also as files (secret_files.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.secret_files import SecretFiles
from services.webhooks.reach import Reach

Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Variables with which a base model or a teacher is fetched; only controllers have one: they fetch (hub.py)."""
HEARTBEAT_LIMIT = 15.0
"""Proxies close a silent stream after about half a minute; the interface promises a heartbeat at least this often."""


class Settings(BaseSettings):
    """What an operator may choose."""

    model_config = SettingsConfigDict(env_prefix="CIRCADIAN_", extra="forbid", frozen=True, use_attribute_docstrings=True)

    home: Path = Path("~/.circadian")
    """Folder of the database, the versions and the nights."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where Prometheus finds this controller's metrics, without a key, so never where clients can reach it; None: nowhere."""
    database_url: Annotated[str, Field(repr=False)] = ""
    """SQLAlchemy URL; empty means a SQLite file in the home folder."""
    api_key: SecretStr | None = None
    """The one valid key; without it a key is generated at the first start."""
    key_pepper: SecretStr | None = None
    """What keys are hashed with; without it one is generated at the first start. All controllers of a database share it."""
    signing_key_file: Path | None = None
    """Of the secret that versions are signed with; empty means a file in the home folder, made at the first start."""
    trusted_signing_keys: tuple[str, ...] = ()
    """Public keys (hexadecimal) that have signed versions before this one, and are still trusted."""
    database_migrates: bool = True
    """Whether a controller that starts brings the schema up to date; false where `python -m services.migrate` does."""
    lease_seconds: Seconds = 15.0
    """After which another controller leads where the one that leads says nothing."""
    workflow_poll_seconds: Seconds = 1.0
    """Between two looks of the durable workflows' own machinery; a recovered sleep goes on after about as long."""
    workflow_database_url: Annotated[str, Field(repr=False)] = ""
    """Of the durable workflows; empty means the registry's PostgreSQL, or a SQLite file in the home folder."""
    ray_address: str = "127.0.0.1:6379"
    ray_dashboard: str = "http://127.0.0.1:8265"
    """As this service reaches Ray's dashboard: the interface for jobs is there, too."""
    ray_dashboard_url: Annotated[str, Field(pattern="^(https?://.+)?$")] = ""
    """As a browser reaches it, for the links from sleeps; empty means at the same address."""
    night_cluster_file: Path | None = None
    """A RayJob (YAML) whose cluster KubeRay brings up for each night alone (night_clusters.py); None: nights run beside the replicas."""
    kubernetes_api: str = "https://kubernetes.default.svc"
    kubernetes_account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Folder with the token, the namespace and the certificate with which the API is asked for RayJobs."""

    poll_seconds: Seconds = 0.25
    """Between two looks at a night, and at a sleep somebody waits for."""
    job_poll_seconds: Seconds = 1.0
    """Between two questions to Ray about a night's job."""
    job_pending_seconds: Seconds = 30.0
    """A night whose driver has not begun after so long says what it waits for. Ray fails a job that is pending for longer than its own
    RAY_JOB_START_TIMEOUT_SECONDS (900 s, in the environment of the cluster's head), and the next attempt begins."""
    heartbeat_seconds: Annotated[float, Field(gt=0.0, le=HEARTBEAT_LIMIT)] = 10.0
    """Between two comments on a silent event stream."""
    workshop_seconds: Seconds = 1800.0
    """Until a node must have looked into a model that a request names: it may have to start first, and to fetch the model."""
    longest_wait_seconds: Seconds = 60.0
    """Most that `?wait=` may ask for."""
    database_busy_seconds: Seconds = 15.0
    """A writer waits this long for another one."""
    replica_start_seconds: Seconds = 300.0
    """Until a wake replica must answer; the first one also reads the base model."""
    replica_check_seconds: Seconds = 5.0
    """Between two looks whether every replica still lives."""
    replica_stop_seconds: Seconds = 30.0
    """Until replicas that are put aside must have ended."""
    replica_drain_seconds: Seconds = 300.0
    """Until the requests must have ended of a replica that is no longer wanted; what is left then breaks off."""
    answer_seconds: Seconds = 300.0
    """Until a whole completion must have ended, or a stream begun."""
    delivery_seconds: Seconds = 60.0
    """Until every replica must have proved a delivery."""
    delivery_attempts: Annotated[int, Field(ge=1)] = 3
    online_poll_seconds: Seconds = 1.0
    """Between two looks at a deployment that learns online: at its new experiences, its learner and its replicas."""
    schedule_seconds: Seconds = 5.0
    """Between two looks at the schedules, and at what other controllers were asked to take in or to forget."""
    cool_down_seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 24 * 3600.0
    """No schedule begins a sleep of a deployment for so long after the gates have refused two of its versions in a row
    (schedules/cooling.py). Who asks for a sleep by hand is not held back. 0: schedules go on."""
    probe_seconds: Seconds = 1.0
    """Between two looks at the runs of probes that wait."""
    probe_patience_seconds: Seconds = 900.0
    """A run waits so long for a deployment that does not answer, from the time when it was asked for."""
    probe_answers_at_once: Annotated[int, Field(ge=1)] = 4
    """Questions that a run asks at the same time."""
    webhook_seconds: Seconds = 1.0
    """Between two looks at what is to be sent to webhooks."""
    webhooks: Reach = Reach()
    """Where webhooks may go, and how long they may take; as JSON in CIRCADIAN_WEBHOOKS."""
    retention_seconds: Seconds = 60.0
    """Between two looks at what has been kept for long enough."""
    batch_upload_seconds: Seconds = 600.0
    """Until a batch of experiences must have arrived."""
    trace_seconds: Seconds = 5.0
    """Between two looks at nights and rollouts that have ended and whose traces are to be sent, where a collector is named
    (OTEL_EXPORTER_OTLP_ENDPOINT)."""
    trace_patience_seconds: Seconds = 24 * 3600.0
    """A trace of a night or a rollout that the collector does not take is given up after so long."""
    traffic_seconds: Seconds = 5.0
    """Between two times that what was counted of the traffic is written down."""
    nights_at_once: Annotated[int, Field(ge=1)] = 1
    """Nights that run at the same time; more sleeps wait in line. Each takes a rollout worker and a learner of the cluster, and two that
    hold one of these each, while there is room for no more, would wait for each other for ever."""
    night_seconds: Seconds = 24 * 3600.0
    """A night that runs longer, from its first submission on, is stopped and fails."""
    night_attempts: Annotated[int, Field(ge=1)] = 3
    """Ray jobs a sleep may use when they are killed, lost or fail of what is not its user's fault; each resumes at the stage the last
    one was in. Those that go on after a pause, or begin because an operator asks for it, come on top."""
    retry_seconds: Seconds = 5.0
    """Between an attempt that failed and the next one; doubled each time."""
    longest_retry_seconds: Seconds = 300.0
    checkpoint_seconds: Seconds = 900.0
    """A night that is to stop at its next checkpoint is stopped after so long without one; it loses what came after the last one."""
    most_log_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024
    """Of a night's log, its end, that are told at once."""
    watcher_failures: Annotated[int, Field(ge=1)] = 5
    """Consecutive failures of the controller itself, each waited out longer, after which a sleep is given up."""
    longest_pause_seconds: Seconds = 30.0
    """Between two tries of something that keeps failing in the controller."""
    task_restarts: Annotated[int, Field(ge=0)] = 5
    """Times a background task that died is started again; after that the service is not ready."""
    ray_request_seconds: Seconds = 30.0
    """Until the Ray dashboard must have answered one request."""
    ray_patience_seconds: Seconds = 120.0
    """A sleep that is being ended waits this long for a cluster that does not answer; its job is stopped when it does."""
    ray_start_seconds: Seconds = 120.0
    ray_stop_seconds: Seconds = 30.0
    controller_start_seconds: Seconds = 120.0
    controller_stop_seconds: Seconds = 15.0

    allowed_models: tuple[str, ...] = ()
    """Shell patterns of the models that may be deployed, or teach: hub ids (`org/*`), or folders with every link followed (`/models/*`).
    None: every hub id, and every folder that the service can read."""
    judge_urls: tuple[str, ...] = ()
    """Addresses of judges (`recipe.seeding.imitation.judge.url`) that recipes may name; no other endpoint is ever asked."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """A key may make, of this controller, unless the key says otherwise; None: as many as it likes."""
    client_seconds: Seconds = 60.0
    """A client may take to send its body, and to take a piece of an answer; then it is left."""
    most_body_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024**2
    """Of a request."""
    most_batch_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024**2
    """Of a batch of experiences; each of its lines may be as long as a request."""
    most_batch_lines: Annotated[int, Field(ge=1)] = 10_000
    most_batches: Annotated[int, Field(ge=1)] = 16
    """Batches of one tenant that are not taken in yet; more are refused until one is."""
    most_tokens: Annotated[int, Field(ge=1)] = 16384
    """A client may ask for, in one completion."""
    most_choices: Annotated[int, Field(ge=1)] = 16
    """Completions a client may ask for, of one prompt."""
    most_prompts: Annotated[int, Field(ge=1)] = 64
    """Prompts of one request to /v1/completions."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code, then variables, then files. Making settings raises SecretsUnreadable."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @property
    def home_folder(self) -> Path:
        """Absolute."""
        return self.home.expanduser().resolve()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.home_folder / 'circadian.db'}"

    @property
    def workflow_database(self) -> str:
        own = self.database_url if self.database_url.startswith("postgresql") else f"sqlite:///{self.home_folder / 'workflows.db'}"
        return self.workflow_database_url or own

    @property
    def linked_dashboard(self) -> str:
        """Where links to Ray's dashboard begin."""
        return (self.ray_dashboard_url or self.ray_dashboard).rstrip("/")

    def deployment_folder(self, deployment: str) -> Path:
        return self.home_folder / "deployments" / deployment

    @property
    def batches_folder(self) -> Path:
        """Batches of experiences that are not taken in yet."""
        return self.home_folder / "batches"

    def wake_file(self, deployment: str) -> Path:
        """What the deployment's replicas serve."""
        return self.deployment_folder(deployment) / "wake.json"

    def canary_file(self, deployment: str) -> Path:
        """What the replica of the deployment's canary serves."""
        return self.deployment_folder(deployment) / "canary.json"

    def rollout_file(self, deployment: str, rollout: str) -> Path:
        """The delivery of a rollout, while it runs."""
        return self.deployment_folder(deployment) / f"{rollout}.delivery"

    def version_folder(self, deployment: str, version: str) -> Path:
        return self.deployment_folder(deployment) / "versions" / version

    def day_folder(self, deployment: str, day: int) -> Path:
        """What a deployment learns online on one day."""
        return self.deployment_folder(deployment) / "fast" / f"day-{day:04d}"

    def sleep_folder(self, deployment: str, sleep: str) -> Path:
        return self.deployment_folder(deployment) / "sleeps" / sleep
