"""What a message says and to whom, whatever way it came: by the gateway or read later."""

from dataclasses import dataclass
from typing import Any

import discord

from bots.discord_bot.audience import Spot, spot_of
from bots.discord_bot.interactions import roles_of
from bots.discord_bot.said import plain_text

_SAID = (discord.MessageType.default, discord.MessageType.reply)
"""Everything else is Discord's own: joins, pins, threads that begin."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Something that was said where the app can hear it.

    Attributes:
        channel: a channel, thread or conversation as discord.py knows it.
        roles: ids of the author's roles; None where the message does not tell.
        text: plain, without the app's mention.
        mentioned: whether the app was called by name.
        for_others: whether somebody else was.
        replies_to: id of the app's own message that it replies to, or "".
        files: whether attachments came with it.
    """

    message: discord.Message
    channel: Any
    spot: Spot
    user: str
    roles: list[str] | None
    bot: bool
    text: str
    mentioned: bool
    for_others: bool
    replies_to: str
    files: bool

    @property
    def calling(self) -> bool:
        """Whether it calls us: by name, by a reply, or where nobody else is."""
        return self.mentioned or bool(self.replies_to) or self.spot.direct

    @property
    def threaded(self) -> bool:
        """Whether it stands in a thread."""
        return isinstance(self.channel, discord.Thread)

    @property
    def id(self) -> str:
        """Of the message."""
        return str(self.message.id)


def heard_in(message: discord.Message, channel: Any, client: discord.Client) -> Heard | None:
    """What a message says; None for the app's own words and Discord's."""
    own = client.user
    if own is None or message.author.id == own.id or message.type not in _SAID:
        return None
    guild = message.guild
    role = guild.self_role if guild is not None else None
    ours = [own.id, *([role.id] if role is not None else [])]
    called = {*message.raw_mentions, *message.raw_role_mentions}
    called.update(person.id for person in message.mentions)
    answered = message.reference.resolved if message.reference is not None else None
    author = answered.author.id if isinstance(answered, discord.Message) else message.author.id
    return Heard(
        message=message,
        channel=channel,
        spot=spot_of(channel),
        user=str(message.author.id),
        roles=roles_of(message.author) if isinstance(message.author, discord.Member) else None,
        bot=message.author.bot,
        text=plain_text(message, without=ours),
        mentioned=not called.isdisjoint(ours),
        for_others=bool(called.difference(ours)) or author not in (own.id, message.author.id),
        replies_to=str(answered.id) if answered is not None and author == own.id else "",
        files=bool(message.attachments),
    )
