"""What Slack is told of runs."""

import logging

from bots.notices import worded
from bots.slack_bot.context import SlackContext
from bots.slack_bot.mrkdwn import MRKDWN
from bots.slack_bot.web_api import SlackCalls, SlackRefused
from storage.notices import Notice

logger = logging.getLogger(__name__)

PICTURE_NAME = "parley.png"


async def post(context: SlackContext, notice: Notice) -> None:
    """Post a notice into its thread, or its channel: one message, with its picture.

    Raises:
        SlackClientError: it could not be posted.
        NotInstalled: the app is not in that workspace any more.
    """
    place, text = notice.place, worded(notice, MRKDWN)
    channel, thread = place["channel"], place.get("thread")
    calls = context.calls(await context.client_for(place["workspace"]))
    if notice.picture is None:
        await calls.post_message(channel=channel, thread_ts=thread, text=text)
        return
    await post_picture(calls, channel=channel, thread_ts=thread, text=text, picture=notice.picture)


async def post_picture(
    calls: SlackCalls, *, channel: str, thread_ts: str | None, text: str, picture: bytes
) -> None:
    """Post a message with its picture, or without it where Slack refuses the picture.

    Raises:
        SlackClientError: it could not be posted.
    """
    try:
        await calls.post_picture(
            channel=channel, thread_ts=thread_ts, text=text, picture=picture, name=PICTURE_NAME
        )
    except SlackRefused as error:  # such as an app that was installed without files:write
        logger.info("no picture: %s", error, extra={"action": "picture_refused"})
        await calls.post_message(channel=channel, thread_ts=thread_ts, text=text)
