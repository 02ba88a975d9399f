"""The terminal's `parley train`, `runs`, `versions`, `promote`, `rollback` and `ledger`.

Like the chats, they only queue: training's worker carries it out, and no bot imports torch.
"""

import argparse
import asyncio
import json
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from bots.administration_wording import METHODS
from bots.errors import InputUnusable
from bots.feedback_console import print_json, workspace_of
from bots.ledger import trace
from bots.settings import Settings
from bots.workplace import Workplace, open_workplace
from storage.model_versions import ModelVersion
from storage.queue import workers_of
from storage.runs import TRAINING_QUEUE, Metric, Recipe, RunId, RunKind, StoredRun

LOOK_EVERY_S: Final = 1.0
LISTED: Final = 20


def add_verbs(verbs: Any) -> None:
    """Add the verbs to the command line."""
    add = _verb(verbs, "train", _train, "train a model on the team's ratings")
    add.add_argument(
        "--recipe", default="sft", help=f"{', '.join(METHODS)}, or a TOML or JSON file"
    )
    add.add_argument("--wait", action="store_true", help="show how it goes until it has ended")
    _add_runs(verbs)
    _verb(verbs, "versions", _versions, "the models that were made, and which one answers")
    add = _verb(verbs, "promote", _promote, "let a version answer everybody")
    add.add_argument("version", nargs="?", help="such as v3; default: the one that is tried")
    add.add_argument("--wait", action="store_true", help="until it is done")
    add = _verb(verbs, "rollback", _rollback, "take back the version that is tried, or live")
    add.add_argument("--wait", action="store_true", help="until it is done")
    add = verbs.add_parser("ledger", help="from an answer to the model it made, and back")
    add.add_argument("id", help="of an answer, a row, a run or a version")
    add.add_argument("--json", action="store_true", help="print one JSON object")
    add.set_defaults(run=_ledger)


def _add_runs(verbs: Any) -> None:
    parser = verbs.add_parser("runs", help="list, watch, compare and cancel runs")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _verb(actions, "list", _list, "the newest runs")
    for name, run, summary in (
        ("show", _show, "one run with everything that made its model"),
        ("watch", _watch, "how a run goes, until it has ended"),
        ("cancel", _cancel, "end a run"),
    ):
        add = actions.add_parser(name, help=summary)
        add.add_argument("id", type=UUID)
        add.add_argument("--json", action="store_true", help="print JSON")
        add.set_defaults(run=run)
    for name, run, summary in (
        ("compare", _compare, "runs side by side"),
        ("picture", _picture, "draw the curves of one or more runs"),
    ):
        add = actions.add_parser(name, help=summary)
        if name == "picture":
            add.add_argument("out", type=Path, metavar="FILE.png")
        add.add_argument("id", type=UUID, nargs="+")
        add.add_argument("--json", action="store_true", help="print JSON")
        add.set_defaults(run=run)


def _verb(verbs: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary)
    parser.add_argument("--workspace", type=UUID, help="needed where there are several")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


# -- Queueing -------------------------------------------------------------------------------------


async def _train(args: argparse.Namespace, settings: Settings) -> int:
    return await _queue(args, settings, "train", {"recipe": _recipe(args.recipe)})


async def _promote(args: argparse.Namespace, settings: Settings) -> int:
    asked = {"version": args.version} if args.version else {}
    return await _queue(args, settings, "promote", asked)


async def _rollback(args: argparse.Namespace, settings: Settings) -> int:
    return await _queue(args, settings, "rollback", {})


async def _queue(
    args: argparse.Namespace, settings: Settings, kind: RunKind, parameters: dict[str, Any]
) -> int:
    async with open_workplace(settings) as workplace:
        workspace_id = await workspace_of(args, workplace)
        run_id = await workplace.runs.queue(
            Recipe(kind=kind, parameters=parameters), workspace_id=workspace_id, by=None, place={}
        )
        if not await workers_of(workplace.pool, queue=TRAINING_QUEUE):
            print(
                "No training worker runs: `parley up` starts one, or `python -m training worker`.",
                file=sys.stderr,
            )
        if args.wait:
            return await _followed(workplace, run_id, as_json=args.json)
    if args.json:
        print_json({"run_id": run_id})
    else:
        print(f"Queued as run {run_id}.")
    return 0


def _recipe(named: str) -> Any:
    """A shipped recipe's name, or a file's fields; training's worker checks them."""
    if named in METHODS:
        return named
    path = Path(named)
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        known = ", ".join(METHODS)
        raise InputUnusable(
            f"{named!r} is none of the recipes {known}, and no file that can be read: {error}."
        ) from error


# -- Runs -----------------------------------------------------------------------------------------


async def _list(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        runs = await workplace.runs.list(await workspace_of(args, workplace), limit=LISTED)
    if args.json:
        print_json([asdict(run) for run in runs])
        return 0
    for run in runs:
        print(f"{run.id}  {run.kind:<8}  {run.status:<9}  {_summary(run)}")
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
        "folder": str(settings.home.absolute() / "runs" / str(run.id)),
    }
    print_json(shown)
    return 0


