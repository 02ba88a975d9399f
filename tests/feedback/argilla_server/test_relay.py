"""The relay against a real Argilla, with faults on the way to it."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback import Feedback
from feedback.argilla_client import ArgillaClient
from feedback.errors import ArgillaMisconfigured, ArgillaUnavailable
from feedback.records import workspace_name
from feedback.relay import MAX_ATTEMPTS, Relay
from storage.identity import AnswerId, Audience, MemberId
from storage.members import forget
from storage.outbox import Outbox
from storage.pool import Pool
from tests.conftest import CHECKOUT
from tests.feedback.argilla_server.conftest import Server
from tests.feedback.conftest import Answers, compared
from tests.storage.conftest import Team

pytestmark = pytest.mark.argilla
Rated = Callable[[int], Awaitable[list[AnswerId]]]
Fault = Callable[[str, str, bytes], int | None]


@dataclass
class Road:
    """A way to Argilla on which things go wrong.

    Attributes:
        fault: given method, path and body, the status to answer with; 0 = pass it on and lose the
            answer, None = pass it on.
        passed: requests that reached Argilla, as method and path.
    """

    url: str = ""
    api_key: str = ""
    fault: Fault = lambda method, path, body: None
    passed: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def road(argilla: Server) -> Iterator[Road]:
    road = Road(api_key=argilla.api_key)

    class Carrier(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _carry(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status = road.fault(self.command, self.path, body)
            if status:
                self._say(status, b'{"detail": "a fault"}')
                return
            answer = httpx.request(
                self.command,
                f"{argilla.url}{self.path}",
                content=body,
                headers={
                    "X-Argilla-Api-Key": self.headers["X-Argilla-Api-Key"],
                    "Content-Type": self.headers.get("Content-Type") or "application/json",
                },
                timeout=30,
                trust_env=False,
            )
            road.passed.append((self.command, self.path))
            if status == 0:
                self.close_connection = True
                return
            self._say(answer.status_code, answer.content)

        def _say(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _carry

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what failed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Carrier) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        road.url = f"http://127.0.0.1:{server.server_port}"
        yield road
        server.shutdown()


@dataclass
class Curation:
    """A relay on its way to Argilla, and Argilla's own view."""

    relay: Relay
    client: ArgillaClient
    outbox: Outbox
    http: httpx.Client
    workspace: str

    async def carry(self) -> None:
        """Carry until nothing is due."""
        while await self.relay.carry():
            pass

    def dataset(self, name: str = "answers") -> dict[str, Any]:
        """Argilla's data set."""
        listed = self.http.get("/me/datasets").raise_for_status().json()["items"]
        spaces = self.http.get("/me/workspaces").raise_for_status().json()["items"]
        mine = next(each["id"] for each in spaces if each["name"] == self.workspace)
        return next(
            each for each in listed if each["workspace_id"] == mine and each["name"] == name
        )

    def records(self, name: str = "answers") -> dict[str, dict[str, Any]]:
        """Argilla's records with all responses, by our ids."""
        path = f"/datasets/{self.dataset(name)['id']}/records"
        listed = self.http.get(path, params={"include": "responses", "limit": 1000})
        return {each["external_id"]: each for each in listed.raise_for_status().json()["items"]}

    def said(self, answer: AnswerId) -> dict[str, dict[str, object]]:
        """What people said of an answer, by their Argilla users."""
        return {
            response["user_id"]: {
                question: value["value"] for question, value in response["values"].items()
            }
            for response in self.records()[str(answer)]["responses"]
        }


@pytest.fixture
def ana(team: Team) -> Audience:
    """Ana in a channel."""
    return team.general


@pytest.fixture
def ben(team: Team) -> Audience:
    """Ben in the same channel."""
    return replace(team.general, member_id=team.bob.member_id)


@pytest.fixture
def rated(answered: Answers, feedback: Feedback, ana: Audience) -> Rated:
    """Have so many answers, which Ana dislikes."""

    async def rated(count: int) -> list[AnswerId]:
        answers = [(await answered(ana)).answers[0] for _ in range(count)]
        for answer in answers:
            await feedback.vote(answer_id=answer, audience=ana, value=-1)
        return answers

    return rated


@pytest.fixture
async def curation(
    pool: Pool, ana: Audience, argilla: Server, road: Road
) -> AsyncIterator[Curation]:
    with argilla.http() as http:
        async with ArgillaClient(road.url, argilla.api_key, timeout_s=20) as client:
            workspace = workspace_name(ana.workspace_id)
            relay = Relay(pool, client)
            yield Curation(relay, client, Outbox(pool), http, workspace)


