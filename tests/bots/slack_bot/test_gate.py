"""Who is answered."""

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bots.channel_settings import ChannelSettings
from bots.gate import Refusal
from bots.slack_bot.gate import OFF, OUTSIDERS, UNKNOWN, Asker, admitted
from bots.slack_bot.people import People
from bots.slack_bot.web_api import SlackCalls
from storage.jobs import RetryLater
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Person

EVERYONE = ChannelSettings(who="everyone")
BOTS = ChannelSettings(answer_bots=True)


@pytest.fixture
def client(slack: SlackServer) -> AsyncWebClient:
    return AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])


@pytest.fixture
def people(client: AsyncWebClient) -> People:
    calls = SlackCalls(client)
    return People(admins=frozenset({"UCONFIGURED"}), calls=lambda _: calls)


def asker(person: Person, slack: SlackServer, *, bot: bool = False, direct: bool = False) -> Asker:
    return Asker(user=person.id, team=slack.home.id, bot=bot, outside=False, direct=direct)


async def test_members_are_answered_and_asked_about_once(
    slack: SlackServer, people: People, client: AsyncWebClient
) -> None:
    ana = asker(slack.add_person("Ana"), slack)
    for _ in range(3):
        assert await admitted(ana, ChannelSettings(), people=people, client=client) is None
    assert len(slack.calls_of("users.info")) == 1


@pytest.mark.parametrize("how", [{"guest": True}, {"team_id": "T0OTHER"}])
async def test_outsiders_are_answered_only_in_channels_for_everyone(
    slack: SlackServer, people: People, client: AsyncWebClient, how: dict[str, str]
) -> None:
    person = slack.add_person("Outsider", **how)  # type: ignore[arg-type]
    here, direct = asker(person, slack), asker(person, slack, direct=True)
    refusal = Refusal(OUTSIDERS)
    assert await admitted(here, ChannelSettings(), people=people, client=client) == refusal
    assert await admitted(here, EVERYONE, people=people, client=client) is None
    assert await admitted(direct, EVERYONE, people=people, client=client) == refusal


async def test_bots_are_refused_without_a_word_that_they_could_answer(
    slack: SlackServer, people: People, client: AsyncWebClient
) -> None:
    robot = slack.add_person("Robot", bot=True)
    for known_as_bot in (True, False):
        it = asker(robot, slack, bot=known_as_bot)
        assert await admitted(it, ChannelSettings(), people=people, client=client) == Refusal("")
        assert await admitted(it, BOTS, people=people, client=client) is None


async def test_a_channel_that_is_switched_off_answers_nobody(
    slack: SlackServer, people: People, client: AsyncWebClient
) -> None:
    ana = asker(slack.add_person("Ana"), slack)
    off = ChannelSettings(enabled=False)
    assert await admitted(ana, off, people=people, client=client) == Refusal(OFF)
    assert slack.calls_of("users.info") == []


async def test_somebody_whom_slack_does_not_show_is_refused_with_a_reason(
    slack: SlackServer, people: People, client: AsyncWebClient
) -> None:
    ghost = Asker(user="UGHOST", team=slack.home.id, bot=False, outside=False, direct=False)
    refusal = await admitted(ghost, ChannelSettings(), people=people, client=client)
    assert refusal == Refusal(UNKNOWN)


async def test_an_unknown_asker_waits_while_slack_is_away(
    slack: SlackServer, people: People, client: AsyncWebClient
) -> None:
    ana = asker(slack.add_person("Ana"), slack)
    slack.fail("users.info", status=503, times=None)
    with pytest.raises(RetryLater):
        await admitted(ana, ChannelSettings(), people=people, client=client)


async def test_rights_of_administrators_are_asked_anew_every_time(
    slack: SlackServer, people: People, client: AsyncWebClient
) -> None:
    boss = slack.add_person("Boss", admin=True)
    assert await people.is_admin(client, boss.id)
    boss.is_admin = False
    assert not await people.is_admin(client, boss.id)
    assert await people.is_admin(client, "UCONFIGURED")
