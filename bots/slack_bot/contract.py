"""What the app uses of Slack, in one place: methods, events, and the scopes that they need.

`deploy/slack-manifest.yaml` asks for exactly this; tests compare both with the code.
"""

from collections.abc import Mapping
from typing import Final

METHODS: Final[Mapping[str, str | None]] = {
    "apps.connections.open": None,  # the app-level token's own scope, connections:write
    "assistant.threads.setStatus": "chat:write",
    "assistant.threads.setSuggestedPrompts": "assistant:write",
    "assistant.threads.setTitle": "assistant:write",
    "auth.test": None,
    "chat.appendStream": "chat:write",
    "chat.delete": "chat:write",
    "chat.getPermalink": None,
    "chat.postEphemeral": "chat:write",
    "chat.postMessage": "chat:write",
    "chat.startStream": "chat:write",
    "chat.stopStream": "chat:write",
    "chat.update": "chat:write",
    "conversations.history": "channels:history",
    "conversations.replies": "channels:history",
    "files.completeUploadExternal": "files:write",
    "files.getUploadURLExternal": "files:write",
    "files.info": "files:read",
    "oauth.v2.access": None,
    "users.info": "users:read",
    "views.open": None,
    "views.publish": None,
}
"""Web API methods that the code calls, with the bot scope that each needs."""

EVENTS: Final[Mapping[str, str | None]] = {
    "app_context_changed": None,
    "app_home_opened": None,
    "app_mention": "app_mentions:read",
    "app_uninstalled": None,
    "assistant_thread_context_changed": "assistant:write",
    "assistant_thread_started": "assistant:write",
    "message.channels": "channels:history",
    "message.groups": "groups:history",
    "message.im": "im:history",
    "message.mpim": "mpim:history",
    "tokens_revoked": None,
}
"""Events that the code listens to, with the bot scope that each needs."""

EXTRAS: Final = ("commands",)
"""Scopes for what is neither a method nor an event: slash commands and shortcuts."""

COMMAND: Final = "/parley"


def scopes() -> list[str]:
    """Every bot scope that the app needs."""
    return sorted(
        {scope for scope in (*METHODS.values(), *EVENTS.values(), *EXTRAS) if scope is not None}
    )
