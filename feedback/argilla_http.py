"""Argilla's HTTP interface as its owner: one request, what it lists, and its errors as ours."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import httpx

from feedback.errors import (
    ArgillaFailed,
    ArgillaMisconfigured,
    ArgillaUnavailable,
    FeedbackError,
    RecordRefused,
)

PAGE: Final = 500
"""Records that are listed at once."""
MAX_SAID_CHARACTERS: Final = 500
"""Of what Argilla says about a refusal."""

Json = dict[str, Any]


class ArgillaHttp:
    """Requests to one Argilla; use as an async context manager.

    All methods raise FeedbackError, by who must act.

    Args of the constructor:
        url: address without a trailing slash.
        api_key: of an owner.
        timeout_s: deadline of one request.
        failed: called when Argilla does not answer, or lacks what should be there.
    """

    def __init__(
        self, url: str, api_key: str, *, timeout_s: float, failed: Callable[[], None]
    ) -> None:
        self._timeout_s = timeout_s
        self._failed = failed
        with mapped():
            self._http = httpx.AsyncClient(
                base_url=f"{url}/api/v1/",
                headers={"X-Argilla-Api-Key": api_key},
                timeout=timeout_s,
                trust_env=False,
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def items(self, path: str, **parameters: object) -> list[Json]:
        """What a request lists."""
        items: list[Json] = (await self.request("GET", path, params=parameters))["items"]
        return items

    async def pages(self, dataset_id: str, **parameters: object) -> AsyncIterator[list[Json]]:
        """The records of a data set, the oldest first."""
        offset = 0
        while True:
            path = f"datasets/{dataset_id}/records"
            page = await self.items(path, offset=offset, limit=PAGE, **parameters)
            yield page
            if len(page) < PAGE:
                return
            offset += PAGE

    async def get(self, path: str) -> Json | None:
        """Something that may be gone; None where it is."""
        found: Json | None = await self.request("GET", path, may_be_gone=True)
        return found

    async def delete(self, path: str) -> None:
        """Delete something that may be gone already."""
        await self.request("DELETE", path, may_be_gone=True)

    async def request(
        self, method: str, path: str, *, may_be_gone: bool = False, **arguments: Any
    ) -> Any:
        """One request; its answer as JSON, None for an empty one.

        Args:
            may_be_gone: that there is no such thing is None as well.
            arguments: httpx's own.
        """
        try:
            with mapped():
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._http.request(method, path, **arguments)
                answer.raise_for_status()
        except ArgillaUnavailable as error:
            if may_be_gone and isinstance(error, Missing):
                return None
            self._failed()
            raise
        return answer.json() if answer.content else None


class Missing(ArgillaUnavailable):
    """Something that was there is gone: to be made anew."""


class Conflict(FeedbackError):
    """It is there already."""


@contextmanager
def mapped() -> Iterator[None]:
    """Turn what the SDK and its session raise into our errors."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise of_status(error.response.status_code, error.response.text) from None
    except (httpx.TransportError, TimeoutError) as error:
        raise ArgillaUnavailable(f"Argilla does not answer ({type(error).__name__}).") from error
    except httpx.InvalidURL as error:
        raise ArgillaMisconfigured(f"PARLEY_ARGILLA__URL is no address: {error}.") from None


def of_status(status: int, said: str) -> FeedbackError:
    """Our error for a status of Argilla's and what it said."""
    said = said[:MAX_SAID_CHARACTERS]
    if status in (401, 403):
        return ArgillaMisconfigured(
            f"Argilla refuses the API key ({status}); set PARLEY_ARGILLA__API_KEY to an owner's."
        )
    if status == 404:
        return Missing(f"Argilla lacks what was there: {said}")
    if status == 409:
        return Conflict(said)
    if status == 429:
        return ArgillaUnavailable("Argilla takes no more for now.")
    if status >= 500:
        return ArgillaFailed(f"Argilla failed ({status}): {said}")
    return RecordRefused(f"Argilla refuses it ({status}): {said}")
