"""The Slack app against a Slack of our own: `python -m tests.benchmarks slack [--short]`.

The app is the process that a team starts, over real sockets, database, queue and engine. Its answer
times are measured with the default model; acks and the storm, where the model is not the point,
with one that answers at once.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from storage.identity import Identities, Keys
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings
from tests.benchmarks import Row
from tests.benchmarks.answers import MODEL
from tests.benchmarks.corpus import EMBEDDER, load_embedding, xquad
from tests.benchmarks.database import temporary_database
from tests.benchmarks.retrieval import ingest_files, layouts
from tests.bots.app_process import eventually, no_turns
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.engine.serving import EngineProcess
from tests.fakes.scripted_model import NAME, ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person

ARTICLES = 4
CHANNELS = 10
IN_FLIGHT = 50
REDELIVER_EVERY = 5
REACH_VISIBLE_MS = 500.0
REACH_ACK_MS = 500.0
REACH_MB = 150.0
STORM_DEADLINE_S = 900.0
ACK_DEADLINE_S = 60.0


@dataclass(kw_only=True)
class Site:
    """A Slack with channels, the app beside it, and what it knows."""

    slack: SlackServer
    app: SlackProcess
    pool: Pool
    asker: Person
    channels: list[Channel]
    questions: list[str]
    idle_mb: float

    def ask(self, number: int) -> Message:
        """Mention the app with the numbered question."""
        question = self.questions[number % len(self.questions)]
        channel = self.channels[number % len(self.channels)]
        return self.slack.say(self.asker, channel, f"{self.slack.mention} {question}")


def run(*, short: bool) -> list[Row]:
    """30 questions one by one, 500 acks, 500 questions in a storm; or few of each."""
    return asyncio.run(_run(short=short))


async def _run(*, short: bool) -> list[Row]:
    async with _site(scripted=None) as site:
        rows = await _visible(site, count=3 if short else 30)
    async with ScriptedModel() as model, _site(scripted=model) as site:
        model.script = lambda prompt: "That is what the source says [1]."
        rows += await _acks(site, model, rounds=1 if short else 10)
        rows += await _storm(site, count=30 if short else 500)
        rows.append(_memory("resident memory after the storm", site.app.resident_mb))
        rows.append(_memory("resident memory, idle", site.idle_mb))
    return rows


def _memory(what: str, reached: float) -> Row:
    return Row(
        what=what, reached=f"{reached:.0f} MB", target=f"< {REACH_MB:.0f} MB", ok=reached < REACH_MB
    )


@asynccontextmanager
async def _site(*, scripted: ScriptedModel | None) -> AsyncIterator[Site]:
    """Everything, running.

    Args:
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
        slack = await stack.enter_async_context(SlackServer())
        keys = Keys.load(home=home, secret=None)
        everybody = await Identities(pool=pool, keys=keys).resolve(
            platform="slack", workspace=slack.home.id
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
        asker = slack.add_person("Ana")
        app = await stack.enter_async_context(
            SlackProcess(slack, home=home, database_url=url, engine_url=engine.url)
        )
        yield Site(
            slack=slack,
            app=app,
            pool=pool,
            asker=asker,
            channels=[slack.add_channel(f"team-{number}", asker) for number in range(CHANNELS)],
            questions=[
                qa["question"]
                for article in articles
                for part in article["paragraphs"]
                for qa in part["qas"]
            ],
            idle_mb=app.resident_mb,
        )


# ---------------------------------------------------------------- one by one


async def _visible(site: Site, *, count: int) -> list[Row]:
    """Ask one question after the other, each when the engine is idle again."""
    await site.slack.answer_to(site.ask(0))  # pays for connections
    reply_ms, words_ms = [], []
    for number in range(1, count + 1):
        asked = site.ask(number)
        await site.slack.answer_to(asked)
        await _idle(site)
        replies = site.slack.replies(asked)
        first_token_ms = await _first_token_ms(site.pool)
        seconds = min(time for reply in replies for time in reply.times) - asked.times[0]
        reply_ms.append(1000 * seconds)
        worded = _first_words(replies)
        if first_token_ms and worded is not None:
            words_ms.append(1000 * (worded - asked.times[0]) - first_token_ms)
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


def _first_words(replies: list[Message]) -> float | None:
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


async def _idle(site: Site) -> None:
    """Wait until no question is queued or answered."""

    await eventually(
        partial(no_turns, site.pool, "slack"), "the app is idle", within_s=STORM_DEADLINE_S
    )


# ---------------------------------------------------------------- acks


async def _acks(site: Site, model: ScriptedModel, *, rounds: int) -> list[Row]:
    """Send 50 events at once, again and again, while the model does not begin to answer."""
    model.may_begin.clear()
    acks: list[float] = []
    asked: list[Message] = []
    for number in range(rounds):
        before = len(site.slack.sockets.deliveries)
        for index in range(IN_FLIGHT):
            channel = site.channels[index % CHANNELS]
            question = site.questions[(number * IN_FLIGHT + index) % len(site.questions)]
            text = f"{site.slack.mention} {question}"
            asked.append(site.slack.say(site.asker, channel, text, only="app_mention"))
        sent = site.slack.sockets.deliveries[before : before + IN_FLIGHT]
        for delivery in sent:
            await delivery.acknowledged(ACK_DEADLINE_S)
        acks += [1000 * a.ack_s for d in sent for a in d.attempts if a.ack_s is not None]
    model.may_begin.set()
    await _idle(site)
    p99 = float(np.percentile(acks, 99))
    return [
        Row(
            what=f"ack with {IN_FLIGHT} events in flight, p99 of {len(acks)}",
            reached=f"{p99:.0f} ms",
            target=f"< {REACH_ACK_MS:.0f} ms",
            ok=p99 < REACH_ACK_MS,
        )
    ]


# ---------------------------------------------------------------- the storm


async def _storm(site: Site, *, count: int) -> list[Row]:
    """Ask, redeliver, cut and kill while people vote on what was answered."""
    begun = asyncio.get_running_loop().time()
    to_vote_on: asyncio.Queue[Message] = asyncio.Queue()
    voting = asyncio.create_task(_vote_on_all(site, to_vote_on, count))
    sockets, asked = site.slack.sockets, []
    cuts = {round(count * share) for share in (0.2, 0.5, 0.8)}
    redelivered = range(0, count, REDELIVER_EVERY)
    for number in range(count):
        before = len(sockets.deliveries)
        asked.append(site.ask(number))
        to_vote_on.put_nowait(asked[-1])
        if number in redelivered:
            site.slack.redeliver(sockets.deliveries[before])
        if number in cuts:
            await (await sockets.connected())[0].cut()
        if number == round(count * 0.4):
            await site.app.kill()
            await site.app.start()
        if len(sockets.pending) >= IN_FLIGHT:
            await site.slack.until(
                lambda: len(sockets.pending) < IN_FLIGHT, "room", within_s=STORM_DEADLINE_S
            )
    voted = await asyncio.wait_for(voting, STORM_DEADLINE_S)
    await _idle(site)
    seconds = asyncio.get_running_loop().time() - begun
    answers = [len(_answers(site, message)) for message in asked]
    kept = await _votes(site.pool)
    once = sum(number == 1 for number in answers)
    return [
        Row(
            what=f"answered exactly once, of {count} questions ({len(redelivered)} redelivered,"
            f" {len(cuts)} cuts, one kill -9)",
            reached=str(once),
            target=str(count),
            ok=once == count,
        ),
        Row(what="votes kept", reached=str(kept), target=str(voted), ok=kept == voted == count),
        Row(what="the storm took", reached=f"{seconds:.0f} s"),
    ]


def _answers(site: Site, asked: Message) -> list[Message]:
    """Every message that answers a question."""
    return [reply for reply in site.slack.replies(asked) if "parley_feedback" in reply.elements]


async def _vote_on_all(site: Site, questions: asyncio.Queue[Message], count: int) -> int:
    """Vote on each answer when it is there, again while the click is not taken."""
    for number in range(count):
        asked = await questions.get()
        [answer, *_] = await site.slack.until(
            partial(_answers, site, asked), "an answer", within_s=STORM_DEADLINE_S
        )
        while not await _vote(site, answer, positive=number % 2 == 0):
            await site.slack.sockets.connected()
    return count


async def _vote(site: Site, answer: Message, *, positive: bool) -> bool:
    """Click, as a person would; whether Slack showed no error."""
    click = site.slack.click(
        site.asker, answer, "parley_feedback", side="positive" if positive else "negative"
    )
    await click.finished.wait()
    return click.acked


async def _votes(pool: Pool) -> int:
    async with pool.connection() as connection:
        found = await connection.execute("SELECT count(*) FROM votes")
        row = await found.fetchone()
    assert row is not None
    return int(row[0])
