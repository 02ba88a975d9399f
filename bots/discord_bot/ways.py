"""Two ways to a message: as the app's member of a channel, or by the token of an interaction.

A token answers for 15 minutes, reaches channels that the app may not write in, and is the only way
to a message that one person alone sees. After that, or where Discord has forgotten it, what was
begun by it goes on in the channel, and what is private in direct messages.
https://docs.discord.com/developers/interactions/receiving-and-responding#followup-messages
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from bots.discord_bot.context import DIRECT
from bots.discord_bot.messages import Post
from bots.discord_bot.rest import DiscordCalls, DiscordRefused
from bots.screens import Reach

TOKEN_MARGIN_S = 20.0
"""Before a token ends it is not begun with."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a turn is shown, by Discord's ids; what `bots.turns` calls its place.

    Attributes:
        channel: where it is posted: a channel, a thread, direct messages.
        message: the question, where it is a message.
        member: who asked.
        one_reader: nobody but `member` reads the place.
        private: only `member` may see it though others are there.
        by_token: whether the answer is the response to an interaction.
        application, token: of the interaction that asked, or asked again; empty without.
        expires: when the token ends, in seconds since 1970.
    """

    channel: str
    message: str
    member: str
    one_reader: bool
    private: bool
    by_token: bool
    application: str
    token: str
    expires: float

    @classmethod
    def of(cls, place: Mapping[str, str]) -> Self:
        """Read what the listener stored with the question."""
        return cls(
            channel=place["reply_to"],
            message=place.get("message", ""),
            member=place["member"],
            one_reader=place["workspace"] == DIRECT,
            private=place.get("via") == "ephemeral",
            by_token=place.get("via") in ("interaction", "ephemeral"),
            application=place.get("application", ""),
            token=place.get("token", ""),
            expires=float(place.get("expires") or 0),
        )

    @property
    def reach(self) -> Reach:
        """Who sees what is posted here."""
        return Reach.of(one_reader=self.one_reader, private=self.private)

    @property
    def token_lives(self) -> bool:
        """Whether the interaction can still be answered, as far as the clock says."""
        return bool(self.token) and time.time() < self.expires - TOKEN_MARGIN_S


@dataclass(frozen=True, kw_only=True)
class Ref:
    """A message; stored as `channel:message`."""

    channel: str
    message: str

    @classmethod
    def parse(cls, ref: str) -> Self:
        """The reverse of `str`."""
        channel, _, message = ref.partition(":")
        return cls(channel=channel, message=message)

    def __str__(self) -> str:
        return f"{self.channel}:{self.message}"


class Way(Protocol):
    """How messages get to Discord. All methods raise what `DiscordCalls` raises."""

    async def post(self, part: int, post: Post, *, nonce: str) -> Ref:
        """Post a message.

        Args:
            part: of the answer; the first one replies to the question.
            nonce: makes a repeated post the same message, where Discord knows that.
        """

    async def edit(self, ref: Ref, post: Post) -> None:
        """Change a message."""

    async def delete(self, ref: Ref) -> None:
        """Delete a message."""


class ChannelWay:
    """The app's own messages in a channel.

    Args of the constructor:
        question: the message of the channel that is replied to.
        buttons: False where they would not work.
    """

    def __init__(
        self, rest: DiscordCalls, channel: str, *, question: str = "", buttons: bool = True
    ) -> None:
        self._buttons = buttons
        self._rest = rest
        self._channel = channel
        self._question = question

    async def post(self, part: int, post: Post, *, nonce: str) -> Ref:
        """Post; the first part, and a call for people, as a reply outside of an own thread."""
        replies = (part == 0 or bool(post.calls)) and self._question != self._channel
        question = self._question if replies else ""
        try:
            message = await self._send(post, nonce=nonce, question=question)
        except DiscordRefused:  # a reply needs the right to read the history; an answer does not
            if not question:
                raise
            message = await self._send(post, nonce=nonce, question="")
        return Ref(channel=self._channel, message=message)

    async def edit(self, ref: Ref, post: Post) -> None:
        """Edit where the message stands."""
        view = post.view() if self._buttons else None
        await self._rest.edit(ref.channel, ref.message, content=post.content, view=view)

    async def delete(self, ref: Ref) -> None:
        """Delete where the message stands."""
        await self._rest.delete(ref.channel, ref.message)

    async def _send(self, post: Post, *, nonce: str, question: str) -> str:
        return await self._rest.send(
            self._channel,
            content=post.content,
            view=post.view() if self._buttons else None,
            reference=question or None,
            nonce=nonce,
            calls=post.calls,
        )


class TokenWay:
    """The response to an interaction, which is deferred already, and what follows it."""

    def __init__(self, rest: DiscordCalls, place: Place) -> None:
        self._rest = rest
        self._place = place

    async def post(self, part: int, post: Post, *, nonce: str) -> Ref:
        """Fill the response; further parts follow up."""
        application, token = self._place.application, self._place.token
        if part == 0:
            posted = await self._rest.edit_response(
                application, token, content=post.content, view=post.view()
            )
        else:
            posted = await self._rest.follow_up(
                application,
                token,
                content=post.content,
                view=post.view(),
                ephemeral=self._place.private,
            )
        channel, message = posted
        return Ref(channel=channel, message=message)

    async def edit(self, ref: Ref, post: Post) -> None:
        """Edit the response or a follow-up."""
        await self._rest.edit_response(
            self._place.application,
            self._place.token,
            content=post.content,
            view=post.view(),
            message_id=ref.message,
        )

    async def delete(self, ref: Ref) -> None:
        """Delete the response or a follow-up."""
        await self._rest.delete_response(
            self._place.application, self._place.token, message_id=ref.message
        )
