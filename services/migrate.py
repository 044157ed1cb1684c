"""`python -m services.migrate`: bring the registry's schema up to date, and nothing else. For a cluster in which controllers may not."""

from __future__ import annotations

import logging
import sys

from services.secret_files import SecretsUnreadable
from services.settings import Settings
from services.tables import Database

log = logging.getLogger(__name__)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings()
    except SecretsUnreadable as error:
        sys.exit(str(error))
    Database(settings.database, settings.database_busy_seconds).close()
    log.info("the schema of the registry is up to date")


if __name__ == "__main__":
    main()
