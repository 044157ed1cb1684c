"""`python -m services.serve`: the controller as a process, on a Ray cluster that runs already."""

from __future__ import annotations

import logging
import os

import uvicorn
from rich.console import Console

from services.api.app import create_app
from services.controller import Controller
from services.launcher import RayLauncher
from services.ray_fleet import RayFleet
from services.settings import Settings


def main() -> None:
    os.umask(0o077)  # what people told their model is for no other user of this machine
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings()
    controller = Controller(settings, RayFleet(settings), RayLauncher(settings))
    if key := controller.keys.provide():
        Console().print(f"API key, shown this once: {key}", soft_wrap=True)
    uvicorn.run(
        create_app(controller),
        host=settings.host,
        port=settings.port,
        log_config=None,
        timeout_graceful_shutdown=int(settings.controller_stop_seconds / 2) or 1,
    )


if __name__ == "__main__":
    main()
