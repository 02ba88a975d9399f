"""The App Home: what one person has said, agreed to and can ask about; settings for admins.

What the home shows is the person's own: their votes, their documents and those of the whole
workspace. Channels' documents are shown in their channels only.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.administration import Actor
from bots.administration_wording import WORKSPACE_CONSENT
from bots.home import Home, consent_change, consent_text, listed, load_home, parts, person_of
from bots.slack_bot.admin import administers, open_settings
from bots.slack_bot.blocks import Block, button, section
from bots.slack_bot.clicks import Click, on_click
from bots.slack_bot.context import SlackContext
from bots.slack_bot.identity import audience_for
from bots.slack_bot.modals import View
from bots.slack_bot.mrkdwn import MRKDWN
from storage.errors import StorageError
from storage.identity import Audience

logger = logging.getLogger(__name__)

CONSENT_ACTION = "parley_home_consent"
WORKSPACE_CONSENT_ACTION = "parley_home_workspace_consent"
SETTINGS_ACTION = "parley_home_settings"
FORGET_ACTION = "parley_home_forget"

SECTION_CHARACTERS = 3000
"""Of a section's text (docs.slack.dev/reference/block-kit/blocks/section-block)."""
LOAD_S = 10.0
"""For everything that the home shows."""


def register(app: AsyncApp, context: SlackContext) -> None:
    """Publish the home when it is opened, and handle what is clicked in it."""

    async def is_home(event: dict[str, Any]) -> bool:
        return event.get("tab") == "home"

    @app.event("app_home_opened", matchers=[is_home])
    async def opened(event: dict[str, Any], body: dict[str, Any], client: AsyncWebClient) -> None:
        try:
            async with asyncio.timeout(LOAD_S):
                audience = await audience_for(
                    context, team=body["team_id"], channel=None, user=event["user"]
                )
                await _publish(context, client, audience, body["team_id"], event["user"])
        except (StorageError, SlackClientError, TimeoutError) as error:
            logger.warning("no home: %s", type(error).__name__, extra={"action": "home_failed"})

    on_click(app, context, CONSENT_ACTION, _change_consent)
    on_click(app, context, WORKSPACE_CONSENT_ACTION, _change_workspace_consent)
    on_click(app, context, SETTINGS_ACTION, _open_settings)
    on_click(app, context, FORGET_ACTION, _forget)


async def _publish(
    context: SlackContext, client: AsyncWebClient, audience: Audience, team: str, user: str
) -> None:
    home = await load_home(context.workplace, audience)
    admin = await administers(context, client, team=team, user=user)
    view = home_view(home, administers=admin)
    await context.calls(client).publish_view(user_id=user, view=view)


async def _change_consent(click: Click) -> None:
    """The button says what it changes to, so that a double click is not two changes."""
    members = click.context.workplace.members
    await members.set_consent(person_of(click.audience), click.value == "yes")
    await click.done()
    here = click.origin
    await _publish(click.context, click.client, click.audience, here.team, here.user)


async def _change_workspace_consent(click: Click) -> None:
    """Whoever does not administer (any more) is refused by the verb itself."""
    here = click.origin
    admin = await administers(click.context, click.client, team=here.team, user=here.user)
    actor = Actor(audience=click.audience, administers=admin)
    administration = click.context.workplace.administration
    now = await administration.workspace_settings(actor)
    wanted = now.model_copy(update={"consent_to_train": click.value == "yes"})
    await administration.save_workspace_settings(actor, wanted)
    await click.done()
    await _publish(click.context, click.client, click.audience, here.team, here.user)


async def _open_settings(click: Click) -> None:
    await open_settings(click, channel=click.value)


async def _forget(click: Click) -> None:
    forgotten = await click.context.workplace.administration.forget(click.audience)
    await click.done()
    await click.tell(str(forgotten))
    here = click.origin
    audience = await audience_for(click.context, team=here.team, channel=None, user=here.user)
    await _publish(click.context, click.client, audience, here.team, here.user)


# -- What it looks like ---------------------------------------------------------------------------


def home_view(home: Home, *, administers: bool) -> View:
    """The home tab; at most 100 blocks of at most 3,000 characters each."""
    blocks = [
        section(
            "Ask me in a direct message, mention me in a channel, or use `/parley ask`. Drop a "
            "file into a channel that I am in, and I answer from it there."
        ),
        _header("My consent"),
        _switch(consent_text(home, MRKDWN), CONSENT_ACTION, *consent_change(home)),
    ]
    for part in parts(home, MRKDWN):
        blocks += [_header(part.title), section(listed(part, limit=SECTION_CHARACTERS))]
    if administers:
        blocks += _settings()
        consents = home.settings.consent_to_train
        change = ("Withdraw the workspace's consent", "no") if consents else ("Consent", "yes")
        said = WORKSPACE_CONSENT[consents]
        blocks += [
            _header("Consent of the workspace"),
            _switch(said, WORKSPACE_CONSENT_ACTION, *change),
        ]
    blocks += _forget_me()
    return {"type": "home", "blocks": blocks}


def _switch(text: str, action_id: str, label: str, value: str) -> Block:
    return {**section(text), "accessory": button(label, action_id, value)}


def _settings() -> list[Block]:
    select = {
        "type": "conversations_select",
        "action_id": SETTINGS_ACTION,
        "placeholder": _plain("Choose a channel"),
        "filter": {"include": ["public", "private"], "exclude_bot_users": True},
    }
    return [_header("Settings"), {**section("Settings of a channel:"), "accessory": select}]


def _forget_me() -> list[Block]:
    confirm = {
        "title": _plain("Forget everything?"),
        "text": _plain("Your votes, corrections, direct messages and own documents are deleted."),
        "confirm": _plain("Delete"),
        "deny": _plain("Keep"),
    }
    forget = button("Forget me", FORGET_ACTION, "forget", style="danger")
    elements = [{**forget, "confirm": confirm}]
    return [{"type": "divider"}, {"type": "actions", "elements": elements}]


def _header(text: str) -> Block:
    return {"type": "header", "text": _plain(text)}


def _plain(text: str) -> Mapping[str, str]:
    return {"type": "plain_text", "text": text}
