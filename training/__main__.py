"""Processes of `training`: `python -m training worker`, and what a run and its model need.

Exit codes: 0 done; 2 wrong usage, or what was named is no recipe, no run or no place for a file;
3 the run cannot succeed; 69 the database, the engine or the hub is away or refuses, or the machine
is too small or too busy; 74 the disk refuses; 78 a setting is wrong; 130 stopped.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, get_args
from uuid import UUID

from engine.client import EngineClient
from engine.errors import EngineError, SettingsInvalid
from engine.kept_secrets import kept_secret
from engine.logs import configure_logging
from engine.settings import load_settings
from storage.embedded import database_url
from storage.errors import StorageError
from storage.jobs import until_stopped
from storage.model_versions import ModelVersions
from storage.pool import open_pool
from storage.runs import RunId, Runs
from training.artifact import Form
from training.device import device_of
from training.errors import InputUnusable, TrainingError
from training.plan import FILE as PLAN
from training.recipes import NAMES, Device, named_or_read
from training.settings import TrainingProcessSettings

EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
EXIT_DISK = 74
EXIT_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = load_settings(TrainingProcessSettings)
        configure_logging(level=settings.log_level, form=settings.log_format)
        code: int = parsed.run(parsed, settings)
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except (TrainingError, EngineError, StorageError) as error:
        print(f"{error} {getattr(error, 'advice', '')}".rstrip(), file=sys.stderr)
        return EXIT_USAGE if isinstance(error, InputUnusable) else EXIT_UNAVAILABLE
    except OSError as error:
        print(f"The disk refuses: {error}.", file=sys.stderr)
        return EXIT_DISK
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add = verbs.add_parser("worker", help="carry out queued runs until it is stopped")
    add.set_defaults(run=_worker)
    add = verbs.add_parser("execute", help="one run's own process; the worker starts it")
    add.add_argument("folder", type=Path, help="the run's folder")
    add.set_defaults(run=_execute)
    add = verbs.add_parser("recipe", help="print a recipe with all its defaults, as JSON")
    add.add_argument("recipe", help=f"{', '.join(NAMES)}, or a TOML or JSON file")
    add.add_argument(
        "--device",
        choices=get_args(Device),
        default=device_of(os.environ),
        help="whose defaults; default: this machine's",
    )
    add.set_defaults(run=_recipe)
    add = verbs.add_parser("export", help="copy what a run made, with its model card")
    add.add_argument("folder", type=Path, help="the run's folder: <home>/runs/<id>")
    add.add_argument("out", type=Path, help="directory to make")
    add.add_argument("--form", choices=get_args(Form), default="adapter")
    add.set_defaults(run=_export)
    add = verbs.add_parser("curves", help="draw the losses of runs")
    add.add_argument("out", type=Path, metavar="FILE.png")
    add.add_argument("run_id", type=UUID, nargs="+")
    add.set_defaults(run=_curves)
    add = verbs.add_parser("push", help="upload what a run made to the Hugging Face Hub")
    add.add_argument("folder", type=Path, help="the run's folder: <home>/runs/<id>")
    add.add_argument("repository", help="<organisation>/<name>; made, privately, if missing")
    add.add_argument("--form", choices=get_args(Form), default="adapter")
    add.set_defaults(run=_push)
    return parser


def _worker(parsed: argparse.Namespace, settings: TrainingProcessSettings) -> int:
    asyncio.run(_work(settings))
    return 0


async def _work(settings: TrainingProcessSettings) -> None:
    from training.serving import ModelSwitch
    from training.worker import TrainingWorker

    token = kept_secret(settings.engine.admin_token, settings.home / "admin-token")
    async with (
        database_url(settings.database, home=settings.home) as url,
        open_pool(url, settings=settings.database) as pool,
        EngineClient(url=settings.engine.effective_url, admin_token=token) as engine,
    ):
        worker = TrainingWorker(
            pool=pool,
            settings=settings,
            environment=os.environ,
            switch=ModelSwitch(versions=ModelVersions(pool), engine=engine),
        )
        await until_stopped(worker.work())


def _execute(parsed: argparse.Namespace, settings: TrainingProcessSettings) -> int:
    from training.execute import execute

    _require_run(parsed.folder)
    try:
        return execute(parsed.folder, judge_api_key=settings.training.judge_api_key)
    finally:
        _let_go_of(sys.stdout, sys.stderr)


def _let_go_of(*streams: TextIO) -> None:
    """Lose what a full disk does not take of the log, and not the exit code.

    Python flushes these streams when it ends, and where that fails it ends with 120.
    """
    for stream in streams:
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _require_run(folder: Path) -> None:
    if not (folder / PLAN).is_file():
        raise InputUnusable(
            f"{folder} is no run's folder: it holds no {PLAN}.",
            advice="A run's folder is <home>/runs/<id>; `parley runs list` shows the ids.",
        )


def _recipe(parsed: argparse.Namespace, settings: TrainingProcessSettings) -> int:
    recipe = named_or_read(parsed.recipe, parsed.device)
    print(json.dumps(recipe.model_dump(mode="json"), indent=2))
    return 0


def _export(parsed: argparse.Namespace, settings: TrainingProcessSettings) -> int:
    from training.artifact import take_away

    _require_run(parsed.folder)
    print(take_away(parsed.folder, parsed.out, parsed.form))
    return 0


def _curves(parsed: argparse.Namespace, settings: TrainingProcessSettings) -> int:
    if parsed.out.is_dir() or not parsed.out.parent.is_dir():
        raise InputUnusable(f"{parsed.out} is no place for a file.", advice="Name a FILE.png.")
    parsed.out.write_bytes(asyncio.run(_drawn(parsed.run_id, settings)))
    return 0


async def _drawn(run_ids: Sequence[UUID], settings: TrainingProcessSettings) -> bytes:
    from training.pictures import curves

    async with (
        database_url(settings.database, home=settings.home) as url,
        open_pool(url, settings=settings.database) as pool,
    ):
        runs = Runs(pool)
        for each in run_ids:
            if await runs.get(RunId(each)) is None:
                raise InputUnusable(f"There is no run {each}.")
        told = {str(each)[:8]: await runs.metrics(RunId(each)) for each in run_ids}
    return await curves(told)


def _push(parsed: argparse.Namespace, settings: TrainingProcessSettings) -> int:
    from training.artifact import push

    _require_run(parsed.folder)
    endpoint = os.environ.get("HF_ENDPOINT")
    print(push(parsed.folder, parsed.repository, parsed.form, endpoint=endpoint))
    return 0


if __name__ == "__main__":
    sys.exit(main())
