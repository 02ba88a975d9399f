"""Votes, better answers and consent on the page, by the name that a person types.

Who acts, and where, is looked up for every request: an id that a browser sends is only ever one
that this person may rate in the page's channel, or none. Of votes a browser is told its person's
own, and nobody else's.

Why requests of their own beside Gradio's: a refusal must reach the person as a sentence and the
browser as a status, and Gradio's client keeps both to itself.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field, StringConstraints
from starlette.requests import HTTPConnection

from bots.channel_settings import load_workspace, save_workspace
from bots.home import person_of
from bots.replies import sentence_for
from bots.voting import Criticism, criticise, vote, withdraw
from bots.web.live import Hub
from bots.web.people import People, is_typed
from feedback import Feedback
from storage.errors import NotFound, StorageError
from storage.identity import AnswerId, Audience
from storage.members import Members
from storage.places import Places

PREFIX: Final = "/feedback"
MAX_TEXT_CHARS = 4000
"""Of a better answer: as much as a chat's field takes."""
VOTES_READ = 2000
"""A person's newest votes, which the page marks: more answers than it shows."""
NAMELESS: Final = "Please type your name beside the question first: ratings are kept by name."
EMPTY: Final = "Please write the better answer first."
SIGNED_OUT: Final = "Please sign in again."


class Acting(BaseModel):
    """Who sends a request."""

    name: str = Field(max_length=200)


class Vote(Acting):
    """A vote on an answer; None takes it back."""

    value: Literal[-1, 1] | None


class Better(Acting):
    """The better answer."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_TEXT_CHARS)]


class Consent(Acting):
    """Whether ratings may train models from now on."""

    given: bool


class Mine(BaseModel):
    """What the page shows of one person.

    Attributes:
        votes: by the answers' ids.
        person: whether the person has agreed that their ratings train models.
        workspace: whether the workspace has.
    """

    votes: dict[AnswerId, Literal[-1, 1]]
    person: bool
    workspace: bool


class Said(BaseModel):
    """What to tell the person, and the vote that now counts."""

    said: str
    value: Literal[-1, 1] | None = None


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What people of the page's channel may do with an answer, and agree to.

    Attributes:
        hub: the open pages, which all show whether the workspace has agreed.
    """

    people: People
    feedback: Feedback
    members: Members
    places: Places
    hub: Hub

    async def mine(self, name: str) -> Mine:
        """The person's votes and consent, and the workspace's; nothing is stored for it."""
        here = self.people.audience
        settings = await load_workspace(self.places, here.workspace_id)
        mine = Mine(votes={}, person=False, workspace=settings.consent_to_train)
        person = await self.people.known(name) if is_typed(name) else None
        if person is not None:
            votes = await self.feedback.mine(audience=person, limit=VOTES_READ)
            mine.votes = {vote.answer_id: vote.value for vote in votes}
            mine.person = await self.members.consent(person_of(person))
        return mine

    async def vote(self, answer_id: AnswerId, given: Vote) -> Said:
        """Store, change or take back the person's one vote on an answer."""
        audience = await self._acting(given)
        if given.value is None:
            return Said(said=await withdraw(self.feedback, answer_id, audience=audience))
        voted = await vote(self.feedback, answer_id, audience=audience, value=given.value)
        return Said(said=voted.text, value=given.value)

    async def better(self, answer_id: AnswerId, given: Better) -> Said:
        """Store the better answer that the person wrote, in place of an earlier one."""
        audience = await self._acting(given)
        better = given.text.replace("\0", " ").strip()
        if not better:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, EMPTY)
        criticism = Criticism(reasons=(), comment=None, better=better)
        return Said(
            said=await criticise(self.feedback, answer_id, audience=audience, criticism=criticism)
        )

    async def consent(self, whose: Literal["person", "workspace"], given: Consent) -> Mine:
        """Change what the person, or everybody here, agreed to; storage notes it in the audit.

        The page has one door: whoever came through it may decide for the workspace.
        """
        audience = await self._acting(given)
        person = person_of(audience)
        if whose == "person":
            await self.members.set_consent(person, given.given)
            return await self.mine(given.name)
        workspace = audience.workspace_id
        settings = await load_workspace(self.places, workspace)
        if settings.consent_to_train != given.given:
            changed = settings.model_copy(update={"consent_to_train": given.given})
            await save_workspace(self.places, workspace, changed, by=person)
        self.hub.publish({"kind": "consent", "workspace": given.given})
        return await self.mine(given.name)

    async def _acting(self, given: Acting) -> Audience:
        if not is_typed(given.name):
            raise HTTPException(HTTPStatus.BAD_REQUEST, NAMELESS)
        return await self.people.acting(given.name)


def router(rating: Rating, *, may_read: Callable[[HTTPConnection], bool]) -> APIRouter:
    """The requests of the page.

    Args:
        may_read: whether the browser has signed in.
    """

    async def door(connection: HTTPConnection) -> AsyncIterator[None]:
        """Let in who has signed in, and say what went wrong in a sentence."""
        if not may_read(connection):
            raise HTTPException(HTTPStatus.FORBIDDEN, SIGNED_OUT)
        try:
            yield
        except NotFound as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, sentence_for(error, clicked=True)) from error
        except StorageError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, sentence_for(error)) from error

    routes = APIRouter(prefix=PREFIX, dependencies=[Depends(door)])

    @routes.post("/mine")
    async def mine(person: Acting) -> Mine:
        return await rating.mine(person.name)

    @routes.post("/answers/{answer_id}/vote")
    async def vote_on(answer_id: AnswerId, given: Vote) -> Said:
        return await rating.vote(answer_id, given)

    @routes.post("/answers/{answer_id}/better")
    async def better(answer_id: AnswerId, given: Better) -> Said:
        return await rating.better(answer_id, given)

    @routes.post("/consent/{whose}")
    async def consent(whose: Literal["person", "workspace"], given: Consent) -> Mine:
        return await rating.consent(whose, given)

    return routes
