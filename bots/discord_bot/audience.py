"""Where something happens at Discord and who may read there, by Discord's own permissions.

A channel's documents belong to those who can see the channel: role and member overwrites decide, as
discord.py computes them from what the gateway keeps current. A public thread is its channel; a
private thread is a place of its own, whose people can see its channel too.

https://docs.discord.com/developers/topics/permissions#permission-overwrites
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import discord

from bots.discord_bot.context import DIRECT, SURFACE
from bots.errors import BotsError
from bots.workplace import Workplace
from storage.identity import Audience


class NotReadable(BotsError):
    """Somebody acts in a channel that they cannot read (any more)."""

    def __init__(self) -> None:
        super().__init__("You may not read this channel, so I cannot do that for you here.")


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where something happens, by Discord's ids.

    Attributes:
        workspace: the server; `DIRECT` outside of servers that have the app.
        channel: whose documents may be read: the channel, or the private thread; "" in `DIRECT`.
        also: the channel of a private thread, else "".
        open: whether everybody in the server may read there.
        foreign: the app is there only for the person who uses it: a server without it, or a group.
    """

    workspace: str
    channel: str = ""
    also: str = ""
    open: bool = False
    foreign: bool = False

    @property
    def direct(self) -> bool:
        """Whether only the person's own documents may be read."""
        return self.workspace == DIRECT

    async def audience(self, workplace: Workplace, member: str | None) -> Audience:
        """The audience of a person here; without one, the channel's.

        Raises:
            StorageUnavailable: safe to retry.
        """
        return await workplace.identities.resolve(
            platform=SURFACE,
            workspace=self.workspace,
            channel=self.channel or None,
            channel_open=self.open,
            member=member,
            also=self.also.split(),
        )


DIRECTLY = Spot(workspace=DIRECT)
FOREIGN = Spot(workspace=DIRECT, foreign=True)


def spot_of(channel: Any) -> Spot:
    """The spot of a channel, thread or conversation that the gateway told of."""
    guild = getattr(channel, "guild", None)
    if guild is None:
        return DIRECTLY
    if not isinstance(channel, discord.Thread):
        return Spot(workspace=str(guild.id), channel=str(channel.id), open=_open(channel))
    if channel.is_private():
        return Spot(workspace=str(guild.id), channel=str(channel.id), also=str(channel.parent_id))
    parent = guild.get_channel(channel.parent_id)
    return Spot(workspace=str(guild.id), channel=str(channel.parent_id), open=_open(parent))


def _open(channel: Any) -> bool:
    """Whether @everyone sees a channel; what is not known is closed."""
    everyone = channel.guild.get_role(channel.guild.id) if channel is not None else None
    return everyone is not None and channel.permissions_for(everyone).view_channel


def spot_of_interaction(interaction: discord.Interaction) -> Spot:
    """The spot of a command, click or modal.

    Only where the server itself installed the app are its documents in play; whoever brings the app
    along is answered alone.
    https://docs.discord.com/developers/interactions/receiving-and-responding#interaction-object-authorizing-integration-owners-object
    """
    if interaction.guild_id is None:
        private = isinstance(interaction.channel, discord.GroupChannel)
        return FOREIGN if private or interaction.context.private_channel else DIRECTLY
    # Who installed it is known of every real interaction; a clicker need not be the installer.
    if interaction._integration_owners and not interaction.is_guild_integration():
        return FOREIGN
    known = interaction.client.get_guild(interaction.guild_id) is not None
    return spot_of(interaction.channel) if known and interaction.channel is not None else FOREIGN


def reads(channel: Any, member: discord.Member) -> bool | None:
    """Whether a member can see a channel or thread; None where its overwrites are not known.

    A private thread's members are not known here: who speaks or clicks in one is in it.
    """
    guild = member.guild
    id_ = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
    parent = guild.get_channel(id_) if id_ is not None else None
    if parent is None or guild.get_role(guild.id) is None:
        return None
    return parent.permissions_for(member).view_channel


def member_of(
    client: discord.Client, guild: discord.Guild, user_id: str, roles: Sequence[str]
) -> discord.Member:
    """A member as far as permissions are concerned."""
    data: Any = {
        "user": {"id": user_id, "username": "", "discriminator": "0", "avatar": None},
        "roles": list(roles),
        "joined_at": None,
        "flags": 0,
    }
    return discord.Member(data=data, guild=guild, state=client._connection)
