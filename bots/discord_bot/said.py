"""Text that somebody wrote at Discord, as plain text."""

import re
from collections.abc import Sequence

import discord

_CALL = re.compile(r"<(@[!&]?|#)(\d+)>")
_EMOJI = re.compile(r"<a?(:\w+:)\d+>")
_TIME = re.compile(r"<t:(\d+)(?::\w)?>")


def plain_text(message: discord.Message, *, without: Sequence[int]) -> str:
    """What a message says, people and channels by name.

    Args:
        without: ids of people and roles whose mentions are left out.
    """
    people = {person.id: f"@{person.display_name}" for person in message.mentions}
    guild = message.guild

    def named(found: re.Match[str]) -> str:
        kind, id_ = found[1], int(found[2])
        if id_ in without:
            return " "
        if kind == "#":
            channel = guild.get_channel_or_thread(id_) if guild is not None else None
            return f"#{channel.name}" if channel is not None else "#a-channel"
        if kind == "@&":
            role = guild.get_role(id_) if guild is not None else None
            return f"@{role.name}" if role is not None else "@a-role"
        return people.get(id_, "@somebody")

    text = _EMOJI.sub(r"\1", _CALL.sub(named, message.content))
    return re.sub(r"[ \t]{2,}", " ", _TIME.sub(r"\1", text)).strip()
