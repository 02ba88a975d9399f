"""From Slack's ids to ours: who speaks where, for every kind of payload."""

from collections.abc import Mapping
from typing import Any

from slack_bolt.request.internals import extract_channel_id, extract_team_id, extract_user_id

from bots.slack_bot.context import SURFACE, SlackContext
from storage.identity import Audience


def is_direct(channel: str) -> bool:
    """Whether a conversation is between one person and the app; Slack's ids of those begin so."""
    return channel.startswith("D")


async def audience_for(
    context: SlackContext,
    *,
    team: str,
    channel: str | None,
    user: str | None,
    channel_open: bool | None = None,
) -> Audience:
    """The audience of a person in a channel; without one, or in direct messages, of the person.

    Without a `user` it is the channel's: whoever only speaks where we listen is not stored.

    Args:
        channel_open: whether everybody in the workspace may read the channel, where that is known.

    Raises:
        StorageUnavailable: safe to retry.
    """
    return await context.workplace.identities.resolve(
        platform=SURFACE,
        workspace=team,
        channel=channel if channel and not is_direct(channel) else None,
        channel_open=channel_open,
        member=user,
    )


async def audience_of(body: Mapping[str, Any], context: SlackContext) -> Audience:
    """The audience of whoever caused an event, a click, a command or a view.

    Raises:
        ValueError: the payload names no workspace or no person.
        StorageUnavailable: safe to retry.
    """
    payload = dict(body)
    team, user = extract_team_id(payload), extract_user_id(payload)
    if team is None or user is None:
        raise ValueError("a payload names no workspace or no person")
    channel = extract_channel_id(payload) or (body.get("container") or {}).get("channel_id")
    return await audience_for(context, team=team, channel=channel, user=user)
