"""Votes on their way to Argilla: `python -m tests.benchmarks feedback [--short]`.

`parley up` runs database, relay and Argilla as a team's machine does (no engine: nothing is asked).
Votes are cast through `Feedback`; what arrived is counted through Argilla's own interface.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from feedback import Feedback
from feedback.argilla_server import credentials
from feedback.records import workspace_name
from feedback.settings import ArgillaSettings
from storage.conversations import Conversations
from storage.embedded import EmbeddedPostgres
from storage.errors import StorageUnavailable
from storage.identity import AnswerId, Audience, Identities, Keys
from storage.outbox import Outbox
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings
from tests.benchmarks import Row
from tests.conftest import CHECKOUT

VOTERS = 20
RATE_PER_S = 200
START_S = 300.0
DEADLINE_S = 900.0
QUESTION = "When does the handbook say that the launch is, and who decides it?"
EXCERPT = "[1] handbook.pdf, page 3\n" + "    The launch is in October, as the team decided. " * 24


def run(*, short: bool) -> list[Row]:
    """Commit, arrival, backlog, kills, memory."""
    return asyncio.run(_measure(short=short))


async def _measure(*, short: bool) -> list[Row]:
    async with _site() as site:
        rows = await _commits(site, seconds=2 if short else 15)
        rows += await _arrivals(site, count=5 if short else 40)
        rows += await _backlog(site, count=500 if short else 50_000)
        rows += await _kills(site, count=300 if short else 10_000)
        rows.append(site.relay_memory())
    return rows


@dataclass(kw_only=True)
class Site:
    """A running Parley, and how to rate in it."""

    home: Path
    up: "subprocess.Popen[bytes]"
    pool: Pool
    feedback: Feedback
    voters: list[Audience]
    argilla: httpx.AsyncClient
    told: set[tuple[str, str]]

    def process(self, name: str) -> psutil.Process:
        """One of the processes: `relay`, `argilla` or `postgres`."""
        for child in psutil.Process(self.up.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.cmdline()[1:4] == ["-m", "feedback", name]:
                    return child
        raise LookupError(name)

    def kill(self, name: str) -> None:
        """Kill a part with kill -9."""
        if name == "postgres":
            pid = int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            return
        with contextlib.suppress(LookupError, psutil.NoSuchProcess):
            victims = [self.process(name)]
            if name == "argilla":
                victims += victims[0].children(recursive=True)
            for victim in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()

    async def vote(self, answer: AnswerId, voter: Audience, value: int) -> None:
        """Vote, again where the database is away, as every surface does."""
        while True:
            try:
                await self.feedback.vote(
                    answer_id=answer,
                    audience=voter,
                    value=1 if value > 0 else -1,
                )
            except StorageUnavailable:
                await asyncio.sleep(0.2)
            else:
                self.told.add((str(answer), str(voter.member_id)))
                return

    async def drained(self) -> None:
        """Wait until nothing is left to tell."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(StorageUnavailable):
                state = await Outbox(self.pool).state()
                assert not state.parked, state.parked[0].error
                if not state.waiting:
                    return
            await asyncio.sleep(0.1)
        raise AssertionError("the outbox is not empty in time")

    async def responses(self) -> list[tuple[str, str]]:
        """Answer and voter of every response in Argilla."""
        dataset = await self.dataset()
        found: list[tuple[str, str]] = []
        seen = 0
        while True:
            page = {"include": "responses", "limit": 500, "offset": seen}
            listed = await self._get(f"datasets/{dataset}/records", **page)
            for record in listed:
                found += [
                    (record["external_id"], response["user_id"]) for response in record["responses"]
                ]
            seen += len(listed)
            if len(listed) < 500:
                return found

    async def dataset(self) -> str:
        """Id of the data set of answers."""
        name = workspace_name(self.voters[0].workspace_id)
        spaces = {each["name"]: each["id"] for each in await self._get("me/workspaces")}
        listed = await self._get("me/datasets", workspace_id=spaces[name])
        return str(next(each["id"] for each in listed if each["name"] == "answers"))

    async def _get(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = await self.argilla.get(path, params=parameters)
        items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
        return items

    def relay_memory(self) -> Row:
        """Resident memory of the relay now."""
        reached = self.process("relay").memory_info().rss / 2**20
        return Row(
            what="resident memory of the relay after all that",
            reached=f"{reached:.0f} MB",
            target="< 150 MB",
            ok=reached < 150,
        )


@asynccontextmanager
async def _site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory(prefix="parley-benchmark-") as name:
        home = Path(name)
        argilla_port = _free_port()
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PARLEY_")},
            "PARLEY_HOME": str(home),
            "PARLEY_ENGINE__URL": f"http://127.0.0.1:{_free_port()}",
            "PARLEY_WEB__PORT": str(_free_port()),
            "PARLEY_ARGILLA__PORT": str(argilla_port),
            "PARLEY_ARGILLA__ENVIRONMENT": str(_argilla_environment()),
        }
        with _running(home, environment) as up:
            url = EmbeddedPostgres(home).url
            key = credentials.api_key(ArgillaSettings(), home)
            argilla = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{argilla_port}/api/v1/",
                headers={"X-Argilla-Api-Key": key},
                timeout=60,
                trust_env=False,
            )
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(argilla)
                await _answers(argilla)
                opened = open_pool(url, settings=DatabaseSettings())
                pool = await stack.enter_async_context(opened)
                yield Site(
                    home=home,
                    up=up,
                    pool=pool,
                    feedback=Feedback(pool),
                    voters=await _voters(pool, home),
                    argilla=argilla,
                    told=set(),
                )


