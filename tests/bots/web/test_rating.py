"""Votes, better answers and consent, as the page asks for them: by a name, in its one channel."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from cryptography.fernet import Fernet
from fastapi import FastAPI

from bots.replies import NOT_HERE
from bots.web.guard import MAX_BODY_BYTES, Guard
from bots.web.live import Hub
from bots.web.people import People
from bots.web.rating import EMPTY, MAX_TEXT_CHARS, NAMELESS, Rating, router
from bots.workplace import PLACE
from feedback import Feedback
from feedback.datasets import snapshot
from feedback.rules import Rules
from storage.audit import entries
from storage.identity import AnswerId, Audience, Identities, Keys
from storage.members import Members
from storage.places import Places
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings
from tests.feedback.conftest import Answers, rows

WEBSITE = "http://127.0.0.1:8800"


class Browser:
    """Requests of the page; `name` is what stands in its box."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def post(self, path: str, name: str = "Ana", **body: object) -> httpx.Response:
        return await self._client.post(f"/feedback/{path}", json={"name": name, **body})

    async def vote(self, answer_id: object, value: int | None, name: str = "Ana") -> httpx.Response:
        return await self.post(f"answers/{answer_id}/vote", name, value=value)

    async def better(self, answer_id: object, text: str, name: str = "Ana") -> httpx.Response:
        return await self.post(f"answers/{answer_id}/better", name, text=text)

    async def votes(self, name: str = "Ana") -> dict[str, int]:
        shown: dict[str, int] = (await self.post("mine", name)).json()["votes"]
        return shown

    async def agree(self, whose: str, *, given: bool = True, name: str = "Ana") -> httpx.Response:
        return await self.post(f"consent/{whose}", name, given=given)


@pytest.fixture
async def rating(pool: Pool, keys: Keys) -> Rating:
    identities = Identities(pool=pool, keys=keys)
    audience = await identities.resolve(**PLACE, channel_open=True)
    return Rating(
        people=People(identities=identities, place=PLACE, audience=audience),
        feedback=Feedback(pool),
        members=Members(pool),
        places=Places(pool),
        hub=Hub(),
    )


def browser_of(rating: Rating, *, signed_in: bool = True, **headers: str) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(router(rating, may_read=lambda _: signed_in))
    transport = httpx.ASGITransport(Guard(app, loopback_only=True))
    return httpx.AsyncClient(transport=transport, base_url=WEBSITE, headers=headers)


@pytest.fixture
async def browser(rating: Rating) -> AsyncIterator[Browser]:
    async with browser_of(rating) as client:
        yield Browser(client)


@pytest.fixture
def here(rating: Rating) -> Audience:
    """The page's channel."""
    return rating.people.audience


async def one(answered: Answers, audience: Audience) -> AnswerId:
    return (await answered(audience)).answers[0]


async def test_a_vote_is_stored_once_however_often_it_is_sent_and_can_be_taken_back(
    browser: Browser, answered: Answers, here: Audience, pool: Pool
) -> None:
    answer_id = await one(answered, here)
    for _ in range(3):
        said = await browser.vote(answer_id, 1)
    assert said.json() == {"said": "Your vote was and stays 👍.", "value": 1}
    assert await rows(pool, "SELECT answer_id, value FROM votes") == [(answer_id, 1)]
    assert await browser.votes() == {str(answer_id): 1}

    changed = await browser.vote(answer_id, -1)
    assert changed.json() == {"said": "Your vote is changed to 👎.", "value": -1}
    assert await browser.votes(" ana ") == {str(answer_id): -1}  # the same name, the same person

    withdrawn = await browser.vote(answer_id, None)
    assert withdrawn.json() == {"said": "Your vote is withdrawn.", "value": None}
    assert await browser.votes() == {}
    assert await rows(pool, "SELECT 1 FROM votes") == []


async def test_nobody_sees_the_vote_of_somebody_else(
    browser: Browser, answered: Answers, here: Audience, pool: Pool
) -> None:
    answer_id = await one(answered, here)
    await browser.vote(answer_id, 1)
    assert await browser.votes("Ben") == {}
    assert await rows(pool, "SELECT count(*) FROM members") == [(1,)]  # to look makes nobody one
    await browser.vote(answer_id, -1, "Ben")
    assert await browser.votes() == {str(answer_id): 1}


@pytest.mark.parametrize("name", ["", "  ", "Guest", "guest 42"])
async def test_without_a_typed_name_nothing_is_stored(
    browser: Browser, answered: Answers, here: Audience, pool: Pool, name: str
) -> None:
    answer_id = await one(answered, here)
    refused = [
        await browser.vote(answer_id, 1, name),
        await browser.better(answer_id, "In November.", name),
        await browser.agree("person", name=name),
        await browser.agree("workspace", name=name),
    ]
    for response in refused:
        assert response.status_code == 400 and response.json()["detail"] == NAMELESS
    assert (await browser.post("mine", name)).json()["votes"] == {}
    for table in ("votes", "corrections", "members", "audit"):
        assert await rows(pool, f"SELECT 1 FROM {table}") == []


