"""The `parley` command line: parses, loads settings, runs one verb, owns exit codes and logging.

Exit codes: 0 done; 1 the command's own "no" (a file could not be ingested, say); 2 wrong usage;
69 a service is missing or unhealthy; 78 a setting is wrong; 130 interrupted. Data goes to stdout,
talk to stderr.

Why one root for every surface: each verb opens what it needs in one `async with` stack and hands it
down by keyword; nothing below reads the environment.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from bots import check, console, feedback_console, training_console
from bots.errors import AlreadyRunning, BotsError, InputUnusable, PartFailed
from bots.settings import Settings
from engine.errors import EngineError, SettingsInvalid
from engine.logs import configure_logging
from engine.settings import load_settings, setting_source
from feedback.argilla_server.errors import ArgillaUnusable
from storage.errors import StorageError

EXIT_USAGE = 2
EXIT_SERVICE_MISSING = 69
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        settings = load_settings(Settings)
        configure_logging(level=_log_level(args, settings), form=settings.log_format)
        code: int = asyncio.run(args.run(args, settings))
        return code
    except AlreadyRunning as error:
        # Asking twice for what already runs is not a failure.
        _say(error)
        return 0
    except SettingsInvalid as error:
        _say(error)
        return EXIT_CONFIG
    except InputUnusable as error:
        _say(error)
        return EXIT_USAGE
    except PartFailed as error:
        _say(error)
        return error.exit_code
    except (ArgillaUnusable, BotsError, EngineError, StorageError) as error:
        _say(error)
        return EXIT_SERVICE_MISSING
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has left; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley",
        description="Answers from your own documents, with citations. Settings: `parley.toml` and "
        "PARLEY_… variables; `parley check` shows them.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add = verbs.add_parser("up", help="start everything on this machine")
    add.set_defaults(run=_up)
    add = verbs.add_parser("migrate", help="bring the database's schema up to date")
    add.set_defaults(run=_migrate)
    add = verbs.add_parser("worker", help="run the background worker")
    add.set_defaults(run=_worker)
    add = verbs.add_parser("web", help="serve the web page")
    add.set_defaults(run=_web)
    add = verbs.add_parser("slack", help="run the Slack app")
    add.set_defaults(run=_slack)
    add = verbs.add_parser("discord", help="run the Discord app, or register its commands")
    add.add_argument(
        "action",
        nargs="?",
        choices=["sync"],
        help="sync: make the commands at Discord those of this version, then end",
    )
    add.set_defaults(run=_discord)
    add = verbs.add_parser("argilla", help="run our own Argilla, where curators work")
    add.set_defaults(run=_argilla)
    check.add_verb(verbs)
    console.add_verbs(verbs)
    feedback_console.add_verbs(verbs)
    training_console.add_verbs(verbs)
    return parser


def _log_level(args: argparse.Namespace, settings: Settings) -> str:
    """The level that was set; by default, a command that ends by itself only warns."""
    serves = args.run in (_up, _worker, _web, _slack, _argilla)
    serves = serves or (args.run is _discord and args.action is None)
    if serves or setting_source("log_level") != "default":
        return settings.log_level
    return "WARNING"


async def _up(args: argparse.Namespace, settings: Settings) -> int:
    from bots.supervisor import up

    await up(settings, environment=os.environ)
    return 0


async def _migrate(args: argparse.Namespace, settings: Settings) -> int:
    from storage.embedded import database_url
    from storage.migrate import migrate

    async with database_url(settings.database, home=settings.home) as url:
        applied = await migrate(url, settings.database)
    _say(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")
    return 0


async def _worker(args: argparse.Namespace, settings: Settings) -> int:
    from bots.worker import work

    await work(settings)
    return 0


async def _web(args: argparse.Namespace, settings: Settings) -> int:
    # gradio loads matplotlib, and its pandas pyarrow, wherever pictures and training have brought
    # them: 80 MB that the page does not use. What is None here cannot be imported.
    for name in ("matplotlib", "pyarrow"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    from bots.web.server import serve

    await serve(settings)
    return 0


async def _slack(args: argparse.Namespace, settings: Settings) -> int:
    from bots.slack_bot.process import run

    await run(settings)
    return 0


async def _discord(args: argparse.Namespace, settings: Settings) -> int:
    from bots.discord_bot.process import run, sync_commands

    if args.action is None:
        await run(settings)
        return 0
    changed = await sync_commands(settings)
    _say(f"Registered: {', '.join(changed)}." if changed else "The commands are up to date.")
    return 0


async def _argilla(args: argparse.Namespace, settings: Settings) -> int:
    from feedback.argilla_server.process import run

    await run(
        settings.argilla,
        database=settings.database,
        home=settings.home,
        environment=os.environ,
    )
    return 0


def _say(text: object) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
