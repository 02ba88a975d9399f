"""Who is answered: settings of the channel against what is known of the person.

Bots, guests and people of other companies are answered only where a channel's settings say so, and
never in direct messages, which have no settings.
"""

import logging
from dataclasses import dataclass

from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.channel_settings import ChannelSettings
from bots.slack_bot.people import People, Person
from bots.slack_bot.web_api import SlackRefused
from storage.jobs import RetryLater

logger = logging.getLogger(__name__)

OFF = "I am switched off in this channel; an administrator can change that with `/parley settings`."
OUTSIDERS = (
    "Here I answer only members of this workspace. An administrator can let guests and people of"
    " other companies ask in a channel with `/parley settings`."
)
UNKNOWN = "I cannot see who you are, so I may not answer. Please tell an administrator of Parley."


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks, as far as the event itself tells.

    Attributes:
        outside: the event says that the person belongs to another workspace.
        direct: asked in direct messages.
    """

    user: str
    team: str
    bot: bool
    outside: bool
    direct: bool


@dataclass(frozen=True)
class Refusal:
    """Why somebody is not answered; `text` is for them, empty for bots, who would answer it."""

    text: str


def judged(asker: Asker, settings: ChannelSettings, person: Person | None) -> Refusal | None:
    """The refusal that is certain by now; None as long as nothing speaks against an answer."""
    if not settings.enabled:
        return Refusal(OFF)
    if asker.bot or (person is not None and person.bot):
        return None if settings.answer_bots and not asker.direct else Refusal("")
    if settings.who == "everyone" and not asker.direct:
        return None
    if asker.outside:
        return Refusal(OUTSIDERS)
    if person is not None and (person.guest or person.stranger_to(asker.team)):
        return Refusal(OUTSIDERS)
    return None


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
