"""One turn of conversation, for every surface: question in, streamed and cited answer out.

The question is stored first, so that whatever fails afterwards can be tried again. Then: the
thread's context, the search, the sources, the model, the check of its citations, the stored answer.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from bots import followups, replies, sources
from bots.errors import Reply, TurnFailed
from bots.followups import Reading
from bots.generation import SIDE, Clock, Manner, Turn, Writer
from bots.messages import (
    Answer,
    Answered,
    Citation,
    FinishReason,
    Question,
    Searching,
    Source,
    SourcesFound,
    Timings,
    TurnEvent,
)
from bots.serving import ServingModels
from bots.settings import AssistantSettings
from bots.streams import in_step, watch
from engine.client import EngineClient
from engine.errors import EngineError, PromptTooLong
from storage.conversations import Conversations, StoredAnswer, StoredTurn
from storage.documents import Documents
from storage.errors import StorageError
from storage.identity import AnswerId, Audience, MessageId
from storage.model_versions import is_version
from storage.pool import Pool
from storage.search import MAX_QUERY_CHARACTERS, search
from storage.settings import SearchSettings

logger = logging.getLogger(__name__)

SHORTENED_SHARE = 0.9
"""Of the length that should fit: tokens are not spread evenly."""
VARIED_TEMPERATURE = 0.7
"""For an answer that must differ from one that the same model gave."""

Indexed = tuple[int, TurnEvent]
"""An event, and which of the turn's answers it belongs to."""
Given = Callable[[StoredTurn], Awaitable[Mapping[int, StoredAnswer]]]
"""Looks up the answers that a turn was to give and has given already."""


