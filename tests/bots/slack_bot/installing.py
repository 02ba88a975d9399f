"""The app at an address of its own, and what somebody's browser does to install it."""

import contextlib

import httpx

from tests.bots.app_process import eventually
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Workspace


async def up(root: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:

        async def answers() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await client.get(f"{root}/healthz")).is_success
            return False

        await eventually(answers, "the app listens")


async def install(slack: SlackServer, root: str, workspace: Workspace) -> httpx.Response:
    """What somebody's browser does, from the app's page to Slack's and back."""
    slack.oauth.installing = (workspace, slack.add_person("Installer", workspace=workspace).id)
    async with httpx.AsyncClient(trust_env=False) as browser:
        begun = await browser.get(f"{root}/slack/install")
        consent = await browser.get(begun.headers["location"])
        return await browser.get(returning(root, consent), headers=cookie_of(begun))


def returning(root: str, consent: httpx.Response) -> str:
    """Where Slack's page sends the browser."""
    query = httpx.URL(consent.headers["location"]).query.decode()
    return f"{root}/slack/oauth_redirect?{query}"


def cookie_of(begun: httpx.Response) -> dict[str, str]:
    """The header with the cookie that the app's page set."""
    return {"Cookie": f"parley-slack-state={begun.cookies['parley-slack-state']}"}
