from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from bots.settings import WebSettings
from bots.web.guard import MAX_BODY_BYTES, Guard, is_loopback, require_password
from engine.errors import SettingsInvalid


async def _answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("done")


async def _status(method: str, *, loopback_only: bool = True, **headers: str) -> int:
    app = Starlette(routes=[Route("/", _answer, methods=["GET", "POST"])])
    transport = httpx.ASGITransport(Guard(app, loopback_only=loopback_only))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8800") as client:
        return (await client.request(method, "/", headers=headers)).status_code


async def test_the_page_itself_may_post() -> None:
    assert await _status("POST", Origin="http://127.0.0.1:8800") == 200
    assert await _status("POST") == 200  # curl and health checks send no origin


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1:9999", "http://127.0.0.1", "null", "http://[::1"],
)
async def test_another_website_may_not_post(origin: str) -> None:
    assert await _status("POST", Origin=origin) == 403


@pytest.mark.parametrize("host", ["evil.example:8800", "127.0.0.1.evil.example", "", "[::1"])
async def test_a_name_that_was_pointed_here_is_refused_even_for_reading(host: str) -> None:
    assert await _status("GET", Host=host) == 403


@pytest.mark.parametrize("host", ["localhost:8800", "127.0.0.1", "[::1]:8800", "LOCALHOST"])
async def test_loopback_names_are_answered(host: str) -> None:
    assert await _status("GET", Host=host) == 200


async def test_a_page_with_a_password_answers_to_any_name() -> None:
    assert await _status("GET", loopback_only=False, Host="parley.example") == 200


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("path", "length", "status"),
    [("/", MAX_BODY_BYTES, 200), ("/", MAX_BODY_BYTES + 1, 413), ("/file", 2**20, 200)],
)
async def test_only_a_path_with_limits_of_its_own_reads_a_long_body(
    path: str, length: int, status: int, told: bool
) -> None:
    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, length, 1000):
            yield bytes(min(1000, length - start))

    app = Starlette(routes=[Route(each, read, methods=["POST"]) for each in ("/", "/file")])
    guard = Guard(app, loopback_only=True, own_limits={"/file"})
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(guard), base_url="http://127.0.0.1:8800"
    ) as client:
        response = await client.post(path, content=bytes(length) if told else parts())
    assert response.status_code == status
    assert response.text == str(length) or status == 413


async def test_a_foreign_website_gets_no_websocket() -> None:
    sent: list[Message] = []
    scope: Scope = {
        "type": "websocket",
        "headers": [(b"host", b"127.0.0.1:8800"), (b"origin", b"https://evil.example")],
    }

    async def send(message: Message) -> None:
        sent.append(message)

    async def never(*_: object) -> Message:
        raise AssertionError("the application was reached")

    await Guard(never, loopback_only=True)(scope, never, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "parley.example"])
def test_other_machines_are_let_in_with_a_password_only(host: str) -> None:
    with pytest.raises(SettingsInvalid, match="PARLEY_WEB__PASSWORD"):
        require_password(WebSettings.model_validate({"host": host}))
    with pytest.raises(SettingsInvalid, match="PARLEY_WEB__PASSWORD"):
        require_password(WebSettings.model_validate({"host": host, "password": ""}))
    require_password(WebSettings.model_validate({"host": host, "password": "s3cret"}))


def test_loopback_needs_no_password() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert is_loopback(host)
        require_password(WebSettings.model_validate({"host": host}))
