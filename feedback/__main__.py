"""Processes of `feedback`: `python -m feedback argilla` and `python -m feedback relay`.

Exit codes: 0 done; 2 wrong usage; 69 Argilla cannot be built or started,
or the database is away; 78 a setting is wrong.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from engine.errors import SettingsInvalid
from engine.logs import configure_logging
from engine.settings import load_settings
from feedback import relay
from feedback.argilla_server.process import run
from feedback.errors import FeedbackError
from feedback.settings import FeedbackSettings
from storage.embedded import database_url
from storage.errors import StorageError
from storage.jobs import until_stopped
from storage.pool import open_pool

EXIT_UNAVAILABLE = 69
EXIT_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m feedback", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    argilla = verbs.add_parser("argilla", help="run our own Argilla until it is stopped")
    argilla.set_defaults(run=_argilla)
    carrying = verbs.add_parser("relay", help="tell Argilla what people rate until it is stopped")
    carrying.set_defaults(run=_relay)
    parsed = parser.parse_args(arguments)
    try:
        settings = load_settings(FeedbackSettings)
        configure_logging(level=settings.log_level, form=settings.log_format)
        asyncio.run(parsed.run(settings))
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except (FeedbackError, StorageError) as error:
        print(error, file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


async def _argilla(settings: FeedbackSettings) -> None:
    await run(
        settings.argilla, database=settings.database, home=settings.home, environment=os.environ
    )


async def _relay(settings: FeedbackSettings) -> None:
    async with (
        database_url(settings.database, home=settings.home) as url,
        open_pool(url, settings=settings.database) as pool,
    ):
        await until_stopped(relay.run(pool, settings.argilla, home=settings.home))


if __name__ == "__main__":
    sys.exit(main())
