"""The agent container: what a person finds when they open the app's messages.

`app_home_opened` with the messages tab (`agent_view`) and the older `assistant_thread_started` both
get suggested prompts. What a person looks at (`app_context_changed`) is none of our business: it is
acknowledged and not kept.
"""

import logging
from collections.abc import Mapping
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot.context import SlackContext
from bots.slack_bot.identity import audience_of
from storage.errors import StorageError
from storage.identity import Audience

logger = logging.getLogger(__name__)

TITLE = "Ask me about your documents"
GENERAL_PROMPTS = (
    {"title": "What can you do?", "message": "What can you do?"},
    {"title": "What do you know?", "message": "Which topics do your documents cover?"},
)
DOCUMENTS_SUGGESTED = 2
"""Slack shows at most four prompts."""
NAME_CHARACTERS = 40


def register(app: AsyncApp, context: SlackContext) -> None:
    """Listen to the agent container."""

    async def is_messages_tab(event: dict[str, Any]) -> bool:
        return event.get("tab") == "messages"

    @app.event("app_home_opened", matchers=[is_messages_tab])
    async def opened(body: dict[str, Any], event: dict[str, Any], client: AsyncWebClient) -> None:
        await _suggest(context, client, body, channel=str(event["channel"]), thread_ts=None)

    @app.event("assistant_thread_started")
    async def started(body: dict[str, Any], event: dict[str, Any], client: AsyncWebClient) -> None:
        thread = event["assistant_thread"]
        await _suggest(
            context, client, body, channel=thread["channel_id"], thread_ts=thread["thread_ts"]
        )

    @app.event("assistant_thread_context_changed")
    async def thread_context_changed() -> None:
        pass

    @app.event("app_context_changed")
    async def context_changed() -> None:
        pass


async def _suggest(
    context: SlackContext,
    client: AsyncWebClient,
    body: Mapping[str, Any],
    *,
    channel: str,
    thread_ts: str | None,
) -> None:
    """Offer prompts; whoever does not get them can still ask."""
    try:
        prompts = await _prompts(context, await _audience(context, body))
        await context.calls(client).suggest_prompts(
            channel=channel, thread_ts=thread_ts, title=TITLE, prompts=prompts
        )
    except (SlackClientError, StorageError, ValueError) as error:
        logger.warning(
            "no prompts were suggested: %s",
            type(error).__name__,
            extra={"action": "prompts_failed"},
        )


async def _audience(context: SlackContext, body: Mapping[str, Any]) -> Audience:
    """The person alone: `assistant_thread_started` names them inside the thread."""
    thread = body["event"].get("assistant_thread") or {}
    user = body["event"].get("user") or thread.get("user_id")
    return await audience_of({**body, "event": {**body["event"], "user": user}}, context)


async def _prompts(context: SlackContext, audience: Audience) -> list[dict[str, str]]:
    """General questions, and one for each of the newest documents that the person may read."""
    documents = await context.workplace.documents.list(audience=audience)
    ready = [document.name for document in documents if document.status == "ready"]
    about = [
        {
            "title": f"Summarise {name[:NAME_CHARACTERS]}",
            "message": f"What are the main points of {name}?",
        }
        for name in ready[:DOCUMENTS_SUGGESTED]
    ]
    return [*about, *GENERAL_PROMPTS]
