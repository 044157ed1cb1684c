"""Durable workflows: DBOS, as the leading controller runs it.

A workflow's finished steps are in a database; a leader that begins finds the workflows that the last one left and goes on with each
behind its last finished step. All leaders are one executor to DBOS, because there is one at a time (leader.py), and all releases one
application version, because a workflow says in its own name when its steps have changed (`sleep`, `sleep-2`, ...). What is kept of a
step is JSON, never a pickle.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dbos import DBOS, DBOSConfig, Serializer, SetWorkflowID
from sqlalchemy.engine import make_url

from services.settings import Settings
from services.tables.database import alive

FAILED = "failed"
APPLICATION, VERSION, EXECUTOR = "circadian", "1", "leader"
Workflow = Callable[[str], Coroutine[Any, Any, str]]
"""Of an object, by its id."""


class StepFailed(Exception):
    """A step failed, and was not tried again; the text is the error's own."""


class Json(Serializer):
    """Strings and numbers are all that a step hands over; of an error its text is kept."""

    def serialize(self, data: Any) -> str:
        return json.dumps({FAILED: repr(data)} if isinstance(data, BaseException) else data)

    def deserialize(self, serialized_data: str) -> Any:
        data = json.loads(serialized_data)
        return StepFailed(data[FAILED]) if isinstance(data, dict) and FAILED in data else data

    def name(self) -> str:
        return "circadian-json"


class Durable:
    """Open while this controller leads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._running: set[asyncio.Task[Any]] = set()
        self._open = False

    async def open(self) -> None:
        """In the loop in which workflows are to run. What the last leader left goes on."""
        logging.getLogger("dbos").setLevel(logging.WARNING)
        config = DBOSConfig(
            name=APPLICATION,
            system_database_url=self.settings.workflow_database,
            application_version=VERSION,
            executor_id=EXECUTOR,
            serializer=Json(),
            enable_otlp=False,
            log_level="WARNING",
            use_listen_notify=False,
            notification_listener_polling_interval_sec=self.settings.workflow_poll_seconds,
        )
        url = make_url(self.settings.workflow_database)
        if url.get_backend_name() == "postgresql":
            config["db_engine_kwargs"] = {"connect_args": {"application_name": f"{APPLICATION}-workflows", **alive(url)}}
        DBOS(config=config)
        DBOS.launch()  # in this thread: it takes the loop that runs here
        self._open = True

    async def start(self, workflow: Workflow, id: str) -> None:
        """Begin it, unless it was begun before: then it goes on where it goes on, or is over."""
        with SetWorkflowID(id):
            await DBOS.start_workflow_async(workflow, id)

    async def run(self, work: Coroutine[Any, Any, str]) -> str:
        """A workflow's body, which ends unfinished where the controller stops leading, and then goes on in the next one."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await work
        finally:
            self._running.discard(task)

    async def close(self) -> None:
        """Leave all workflows where they are."""
        if not self._open:
            return
        self._open = False
        running = list(self._running)
        for task in running:
            task.cancel()  # DBOS takes a task that is cancelled for one that was interrupted, not for one that failed
        await asyncio.gather(*running, return_exceptions=True)
        # It had made its own threads those of this loop, and ends them now.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="controller"))
        await asyncio.to_thread(DBOS.destroy)
