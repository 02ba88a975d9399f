"""The way of a vote and back: a click in Slack, the real Argilla, a curator's word, our records.

Slack is the fake that speaks its wire protocol; the app, the relay, the web page that receives
Argilla's webhook, Argilla with its worker, and the database are processes of their own.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import httpx

from feedback.curation import CALLED_POLL_S
from feedback.records import voter_name, workspace_name
from storage.identity import Audience
from storage.pool import Pool
from storage.rated import Rated
from tests.bots.app_process import eventually
from tests.bots.slack_bot.conftest import Know
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.conftest import CHECKOUT
from tests.e2e.handbook import ANSWER, HANDBOOK, QUESTION
from tests.e2e.test_slack import AudienceOf, the_answer
from tests.fakes.scripted_model import FINGERPRINT, ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.feedback.argilla_server.conftest import Server

STOP_DEADLINE_S = 15.0


@asynccontextmanager
async def process(*words: str, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """`python -m …` until the block ends."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words), cwd=CHECKOUT, env=environment
    )
    try:
        yield
    finally:
        running.terminate()
        async with asyncio.timeout(STOP_DEADLINE_S):
            await running.wait()


async def records(http: httpx.AsyncClient, team: Audience) -> list[dict[str, Any]]:
    """What Argilla has of a team's answers; nothing where it does not know the team."""
    spaces = (await http.get("/me/workspaces")).raise_for_status().json()["items"]
    named = {space["name"]: space["id"] for space in spaces}
    space = named.get(workspace_name(team.workspace_id))
    sets = (await http.get("/me/datasets", params={"workspace_id": space or ""})).json()
    for dataset in sets.get("items", ()):
        if dataset["name"] == "answers" and dataset["status"] == "ready":
            path = f"/datasets/{dataset['id']}/records"
            found = await http.get(path, params={"include": "responses"})
            return list(found.raise_for_status().json()["items"])
    return []


async def test_a_click_is_seen_in_argilla_and_a_curators_word_comes_back_at_once(
    slack: SlackServer,
    slack_process: SlackProcess,
    model: ScriptedModel,
    know: Know,
    audience: AudienceOf,
    argilla: Server,
    pool: Pool,
) -> None:
    model.script = lambda prompt: ANSWER
    ana = slack.add_person("Ana")
    room = slack.add_channel("room", ana)
    await know(room, "handbook.md", HANDBOOK)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        page = f"http://127.0.0.1:{listener.getsockname()[1]}"
    hook = f"{page}/argilla/webhook"
    environment = slack_process.environment | {
        "PARLEY_ARGILLA__URL": argilla.url,
        "PARLEY_ARGILLA__API_KEY": argilla.api_key,
        "PARLEY_ARGILLA__WEBHOOK_URL": hook,
        "PARLEY_WEB__PORT": page.rpartition(":")[2],
    }
    async with contextlib.AsyncExitStack() as stack:
        for words in (("feedback", "relay"), ("bots", "web")):
            await stack.enter_async_context(process(*words, environment=environment))
        await stack.enter_async_context(slack_process)
        key = {"X-Argilla-Api-Key": argilla.api_key}
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"{argilla.url}/api/v1", headers=key, timeout=30)
        )
        stack.push_async_callback(forget_hook, http, hook)

        answer = await the_answer(slack, slack.say(ana, room, f"{slack.mention} {QUESTION}"))
        await slack.click(ana, answer, "parley_feedback", side="positive").acknowledged()
        team = await audience(room, ana)
        assert team.member_id is not None
        seen: list[dict[str, Any]] = []

        async def told() -> bool:
            seen[:] = await records(http, team)
            return bool(seen)

        await eventually(told, "the vote is seen in Argilla", within_s=60)
        [record] = seen
        assert record["fields"]["question"] == QUESTION
        assert record["metadata"]["weights"] == FINGERPRINT
        [said] = record["responses"]
        users = (await http.get("/users")).json()["items"]
        [voter] = [user for user in users if user["id"] == said["user_id"]]
        assert voter["username"] == voter_name(team.member_id)
        assert said["values"] == {"rating": {"value": "good"}}

        forged = {"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
        async with httpx.AsyncClient(trust_env=False) as stranger:
            await eventually(lambda: refuses(stranger, hook), "it is registered", within_s=60)
            answered = await stranger.post(hook, headers=forged, content=b"{}")
            assert answered.status_code == HTTPStatus.UNAUTHORIZED
            assert await webhook_row(environment) == ("ok", f"Argilla calls {hook}")
            elsewhere = environment | {"PARLEY_ARGILLA__WEBHOOK_URL": f"{page}/elsewhere"}
            assert (await webhook_row(elsewhere))[0] == "DOWN"
            large = await stranger.post(hook, content=b"x" * (3 * 2**20))
            assert large.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE

        values = {"rating": {"value": "bad"}, "correction": {"value": "28 days."}}
        word = {"record_id": record["id"], "status": "submitted", "values": values}
        (await http.post("/me/responses/bulk", json={"items": [word]})).raise_for_status()

        async def back() -> bool:
            answers, _ = await Rated(pool).everything(team.workspace_id)
            return [w.correction for each in answers for w in each.curations] == ["28 days."]

        await eventually(back, "the curator's word is back", within_s=CALLED_POLL_S / 2)


async def webhook_row(environment: Mapping[str, str]) -> tuple[str, str]:
    """What `parley check` says of the webhook."""
    checking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", "check"),
        cwd=CHECKOUT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(STOP_DEADLINE_S):
        said, _ = await checking.communicate()
    rows = (line.split(maxsplit=2) for line in said.decode().splitlines())
    [(state, detail)] = [(row[0], row[2]) for row in rows if row[1:2] == ["webhook"]]
    return state, detail


async def refuses(stranger: httpx.AsyncClient, hook: str) -> bool:
    """Whether the page is there and knows by now how Argilla signs."""
    with contextlib.suppress(httpx.TransportError):
        return (await stranger.post(hook)).status_code == HTTPStatus.UNAUTHORIZED
    return False


async def forget_hook(http: httpx.AsyncClient, url: str) -> None:
    """The session's Argilla takes ten webhooks at the most."""
    for hook in (await http.get("/webhooks")).raise_for_status().json()["items"]:
        if hook["url"] == url:
            (await http.delete(f"/webhooks/{hook['id']}")).raise_for_status()
