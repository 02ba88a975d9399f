"""Files from Slack's file hosts, and from nowhere else: the download carries the workspace's token.

An event names the address of its file, and whoever can forge one could name any. So the token goes
only to the hosts that the settings name, by https, and to the origin of the Web API where that is
not Slack's own; the address that is checked is the very object that is requested. A redirect is not
followed: Slack's own lead to a login page.

Why a login page must be recognised: without the scope `files:read`, or for a file of a channel
that the app is not in, Slack answers with status 200 and the page, which would become the document.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from bots.settings import SlackSettings
from storage.errors import DocumentRejected, DocumentTooLarge
from storage.jobs import RetryLater

DOWNLOAD_S = 600.0
"""Of one file; the default limit of 100 MB comes within it at 170 kB/s."""
CONNECT_S = 10.0
SILENCE_S = 30.0
"""Between two pieces of a file."""
PIECE_BYTES = 256 * 1024
MAX_RETRY_AFTER_S = 120.0

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
    try:
        url = URL(text)
        own = URL(settings.api_url)
        origin = (url.scheme, url.host, url.port)
        by_https = origin[0] == "https" and origin[2] == 443 and origin[1] in settings.file_hosts
        allowed = by_https or (origin == (own.scheme, own.host, own.port) and not _is_slack(own))
        anonymous = url.raw_user is None and url.raw_password is None
    except ValueError:
        raise DocumentRejected(ELSEWHERE) from None
    if not (allowed and anonymous):
        raise DocumentRejected(ELSEWHERE)
    return url


def _is_slack(api: URL) -> bool:
    """Whether the Web API is Slack's own, whose host serves pages and no files."""
    return api.host == "slack.com" or str(api.host).endswith(".slack.com")


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
    if file.bytes > limit_bytes:
        raise DocumentTooLarge(limit_bytes=limit_bytes)
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_S, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response,
            aclosing(_body(response, file, limit_bytes=limit_bytes)) as pieces,
        ):
            async for piece in pieces:
                yield piece
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise RetryLater from error


async def _body(
    response: aiohttp.ClientResponse, file: SlackFile, *, limit_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The body, if it is the file's."""
    _refuse_answer(response, file)
    if response.content_length is not None and response.content_length > limit_bytes:
        raise DocumentTooLarge(limit_bytes=limit_bytes)
    received = 0
    async for piece in response.content.iter_chunked(PIECE_BYTES):
        if received == 0 and _looks_like_page(piece, file):
            raise DocumentRejected(LOGIN_PAGE)
        received += len(piece)
        yield piece
    if file.html and file.bytes and received != file.bytes:
        raise DocumentRejected(LOGIN_PAGE)  # a page where one was expected, but another one


def _refuse_answer(response: aiohttp.ClientResponse, file: SlackFile) -> None:
    status = response.status
    if status == 429 or status >= 500:
        raise RetryLater(_retry_after(response))
    if status in (404, 410):
        raise DocumentRejected(GONE)
    if status != 200 or (response.content_type in _HTML and not file.html):
        raise DocumentRejected(LOGIN_PAGE)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), MAX_RETRY_AFTER_S)
    except (KeyError, ValueError):
        return None


def _looks_like_page(piece: bytes, file: SlackFile) -> bool:
    """Whether bytes that were announced as something else are a page."""
    begins = piece[:64].lstrip().lower()
    is_text = file.html or file.media_type.startswith("text/") or not file.media_type
    return not is_text and begins.startswith((b"<!doctype html", b"<html"))
