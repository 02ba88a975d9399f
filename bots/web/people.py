"""Who is who on the page: a name is who one is, in every browser that types it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from storage.identity import Audience, Identities

MAX_NAME_CHARS = 40
GUEST: Final = "Guest"
"""Who types no name; the page puts a number behind it, so that guests can be told apart."""

_UNTYPED: Final = re.compile(rf"{GUEST}( \d+)?", re.IGNORECASE)


def person_name(name: str) -> str:
    """A name as the page shows it."""
    return " ".join(name.split())[:MAX_NAME_CHARS] or GUEST


def is_typed(name: str) -> bool:
    """Whether somebody typed the name; one that the page made up may be another guest's as well."""
    return _UNTYPED.fullmatch(person_name(name)) is None


@dataclass(frozen=True, kw_only=True)
class People:
    """The people of the page's channel.

    Attributes:
        identities: turns a name into a member.
        place: names the channel, as `Identities.resolve` takes it.
        audience: the channel without any person.
    """

    identities: Identities
    place: Mapping[str, str]
    audience: Audience

    async def acting(self, name: str) -> Audience:
        """The channel with the person of this name, who becomes a member by acting.

        Raises:
            StorageUnavailable: safe to retry.
        """
        shown = person_name(name)
        return await self.identities.resolve(
            **self.place, channel_open=True, member=shown.casefold(), display_name=shown
        )

    async def known(self, name: str) -> Audience | None:
        """The same for who has acted before; None for anybody else, and nothing is stored.

        Raises:
            StorageUnavailable: safe to retry.
        """
        # The page's platform has this one workspace.
        found = await self.identities.everywhere(
            self.place["platform"], person_name(name).casefold()
        )
        return replace(self.audience, member_id=found[0]) if found else None
