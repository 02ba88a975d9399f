"""The Slack app as a process that Slack reaches over HTTP, installed by OAuth.

Slack is the fake that speaks its wire protocol, everything else is real. What does not depend on
the way that events come is shown over Socket Mode (`test_slack`).
"""

from collections.abc import AsyncIterator

import httpx
import pytest

from storage.pool import Pool
from tests.bots.conftest import free_port
from tests.bots.slack_bot.conftest import Know
from tests.bots.slack_bot.installing import install, up
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.e2e.handbook import ANSWER, HANDBOOK, QUESTION
from tests.e2e.test_slack import (
    obey_manifest,
    rated,
    settled,
    the_answer,
    votes,
)
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Workspace


@pytest.fixture
async def root(
    slack: SlackServer, slack_process: SlackProcess, model: ScriptedModel
) -> AsyncIterator[str]:
    """The app's address; it has no token of its own."""
    obey_manifest(slack)
    model.script = lambda prompt: ANSWER
    port = free_port()
    for token in ("BOT_TOKEN", "APP_TOKEN"):
        del slack_process.environment[f"PARLEY_SLACK__{token}"]
    slack_process.environment |= {
        "PARLEY_SLACK__MODE": "http",
        "PARLEY_SLACK__PORT": str(port),
        "PARLEY_SLACK__SIGNING_SECRET": slack.signing_secret,
        "PARLEY_SLACK__CLIENT_ID": slack.client_id,
        "PARLEY_SLACK__CLIENT_SECRET": slack.client_secret,
    }
    address = f"http://127.0.0.1:{port}"
    slack.sockets.request_url = f"{address}/slack/events"
    await slack_process.start(connected=False)
    try:
        await up(address)
        yield address
    finally:
        await slack_process.stop()


@pytest.fixture
async def second(slack: SlackServer, root: str) -> Workspace:
    """A workspace that has just installed the app."""
    workspace = slack.add_workspace("Second")
    assert (await install(slack, root, workspace)).status_code == 200
    return workspace


async def test_an_installed_workspace_is_answered_once_over_http_whatever_dies(
    slack: SlackServer,
    slack_process: SlackProcess,
    root: str,
    second: Workspace,
    know: Know,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    ana = slack.add_person("Ana", workspace=second)
    team = slack.add_channel("team", ana, workspace=second)
    await know(team, "handbook.md", HANDBOOK)
    model.may_end.clear()
    asked = slack.say(ana, team, f"{second.mention} {QUESTION}")
    for delivery in list(slack.sockets.deliveries):
        await delivery.acknowledged()
    await slack.until(lambda: slack.replies(asked), "a first visible reply")
    await slack_process.kill()
    away = slack.say(ana, team, f"{second.mention} {QUESTION} (2)")
    model.may_end.set()
    await slack_process.start(connected=False)
    await up(root)
    answer = await the_answer(slack, asked)
    for delivery in list(slack.sockets.deliveries):
        slack.redeliver(delivery)
    await the_answer(slack, away)
    await settled(slack, pool)
    assert rated(slack, asked) == slack.replies(asked) == [answer]
    assert len(slack.replies(away)) == 1
    await slack.click(ana, answer, "parley_feedback", side="positive").acknowledged()
    assert await votes(pool, 1) == [1]
    async with httpx.AsyncClient(trust_env=False) as stranger:
        unsigned = await stranger.post(f"{root}/slack/events", json={"type": "event_callback"})
    assert unsigned.status_code == 401
    assert second.bot_token is not None
    assert second.bot_token not in slack_process.log