class Assistant:
    """Answers questions from the documents that an audience may read.

    Closing an iterator of its methods, or cancelling its consumer, stops the engine and stores what
    was said so far with `finish_reason="stopped"`; a question stopped before that stays without an
    answer. With a `stop` event it is otherwise: setting that stores an answer in any case, and ends
    the iterator with `Answered`; closing the iterator stores nothing, for the turn will be taken
    again.

    Args of the constructor:
        engine: embeds, counts tokens and answers.
        serving: knows which version answers a workspace.
        search_settings: with the threshold below which nothing counts as found.
    """

    def __init__(
        self,
        *,
        engine: EngineClient,
        pool: Pool,
        conversations: Conversations,
        documents: Documents,
        serving: ServingModels,
        search_settings: SearchSettings,
        settings: AssistantSettings,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._conversations = conversations
        self._documents = documents
        self._serving = serving
        self._search_settings = search_settings
        self._settings = settings
        self._writer = Writer(engine=engine, conversations=conversations, settings=settings)
        self._answering: WeakValueDictionary[MessageId, asyncio.Lock] = WeakValueDictionary()

    async def answer(
        self, question: Question, *, model: str | None = None
    ) -> AsyncGenerator[TurnEvent, None]:
        """Answer a question once, streaming; see `bots.messages` for the order of events.

        Args:
            model: model or alias; None for the one of the settings.

        Raises:
            TurnFailed: while iterating; `reply` is for the asker, the question is kept.
        """
        if not question.text.strip():
            raise TurnFailed(_EMPTY, message_id=None)

        async def store() -> MessageId:
            audience = question.audience
            thread_id = await self._conversations.ensure_thread(
                question.thread_ref, audience=audience
            )
            return await self._conversations.add_question(
                thread_id,
                audience=audience,
                text=question.text.strip(),
                message_ref=question.message_ref,
                author_id=question.author_id,
            )

        events = self._answered(
            store, question.audience, [self._manner(model)], _current_answer, stop=None
        )
        async with contextlib.aclosing(events):
            async for _, event in events:
                yield event

    async def retry(
        self,
        message_id: MessageId,
        *,
        audience: Audience,
        model: str | None = None,
        stop: asyncio.Event | None = None,
    ) -> AsyncGenerator[TurnEvent, None]:
        """Answer a stored question that got no answer; one that has an answer yields that one.

        Raises:
            TurnFailed: as for `answer`; also when the audience has no such question.
        """
        events = self._answered(
            _known(message_id), audience, [self._manner(model)], _current_answer, stop=stop
        )
        async with contextlib.aclosing(events):
            async for _, event in events:
                yield event

    async def regenerate(
        self,
        message_id: MessageId,
        *,
        audience: Audience,
        model: str | None = None,
        replaces: AnswerId | None = None,
        stop: asyncio.Event | None = None,
    ) -> AsyncGenerator[TurnEvent, None]:
        """Answer a stored question again and differently; the new answer replaces the present one.

        Args:
            replaces: the answer to replace. Where it is no longer the question's answer, that one
                is yielded: the work was done before.

        Raises:
            TurnFailed: as for `retry`; the present answer stays.
        """

        async def given(stored: StoredTurn) -> Mapping[int, StoredAnswer]:
            if stored.answer is None or replaces in (None, stored.answer.id):
                return {}
            return {0: stored.answer}

        manner = self._manner(model, temperature=VARIED_TEMPERATURE, replace=True)
        events = self._answered(_known(message_id), audience, [manner], given, stop=stop)
        async with contextlib.aclosing(events):
            async for _, event in events:
                yield event

    async def compare(
        self,
        message_id: MessageId,
        *,
        audience: Audience,
        models: tuple[str, str],
        stop: asyncio.Event | None = None,
    ) -> AsyncGenerator[Indexed, None]:
        """Answer a stored question twice, over the same sources and in step.

        The first answer becomes the question's answer, the second one stands beside it. Equal
        models differ in their temperature. Each answer's events come in the usual order. Where
        nothing is found there is nothing to compare: the only `Answered` is the first one's. So it
        is where the question has an answer from elsewhere.

        Raises:
            TurnFailed: as for `retry`; answers that were complete are kept for the next call.
        """

        async def given(stored: StoredTurn) -> Mapping[int, StoredAnswer]:
            answers = await self._conversations.answers(message_id, audience=audience)
            sides = {answer.params[SIDE]: answer for answer in answers if SIDE in answer.params}
            return sides or ({0: stored.answer} if stored.answer is not None else {})

        first, second = models
        manners = [
            self._manner(first, side=0),
            self._manner(
                second,
                temperature=VARIED_TEMPERATURE if first == second else None,
                current=False,
                side=1,
            ),
        ]
        events = self._answered(_known(message_id), audience, manners, given, stop=stop)
        async with contextlib.aclosing(events):
            async for indexed in events:
                yield indexed

    def _manner(
        self,
        model: str | None,
        *,
        temperature: float | None = None,
        current: bool = True,
        replace: bool = False,
        side: int | None = None,
    ) -> Manner:
        return Manner(
            model=model or self._settings.model,
            temperature=self._settings.temperature if temperature is None else temperature,
            current=current,
            replace=replace,
            side=side,
        )

    async def _served(self, manner: Manner, stored: StoredTurn, audience: Audience) -> Manner:
        """Let the version of this workspace answer where nobody named another model."""
        named = manner.model if is_version(manner.model) else None
        if named is None and manner.model != self._settings.model:
            return manner
        # Whoever compares names both sides: none of them is left to a share of the threads.
        thread_id = stored.thread_id if manner.side is None else None
        name = await self._serving.model(audience.workspace_id, thread_id, named=named)
        return replace(manner, model=name or self._settings.model)

    # -- The turn ---------------------------------------------------------------------------------

    async def _answered(
        self,
        store: Callable[[], Awaitable[MessageId]],
        audience: Audience,
        manners: Sequence[Manner],
        given: Given,
        *,
        stop: asyncio.Event | None,
    ) -> AsyncGenerator[Indexed, None]:
        """Give the answers that the question `store` names lacks; map every failure."""
        clock = Clock()
        message_id: MessageId | None = None
        try:
            message_id = await store()
            lock = self._answering.setdefault(message_id, asyncio.Lock())
            async with lock:  # a redelivery waits here and finds the answer
                stored = await self._conversations.question(message_id, audience=audience)
                if not stored.text.strip():
                    raise TurnFailed(_EMPTY, message_id=message_id)
                turn = Turn(message_id=message_id, audience=audience, text=stored.text, clock=clock)
                chosen = [await self._served(each, stored, audience) for each in manners]
                events = self._take(turn, stored, chosen, given, stop)
                async with contextlib.aclosing(events):
                    async for indexed in events:
                        yield indexed
        except (EngineError, StorageError) as error:
            logger.warning("turn failed: %s", error, extra={"action": "turn_failed"})
            raise TurnFailed(replies.reply_to(error), message_id=message_id) from error

    async def _take(
        self,
        turn: Turn,
        stored: StoredTurn,
        manners: Sequence[Manner],
        given: Given,
        stop: asyncio.Event | None,
    ) -> AsyncGenerator[Indexed, None]:
        for index in range(len(manners)):
            yield index, Searching(message_id=turn.message_id)
        answers = await given(stored)
        missing = {i: manner for i, manner in enumerate(manners) if i not in answers}
        if not any(SIDE in answer.params for answer in answers.values()) and answers:
            missing = {}  # answered in another way than asked for now
        for index, restored in answers.items():
            yield index, Answered(answer=_restored(restored))
        if not missing:
            return
        events = watch(self._give(turn, stored, missing, stop), stop=stop)
        async with contextlib.aclosing(events):
            async for indexed in events:
                if indexed is not None:
                    if isinstance(indexed[1], Answered):
                        missing.pop(indexed[0], None)
                    yield indexed
        if stop is not None and stop.is_set():
            for index, answer in (await self._stopped(turn, missing, given)).items():
                yield index, Answered(answer=answer)

    async def _stopped(
        self, turn: Turn, missing: Mapping[int, Manner], given: Given
    ) -> dict[int, Answer]:
        """What a turn has to show after a stop; something is stored in any case."""
        stored = await self._conversations.question(turn.message_id, audience=turn.audience)
        answers = await given(stored)
        shown: dict[int, Answer] = {}
        for index, manner in missing.items():
            if index in answers:
                shown[index] = _restored(answers[index])
            elif manner.replace and stored.answer is not None:
                shown[index] = _restored(stored.answer)
            else:
                shown[index] = await self._writer.say(
                    turn, manner, replies.STOPPED, finish="stopped"
                )
        return shown

    async def _give(
        self,
        turn: Turn,
        stored: StoredTurn,
        manners: Mapping[int, Manner],
        stop: asyncio.Event | None,
    ) -> AsyncGenerator[Indexed, None]:
        """Find, and write what is missing."""
        index, first = next(iter(manners.items()))
        reading = await self._understand(turn, stored)
        if reading.score < self._search_settings.threshold:
            both = len(manners) > 1
            manner = replace(first, side=None) if both else first
            yield index, Answered(answer=await self._not_found(turn, manner))
            return
        turn.sources = await self._select(turn, reading, model=first.model)
        for index in manners:
            yield index, SourcesFound(sources=turn.sources)
        written = in_step(
            {i: self._writer.write(turn, manner, stop=stop) for i, manner in manners.items()}
        )
        async with contextlib.aclosing(written):
            async for indexed in written:
                yield indexed

    # -- Finding ----------------------------------------------------------------------------------

    async def _understand(self, turn: Turn, stored: StoredTurn) -> Reading:
        """Search for the question, alone and as a continuation of its thread."""
        history = await self._conversations.history(
            stored.thread_id,
            audience=turn.audience,
            limit=self._settings.history_turns,
            before=turn.message_id,
        )
        begun = perf_counter()
        earlier = [asked.text for asked in history]
        queries = followups.readings_of(turn.text, earlier)
        contexts = followups.contexts_of(earlier)
        searched = [query[-MAX_QUERY_CHARACTERS:] for query in (*queries, *contexts)]
        vectors = await turn.clock.engine(embed_queries(self._engine, searched))
        readings = await asyncio.gather(
            *(
                self._read(query, vector, turns=index % len(queries), audience=turn.audience)
                for index, (query, vector) in enumerate(zip(searched, vectors, strict=True))
            )
        )
        turn.clock.search_s = perf_counter() - begun
        chosen = followups.understood(
            readings[0], readings[1 : len(queries)], readings[len(queries) :]
        )
        turn.history = history[len(history) - chosen.turns :]
        return chosen

    async def _read(
        self, query: str, vector: NDArray[np.float32], *, turns: int, audience: Audience
    ) -> Reading:
        hits = await search(
            self._pool,
            query=query,
            vector=vector,
            audience=audience,
            settings=self._search_settings,
        )
        return Reading(query=query, turns=turns, vector=vector, hits=hits)

    async def _select(self, turn: Turn, reading: Reading, *, model: str) -> tuple[Source, ...]:
        units = sources.units_of(reading.hits)
        titles = [sources.title(hit) for hit in reading.hits]
        counts = await turn.clock.engine(
            self._engine.count_tokens([*(unit.text for unit in units), *titles], model=model)
        )
        return sources.select(
            reading.query,
            reading.hits,
            units,
            unit_tokens=counts[: len(units)],
            title_tokens=counts[len(units) :],
            max_tokens=self._settings.max_source_tokens,
        )

    async def _not_found(self, turn: Turn, manner: Manner) -> Answer:
        documents = await self._documents.list(audience=turn.audience)
        finish: FinishReason = "not_found" if documents else "no_documents"
        text = replies.NOT_FOUND if documents else replies.NO_DOCUMENTS
        if documents and not any(document.searchable for document in documents):
            unsettled = any(document.status != "failed" for document in documents)
            text = replies.STILL_READING if unsettled else replies.NO_DOCUMENTS
        return await self._writer.say(turn, manner, text, finish=finish)


_EMPTY = Reply(text=replies.EMPTY_QUESTION, retryable=False)


def _known(message_id: MessageId) -> Callable[[], Awaitable[MessageId]]:
    async def known() -> MessageId:
        return message_id

    return known


async def _current_answer(stored: StoredTurn) -> Mapping[int, StoredAnswer]:
    return {0: stored.answer} if stored.answer is not None else {}


async def embed_queries(engine: EngineClient, queries: Sequence[str]) -> NDArray[np.float32]:
    """Embed what is searched for; of longer texts than the embedder reads, only the end.

    The end, because people paste first and ask last.

    Raises:
        EngineError: the engine does not answer.
    """
    while True:
        try:
            return await engine.embed(queries)
        except PromptTooLong as error:
            longest = max(len(query) for query in queries)
            keep = int(longest * SHORTENED_SHARE * error.limit / error.tokens)
            queries = [query[-keep:] for query in queries]


def _restored(stored: StoredAnswer) -> Answer:
    """The answer that a question already has."""
    finish: FinishReason = stored.finish_reason  # type: ignore[assignment]
    return Answer(
        id=stored.id,
        message_id=stored.message_id,
        text=stored.text,
        found=stored.found,
        finish_reason=finish,
        citations=tuple(
            Citation.of(source, quote=source.quote)
            for source in stored.sources
            if source.quote is not None
        ),
        model=stored.model,
        prompt_tokens=stored.prompt_tokens,
        completion_tokens=stored.completion_tokens,
        timings=Timings(**stored.timings_ms),
    )
