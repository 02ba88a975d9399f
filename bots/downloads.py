"""Files from the hosts of a chat platform, and from nowhere else.

An event names the address of its file, and whoever can forge one could name any. So only hosts that
the settings name are asked, by https, and the origin of the platform's API where that is not the
platform's own; the address that is checked is the very object that is requested. No redirect is
followed.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import aiohttp
from yarl import URL

from storage.errors import DocumentRejected, DocumentTooLarge
from storage.jobs import RetryLater

DOWNLOAD_S = 600.0
"""Of one file; the default limit of 100 MB comes within it at 170 kB/s."""
CONNECT_S = 10.0
SILENCE_S = 30.0
"""Between two pieces of a file."""
PIECE_BYTES = 256 * 1024
MAX_RETRY_AFTER_S = 120.0

Check = Callable[[aiohttp.ClientResponse], None]


def checked_url(
    text: str, *, hosts: Sequence[str], api_url: str, own_domains: Sequence[str], refusal: str
) -> URL:
    """The address of a file, if it may be asked for.

    Args:
        hosts: where the platform keeps files.
        api_url: of the platform's API; its origin may serve files where it is none of
            `own_domains`, such as a proxy's or a test's.
        own_domains: of the platform itself, whose API serves pages and no files.
        refusal: what the person is told.

    Raises:
        DocumentRejected: it may not.
    """
    try:
        url, own = URL(text), URL(api_url)
        origin = (url.scheme, url.host, url.port)
        by_https = origin[0] == "https" and origin[2] == 443 and origin[1] in hosts
        elsewhere = not any(
            own.host == domain or str(own.host).endswith(f".{domain}") for domain in own_domains
        )
        allowed = by_https or (elsewhere and origin == (own.scheme, own.host, own.port))
        anonymous = url.raw_user is None and url.raw_password is None
    except ValueError:
        raise DocumentRejected(refusal) from None
    if not (allowed and anonymous):
        raise DocumentRejected(refusal)
    return url


async def download(
    url: URL,
    *,
    headers: Mapping[str, str],
    announced_bytes: int,
    limit_bytes: int,
    check: Check,
    proxy: str | None = None,
) -> AsyncGenerator[bytes, None]:
    """The bytes of a file, as they come.

    Args:
        url: checked.
        announced_bytes: its size by the platform's account; 0 = unknown.
        limit_bytes: more are not begun where the size is known; whoever reads them counts too.
        check: raises `DocumentRejected` for an answer that is not the file.
        proxy: for https.

    Raises:
        DocumentRejected: it cannot be had; the reason is for the person who shared it.
        RetryLater: not now.
    """
    if announced_bytes > limit_bytes:
        raise DocumentTooLarge(limit_bytes=limit_bytes)
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_S, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    headers = {**headers, "Accept-Encoding": "identity"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response,
        ):
            if response.status == 429 or response.status >= 500:
                raise RetryLater(_retry_after(response))
            check(response)
            if response.content_length is not None and response.content_length > limit_bytes:
                raise DocumentTooLarge(limit_bytes=limit_bytes)
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                yield piece
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise RetryLater from error


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), MAX_RETRY_AFTER_S)
    except (KeyError, ValueError):
        return None
