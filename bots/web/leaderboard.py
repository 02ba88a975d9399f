"""The leaderboard as a page of its own: which model people prefer, per workspace and channel.

Whoever may open the page may see it: it names models and counts votes, never people.
"""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from uuid import UUID

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from bots.web import render
from feedback import ComparedPlace, Feedback, Leaderboard, picture
from storage.errors import StorageError
from storage.identity import ChannelId, WorkspaceId

logger = logging.getLogger(__name__)

PATH: Final = "/leaderboard"
WITHIN_S: Final = 60.0
MAX_WAITING: Final = 8
"""Requests that may wait for their turn: a ranking takes a core, a drawing a process, so there is
one of them at a time."""
PICTURES_KEPT: Final = 8


def page(
    feedback: Feedback, *, may_read: Callable[[HTTPConnection], bool]
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of `PATH`; `?workspace=` and `?channel=` choose, else it is the first workspace.

    Args:
        may_read: whether the browser has signed in.
    """
    boards = _Boards(feedback)

    async def show(request: Request) -> Response:
        if not may_read(request):
            return RedirectResponse("/", HTTPStatus.SEE_OTHER)
        if boards.waiting >= MAX_WAITING:
            return _later("Too many people look at the leaderboard just now.")
        try:
            async with asyncio.timeout(WITHIN_S):
                return await boards.shown(
                    _id(request, "workspace"), channel=_id(request, "channel")
                )
        except ValueError:
            return PlainTextResponse("There is no such ranking.", HTTPStatus.NOT_FOUND)
        except StorageError:
            return _later("The database does not answer.")
        except TimeoutError:
            return _later("The ranking takes too long.")

    return show


@dataclass(kw_only=True)
class Choice:
    """A ranking that can be chosen, as a link shows it."""

    name: str
    address: str
    votes: int
    chosen: bool


@dataclass
class _Boards:
    """Rankings and their pictures, one at a time.

    Attributes:
        waiting: requests under way.
    """

    feedback: Feedback
    waiting: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _pictures: dict[object, str] = field(default_factory=dict)

    async def shown(self, workspace: UUID | None, *, channel: UUID | None) -> Response:
        """One ranking as a page.

        Raises:
            ValueError: nobody compared anything there.
        """
        self.waiting += 1
        try:
            async with self._turn:
                return await self._shown(workspace, channel)
        finally:
            self.waiting -= 1

    async def _shown(self, workspace: UUID | None, channel: UUID | None) -> Response:
        places = await self.feedback.compared_places()
        if not places and workspace is None:
            return HTMLResponse(render.leaderboard(None, choices=(), drawn=None))
        wanted = WorkspaceId(workspace) if workspace else places[0].workspace_id
        here = [place.channel_id for place in places if place.workspace_id == wanted]
        channel_id = ChannelId(channel) if channel else None
        if not here or (channel_id is not None and channel_id not in here):
            raise ValueError("no such ranking")
        board = await self.feedback.ranking(workspace_id=wanted, channel_id=channel_id)
        choices = _choices(places, workspace=wanted, channel=channel)
        drawn = await self._picture(board) if board.enough else None
        return HTMLResponse(render.leaderboard(board, choices=choices, drawn=drawn))

    async def _picture(self, board: Leaderboard) -> str:
        """The drawing as an address that holds it; the same ranking is drawn once."""
        if board.models not in self._pictures:
            drawn = await picture(board, title=f"Leaderboard: {board.votes} votes")
            while len(self._pictures) >= PICTURES_KEPT:
                del self._pictures[next(iter(self._pictures))]
            address = f"data:image/png;base64,{base64.b64encode(drawn).decode()}"
            self._pictures[board.models] = address
        return self._pictures[board.models]


def _choices(
    places: Sequence[ComparedPlace], *, workspace: UUID, channel: UUID | None
) -> list[Choice]:
    """Each workspace, and the channels of the one that is shown."""
    found = []
    for each in dict.fromkeys(place.workspace_id for place in places):
        here = [place for place in places if place.workspace_id == each]
        found.append(
            Choice(
                name=f"{here[0].platform} workspace {str(each)[:8]}",
                address=f"{PATH}?workspace={each}",
                votes=sum(place.votes for place in here),
                chosen=each == workspace and channel is None,
            )
        )
        if each == workspace:
            found += [
                Choice(
                    name=f"channel {str(place.channel_id)[:8]}",
                    address=f"{PATH}?workspace={each}&channel={place.channel_id}",
                    votes=place.votes,
                    chosen=place.channel_id == channel,
                )
                for place in here
                if place.channel_id is not None
            ]
    return found


def _id(request: Request, name: str) -> UUID | None:
    """An id of the query; None where it is not named.

    Raises:
        ValueError: it is none.
    """
    given = request.query_params.get(name)
    return UUID(given) if given else None


def _later(why: str) -> Response:
    logger.info("no leaderboard: %s", why, extra={"action": "leaderboard_refused"})
    return PlainTextResponse(f"{why} Try again in a moment.", HTTPStatus.SERVICE_UNAVAILABLE)
