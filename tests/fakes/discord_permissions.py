"""Permissions as Discord computes them.

https://discord.com/developers/docs/topics/permissions#permission-overwrites
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

from tests.fakes.wire import Json

if TYPE_CHECKING:
    from tests.fakes.discord_world import Channel, Guild, Member


class Permission(IntFlag):
    """Discord's bits."""

    NONE = 0
    KICK_MEMBERS = 1 << 1
    ADMINISTRATOR = 1 << 3
    MANAGE_CHANNELS = 1 << 4
    MANAGE_GUILD = 1 << 5
    ADD_REACTIONS = 1 << 6
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    MENTION_EVERYONE = 1 << 17
    MANAGE_ROLES = 1 << 28
    USE_APPLICATION_COMMANDS = 1 << 31
    MANAGE_THREADS = 1 << 34
    CREATE_PUBLIC_THREADS = 1 << 35
    CREATE_PRIVATE_THREADS = 1 << 36
    SEND_MESSAGES_IN_THREADS = 1 << 38
    MODERATE_MEMBERS = 1 << 40


P = Permission
ALL = Permission(~0 & (1 << 53) - 1)
EVERYONE_BY_DEFAULT = (
    P.ADD_REACTIONS
    | P.VIEW_CHANNEL
    | P.SEND_MESSAGES
    | P.EMBED_LINKS
    | P.ATTACH_FILES
    | P.READ_MESSAGE_HISTORY
    | P.USE_APPLICATION_COMMANDS
    | P.CREATE_PUBLIC_THREADS
    | P.CREATE_PRIVATE_THREADS
    | P.SEND_MESSAGES_IN_THREADS
)
DIRECT = EVERYONE_BY_DEFAULT | P.MENTION_EVERYONE


@dataclass(kw_only=True)
class Overwrite:
    """What a channel allows or denies a role or a member."""

    id: str
    for_role: bool
    allow: Permission = P.NONE
    deny: Permission = P.NONE

    def wire(self) -> Json:
        """An overwrite object."""
        return {
            "id": self.id,
            "type": 0 if self.for_role else 1,
            "allow": str(int(self.allow)),
            "deny": str(int(self.deny)),
        }

    def over(self, permissions: Permission) -> Permission:
        """Permissions with it applied."""
        return permissions & ~self.deny | self.allow


def in_guild(guild: "Guild", member: "Member") -> Permission:
    """A member's permissions where no channel says otherwise."""
    if guild.owner_id == member.person.id:
        return ALL
    found = guild.everyone.permissions
    for role_id in member.roles:
        found |= guild.roles[role_id].permissions
    return ALL if found & P.ADMINISTRATOR else found


def in_channel(channel: "Channel", person_id: str) -> Permission:
    """What a person may do in a channel or thread; nothing where they are not in the guild."""
    guild = channel.guild
    if guild is None:
        return DIRECT
    member = guild.members.get(person_id)
    if member is None:
        return P.NONE
    base = in_guild(guild, member)
    if base & P.ADMINISTRATOR:
        return ALL
    found = _overwritten(channel.parent if channel.is_thread else channel, member, base)
    if not found & P.VIEW_CHANNEL or not _is_let_into(channel, person_id, found):
        return P.NONE
    if member.silenced:
        return found & (P.VIEW_CHANNEL | P.READ_MESSAGE_HISTORY)
    speaks = P.SEND_MESSAGES_IN_THREADS if channel.is_thread else P.SEND_MESSAGES
    if not found & speaks:
        found &= ~(P.MENTION_EVERYONE | P.EMBED_LINKS | P.ATTACH_FILES)
    return found


def _overwritten(
    channel: "Channel | None", member: "Member", permissions: Permission
) -> Permission:
    """Permissions with the channel's overwrites: everyone's, the roles' together, the member's."""
    assert channel is not None
    assert channel.guild is not None
    everyone = channel.overwrites.get(channel.guild.id)
    if everyone is not None:
        permissions = everyone.over(permissions)
    roles = [channel.overwrites[role] for role in member.roles if role in channel.overwrites]
    together = Overwrite(id="", for_role=True)
    for role in roles:
        together.allow |= role.allow
        together.deny |= role.deny
    permissions = together.over(permissions)
    own = channel.overwrites.get(member.person.id)
    return own.over(permissions) if own is not None else permissions


def _is_let_into(channel: "Channel", person_id: str, permissions: Permission) -> bool:
    """Whether a private thread shows itself to a person."""
    return (
        channel.type != 12 or person_id in channel.members or bool(permissions & P.MANAGE_THREADS)
    )
