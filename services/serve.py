"""`python -m services.serve`: the controller as a process, on a Ray cluster that runs already.

The home and the port are ours before anything is touched: a second controller that came up only to find its port taken would have told
the database by then that no replica runs. On PostgreSQL controllers share a home: which of them leads the database says.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext

import uvicorn
from rich.console import Console

from services import naming
from services.api.app import create_app
from services.controller import Controller
from services.home import HomeLock, HomeRefused, private_folder
from services.launcher import Launcher, RayLauncher
from services.learners import RayLearners
from services.night_clusters import ClusterFileBroken, ClusterLauncher
from services.ports import PortInUse, listening
from services.ray_fleet import RayFleet
from services.secret_files import SecretsUnreadable
from services.settings import Settings
from services.signing import Signing
from services.workshop import RayWorkshop


def main() -> None:
    """Serve until a signal ends it. Ends with an error text where the home or the port is somebody else's, or secrets cannot be read."""
    os.umask(0o077)  # what people told their model is for no other user of this machine
    naming.configure()
    try:
        settings = Settings()
        with _hold(settings), listening(settings.host, settings.port) as sock:
            fleet = RayFleet(settings, Signing(settings).trusted_hex)
            controller = Controller(settings, fleet, launcher(settings), RayLearners(), RayWorkshop(settings, fleet))
            if settings.metrics_port:
                controller.metrics.listen(settings.metrics_host, settings.metrics_port)
            if key := controller.keys.provide():
                Console().print(f"API key, shown this once: {key}", soft_wrap=True)
            config = uvicorn.Config(
                create_app(controller),
                log_config=None,
                timeout_graceful_shutdown=int(settings.controller_stop_seconds / 2) or 1,
            )
            server = uvicorn.Server(config)
            server.run(sockets=[sock])
            controller.metrics.close()
    except (HomeRefused, PortInUse, SecretsUnreadable, ClusterFileBroken) as error:
        sys.exit(str(error))
    if not server.started:
        sys.exit("the service did not start; the reason is above")


def launcher(settings: Settings) -> Launcher:
    """Where nights run. Raises ClusterFileBroken."""
    return ClusterLauncher(settings, settings.night_cluster_file) if settings.night_cluster_file else RayLauncher(settings)


def _hold(settings: Settings) -> AbstractContextManager[object]:
    """The home, marked as one before a key is written into it; ours alone where its database is a file in it. Raises HomeRefused."""
    private_folder(settings.home_folder)
    return HomeLock(settings.home_folder, "controller") if settings.database.startswith("sqlite") else nullcontext()


if __name__ == "__main__":
    main()
