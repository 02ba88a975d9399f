"""What the benchmarks of the chat apps share: a ground to stand on, and what is done there.

The app is the process that a team starts, over real sockets, database, queue and engine. Its answer
times are measured with the default model; acks and the storm, where the model is not the point,
with one that answers at once.
"""

import asyncio
import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from storage.identity import Identities, Keys
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings
from tests.benchmarks import Row
from tests.benchmarks.answers import MODEL
from tests.benchmarks.corpus import EMBEDDER, load_embedding, xquad
from tests.benchmarks.database import temporary_database
from tests.benchmarks.retrieval import ingest_files, layouts
from tests.bots.app_process import AppProcess, eventually, no_turns
from tests.engine.serving import EngineProcess
from tests.fakes.scripted_model import NAME, ScriptedModel

ARTICLES = 4
CHANNELS = 10
IN_FLIGHT = 50
REPEAT_EVERY = 5
REACH_VISIBLE_MS = 500.0
REACH_ACK_MS = 500.0
REACH_MB = 150.0
STORM_DEADLINE_S = 900.0
ACK_DEADLINE_S = 60.0


class Shown(Protocol):
    """A message as a fake platform keeps it: what a reader saw, and when."""

    versions: list[str]
    times: list[float]


Asked = TypeVar("Asked")
Answer = TypeVar("Answer", bound=Shown)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A database with articles that a workspace knows, an engine, and questions about them."""

    home: Path
    database_url: str
    pool: Pool
    engine_url: str
    questions: list[str]


@asynccontextmanager
async def ground(
    platform: str, workspace: str, *, scripted: ScriptedModel | None
) -> AsyncIterator[Ground]:
    """Everything but the app.

    Args:
        platform: whose workspace it is.
        workspace: the platform's id of it.
        scripted: the model that answers; None = the default model.
    """
    models = (Path(os.environ.get("PARLEY_HOME", ".parley")) / "models").resolve()
    chat = {MODEL: f"ctranslate2:{models / MODEL}"}
    if scripted is not None:
        chat = {NAME: scripted.source}
    articles = xquad()[:ARTICLES]
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = await stack.enter_async_context(temporary_database())
        pool = await stack.enter_async_context(open_pool(url, settings=DatabaseSettings()))
        keys = Keys.load(home=home, secret=None)
        everybody = await Identities(pool=pool, keys=keys).resolve(
            platform=platform, workspace=workspace
        )
        files = layouts(articles)["article per file"]
        await ingest_files(pool, home, everybody, files, load_embedding())
        engine = stack.enter_context(
            EngineProcess(
                home=home,
                models=chat,
                live=next(iter(chat)),
                embedder=f"ctranslate2:{models / EMBEDDER}",
            )
        )
        parts = [part for article in articles for part in article["paragraphs"]]
        yield Ground(
            home=home,
            database_url=url,
            pool=pool,
            engine_url=engine.url,
            questions=[qa["question"] for part in parts for qa in part["qas"]],
        )


class Chat(ABC, Generic[Asked, Answer]):
    """A platform with the app beside it.

    Attributes:
        surface: name of the app's queue of questions.
        app: the app's process.
    """

    surface: str
    app: AppProcess
    ground: Ground

    @abstractmethod
    def ask(self, number: int) -> Asked:
        """Ask the numbered question."""

    @abstractmethod
    def repeat(self, asked: Asked) -> None:
        """Deliver a question once more."""

    @abstractmethod
    def asked_at(self, asked: Asked) -> float:
        """When it was asked, in monotonic seconds."""

    @abstractmethod
    def replies(self, asked: Asked) -> Sequence[Answer]:
        """Every message in answer to a question."""

    @abstractmethod
    def answers(self, asked: Asked) -> Sequence[Answer]:
        """Every finished answer to a question."""

    @abstractmethod
    async def acks_ms(self, numbers: Sequence[int]) -> list[float]:
        """Ask so many questions at once; how long each waited for its ack."""

    @abstractmethod
    async def vote(self, answer: Answer, *, positive: bool) -> bool:
        """Click, as a person would; whether the platform showed no error."""

    @abstractmethod
    async def connected(self) -> None:
        """Wait until the app has a socket."""

    @abstractmethod
    async def cut(self, number: int) -> None:
        """Break the app's socket in one way or another."""

    @abstractmethod
    async def room(self, asked: Sequence[Asked]) -> None:
        """Wait while too many questions are on their way."""

    @abstractmethod
    async def until(self, check: Callable[[], object], what: str) -> None:
        """Wait until a check is true."""

    def question(self, number: int) -> str:
        """The numbered question; they come round again."""
        return self.ground.questions[number % len(self.ground.questions)]

    async def idle(self) -> None:
        """Wait until no question is queued or answered."""
        waiting = partial(no_turns, self.ground.pool, self.surface)
        await eventually(waiting, "the app is idle", within_s=STORM_DEADLINE_S)


async def measure(
    site: Callable[[ScriptedModel | None], AbstractAsyncContextManager[Chat[Asked, Answer]]],
    *,
    acked: str,
    short: bool,
) -> list[Row]:
    """30 questions one by one, 500 acks, 500 questions in a storm; or few of each.

    Args:
        site: the platform with the app, with a scripted model or (None) the default one.
        acked: what an ack is there.
        short: few of each.
    """
    async with site(None) as chat:
        rows = await _visible(chat, count=3 if short else 30)
    async with ScriptedModel() as model, site(model) as chat:
        model.script = lambda prompt: "That is what the source says [1]."
        idle_mb = chat.app.resident_mb
        rows += await _acks(chat, model, what=acked, rounds=1 if short else 10)
        rows += await _storm(chat, count=30 if short else 500)
        rows.append(_memory("resident memory after the storm", chat.app.resident_mb))
        rows.append(_memory("resident memory, idle", idle_mb))
    return rows


