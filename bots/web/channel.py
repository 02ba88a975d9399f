"""The channel: people ask, turns run, every page sees them.

A turn belongs to the channel, not to the browser that asked: it runs as a task of this process
until it is answered, failed or stopped, whoever is watching. Storage holds what was asked and
answered; memory holds only turns that run now or ended lately, which a page sees on top of what is
stored.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from uuid import uuid4

from bots import replies
from bots.assistant import Assistant
from bots.errors import TurnFailed
from bots.messages import (
    Answered,
    Question,
    Searching,
    SourcesFound,
    TextDelta,
    TurnEvent,
)
from bots.web import render
from bots.web.entries import Entry
from bots.web.live import Event, Hub
from bots.web.people import People
from storage.conversations import Conversations
from storage.errors import StorageError

logger = logging.getLogger(__name__)

MAX_RUNNING = 64
"""Turns at once; the engine's queue holds no more by default."""
MAX_RECENT = 200
"""Turns that stay in memory after their end, for pages that read storage a moment too early."""
SHOWN_ENTRIES = 200
SHOWN_THREADS = 30
STOP_TIMEOUT_S = 2.0
"""For storing the partial answers of the turns that run when the process ends."""


class Channel:
    """One channel of people who ask in threads.

    Args:
        assistant: answers.
        conversations: what was asked and answered before.
        people: the channel, and who acts in it.
        hub: the open pages.
    """

    def __init__(
        self,
        *,
        assistant: Assistant,
        conversations: Conversations,
        people: People,
        hub: Hub,
    ) -> None:
        self._assistant = assistant
        self._conversations = conversations
        self._people = people
        self._audience = people.audience
        self._hub = hub
        self._recent: OrderedDict[str, Entry] = OrderedDict()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._newest_thread = self.new_thread()

    # -- What a page shows ------------------------------------------------------------------------

    async def thread_event(self, thread_ref: str | None, *, any_document: bool) -> Event:
        """A whole thread, or the newest one."""
        try:
            thread_ref = thread_ref or await self._current_thread()
            entries = await self._entries(thread_ref)
            problem = None
        except StorageError as error:
            thread_ref = thread_ref or self._newest_thread
            entries = self._unstored(thread_ref)
            problem = replies.reply_to(error).text
        html = render.thread(entries, any_document=any_document, problem=problem)
        return {"kind": "thread", "ref": thread_ref, "html": html}

    async def threads_event(self) -> Event:
        """The list of threads, newest first.

        Raises:
            StorageUnavailable: the list cannot be read now.
        """
        threads = await self._conversations.threads(audience=self._audience, limit=SHOWN_THREADS)
        return {"kind": "threads", "html": render.threads(threads)}

    # -- What people do ---------------------------------------------------------------------------

    @staticmethod
    def new_thread() -> str:
        """A name for a thread that starts with its first question."""
        return uuid4().hex

    async def ask(self, text: str, *, thread_ref: str, author: str) -> None:
        """Start a turn; every page that shows the thread sees it from now on.

        Args:
            text: the question.
            thread_ref: empty where a page does not know yet which thread it shows.
            author: the name that the person goes by.
        """
        self._newest_thread = thread_ref = thread_ref or self._newest_thread
        self._start(
            Entry(
                key=uuid4().hex,
                thread_ref=thread_ref,
                author=author,
                text=text,
                asked_at=datetime.now(UTC),
            )
        )

    async def ask_again(self, key: str, *, thread_ref: str, author: str) -> None:
        """Ask the same question anew, at the end of its thread."""
        if entry := await self._find(key, thread_ref):
            await self.ask(entry.text, thread_ref=thread_ref, author=author)

    async def retry(self, key: str, *, thread_ref: str) -> None:
        """Try a question again that got no answer; the question stays where it is."""
        entry = await self._find(key, thread_ref)
        if entry is not None and entry.state in ("failed", "unanswered"):
            entry.restart()
            self._start(entry)

    def stop(self, key: str) -> None:
        """Stop a turn, and the engine with it; what was written so far is kept."""
        if task := self._running.get(key):
            task.cancel()

    async def close(self) -> None:
        """Stop all turns and wait until their partial answers are stored."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)

    # -- Turns ------------------------------------------------------------------------------------

    def _start(self, entry: Entry) -> None:
        if entry.key in self._running:
            return  # two people pressed the button
        self._recent[entry.key] = entry
        self._recent.move_to_end(entry.key)
        while len(self._recent) > MAX_RECENT + MAX_RUNNING:
            self._recent.popitem(last=False)
        if len(self._running) >= MAX_RUNNING:
            entry.fail(replies.BUSY)
        else:
            task = asyncio.create_task(self._run(entry), name=f"turn {entry.key}")
            self._running[entry.key] = task
            task.add_done_callback(lambda _: self._ended(entry))
        self._show(entry)

    def _ended(self, entry: Entry) -> None:
        del self._running[entry.key]
        if entry.running:
            entry.stop()
        self._show(entry)

    async def _run(self, entry: Entry) -> None:
        """One turn from start to end."""
        try:
            async with contextlib.aclosing(await self._events(entry)) as events:
                async for event in events:
                    await self._follow(entry, event)
        except TurnFailed as error:
            entry.message_id = error.message_id or entry.message_id
            entry.fail(error.reply)
        except StorageError as error:
            entry.fail(replies.reply_to(error))
        except asyncio.CancelledError:
            entry.stop()
            with contextlib.suppress(StorageError):
                await self._entries(entry.thread_ref)  # which finds out what it can be rated by
            raise
        except Exception as error:
            logger.exception("turn failed", extra={"action": "web_turn_crashed"})
            entry.fail(replies.reply_to(error))

    async def _events(self, entry: Entry) -> AsyncGenerator[TurnEvent, None]:
        if entry.message_id is not None:
            return self._assistant.retry(entry.message_id, audience=self._audience)
        audience = await self._people.acting(entry.author)
        return self._assistant.answer(
            Question(
                text=entry.text,
                audience=audience,
                thread_ref=entry.thread_ref,
                message_ref=entry.key,
                author_id=audience.member_id,
            )
        )

    async def _follow(self, entry: Entry, event: TurnEvent) -> None:
        entry.apply(event)
        match event:
            case TextDelta(text=text):
                delta = {"kind": "delta", "key": entry.key, "text": text}
                self._hub.publish(delta, thread_ref=entry.thread_ref)
            case Searching():
                with contextlib.suppress(StorageError):
                    self._hub.publish(await self.threads_event())
            case SourcesFound():
                self._show(entry)
            case Answered():
                pass  # shown when the turn has ended

    def _show(self, entry: Entry) -> None:
        event = {"kind": "entry", "key": entry.key, "html": render.entry(entry)}
        self._hub.publish(event, thread_ref=entry.thread_ref)

    # -- Stored and recent entries ----------------------------------------------------------------

    async def _current_thread(self) -> str:
        """The thread that a new page opens: the newest one, the same for everybody."""
        threads = await self._conversations.threads(audience=self._audience, limit=1)
        if threads and not self._unstored(self._newest_thread):
            return threads[0].ref
        return self._newest_thread

    async def _entries(self, thread_ref: str) -> list[Entry]:
        """A thread as it is: stored questions in order, those in memory in their present state."""
        stored = await self._conversations.view(
            thread_ref, audience=self._audience, limit=SHOWN_ENTRIES
        )
        # No await from here on: turns go on meanwhile, and their events must follow this list.
        entries = [self._present(Entry.stored(turn, thread_ref=thread_ref)) for turn in stored]
        return sorted(entries + self._unstored(thread_ref), key=lambda entry: entry.asked_at)

    def _present(self, stored: Entry) -> Entry:
        """An entry as it is now; a stopped turn did not hear what its answer was stored as."""
        entry = self._recent.get(stored.key, stored)
        if not entry.running:
            entry.answer_id = entry.answer_id or stored.answer_id
        return entry

    def _unstored(self, thread_ref: str) -> list[Entry]:
        return [
            entry
            for entry in self._recent.values()
            if entry.message_id is None and entry.thread_ref == thread_ref
        ]

    async def _find(self, key: str, thread_ref: str) -> Entry | None:
        if key in self._recent:
            return self._recent[key]
        return next((e for e in await self._entries(thread_ref) if e.key == key), None)
