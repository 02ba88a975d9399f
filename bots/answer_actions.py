"""What people do with an answer: stop it, ask again, share it, call people.

Stopping, asking again and sharing belong to whoever asked: they change what that person gets.
Everybody in a channel may call for people, once per answer. What is posted beside an answer is
posted once: a process that dies between a post and its record finds the post again.

All functions return what to tell whoever acted, None where what happens says enough.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from bots.channel_settings import load
from bots.delivery import current_answer, links_of
from bots.dialect import Dialect
from bots.messages import Answer
from bots.screens import BESIDE, Links
from bots.turns import Turns
from bots.workplace import Workplace
from storage.identity import AnswerId, Audience, MessageId

P = TypeVar("P")
logger = logging.getLogger(__name__)

ONLY_THE_ASKER = "Only the person who asked can do that."
COMPLETE = "This answer was complete already."
ANSWERING = "I am answering again already."
NO_CHANNEL = "There is nobody else here; ask in a channel to reach its people."
SHARED_BEFORE = "This answer was shared already."
NEWER = "There is a newer answer to this question; that one can be shared."
NOT_CALLED = "I could not write here to call people; please mention them yourself."
CALLED_BEFORE = "People were called for this answer already; mention them yourself if nobody comes."

SHARED_PART = BESIDE
"""The first message of a shared answer."""
_CALLS = 1_000_000
"""The calls for people, one for each answer that a question was given, have parts from here on."""

_acting: WeakValueDictionary[AnswerId, asyncio.Lock] = WeakValueDictionary()
"""A double click waits here for the first one."""


class Beside(Protocol[P]):
    """What stands beside an answer: posts of the platform, each `part` of which is posted once."""

    @property
    def trouble(self) -> type[Exception]:
        """What `post` raises where the platform does not let us write."""

    def knows(self, part: int) -> bool:
        """Whether the part was posted."""

    async def recover(self) -> None:
        """Find on the platform what was posted and not remembered."""

    async def post(self, part: int, post: P) -> None:
        """Post it and remember where it stands."""

    def shared(self, answer: Answer, links: Links) -> Sequence[P]:
        """The answer for everybody."""

    def call(self, humans: Sequence[str]) -> P:
        """What `called` says, mentioning people and groups by the platform's ids."""


async def stop(
    workplace: Workplace, turns: Turns, message_id: MessageId, *, audience: Audience
) -> str | None:
    """End an answer that is being written, by whoever asked.

    Raises:
        MessageNotFound: it was not asked here.
        StorageUnavailable: safe to retry.
    """
    if not await _asked(workplace, message_id, audience):
        return ONLY_THE_ASKER
    return None if await turns.stop(message_id) else COMPLETE


async def again(
    workplace: Workplace,
    turns: Turns,
    message_id: MessageId,
    *,
    audience: Audience,
    place: Mapping[str, str],
) -> str | None:
    """Queue another answer, asked for by whoever asked the question.

    Args:
        place: as for `Turns.accept`.

    Raises:
        MessageNotFound: it was not asked here.
        StorageUnavailable: nothing was queued.
    """
    if not await _asked(workplace, message_id, audience):
        return ONLY_THE_ASKER
    new = await turns.again(message_id, audience=audience, place=place)
    return None if new else ANSWERING


async def share(
    workplace: Workplace, answer_id: AnswerId, *, audience: Audience, beside: Beside[P]
) -> str | None:
    """Post an answer that only the asker saw for everybody, once.

    Raises:
        MessageNotFound: no such answer here.
        StorageUnavailable: to be done again, which posts nothing twice.
    """
    stored = await workplace.conversations.answer(answer_id, audience=audience)
    if not await _asked(workplace, stored.message_id, audience):
        return ONLY_THE_ASKER
    async with _acting.setdefault(answer_id, asyncio.Lock()):
        posted = await workplace.deliveries.get(stored.message_id)
        shared = [each.finished for each in posted if SHARED_PART <= each.part < _CALLS]
        if shared and all(shared):
            return SHARED_BEFORE
        answer = await current_answer(workplace, message_id=stored.message_id, audience=audience)
        if answer is None or answer.id != answer_id:
            return NEWER
        await beside.recover()
        posts = beside.shared(answer, await links_of(workplace, audience, answer))
        for part, post in enumerate(posts, start=SHARED_PART):
            if not beside.knows(part):
                await beside.post(part, post)
        await workplace.deliveries.finish(stored.message_id)
    return None


async def call_people(
    workplace: Workplace,
    answer_id: AnswerId,
    *,
    audience: Audience,
    beside: Beside[P],
    dialect: Dialect,
) -> str | None:
    """Call the people whom the channel's settings name, and nobody else, once per answer.

    Raises:
        MessageNotFound: no such answer here.
        StorageUnavailable: to be done again, which posts nothing twice.
    """
    await workplace.conversations.answer(answer_id, audience=audience)
    settings = await load(workplace.places, audience.channel_id)
    if audience.channel_id is None:
        return NO_CHANNEL
    if not settings.humans:
        return no_humans(dialect)
    part = _CALLS + answer_id.int % _CALLS
    async with _acting.setdefault(answer_id, asyncio.Lock()):
        if not await workplace.feedback.need_human(answer_id=answer_id, audience=audience):
            if not beside.knows(part):
                await beside.recover()
            if beside.knows(part):
                return CALLED_BEFORE
        try:
            await beside.post(part, beside.call(settings.humans))
        except beside.trouble as error:
            logger.warning("people were not called: %s", error, extra={"action": "help_lost"})
            return NOT_CALLED
    return None


def called(mentions: Sequence[str], by: str) -> str:
    """What calls people.

    Args:
        mentions: of those who are called, in the platform's words.
        by: who calls, safe to show.
    """
    return f"{' '.join(mentions)}: {by} needs a person's help with this answer."


def no_humans(dialect: Dialect) -> str:
    """What is said where nobody can be called."""
    return (
        "No people are named for this channel yet; an administrator can name them with "
        f"{dialect.command('settings')}."
    )


async def _asked(workplace: Workplace, message_id: MessageId, audience: Audience) -> bool:
    """Whether the acting person asked the question.

    Raises:
        MessageNotFound: it was not asked here.
    """
    turn = await workplace.conversations.question(message_id, audience=audience)
    return turn.author_id is not None and turn.author_id == audience.member_id
