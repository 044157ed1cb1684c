"""The app: routers, keys, errors, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI

from services import errors
from services.api import (
    audit,
    batches,
    completions,
    deployments,
    docs,
    erasures,
    experiences,
    health,
    keys,
    lineage,
    nights,
    probes,
    schedules,
    sleep_changes,
    sleep_files,
    sleeps,
    usage,
    versions,
    wake,
    webhooks,
)
from services.api.limits import BodyCheck, RequestId
from services.api.openapi import describe
from services.api.repeats import Repeats
from services.api.shared import authenticated
from services.api.traced import Traced
from services.controller import Controller
from services.ui.page import Page


def create_app(controller: Controller) -> FastAPI:
    """The REST interface of a controller, which lives as long as the app."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await controller.open()
        yield
        await controller.close()

    app = FastAPI(title="Circadian", version=version("circadian"), lifespan=lifespan, openapi_url=None)
    app.state.controller = controller
    app.add_middleware(Repeats, database=controller.database, keys=controller.keys)
    most, seconds = controller.settings.most_body_bytes, controller.settings.client_seconds
    app.add_middleware(BodyCheck, most=most, seconds=seconds, streamed=(batches.PATH,))
    app.add_middleware(RequestId, metrics=controller.metrics, seconds=seconds)
    if controller.tracing is not None:
        app.add_middleware(Traced, tracing=controller.tracing)
    errors.install(app)
    for module in (
        health,
        docs,
        deployments,
        nights,
        wake,
        completions,
        batches,
        experiences,
        lineage,
        erasures,
        sleeps,
        sleep_changes,
        sleep_files,
        versions,
        schedules,
        probes,
        webhooks,
        keys,
        audit,
        usage,
    ):
        # As they are: `include_router` would make each of them once more, which takes as long as all else that a start does.
        app.router.routes.extend(module.router.routes)

    app.mount("/ui", Page(), name="ui")

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(authenticated)])
    def openapi() -> dict[str, Any]:
        return app.openapi()

    app.openapi = partial(describe, app)  # type: ignore[method-assign]  # as FastAPI wants it
    return app
