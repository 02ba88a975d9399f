"""Who is answered in Slack, which is asked who somebody is where that matters."""

import logging
from dataclasses import dataclass

from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots import gate
from bots.channel_settings import ChannelSettings
from bots.gate import Refusal, Standing, off, outsiders
from bots.slack_bot.mrkdwn import MRKDWN
from bots.slack_bot.people import People, Person
from bots.slack_bot.web_api import SlackRefused
from storage.jobs import RetryLater

logger = logging.getLogger(__name__)

OFF = off(MRKDWN)
OUTSIDERS = outsiders(MRKDWN)
UNKNOWN = "I cannot see who you are, so I may not answer. Please tell an administrator of Parley."


@dataclass(frozen=True, kw_only=True)
class Asker(gate.Asker):
    """Who asks, by Slack's ids."""

    user: str
    team: str


def judged(asker: Asker, settings: ChannelSettings, person: Person | None) -> Refusal | None:
    """The refusal that is certain by now; None as long as nothing speaks against an answer."""
    standing = None
    if person is not None:
        outsider = person.guest or person.stranger_to(asker.team)
        standing = Standing(bot=person.bot, outsider=outsider)
    return gate.judged(asker, settings, standing, MRKDWN)


async def admitted(
    asker: Asker, settings: ChannelSettings, *, people: People, client: AsyncWebClient
) -> Refusal | None:
    """The same with certainty: Slack is asked who the person is, where that matters.

    Raises:
        RetryLater: Slack does not say now.
    """
    refusal = judged(asker, settings, None)
    if refusal is not None or asker.bot or (settings.who == "everyone" and not asker.direct):
        return refusal
    try:
        person = await people.info(client, asker.user)
    except SlackRefused as error:
        logger.warning("an asker is unknown: %s", error, extra={"action": "asker_unknown"})
        return Refusal(UNKNOWN)
    except SlackClientError as error:
        raise RetryLater from error
    return judged(asker, settings, person)
