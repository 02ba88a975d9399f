"""What every Slack listener works with, opened once by `bots.slack_bot.process`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from slack_sdk.web.async_client import AsyncWebClient

from bots.settings import SlackSettings
from bots.slack_bot.people import People
from bots.slack_bot.web_api import SlackCalls
from bots.turns import Turns
from bots.workplace import Workplace

SURFACE = "slack"
"""Name of the platform in `Identities.resolve`, and of the queue of turns."""


@dataclass(frozen=True, kw_only=True)
class SlackContext:
    """Everything below the listeners.

    Attributes:
        calls: wraps a workspace's client with deadlines, patience and priorities; one object per
            token however often it is asked.
        client_for: the client of the workspace that Slack calls `team`, with its token (rotated
            where that is due); raises `NotInstalled` where there is none.
        drawing: held while a picture is drawn, which takes a process of its own.
    """

    settings: SlackSettings
    workplace: Workplace
    turns: Turns
    people: People
    calls: Callable[[AsyncWebClient], SlackCalls]
    client_for: Callable[[str], Awaitable[AsyncWebClient]]
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)
