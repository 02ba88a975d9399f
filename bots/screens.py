"""Where turns are shown: what every chat surface offers to `bots.delivery`."""

import enum
from collections.abc import Mapping
from typing import Protocol, Self

from bots.messages import Answer
from feedback import ComparisonId
from storage.identity import DocumentId

Links = Mapping[DocumentId, str]
"""Where cited documents can be opened, as far as that is known."""
BESIDE = 1_000
"""From this part on a question's messages are not its answer, but what was posted about it."""


class Reach(enum.Enum):
    """Who sees an answer, which decides what can be done with it."""

    ALONE = enum.auto()
    """A conversation of one person with the assistant: rate it, ask again."""
    CHANNEL = enum.auto()
    """Everybody in a channel: they may call people, too."""
    PRIVATE = enum.auto()
    """The asker, though others are there: may share it, too."""
    SHARED = enum.auto()
    """Everybody, by the asker's wish: rate it."""

    @classmethod
    def of(cls, *, one_reader: bool, private: bool) -> Self:
        """That of a place.

        Args:
            one_reader: whether nobody but the asker reads there.
            private: whether only the asker may see the answer though others are there.
        """
        if one_reader:
            return cls.ALONE
        return cls.PRIVATE if private else cls.CHANNEL

    @property
    def asks_again(self) -> bool:
        """Whether another answer can be asked for."""
        return self is not Reach.SHARED

    @property
    def calls_people(self) -> bool:
        """Whether there are other people to call."""
        return self in (Reach.CHANNEL, Reach.PRIVATE)


class Screen(Protocol):
    """The place of one answer."""

    @property
    def free_notes(self) -> bool:
        """Whether `working` costs no edit now, so that the first words need not wait for it."""

    async def working(self, note: str) -> None:
        """Show what happens before there is text."""

    async def writing(self, text: str) -> None:
        """Show the Markdown that is known so far."""

    async def notice(self, text: str, *, under: str = "") -> None:
        """Show a plain sentence where the answer belongs, below what is known of it."""

    async def finish(self, answer: Answer, links: Links) -> None:
        """Show the answer."""

    async def refresh(self) -> None:
        """Keep alive what the platform would let expire."""


class Pair(Protocol):
    """The places of two answers that are compared; `side` 0 is the left one."""

    def knows(self, side: int) -> bool:
        """Whether the side was shown before."""

    async def working(self, side: int, note: str) -> None:
        """Show what happens before there is text."""

    async def writing(self, side: int, text: str) -> None:
        """Show the Markdown that is known so far."""

    async def finish(self, side: int, answer: Answer, links: Links) -> None:
        """Show the answer, without its model."""

    async def vote(self, comparison_id: ComparisonId) -> None:
        """Ask under both which one is better."""


class ShownTurn(Protocol):
    """What stands on the platform for one turn, found again after a crash."""

    @property
    def finished(self) -> bool:
        """Whether the whole answer stood there before."""

    @property
    def screen(self) -> Screen:
        """Where a single answer is shown; what it shows last takes the place of a pair."""

    @property
    def pair(self) -> Pair:
        """Where a comparison is shown."""

    async def tell(self, text: str) -> None:
        """Tell the asker alone something that is no answer; a comfort that may fail."""

    async def finish(self) -> None:
        """Note that everything stands where it should."""
