"""One answer from one model over given sources: prompt, stream, check of citations, storage."""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, TypeVar

from bots import citations, replies, sources
from bots.messages import (
    Answer,
    Answered,
    Citation,
    FinishReason,
    Source,
    TextDelta,
    Timings,
)
from bots.neutral import Preview, neutral
from bots.settings import AssistantSettings
from engine.chat import Sampling
from engine.client import EngineClient
from engine.errors import EngineError
from engine.prompt import STOP_TEXTS, ChatMessage, PromptSource, rag_messages
from storage.answers import OWN_WORDS, WEIGHTS
from storage.conversations import AnswerSource, Conversations, StoredTurn
from storage.errors import StorageError
from storage.identity import Audience, MessageId

logger = logging.getLogger(__name__)

HISTORY_ANSWER_CHARACTERS = 300
"""What of an earlier answer a follow-up's prompt repeats."""
COUNT_TIMEOUT_S = 2.0
"""For counting the prompt of an answer that was ended early."""
STORE_STOPPED_TIMEOUT_S = 5.0
"""For storing what was said before a stop."""
SIDE = "side"
"""Among an answer's stored parameters: which one of a comparison's two it is."""

T = TypeVar("T")


@dataclass(kw_only=True)
class Clock:
    """Measures one answer, from the question's arrival on."""

    started: float = field(default_factory=perf_counter)
    search_s: float = 0.0
    first_token_s: float = 0.0
    engine_s: float = 0.0

    async def engine(self, waiting: Awaitable[T]) -> T:
        """Wait for the engine."""
        begun = perf_counter()
        try:
            return await waiting
        finally:
            self.engine_s += perf_counter() - begun

    def timings(self) -> Timings:
        """What was measured so far."""
        return Timings(
            search_ms=1000 * self.search_s,
            first_token_ms=1000 * self.first_token_s,
            engine_ms=1000 * self.engine_s,
            total_ms=1000 * (perf_counter() - self.started),
        )


