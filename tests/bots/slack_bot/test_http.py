"""Events over HTTP, installation by OAuth, rotation of tokens, and what an uninstall leaves."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bots.slack_bot.contract import scopes
from storage.identity import Keys
from storage.installations import Installations
from storage.pool import Pool
from tests.bots.app_process import eventually
from tests.bots.conftest import free_port
from tests.bots.slack_bot.conftest import Know, Running
from tests.bots.slack_bot.installing import cookie_of, install, returning, up
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Workspace

# The SDK's oauth_v2_access uses a class that aiohttp has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning")

HANDBOOK = "Full-time employees of Marlow Tools receive 27 days of paid annual leave each year."
QUESTION = "How many days of paid annual leave do full-time employees receive?"

Serving = Callable[..., contextlib.AbstractAsyncContextManager[str]]


@pytest.fixture
def serving(slack: SlackServer, slack_app: Running, model: ScriptedModel) -> Serving:
    """The app in HTTP mode; gives its address."""
    model.script = lambda prompt: "They receive 27 days of paid annual leave [1]."

    @asynccontextmanager
    async def serving(**settings: Any) -> AsyncIterator[str]:
        port = free_port()
        root = f"http://127.0.0.1:{port}"
        slack.sockets.request_url = f"{root}/slack/events"
        http = {"mode": "http", "port": port, "signing_secret": slack.signing_secret}
        async with slack_app(**{**http, "app_token": None, "edit_interval_s": 0.05, **settings}):
            await up(root)
            yield root

    return serving


@pytest.fixture
def oauth(slack: SlackServer) -> dict[str, Any]:
    """Settings for installation by OAuth instead of a token."""
    return {
        "bot_token": None,
        "client_id": slack.client_id,
        "client_secret": slack.client_secret,
    }


@pytest.fixture
def installations(pool: Pool, keys: Keys) -> Installations:
    return Installations(pool=pool, keys=keys)


@pytest.fixture
async def second(slack: SlackServer) -> Workspace:
    return slack.add_workspace("Second")


# ---------------------------------------------------------------- events


async def test_signed_events_are_answered_over_http(
    slack: SlackServer, serving: Serving, know: Know
) -> None:
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    await know(team, "handbook.md", HANDBOOK)
    async with serving():
        answer = await slack.answer_to(slack.say(ana, team, f"{slack.mention} {QUESTION}"))
        assert "27 days" in answer.seen
        assert all(delivery.attempts[0].status == 200 for delivery in slack.sockets.deliveries[:2])


async def test_what_slack_did_not_sign_lately_is_refused(
    slack: SlackServer, serving: Serving, pool: Pool
) -> None:
    body = json.dumps({"type": "event_callback", "team_id": slack.home.id, "event": {}}).encode()
    refused = [
        {},
        slack.sockets.sign(body, secret="another-secret"),
        slack.sockets.sign(body, at=time.time() - 301),
        slack.sockets.sign(body + b" "),
    ]
    async with serving() as root, httpx.AsyncClient(trust_env=False) as client:
        for headers in refused:
            headers = {"Content-Type": "application/json", **headers}
            response = await client.post(f"{root}/slack/events", content=body, headers=headers)
            assert response.status_code == 401
        headers = {"Content-Type": "application/json", **slack.sockets.sign(body)}
        response = await client.post(f"{root}/slack/events", content=body, headers=headers)
        assert response.status_code == 200


# ---------------------------------------------------------------- OAuth


async def test_a_workspace_installs_the_app_and_is_answered(
    slack: SlackServer,
    serving: Serving,
    oauth: dict[str, Any],
    second: Workspace,
    pool: Pool,
    know: Know,
) -> None:
    async with serving(**oauth) as root:
        done = await install(slack, root, second)
        assert done.status_code == 200
        assert "Second" in done.text
        ana = slack.add_person("Ana", workspace=second)
        team = slack.add_channel("team", ana, workspace=second)
        await know(team, "handbook.md", HANDBOOK)
        asked = slack.say(ana, team, f"{second.mention} {QUESTION}")
        assert "27 days" in (await slack.answer_to(asked)).seen
    assert second.bot_token is not None
    assert slack.world.tokens[second.bot_token].scopes == frozenset(scopes())
    async with pool.connection() as connection:
        found = await connection.execute("SELECT payload_encrypted FROM installations")
        [(stored,)] = await found.fetchall()
    assert second.bot_token.encode() not in bytes(stored)


async def test_an_installation_must_end_in_the_browser_that_began_it_and_once(
    slack: SlackServer, serving: Serving, oauth: dict[str, Any], second: Workspace
) -> None:
    async with serving(**oauth) as root, httpx.AsyncClient(trust_env=False) as browser:
        slack.oauth.installing = (second, "U1")
        begun = await browser.get(f"{root}/slack/install")
        cookie = cookie_of(begun)
        browser.cookies.clear()
        consent = await browser.get(begun.headers["location"])
        back = returning(root, consent)
        assert (await browser.get(back)).status_code == 400
        forged = f"{root}/slack/oauth_redirect?code=x&state=forged"
        assert (await browser.get(forged, headers=cookie)).status_code == 400
        assert slack.calls_of("oauth.v2.access") == []
        assert (await browser.get(back, headers=cookie)).status_code == 200
        assert (await browser.get(back, headers=cookie)).status_code == 400
        assert len(slack.calls_of("oauth.v2.access")) == 1


async def test_a_token_is_renewed_before_it_expires(
    slack: SlackServer,
    serving: Serving,
    oauth: dict[str, Any],
    second: Workspace,
    installations: Installations,
) -> None:
    slack.oauth.rotation_s = 3600
    async with serving(**oauth) as root:
        await install(slack, root, second)
        first = await installations.find("slack", second.id)
        slack.oauth.rotation_s = 43_200  # the next token outlives the test
        ana = slack.add_person("Ana", workspace=second)
        team = slack.add_channel("team", ana, workspace=second)
        slack.say(ana, team, f"{second.mention} {QUESTION}")

        async def renewed() -> bool:
            return await installations.find("slack", second.id) != first

        await eventually(renewed, "another token")
        now = await installations.find("slack", second.id)
        assert first is not None
        assert now is not None
        assert now["token"] == second.bot_token
        assert now["bot_id"] == first["bot_id"]


async def test_an_uninstall_removes_tokens_at_once_and_data_after_the_grace(
    slack: SlackServer,
    serving: Serving,
    oauth: dict[str, Any],
    second: Workspace,
    installations: Installations,
    pool: Pool,
    know: Know,
    home: Path,
) -> None:
    async def workspaces() -> list[tuple[Any, ...]]:
        async with pool.connection() as connection:
            found = await connection.execute(
                "SELECT removed_at IS NOT NULL FROM workspaces WHERE platform_id = %s", [second.id]
            )
            return await found.fetchall()

    ana = slack.add_person("Ana", workspace=second)
    team = slack.add_channel("team", ana, workspace=second)
    async with serving(**oauth) as root:
        await install(slack, root, second)
        await know(team, "handbook.md", HANDBOOK)
        slack.uninstall(second)
        for delivery in list(slack.sockets.deliveries):
            await delivery.acknowledged()
        assert await installations.find("slack", second.id) is None
        assert await workspaces() == [(True,)]
        await install(slack, root, second)
        assert await workspaces() == [(False,)]
        slack.uninstall(second)
        for delivery in list(slack.sockets.deliveries):
            await delivery.acknowledged()
    assert any((home / "files").iterdir())
    async with serving(**oauth, uninstall_grace_days=0):

        async def purged() -> bool:
            return await workspaces() == []

        await eventually(purged, "its data is gone")
    assert not any((home / "files").iterdir())


async def test_revoked_tokens_of_people_leave_the_app_installed(
    slack: SlackServer,
    serving: Serving,
    oauth: dict[str, Any],
    second: Workspace,
    installations: Installations,
) -> None:
    async with serving(**oauth) as root:
        await install(slack, root, second)
        delivery = slack.emit(
            {"type": "tokens_revoked", "tokens": {"oauth": ["U1"]}}, workspace=second
        )
        assert delivery is not None
        await delivery.acknowledged()
        assert await installations.find("slack", second.id) is not None
