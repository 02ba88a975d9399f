"""The terminal's `parley train`, `promote`, `rollback`, `judge`, `status`, `versions`, `ledger`.

Like the chats, they only queue: training's worker carries it out, and no bot imports torch.
"""

import argparse
import asyncio
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from bots import ledger, runs_console
from bots.administration_wording import METHODS
from bots.errors import InputUnusable, ServiceMissing
from bots.feedback_console import print_json, workspace_of
from bots.runs_console import NO_WORKER, WORKER_PATIENCE_S, followed
from bots.settings import Settings
from bots.supervisor import can_train
from bots.training_status import lines, training_status, version_line
from bots.workplace import open_workplace
from storage.queue import workers_of
from storage.runs import Recipe, RunKind, queue_of


def add_verbs(verbs: Any) -> None:
    """Add the verbs to the command line."""
    add = _verb(verbs, "train", _train, "train a model on the team's ratings")
    add.add_argument(
        "--recipe",
        help=f"{', '.join(METHODS)}, or a TOML or JSON file; default: the setting training.recipe",
    )
    add.add_argument("--wait", action="store_true", help="show how it goes until it has ended")
    runs_console.add_verbs(verbs)
    _verb(verbs, "status", _status, "who answers, the newest versions, and how the runs go")
    _verb(verbs, "versions", _versions, "the models that were made, and which one answers")
    add = _verb(verbs, "promote", _promote, "let a version answer everybody")
    add.add_argument(
        "version",
        nargs="?",
        help="such as v3; default: the tried one, or else the newest candidate",
    )
    add.add_argument("--wait", action="store_true", help="until it is done")
    add = _verb(verbs, "rollback", _rollback, "take back the version that is tried, or live")
    add.add_argument(
        "version",
        nargs="?",
        metavar="TO",
        help="such as v2, or `base`: answers instead of the live one; default: where a version is "
        "tried, its trial ends, else the version before the live one answers again",
    )
    add.add_argument("--wait", action="store_true", help="until it is done")
    add = _verb(verbs, "judge", _judge, "let the gate look again where it could not decide")
    add.add_argument("version", nargs="?", help="such as v3; default: the newest undecided one")
    add.add_argument("--wait", action="store_true", help="until it is done")
    add = verbs.add_parser("ledger", help="from an answer to the model it made, and back")
    add.add_argument("id", help="of an answer, a row, a run or a version; or a version's name")
    add.add_argument("--json", action="store_true", help="print one JSON object")
    add.set_defaults(run=_ledger)


def _verb(verbs: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary)
    parser.add_argument("--workspace", type=UUID, help="needed where there are several")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


# -- Queueing -------------------------------------------------------------------------------------


async def _train(args: argparse.Namespace, settings: Settings) -> int:
    asked = {"recipe": await _recipe(args.recipe)} if args.recipe else {}
    return await _queue(args, settings, "train", asked)


async def _promote(args: argparse.Namespace, settings: Settings) -> int:
    return await _queue(args, settings, "promote", _version(args))


async def _rollback(args: argparse.Namespace, settings: Settings) -> int:
    return await _queue(args, settings, "rollback", _version(args))


async def _judge(args: argparse.Namespace, settings: Settings) -> int:
    return await _queue(args, settings, "judge", _version(args))


def _version(args: argparse.Namespace) -> dict[str, Any]:
    return {"version": args.version} if args.version else {}


async def _queue(
    args: argparse.Namespace, settings: Settings, kind: RunKind, parameters: Mapping[str, Any]
) -> int:
    async with open_workplace(settings) as workplace:
        workspace_id = await workspace_of(args, workplace)
        if not await workers_of(workplace.pool, queue=queue_of(kind)):
            if args.wait:
                # Before the run is stored, so that the same command works once there is a worker.
                raise ServiceMissing(NO_WORKER)
            print(NO_WORKER, file=sys.stderr)
        run_id = await workplace.runs.queue(
            Recipe(kind=kind, parameters=parameters), workspace_id=workspace_id, by=None, place={}
        )
        if args.wait:
            return await followed(
                workplace, run_id, as_json=args.json, patience_s=WORKER_PATIENCE_S
            )
    if args.json:
        print_json({"run_id": run_id})
    else:
        print(f"Queued as run {run_id}.")
    return 0


async def _recipe(named: str) -> Any:
    """A shipped recipe's name, or a file's fields once training has checked them.

    Raises:
        InputUnusable: it is neither, or a field is unknown or impossible.
    """
    if named in METHODS:
        return named
    fields = _fields(Path(named))
    if can_train():
        await _check(named)
    return fields


def _fields(path: Path) -> Any:
    """What a recipe's file says, whatever it means.

    Raises:
        InputUnusable: there is no such file, or it cannot be read.
    """
    if not path.exists():
        known = ", ".join(METHODS)
        what = "recipe" if str(path) == path.stem else "file"
        raise InputUnusable(f"There is no {what} {str(path)!r}. Name one of {known}, or a file.")
    form = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if form == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise InputUnusable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputUnusable(f"{path} is no {form}: {error}.") from error


async def _check(file: str) -> None:
    """Let training read a recipe, in a process of its own, before a run waits for a worker.

    Raises:
        InputUnusable: training says what is wrong with it.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "training", "recipe", file),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    if process.returncode:
        raise InputUnusable(told.decode(errors="replace").strip())


# -- Looking --------------------------------------------------------------------------------------


async def _status(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        workspace_id = await workspace_of(args, workplace)
        now = await training_status(workplace.pool, workspace_id)
    if args.json:
        print_json(asdict(now))
        return 0
    for label, text in lines(now):
        print(f"{label:<10} {text}")
    return 0


async def _versions(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        versions = await workplace.versions.list(await workspace_of(args, workplace))
    if args.json:
        print_json([asdict(version) for version in versions])
        return 0
    for version in versions:
        share = f", on {version.share:.0%} of the threads" if version.status == "canary" else ""
        print(f"v{version.number:<4} {version.name}{share}: {version_line(version)}")
        print(f"      version {version.id}, run {version.run_id or '-'}")
    if not versions:
        print("No versions yet: `parley train` makes one.")
    return 0


async def _ledger(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        found = await ledger.trace(workplace.pool, args.id)
    if args.json:
        print_json(found)
        return 0
    for line in ledger.lines(found):
        print(line)
    return 0
