"""Who is answered: settings of the channel against what is known of the person.

Bots, guests and people from outside are answered only where a channel's settings say so, and never
in direct messages, which have no settings.
"""

from collections.abc import Collection
from dataclasses import dataclass

from bots.channel_settings import ChannelSettings
from bots.dialect import Dialect


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks, as far as the event itself tells.

    Attributes:
        outside: the event says that the person belongs elsewhere.
        direct: asked in direct messages.
        roles: the platform's ids of the person's roles here; None where it has no roles.
    """

    bot: bool
    outside: bool
    direct: bool
    roles: Collection[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the platform says of a person.

    Attributes:
        outsider: a guest, or of another company.
    """

    bot: bool
    outsider: bool


@dataclass(frozen=True)
class Refusal:
    """Why somebody is not answered; `text` is for them, empty for bots, who would answer it."""

    text: str


def judged(
    asker: Asker, settings: ChannelSettings, standing: Standing | None, dialect: Dialect
) -> Refusal | None:
    """The refusal that is certain by now; None as long as nothing speaks against an answer.

    Args:
        standing: None as long as it is not known.
    """
    if not settings.enabled:
        return Refusal(off(dialect))
    if asker.bot or (standing is not None and standing.bot):
        return None if settings.answer_bots and not asker.direct else Refusal("")
    if _lacks_role(asker, settings):
        return Refusal(roles_only(dialect))
    if settings.who == "everyone" and not asker.direct:
        return None
    if asker.outside or (standing is not None and standing.outsider):
        return Refusal(outsiders(dialect))
    return None


def off(dialect: Dialect) -> str:
    """What is said where nothing is answered."""
    return (
        "I am switched off in this channel; an administrator can change that with "
        f"{dialect.command('settings')}."
    )


def outsiders(dialect: Dialect) -> str:
    """What is said to people who do not belong here."""
    return (
        "Here I answer only members of this workspace. An administrator can let guests and people "
        f"of other companies ask in a channel with {dialect.command('settings')}."
    )


def roles_only(dialect: Dialect) -> str:
    """What is said to people without the roles that may ask."""
    return (
        "In this channel I answer only people with certain roles; an administrator can change that "
        f"with {dialect.command('settings')}."
    )


def _lacks_role(asker: Asker, settings: ChannelSettings) -> bool:
    if not settings.roles or asker.roles is None or asker.direct:
        return False
    return not set(settings.roles) & set(asker.roles)