def member(audience: Audience) -> MemberId:
    assert audience.member_id is not None
    return audience.member_id


def user(audience: Audience) -> str:
    """Id of the Argilla user who stands for a person."""
    return str(member(audience))


def parley(database_url: str, home: Path, road: Road, *words: str) -> str:
    """What the command line says."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")},
        "PARLEY_HOME": str(home),
        "PARLEY_DATABASE__URL": database_url,
        "PARLEY_ARGILLA__URL": road.url,
        "PARLEY_ARGILLA__API_KEY": road.api_key,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bots", *words],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_each_vote_is_its_voters_response_and_follows_every_change(
    curation: Curation, feedback: Feedback, answered: Answers, ana: Audience, ben: Audience
) -> None:
    [answer] = (await answered(ana)).answers
    await feedback.vote(answer_id=answer, audience=ana, value=-1, reasons=["wrong"], comment="No.")
    await feedback.vote(answer_id=answer, audience=ben, value=1)
    await feedback.correct(answer_id=answer, audience=ben, text="In November.")
    await curation.carry()
    assert curation.said(answer) == {
        user(ana): {"rating": "bad", "reasons": ["wrong"], "comment": "No."},
        user(ben): {"rating": "good", "correction": "In November."},
    }
    record = curation.records()[str(answer)]
    assert record["fields"]["question"] == "When is the launch?"
    assert record["metadata"]["model"] == "m@1"
    assert record["metadata"]["weights"] == "unknown"
    shown = [record["metadata"][name] for name in ("raters", "agreement", "majority")]
    assert shown == [2, 50, "split"]
    await feedback.vote(answer_id=answer, audience=ana, value=1)
    await feedback.vote(answer_id=answer, audience=ben, value=None)
    await curation.carry()
    assert curation.said(answer) == {
        user(ana): {"rating": "good"},
        user(ben): {"rating": "unrated", "correction": "In November."},
    }
    await feedback.vote(answer_id=answer, audience=ana, value=None)
    await curation.carry()
    assert set(curation.said(answer)) == {user(ben)}
    assert (await curation.outbox.state()).waiting == 0
    progress = curation.http.get(f"/datasets/{curation.dataset()['id']}/users/progress").json()
    assert [user["username"] for user in progress["users"]] == [f"voter-{member(ben).hex}"]


async def test_a_comparison_is_a_record_of_both_answers(
    curation: Curation, feedback: Feedback, answered: Answers, ana: Audience, ben: Audience
) -> None:
    asked = await answered(ana, "m@1", "m@2")
    comparison = await compared(feedback, ana, asked)
    await feedback.compare(comparison_id=comparison, audience=ben, winner="right")
    await curation.carry()
    record = curation.records("comparisons")[str(comparison)]
    assert (record["fields"]["a"], record["fields"]["b"]) == (
        "In October, says m@1.",
        "In October, says m@2.",
    )
    [response] = record["responses"]
    assert response["user_id"] == user(ben)
    assert response["values"]["preference"]["value"] == "b"


async def test_a_lost_answer_leaves_nothing_twice_and_nothing_behind(
    curation: Curation,
    feedback: Feedback,
    answered: Answers,
    ana: Audience,
    ben: Audience,
    road: Road,
) -> None:
    [answer] = (await answered(ana)).answers
    await feedback.vote(answer_id=answer, audience=ana, value=1)
    await feedback.vote(answer_id=answer, audience=ben, value=1)
    road.fault = lambda method, path, body: 0 if path.endswith("records/bulk") else None
    with pytest.raises(ArgillaUnavailable):
        await curation.carry()
    assert len(curation.said(answer)) == 2
    await feedback.vote(answer_id=answer, audience=ana, value=None)
    road.fault = lambda method, path, body: None
    await curation.carry()
    assert set(curation.said(answer)) == {user(ben)}


async def test_a_record_that_argilla_refuses_is_parked_and_holds_up_no_other(
    curation: Curation,
    feedback: Feedback,
    rated: Rated,
    ana: Audience,
    pool: Pool,
    database_url: str,
    tmp_path: Path,
    road: Road,
) -> None:
    answers = await rated(5)
    poison = answers[2]
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE votes SET reasons = '{unheard of}' WHERE answer_id = %s", [poison]
        )
    await curation.carry()
    assert set(curation.records()) == {str(each) for each in answers if each != poison}
    state = await curation.outbox.state()
    assert [each.record_id for each in state.parked] == [poison]
    assert "unheard of" in state.parked[0].error or "reasons" in state.parked[0].error
    shown = await asyncio.to_thread(parley, database_url, tmp_path, road, "feedback", "status")
    assert f"answer {poison}" in shown and state.parked[0].error[:40] in shown
    await feedback.vote(answer_id=poison, audience=ana, value=1)  # it changed: tried again
    await curation.carry()
    assert str(poison) in curation.records()
    assert (await curation.outbox.state()).parked == []


async def test_while_argilla_fails_everything_waits_and_a_poison_record_is_parked(
    curation: Curation,
    feedback: Feedback,
    rated: Rated,
    road: Road,
    pool: Pool,
    database_url: str,
    tmp_path: Path,
) -> None:
    answers = await rated(3)
    road.fault = lambda method, path, body: 503
    for _ in range(MAX_ATTEMPTS + 1):
        with pytest.raises(ArgillaUnavailable):
            await curation.carry()
    assert (await curation.outbox.state()).waiting == 3
    poison = answers[0]
    road.fault = lambda method, path, body: 500 if str(poison).encode() in body else None
    for _ in range(MAX_ATTEMPTS):
        await curation.carry()
        async with pool.connection() as connection:
            await connection.execute("UPDATE outbox SET not_before = '-infinity'")
    assert set(curation.records()) == {str(each) for each in answers[1:]}
    assert [each.record_id for each in (await curation.outbox.state()).parked] == [poison]
    road.fault = lambda method, path, body: None
    told = await asyncio.to_thread(parley, database_url, tmp_path, road, "feedback", "backfill")
    assert told.startswith("3 records are told")
    await curation.carry()
    assert set(curation.records()) == {str(each) for each in answers}


async def test_a_wiped_argilla_is_filled_again_and_strays_are_removed(
    curation: Curation,
    feedback: Feedback,
    rated: Rated,
    ana: Audience,
    ben: Audience,
    pool: Pool,
) -> None:
    answers = await rated(3)
    await curation.carry()
    curation.http.delete(f"/datasets/{curation.dataset()['id']}").raise_for_status()
    await feedback.vote(answer_id=answers[0], audience=ben, value=-1)
    with pytest.raises(ArgillaUnavailable):
        await curation.carry()
    await curation.carry()
    assert set(curation.records()) == {str(each) for each in answers}
    assert len(curation.said(answers[0])) == 2
    async with pool.connection() as connection:  # as if an older database was restored
        await connection.execute("DELETE FROM votes WHERE answer_id = %s", [answers[1]])
        await connection.execute("DELETE FROM relayed_records WHERE record_id = %s", [answers[1]])
        await connection.execute("DELETE FROM outbox")
    await curation.relay.backfill(ana.workspace_id)
    await curation.carry()
    assert set(curation.records()) == {str(answers[0]), str(answers[2])}


async def test_a_forgotten_person_is_forgotten_there(
    curation: Curation,
    feedback: Feedback,
    answered: Answers,
    team: Team,
    pool: Pool,
    tmp_path: Path,
    ana: Audience,
    ben: Audience,
) -> None:
    [answer] = (await answered(ana)).answers
    await feedback.vote(answer_id=answer, audience=ana, value=1)
    await feedback.vote(answer_id=answer, audience=ben, value=1)
    await curation.carry()
    await forget(pool, member(ben), files_dir=tmp_path)
    await curation.carry()
    assert set(curation.said(answer)) == {user(ana)}
    there = curation.http.get(f"/users/{member(ben)}")
    assert there.status_code == 404


async def test_a_wrong_key_is_the_operators_to_mend(
    argilla: Server, road: Road, pool: Pool
) -> None:
    async with ArgillaClient(road.url, "not the key") as client:
        with pytest.raises(ArgillaMisconfigured, match="PARLEY_ARGILLA__API_KEY"):
            await client.prepare("anything")
    async with ArgillaClient("http://127.0.0.1:9", "key", timeout_s=2) as client:
        with pytest.raises(ArgillaUnavailable):
            await client.check()


async def test_a_removal_that_argilla_refuses_is_tried_again(
    curation: Curation, feedback: Feedback, rated: Rated, ana: Audience, road: Road
) -> None:
    gone, stays = await rated(2)
    await curation.carry()
    refused = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(method: str, path: str, body: bytes) -> int | None:
        if method != "DELETE":
            return None
        loop.call_soon_threadsafe(refused.set)
        return 400

    road.fault = refuse
    await feedback.vote(answer_id=gone, audience=ana, value=None)
    running = asyncio.create_task(curation.relay.run())
    try:
        async with asyncio.timeout(20):
            await refused.wait()
            road.fault = lambda method, path, body: None
            while set(curation.records()) != {str(stays)}:
                assert not running.done()
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
