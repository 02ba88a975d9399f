"""The terminal's `parley runs`: list, show, watch, compare, draw and cancel runs."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from bots.errors import InputUnusable, ServiceMissing
from bots.feedback_console import print_json, require_writable, workspace_of
from bots.run_comparison import comparison, table
from bots.settings import Settings
from bots.training_status import outcome, step_line, summary
from bots.workplace import Workplace, open_workplace
from storage.queue import workers_of
from storage.runs import RunId, StoredRun, queue_of

LOOK_EVERY_S: Final = 1.0
WORKER_PATIENCE_S: Final = 15.0
"""A worker that restarts is back within this; longer without one, waiting is pointless."""
LISTED: Final = 20
NO_WORKER: Final = (
    "No training worker runs, so runs wait: `parley up` starts one, or `python -m training worker`."
)


def add_verbs(verbs: Any) -> None:
    """Add `runs` and its actions to the command line."""
    parser = verbs.add_parser("runs", help="list, watch, compare and cancel runs")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("list", help="the newest runs")
    add.add_argument("--workspace", type=UUID, help="needed where there are several")
    add.add_argument("--json", action="store_true", help="print JSON")
    add.set_defaults(run=_list)
    for name, run, says in (
        ("show", _show, "one run with everything that made its model"),
        ("watch", _watch, "how a run goes, until it has ended"),
        ("cancel", _cancel, "end a run"),
    ):
        add = actions.add_parser(name, help=says)
        add.add_argument("id", type=UUID)
        add.add_argument("--json", action="store_true", help="print JSON")
        add.set_defaults(run=run)
    for name, run, says in (
        ("compare", _compare, "runs side by side"),
        ("picture", _picture, "draw the curves of one or more runs"),
    ):
        add = actions.add_parser(name, help=says)
        if name == "picture":
            add.add_argument("out", type=Path, metavar="FILE.png")
        add.add_argument("id", type=UUID, nargs="+")
        add.add_argument("--json", action="store_true", help="print JSON")
        add.set_defaults(run=run)


async def _list(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        runs = await workplace.runs.list(await workspace_of(args, workplace), limit=LISTED)
    if args.json:
        print_json([asdict(run) for run in runs])
        return 0
    for run in runs:
        print(f"{run.id}  {run.kind:<8}  {run.status:<9}  {summary(run)}".rstrip())
    if not runs:
        print("No runs yet: `parley train` queues one.")
    return 0


async def _show(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        run = await _run(workplace, args.id)
        version = await workplace.versions.of_run(run.id)
        rows = await workplace.runs.rows_of_run(run.id)
    shown = {
        **asdict(run),
        "version": asdict(version) if version is not None else None,
        "rows": len(rows),
        "folder": str(_folder(settings, run)),
    }
    print_json(shown)
    return 0


async def _watch(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        run = await _run(workplace, args.id)
        if run.ended_at is None and not await workers_of(workplace.pool, queue=queue_of(run.kind)):
            print(NO_WORKER, file=sys.stderr)
        return await followed(workplace, run.id, as_json=args.json, patience_s=None)


async def followed(
    workplace: Workplace, run_id: RunId, *, as_json: bool, patience_s: float | None
) -> int:
    """Print every new step until the run has ended; exit code 1 where it made nothing.

    Args:
        patience_s: longest wait without a worker, in seconds; None = for ever.

    Raises:
        ServiceMissing: no worker of the run's queue is left; the run stays queued.
    """
    told: set[tuple[str, int]] = set()
    said: tuple[str | None, str | None] = (None, None)
    loop = asyncio.get_running_loop()
    worker_seen_s = loop.time()
    while True:
        run = await _run(workplace, run_id)
        for metric in await workplace.runs.metrics(run_id):
            if (metric.stage, metric.step) not in told and "loss" in metric.values:
                told.add((metric.stage, metric.step))
                print(json.dumps(asdict(metric), default=str) if as_json else step_line(metric))
        if (run.stage, run.note) != said and run.stage is not None and not as_json:
            print(f"{run.stage}: {run.note or '...'}", file=sys.stderr)
        said = (run.stage, run.note)
        if run.ended_at is not None:
            return _ended(run, as_json=as_json)
        if patience_s is not None:
            if await workers_of(workplace.pool, queue=queue_of(run.kind)):
                worker_seen_s = loop.time()
            elif loop.time() - worker_seen_s > patience_s:
                raise ServiceMissing(NO_WORKER)
        await asyncio.sleep(LOOK_EVERY_S)


def _ended(run: StoredRun, *, as_json: bool) -> int:
    if as_json:
        print_json(asdict(run))
    else:
        print(outcome(run))
    return 0 if run.status == "succeeded" else 1


async def _cancel(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        run = await _run(workplace, args.id)
        asked = await workplace.runs.cancel(run.id, by=None)
        run = await _run(workplace, args.id)
    if args.json:
        print_json({"cancelled": asked, "status": run.status})
    elif not asked:
        print("It has ended already.")
    elif run.ended_at is not None:
        print("It has ended: it had not begun.")
    else:
        print("It ends after the present step.")
    return 0 if asked else 1


async def _compare(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        runs = [await _run(workplace, each) for each in args.id]
        columns = comparison(
            [
                (run, await workplace.runs.metrics(run.id), _plan(_folder(settings, run)))
                for run in runs
            ]
        )
    if args.json:
        print_json([{"run_id": run.id, **each} for run, each in zip(runs, columns, strict=True)])
    else:
        print("\n".join(table(columns)))
    return 0


def _folder(settings: Settings, run: StoredRun) -> Path:
    """Where the worker keeps a run, if it is this machine's."""
    return settings.home.absolute() / "runs" / str(run.id)


def _plan(folder: Path) -> dict[str, Any]:
    """A run's plan as training wrote it down; empty on another machine, or before it is made."""
    try:
        plan: dict[str, Any] = json.loads((folder / "plan.json").read_bytes())
        return plan
    except (OSError, ValueError):
        return {}


async def _picture(args: argparse.Namespace, settings: Settings) -> int:
    """Drawn by training, whose pictures these are, in a process of its own."""
    require_writable(args.out)
    async with open_workplace(settings) as workplace:
        for each in args.id:
            await _run(workplace, each)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "training", "curves", str(args.out.absolute())),
            *map(str, args.id),
        )
        if code := await process.wait():
            return code
    if args.json:
        print_json({"picture": str(args.out.absolute())})
    else:
        print(f"Drawn: {args.out}")
    return 0


async def _run(workplace: Workplace, run_id: UUID) -> StoredRun:
    run = await workplace.runs.get(RunId(run_id))
    if run is None:
        raise InputUnusable(f"There is no run {run_id}; `parley runs list` shows them.")
    return run
