"""Snapshots: the training rows of a workspace at one moment, written down with their hash.

A snapshot is a folder: `<kind>.<split>.jsonl` in TRL's schemas, `rows.jsonl` with where each row
comes from, and `manifest.json`. The same ratings under the same rules give the same hash, so a run
can say what it learnt from. A person who is forgotten is in no later snapshot, and of earlier ones
`feedback.forgotten_rows` leaves the manifest.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args
from uuid import UUID

from feedback.near_duplicates import without_near_duplicates
from feedback.own_process import in_own_process
from feedback.rows import Compiled, Kind, Row, Split, compile_rows
from feedback.rules import Rules
from feedback.scrubbing import Scrubbed, Scrubber
from feedback.snapshot_files import LISTED, MANIFEST, rows_file
from storage.identity import MemberId, WorkspaceId
from storage.members import Members
from storage.pool import Pool
from storage.rated import Rated, RatedAnswer, RatedComparison

if TYPE_CHECKING:
    import datasets

FORMAT: Final = 1
"""Of the folder; a reader refuses what it does not know."""

LEFTOVER_AFTER_S: Final = 3600.0
"""Writing a snapshot takes seconds: one that was begun so long ago is nobody's any more."""

_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{64}\.\d+")
"""A snapshot that a process of that number writes."""

Scrub = Callable[[str], Scrubbed]


@dataclass(frozen=True, kw_only=True)
class LengthBias:
    """Whether people prefer what is longer, in characters: a loop that learns it talks ever more.

    Attributes:
        pairs: preference pairs of answers, without corrections.
        longer_chosen: share of them whose chosen side is the longer one; None without pairs.
        mean_difference: of the chosen side's length over the rejected one's; likewise.
    """

    pairs: int
    longer_chosen: float | None
    mean_difference: float | None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Training rows of one moment.

    Attributes:
        sha256: of rows and rules; the snapshot's name.
        rows: in the order of their ids.
        left_out: what was not used, by reason.
        scrubbed: what was taken out of prompts, by kind.
    """

    sha256: str
    workspace_id: WorkspaceId
    rules: Rules
    rows: tuple[Row, ...]
    left_out: Mapping[str, int]
    scrubbed: Mapping[str, int]
    length_bias: LengthBias

    def of(self, kind: Kind, split: Split) -> list[Row]:
        """The rows of a kind and a split."""
        return [row for row in self.rows if (row.kind, row.split) == (kind, split)]

    def dataset(self, kind: Kind, split: Split) -> "datasets.Dataset":
        """The same as TRL's trainers take them, with each row's id."""
        import datasets

        return datasets.Dataset.from_list(
            [{**row.trl(), "id": row.id} for row in self.of(kind, split)]
        )


async def snapshot(
    pool: Pool, *, workspace_id: WorkspaceId, rules: Rules, apart_s: float | None = None
) -> Snapshot:
    """Read a workspace's ratings and compile them; who is quarantined does not count.

    Args:
        apart_s: compile in a process of its own, for at most so many seconds: scrubbing needs
            350 MB and the processor, which a process that goes on has for others; None = here.

    Raises:
        StorageUnavailable: safe to retry.
        TimeoutError, BrokenProcessPool: the process of its own took too long, or died.
    """
    kept_out = await Members(pool).quarantined(workspace_id)
    rules = replace(rules, quarantined=rules.quarantined | kept_out)
    answers, comparisons = await Rated(pool).everything(workspace_id)
    if apart_s is None:
        return _scrubbed_snapshot(answers, comparisons, workspace_id, rules)
    return await in_own_process(
        apart_s, _scrubbed_snapshot, answers, comparisons, workspace_id, rules
    )


def _scrubbed_snapshot(
    answers: Sequence[RatedAnswer],
    comparisons: Sequence[RatedComparison],
    workspace_id: WorkspaceId,
    rules: Rules,
) -> Snapshot:
    return compiled_snapshot(
        answers, comparisons, workspace_id=workspace_id, rules=rules, scrub=Scrubber().scrub
    )


def compiled_snapshot(
    answers: Sequence[RatedAnswer],
    comparisons: Sequence[RatedComparison],
    *,
    workspace_id: WorkspaceId,
    rules: Rules,
    scrub: Scrub,
) -> Snapshot:
    """The snapshot of what was read."""
    compiled = compile_rows(answers, comparisons, rules=rules)
    scrubbed: Counter[str] = Counter()
    clean = list(_scrubbed(compiled, scrub, scrubbed))
    rows = without_near_duplicates(
        clean, threshold=rules.near_duplicate, left_out=compiled.left_out
    )
    return Snapshot(
        sha256=_sha256(rows, rules),
        workspace_id=workspace_id,
        rules=rules,
        rows=tuple(rows),
        left_out={reason: count for reason, count in sorted(compiled.left_out.items()) if count},
        scrubbed=dict(sorted(scrubbed.items())),
        length_bias=length_bias(rows),
    )


def _scrubbed(compiled: Compiled, scrub: Scrub, found: Counter[str]) -> Iterator[Row]:
    """Rows with clean prompts; a row that would teach to say what was found is left out."""
    known: dict[str, Scrubbed] = {}

    def clean(text: str) -> Scrubbed:
        if text not in known:
            known[text] = scrub(text)
        return known[text]

    for row in compiled.rows:
        if clean(row.chosen).found or (row.rejected and clean(row.rejected).found):
            compiled.left_out["it would teach personal data or a secret"] += 1
            continue
        for message in row.prompt:
            found.update(clean(message["content"]).found)
        prompt = tuple({**each, "content": clean(each["content"]).text} for each in row.prompt)
        yield replace(row, prompt=prompt, question=clean(row.question).text)


def length_bias(rows: Sequence[Row]) -> LengthBias:
    """How the lengths of preferred answers compare; corrections are people's own words."""
    differences = [
        len(row.chosen) - len(row.rejected)
        for row in rows
        if row.rejected is not None and row.basis != "correction"
    ]
    if not differences:
        return LengthBias(pairs=0, longer_chosen=None, mean_difference=None)
    return LengthBias(
        pairs=len(differences),
        longer_chosen=statistics.fmean(difference > 0 for difference in differences),
        mean_difference=statistics.fmean(differences),
    )


