"""Accepted turns: real database, real queue, real engine; only the models' words are chosen."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from bots import channel_settings, replies
from bots.channel_settings import ChannelSettings
from bots.errors import TurnFailed
from bots.messages import (
    Answer,
    Answered,
    Delayed,
    Question,
    Queued,
    Searching,
    SourcesFound,
    TextDelta,
)
from bots.turns import AnyEvent, PendingTurn, Turns
from bots.workplace import PLACE, Workplace
from engine.client import EngineClient
from storage.conversations import StoredAnswer
from storage.errors import MessageNotFound
from storage.identity import Audience, MessageId
from storage.pool import Pool
from tests.bots.conftest import AddDocument, make_workplace
from tests.engine.serving import EngineProcess
from tests.fakes.scripted_model import FINGERPRINT, ScriptedModel

WITHIN_S = 30.0
HANDBOOK = "# Leave\n\nFull-time employees receive 27 days of paid leave each year.\n"
QUESTION = "How many days of paid leave do employees receive?"
UNKNOWN = "Which proteins bind to the mitochondrial membrane?"
FIRST = "Employees receive 27 days of paid leave each year [1]."
SECOND = "It is 27 days of paid leave [1]."
PLACE_OF_ADA: dict[str, Any] = {**PLACE, "member": "ada"}


@pytest.fixture(scope="session")
def ports() -> tuple[int, int, int]:
    """Of two models and their engine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        first, second, engine = (int(opened.getsockname()[1]) for opened in sockets)
    return first, second, engine


