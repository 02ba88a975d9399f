"""One turn of conversation, for every surface: question in, streamed and cited answer out.

The question is stored first, so that whatever fails afterwards can be tried again. Then: the
thread's context, the search, the sources, the model, the check of its citations, the stored answer.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from bots import citations, followups, replies, sources
from bots.errors import Reply, TurnFailed
from bots.followups import Reading
from bots.messages import (
    Answer,
    Answered,
    Citation,
    FinishReason,
    Question,
    Searching,
    Source,
    SourcesFound,
    TextDelta,
    Timings,
    TurnEvent,
)
from bots.neutral import Preview, neutral, repetition_start
from bots.settings import AssistantSettings
from engine.chat import Sampling
from engine.client import EngineClient
from engine.errors import EngineError, PromptTooLong
from engine.prompt import ChatMessage, PromptSource, rag_messages
from storage.conversations import AnswerSource, Conversations, StoredAnswer, StoredTurn
from storage.documents import Documents
from storage.errors import StorageError
from storage.identity import Audience, MessageId
from storage.pool import Pool
from storage.search import MAX_QUERY_CHARACTERS, search
from storage.settings import SearchSettings
from storage.text_units import sentence_spans

logger = logging.getLogger(__name__)

STOP_TEXTS = ("\nQuestion:", "\n\n\n")
"""Where a small model starts to ask itself the next question."""
HISTORY_ANSWER_CHARACTERS = 300
"""What of an earlier answer a follow-up's prompt repeats."""
STORE_STOPPED_TIMEOUT_S = 5.0
"""For storing what was said before a stop."""

SHORTENED_SHARE = 0.9
"""Of the length that should fit: tokens are not spread evenly."""

T = TypeVar("T")


@dataclass(kw_only=True)
class _Clock:
    """Measures one turn."""

    started: float = field(default_factory=perf_counter)
    search_s: float = 0.0
    first_token_s: float = 0.0
    engine_s: float = 0.0

    async def engine(self, waiting: Awaitable[T]) -> T:
        begun = perf_counter()
        try:
            return await waiting
        finally:
            self.engine_s += perf_counter() - begun

    def timings(self) -> Timings:
        return Timings(
            search_ms=1000 * self.search_s,
            first_token_ms=1000 * self.first_token_s,
            engine_ms=1000 * self.engine_s,
            total_ms=1000 * (perf_counter() - self.started),
        )