# -- On disk --------------------------------------------------------------------------------------


def write(found: Snapshot, directory: Path) -> Path:
    """Write a snapshot as `<directory>/<sha256>`, whole or not at all; writing it again is no work.

    One that a power cut tore is written anew.

    Raises:
        OSError: the disk does not take it.
    """
    folder = directory / found.sha256
    files = _files(found)
    if _is_whole(folder, files, found.sha256):
        return folder
    directory.mkdir(parents=True, exist_ok=True)
    remove_leftovers(directory)
    unfinished = directory / f".{found.sha256}.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        manifest = json.dumps(_manifest(found), ensure_ascii=False, indent=2, default=str) + "\n"
        for name, text in (files | {MANIFEST: manifest.encode()}).items():
            _write_durably(unfinished / name, text)
        _sync(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        _sync(directory)
    finally:
        # It holds people's words, which nobody would look for here.
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def remove_leftovers(directory: Path) -> None:
    """Remove what processes left that were killed while they wrote; all else there is not ours."""
    for leftover in directory.glob(".*.*"):
        if _UNFINISHED.fullmatch(leftover.name) is None:
            continue
        with contextlib.suppress(FileNotFoundError):  # another process was faster, or has ended
            if time.time() - leftover.stat().st_mtime > LEFTOVER_AFTER_S:
                shutil.rmtree(leftover, ignore_errors=True)


def with_rows(directory: Path) -> list[Path]:
    """The snapshots in a directory that still have rows."""
    return sorted({file.parent for file in directory.glob("[!.]*/*.jsonl")})


def voters_of(folder: Path) -> frozenset[MemberId] | None:
    """Whose ratings a snapshot's rows come from; None where the list of them is damaged or lost.

    Raises:
        OSError: it cannot be read now.
    """
    try:
        with (folder / LISTED).open(encoding="utf-8") as lines:
            return frozenset(
                MemberId(UUID(each)) for line in lines for each in json.loads(line)["voters"]
            )
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def remove_rows(folder: Path) -> None:
    """Delete a snapshot's rows, and keep its manifest.

    The list of rows goes last: while it is there, whoever begins again after a kill or a power cut
    knows that there is something left to delete.

    Raises:
        OSError: the disk refuses.
    """
    for file in folder.glob("*.jsonl"):
        if file.name != LISTED:
            file.unlink(missing_ok=True)
    _sync(folder)
    (folder / LISTED).unlink(missing_ok=True)
    _sync(folder)


def _files(found: Snapshot) -> dict[str, bytes]:
    """What the snapshot's files hold, by name; all of it follows from the hash."""
    files = {
        rows_file(kind, split): _lines([row.trl() for row in found.of(kind, split)])
        for kind in get_args(Kind)
        for split in get_args(Split)
    }
    return files | {LISTED: _lines([_provenance(row) for row in found.rows])}


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """One row a line; in ASCII, because documents hold signs that end a line for some readers."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _is_whole(folder: Path, files: Mapping[str, bytes], sha256: str) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return bool(manifest["sha256"] == sha256) and all(
            (folder / name).read_bytes() == text for name, text in files.items()
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write_durably(path: Path, text: bytes) -> None:
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Let the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _provenance(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "split": row.split,
        "basis": row.basis,
        "answer_ids": [str(each) for each in row.answer_ids],
        "voters": [str(each) for each in row.voters],
        "curators": [str(each) for each in row.curators],
        "question_sha256": row.question_sha256,
    }


def _manifest(found: Snapshot) -> dict[str, Any]:
    counts = Counter(f"{row.kind}.{row.split}" for row in found.rows)
    return {
        "format": FORMAT,
        "sha256": found.sha256,
        "workspace_id": str(found.workspace_id),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rules": _rules(found.rules),
        "rows": dict(sorted(counts.items())),
        "left_out": found.left_out,
        "scrubbed": found.scrubbed,
        "length_bias": asdict(found.length_bias),
    }


def _rules(rules: Rules) -> dict[str, Any]:
    return {**asdict(rules), "quarantined": sorted(str(each) for each in rules.quarantined)}


def _sha256(rows: Sequence[Row], rules: Rules) -> str:
    digest = hashlib.sha256()
    for part in (
        {"format": FORMAT, **_rules(rules)},
        *({**row.trl(), "id": row.id} for row in rows),
    ):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()
