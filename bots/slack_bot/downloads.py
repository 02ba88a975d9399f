"""Files from Slack's file hosts: the download carries the workspace's token, for nobody else.

A redirect is not followed: Slack's own lead to a login page.

Why a login page must be recognised: without the scope `files:read`, or for a file of a channel
that the app is not in, Slack answers with status 200 and the page, which would become the document.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from yarl import URL

from bots import downloads
from bots.settings import SlackSettings
from storage.errors import DocumentRejected

ELSEWHERE = "It lies outside of Slack, and I read only files that Slack keeps. Upload it here."
GONE = "Slack no longer has this file."
LOGIN_PAGE = (
    "Slack shows me a login page in its place: I may not read this file. An administrator can check"
    " that I am in the channel where it was shared and that the app has the scope files:read."
)

_HTML = ("text/html", "application/xhtml+xml")
_HTML_NAMES = (".html", ".htm", ".xhtml", ".xht", ".mhtml", ".mht")


@dataclass(frozen=True, kw_only=True)
class SlackFile:
    """A file as an event or `files.info` describes it; nothing of it is believed.

    Attributes:
        id: Slack's.
        url: where its bytes are; empty where Slack did not say.
        bytes: its size by Slack's account; 0 = unknown.
        permalink: its page in Slack; empty where there is none.
    """

    id: str
    name: str
    url: str
    bytes: int
    media_type: str
    permalink: str

    @classmethod
    def read(cls, file: Mapping[str, Any]) -> "SlackFile":
        """From Slack's JSON; missing fields are empty."""
        size = file.get("size")
        return cls(
            id=str(file.get("id") or ""),
            name=str(file.get("name") or file.get("title") or "unnamed"),
            url=str(file.get("url_private_download") or file.get("url_private") or ""),
            bytes=size if isinstance(size, int) else 0,
            media_type=str(file.get("mimetype") or ""),
            permalink=str(file.get("permalink") or ""),
        )

    @property
    def html(self) -> bool:
        """Whether a page of HTML is what was uploaded."""
        return self.media_type in _HTML or self.name.lower().endswith(_HTML_NAMES)


def checked_url(text: str, settings: SlackSettings) -> URL:
    """The address of a file, if the token may go there.

    Raises:
        DocumentRejected: it may not.
    """
    return downloads.checked_url(
        text,
        hosts=settings.file_hosts,
        api_url=settings.api_url,
        own_domains=("slack.com",),
        refusal=ELSEWHERE,
    )


async def download(
    file: SlackFile, *, token: str, settings: SlackSettings, limit_bytes: int, proxy: str | None
) -> AsyncGenerator[bytes, None]:
    """The bytes of a file, as they come.

    Args:
        token: sent to `file.url` if that is one of Slack's.
        limit_bytes: more are not begun where Slack says the size; whoever reads them counts too.
        proxy: for https, as the Web API's client uses it.

    Raises:
        DocumentRejected: it cannot be had; the reason is for the person who shared it.
        RetryLater: not now.
    """
    url = checked_url(file.url, settings)
    pieces = downloads.download(
        url,
        headers={"Authorization": f"Bearer {token}"},
        announced_bytes=file.bytes,
        limit_bytes=limit_bytes,
        check=partial(_check, file),
        proxy=proxy,
    )
    received = 0
    async with aclosing(pieces):
        async for piece in pieces:
            if received == 0 and _looks_like_page(piece, file):
                raise DocumentRejected(LOGIN_PAGE)
            received += len(piece)
            yield piece
    if file.html and file.bytes and received != file.bytes:
        raise DocumentRejected(LOGIN_PAGE)  # a page where one was expected, but another one


def _check(file: SlackFile, response: aiohttp.ClientResponse) -> None:
    if response.status in (404, 410):
        raise DocumentRejected(GONE)
    if response.status != 200 or (response.content_type in _HTML and not file.html):
        raise DocumentRejected(LOGIN_PAGE)


def _looks_like_page(piece: bytes, file: SlackFile) -> bool:
    """Whether bytes that were announced as something else are a page."""
    begins = piece[:64].lstrip().lower()
    is_text = file.html or file.media_type.startswith("text/") or not file.media_type
    return not is_text and begins.startswith((b"<!doctype html", b"<html"))
