"""`circadian`: a local service, its sleeps, the nursery model and the demo, from the command line."""

from __future__ import annotations

import logging
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from sqlalchemy import select

from circadian.specs import NurserySpec, Recipe
from services.client import ApiError, Client
from services.display import NightDisplay
from services.dreams import compared
from services.home import HomeRefused
from services.ports import PortInUse
from services.settings import Settings
from services.stack import RAY_TOKEN_FILE, Stack, StackFailed, StackSpec
from services.states import ServingState
from services.tables import Database, Deployment

app = typer.Typer(no_args_is_help=True, help="A sleep service for deployed language models.", pretty_exceptions_show_locals=False)
nursery = typer.Typer(no_args_is_help=True, help="The small models that tests and demo live with.")
app.add_typer(nursery, name="nursery")
console = Console()
WATCH_SECONDS = 1.0
"""Between two looks whether the children of `up` still run."""
INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended."""
DEFAULT_URL = "http://127.0.0.1:8700"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager, and the terminal when it is closed."""
NO_STACK = (StackFailed, HomeRefused, PortInUse, ValidationError)
"""Why a service does not start; the last is what is wrong with a CIRCADIAN_ variable."""
NO_KEY = (
    "no API key: `export CIRCADIAN_API_KEY=...` (or --key). The first `circadian up` of a home printed it, once; the service keeps only "
    "its hash, so it can be found nowhere else. If it is lost, start `circadian up` with CIRCADIAN_API_KEY set to a new one, which "
    "replaces it."
)

GPUS_HELP = (
    "GPUs of each replica; a night's learner and writer take as many each. A fraction shares one GPU: 0.3 lets it hold all three."
)

WakeMode = Literal["at_dusk", "online"]
NurseryWorld = Literal["toy", "school"]
WAKE_HELP = "When the fast memory learns: all of the day when a night begins, or while it serves, chunk by chunk."

Url = Annotated[str, typer.Option(envvar="CIRCADIAN_URL", help="Of the service.")]
Key = Annotated[str | None, typer.Option(envvar="CIRCADIAN_API_KEY", help="API key, as the first `circadian up` printed it.")]


@app.command()
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
    import torch  # heavy imports are the commands' own: `status` and `--help` need none

    from services.fleet import GpusMissing, ServingSpec, gpus_fit
    from services.hub import NoCommit

    logging.basicConfig(level=logging.WARNING)
    given = {"home": home, "port": port}
    _end_in_order()
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        gpus_fit(ServingSpec(gpus=gpus), torch.cuda.device_count())
        console.print("starting Ray and the service")
        body = _deployment(name, model, revision, gpus, wake)
        with Stack(settings, StackSpec(num_cpus=num_cpus, dashboard_port=dashboard_port)) as stack:
            _welcome(stack)
            _deploy(stack, body)
            while True:
                stack.check()
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        console.print("the service and Ray have ended")
    except (*NO_STACK, ApiError, NoCommit, ModelMissing, GpusMissing, RuntimeError, TimeoutError, httpx.TransportError) as error:
        _fail(str(error))


def _deployment(name: str, model: str | None, revision: str | None, gpus: float, wake: WakeMode = "at_dusk") -> dict[str, Any]:
    """The request for it. Raises NoCommit, and ModelMissing before anything is started."""
    from circadian.nursery.ship import WEIGHTS
    from services.fleet import gpu_memory
    from services.founding import is_path
    from services.hub import commit_of

    model = model or str(WEIGHTS)
    body: dict[str, Any] = {"name": name, "serving": {"gpus": gpus}, "wake": wake}
    if is_path(model):
        folder = Path(model).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise ModelMissing(f"--model: {folder} holds no config.json; give the folder of a Qwen3 or Llama model, or a hub id")
        body["base_model"] = {"model": str(folder)}
    else:
        body["base_model"] = {"model": model, "revision": revision or commit_of(model)}
    if gpus:
        engine = Recipe().rollouts.engine.model_copy(update={"gpu_memory_utilization": gpu_memory(gpus)})
        body["recipe"] = {
            "learner": {"gpus_per_worker": gpus},
            "online_learning": {"gpus": gpus},
            "rollouts": {"gpus_per_worker": gpus, "engine": engine.model_dump(mode="json")},
        }
    return body


class ModelMissing(Exception):
    """There is no model where `up` was told to find one."""


def _fail(text: str) -> NoReturn:
    """Error texts are not ours: no markup."""
    console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