@dataclass(kw_only=True)
class _Turn:
    """What is known of a turn so far."""

    message_id: MessageId
    audience: Audience
    text: str
    clock: _Clock
    history: Sequence[StoredTurn] = ()
    sources: tuple[Source, ...] = ()
    preview: Preview = field(default_factory=lambda: Preview(render=str))
    model: str = ""
    prompt_sha256: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Assistant:
    """Answers questions from the documents that an audience may read.

    Args of the constructor:
        engine: embeds, counts tokens and answers.
        search_settings: with the threshold below which nothing counts as found.
    """

    def __init__(
        self,
        *,
        engine: EngineClient,
        pool: Pool,
        conversations: Conversations,
        documents: Documents,
        search_settings: SearchSettings,
        settings: AssistantSettings,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._conversations = conversations
        self._documents = documents
        self._search_settings = search_settings
        self._settings = settings
        self._answering: WeakValueDictionary[MessageId, asyncio.Lock] = WeakValueDictionary()

    async def answer(self, question: Question) -> AsyncGenerator[TurnEvent, None]:
        """Answer a question once, streaming; see `bots.messages` for the order of events.

        Closing the iterator (or cancelling its consumer) stops the engine and stores what was said
        so far with `finish_reason="stopped"`; a question stopped before that stays without an
        answer.

        Raises:
            TurnFailed: while iterating; `reply` is for the asker, the question is kept.
        """
        if not question.text.strip():
            reply = Reply(text=replies.EMPTY_QUESTION, retryable=False)
            raise TurnFailed(reply, message_id=None)
        clock = _Clock()

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

        async with contextlib.aclosing(self._answered(store, question.audience, clock)) as events:
            async for event in events:
                yield event

    async def retry(
        self, message_id: MessageId, *, audience: Audience
    ) -> AsyncGenerator[TurnEvent, None]:
        """Answer a stored question that got no answer; one that has an answer yields that one.

        Raises:
            TurnFailed: as for `answer`; also when the audience has no such question.
        """

        async def known() -> MessageId:
            return message_id

        async with contextlib.aclosing(self._answered(known, audience, _Clock())) as events:
            async for event in events:
                yield event

    async def _answered(
        self, store: Callable[[], Awaitable[MessageId]], audience: Audience, clock: _Clock
    ) -> AsyncGenerator[TurnEvent, None]:
        """Answer the question that `store` names, unless it has an answer; map every failure."""
        message_id: MessageId | None = None
        try:
            message_id = await store()
            lock = self._answering.setdefault(message_id, asyncio.Lock())
            async with lock:  # a redelivery waits here and finds the answer
                stored = await self._conversations.question(message_id, audience=audience)
                yield Searching(message_id=message_id)
                if stored.answer is not None:
                    yield Answered(answer=_restored(stored.answer))
                    return
                turn = _Turn(
                    message_id=message_id, audience=audience, text=stored.text, clock=clock
                )
                events = self._take(turn, stored)
                async with contextlib.aclosing(events):
                    async for event in events:
                        yield event
        except (EngineError, StorageError) as error:
            logger.warning("turn failed: %s", error, extra={"action": "turn_failed"})
            raise TurnFailed(replies.reply_to(error), message_id=message_id) from error

    async def _take(self, turn: _Turn, stored: StoredTurn) -> AsyncGenerator[TurnEvent, None]:
        reading = await self._understand(turn, stored)
        if reading.score < self._search_settings.threshold:
            yield Answered(answer=await self._not_found(turn))
            return
        turn.sources = await self._select(turn, reading)
        yield SourcesFound(sources=turn.sources)
        finish: FinishReason = "stopped"
        try:
            events = self._stream(turn)
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, str):
                        finish = "length" if event == "length" else "stop"
                    else:
                        yield event
        except (asyncio.CancelledError, GeneratorExit):
            await self._store_stopped(turn)
            raise
        answer = await self._conclude(turn, finish)
        if rest := turn.preview.show(answer.text):
            yield TextDelta(text=rest)
        yield Answered(answer=answer)

    # -- Finding ----------------------------------------------------------------------------------

    async def _understand(self, turn: _Turn, stored: StoredTurn) -> Reading:
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

    async def _select(self, turn: _Turn, reading: Reading) -> tuple[Source, ...]:
        units = sources.units_of(reading.hits)
        titles = [sources.title(hit) for hit in reading.hits]
        counts = await turn.clock.engine(
            self._engine.count_tokens(
                [*(unit.text for unit in units), *titles], model=self._settings.model
            )
        )
        return sources.select(
            reading.query,
            reading.hits,
            units,
            unit_tokens=counts[: len(units)],
            title_tokens=counts[len(units) :],
            max_tokens=self._settings.max_source_tokens,
        )

    # -- Answering --------------------------------------------------------------------------------

    async def _stream(self, turn: _Turn) -> AsyncGenerator[TextDelta | str, None]:
        """Yield the preview, and at the end the reason why the model ended."""
        messages = _messages(turn)
        turn.prompt_sha256 = _sha256(messages)
        citer, allowed = _citer(turn), _texts(turn.sources)
        turn.preview = Preview(
            render=lambda raw: citer.cite(neutral(raw, allowed=allowed), complete=False).text
        )
        sampling = Sampling(
            max_tokens=self._settings.max_answer_tokens,
            temperature=self._settings.temperature,
            stop=STOP_TEXTS,
        )
        begun = perf_counter()
        chat = self._engine.chat(messages, model=self._settings.model, sampling=sampling)
        async with contextlib.aclosing(chat):
            while True:
                delta = await turn.clock.engine(anext(chat))
                turn.model = delta.model or turn.model
                if delta.finish_reason is not None:
                    turn.prompt_tokens = delta.prompt_tokens
                    turn.completion_tokens = delta.completion_tokens
                    yield delta.finish_reason
                    return
                turn.clock.first_token_s = turn.clock.first_token_s or perf_counter() - begun
                turn.completion_tokens += 1
                shown = turn.preview.push(delta.text)
                raw = turn.preview.raw
                start = repetition_start(raw, sentence_spans(raw, (0, len(raw))))
                if start is not None:
                    turn.preview.raw = raw[:start]
                    yield "stop"
                    return
                if shown:
                    yield TextDelta(text=shown)

    async def _conclude(self, turn: _Turn, finish: FinishReason) -> Answer:
        """Check the citations, and store the answer."""
        raw = neutral(turn.preview.raw, allowed=_texts(turn.sources))
        cited = _citer(turn).cite(raw)
        text, quoted = cited.text, cited.citations
        if not quoted and finish != "stopped":
            quoted = (citations.closest(_asked(turn), turn.sources),)
            text = "\n\n".join(part for part in (text, replies.closest_passage(quoted[0])) if part)
        named = {citation.number for citation in quoted}
        # A link may stay only if a document that the answer cites holds it.
        text = neutral(text, allowed=_texts([s for s in turn.sources if s.number in named]))
        return await self._save(turn, text, found=True, finish=finish, citations=quoted)

    async def _not_found(self, turn: _Turn) -> Answer:
        documents = await self._documents.list(audience=turn.audience)
        finish: FinishReason = "not_found" if documents else "no_documents"
        text = replies.NOT_FOUND if documents else replies.NO_DOCUMENTS
        if documents and not any(document.searchable for document in documents):
            unsettled = any(document.status != "failed" for document in documents)
            text = replies.STILL_READING if unsettled else replies.NO_DOCUMENTS
        return await self._save(turn, text, found=False, finish=finish)

    async def _store_stopped(self, turn: _Turn) -> None:
        if not turn.preview.raw.strip():
            return
        storing = asyncio.ensure_future(self._conclude(turn, "stopped"))
        try:
            await asyncio.wait_for(asyncio.shield(storing), STORE_STOPPED_TIMEOUT_S)
        except (StorageError, TimeoutError) as error:
            logger.warning("stopped answer lost: %s", error, extra={"action": "answer_not_stored"})

    async def _save(
        self,
        turn: _Turn,
        text: str,
        *,
        found: bool,
        finish: FinishReason,
        citations: tuple[Citation, ...] = (),
    ) -> Answer:
        quotes = {citation.number: citation.quote for citation in citations}
        timings = turn.clock.timings()
        answer_id = await self._conversations.save_answer(
            turn.message_id,
            audience=turn.audience,
            text=text,
            found=found,
            finish_reason=finish,
            model=turn.model,
            prompt_sha256=turn.prompt_sha256,
            prompt_tokens=turn.prompt_tokens,
            completion_tokens=turn.completion_tokens,
            timings_ms=asdict(timings),
            sources=[
                AnswerSource(
                    number=source.number,
                    chunk_id=source.chunk_id,
                    document_id=source.document_id,
                    document=source.document,
                    page=source.page,
                    heading=source.heading,
                    score=source.score,
                    quote=quotes.get(source.number),
                )
                for source in turn.sources
            ],
        )
        timings = turn.clock.timings()
        logger.info(
            "turn answered",
            extra={"action": "turn_answered", "found": found, "finish_reason": finish}
            | {name: round(value) for name, value in asdict(timings).items()},
        )
        return Answer(
            id=answer_id,
            message_id=turn.message_id,
            text=text,
            found=found,
            finish_reason=finish,
            citations=citations,
            model=turn.model,
            prompt_tokens=turn.prompt_tokens,
            completion_tokens=turn.completion_tokens,
            timings=timings,
        )


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


