"""Where the token may go, and what a file host's answers mean."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from bots.settings import SlackSettings
from bots.slack_bot.downloads import SlackFile, checked_url, download
from storage.errors import DocumentRejected, DocumentTooLarge
from storage.jobs import RetryLater

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def file_at(url: str, *, name: str = "plan.txt", media_type: str = "text/plain") -> SlackFile:
    return SlackFile(id="F1", name=name, url=url, bytes=0, media_type=media_type, permalink="")


@asynccontextmanager
async def host(handler: Handler) -> AsyncIterator[str]:
    """Address of a file on a host that answers so."""
    app = web.Application()
    app.router.add_get("/file", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/file"
    finally:
        await runner.cleanup()


async def fetched(file: SlackFile, *, limit_bytes: int = 1000) -> bytes:
    settings = SlackSettings(base_url=file.url.replace("/file", "/api/"))
    pieces = download(file, token="xoxb-1", settings=settings, limit_bytes=limit_bytes, proxy=None)
    return b"".join([piece async for piece in pieces])


def answering(response: Callable[[], web.Response]) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return response()

    return handle


@pytest.mark.parametrize(
    "url",
    [
        "https://files.slack.com/files-pri/T1-F1/plan.txt",
        "https://FILES.slack.com:443/files-pri/T1-F1/download/plan.txt?origin_team=T1",
    ],
)
def test_slacks_own_file_host_gets_the_token(url: str) -> None:
    assert checked_url(url, SlackSettings()).host == "files.slack.com"


@pytest.mark.parametrize(
    "url",
    [
        "https://slack.com/files-pri/T1-F1/plan.txt",
        "https://team.slack.com/files-pri/T1-F1/plan.txt",
        "http://files.slack.com/files-pri/T1-F1/plan.txt",
        "https://files.slack.com./files-pri/T1-F1/plan.txt",
        "https://user@files.slack.com/files-pri/T1-F1/plan.txt",
        "https://127.0.0.1/plan.txt",
        "//files.slack.com/plan.txt",
        "",
    ],
)
def test_nobody_else_gets_it(url: str) -> None:
    with pytest.raises(DocumentRejected, match="outside of Slack"):
        checked_url(url, SlackSettings())


@pytest.mark.parametrize(("status", "after_s"), [(503, None), (429, 7.0), (500, None), (429, None)])
async def test_a_host_in_trouble_is_asked_later(status: int, after_s: float | None) -> None:
    headers = {} if after_s is None else {"Retry-After": f"{after_s:.0f}"}
    async with host(answering(lambda: web.Response(status=status, headers=headers))) as url:
        with pytest.raises(RetryLater) as later:
            await fetched(file_at(url))
    assert later.value.after_s == after_s


async def test_a_host_that_is_away_is_asked_later() -> None:
    async with host(answering(web.Response)) as url:
        pass
    with pytest.raises(RetryLater):
        await fetched(file_at(url))


async def test_a_file_that_breaks_off_is_fetched_again() -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    async with host(half) as url:
        with pytest.raises(RetryLater):
            await fetched(file_at(url))


@pytest.mark.parametrize("status", [401, 403, 302, 204])
async def test_a_refusal_is_final_and_says_what_to_do(status: int) -> None:
    async with host(answering(lambda: web.Response(status=status))) as url:
        with pytest.raises(DocumentRejected, match="files:read"):
            await fetched(file_at(url))


async def test_a_size_that_the_host_names_is_enough_to_refuse() -> None:
    async with host(answering(lambda: web.Response(body=b"x" * 1001))) as url:
        with pytest.raises(DocumentTooLarge):
            await fetched(file_at(url))
        assert await fetched(file_at(url), limit_bytes=1001) == b"x" * 1001


async def test_a_page_that_pretends_to_be_a_pdf_is_a_login_page() -> None:
    def page() -> web.Response:
        body = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
        return web.Response(body=body, content_type="application/pdf")

    async with host(answering(page)) as url:
        with pytest.raises(DocumentRejected, match="login page"):
            await fetched(file_at(url, name="plan.pdf", media_type="application/pdf"))


async def test_the_token_is_sent_as_a_header_and_never_in_the_address() -> None:
    seen: list[tuple[str, str]] = []

    async def note(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], request.path_qs))
        return web.Response(body=b"plan", content_type="text/plain")

    async with host(note) as url:
        assert await fetched(file_at(url)) == b"plan"
    assert seen == [("Bearer xoxb-1", "/file")]
