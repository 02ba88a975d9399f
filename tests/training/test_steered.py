"""Versions that rest on ratings which look steered."""

import os
from collections.abc import Callable
from uuid import uuid4

import pytest

from feedback import Feedback
from feedback.poisoning import BURST_RATINGS
from storage.identity import AnswerId, MemberId
from storage.model_versions import ModelVersion, ModelVersions
from storage.notices import Notices
from storage.pool import Pool
from storage.runs import Recipe, RunRow, Runs, StoredRun
from tests.feedback.conftest import Answers, answered, conversations
from tests.storage.conftest import Team, keys, team
from tests.training.test_canary import BASE, Votes, engine, tried, vote, watch
from training import canary
from training.canary import CanaryWatch
from training.steered import _behind, steered

__all__ = ["answered", "conversations", "engine", "keys", "team", "tried", "vote", "watch"]


def row(basis: str, answer: AnswerId, split: str = "train") -> RunRow:
    return RunRow(row_id=uuid4().hex, kind="sft", split=split, basis=basis, answer_ids=[answer])


async def test_a_version_is_suspicious_when_a_fifth_of_its_rows_rests_on_flagged_votes(
    pool: Pool, team: Team, answered: Answers
) -> None:
    audience, feedback, runs = team.general, Feedback(pool), Runs(pool)
    rated = []
    for _ in range(BURST_RATINGS):
        (answer,) = (await answered(audience)).answers
        rated.append(answer)

    async def why(*rows: RunRow) -> str | None:
        run_id = await runs.queue(
            Recipe(kind="train", parameters={}),
            workspace_id=audience.workspace_id,
            by=None,
            place={},
        )
        await runs.learn_from(run_id, snapshot_sha256="0" * 64, rows=rows)
        run = await runs.get(run_id)
        assert run is not None
        return await steered(pool, run)

    honest = [row("correction", answer) for answer in rated[:8]]
    voted = [row("votes", answer) for answer in rated]
    for answer in rated[1:]:
        await feedback.vote(answer_id=answer, audience=audience, value=1)
    assert await why(*voted) is None  # not yet faster than people read
    await feedback.vote(answer_id=rated[0], audience=audience, value=1)
    found = await why(*honest, *voted[:3])
    assert found is not None and found.startswith("3 of the 11 rows")
    assert await why(*honest, *voted[:2], row("votes", rated[5], split="held_out")) is None


def test_whoever_chose_stands_behind_a_pair_that_several_ratings_made() -> None:
    ana, ben, cleo = (MemberId(uuid4()) for _ in range(3))
    answers = [AnswerId(uuid4()) for _ in range(4)]
    raters = {
        ("comparison", frozenset(answers[:2])): frozenset({ana}),
        ("comparison", frozenset(answers[2:])): frozenset({ben}),
        ("votes", frozenset(answers[:1])): frozenset({cleo}),
    }

    def behind(kind: str, basis: str, of: list[AnswerId]) -> set[MemberId]:
        row = RunRow(row_id="1", kind=kind, split="train", basis=basis, answer_ids=of)
        return set(_behind(row, raters))

    assert behind("preference", "comparison", answers[:2]) == {ana}
    assert behind("preference", "comparison", answers) == {ana, ben}
    assert behind("preference", "votes", answers) == {ana, ben, cleo}
    assert behind("unpaired", "votes", answers) == {cleo}


async def test_a_suspicious_version_is_not_promoted_by_itself(
    pool: Pool, team: Team, watch: Callable[..., CanaryWatch], tried: ModelVersion, vote: Votes
) -> None:
    for _ in range(30):
        await vote(BASE, -1, 1)
        await vote(tried.name, 1, 1)
    async with pool.connection() as connection:
        found = await connection.execute("SELECT answer_id FROM votes")
        rows = [row("votes", AnswerId(answer)) for (answer,) in await found.fetchall()]
    assert tried.run_id is not None
    await Runs(pool).learn_from(tried.run_id, snapshot_sha256="0" * 64, rows=rows)

    assert (await watch(promote="auto").look(tried)).verdict == "better"

    assert (await ModelVersions(pool).serving(team.general.workspace_id)).live is None
    (asked,) = await Notices(pool).due("slack")
    assert "An administrator may promote it now" in asked.text
    assert "not promoted by itself: 60 of the 60 rows" in asked.text


def tell_process(*_: object) -> None:
    raise LookupError(os.getpid())


async def test_ratings_are_looked_through_beside_the_worker(
    pool: Pool, tried: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tried.run_id is not None
    run = await Runs(pool).get(tried.run_id)
    assert run is not None
    monkeypatch.setattr("training.steered.flags", tell_process)
    with pytest.raises(LookupError) as told:
        await steered(pool, run)
    assert told.value.args[0] != os.getpid()


async def test_a_doubt_that_stands_is_looked_into_once_an_hour(
    watch: Callable[..., CanaryWatch],
    tried: ModelVersion,
    vote: Votes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(30):
        await vote(BASE, -1, 1)
        await vote(tried.name, 1, 1)
    looked = []

    async def doubtful(_: Pool, run: StoredRun) -> str:
        looked.append(run.id)
        return "somebody steers it"

    monkeypatch.setattr(canary, "steered", doubtful)
    watching = watch(promote="auto")
    await watching.look(tried)
    await watching.look(tried)
    assert looked == [tried.run_id]
    monkeypatch.setattr(canary, "DOUBT_AGAIN_S", 0.0)
    await watching.look(tried)
    assert looked == [tried.run_id] * 2
