"""Reads what was said while the app was away: the gateway forgets a session after some minutes.

While the app is connected it notes how far it has come; a session that cannot be resumed, or the
next start of the process, begins by reading what is newer. What was taken before is known and taken
once. Interactions of that time are lost: their people were told so by Discord within seconds.
"""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import discord
from discord.utils import time_snowflake

from bots.discord_bot.context import DIRECT, SURFACE, DiscordContext
from bots.discord_bot.intake import Intake
from bots.discord_bot.rest import DiscordAway, DiscordRefused, RateLimited
from storage.errors import StorageError

logger = logging.getLogger(__name__)

NOTE_EVERY_S = 15.0
MARGIN = timedelta(minutes=2)
"""Longer than a dead connection is taken for a live one."""
SAVE_S = 5.0
PAGE = 100
MAX_PAGES = 10
"""Of one channel; what is older than its newest thousand messages has been overtaken."""
MAX_DIRECT = 200
"""Conversations of one person that are looked into, the latest ones."""
AT_ONCE = 4
"""Channels that are read at the same time."""
AGAIN_S = 5.0
_NOTE = "seen"


class CatchUp:
    """Notes how far the app has come, and reads on from there."""

    def __init__(self, context: DiscordContext, intake: Intake) -> None:
        self._context = context
        self._intake = intake
        self._since: int | None = None
        self._current = False
        self._reading: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Find out how far the process before this one came.

        Raises:
            StorageUnavailable: the database does not say.
        """
        note = await self._context.workplace.installations.find(SURFACE, _NOTE)
        if note is None:  # the very first start: whatever is said from now on is ours to answer
            note = {"message": str(time_snowflake(datetime.now(UTC)))}
            await self._context.workplace.installations.save(SURFACE, _NOTE, note, workspace=DIRECT)
        self._since = int(note["message"])

    async def note_for_ever(self) -> None:
        """Note again and again how far the app has come, as long as it is connected."""
        while True:
            await asyncio.sleep(NOTE_EVERY_S)
            missed = self._intake.missed()
            if missed is not None:
                self._since = missed
                self._read()
            await self._note()

    def disconnected(self) -> None:
        """The app hears nothing until it is `resumed`, or `begun` anew."""
        self._current = False

    def resumed(self) -> None:
        """Discord delivered what was said meanwhile."""
        self._current = self._reading is None or self._reading.done()

    def begun(self) -> None:
        """A new session: Discord delivers only what is said from now on."""
        self._read()

    async def end(self) -> None:
        """Note how far the app has come, and stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        await self._note()

    def _read(self) -> None:
        self._current = False
        if self._reading is not None:
            self._reading.cancel()
        self._reading = asyncio.create_task(self._read_safely(), name="catch up")

    async def _read_safely(self) -> None:
        try:
            await self._read_all()
        except Exception:  # nobody waits for it; the next start reads the same again
            logger.exception("not caught up", extra={"action": "not_caught_up"})

    async def _note(self) -> None:
        if not self._current:
            return
        oldest = self._intake.oldest_open
        seen = time_snowflake(datetime.now(UTC) - MARGIN)
        seen = min(seen, oldest - 1) if oldest is not None else seen
        try:
            async with asyncio.timeout(SAVE_S):
                await self._context.workplace.installations.save(
                    SURFACE, _NOTE, {"message": str(seen)}, workspace=DIRECT
                )
            self._since = seen
        except (StorageError, TimeoutError) as error:
            logger.warning("nothing was noted: %s", error, extra={"action": "note_failed"})

    async def _read_all(self) -> None:
        if self._since is not None:
            age = timedelta(hours=self._context.settings.catch_up_hours)
            since = max(self._since, time_snowflake(datetime.now(UTC) - age))
            slots = asyncio.Semaphore(AT_ONCE)
            channels = [*self._active(since), *await self._direct()]
            read = [self._read_channel(channel, since, slots) for channel in channels]
            taken = sum(await asyncio.gather(*read))
            logger.info(
                "caught up on %d messages", taken, extra={"action": "caught_up", "count": taken}
            )
        self._current = True
        await self._note()

    def _active(self, since: int) -> Iterator[Any]:
        """Channels and threads of servers where something was said, and that the app may read."""
        for guild in self._context.client.guilds:
            channels: list[Any] = [*guild.text_channels, *guild.voice_channels, *guild.threads]
            for channel in channels:
                if (channel.last_message_id or 0) <= since:
                    continue
                may = channel.permissions_for(guild.me) if guild.me is not None else None
                if may is None or (may.view_channel and may.read_message_history):
                    yield channel

    async def _direct(self) -> list[Any]:
        """Conversations of one person; Discord does not list them, so those that we know."""
        conversations = self._context.workplace.conversations
        while True:
            try:
                known = await conversations.latest_threads(SURFACE, DIRECT, limit=MAX_DIRECT)
                break
            except StorageError as error:
                logger.warning("nothing is read: %s", error, extra={"action": "not_caught_up"})
                await asyncio.sleep(AGAIN_S)
        state = self._context.client._connection
        return [
            discord.DMChannel._from_message(state, int(ref)) for ref in known if ref.isdecimal()
        ]

    async def _read_channel(self, channel: Any, since: int, slots: asyncio.Semaphore) -> int:
        """Hear everything newer than `since`; how much that was."""
        count, after, pages = 0, str(since), 0
        while pages < MAX_PAGES:
            try:
                async with slots:
                    page = await self._context.rest.messages(
                        str(channel.id), after=after, limit=PAGE
                    )
            except DiscordRefused as error:
                logger.info("a channel is not read: %s", error, extra={"action": "unread"})
                break
            except (DiscordAway, RateLimited) as error:
                logger.warning("a channel waits: %s", error, extra={"action": "unread"})
                await asyncio.sleep(AGAIN_S)
                continue
            for data in page:
                await self._hear(channel, data)
            count, pages = count + len(page), pages + 1
            if len(page) < PAGE:
                break
            after = page[-1]["id"]
        return count

    async def _hear(self, channel: Any, data: dict[str, Any]) -> None:
        content: Any = data
        state = self._context.client._connection
        await self._intake.hear(discord.Message(state=state, channel=channel, data=content))