def _memory(what: str, reached: float) -> Row:
    """A row about resident memory, in MB."""
    return Row(
        what=what, reached=f"{reached:.0f} MB", target=f"< {REACH_MB:.0f} MB", ok=reached < REACH_MB
    )


# ---------------------------------------------------------------- one by one


async def _visible(chat: Chat[Asked, Answer], *, count: int) -> list[Row]:
    """Ask one question after the other, each when the engine is idle again."""
    first = chat.ask(0)  # pays for connections
    await chat.until(lambda: chat.answers(first), "an answer")
    reply_ms, words_ms = [], []
    for number in range(1, count + 1):
        asked = chat.ask(number)
        await chat.until(partial(chat.answers, asked), "an answer")
        await chat.idle()
        replies, began = chat.replies(asked), chat.asked_at(asked)
        first_token_ms = await _first_token_ms(chat.ground.pool)
        seconds = min(time for reply in replies for time in reply.times) - began
        reply_ms.append(1000 * seconds)
        worded = _first_words(replies)
        if first_token_ms and worded is not None:
            words_ms.append(1000 * (worded - began) - first_token_ms)
    p95 = float(np.percentile(reply_ms, 95))
    return [
        Row(
            what=f"mention to first visible reply, p95 of {count}",
            reached=f"{p95:.0f} ms",
            target=f"< {REACH_VISIBLE_MS:.0f} ms + first token",
            ok=p95 < REACH_VISIBLE_MS,
        ),
        Row(
            what="mention to first visible words minus the engine's first token, p95",
            reached=f"{np.percentile(words_ms, 95):.0f} ms",
        ),
        Row(what="the same, median", reached=f"{np.median(words_ms):.0f} ms"),
    ]


def _first_words(replies: Sequence[Shown]) -> float | None:
    """When words of the answer first showed: words with which the finished answer begins."""
    for reply in replies:
        final = reply.versions[-1].lstrip()
        for shown, time in zip(reply.versions, reply.times, strict=True):
            words = shown.split()[:1]
            if words and final.startswith(words[0]):
                return time
    return None


async def _first_token_ms(pool: Pool) -> float:
    """The engine's first token of the latest answer; 0 where nothing was found."""
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT (timings_ms->>'first_token_ms')::float FROM answers"
            " ORDER BY created_at DESC LIMIT 1"
        )
        row = await found.fetchone()
    assert row is not None
    return float(row[0])


# ---------------------------------------------------------------- acks


async def _acks(
    chat: Chat[Asked, Answer], model: ScriptedModel, *, what: str, rounds: int
) -> list[Row]:
    """Ask 50 questions at once, again and again, while the model does not begin to answer."""
    model.may_begin.clear()
    found: list[float] = []
    for number in range(rounds):
        found += await chat.acks_ms(range(number * IN_FLIGHT, (number + 1) * IN_FLIGHT))
    model.may_begin.set()
    await chat.idle()
    p99 = float(np.percentile(found, 99))
    return [
        Row(
            what=f"{what} with {IN_FLIGHT} in flight, p99 of {len(found)}",
            reached=f"{p99:.0f} ms",
            target=f"< {REACH_ACK_MS:.0f} ms",
            ok=p99 < REACH_ACK_MS,
        )
    ]


# ---------------------------------------------------------------- the storm


async def _storm(chat: Chat[Asked, Answer], *, count: int) -> list[Row]:
    """Ask, repeat, cut and kill while people vote on what was answered."""
    begun = asyncio.get_running_loop().time()
    to_vote_on: asyncio.Queue[Asked] = asyncio.Queue()
    voting = asyncio.create_task(_vote_on_all(chat, to_vote_on, count))
    asked: list[Asked] = []
    cuts = [round(count * share) for share in (0.2, 0.5, 0.8)]
    killed, back = round(count * 0.4), round(count * 0.4) + max(1, count // 100)
    for number in range(count):
        if number == killed:
            await chat.app.kill()
        if number == back:
            await chat.app.start()
        asked.append(chat.ask(number))
        to_vote_on.put_nowait(asked[-1])
        if number % REPEAT_EVERY == 0:
            chat.repeat(asked[-1])
        if number in cuts:
            await chat.cut(cuts.index(number))
        if not killed <= number < back:  # with nobody there no room comes
            await chat.room(asked)
    voted = await asyncio.wait_for(voting, STORM_DEADLINE_S)
    await chat.idle()
    seconds = asyncio.get_running_loop().time() - begun
    once = sum(len(chat.answers(question)) == 1 for question in asked)
    kept = await _votes(chat.ground.pool)
    repeated = len(range(0, count, REPEAT_EVERY))
    return [
        Row(
            what=f"answered exactly once, of {count} questions ({repeated} delivered twice,"
            f" {len(cuts)} cuts, one kill -9)",
            reached=str(once),
            target=str(count),
            ok=once == count,
        ),
        Row(what="votes kept", reached=str(kept), target=str(voted), ok=kept == voted == count),
        Row(what="the storm took", reached=f"{seconds:.0f} s"),
    ]


async def _vote_on_all(
    chat: Chat[Asked, Answer], questions: asyncio.Queue[Asked], count: int
) -> int:
    """Vote on each answer when it is there, again while the click is not taken."""
    for number in range(count):
        asked = await questions.get()
        await chat.until(partial(chat.answers, asked), "an answer")
        while not await chat.vote(chat.answers(asked)[0], positive=number % 2 == 0):
            await chat.connected()
    return count


async def _votes(pool: Pool) -> int:
    async with pool.connection() as connection:
        found = await connection.execute("SELECT count(*) FROM votes")
        row = await found.fetchone()
    assert row is not None
    return int(row[0])