@pytest.fixture(scope="session")
def engine(
    ports: tuple[int, int, int], default_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    """An engine with the real embedder and two models."""
    with EngineProcess(
        home=tmp_path_factory.mktemp("turns-engine"),
        models={
            "first": ScriptedModel(ports[0]).source,
            "second": ScriptedModel(ports[1]).source,
        },
        live="first",
        embedder=f"ctranslate2:{default_models / 'all-minilm-l6-v2'}",
        port=ports[2],
        replicas=1,
    ) as engine:
        yield engine


@pytest.fixture
async def first(ports: tuple[int, int, int]) -> AsyncIterator[ScriptedModel]:
    """The model that answers."""
    async with ScriptedModel(ports[0]) as model:
        model.script = lambda prompt: FIRST
        yield model


@pytest.fixture
async def second(ports: tuple[int, int, int]) -> AsyncIterator[ScriptedModel]:
    """The model that it is compared with."""
    async with ScriptedModel(ports[1]) as model:
        model.script = lambda prompt: SECOND
        yield model


@pytest.fixture
async def workplace(
    pool: Pool, engine: EngineProcess, first: ScriptedModel, tmp_path: Path
) -> AsyncIterator[Workplace]:
    """On that engine."""
    async with EngineClient(url=engine.url) as client:
        yield make_workplace(pool, client, tmp_path)


@dataclass
class Screen:
    """A surface that keeps what it was given."""

    turns: list[PendingTurn] = field(default_factory=list)
    seen: dict[MessageId, list[AnyEvent]] = field(default_factory=dict)
    failed: list[TurnFailed] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def deliver(self, turn: PendingTurn) -> None:
        self.turns.append(turn)
        seen = self.seen.setdefault(turn.message_id, [])
        try:
            async with contextlib.aclosing(turn.events()) as events:
                async for event in events:
                    seen.append(event)
                    self._changed.set()
        except TurnFailed as error:
            self.failed.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def all(self) -> list[AnyEvent]:
        return [event for seen in self.seen.values() for event in seen]

    def answers(self) -> list[Answer]:
        plain = [event[1] if isinstance(event, tuple) else event for event in self.all()]
        return [event.answer for event in plain if isinstance(event, Answered)]

    def text(self) -> str:
        return "".join(event.text for event in self.all() if isinstance(event, TextDelta))


@asynccontextmanager
async def _running(turns: Turns, screen: Screen) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(turns.run(screen.deliver))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _turns(workplace: Workplace, *, max_concurrent: int = 4) -> Turns:
    return Turns(workplace=workplace, surface="test", max_concurrent=max_concurrent)


async def _ada(workplace: Workplace) -> Audience:
    return await workplace.identities.resolve(**PLACE_OF_ADA)


async def _question(workplace: Workplace, ref: str, text: str = QUESTION) -> Question:
    audience = await _ada(workplace)
    return Question(
        text=text,
        audience=audience,
        thread_ref=ref,
        message_ref=ref,
        author_id=audience.member_id,
    )


async def test_a_redelivered_question_is_answered_once(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    turns, screen = _turns(workplace), Screen()
    question = await _question(workplace, "m1")
    assert await turns.accept(question, place=PLACE_OF_ADA)
    assert not await turns.accept(question, place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(screen.answers)
        assert not await turns.accept(question, place=PLACE_OF_ADA)
        assert await turns.accept(await _question(workplace, "m2"), place=PLACE_OF_ADA)
        await screen.until(lambda: len(screen.answers()) == 2)
    assert len(screen.turns) == 2
    assert first.begun == 2
    answer = screen.answers()[0]
    assert "27 days" in answer.text
    assert answer.citations
    kinds = [type(event) for event in screen.seen[answer.message_id]]
    assert kinds[:2] == [Searching, SourcesFound]
    assert kinds[-1] is Answered


async def test_a_stop_in_any_process_keeps_what_was_said_and_delivers_it(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    first.may_end.clear()
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(screen.text)
        [turn] = screen.turns
        elsewhere = _turns(workplace)  # the process that hears of the click
        assert await elsewhere.stop(turn.message_id)
        await screen.until(screen.answers)
        assert not await elsewhere.stop(MessageId(turn.audience.place_id))
    [answer] = screen.answers()
    assert answer.finish_reason == "stopped"
    assert answer.text.startswith(screen.text().rstrip())
    assert first.cancelled == 1
    stored = await workplace.conversations.question(turn.message_id, audience=turn.audience)
    assert stored.answer is not None
    assert (stored.answer.id, stored.answer.text) == (answer.id, answer.text)
    assert stored.answer.prompt_tokens > 50


async def test_a_model_that_repeats_itself_is_ended_and_shown_once(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    once = "Full-time employees receive 27 days of paid leave each year."
    first.script = lambda prompt: " ".join([once] * 40)
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(screen.answers)
    [answer] = screen.answers()
    assert (answer.text, answer.finish_reason) == (f"{once} [1]", "stop")
    assert screen.text() == answer.text
    [turn] = screen.turns
    stored = await workplace.conversations.question(turn.message_id, audience=turn.audience)
    assert stored.answer is not None
    # The model was left before it told its usage: the engine counted.
    assert stored.answer.prompt_tokens == answer.prompt_tokens > 50


async def test_a_stop_outlives_the_process_that_was_to_answer(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    first.may_begin.clear()
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(screen.all)
        message_id = screen.turns[0].message_id
    assert await _turns(workplace).stop(message_id)
    async with _running(_turns(workplace), screen):
        await screen.until(screen.answers)
    assert [answer.text for answer in screen.answers()] == [replies.STOPPED]
    assert not await turns.stop(message_id)


async def test_turns_wait_in_line_and_know_their_position(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    first.may_begin.clear()
    turns, screen = _turns(workplace, max_concurrent=1), Screen()
    for ref in ("m1", "m2", "m3"):
        await turns.accept(await _question(workplace, ref), place=PLACE_OF_ADA)

    def positions() -> list[list[int]]:
        return [
            [event.position for event in seen if isinstance(event, Queued)]
            for seen in screen.seen.values()
        ]

    async with _running(turns, screen):
        await screen.until(lambda: positions() == [[], [1], [2]])
        assert await turns.stop(screen.turns[1].message_id)
        await screen.until(lambda: positions() == [[], [1], [2, 1]])
        first.may_begin.set()
        await screen.until(lambda: len(screen.answers()) == 3)
    assert first.begun == 2
    stopped = next(answer for answer in screen.answers() if answer.finish_reason == "stopped")
    assert (stopped.text, stopped.message_id) == (replies.STOPPED, screen.turns[1].message_id)


async def test_an_engine_that_is_down_delays_the_answer_and_loses_nothing(
    workplace: Workplace, add_document: AddDocument, engine: EngineProcess
) -> None:
    await add_document("handbook.md", HANDBOOK)
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    engine.stop()
    try:
        async with _running(turns, screen):
            await screen.until(screen.all)
            await screen.until(lambda: isinstance(screen.all()[-1], Delayed))
            engine.__enter__()
            await screen.until(screen.answers)
    finally:
        if engine.process.poll() is not None:
            engine.__enter__()
    delayed = next(event for event in screen.all() if isinstance(event, Delayed))
    assert "model does not answer" in delayed.reply.text
    assert "the answer appears here" in delayed.reply.text
    assert {turn.message_id for turn in screen.turns} == {screen.answers()[0].message_id}
    assert screen.turns[-1].attempt > 0
    assert screen.answers()[0].found


@pytest.mark.parametrize("kind", ["answer", "compare"])
async def test_a_delayed_turn_can_be_stopped(
    workplace: Workplace,
    add_document: AddDocument,
    first: ScriptedModel,
    second: ScriptedModel,
    kind: Literal["answer", "compare"],
) -> None:
    await add_document("handbook.md", HANDBOOK)
    first.failing = second.failing = 503
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA, kind=kind)
    async with _running(turns, screen):
        await screen.until(lambda: any(isinstance(event, Delayed) for event in screen.all()))
        assert await turns.stop(screen.turns[0].message_id)
        await screen.until(screen.answers)
    assert {answer.text for answer in screen.answers()} == {replies.STOPPED}
    assert len(screen.answers()) == (2 if kind == "compare" else 1)


async def test_a_slow_engine_is_said_to_be_slow(
    workplace: Workplace,
    add_document: AddDocument,
    first: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bots.turns.SLOW_AFTER_S", 0.05)
    await add_document("handbook.md", HANDBOOK)
    first.may_begin.clear()
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(lambda: Delayed(reply=replies.SLOW) in screen.all())
        first.may_begin.set()
        await screen.until(screen.answers)
    assert len(screen.turns) == 1


async def test_a_turn_of_a_cancelled_runner_is_finished_by_the_next(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel, pool: Pool
) -> None:
    await add_document("handbook.md", HANDBOOK)
    first.may_end.clear()
    await _turns(workplace).accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    cut = Screen()
    async with _running(_turns(workplace), cut):
        await cut.until(cut.text)
    audience = await _ada(workplace)
    message_id = cut.turns[0].message_id
    assert await workplace.conversations.answers(message_id, audience=audience) == []
    first.may_end.set()
    screen = Screen()
    async with _running(_turns(workplace), screen):
        await screen.until(screen.answers)
    [answer] = screen.answers()
    assert (answer.message_id, answer.finish_reason) == (message_id, "stop")
    stored = await workplace.conversations.answers(message_id, audience=audience)
    assert [one.id for one in stored] == [answer.id]
    assert await _jobs(pool) == 0


async def test_another_answer_replaces_the_first_once(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    turns, screen = _turns(workplace), Screen()
    audience = await _ada(workplace)
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(screen.answers)
        before = screen.answers()[0]
        first.script = lambda prompt: SECOND
        again = [
            await turns.again(before.message_id, audience=audience, place=PLACE_OF_ADA)
            for _ in range(2)
        ]
        await screen.until(lambda: len(screen.answers()) == 2)
    assert again == [True, False]
    after = screen.answers()[1]
    stored = await workplace.conversations.answers(before.message_id, audience=audience)
    assert [(one.id, one.current) for one in stored] == [(before.id, False), (after.id, True)]
    assert [one.params["temperature"] for one in stored] == [0.0, 0.7]
    assert [one.params["weights"] for one in stored] == [FINGERPRINT, FINGERPRINT]
    assert "27 days of paid leave" in after.text
    assert after.text != before.text
    # Whoever runs the same job again, after a crash, finds that it was done.
    repeated = workplace.assistant.regenerate(
        before.message_id, audience=audience, replaces=before.id
    )
    events = [event async for event in repeated]
    assert isinstance(events[-1], Answered)
    assert events[-1].answer.id == after.id
    with pytest.raises(MessageNotFound):
        await turns.again(MessageId(before.id), audience=audience, place=PLACE_OF_ADA)


async def test_a_comparison_stores_two_models_answers_over_the_same_sources(
    workplace: Workplace, add_document: AddDocument, second: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    turns, screen = _turns(workplace), Screen()
    question = await _question(workplace, "m1")
    await turns.accept(question, place=PLACE_OF_ADA, kind="compare")
    async with _running(turns, screen):
        await screen.until(lambda: len(screen.answers()) == 2)
    indices = [event[0] for event in screen.all() if isinstance(event, tuple)]
    assert indices[:4] == [0, 1, 0, 1]
    one, other = screen.answers()  # in the models' order, though the second one is shorter
    assert "Employees receive" in one.text
    assert other.text.startswith("It is 27 days")
    stored = await workplace.conversations.answers(one.message_id, audience=question.audience)
    assert {answer.id for answer in stored} == {one.id, other.id}
    by_id = {answer.id: answer for answer in stored}
    assert (by_id[one.id].current, by_id[other.id].current) == (True, False)
    assert [source.chunk_id for source in by_id[one.id].sources] == [
        source.chunk_id for source in by_id[other.id].sources
    ]


async def test_half_a_comparison_is_completed_later(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel, second: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    second.script = lambda prompt: " ".join(f"Day {n} is paid leave [1]." for n in range(27))
    second.may_end.clear()
    turns, cut, screen = _turns(workplace), Screen(), Screen()
    question = await _question(workplace, "m1")
    await turns.accept(question, place=PLACE_OF_ADA, kind="compare")

    async def stored() -> list[StoredAnswer]:
        message_id = cut.turns[0].message_id
        return await workplace.conversations.answers(message_id, audience=question.audience)

    async with _running(turns, cut):
        await second.begun_answers(1)
        async with asyncio.timeout(WITHIN_S):
            while not await stored():  # each look is a round trip
                pass
    assert cut.answers() == []
    [before] = await stored()
    second.may_end.set()
    async with _running(_turns(workplace), screen):
        await screen.until(lambda: len(screen.answers()) == 2)
    assert first.begun == 1
    assert [answer.id for answer in await stored()] == [answer.id for answer in screen.answers()]
    assert screen.answers()[0].id == before.id


async def test_nothing_found_is_nothing_to_compare(
    workplace: Workplace, add_document: AddDocument, first: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    turns, screen = _turns(workplace), Screen()
    question = await _question(workplace, "m1", UNKNOWN)
    await turns.accept(question, place=PLACE_OF_ADA, kind="compare")
    async with _running(turns, screen):
        await screen.until(screen.answers)
    [answer] = screen.answers()
    assert (answer.text, first.begun) == (replies.NOT_FOUND, 0)
    again = workplace.assistant.compare(
        answer.message_id, audience=question.audience, models=("first", "second")
    )
    restored = [event.answer.id async for _, event in again if isinstance(event, Answered)]
    assert restored == [answer.id]


async def test_the_channels_model_answers(
    workplace: Workplace, add_document: AddDocument, second: ScriptedModel
) -> None:
    await add_document("handbook.md", HANDBOOK)
    audience = await _ada(workplace)
    assert audience.channel_id is not None
    assert audience.member_id is not None
    await channel_settings.save(
        workplace.places,
        audience.channel_id,
        ChannelSettings(model="second"),
        by=audience.member_id,
    )
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(screen.answers)
    assert second.begun == 1


async def test_an_empty_question_fails_in_words(workplace: Workplace) -> None:
    turns, screen = _turns(workplace), Screen()
    await turns.accept(await _question(workplace, "m1", "  "), place=PLACE_OF_ADA)
    async with _running(turns, screen):
        await screen.until(lambda: screen.failed)
    assert screen.failed[0].reply.text == replies.EMPTY_QUESTION


async def test_a_surface_that_fails_again_and_again_says_so_at_last(
    workplace: Workplace, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.jobs.MAX_TURN_ATTEMPTS", 1)
    turns, screen = _turns(workplace), Screen()

    async def deliver(turn: PendingTurn) -> None:
        if not screen.turns:
            screen.turns.append(turn)
            raise LookupError("a bug")
        await screen.deliver(turn)

    await turns.accept(await _question(workplace, "m1"), place=PLACE_OF_ADA)
    task = asyncio.create_task(turns.run(deliver))
    await screen.until(lambda: screen.failed)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert screen.failed[0].reply == replies.BROKEN
    assert await _jobs(pool) == 0


async def _jobs(pool: Pool) -> int:
    async with pool.connection() as connection:
        rows = await connection.execute(
            "SELECT 1 FROM procrastinate_jobs WHERE queue_name = 'test'"
        )
        return len(await rows.fetchall())
