"""Processes of `feedback`: `python -m feedback argilla`.

Exit codes: 0 done; 2 wrong usage; 69 Argilla cannot be built or started; 78 a setting is wrong.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from engine.errors import SettingsInvalid
from engine.logs import configure_logging
from engine.settings import load_settings
from feedback.argilla_server.errors import ArgillaUnusable
from feedback.argilla_server.process import run
from feedback.settings import FeedbackSettings
from storage.errors import StorageError

EXIT_UNAVAILABLE = 69
EXIT_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m feedback", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verbs.add_parser("argilla", help="run our own Argilla until it is stopped")
    parser.parse_args(arguments)
    try:
        settings = load_settings(FeedbackSettings)
        configure_logging(level=settings.log_level, form=settings.log_format)
        asyncio.run(
            run(
                settings.argilla,
                database=settings.database,
                home=settings.home,
                environment=os.environ,
            )
        )
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except (ArgillaUnusable, StorageError) as error:
        print(error, file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
