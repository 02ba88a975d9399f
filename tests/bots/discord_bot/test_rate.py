"""Votes in Discord: one a person, changeable, confirmed to them alone, explained in a modal."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from bots.comparisons import open_shown, order_of
from bots.discord_bot import custom_ids, rate
from bots.discord_bot.messages import vote_post
from storage.identity import AnswerId
from storage.pool import Pool
from tests.bots.discord_bot.stage import Stage, logged_in
from tests.bots.model_list import serve_models
from tests.fakes.discord_server import DiscordServer
from tests.feedback.conftest import rows

VOTES = "SELECT value, reasons, comment FROM votes ORDER BY value"


@pytest.fixture
async def stage(
    discord_server: DiscordServer, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    async with (
        serve_models() as engine,
        logged_in(discord_server, pool, engine, tmp_path, monkeypatch) as stage,
        stage.listening(rate),
    ):
        yield stage


async def test_a_vote_is_confirmed_to_its_voter_and_can_be_changed_and_withdrawn(
    stage: Stage, pool: Pool
) -> None:
    discord = stage.discord
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    answer, _ = await stage.answered(ana, discord.add_channel("team"))
    up = discord.click(ben, answer, "Good answer")
    assert "👍 is recorded" in await discord.told(up)
    assert up.ephemeral
    again = discord.click(ben, answer, "Good answer")
    assert "was and stays" in await discord.told(again)
    down = discord.click(ben, answer, "Bad answer")
    assert "changed to 👎" in await discord.told(down)
    assert [value for value, *_ in await rows(pool, VOTES)] == [-1]
    assert discord.ephemerals(ana) == []
    taken = discord.click(ben, down.messages[0], "Withdraw")
    assert "withdrawn" in await discord.told(taken)
    assert await rows(pool, VOTES) == []


async def test_a_bad_answer_is_explained_and_a_better_one_written_in_a_modal(
    stage: Stage, pool: Pool
) -> None:
    discord = stage.discord
    ana = discord.add_person("Ana")
    answer, _ = await stage.answered(ana, discord.add_channel("team"))
    down = discord.click(ana, answer, "Bad answer")
    await discord.opened(down)
    assert await rows(pool, VOTES) == [(-1, [], None)]  # stored whatever becomes of the modal
    confirmed = await discord.until(lambda: discord.ephemerals(ana), "a confirmation")
    explain = discord.click(ana, confirmed[0], "Say why or write the better answer")
    await discord.opened(explain)
    for modal in (down, explain):
        sent = discord.submit(
            modal,
            {
                "Reasons": ["wrong", "outdated"],
                "In your words": " It is 26. ",
                "Write the better answer": "Twenty-six days.",
            },
        )
        assert "is kept with the answer" in await discord.told(sent)
    assert await rows(pool, VOTES) == [(-1, ["wrong", "outdated"], "It is 26.")]
    assert await rows(pool, "SELECT text FROM corrections") == [("Twenty-six days.",)]
    skipped = discord.submit(down)
    assert "Nothing was added" in await discord.told(skipped)


async def test_an_answer_of_another_channel_takes_no_vote(stage: Stage, pool: Pool) -> None:
    discord = stage.discord
    ana, eve = discord.add_person("Ana"), discord.add_person("Eve")
    secret = discord.add_channel("secret", only=[ana])
    _, hidden = await stage.answered(ana, secret)
    mine, _ = await stage.answered(eve, discord.add_channel("open"))
    forged = await stage.stored.again(hidden.message_id, await stage.audience(ana, secret))
    mine.body["components"][0]["components"][0]["custom_id"] = custom_ids.up(forged.id)
    click = discord.click(eve, mine, "Good answer")
    assert "another conversation" in await discord.told(click)
    mine.body["components"][0]["components"][0]["custom_id"] = custom_ids.up(AnswerId(uuid4()))
    gone = discord.click(eve, mine, "Good answer")
    assert "another conversation" in await discord.told(gone)
    assert await rows(pool, VOTES) == []


async def test_who_chooses_learns_the_models_alone(stage: Stage, pool: Pool) -> None:
    discord = stage.discord
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    team = discord.add_channel("team")
    _, message_id = await stage.ask(ana, team, "How many?")
    audience = await stage.audience(ana, team)
    one, two = await stage.stored.two(message_id, audience)
    comparison_id = await open_shown(
        stage.context.workplace.feedback,
        message_id=message_id,
        audience=audience,
        answers=(one.id, two.id),
    )
    vote = await stage.post(team, vote_post(comparison_id))
    left, right = ((one, two)[which].model for which in order_of(message_id))
    told = await discord.told(discord.click(ben, vote, "A is better"))
    assert told == f"You chose **A**. A was `{left}`, B was `{right}`."
    changed = await discord.told(discord.click(ben, vote, "Tie"))
    assert changed.startswith("You called it a **tie** (changed).")
    assert await rows(pool, "SELECT winner FROM comparison_votes") == [("tie",)]
    assert discord.ephemerals(ana) == []
