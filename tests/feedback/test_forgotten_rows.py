"""The rows of snapshots go with the people whose ratings made them."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from feedback.datasets import LEFTOVER_AFTER_S, compiled_snapshot, write
from feedback.forgotten_rows import ForgottenRows
from feedback.rules import Rules
from feedback.scrubbing import Scrubbed
from storage.identity import Audience, MemberId
from storage.members import forget
from storage.pool import Pool
from tests.feedback.test_rows import answer, correction
from tests.storage.conftest import Team

WORDS = "In the small room behind the stairs."


def member(audience: Audience) -> MemberId:
    assert audience.member_id is not None
    return audience.member_id


def write_rows(directory: Path, number: int, audience: Audience) -> Path:
    """A snapshot of one answer that somebody corrected."""
    corrected = answer(number, corrections=(correction(member(audience), f"{number}: {WORDS}"),))
    found = compiled_snapshot(
        [corrected],
        [],
        workspace_id=audience.workspace_id,
        rules=Rules(),
        scrub=lambda text: Scrubbed(text=text, found=Counter()),
    )
    assert found.rows
    return write(found, directory)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


async def test_a_forgotten_persons_words_leave_the_snapshots_and_their_manifests_stay(
    pool: Pool, team: Team, tmp_path: Path
) -> None:
    mine, theirs = (
        write_rows(tmp_path / "snapshots", number, audience)
        for number, audience in ((1, team.general), (2, team.bob))
    )
    whole = names(theirs)
    rows = ForgottenRows(pool=pool, directory=tmp_path / "snapshots")
    assert await rows.sweep() == 0 and names(mine) == whole
    await forget(pool, member(team.general), files_dir=tmp_path)
    assert await rows.sweep() == 1
    assert names(mine) == {"manifest.json"} and names(theirs) == whole
    manifest = json.loads((mine / "manifest.json").read_text())
    assert manifest["sha256"] == mine.name and manifest["rows"]
    assert await rows.sweep() == 0 and names(mine) == {"manifest.json"}


async def test_a_sweep_that_was_cut_short_is_gone_on_with_and_says_nobodys_words(
    pool: Pool, team: Team, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    folder, other = (write_rows(tmp_path, number, team.general) for number in (1, 2))
    await forget(pool, member(team.general), files_dir=tmp_path / "files")
    held = folder / "sft.train.jsonl"
    held.unlink()
    held.mkdir()  # which cannot be removed as a file
    assert await ForgottenRows(pool=pool, directory=tmp_path).sweep() == 1
    assert {"manifest.json", "rows.jsonl"} <= names(folder) and names(other) == {"manifest.json"}
    held.rmdir()
    assert await ForgottenRows(pool=pool, directory=tmp_path).sweep() == 1
    assert names(folder) == {"manifest.json"}
    actions = [record.__dict__.get("action") for record in caplog.records]
    assert actions.count("rows_not_deleted") == 1 and actions.count("rows_deleted") == 2
    assert WORDS not in caplog.text


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("{")])
async def test_rows_of_which_nobody_can_say_whose_they_are_go(
    pool: Pool, team: Team, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    folder = write_rows(tmp_path, 1, team.general)
    damage(folder / "rows.jsonl")
    assert await ForgottenRows(pool=pool, directory=tmp_path).sweep() == 1
    assert names(folder) == {"manifest.json"}


async def test_a_snapshot_that_is_being_written_is_left_alone_until_it_is_nobodys(
    pool: Pool, tmp_path: Path
) -> None:
    rows = ForgottenRows(pool=pool, directory=tmp_path / "snapshots")
    assert await rows.sweep() == 0, "nothing was ever trained"
    unfinished = tmp_path / "snapshots" / f".{'0a' * 32}.1"
    unfinished.mkdir(parents=True)
    (unfinished / "sft.train.jsonl").write_text("{}")
    assert await rows.sweep() == 0 and unfinished.exists()
    then = time.time() - 2 * LEFTOVER_AFTER_S
    os.utime(unfinished, (then, then))
    assert await rows.sweep() == 0 and not unfinished.exists()
