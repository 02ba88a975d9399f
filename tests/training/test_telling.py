"""Notices of tried and promoted versions: what they say, with which picture, whom they reach."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from uuid import uuid4

import pytest
from PIL import Image
from psycopg.types.json import Jsonb

from feedback.rankings import Estimate
from storage.identity import AnswerId
from storage.model_versions import ModelVersion, ModelVersions, VersionId
from storage.notices import MAX_ATTEMPTS, PERSON, NewNotice, Notices
from storage.pool import Pool
from storage.runs import RunRow, Runs, StoredRun
from tests.storage.conftest import Team
from tests.training.test_canary import BASE, Votes, engine, tried, vote, watch
from training import pictures, reports
from training.canary import CanaryWatch
from training.errors import TrainingError
from training.serving import Promotion
from training.telling import Telling

__all__ = ["engine", "tried", "vote", "watch"]


async def test_a_notice_is_offered_with_pauses_until_it_is_told_or_given_up(
    pool: Pool, tried: ModelVersion
) -> None:
    notices, run = Notices(pool), await run_of(pool, tried)
    assert await notices.add(NewNotice(run=run, text="hello", about="better"))
    assert not await notices.add(NewNotice(run=run, text="hello again", about="better"))
    offered = []
    for _ in range(MAX_ATTEMPTS + 1):
        offered.append(len(await notices.due("slack")))
        assert not await notices.due("slack")  # there is a pause
        async with pool.connection() as connection:
            await connection.execute("UPDATE notices SET not_before = now()")
    assert offered == [1] * MAX_ATTEMPTS + [0]


async def test_raters_hear_of_a_run_that_no_chat_asked_for(
    pool: Pool, team: Team, vote: Votes, tried: ModelVersion
) -> None:
    await vote(BASE, 1, 3)
    assert tried.run_id is not None
    async with pool.connection() as connection:
        found = await connection.execute("SELECT id FROM answers")
        answers = [AnswerId(row[0]) for row in await found.fetchall()]
        await connection.execute("UPDATE runs SET place = '{}', started_at = now()")
        await connection.execute("UPDATE votes SET consent = true")
    rows = [
        RunRow(row_id=str(one), kind="kto", split="train", basis="vote", answer_ids=[one])
        for one in answers
    ]
    await Runs(pool).learn_from(tried.run_id, snapshot_sha256="0", rows=rows)
    run = await run_of(pool, tried)
    notices = Notices(pool)
    assert not await notices.add(NewNotice(run=run, text="It failed.", about="ended"))

    telling, promotion = Telling(pool=pool), Promotion(version=tried, before=None)
    assert await notices.add(telling.trial(run, reports.better(tried, votes=9), about="better"))
    assert await notices.add(await telling.promotion(run, promotion, by=PERSON))

    better, told = await notices.due("web")
    assert better.place == told.place == {"workspace": "T", "channel": "general"}
    assert told.text.startswith("Your 3 votes made v1; ")
    assert told.text.endswith(f"promoted by {PERSON}. It replaces the base model.")


def test_a_trial_that_ends_another_one_says_so(tried: ModelVersion) -> None:
    result = {"version": "v8", "outcome": "candidate", "reasons": ["Better beyond doubt."]}
    told = reports.made(result, learnt=9, tried=0.2, instead=replace(tried, number=7))
    assert told.startswith("9 of your ratings made v8. Better beyond doubt.")
    assert "It answers 20% of the threads from now on, instead of v7, until votes tell" in told
    assert "instead" not in reports.made(result, learnt=9, tried=0.2)


def test_a_promotion_is_one_sentence_with_votes_and_win_rate(tried: ModelVersion) -> None:
    rate = {"value": 0.58, "low": 0.52, "high": 0.64}
    version = replace(tried, number=7, gate={"evidence": {"win_rate": rate}})
    assert reports.promoted(
        version, before=replace(tried, id=VersionId(uuid4())), votes=212, by="Ana"
    ) == ("Your 212 votes made v7; win rate 58 % (52 to 64); promoted by Ana. It replaces v1.")


@pytest.mark.parametrize(
    ("win_rate", "compared"),
    [
        (asdict(Estimate(value=0.58, low=0.52, high=0.64)), "win rate 58 % (52 to 64)"),
        (None, "answer F1 rose by 0.10 (0.02 to 0.18)"),
    ],
)
async def test_a_promotions_notice_has_its_figures_in_words_and_a_picture(
    pool: Pool,
    team: Team,
    watch: Callable[..., CanaryWatch],
    tried: ModelVersion,
    vote: Votes,
    win_rate: object,
    compared: str,
) -> None:
    gate = {
        "outcome": "candidate",
        "reasons": ["Answer F1 rose by 0.10 (0.02 to 0.18)."],
        "evidence": {"win_rate": win_rate},
        "figures": {"candidate": {"answer F1": 0.42}, "live": {"answer F1": 0.32}},
    }
    for _ in range(15):
        await vote(BASE, -1, 1)
        await vote(tried.name, 1, 1)
    assert tried.run_id is not None
    async with pool.connection() as connection:
        await connection.execute("UPDATE model_versions SET gate = %s", [Jsonb(gate)])
        await connection.execute("UPDATE runs SET started_at = now()")
        await connection.execute("UPDATE votes SET consent = true")
        answers = await (await connection.execute("SELECT id FROM answers")).fetchall()
    learnt = [
        RunRow(row_id=str(one), kind="kto", split="train", basis="vote", answer_ids=[AnswerId(one)])
        for (one,) in answers[:12]
    ]
    await Runs(pool).learn_from(tried.run_id, snapshot_sha256="0", rows=learnt)
    version = await ModelVersions(pool).get(tried.id)
    assert version is not None
    await watch(promote="auto").look(version)
    (notice,) = await Notices(pool).due("slack")
    assert notice.text == (
        f"Your 12 votes made v1; {compared}; promoted by 30 live votes. It replaces the base model."
    )
    assert notice.picture is not None
    with Image.open(BytesIO(notice.picture)) as picture:
        assert picture.format == "PNG" and picture.width > 500
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
    assert colours is not None and {(0x44, 0x77, 0xAA), (0x99, 0x99, 0x99)} <= {
        colour for _, colour in colours
    }


async def run_of(pool: Pool, version: ModelVersion) -> StoredRun:
    assert version.run_id is not None
    run = await Runs(pool).get(version.run_id)
    assert run is not None
    return run


def die(*_: object) -> None:
    os._exit(9)


async def test_a_picture_that_cannot_be_drawn_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "draw_curves", die)
    with pytest.raises(TrainingError, match="could not be drawn: its process died"):
        await pictures.curves({})
    monkeypatch.setattr(pictures, "DRAW_S", 0.0)
    with pytest.raises(TrainingError, match="could not be drawn: its process took too long"):
        await pictures.curves({})


async def test_what_was_carried_out_does_not_hang_on_its_picture(
    pool: Pool, tried: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(pictures, "gate", refused)
    run = replace(await run_of(pool, tried), place={"platform": "slack", "channel": "C1"})
    version = replace(tried, gate={"figures": {"live": {}}})
    promotion = Promotion(version=version, before=None)
    told = await Telling(pool=pool).promotion(run, promotion, by=PERSON)
    assert told.picture is None and "promoted by" in told.text
