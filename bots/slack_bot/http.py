"""Over HTTP: events in HTTP mode, and the pages that workspaces install the app from.

Bolt checks the signature of every event (HMAC of the body with the signing secret, at most five
minutes old) before it reads anything else of it.
"""

import hmac
import html
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp

from bots.errors import PortTaken
from bots.settings import SlackSettings
from bots.slack_bot.oauth import STATE_S, InstallRefused, Workspaces
from storage.errors import StorageError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 2**20
"""Slack's events and views are far smaller."""
GRACE_S = 3.0
"""For requests in flight when the process stops; Slack waits no longer for an ack."""
STATE_COOKIE = "parley-slack-state"

EVENTS_PATH = "/slack/events"
INSTALL_PATH = "/slack/install"
REDIRECT_PATH = "/slack/oauth_redirect"


@asynccontextmanager
async def serving(
    app: AsyncApp, workspaces: Workspaces, settings: SlackSettings
) -> AsyncIterator[str]:
    """Listen as long as the context lives; gives the address.

    Raises:
        PortTaken: another program listens there.
    """
    runner = web.AppRunner(
        build(app, workspaces, settings), access_log=None, shutdown_timeout=GRACE_S
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            raise PortTaken("slack", settings.host, settings.port) from error
        host, port = runner.addresses[0][:2]
        logger.info("listening on %s:%d", host, port, extra={"action": "slack_listening"})
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def build(app: AsyncApp, workspaces: Workspaces, settings: SlackSettings) -> web.Application:
    """The routes that the settings ask for."""
    server = web.Application(client_max_size=MAX_BODY_BYTES)
    server.router.add_get("/healthz", _health)
    if settings.mode == "http":

        async def events(request: web.Request) -> web.StreamResponse:
            response = await app.async_dispatch(await to_bolt_request(request))
            return await to_aiohttp_response(response)

        server.router.add_post(EVENTS_PATH, events)
    if settings.oauth:
        _add_install(server, workspaces, settings)
    return server


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _add_install(server: web.Application, workspaces: Workspaces, settings: SlackSettings) -> None:
    at_https = (settings.redirect_url or "").startswith("https:")

    async def install(request: web.Request) -> web.StreamResponse:
        try:
            url, state = await workspaces.authorize_url()
        except StorageError:
            return _page(503, "Parley's database does not answer; please try again later.")
        response = web.Response(status=302, headers={"Location": url})
        # Binds the state to this browser: nobody can be made to end another's installation.
        response.set_cookie(
            STATE_COOKIE,
            state,
            max_age=int(STATE_S),
            httponly=True,
            # Over plain http, as on this machine, a browser would not send it back.
            secure=at_https or request.headers.get("X-Forwarded-Proto") == "https",
            samesite="Lax",
            path="/slack",
        )
        return response

    async def redirected(request: web.Request) -> web.StreamResponse:
        if "error" in request.query:
            return _page(200, "The installation was cancelled.")
        state, code = request.query.get("state", ""), request.query.get("code", "")
        cookie = request.cookies.get(STATE_COOKIE, "")
        if not state or not hmac.compare_digest(state.encode(), cookie.encode()):
            return _page(400, "This installation was not begun in this browser.")
        try:
            name = await workspaces.install(code=code, state=state)
        except InstallRefused as error:
            return _page(400, str(error))
        except StorageError:
            return _page(503, "Parley's database does not answer; please install it again later.")
        return _page(200, f"Parley is installed in {name}. Invite it to a channel and ask.")

    server.router.add_get(INSTALL_PATH, install)
    server.router.add_get(REDIRECT_PATH, redirected)


def _page(status: int, text: str) -> web.Response:
    response = web.Response(
        status=status,
        content_type="text/html",
        text=f"<!doctype html><title>Parley</title><p>{html.escape(text)}</p>"
        f'<p><a href="{INSTALL_PATH}">Install</a></p>',
    )
    response.del_cookie(STATE_COOKIE, path="/slack")
    return response
