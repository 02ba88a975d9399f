"""The messages of one turn: posted once, found again after a crash, never lost to a refusal.

Where a message stands is remembered in `storage.deliveries` right after it was posted. A process
that dies in between leaves a message that nobody remembers: posting it again within minutes gives
the same message, by its nonce; later it is found by the id of its buttons or by its words.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import discord

from bots.discord_bot.custom_ids import part_of
from bots.discord_bot.messages import Post, notice_post
from bots.discord_bot.rest import DiscordCalls, DiscordRefused, DiscordTrouble, Json
from bots.discord_bot.ways import ChannelWay, Place, Ref, TokenWay, Way
from bots.screens import BESIDE
from storage.deliveries import Deliveries
from storage.identity import Audience, MessageId

logger = logging.getLogger(__name__)

UNKNOWN_MESSAGE = 10008
UNKNOWN_TOKEN = 10015
_LOST: Final = frozenset({UNKNOWN_MESSAGE, 50005, 50083, 160005})
"""Deleted, somebody else's, or in a thread that is archived: a new one takes its place.
https://docs.discord.com/developers/topics/opcodes-and-status-codes#json"""
NONCE_CHARACTERS = 25
TOKEN_LIFE_S = 900.0


class Board:
    """Posts and changes the messages of one turn; `part` 0 is the first.

    All methods raise what `DiscordCalls` raises once nothing else helps.

    Args of the constructor:
        edit_interval_s: least seconds between two edits of one message, the last one included.
        anew: whether what was posted before was for another answer, and stays.
    """

    def __init__(
        self,
        *,
        rest: DiscordCalls,
        deliveries: Deliveries,
        place: Place,
        message_id: MessageId,
        audience: Audience,
        edit_interval_s: float,
        anew: bool = False,
    ) -> None:
        self.rest = rest
        self.place = place
        self.message_id = message_id
        self.finished = False
        self._audience = audience
        self._deliveries = deliveries
        self._edit_interval_s = edit_interval_s
        self._anew = anew
        self._refs: dict[int, Ref] = {}
        self._said: dict[int, Post] = {}
        self._edited_at: dict[int, float] = {}
        self._lost: dict[int, str] = {}
        self._strays: dict[Ref, tuple[str, list[str]]] = {}
        self._token_refused = False
        self._direct: Way | None = None

    async def load(self, *, again: bool) -> None:
        """Find what was posted before.

        Args:
            again: whether an earlier attempt may have posted what nobody remembers.
        """
        posted = await self._deliveries.get(self.message_id)
        answer = [each.finished for each in posted if each.part < BESIDE]
        self.finished = bool(answer) and all(answer)
        if self._anew and not again:
            return
        self._refs = {each.part: Ref.parse(each.ref) for each in posted}
        if again and not self.finished:
            await self.recover()

    @property
    def begins(self) -> bool:
        """Whether the next message shown is a new one, which is no edit."""
        return not self._refs and not self._by_token

    @property
    def _by_token(self) -> bool:
        return self.place.by_token and self.place.token_lives and not self._token_refused

    def knows(self, part: int) -> bool:
        """Whether the message of `part` was posted."""
        return part in self._refs

    async def show(self, part: int, post: Post, *, final: bool) -> None:
        """Let the message of `part` say this.

        Args:
            final: whether it is more than a preview, which may be left out.
        """
        if self._said.get(part) == post and not final:
            return
        self._said.pop(part, None)
        ref = self._refs.get(part)
        if ref is None:
            await self._post(part, post, final=final)
        else:
            await self._edit(part, ref, post, final=final)
        self._said[part] = post

    async def say(self, post: Post) -> None:
        """Let one message say this, and no other one anything."""
        await self.show(0, post, final=True)
        await self.keep(1)

    async def tell(self, text: str) -> None:
        """Tell the asker alone something that is no answer; a comfort that may fail."""
        post = notice_post(text)
        place = self.place
        try:
            if place.token_lives and not self._token_refused:
                await self.rest.follow_up(
                    place.application, place.token, content=post.content, ephemeral=True
                )
            elif not place.private:
                await self.rest.send(place.channel, content=post.content)
        except DiscordTrouble as error:
            logger.warning("a notice was lost: %s", error, extra={"action": "notice_lost"})

    async def keep(self, count: int) -> None:
        """Delete the messages behind the first `count`: the text became shorter."""
        for part in sorted(part for part in self._refs if count <= part < BESIDE):
            ref = self._refs[part]
            try:
                await (await self._way()).delete(ref)
            except DiscordRefused as error:
                if error.code != UNKNOWN_MESSAGE:
                    logger.warning("a message stays: %s", error, extra={"action": "not_deleted"})
            del self._refs[part]
            await self._deliveries.remove(self.message_id, part=part)

    async def finish(self) -> None:
        """Note that everything stands where it should."""
        await self._deliveries.finish(self.message_id)

    # -- Posting and editing ----------------------------------------------------------------------

    async def _post(self, part: int, post: Post, *, final: bool) -> None:
        stray = await self._stray(post)
        if stray is not None:
            await self._remember(part, stray)
            return
        # The words of a part behind the first one tell apart what was deleted and posted again.
        salt = post.content if part and final else self._lost.get(part, "")
        digest = hashlib.sha256(f"{self.message_id}:{part}:{salt}".encode()).hexdigest()
        nonce = digest[:NONCE_CHARACTERS]

        async def posted(way: Way, post: Post) -> None:
            await self._remember(part, await way.post(part, post, nonce=nonce))
            if isinstance(way, TokenWay):  # the deferred response was a message already
                self._edited_at[part] = monotonic()

        await self._by_any_way(post, posted)

    async def _edit(self, part: int, ref: Ref, post: Post, *, final: bool) -> None:
        if part in self._edited_at:
            since = monotonic() - self._edited_at[part]
            await asyncio.sleep(max(0.0, self._edit_interval_s - since))
        try:
            await self._by_any_way(post, lambda way, post: way.edit(ref, post))
        except DiscordRefused as error:
            if error.code not in _LOST:
                raise
            self._lost[part] = ref.message
            await self._post(part, post, final=final)
        finally:
            self._edited_at[part] = monotonic()

    async def _by_any_way(self, post: Post, do: Callable[[Way, Post], Awaitable[None]]) -> None:
        """Do it by the interaction's token while that lives, else as a member of the channel."""
        way = await self._way()
        try:
            await _with_or_without_buttons(way, post, do)
        except DiscordRefused as error:
            if not isinstance(way, TokenWay) or error.status not in (401, 404):
                raise
            if error.code == UNKNOWN_MESSAGE and self.place.private:
                raise
            self._token_refused = error.code != UNKNOWN_MESSAGE or self._token_refused
            logger.info("a response goes on without its token", extra={"action": "token_ended"})
            await _with_or_without_buttons(await self._member(), post, do)

    async def _way(self) -> Way:
        if self._by_token:
            return TokenWay(self.rest, self.place)
        return await self._member()

    async def _member(self) -> Way:
        """The way of a member of the channel, or to the asker where nobody else may see it."""
        place = self.place
        if not place.private:
            return ChannelWay(self.rest, place.channel, question=place.message)
        if place.one_reader:  # a place that is not ours; only its interaction may be answered
            raise DiscordRefused("answer where it is not a member", status=404, code=UNKNOWN_TOKEN)
        if self._direct is None:
            channel = await self.rest.direct_channel(place.member)
            self._direct = ChannelWay(self.rest, channel, buttons=False)
        return self._direct

    # -- Remembering ------------------------------------------------------------------------------

    async def _remember(self, part: int, ref: Ref) -> None:
        self._refs[part] = ref
        await self._deliveries.put(self.message_id, part=part, ref=str(ref))

    async def recover(self) -> None:
        """Find at Discord what was posted and not remembered."""
        if self.place.private:
            return
        try:
            messages = await self.rest.messages(self.place.channel, after=self._since)
        except DiscordRefused as error:  # no reason to be silent
            logger.warning("a place is unreadable: %s", error, extra={"action": "not_recovered"})
            return
        for message in messages:
            if str(message["author"]["id"]) != self.rest.user_id:
                continue
            ref = Ref(channel=self.place.channel, message=str(message["id"]))
            part = _part_of(message, self.message_id)
            if part is not None and part not in self._refs:
                await self._remember(part, ref)
            elif part is None:
                self._strays[ref] = (str(message["content"]), _ids(message))

    async def _stray(self, post: Post) -> Ref | None:
        """A message that says the same, with the same buttons, and belongs to no question."""
        wanted = (post.content, [button.custom_id for button in post.buttons])
        for ref, said in self._strays.items():
            if said != wanted or ref in self._refs.values():
                continue
            if await self._deliveries.find_by_ref(str(ref), audience=self._audience) is None:
                return ref
        return None

    @property
    def _since(self) -> str | None:
        """What stands before the first message that may be ours; None for the newest messages."""
        if self.place.message or not self.place.expires:
            return self.place.message or None
        asked_at = datetime.fromtimestamp(self.place.expires - TOKEN_LIFE_S, tz=UTC)
        return str(discord.utils.time_snowflake(asked_at))


async def _with_or_without_buttons(
    way: Way, post: Post, do: Callable[[Way, Post], Awaitable[None]]
) -> None:
    try:
        await do(way, post)
    except DiscordRefused as error:
        if error.status != 400 or not post.buttons or error.code in _LOST:
            raise
        logger.warning("buttons were refused: %s", error, extra={"action": "buttons_refused"})
        await do(way, Post(content=post.content))


def _part_of(message: Json, message_id: MessageId) -> int | None:
    """Which part of the question's answer a message of ours is; None for another message."""
    parts = (part_of(id_, message_id) for id_ in _ids(message))
    return next((part for part in parts if part is not None), None)


def _ids(message: Json) -> list[str]:
    """Of the message's buttons."""
    return [
        str(component.get("custom_id") or "")
        for row in message.get("components") or ()
        for component in row.get("components") or ()
    ]
