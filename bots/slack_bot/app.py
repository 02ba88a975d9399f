"""The Bolt app: one listener module after the other, and what all of them share."""

import logging
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.response import BoltResponse

from bots.failures import log_failure
from bots.slack_bot import (
    actions,
    admin,
    agent,
    ask,
    commands,
    compare,
    documents,
    files,
    home,
    rate,
)
from bots.slack_bot import oauth as installs
from bots.slack_bot.context import SlackContext
from bots.slack_bot.oauth import Workspaces
from storage.errors import StorageError

logger = logging.getLogger(__name__)

VERBS = {
    "ask": ask.ask,
    "compare": compare.ask_to_compare,
    "documents": documents.list_documents,
    **admin.VERBS,
}
"""Of `/parley`."""


def build_app(context: SlackContext, workspaces: Workspaces) -> AsyncApp:
    """The app with every listener.

    In HTTP mode each request's signature is checked; Socket Mode's come over our own connection.
    """
    signing_secret = context.settings.signing_secret

    # Bolt passes arguments by the names that it finds, and takes a method's `self` for one of them.
    async def authorize(
        enterprise_id: str | None, team_id: str | None, user_id: str | None
    ) -> AuthorizeResult | None:
        return await workspaces.authorize(
            enterprise_id=enterprise_id, team_id=team_id, user_id=user_id
        )

    app = AsyncApp(
        name="parley",
        client=workspaces.client,
        authorize=authorize,  # type: ignore[arg-type]  # None: not installed
        signing_secret=signing_secret.get_secret_value() if signing_secret else "",
        request_verification_enabled=context.settings.mode == "http",
        raise_error_for_unhandled_request=True,
        attaching_conversation_kwargs_enabled=False,
    )
    for module in (ask, agent, home, files, documents, rate, compare, actions, admin):
        module.register(app, context)
    commands.register(app, context, VERBS)
    installs.register(app, context, workspaces)
    app.error(_failed)
    return app


async def _failed(
    error: Exception, body: dict[str, Any], response: BoltResponse | None
) -> BoltResponse | None:
    """Log what went wrong without what people wrote; without an ack Slack delivers it again."""
    if isinstance(error, BoltUnhandledRequestError):
        # An event that nobody asked for: acknowledged, or Slack would deliver it again and again.
        logger.debug("nobody listens to %s", _kind(body), extra={"action": "event_unheard"})
        return BoltResponse(status=200, body="") if response is not None else None
    expected = isinstance(error, StorageError | TimeoutError)
    log_failure(logger, _kind(body), error, expected=expected, action="event_failed")
    # None: Slack has its ack already.
    return BoltResponse(status=500, body="") if response is not None else None


def _kind(body: dict[str, Any]) -> str:
    event = body.get("event") or {}
    return str(event.get("type") or body.get("type") or body.get("command") or "a request")
