"""The page of the rankings: whoever may open the page sees it, one drawing at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from bots.web import leaderboard
from feedback import Feedback
from feedback.rankings import MIN_VOTES
from storage.pool import open_pool
from storage.ratings import Winner
from storage.settings import DatabaseSettings
from tests.feedback.conftest import Answers, compared
from tests.storage.conftest import Team

NOWHERE = UUID(int=1)


@contextlib.asynccontextmanager
async def browser(
    feedback: Feedback, *, signed_in: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    handler = leaderboard.page(feedback, may_read=lambda _: signed_in)
    transport = httpx.ASGITransport(Starlette(routes=[Route(leaderboard.PATH, handler)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def judged(
    feedback: Feedback, answered: Answers, team: Team, *, votes: int, secret: bool = False
) -> None:
    audience = team.secret if secret else team.general
    for number in range(votes):
        asked = await answered(audience, "good@1", "<b>bad</b>@1")
        winner: Winner = "right" if number % 5 == 0 else "left"
        await compared(feedback, audience, asked, winner)


async def test_rankings_are_shown_overall_and_per_channel(
    feedback: Feedback, answered: Answers, team: Team
) -> None:
    await judged(feedback, answered, team, votes=MIN_VOTES)
    await judged(feedback, answered, team, votes=2, secret=True)
    async with browser(feedback) as client:
        overall = (await client.get("/leaderboard")).text
        assert f"({MIN_VOTES + 2})</a>" in overall and "data:image/png;base64," in overall
        assert "&lt;b&gt;bad&lt;/b&gt;@1" in overall and "<b>bad" not in overall
        workspace = team.general.workspace_id
        secret = await client.get(
            f"/leaderboard?workspace={workspace}&channel={team.secret.channel_id}"
        )
        assert f"not enough votes (2 of {MIN_VOTES})" in secret.text
        assert "data:image" not in secret.text


async def test_without_comparisons_the_page_says_how_to_start_one(feedback: Feedback) -> None:
    async with browser(feedback) as client:
        assert "No comparisons yet" in (await client.get("/leaderboard")).text


async def test_strangers_are_sent_to_the_door(feedback: Feedback) -> None:
    async with browser(feedback, signed_in=False) as client:
        shown = await client.get("/leaderboard")
        assert shown.status_code == 303 and shown.headers["location"] == "/"


@pytest.mark.parametrize("query", [f"workspace={NOWHERE}", "workspace=x", f"channel={NOWHERE}"])
async def test_a_place_that_is_not_there_is_not_found(
    feedback: Feedback, answered: Answers, team: Team, query: str
) -> None:
    await judged(feedback, answered, team, votes=1)
    async with browser(feedback) as client:
        assert (await client.get(f"/leaderboard?{query}")).status_code == 404


async def test_a_crowd_waits_for_one_drawing_and_no_longer_than_it_must(
    feedback: Feedback, answered: Answers, team: Team
) -> None:
    await judged(feedback, answered, team, votes=MIN_VOTES)
    async with browser(feedback) as client:
        crowd = 2 * leaderboard.MAX_WAITING
        shown = await asyncio.gather(*(client.get("/leaderboard") for _ in range(crowd)))
        codes = [response.status_code for response in shown]
        assert codes.count(200) >= leaderboard.MAX_WAITING and set(codes) == {200, 503}
        assert len({response.text for response in shown if response.status_code == 200}) == 1


async def test_a_database_that_is_away_is_said(database_url: str) -> None:
    async with open_pool(database_url, settings=DatabaseSettings()) as pool:
        feedback = Feedback(pool)
    async with browser(feedback) as client:
        shown = await client.get("/leaderboard")
        assert shown.status_code == 503 and "database" in shown.text
