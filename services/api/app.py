"""The app: routers, keys, errors, and a request id on every answer."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import errors
from services.api import deployments, experiences, health, sleeps, versions, wake
from services.api.shared import authenticated
from services.controller import Controller

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What a client may call its request; anything else is replaced."""


class RequestId:
    """Echoes `x-request-id`, or makes one up."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self.app(scope, receive, named)


def create_app(controller: Controller) -> FastAPI:
    """The REST interface of a controller, which lives as long as the app."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await controller.open()
        yield
        await controller.close()

    app = FastAPI(title="Circadian", version=version("circadian"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.controller = controller
    app.add_middleware(RequestId)
    errors.install(app)
    app.include_router(health.router)
    for module in (deployments, wake, experiences, sleeps, versions):
        app.include_router(module.router, dependencies=[Depends(authenticated)])
    return app