@dataclass(kw_only=True)
class Turn:
    """What is known of a question so far.

    Attributes:
        history: the earlier turns that it refers to, oldest first.
    """

    message_id: MessageId
    audience: Audience
    text: str
    clock: Clock
    history: Sequence[StoredTurn] = ()
    sources: tuple[Source, ...] = ()

    @property
    def asked(self) -> str:
        """The question with what it refers to."""
        return "\n".join([*(earlier.text for earlier in self.history), self.text])


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one answer is asked for, and what becomes of it.

    Attributes:
        model: model or alias.
        temperature: 0 = greedy.
        current: whether it becomes the question's answer, as the first one does.
        replace: whether it takes the place of the present answer.
        side: which one of a comparison's two it is; None outside of comparisons.
    """

    model: str
    temperature: float
    current: bool = True
    replace: bool = False
    side: int | None = None


@dataclass(kw_only=True)
class _Draft:
    """An answer while it is written; the clock is a copy, as two may be written at once."""

    turn: Turn
    manner: Manner
    clock: Clock
    preview: Preview = field(default_factory=lambda: Preview(render=str))
    model: str = ""
    prompt: Sequence[ChatMessage] = ()
    params: dict[str, Any] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Writer:
    """Writes answers and stores them."""

    def __init__(
        self, *, engine: EngineClient, conversations: Conversations, settings: AssistantSettings
    ) -> None:
        self._engine = engine
        self._conversations = conversations
        self._settings = settings

    async def write(
        self, turn: Turn, manner: Manner, *, stop: asyncio.Event | None
    ) -> AsyncGenerator[TextDelta | Answered, None]:
        """Stream an answer over the turn's sources, and store it.

        Args:
            stop: None stores what was said whenever the iterator is closed or cancelled; an event
                only where it is set, because else somebody will have the turn taken again.

        Raises:
            EngineError, StorageError: nothing was stored.
        """
        draft = _Draft(turn=turn, manner=manner, clock=_copy(turn.clock))
        finish: FinishReason = "stopped"
        try:
            async with contextlib.aclosing(self._stream(draft)) as events:
                async for event in events:
                    if isinstance(event, str):
                        finish = "length" if event == "length" else "stop"
                    else:
                        yield event
        except (asyncio.CancelledError, GeneratorExit):
            if stop is None or stop.is_set():
                await self._store_stopped(draft)
            raise
        answer = await self._conclude(draft, finish)
        if rest := draft.preview.show(answer.text):
            yield TextDelta(text=rest)
        yield Answered(answer=answer)

    async def say(self, turn: Turn, manner: Manner, text: str, *, finish: FinishReason) -> Answer:
        """Store a sentence of ours as the answer."""
        draft = _Draft(turn=turn, manner=manner, clock=_copy(turn.clock))
        return await self._save(draft, text, found=False, finish=finish)

    async def _stream(self, draft: _Draft) -> AsyncGenerator[TextDelta | str, None]:
        """Yield the preview, and at the end the reason why the model ended."""
        turn = draft.turn
        draft.prompt = _messages(turn)
        citer, allowed = _citer(turn), _texts(turn.sources)
        draft.preview = Preview(
            render=lambda raw: citer.cite(neutral(raw, allowed=allowed), complete=False).text
        )
        sampling = Sampling(
            max_tokens=self._settings.max_answer_tokens,
            temperature=draft.manner.temperature,
            stop=STOP_TEXTS,
        )
        draft.params = asdict(sampling)
        begun = perf_counter()
        chat = self._engine.chat(draft.prompt, model=draft.manner.model, sampling=sampling)
        async with contextlib.aclosing(chat):
            while True:
                delta = await draft.clock.engine(anext(chat))
                draft.model = delta.model or draft.model
                if delta.fingerprint:
                    draft.params[WEIGHTS] = delta.fingerprint
                if delta.finish_reason is not None:
                    draft.preview.end()
                    draft.prompt_tokens = delta.prompt_tokens
                    draft.completion_tokens = delta.completion_tokens
                    yield delta.finish_reason
                    return
                draft.clock.first_token_s = draft.clock.first_token_s or perf_counter() - begun
                draft.completion_tokens += 1
                shown = draft.preview.push(delta.text)
                if draft.preview.loops:
                    yield "stop"
                    return
                if shown:
                    yield TextDelta(text=shown)

    async def _conclude(self, draft: _Draft, finish: FinishReason) -> Answer:
        """Check the citations, and store the answer."""
        turn = draft.turn
        if draft.prompt and not draft.prompt_tokens:
            draft.prompt_tokens = await self._prompt_tokens(draft)
        raw = neutral(draft.preview.raw, allowed=_texts(turn.sources))
        cited = _citer(turn).cite(raw)
        text, quoted = cited.text, cited.citations
        appended = ""
        if not quoted and finish != "stopped":
            quoted = (citations.closest(turn.asked, turn.sources),)
            appended = replies.closest_passage(quoted[0])
        named = {citation.number for citation in quoted}
        # A link may stay only if a document that the answer cites holds it.
        allowed = _texts([s for s in turn.sources if s.number in named])
        own = neutral(text, allowed=allowed)
        draft.params[OWN_WORDS] = len(own)
        text = "\n\n".join(part for part in (own, neutral(appended, allowed=allowed)) if part)
        return await self._save(draft, text, found=True, finish=finish, citations=quoted)

    async def _prompt_tokens(self, draft: _Draft) -> int:
        """The count of an answer that ended before the engine told it; 0 where nobody can."""
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                return await self._engine.count_prompt(draft.prompt, model=draft.manner.model)
        except (EngineError, TimeoutError):
            return 0

    async def _store_stopped(self, draft: _Draft) -> None:
        if not draft.preview.raw.strip():
            return
        storing = asyncio.ensure_future(self._conclude(draft, "stopped"))
        try:
            await asyncio.wait_for(asyncio.shield(storing), STORE_STOPPED_TIMEOUT_S)
        except (StorageError, TimeoutError) as error:
            logger.warning("stopped answer lost: %s", error, extra={"action": "answer_not_stored"})

    async def _save(
        self,
        draft: _Draft,
        text: str,
        *,
        found: bool,
        finish: FinishReason,
        citations: tuple[Citation, ...] = (),
    ) -> Answer:
        turn, manner = draft.turn, draft.manner
        prompt = [asdict(message) for message in draft.prompt]
        side = {} if manner.side is None else {SIDE: manner.side}
        answer_id = await self._conversations.save_answer(
            turn.message_id,
            audience=turn.audience,
            text=text,
            found=found,
            finish_reason=finish,
            model=draft.model,
            prompt_sha256=_sha256(prompt) if prompt else "",
            prompt_tokens=draft.prompt_tokens,
            completion_tokens=draft.completion_tokens,
            timings_ms=asdict(draft.clock.timings()),
            sources=_stored(turn.sources, citations),
            current=manner.current,
            replace=manner.replace,
            prompt=prompt or None,
            params={**draft.params, **side},
        )
        timings = draft.clock.timings()
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
            model=draft.model,
            prompt_tokens=draft.prompt_tokens,
            completion_tokens=draft.completion_tokens,
            timings=timings,
        )


def _copy(clock: Clock) -> Clock:
    return Clock(started=clock.started, search_s=clock.search_s, engine_s=clock.engine_s)


def _messages(turn: Turn) -> list[ChatMessage]:
    """The prompt; what nobody replied to is part of what is asked next."""
    history: list[ChatMessage] = []
    said: list[str] = []
    for earlier in turn.history:
        said.append(earlier.text)
        if earlier.answer is not None:
            reply = earlier.answer.text[:HISTORY_ANSWER_CHARACTERS]
            history += [
                ChatMessage(role="user", content="\n".join(said)),
                ChatMessage(role="assistant", content=reply),
            ]
            said = []
    return rag_messages(
        question="\n".join([*said, turn.text]),
        history=history,
        sources=[
            PromptSource(number=source.number, title=sources.title(source), text=source.text)
            for source in turn.sources
        ],
    )


def _citer(turn: Turn) -> citations.Citer:
    return citations.Citer(question=turn.asked, sources=turn.sources)


def _sha256(prompt: Sequence[Mapping[str, str]]) -> str:
    return hashlib.sha256(json.dumps(prompt, ensure_ascii=False).encode()).hexdigest()


def _texts(shown: Sequence[Source]) -> str:
    return "\n".join(source.text for source in shown)


def _stored(shown: Sequence[Source], cited: Sequence[Citation]) -> list[AnswerSource]:
    quotes = {citation.number: citation.quote for citation in cited}
    return [
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
        for source in shown
    ]
