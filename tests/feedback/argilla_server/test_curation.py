"""What curators do in a real Argilla comes back, attributed, and what they take back goes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx
import pytest

from feedback import Feedback
from feedback.argilla_client import ArgillaClient
from feedback.curation import Pull
from feedback.records import workspace_name
from feedback.relay import Relay
from storage.identity import Audience, Identities, Keys
from storage.pool import Pool
from storage.rated import Rated
from tests.feedback.argilla_server.conftest import Server
from tests.feedback.conftest import Answered, Answers, compared
from tests.storage.conftest import Team

pytestmark = pytest.mark.argilla


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A curator's view of one rated question with two answers, one of which is rated."""

    http: httpx.Client
    looking: ArgillaClient
    pull: Pull
    relay: Relay
    answered: Answered
    ana: Audience

    def dataset(self, name: str) -> str:
        """Argilla's id of a data set."""
        spaces = self.http.get("/me/workspaces").raise_for_status().json()["items"]
        name_there = workspace_name(self.ana.workspace_id)
        (space,) = [each["id"] for each in spaces if each["name"] == name_there]
        sets = self.http.get("/me/datasets", params={"workspace_id": space}).json()["items"]
        (dataset,) = [each["id"] for each in sets if each["name"] == name]
        return str(dataset)

    def record(self, name: str) -> str:
        """Argilla's id of the only record of a data set."""
        (record,) = self.http.get(f"/datasets/{self.dataset(name)}/records").json()["items"]
        return str(record["id"])

    async def activity(self) -> dict[str, str]:
        """When somebody last responded by hand, per data set of this team."""
        mine = workspace_name(self.ana.workspace_id)
        found = await self.looking.activity()
        return {each.dataset_id: each.at for each in found if each.workspace == mine}

    def say(self, name: str, status: str = "submitted", **values: object) -> str:
        """Respond to a record; Argilla's id of the response."""
        given: dict[str, Any] = {"record_id": self.record(name), "status": status}
        given["values"] = {question: {"value": value} for question, value in values.items()}
        made = self.http.post("/me/responses/bulk", json={"items": [given]}).raise_for_status()
        (item,) = made.json()["items"]
        assert item["error"] is None
        return str(item["item"]["id"])


@pytest.fixture
async def desk(
    pool: Pool, team: Team, argilla: Server, feedback: Feedback, answered: Answers
) -> AsyncIterator[Desk]:
    ana = team.general
    question = await answered(ana, "a", "b")
    await feedback.vote(answer_id=question.answers[0], audience=ana, value=1)
    await compared(feedback, ana, question, "left")
    with argilla.http() as http:
        async with (
            ArgillaClient(argilla.url, argilla.api_key) as telling,
            ArgillaClient(argilla.url, argilla.api_key) as looking,
        ):
            relay = Relay(pool, telling)
            while await relay.carry():
                pass
            yield Desk(
                http=http,
                looking=looking,
                pull=Pull(pool, looking, rest=0),
                relay=relay,
                answered=question,
                ana=ana,
            )


async def test_what_curators_say_comes_back_and_goes_with_their_response(
    desk: Desk, pool: Pool
) -> None:
    assert await desk.pull.look() == 0  # a member's vote is no curation
    response = desk.say("answers", rating="bad", reasons=["wrong"], correction="In May.")
    desk.say("comparisons", preference="b", reason="Shorter.")
    assert await desk.pull.look() == 2
    answers, (judged,) = await Rated(pool).everything(desk.ana.workspace_id)
    (word,) = next(each for each in answers if each.id == desk.answered.answers[0]).curations
    me = desk.http.get("/me").json()
    assert (str(word.curator_id), word.curator) == (me["id"], me["username"])
    assert (word.status, word.value, word.reasons, word.correction) == (
        "submitted",
        -1,
        ("wrong",),
        "In May.",
    )
    assert [(each.winner, each.comment) for each in judged.curations] == [("right", "Shorter.")]
    desk.say("answers", status="discarded")
    assert await desk.pull.look() == 1
    (answer,) = await Rated(pool).answers_of([desk.answered.answers[0]])
    assert [each.status for each in answer.curations] == ["discarded"]
    desk.http.delete(f"/responses/{response}").raise_for_status()
    assert await desk.pull.look() == 1
    (answer,) = await Rated(pool).answers_of([desk.answered.answers[0]])
    assert answer.curations == ()


async def test_the_relay_alone_makes_nobody_read_a_data_set(
    desk: Desk, pool: Pool, feedback: Feedback, team: Team
) -> None:
    desk.say("answers", rating="good")
    await desk.pull.look()
    before = await desk.activity()
    bob = replace(team.general, member_id=team.bob.member_id)
    await feedback.vote(answer_id=desk.answered.answers[0], audience=bob, value=-1)
    assert await desk.relay.carry() == 1
    assert await desk.activity() == before
    assert len(before) == 2
    (answer,) = await Rated(pool).answers_of([desk.answered.answers[0]])
    assert len(answer.votes) == 2 and [each.value for each in answer.curations] == [1]


async def test_what_many_members_rated_waits_for_a_curator_all_the_same(
    desk: Desk, feedback: Feedback, pool: Pool, keys: Keys
) -> None:
    for name in ("Bob", "Cleo", "Dan"):
        person = await Identities(pool=pool, keys=keys).resolve(
            platform="web", workspace="T", channel="general", member=name
        )
        voter = replace(desk.ana, member_id=person.member_id)
        await feedback.vote(answer_id=desk.answered.answers[0], audience=voter, value=-1)
    await desk.relay.carry()
    dataset = desk.dataset("answers")
    waiting = [  # as Argilla's pages ask for what is to be done
        {"type": "terms", "scope": {"entity": each, "property": "status"}, "values": ["pending"]}
        for each in ("response", "record")
    ]

    def queue() -> list[dict[str, Any]]:
        path = f"/me/datasets/{dataset}/records/search"
        found = desk.http.post(path, json={"filters": {"type": "and", "and": waiting}})
        return [item["record"] for item in found.raise_for_status().json()["items"]]

    [record] = queue()
    shown = [record["metadata"][name] for name in ("raters", "agreement", "majority")]
    assert shown == [4, 75, "bad"]
    desk.say("answers", rating="bad")
    assert queue() == []
    if "completed_by" in desk.http.get("/status").json()["search_engine"]:
        # Elsewhere members count as well.
        progress = desk.http.get(f"/datasets/{dataset}/progress").json()
        assert (progress["total"], progress["completed"]) == (1, 1)


async def test_a_curator_who_is_no_user_any_more_has_said_nothing(
    desk: Desk, pool: Pool, argilla: Server
) -> None:
    before = await desk.activity()
    name = f"eve-{uuid4().hex[:8]}"
    account = {"username": name, "first_name": name, "role": "owner", "password": "long enough"}
    eve = desk.http.post("/users", json=account).raise_for_status().json()
    with argilla.http(eve["api_key"]) as http:
        replace(desk, http=http).say("answers", rating="bad")
    assert await desk.pull.look() == 1
    said = await desk.activity()
    assert said != before
    desk.http.delete(f"/users/{eve['id']}").raise_for_status()
    assert await desk.activity() == said  # Argilla notes it nowhere
    assert await desk.pull.look() == 1
    (answer,) = await Rated(pool).answers_of([desk.answered.answers[0]])
    assert answer.curations == ()
    assert await desk.pull.look() == 0