@contextmanager
def _asking(url: str, key: str | None) -> Iterator[Client]:
    """A client whose errors end the command, in one line."""
    if not key:
        _fail(NO_KEY)
    client = Client(url, key)
    try:
        yield client
    except ApiError as error:
        _fail(str(error))
    except (httpx.TransportError, ConnectionError) as error:
        _fail(f"nothing answers at {url} ({error}); start the service with `circadian up`, or name another with --url")
    finally:
        client.close()


def _end_in_order() -> None:
    """The first Ctrl-C, SIGTERM or SIGHUP ends the children, one after the other; no other one may interrupt that.

    What is ignored already stays so: `nohup circadian up` outlives its terminal.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for name in ENDINGS:
            signal.signal(name, signal.SIG_IGN)
        if number == signal.SIGHUP:
            _without_terminal()
        raise KeyboardInterrupt

    for name in ENDINGS:
        if signal.getsignal(name) is not signal.SIG_IGN:
            signal.signal(name, interrupt)


def _without_terminal() -> None:
    """Let what is still said go nowhere: writing to a terminal that has gone is an error, which would end us out of order."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # a file or a pipe is still there
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _welcome(stack: Stack) -> None:
    console.print(f"Circadian      {stack.url}/v1", highlight=False)
    token = stack.settings.home_folder / RAY_TOKEN_FILE
    console.print(f"Ray dashboard  {stack.dashboard}   (token: {token})", soft_wrap=True, highlight=False)
    if stack.key_is_new:
        console.print("API key        shown this once; for other terminals:", highlight=False)
        console.print(f"export CIRCADIAN_API_KEY={stack.api_key}", soft_wrap=True, highlight=False)
    if stack.url != DEFAULT_URL:
        console.print(f"export CIRCADIAN_URL={stack.url}", soft_wrap=True, highlight=False)


def _deploy(stack: Stack, body: dict[str, Any]) -> None:
    """Create the deployment unless it is there, and wait until it answers."""
    name = body["name"]
    if stack.api_key is None:
        _without_key(stack, name)
        return
    client = Client(stack.url, stack.api_key)
    try:
        try:
            client.post("/v1/deployments", body)
        except ApiError as error:
            if error.code != "name_taken":
                raise
            there = client.get(f"/v1/deployments/{name}")["base_model"]["model"]
            if there != body["base_model"]["model"]:
                _fail(
                    f"{name} is there already, on {there}; give another --name for {body['base_model']['model']}, or leave --model out"
                )
            console.print(f"{name} is there already and stays as it is", highlight=False)
        with console.status(f"starting the replicas of {name}"):
            client.awake(name, stack.settings.replica_start_seconds)
    finally:
        client.close()
    console.print(f"Model          {name} is awake", highlight=False)


def _without_key(stack: Stack, name: str) -> None:
    """What can be done where nobody told the key: say how the deployments of this home are, and go on serving them."""
    database = Database(stack.settings.database, stack.settings.database_busy_seconds)
    with database.read() as tx:
        there = {row.name: row.id for row in tx.scalars(select(Deployment))}
    text = "This home has a key that was shown at its first start: set CIRCADIAN_API_KEY to it, or to a new one, which replaces it."
    if name not in there:
        _fail(f"NOT DEPLOYED: {name}. {text}")
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    with console.status(f"waking {name}"):
        until = time.monotonic() + stack.settings.replica_start_seconds
        while _state(database, there[name]) is not ServingState.AWAKE:
            stack.check()
            if time.monotonic() > until:
                _fail(f"{name} is not awake yet; `circadian status` tells more")
            time.sleep(WATCH_SECONDS)
    console.print(f"Model          {name} is awake", highlight=False)


def _state(database: Database, deployment: str) -> ServingState:
    with database.read() as tx:
        return tx.scalars(select(Deployment.state).where(Deployment.id == deployment)).one()


@app.command()
def sleep(
    name: Annotated[str, typer.Argument(help="Deployment.")],
    key: Key = None,
    url: Url = DEFAULT_URL,
    seed: Annotated[int, typer.Option(help="Of everything random in the night.")] = 0,
) -> None:
    """Send a deployment to sleep and watch the night."""
    with _asking(url, key) as client:
        begun = client.post("/v1/sleeps", {"deployment": name, "seed": seed})
        with NightDisplay(console) as display:
            for event in client.events(begun["id"]):
                display.show(event)
        ended = client.get(f"/v1/sleeps/{begun['id']}")
    if ended["status"] != "succeeded":
        _fail(f"{ended['status']}: {(ended['error'] or {}).get('message', '')}")


