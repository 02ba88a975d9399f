"""The web process: builds everything, serves the page, and stops within seconds."""

import asyncio
import contextlib
import hmac
import json
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.route_utils import API_PREFIX
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.websockets import WebSocket, WebSocketDisconnect

from bots.errors import PortTaken
from bots.settings import Settings, WebSettings
from bots.web import argilla, leaderboard
from bots.web.channel import Channel
from bots.web.guard import Guard, is_loopback, require_password
from bots.web.live import Hub, PageTooSlow, Subscription
from bots.web.page import ASSETS, THEME, build_page
from bots.web.people import People
from bots.web.rating import Rating, router
from bots.web.shelf import Shelf
from bots.workplace import PLACE, Workplace, open_workplace
from feedback.webhook import Webhook, registered
from storage.errors import StorageError
from storage.identity import Audience

logger = logging.getLogger(__name__)

MAX_PAGES = 500
"""Open pages at once; each holds one WebSocket and at most `live.MAX_PENDING` events."""
MAX_MESSAGE_BYTES = 4096
"""A page sends only the name of the thread that it shows."""
MAX_REF_CHARS = 200
"""Longest name of a thread that other surfaces give."""
UPLOAD_PATH = f"{API_PREFIX}/upload"
"""Where Gradio takes files, from who has signed in, and counts their bytes."""
SEND_TIMEOUT_S = 20.0
GRACE_S = 1
"""For requests in flight when the process stops; turns have their own time, `STOP_TIMEOUT_S`."""


async def serve(settings: Settings) -> None:
    """Serve the page until SIGTERM or SIGINT.

    Raises:
        SettingsInvalid: the page would be open to other machines without a password.
        PortTaken: another program listens on `web.port`.
        StorageError: the database does not answer or is not of this version.
    """
    require_password(settings.web)
    async with contextlib.AsyncExitStack() as stack:
        workplace = await stack.enter_async_context(open_workplace(settings))
        webhook = None
        if settings.argilla.enabled and settings.argilla.webhook_url:
            opened = registered(workplace.pool, settings.argilla, home=settings.home)
            webhook = await stack.enter_async_context(opened)
        audience = await workplace.identities.resolve(**PLACE, channel_open=True)
        app = build_app(
            parts_on(workplace, audience),
            settings=settings.web,
            upload_bytes=settings.documents.max_upload_mb * 2**20,
            webhook=webhook,
        )
        await run(app, settings=settings.web)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The page without a browser."""

    channel: Channel
    shelf: Shelf
    rating: Rating
    hub: Hub


def parts_on(workplace: Workplace, audience: Audience) -> Parts:
    """The parts of the page that shows the channel of `PLACE`, which is `audience`."""
    people = People(identities=workplace.identities, place=PLACE, audience=audience)
    hub = Hub()
    return Parts(
        channel=Channel(
            assistant=workplace.assistant,
            conversations=workplace.conversations,
            people=people,
            hub=hub,
        ),
        shelf=Shelf(documents=workplace.documents, audience=audience, hub=hub),
        rating=Rating(
            people=people,
            feedback=workplace.feedback,
            members=workplace.members,
            places=workplace.places,
            hub=hub,
        ),
        hub=hub,
    )


def build_app(
    parts: Parts,
    *,
    settings: WebSettings,
    upload_bytes: int,
    webhook: Webhook | None = None,
) -> FastAPI:
    """Put pages, what they ask for, the health check and Argilla's webhook behind the guard."""
    channel, shelf, hub, rating = parts.channel, parts.shelf, parts.hub, parts.rating
    password = settings.password.get_secret_value() if settings.password else ""

    def may_read(connection: HTTPConnection) -> bool:
        return not password or _signed_in(connection, gradio_app)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(shelf.watch(), name="documents")
        yield
        watching.cancel()
        await channel.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def health() -> dict[str, object]:
        return {"status": "ok", "pages": hub.pages}

    @app.websocket("/live")
    async def live(connection: WebSocket) -> None:
        if hub.pages >= MAX_PAGES or not may_read(connection):
            await connection.close(1008)
            return
        await connection.accept()
        with hub.subscribe() as subscription:
            sending = asyncio.create_task(_send(connection, subscription), name="live page")
            try:
                await _receive(connection, subscription, channel=channel, shelf=shelf)
            finally:
                sending.cancel()

    app.add_route(
        leaderboard.PATH, leaderboard.page(rating.feedback, may_read=may_read), methods=["GET"]
    )
    app.include_router(router(rating, may_read=may_read))
    if webhook is not None:
        app.add_route(argilla.PATH, argilla.receiver(webhook), methods=["POST"])

    gr.mount_gradio_app(
        app,
        build_page(channel=channel, shelf=shelf, upload_bytes=upload_bytes),
        path="/",
        auth=_password_check(password) if password else None,
        auth_message="Any name, and the password of this page.",
        show_error=False,
        max_file_size=upload_bytes,
        ssr_mode=False,
        run_history=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        theme=THEME,
        css_paths=[ASSETS / "page.css"],
    )
    gradio_app: Any = next(route.app for route in app.routes if isinstance(route, Mount))
    app.add_middleware(
        Guard,
        loopback_only=not password and is_loopback(settings.host),
        own_limits={UPLOAD_PATH, argilla.PATH},
    )
    return app


async def run(app: FastAPI, *, settings: WebSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        PortTaken: another program listens there.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=logging.WARNING,  # it reports every WebSocket at INFO
        access_log=False,
        server_header=False,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn handles them, then raises them again: to us, who close the rest in order.
        signal.signal(number, lambda *_: None)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise PortTaken("web", settings.host, settings.port) from error
    with listener:
        logger.info(
            "web page on %s:%s", *listener.getsockname()[:2], extra={"action": "web_started"}
        )
        await uvicorn.Server(config).serve(sockets=[listener])


async def _receive(
    connection: WebSocket, subscription: Subscription, *, channel: Channel, shelf: Shelf
) -> None:
    """Give a page the thread that it asks for, each time it asks, until it leaves."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            thread_ref = _wanted(await connection.receive_text())
            subscription.put(await shelf.event())
            event = await channel.thread_event(thread_ref, any_document=not shelf.empty)
            # Nothing may happen between reading the thread and listening to it.
            subscription.thread_ref = event["ref"]
            subscription.put(event)
            with contextlib.suppress(StorageError):
                subscription.put(await channel.threads_event())


def _wanted(message: str) -> str | None:
    """The thread that a page asks for; None = the newest."""
    try:
        wanted = json.loads(message)["open"]
    except (ValueError, TypeError, KeyError):
        return None
    usable = isinstance(wanted, str) and 0 < len(wanted) <= MAX_REF_CHARS and wanted.isprintable()
    return wanted if usable else None


async def _send(connection: WebSocket, subscription: Subscription) -> None:
    try:
        while True:
            events = json.dumps(await subscription.take())
            await asyncio.wait_for(connection.send_text(events), SEND_TIMEOUT_S)
    except (PageTooSlow, TimeoutError):
        logger.info("a page was too slow", extra={"action": "web_page_dropped"})
        await connection.close(1013)
    except WebSocketDisconnect:
        pass  # the receiving side ends the connection


def _password_check(password: str) -> Callable[[str, str], bool]:
    def check(_: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), password.encode())

    return check


def _signed_in(connection: HTTPConnection, gradio_app: Any) -> bool:
    """Whether Gradio's login page gave this browser a session."""
    names = (
        f"access-token-{gradio_app.cookie_id}",
        f"access-token-unsecure-{gradio_app.cookie_id}",
    )
    return any(connection.cookies.get(name) in gradio_app.tokens for name in names)