async def _watch(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        await _run(workplace, args.id)
        return await _followed(workplace, RunId(args.id), as_json=args.json)


async def _followed(workplace: Workplace, run_id: RunId, *, as_json: bool) -> int:
    """Print every new step until the run has ended; exit code 1 where it made nothing."""
    told: set[tuple[str, int]] = set()
    stage: str | None = None
    while True:
        run = await _run(workplace, run_id)
        for metric in await workplace.runs.metrics(run_id):
            if (metric.stage, metric.step) not in told and "loss" in metric.values:
                told.add((metric.stage, metric.step))
                print(json.dumps(asdict(metric), default=str) if as_json else _step(metric))
        if run.stage not in (None, stage) and not as_json:
            print(f"{run.stage} ...", file=sys.stderr)
        stage = run.stage
        if run.ended_at is not None:
            if as_json:
                print_json(asdict(run))
            else:
                print(f"{run.status}: {_summary(run)}")
            return 0 if run.status == "succeeded" else 1
        await asyncio.sleep(LOOK_EVERY_S)


def _step(metric: Metric) -> str:
    values = metric.values
    parts = [f"{metric.stage} {metric.step}/{values.get('of_steps', 0):.0f}"]
    parts.append(f"loss {values['loss']:.4f}")
    if "learning_rate" in values:
        parts.append(f"learning rate {values['learning_rate']:.2e}")
    if "tokens_per_s" in values:
        parts.append(f"{values['tokens_per_s']:.0f} tokens/s")
    if "eta_s" in values:
        parts.append(f"{values['eta_s'] / 60:.0f} min left")
    return "  ".join(parts)


async def _cancel(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        run = await _run(workplace, args.id)
        asked = await workplace.runs.cancel(run.id, by=None)
    print("It ends after the present step." if asked else "It has ended already.")
    return 0 if asked else 1


async def _compare(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        runs = [await _run(workplace, each) for each in args.id]
        figures = [_figures(run, await workplace.runs.metrics(run.id)) for run in runs]
    if args.json:
        print_json([{"run_id": run.id, **each} for run, each in zip(runs, figures, strict=True)])
        return 0
    for name in dict.fromkeys(key for each in figures for key in each):
        cells = [str(each.get(name, "-")) for each in figures]
        print(f"{name:<28}" + "".join(f"{cell:>24}" for cell in cells))
    return 0


def _figures(run: StoredRun, metrics: Any) -> dict[str, Any]:
    """What tells two runs apart."""
    found: dict[str, Any] = {
        "version": run.result.get("version", "-"),
        "status": run.status,
        "outcome": run.result.get("outcome", run.failure or "-"),
        "snapshot": (run.snapshot_sha256 or "-")[:12],
    }
    for stage in dict.fromkeys(metric.stage for metric in metrics):
        losses = [
            each.values["loss"] for each in metrics if each.stage == stage and "loss" in each.values
        ]
        if losses:
            found[f"{stage}: steps"] = len(losses)
            found[f"{stage}: last loss"] = f"{losses[-1]:.4f}"
    for metric, value in run.result.get("gate", {}).get("figures", {}).get("candidate", {}).items():
        found[metric] = f"{value:.3f}"
    return found


async def _picture(args: argparse.Namespace, settings: Settings) -> int:
    """Drawn by training, whose pictures these are, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "training", "curves", str(args.out.absolute())),
        *map(str, args.id),
    )
    return await process.wait()


async def _run(workplace: Workplace, run_id: UUID) -> StoredRun:
    run = await workplace.runs.get(RunId(run_id))
    if run is None:
        raise InputUnusable(f"There is no run {run_id}; `parley runs list` shows them.")
    return run


def _summary(run: StoredRun) -> str:
    """What came out, or where it stands, in a line."""
    if run.failure is not None:
        return f"{run.failure} {run.advice or ''}".rstrip()
    if run.ended_at is None:
        return run.stage or "waiting"
    if run.kind != "train":
        return f"{run.result.get('version', '')} {run.result.get('why', '')}".strip()
    reasons = " ".join(run.result.get("reasons", ()))
    return f"{run.result.get('version', '')} {run.result.get('outcome', '')} {reasons}".strip()


# -- Versions -------------------------------------------------------------------------------------


async def _versions(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        versions = await workplace.versions.list(await workspace_of(args, workplace))
    if args.json:
        print_json([asdict(version) for version in versions])
        return 0
    for version in versions:
        print(f"v{version.number:<4} {version.status:<12} {_told(version)}")
    if not versions:
        print("No versions yet: `parley train` makes one.")
    return 0


def _told(version: ModelVersion) -> str:
    share = f"answers {version.share:.0%} of threads; " if version.status == "canary" else ""
    return share + " ".join(version.gate.get("reasons", ()))


async def _ledger(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        found = await trace(workplace.pool, args.id)
    if args.json:
        print_json(found)
        return 0
    for answer in found["answers"]:
        votes = ", ".join(f"{vote['value']:+d}" for vote in answer["votes"]) or "none"
        print(
            f"answer {answer['answer_id']} by {answer['model']}: votes {votes}, "
            f"{len(answer['corrections'])} corrections"
        )
    for row in found["rows"]:
        print(f"row {row['row_id']}: {row['kind']}, {row['split']}, from {row['basis']}")
    for run in found["runs"]:
        print(f"run {run['run_id']}: {run['status']}, snapshot {run['snapshot_sha256']}")
    for version in found["versions"]:
        print(f"version {version['name']} ({version['version_id']}): {version['status']}")
    return 0
