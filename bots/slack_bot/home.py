"""The App Home: what one person has said, agreed to and can ask about; settings for admins.

What the home shows is the person's own: their votes, their documents and those of the whole
workspace. Channels' documents are shown in their channels only.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot.admin import administers, open_settings
from bots.slack_bot.blocks import Block, button, section
from bots.slack_bot.clicks import Click, on_click
from bots.slack_bot.context import SlackContext
from bots.slack_bot.identity import audience_for
from bots.slack_bot.modals import View
from bots.slack_bot.mrkdwn import escape
from feedback import MyVote, Standing
from storage.documents import Document
from storage.errors import StorageError
from storage.identity import Audience, MemberId

logger = logging.getLogger(__name__)

CONSENT_ACTION = "parley_home_consent"
SETTINGS_ACTION = "parley_home_settings"
FORGET_ACTION = "parley_home_forget"

VOTES_SHOWN = 10
DOCUMENTS_SHOWN = 25
MODELS_SHOWN = 10
LINE_CHARACTERS = 110
"""Of a question or a name in a list."""
SECTION_CHARACTERS = 3000
"""Of a section's text (docs.slack.dev/reference/block-kit/blocks/section-block)."""
LOAD_S = 10.0
"""For everything that the home shows."""

_THUMBS = {1: ":+1:", -1: ":-1:"}


@dataclass(frozen=True, kw_only=True)
class Home:
    """What one person's home shows."""

    consents: bool
    votes: Sequence[MyVote]
    documents: Sequence[Document]
    leaderboard: Sequence[Standing]
    administers: bool


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
    on_click(app, context, SETTINGS_ACTION, _open_settings)
    on_click(app, context, FORGET_ACTION, _forget)


async def _publish(
    context: SlackContext, client: AsyncWebClient, audience: Audience, team: str, user: str
) -> None:
    home = await _load(context, client, audience, team, user)
    await context.calls(client).publish_view(user_id=user, view=home_view(home))


async def _load(
    context: SlackContext, client: AsyncWebClient, audience: Audience, team: str, user: str
) -> Home:
    consents, votes, documents, leaderboard, admin = await asyncio.gather(
        context.members.consent(_member(audience)),
        context.feedback.mine(audience=audience, limit=VOTES_SHOWN),
        context.workplace.documents.list(audience=audience),
        context.feedback.leaderboard(workspace_id=audience.workspace_id),
        administers(context, client, team=team, user=user),
    )
    return Home(
        consents=consents,
        votes=votes,
        documents=documents,
        leaderboard=leaderboard,
        administers=admin,
    )


async def _change_consent(click: Click) -> None:
    """The button says what it changes to, so that a double click is not two changes."""
    await click.context.members.set_consent(_member(click.audience), click.value == "yes")
    await click.done()
    here = click.origin
    await _publish(click.context, click.client, click.audience, here.team, here.user)


async def _open_settings(click: Click) -> None:
    await open_settings(click, channel=click.value)


async def _forget(click: Click) -> None:
    forgotten = await click.context.administration.forget(click.audience)
    await click.done()
    await click.tell(str(forgotten))
    here = click.origin
    audience = await audience_for(click.context, team=here.team, channel=None, user=here.user)
    await _publish(click.context, click.client, audience, here.team, here.user)


def _member(audience: Audience) -> MemberId:
    if audience.member_id is None:
        raise ValueError("a home belongs to a person")
    return audience.member_id


# -- What it looks like ---------------------------------------------------------------------------


def home_view(home: Home) -> View:
    """The home tab; at most 100 blocks of at most 3,000 characters each."""
    blocks = [
        section(
            "Ask me in a direct message, mention me in a channel, or use `/parley ask`. Drop a "
            "file into a channel that I am in, and I answer from it there."
        ),
        *_consent(home.consents),
        *_part("My votes", [_vote_line(vote) for vote in home.votes], "You have not voted yet."),
        *_part("What I know here", _document_lines(home.documents), "No documents yet."),
        *_part(
            "Leaderboard",
            [_standing_line(row) for row in home.leaderboard[:MODELS_SHOWN]],
            "No comparisons yet: `/parley compare QUESTION` starts one.",
        ),
    ]
    if home.administers:
        blocks += _settings()
    blocks += _forget_me()
    return {"type": "home", "blocks": blocks}


def _consent(consents: bool) -> list[Block]:
    said = (
        "You *have agreed* that your votes and corrections train models, where the channel's "
        "settings agree too."
        if consents
        else "Your votes and corrections *do not train* models: you have not agreed to it."
    )
    change = button(
        "Withdraw my consent" if consents else "I agree",
        CONSENT_ACTION,
        "no" if consents else "yes",
    )
    return [_header("My consent"), {**section(said), "accessory": change}]


def _vote_line(vote: MyVote) -> str:
    return f"{_THUMBS[vote.value]} {_short(vote.question)}"


def _document_lines(documents: Sequence[Document]) -> list[str]:
    lines = [
        f"{_short(document.name)}" + ("" if document.searchable else f" _({document.status})_")
        for document in documents[:DOCUMENTS_SHOWN]
    ]
    if len(documents) > DOCUMENTS_SHOWN:
        lines.append(f"_and {len(documents) - DOCUMENTS_SHOWN} more_")
    return lines


def _standing_line(row: Standing) -> str:
    return (
        f"*{_short(row.model)}*: {row.wins} won, {row.losses} lost, {row.ties} tied, "
        f"{row.votes} votes"
    )


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


def _part(title: str, lines: Sequence[str], empty: str) -> list[Block]:
    text = ""
    for line in lines:
        if len(text) + len(line) + 3 > SECTION_CHARACTERS:
            break
        text += f"• {line}\n"
    return [_header(title), section(text or empty)]


def _short(text: str) -> str:
    line = " ".join(text.split())
    shown = line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 1] + "…"
    return escape(shown)


def _header(text: str) -> Block:
    return {"type": "header", "text": _plain(text)}


def _plain(text: str) -> Mapping[str, str]:
    return {"type": "plain_text", "text": text}