def _messages(turn: _Turn) -> list[ChatMessage]:
    history: list[ChatMessage] = []
    for earlier in turn.history:
        said = earlier.answer.text if earlier.answer else ""
        history += [
            ChatMessage(role="user", content=earlier.text),
            ChatMessage(role="assistant", content=said[:HISTORY_ANSWER_CHARACTERS]),
        ]
    return rag_messages(
        question=turn.text,
        history=history,
        sources=[
            PromptSource(number=source.number, title=sources.title(source), text=source.text)
            for source in turn.sources
        ],
    )


def _asked(turn: _Turn) -> str:
    """The question with what it refers to."""
    return "\n".join([*(earlier.text for earlier in turn.history), turn.text])


def _citer(turn: _Turn) -> citations.Citer:
    return citations.Citer(question=_asked(turn), sources=turn.sources)


def _sha256(messages: Sequence[ChatMessage]) -> str:
    text = json.dumps([asdict(message) for message in messages], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _texts(shown: Sequence[Source]) -> str:
    return "\n".join(source.text for source in shown)


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
            Citation(
                number=source.number,
                chunk_id=source.chunk_id,
                document_id=source.document_id,
                document=source.document,
                page=source.page,
                heading=source.heading,
                quote=source.quote,
            )
            for source in stored.sources
            if source.quote is not None
        ),
        model=stored.model,
        prompt_tokens=stored.prompt_tokens,
        completion_tokens=stored.completion_tokens,
        timings=Timings(**stored.timings_ms),
    )
