"""The start of the Slack process: bad settings end it with one sentence that says what to do."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bots.check import parts_health
from bots.errors import ServiceMissing
from bots.settings import Settings, SlackSettings
from bots.slack_bot import process
from bots.slack_bot.process import require_way_in, run, verify, web_client
from bots.supervisor import parts_of
from engine.errors import SettingsInvalid
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.fakes.slack_server import SlackServer

CHECKOUT = Path(__file__).parents[3]
Make = Callable[..., SlackSettings]


@pytest.fixture
def make(slack: SlackServer) -> Make:
    def make(**changes: Any) -> SlackSettings:
        values = {
            "base_url": slack.base_url,
            "bot_token": slack.bot_token,
            "app_token": slack.app_token,
        }
        return SlackSettings.model_validate(values | changes)

    return make


async def test_good_tokens_give_the_workspace_and_an_address(
    slack: SlackServer, make: Make
) -> None:
    settings = make()
    async with web_client(settings) as client:
        own, url = await verify(settings, client)
    assert own is not None
    assert (own.team, own.bot_user_id) == (slack.home.id, slack.home.bot_user_id)
    assert url is not None
    assert slack.bot_token not in repr(own)


@pytest.mark.parametrize("name", ["bot_token", "app_token"])
async def test_a_refused_token_is_named_and_not_shown(make: Make, name: str) -> None:
    settings = make(**{name: "xoxb-wrong-secret"})
    async with web_client(settings) as client:
        with pytest.raises(SettingsInvalid, match=f"PARLEY_SLACK__{name.upper()}") as caught:
            await verify(settings, client)
    assert "wrong-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_slack_may_be_away_for_a_moment_at_the_start(
    slack: SlackServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_PAUSE_S", 0.01)
    slack.fail("auth.test", status=503, times=1)
    slack.fail("auth.test", error="ratelimited", status=429, retry_after_s=0, times=1)
    settings = make()
    async with web_client(settings) as client:
        own, _ = await verify(settings, client)
    assert own is not None


async def test_slack_that_stays_away_is_a_missing_service(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_PAUSE_S", 0.01)
    settings = make(base_url="http://127.0.0.1:9/api/")
    async with web_client(settings) as client:
        with pytest.raises(ServiceMissing):
            await verify(settings, client)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bot_token": None}, "PARLEY_SLACK__BOT_TOKEN"),
        ({"app_token": None}, "PARLEY_SLACK__APP_TOKEN"),
        ({"mode": "http"}, "PARLEY_SLACK__SIGNING_SECRET"),
        ({"mode": "http", "signing_secret": SecretStr(" ")}, "PARLEY_SLACK__SIGNING_SECRET"),
    ],
)
async def test_what_is_missing_is_named_before_anything_starts(
    slack: SlackServer, make: Make, changes: dict[str, Any], named: str
) -> None:
    settings = make(**changes)
    with pytest.raises(SettingsInvalid, match=named):
        require_way_in(settings)
    with pytest.raises(SettingsInvalid, match=named):
        await run(Settings(slack=settings))
    assert slack.calls == []


@pytest.mark.parametrize(
    ("settings", "enabled"),
    [
        ({}, False),
        ({"bot_token": "x"}, False),
        ({"bot_token": "x", "app_token": "y"}, True),
        ({"client_id": "x", "client_secret": "z", "app_token": "y"}, True),
        ({"bot_token": "x", "app_token": "y", "mode": "http"}, False),
        ({"bot_token": "x", "signing_secret": "y", "mode": "http"}, True),
    ],
)
def test_slack_is_enabled_once_it_can_start(settings: dict[str, str], enabled: bool) -> None:
    assert SlackSettings.model_validate(settings).enabled is enabled


async def test_the_command_ends_with_78_and_one_sentence_for_a_bad_token(
    slack: SlackServer, tmp_path: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", "slack"),
        cwd=CHECKOUT,
        env={
            **kept,
            "PARLEY_HOME": str(tmp_path),
            "PARLEY_SLACK__BASE_URL": slack.base_url,
            "PARLEY_SLACK__BOT_TOKEN": "xoxb-wrong",
            "PARLEY_SLACK__APP_TOKEN": slack.app_token,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, said = await child.communicate()
    assert child.returncode == 78
    assert said.decode().strip().splitlines()[-1].startswith("Slack refuses the token in PARLEY_")
    assert b"Traceback" not in said


async def test_a_stop_that_comes_right_after_the_start_is_clean(
    slack_process: SlackProcess,
) -> None:
    for _ in range(3):
        await slack_process.start()
        assert await slack_process.stop() == 0


async def test_check_shows_slack_only_where_it_is_set_up_and_says_what_is_wrong(
    make: Make, tmp_path: Path
) -> None:
    async def slack_of(settings: SlackSettings) -> list[tuple[bool, str]]:
        health = await parts_health(Settings(home=tmp_path, slack=settings))
        return [(part.healthy, part.detail) for part in health if part.part == "slack"]

    [(healthy, detail)] = await slack_of(make())
    assert healthy
    assert "socket" in detail
    [(healthy, detail)] = await slack_of(make(bot_token="xoxb-wrong"))
    assert not healthy
    assert "PARLEY_SLACK__BOT_TOKEN" in detail
    assert "xoxb-wrong" not in detail
    assert await slack_of(SlackSettings()) == []


async def test_up_runs_the_app_where_it_can_start(make: Make) -> None:
    def names(settings: SlackSettings) -> list[str]:
        return [part.name for part in parts_of(Settings(slack=settings), own_engine=True)]

    assert "slack" in names(make())
    assert "slack" not in names(make(app_token=None))
