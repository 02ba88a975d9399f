"""`parley feedback` as an operator types it, on a database with votes."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from cryptography.fernet import Fernet

from feedback import Feedback
from storage.conversations import Conversations
from storage.identity import Audience, Identities, Keys
from storage.members import Members
from storage.places import Places
from storage.pool import open_pool
from storage.settings import DatabaseSettings
from tests.feedback.conftest import answers_on, compared

KEY = Fernet.generate_key().decode()


async def _rate(url: str, *, workspaces: int = 1) -> Audience:
    """A person who corrects an answer and judges a comparison in each workspace."""
    async with open_pool(url, settings=DatabaseSettings()) as pool:
        identities = Identities(pool=pool, keys=Keys(fernet_keys=(KEY,)))
        feedback = Feedback(pool)
        answered = answers_on(Conversations(pool=pool, keys=Keys(fernet_keys=(KEY,))))
        for number in range(workspaces):
            audience = await identities.resolve(
                platform="slack",
                workspace=f"T{number}",
                channel="C1",
                channel_open=True,
                member="U1",
            )
            assert audience.member_id is not None and audience.channel_id is not None
            await Members(pool).set_consent(audience.member_id, True)
            await Places(pool).save_channel_settings(
                audience.channel_id, {"consent_to_train": True}, by=audience.member_id
            )
            asked = await answered(audience, "good@1", "bad@1")
            await compared(feedback, audience, asked, "left")
            await feedback.correct(
                answer_id=asked.answers[0], audience=audience, text="In November."
            )
        return audience


def _parley(url: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bots", "feedback", *arguments],
        env={**os.environ, "PARLEY_DATABASE__URL": url, "PARLEY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_the_operator_sees_the_ranking_quarantines_and_writes_a_snapshot(
    database_url: str, tmp_path: Path
) -> None:
    audience = asyncio.run(_rate(database_url))
    image = tmp_path / "board.png"
    shown = _parley(database_url, tmp_path, "leaderboard", "--picture", str(image))
    assert "good@1: not enough votes (1 of 30); 1 won" in shown.stdout, shown.stderr
    assert image.read_bytes().startswith(b"\x89PNG")
    written = _parley(database_url, tmp_path, "snapshot", str(tmp_path / "rows"), "--json")
    told = json.loads(written.stdout)
    assert sum(told["rows"].values()) == 4
    assert json.loads((Path(told["folder"]) / "manifest.json").read_text())["rows"]
    member = str(audience.member_id)
    assert _parley(database_url, tmp_path, "quarantine", member).returncode == 0
    assert _parley(database_url, tmp_path, "quarantine", member).returncode == 1
    shown = _parley(database_url, tmp_path, "leaderboard", "--json")
    assert json.loads(shown.stdout)["votes"] == 0
    assert "looks odd" in _parley(database_url, tmp_path, "flags").stdout


def test_the_operator_is_asked_which_workspace_is_meant(database_url: str, tmp_path: Path) -> None:
    empty = _parley(database_url, tmp_path, "leaderboard")
    assert empty.returncode == 2 and "Nobody has rated anything yet." in empty.stderr
    assert "in Slack and in Discord have buttons" in empty.stderr, "the next step"
    audience = asyncio.run(_rate(database_url, workspaces=2))
    asked = _parley(database_url, tmp_path, "leaderboard")
    assert asked.returncode == 2 and str(audience.workspace_id) in asked.stderr
    named = _parley(
        database_url, tmp_path, "leaderboard", "--workspace", str(audience.workspace_id)
    )
    assert "good@1" in named.stdout
    unknown = _parley(database_url, tmp_path, "leaderboard", "--workspace", str(audience.member_id))
    assert unknown.returncode == 2 and str(audience.workspace_id) in unknown.stderr


def test_a_picture_that_cannot_be_written_is_refused(database_url: str, tmp_path: Path) -> None:
    asyncio.run(_rate(database_url))
    image = tmp_path / "missing" / "board.png"
    refused = _parley(database_url, tmp_path, "leaderboard", "--picture", str(image))
    assert (refused.returncode, "there is no folder" in refused.stderr) == (2, True)