@contextlib.contextmanager
def _running(home: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with (home / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "bots", "up"],
            cwd=CHECKOUT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield up
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)


async def _answers(argilla: httpx.AsyncClient) -> None:
    """Wait until Argilla answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if (await argilla.get("me")).is_success:
                return
        await asyncio.sleep(0.2)
    raise AssertionError("Argilla does not answer in time")


async def _voters(pool: Pool, home: Path) -> list[Audience]:
    identities = Identities(pool=pool, keys=Keys.load(home=home, secret=None))
    people = [
        await identities.resolve(
            platform="web", workspace="T", channel="general", member=f"{n}", display_name=f"{n}"
        )
        for n in range(VOTERS)
    ]
    return [replace(people[0], member_id=person.member_id) for person in people]


async def _asked(site: Site, count: int) -> list[AnswerId]:
    """So many answered questions, as copies of one."""
    keys = Keys.load(home=site.home, secret=None)
    conversations = Conversations(pool=site.pool, keys=keys)
    audience = site.voters[0]
    message_id, _ = await conversations.accept_question(
        audience=audience,
        thread_ref="thread",
        message_ref=f"message {random.random()}",
        text=QUESTION,
        author_id=audience.member_id,
        surface="benchmark",
        place={},
    )
    first = await conversations.save_answer(
        message_id,
        audience=audience,
        text="In October; the team decided it [1]. " * 4,
        found=True,
        finish_reason="stop",
        model="m@1",
        prompt_sha256="ab",
        prompt_tokens=300,
        completion_tokens=12,
        timings_ms={},
        sources=[],
        prompt=[{"role": "user", "content": f"Sources:\n{EXCERPT}\n\nQuestion: {QUESTION}"}],
    )
    async with site.pool.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = '10min'")
        made = await connection.execute(
            "WITH asked AS (INSERT INTO messages (thread_id, member_id, text)"
            " SELECT thread_id, member_id, text FROM messages, generate_series(2, %(count)s)"
            " WHERE id = %(message)s RETURNING id)"
            " INSERT INTO answers (message_id, text, found, finish_reason, model, prompt_sha256,"
            " prompt_tokens, completion_tokens, timings_ms, prompt, params, current)"
            " SELECT asked.id, a.text, a.found, a.finish_reason, a.model, a.prompt_sha256,"
            " a.prompt_tokens, a.completion_tokens, a.timings_ms, a.prompt, a.params, a.current"
            " FROM asked, answers a WHERE a.id = %(answer)s RETURNING id",
            {"count": count, "message": message_id, "answer": first},
        )
        return [first, *(AnswerId(row[0]) for row in await made.fetchall())]


# ---------------------------------------------------------------- rows


async def _commits(site: Site, *, seconds: int) -> list[Row]:
    """200 votes a second, each on its own answer, whether or not earlier ones are stored."""
    answers = await _asked(site, RATE_PER_S * seconds)
    took_ms: list[float] = []
    begun = time.monotonic()

    async def one(number: int, answer: AnswerId) -> None:
        await asyncio.sleep(max(0.0, begun + number / RATE_PER_S - time.monotonic()))
        started = time.monotonic()
        await site.vote(answer, site.voters[number % VOTERS], number % 3 - 1)
        took_ms.append(1000 * (time.monotonic() - started))

    await asyncio.gather(*(one(*each) for each in enumerate(answers)))
    rate = len(answers) / (time.monotonic() - begun)
    p95 = float(np.percentile(took_ms, 95))
    await site.drained()
    return [
        Row(
            what=f"vote to committed, p95 of {len(answers)}, relay and Argilla at work",
            reached=f"{p95:.1f} ms",
            target="< 30 ms",
            ok=p95 < 30,
        ),
        Row(
            what="votes sustained",
            reached=f"{rate:.0f}/s",
            target=f"{RATE_PER_S}/s",
            ok=rate >= 0.97 * RATE_PER_S,
        ),
    ]


async def _arrivals(site: Site, *, count: int) -> list[Row]:
    """One vote after the other, each until Argilla shows it."""
    answers = await _asked(site, count)
    dataset = await site.dataset()
    took_s: list[float] = []
    for answer in answers:
        begun = time.monotonic()
        await site.vote(answer, site.voters[0], 1)
        scope = {"entity": "record", "property": "external_id"}
        wanted = {"type": "terms", "scope": scope, "values": [str(answer)]}
        query = {"filters": {"type": "and", "and": [wanted]}}
        while True:
            found = await site.argilla.post(f"datasets/{dataset}/records/search", json=query)
            if found.raise_for_status().json()["items"]:
                break
            await asyncio.sleep(0.02)
        took_s.append(time.monotonic() - begun)
    p95 = float(np.percentile(took_s, 95))
    what = f"vote to visible in Argilla, p95 of {count}"
    return [Row(what=what, reached=f"{p95:.2f} s", target="< 5 s", ok=p95 < 5)]


async def _backlog(site: Site, *, count: int) -> list[Row]:
    """So many records are told once Argilla is there."""
    answers = await _asked(site, count)
    async with site.pool.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = '10min'")
        await connection.execute(
            "INSERT INTO votes (answer_id, member_id, value, consent)"
            " SELECT answer, %(voter)s, 1, false FROM unnest(%(answers)s::uuid[]) answer",
            {"voter": site.voters[1].member_id, "answers": answers},
        )
        await connection.execute(
            "INSERT INTO outbox (kind, record_id, workspace_id)"
            " SELECT 'answer', answer, %(workspace)s FROM unnest(%(answers)s::uuid[]) answer",
            {"workspace": site.voters[0].workspace_id, "answers": answers},
        )
    site.told |= {(str(answer), str(site.voters[1].member_id)) for answer in answers}
    begun = time.monotonic()
    await site.drained()
    rate = count / (time.monotonic() - begun)
    return [
        Row(
            what=f"backlog of {count} records drains",
            reached=f"{rate:.0f} records/s",
            target="≥ 200 records/s",
            ok=rate >= 200,
        )
    ]


async def _kills(site: Site, *, count: int) -> list[Row]:
    """Votes while relay, Argilla and database are killed in turn."""
    answers = await _asked(site, count // 5)
    votes = [(answer, voter) for answer in answers for voter in site.voters[:5]]
    random.Random(7).shuffle(votes)
    kills = {round(count * share): name for share, name in _KILLS}
    begun = time.monotonic()
    for number, (answer, voter) in enumerate(votes):
        if number in kills:
            site.kill(kills[number])
        await asyncio.sleep(max(0.0, begun + number / RATE_PER_S - time.monotonic()))
        await site.vote(answer, voter, number % 3 - 1)
    await site.drained()
    there = await site.responses()
    rated = set(map(str, answers))
    mine = [each for each in there if each[0] in rated]
    return [
        Row(
            what=f"of {count} votes in Argilla, after {len(kills)} kills of relay, Argilla and"
            " database in turn",
            reached=f"{len(set(mine))}",
            target=f"{count}",
            ok=len(set(mine)) == count,
        ),
        Row(
            what="of all votes: lost, twice, unknown",
            reached=f"{len(site.told - set(there))}, {len(there) - len(set(there))},"
            f" {len(set(there) - site.told)}",
            target="0, 0, 0",
            ok=len(there) == len(set(there)) and set(there) == site.told,
        ),
    ]


_KILLS = [
    (share / 10, name)
    for share, name in zip(range(1, 10), ["relay", "argilla", "postgres"] * 3, strict=True)
]


def _argilla_environment() -> Path:
    home = Path(os.environ.get("PARLEY_HOME", CHECKOUT / ".parley")).resolve()
    return home / "argilla" / "venv"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
