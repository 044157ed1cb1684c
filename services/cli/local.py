"""`circadian up` and `circadian demo`: a service on this machine, with Ray and a deployment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.cli.ending import end_in_order
from services.cli.output import console, say
from services.cli.shared import DEFAULT_URL, INTERRUPTED, LOCAL, fail

if TYPE_CHECKING:
    from services.stack import Stack
    from services.states import ServingState
    from services.tables import Database

app = typer.Typer()
WATCH_SECONDS = 1.0
"""Between two looks whether the children of `up` still run."""
WakeMode = Literal["at_dusk", "online"]
WAKE_HELP = "When the fast memory learns: all of the day when a night begins, or while it serves, chunk by chunk."
GPUS_HELP = (
    "GPUs of each replica; a night's learner and writer take as many each. A fraction shares one GPU: 0.3 lets it hold all three."
)


class ModelMissing(Exception):
    """There is no model where `up` was told to find one."""


def no_stack() -> tuple[type[Exception], ...]:
    """Why a service does not start; ValidationError is what is wrong with a CIRCADIAN_ variable."""
    from pydantic import ValidationError

    from services.client import ClientError
    from services.home import HomeRefused
    from services.ports import PortInUse
    from services.stack import StackFailed

    return StackFailed, HomeRefused, PortInUse, ValidationError, ClientError


@app.command(rich_help_panel=LOCAL)
def up(
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the base model; the nursery's unless given.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub id; the newest unless given.")] = None,
    name: Annotated[str, typer.Option(help="Of the deployment.")] = "nursery",
    home: Annotated[Path | None, typer.Option(help="Folder of everything the service keeps.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of the REST interface.")] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of Ray's dashboard; a free one unless given.")
    ] = None,
    num_cpus: Annotated[int, typer.Option(min=1, help="Logical CPUs of the cluster.")] = 4,
    gpus: Annotated[float, typer.Option(min=0.0, help=GPUS_HELP)] = 0.0,
    wake: Annotated[WakeMode, typer.Option(help=WAKE_HELP)] = "at_dusk",
) -> None:
    """Start Ray, the service and one deployment on this machine; Ctrl-C ends them."""
    import logging

    import torch

    from services.fleet import GpusMissing, ServingSpec, gpus_fit
    from services.hub import NoCommit
    from services.settings import Settings
    from services.stack import Stack, StackSpec

    logging.basicConfig(level=logging.WARNING)
    given = {"home": home, "port": port}
    reasons: tuple[type[Exception], ...] = (*no_stack(), NoCommit, ModelMissing, GpusMissing, RuntimeError, TimeoutError)
    end_in_order()
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        gpus_fit(ServingSpec(gpus=gpus), torch.cuda.device_count())
        say("starting Ray and the service")
        body = founded(name, model, revision, gpus, wake)
        with Stack(settings, StackSpec(num_cpus=num_cpus, dashboard_port=dashboard_port)) as stack:
            welcome(stack)
            deploy(stack, body)
            while True:
                stack.check()
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        say("the service and Ray have ended")
    except reasons as error:
        fail(str(error))


def founded(name: str, model: str | None, revision: str | None, gpus: float, wake: WakeMode = "at_dusk") -> dict[str, Any]:
    """The request for it. Raises NoCommit, and ModelMissing before anything is started."""
    from actors.models import is_path
    from circadian.nursery.ship import WEIGHTS
    from services.hub import commit_of

    model = model or str(WEIGHTS)
    body: dict[str, Any] = {"name": name, "wake": wake, **on_gpus(gpus)}
    if is_path(model):
        folder = Path(model).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise ModelMissing(f"--model: {folder} holds no config.json; give the folder of a Qwen3 or Llama model, or a hub id")
        return body | {"base_model": {"model": str(folder)}}
    return body | {"base_model": {"model": model, "revision": revision or commit_of(model)}}


def on_gpus(gpus: float) -> dict[str, Any]:
    """What a deployment is asked for, so that its replicas and the parts of its nights have as many GPUs each."""
    if not gpus:
        return {"serving": {"gpus": gpus}}
    from circadian.specs import Recipe
    from services.fleet import gpu_memory

    engine = Recipe().rollouts.engine.model_copy(update={"gpu_memory_utilization": gpu_memory(gpus)})
    recipe = {
        "learner": {"gpus_per_worker": gpus},
        "online_learning": {"gpus": gpus},
        "rollouts": {"gpus_per_worker": gpus, "engine": engine.model_dump(mode="json")},
    }
    return {"serving": {"gpus": gpus}, "recipe": recipe}


def welcome(stack: Stack) -> None:
    from services.stack import RAY_TOKEN_FILE

    say(f"Circadian      {stack.url}/v1")
    say(f"Ray dashboard  {stack.dashboard}   (token: {stack.settings.home_folder / RAY_TOKEN_FILE})")
    if stack.key_is_new:
        say("API key        shown this once; for other terminals:")
        say(f"export CIRCADIAN_API_KEY={stack.api_key}")
    if stack.url != DEFAULT_URL:
        say(f"export CIRCADIAN_URL={stack.url}")


def deploy(stack: Stack, body: dict[str, Any]) -> None:
    """Create the deployment unless it is there, and wait until it answers."""
    from services.client import Circadian, Conflict

    name = body["name"]
    if stack.api_key is None:
        _without_key(stack, name)
        return
    with Circadian(stack.url, stack.api_key) as client:
        try:
            client.deployments.create(**body)
        except Conflict as error:
            if error.code != "name_taken":
                raise
            _same(name, client.deployments.get(name).base_model["model"], body["base_model"]["model"])
        with console().status(f"starting the replicas of {name}"):
            client.awake(name, stack.settings.replica_start_seconds)
    say(f"Model          {name} is awake")


def _same(name: str, there: str, wanted: str) -> None:
    if there != wanted:
        fail(f"{name} is there already, on {there}; give another --name for {wanted}, or leave --model out")
    say(f"{name} is there already and stays as it is")


def _without_key(stack: Stack, name: str) -> None:
    """What can be done where nobody told the key: say how the deployments of this home are, and go on serving them."""
    from sqlalchemy import select

    from services.states import ServingState
    from services.tables import Database, Deployment

    database = Database(stack.settings.database, stack.settings.database_busy_seconds)
    with database.read() as tx:
        there = {row.name: row.id for row in tx.scalars(select(Deployment))}
    text = "This home has a key that was shown at its first start: set CIRCADIAN_API_KEY to it, or to a new one, which replaces it."
    if name not in there:
        fail(f"NOT DEPLOYED: {name}. {text}")
    say(text)
    with console().status(f"waking {name}"):
        until = time.monotonic() + stack.settings.replica_start_seconds
        while _state(database, there[name]) is not ServingState.AWAKE:
            stack.check()
            if time.monotonic() > until:
                fail(f"{name} is not awake yet; `circadian status` tells more")
            time.sleep(WATCH_SECONDS)
    say(f"Model          {name} is awake")


def _state(database: Database, deployment: str) -> ServingState:
    from sqlalchemy import select

    from services.tables import Deployment

    with database.read() as tx:
        return tx.scalars(select(Deployment.state).where(Deployment.id == deployment)).one()


@app.command(rich_help_panel=LOCAL)
def demo(
    seed: Annotated[int, typer.Option(help="Of the day's facts and of the night.")] = 0,
    facts: Annotated[int, typer.Option(min=1, help="New facts of the day.")] = 32,
    out: Annotated[Path, typer.Option(help="Folder of the report and of the service's home.")] = Path("runs/demo"),
) -> None:
    """A whole day and night of the nursery model, measured through the REST interface."""
    import logging

    from services.demo import DemoFailed, DemoSpec
    from services.demo import run as run_demo

    logging.basicConfig(level=logging.WARNING)
    reasons: tuple[type[Exception], ...] = (*no_stack(), DemoFailed)
    end_in_order()
    try:
        run_demo(DemoSpec(seed=seed, facts=facts, out=out), console())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except reasons as error:
        fail(str(error))