@app.command()
def dreams(
    sleep: Annotated[str, typer.Argument(help="Id of a sleep.")],
    picture: Annotated[Path | None, typer.Option(help="SVG file: where dreams were drawn, and what they brought.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Dreams that are shown, those that helped first.")] = 20,
    key: Key = None,
    url: Url = DEFAULT_URL,
) -> None:
    """What a night has dreamt, and what became of it."""
    with _asking(url, key) as client:
        found = list(client.pages(f"/v1/sleeps/{sleep}/dreams"))
        contexts = client.get(f"/v1/sleeps/{sleep}/curriculum")["data"]
    if not found:
        _fail(f"{sleep} has not dreamt; give its recipe a `dreaming`")
    tried = compared(found)
    table = Table("round", "kind", "dream", "knows", "undreamt", "", title=f"{len(found)} dreams, {len(tried)} tried out")
    for dream in sorted(tried, key=lambda dream: dream["undreamt"] - dream["score"])[:most]:
        values = (f"{dream['score']:.2f}", f"{dream['undreamt']:.2f}", "rewarded" if dream["rewarded"] else "")
        table.add_row(dream["round"], dream["kind"], Text(dream["text"]), *values)
    console.print(table)
    if picture is not None:
        from services.dream_picture import draw_dreams

        draw_dreams(found, contexts, picture)
        console.print(f"drawn: {picture}", highlight=False)


@app.command()
def status(key: Key = None, url: Url = DEFAULT_URL) -> None:
    """What every deployment is doing."""
    table = Table("deployment", "state", "active version", "sleep", "pending", "fast memory")
    with _asking(url, key) as client:
        for deployment in client.get("/v1/deployments", limit=100)["data"]:
            now = client.get(f"/v1/deployments/{deployment['id']}/status")
            pending = f"{now['pending']['experiences']} ({now['pending']['tokens']} tokens)"
            table.add_row(deployment["name"], now["state"], now["active_version"], now["current_sleep"] or "", pending, _fast(now))
    console.print(table)


def _fast(now: dict[str, Any]) -> str:
    """How a deployment's fast memory learns, in a few words."""
    memory = now["fast_memory"]
    if memory is None:
        return "at dusk"
    left = memory["error"] or f"next in {memory['tokens_until_update']} tokens"
    return f"online, {memory['chunks']} chunks, {left}"


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Of the day's facts and of the night.")] = 0,
    facts: Annotated[int, typer.Option(min=1, help="New facts of the day.")] = 32,
    out: Annotated[Path, typer.Option(help="Folder of the report and of the service's home.")] = Path("runs/demo"),
) -> None:
    """A whole day and night of the nursery model, measured through the REST interface."""
    from services.demo import DemoFailed, DemoSpec
    from services.demo import run as run_demo

    logging.basicConfig(level=logging.WARNING)
    _end_in_order()
    try:
        run_demo(DemoSpec(seed=seed, facts=facts, out=out), console)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (*NO_STACK, DemoFailed, ApiError, httpx.TransportError) as error:
        _fail(str(error))


@nursery.command("train")
def nursery_train(
    world: Annotated[NurseryWorld, typer.Option(help="What it lives in: facts to learn, or passages to dream of.")] = "toy",
    folder: Annotated[Path | None, typer.Option(help="Where the model goes; where the shipped one lies unless given.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of pretraining.")] = NurserySpec().steps,
    seed: Annotated[int, typer.Option(help="Of weights and order of documents.")] = NurserySpec().seed,
) -> None:
    """Pretrain a nursery model from scratch."""
    from circadian.nursery.ship import SHIPPED, train_and_ship

    shipped, spec = next((path, spec) for path, spec in SHIPPED.items() if spec.world == world)

    with Progress(console=console) as progress:
        bar = progress.add_task("pretraining", total=steps)
        report = train_and_ship(
            spec.model_copy(update={"steps": steps, "seed": seed}),
            folder or shipped,
            lambda step, total, loss: progress.update(bar, completed=step, description=f"loss {loss:.3f}"),
        )
    _print_accuracy(report)


def _print_accuracy(report: dict[str, Any]) -> None:
    for name, value in report["accuracy"].items():
        console.print(f"{name:<14} {value:.3f}", highlight=False)
