"""The App Home: a person's own votes, consent and documents; settings for administrators."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bots.channel_settings import ChannelSettings, WorkspaceSettings, load, load_workspace
from bots.home import Home
from bots.slack_bot.home import home_view
from feedback import Leaderboard, Ranked
from storage import audit
from storage.pool import Pool
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import Stage, listening
from tests.fakes.slack_blocks import check_view, texts_of
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Person


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve_models() as engine, listening(slack, pool, engine, tmp_path) as stage:
        yield stage


async def open_home(stage: Stage, person: Person) -> dict[str, Any]:
    stage.slack.open_home(person)
    return await published(stage, person, "My consent")


async def published(stage: Stage, person: Person, part: str) -> dict[str, Any]:
    def check() -> dict[str, Any] | None:
        view = stage.slack.world.homes.get(person.id)
        return view if view is not None and part in seen(view) else None

    view = await stage.slack.until(check, f"a home with {part!r}", within_s=10)
    assert view is not None
    return view


def seen(view: dict[str, Any]) -> str:
    return "\n".join(text for _, text in texts_of(view["blocks"]))


async def test_the_home_shows_the_persons_own_and_nothing_of_others(stage: Stage) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    message, _ = await stage.answered(ana, team, "How *many* <!channel> days?")
    await slack.click(ana, message, "parley_feedback", side="positive").acknowledged()
    documents = stage.context.workplace.documents
    for person, name in ((ana, "ana.txt"), (ben, "ben.txt")):
        own = await stage.audience(person, slack.direct(person))
        await documents.add(name, b"text", audience=own, owner="member")
    channel = await stage.audience(ana, team)
    await documents.add("channel.txt", b"text", audience=channel)
    await documents.add("handbook.txt", b"text", audience=channel, owner="workspace")
    view = await open_home(stage, ana)
    text = seen(view)
    assert "How *many* &lt;!channel&gt; days?" in text
    assert "ana.txt" in text and "handbook.txt" in text
    assert "ben.txt" not in text and "channel.txt" not in text
    assert "parley_home_settings" not in str(view)
    assert "days?" not in seen(await open_home(stage, ben))


async def test_consent_is_off_and_can_be_given_and_withdrawn(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    member = (await stage.audience(ana, slack.direct(ana))).member_id
    assert member is not None
    view = await open_home(stage, ana)
    assert "do not train" in seen(view) and "does not reach earlier ratings" in seen(view)
    for _ in range(2):  # a double click is one change
        await slack.click_in_view(ana, view, "parley_home_consent").acknowledged()
    view = await published(stage, ana, "have agreed")
    assert await stage.context.workplace.members.consent(member)
    await slack.click_in_view(ana, view, "parley_home_consent").acknowledged()
    await published(stage, ana, "do not train")
    assert not await stage.context.workplace.members.consent(member)


async def test_an_administrator_opens_a_channels_settings_from_the_home(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    view = await open_home(stage, ana)
    await slack.click_in_view(ana, view, "parley_home_settings", chosen=team.id).acknowledged()
    modal = await slack.modal(ana, "parley_settings")
    await slack.submit(ana, modal, {"answer_when": "always"}).acknowledged()
    await stage.told(ana, team, "are saved")
    audience = await stage.audience(ana, team)
    wanted = ChannelSettings(answer_when="always")
    assert await load(stage.context.workplace.places, audience.channel_id) == wanted


async def test_the_homes_settings_are_refused_to_who_is_no_administrator_any_more(
    stage: Stage,
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    view = await open_home(stage, ana)
    ana.is_admin = False
    await slack.click_in_view(ana, view, "parley_home_settings", chosen=team.id).acknowledged()
    notice = await slack.modal(ana, "")
    assert "Only administrators" in seen(notice)


async def test_forget_me_in_the_home_asks_first_and_empties_it(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team, "How many days?")
    await slack.click(ana, message, "parley_feedback", side="positive").acknowledged()
    view = await open_home(stage, ana)
    assert "How many days?" in seen(view)
    assert "confirm" in view["blocks"][-1]["elements"][0]
    await slack.click_in_view(ana, view, "parley_home_forget").acknowledged()
    await published(stage, ana, "You have not voted yet")
    notice = await slack.modal(ana, "")
    assert "Deleted: 1 votes" in seen(notice)


async def test_administrators_give_and_withdraw_the_workspaces_consent(stage: Stage) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana", admin=True), slack.add_person("Eve")
    button = "parley_home_workspace_consent"
    assert button not in str(await open_home(stage, eve))
    view = await open_home(stage, ana)
    await slack.click_in_view(ana, view, button).acknowledged()
    view = await published(stage, ana, "may train models: in every channel")
    workspace = (await stage.audience(ana, slack.direct(ana))).workspace_id
    places = stage.context.workplace.places
    assert (await load_workspace(places, workspace)).consent_to_train
    ana.is_admin = False
    await slack.click_in_view(ana, view, button).acknowledged()
    notice = await slack.modal(ana, "")
    assert "Only administrators" in seen(notice)
    assert (await load_workspace(places, workspace)).consent_to_train
    entries = await audit.entries(stage.context.workplace.pool, workspace_id=workspace, limit=9)
    assert [entry.action for entry in entries] == ["settings_changed", "settings_read"]


def test_the_longest_home_is_within_slacks_limits() -> None:
    row = Ranked(model="&" * 500, rank=None, strength=None, win_rate=None, wins=1, losses=2, ties=3)
    board = Leaderboard(models=(row,) * 500, position=None, length=None, votes=6, excluded={})
    home = Home(
        consents=True, votes=[], documents=[], leaderboard=board, settings=WorkspaceSettings()
    )
    check_view(home_view(home, administers=True))