async def test_only_answers_of_the_pages_channel_can_be_rated(
    browser: Browser, answered: Answers, rating: Rating, pool: Pool
) -> None:
    board = await rating.people.identities.resolve(
        platform=PLACE["platform"], workspace=PLACE["workspace"], channel="board"
    )
    elsewhere = await one(answered, board)
    for answer_id in (elsewhere, uuid4()):
        for response in (
            await browser.vote(answer_id, 1),
            await browser.vote(answer_id, None),
            await browser.better(answer_id, "In November."),
        ):
            assert response.status_code == 404 and response.json()["detail"] == NOT_HERE
    assert (await browser.vote("no-id", 1)).status_code == 422
    assert await rows(pool, "SELECT 1 FROM votes UNION SELECT 1 FROM corrections") == []


async def test_what_is_no_vote_and_no_correction_is_not_stored(
    browser: Browser, answered: Answers, here: Audience, pool: Pool
) -> None:
    answer_id = await one(answered, here)
    assert (await browser.vote(answer_id, 2)).status_code == 422
    assert (await browser.better(answer_id, "x" * (MAX_TEXT_CHARS + 1))).status_code == 422
    for blank in ("  \n ", "\0", " \0\n"):
        refused = await browser.better(answer_id, blank)
        assert refused.status_code == 422 and refused.json()["detail"] == EMPTY
    assert await rows(pool, "SELECT 1 FROM votes UNION SELECT 1 FROM corrections") == []


async def test_consent_is_off_until_given_and_does_not_reach_what_was_rated_before(
    browser: Browser, answered: Answers, here: Audience, pool: Pool
) -> None:
    shown = (await browser.post("mine")).json()
    assert (shown["person"], shown["workspace"]) == (False, False)
    early, late = await one(answered, here), await one(answered, here)
    await browser.better(early, "In November.")
    assert (await browser.agree("person")).json()["person"] is True
    await browser.vote(early, 1)  # the place has not agreed yet
    assert (await browser.agree("workspace")).json()["workspace"] is True
    await browser.better(late, "In December.")
    corrections = "SELECT answer_id, consent FROM corrections ORDER BY created_at"
    assert await rows(pool, corrections) == [(early, False), (late, True)]
    assert await rows(pool, "SELECT consent FROM votes") == [(False,)]

    assert (await browser.post("mine", "Ben")).json() == {
        "votes": {},
        "person": False,
        "workspace": True,
    }
    assert (await browser.agree("person", given=False)).json()["person"] is False
    assert await rows(pool, corrections) == [(early, False), (late, False)]


async def test_who_changed_the_consent_of_the_workspace_is_in_the_audit(
    browser: Browser, rating: Rating, here: Audience, pool: Pool
) -> None:
    with rating.hub.subscribe() as page:
        await browser.agree("workspace", name="Ben")
        assert await page.take() == [{"kind": "consent", "workspace": True}]
    await browser.agree("workspace", name="Ben")  # changes nothing
    (entry,) = await entries(pool, workspace_id=here.workspace_id, limit=5)
    ben = await rating.people.known("Ben")
    assert ben is not None and entry.member_id == ben.member_id
    assert entry.action == "settings_changed" and entry.details["consent_to_train"] is True


async def test_after_both_consents_ratings_of_the_page_become_training_rows(
    browser: Browser, answered: Answers, here: Audience, pool: Pool
) -> None:
    liked, corrected = await one(answered, here), await one(answered, here)

    async def bases() -> set[tuple[str, str]]:
        found = await snapshot(pool, workspace_id=here.workspace_id, rules=Rules())
        return {(row.kind, row.basis) for row in found.rows}

    await browser.vote(liked, 1)
    assert await bases() == set()
    await browser.vote(liked, None)
    for whose in ("person", "workspace"):
        await browser.agree(whose)
    await browser.vote(liked, 1)
    await browser.better(corrected, "In November, says the plan.")
    assert await bases() >= {
        ("unpaired", "votes"),
        ("sft", "correction"),
        ("preference", "correction"),
    }


async def test_who_has_not_signed_in_and_other_websites_are_refused(
    rating: Rating, answered: Answers, here: Audience, pool: Pool
) -> None:
    answer_id = await one(answered, here)
    async with (
        browser_of(rating, signed_in=False) as stranger,
        browser_of(rating, Origin="https://evil.example") as foreign,
        browser_of(rating, Origin=WEBSITE) as own,
    ):
        for client, status in ((stranger, 403), (foreign, 403), (own, 200)):
            assert (await Browser(client).post("mine")).status_code == status
            assert (await Browser(client).vote(answer_id, 1)).status_code == status
    assert await rows(pool, "SELECT count(*) FROM votes") == [(1,)]


async def test_a_long_body_is_refused_before_it_is_read(rating: Rating) -> None:
    async with browser_of(rating, signed_in=False) as stranger:
        response = await Browser(stranger).better(uuid4(), "x" * MAX_BODY_BYTES)
    assert response.status_code == 413


async def test_a_database_that_is_away_is_said(database_url: str) -> None:
    async with open_pool(database_url, settings=DatabaseSettings()) as pool:
        keys = Keys(fernet_keys=(Fernet.generate_key().decode(),))
        identities = Identities(pool=pool, keys=keys)
        audience = await identities.resolve(**PLACE, channel_open=True)
        rating = Rating(
            people=People(identities=identities, place=PLACE, audience=audience),
            feedback=Feedback(pool),
            members=Members(pool),
            places=Places(pool),
            hub=Hub(),
        )
    async with browser_of(rating) as client:
        response = await Browser(client).vote(uuid4(), 1)
        assert response.status_code == 503 and "database" in response.json()["detail"]
