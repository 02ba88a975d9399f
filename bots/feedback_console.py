"""The terminal's `parley feedback`: rankings, signs of steered votes, quarantine, snapshots.

For the operator of the machine: whoever may run it may read the database. People appear by their
pseudonyms.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from bots.errors import InputUnusable
from bots.settings import Settings
from bots.workplace import Workplace, open_workplace
from feedback import Leaderboard, Ranked, picture
from feedback.argilla_client import ArgillaClient
from feedback.argilla_server import credentials
from feedback.errors import FeedbackError
from feedback.poisoning import flags
from feedback.rankings import MIN_VOTES
from feedback.records import workspace_name
from feedback.relay import Relay
from feedback.rules import Rules
from storage.curations import Curations
from storage.errors import PlaceNotFound
from storage.identity import ChannelId, MemberId, WorkspaceId
from storage.outbox import Outbox
from storage.rated import Rated

NOTHING_RATED: Final = (
    "Nobody has rated anything yet. The answers on the page, in Slack and in Discord have buttons "
    'for it; the README says under "From ratings to a model" what comes first.'
)


def add_verbs(verbs: Any) -> None:
    """Add `feedback` and its actions to the command line."""
    parser = verbs.add_parser("feedback", help="rankings, quarantine and training rows")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = _action(actions, "leaderboard", _leaderboard, "which model people prefer")
    add.add_argument("--channel", type=UUID, help="only this channel's comparisons")
    add.add_argument("--picture", type=Path, metavar="FILE.png", help="draw it, too")
    _action(actions, "flags", _flags, "signs that somebody steers the votes")
    for name, summary in (
        ("quarantine", "let a person's ratings count no longer"),
        ("release", "let them count again"),
    ):
        add = _action(actions, name, _quarantine, summary)
        add.add_argument("member", type=UUID, help="the pseudonym that `flags` shows")
        add.set_defaults(on=name == "quarantine")
    status = actions.add_parser(
        "status", help="what Argilla was told, what waits and what it refuses"
    )
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(run=_status)
    backfill = actions.add_parser("backfill", help="tell Argilla everything once more")
    backfill.add_argument("--workspace", type=UUID, help="only this one")
    backfill.set_defaults(run=_backfill)
    add = _action(actions, "snapshot", _snapshot, "write the training rows as files")
    add.add_argument("directory", type=Path, help="where to write the folder")
    add.add_argument("--channel", type=UUID, help="for a model that answers only this channel")


def _action(actions: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary)
    parser.add_argument("--workspace", type=UUID, help="needed where there are several")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


async def _leaderboard(args: argparse.Namespace, settings: Settings) -> int:
    if args.picture is not None:
        require_writable(args.picture)
    async with open_workplace(settings) as workplace:
        workspace_id = await workspace_of(args, workplace)
        channel_id = ChannelId(args.channel) if args.channel else None
        board = await workplace.feedback.ranking(workspace_id=workspace_id, channel_id=channel_id)
    if args.picture is not None:
        args.picture.write_bytes(await picture(board, title=f"Leaderboard: {board.votes} votes"))
    if args.json:
        print_json(asdict(board))
    else:
        print("\n".join(leaderboard_lines(board)))
    return 0


def leaderboard_lines(board: Leaderboard) -> list[str]:
    """A ranking as plain lines, best first."""
    if not board.models:
        return ["No comparisons yet."]
    lines = [_line(model) for model in board.models]
    if board.position is not None:
        left = board.position
        lines.append(
            f"The left answer's advantage: {left.value:+.2f} ({left.low:+.2f} to {left.high:+.2f})"
            " log-odds, taken out of the ranking."
        )
    return lines + [f"Left out: {count} ({reason})." for reason, count in board.excluded.items()]


def _line(model: Ranked) -> str:
    record = f"{model.wins} won, {model.losses} lost, {model.ties} tied"
    rate = model.win_rate
    if rate is None:
        return f"   -  {model.model}: not enough votes ({model.votes} of {MIN_VOTES}); {record}"
    return (
        f"{model.rank:>4}  {model.model}: preferred {rate.value:.0%}"
        f" ({rate.low:.0%} to {rate.high:.0%}); {record}"
    )


async def _flags(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        workspace_id = await workspace_of(args, workplace)
        answers, comparisons = await Rated(workplace.pool).everything(workspace_id)
    found = flags(answers, comparisons)
    if args.json:
        print_json({"flags": [asdict(flag) for flag in found]})
        return 0
    for flag in found:
        print(f"{flag.sign}: {', '.join(map(str, flag.members))}: {flag.what}")
    if not found:
        print("Nothing looks odd.")
    return 0


async def _quarantine(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        workspace_id = await workspace_of(args, workplace)
        changed = await workplace.members.quarantine(
            MemberId(args.member), workspace_id=workspace_id, on=args.on, by=None
        )
    if args.json:
        print_json({"changed": changed})
    elif changed:
        print("Their ratings count no longer." if args.on else "Their ratings count again.")
    else:
        print("Nothing changed: it was so already, or nobody there has this pseudonym.")
    return 0 if changed else 1


async def _status(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        state = await Outbox(workplace.pool).state()
        curation = await Curations(workplace.pool).state()
        workspaces = await Rated(workplace.pool).workspaces()
    if args.json:
        print_json({**asdict(state), "curation": asdict(curation)})
        return 0
    if not settings.argilla.enabled:
        print("Nothing is told to Argilla: PARLEY_ARGILLA__ENABLED is false.")
    last = f"{state.last_relayed_at:%Y-%m-%d %H:%M:%S} UTC" if state.last_relayed_at else "never"
    print(
        f"Argilla at {settings.argilla.effective_url} holds {state.relayed} records, told {last}."
    )
    waits = f", the oldest for {state.oldest_s:.0f} s" if state.oldest_s is not None else ""
    print(f"Waiting: {state.waiting}{waits}.")
    print(
        f"Curated: {curation.records} records by {curation.curators} people;"
        f" {curation.disagreements} of them disputed between curators,"
        f" {curation.changed_votes} younger ratings say the contrary."
    )
    for workspace_id, platform in workspaces:
        print(f"{platform} workspace {workspace_id}: {workspace_name(workspace_id)} in Argilla")
    for parked in state.parked:
        print(f"Refused since {parked.parked_at:%Y-%m-%d %H:%M}: {parked.kind} {parked.record_id}")
        print(f"  {parked.error}")
    if state.parked:
        print("Mended, they are told again by `parley feedback backfill`.")
    return 0


async def _backfill(args: argparse.Namespace, settings: Settings) -> int:
    workspace_id = WorkspaceId(args.workspace) if args.workspace else None
    key = credentials.api_key(settings.argilla, settings.home)
    async with (
        open_workplace(settings) as workplace,
        ArgillaClient(settings.argilla.effective_url, key) as client,
    ):
        try:
            marked = await Relay(workplace.pool, client).backfill(workspace_id)
        except FeedbackError as error:
            raise InputUnusable(f"{error} What is stored is told once it can be.") from error
    print(f"{marked} records are told to Argilla once more; see `parley feedback status`.")
    return 0


async def _snapshot(args: argparse.Namespace, settings: Settings) -> int:
    try:
        from feedback.datasets import snapshot, write
    except ModuleNotFoundError as error:
        raise InputUnusable(
            f"Snapshots need {error.name}: install Parley with its extra `train`."
        ) from error
    rules = Rules(channel_id=ChannelId(args.channel) if args.channel else None)
    async with open_workplace(settings) as workplace:
        workspace_id = await workspace_of(args, workplace)
        found = await snapshot(workplace.pool, workspace_id=workspace_id, rules=rules)
    try:
        folder = write(found, args.directory)
    except OSError as error:
        raise InputUnusable(f"{args.directory} cannot be written: {error.strerror}.") from error
    counts = {
        f"{kind}.{split}": len(found.of(kind, split))
        for kind in ("sft", "preference", "unpaired")
        for split in ("train", "held_out")
    }
    if args.json:
        print_json({"folder": folder, "rows": counts, "left_out": found.left_out})
        return 0
    print(f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    for reason, count in found.left_out.items():
        print(f"left out: {count} ({reason})")
    return 0


async def workspace_of(args: argparse.Namespace, workplace: Workplace) -> WorkspaceId:
    """The workspace that was named, or the only one where anybody rated.

    Raises:
        InputUnusable: there is none of this id, or several are meant.
    """
    found = await Rated(workplace.pool).workspaces()
    named = "; ".join(f"{workspace_id} ({platform})" for workspace_id, platform in found)
    if args.workspace is not None:
        try:
            await workplace.places.workspace_settings(WorkspaceId(args.workspace))
        except PlaceNotFound as error:
            there_are = f"there are: {named}" if named else "nobody has rated anything yet"
            raise InputUnusable(f"There is no workspace {args.workspace}; {there_are}.") from error
        return WorkspaceId(args.workspace)
    if len(found) == 1:
        return found[0][0]
    if not found:
        raise InputUnusable(NOTHING_RATED)
    raise InputUnusable(f"Which workspace? Name one with --workspace: {named}.")


def require_writable(path: Path) -> None:
    """Make sure that a file can be written before anything is computed for it.

    Raises:
        InputUnusable: it cannot.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputUnusable(f"{path} cannot be written: there is no folder {folder}.")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise InputUnusable(f"{path} cannot be written.")


def print_json(value: Any) -> None:
    """Print data for programs."""
    json.dump(value, sys.stdout, default=str, ensure_ascii=False, indent=2)
    print()
