"""The administrators' side of `/parley`, and `forget-me` and `help` for everybody.

Whether somebody administers is asked of Slack for every verb and once more when a modal comes back:
rights end while a modal is open.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.administration import Actor, NoChannel, NotAdministrator, answering_models
from bots.administration_wording import (
    METHODS,
    NAME_CHARACTERS,
    help_text,
    leaderboard_text,
    model_set,
    models_text,
    status_text,
)
from bots.runs import ask_for_run
from bots.slack_bot.clicks import (
    ACK_S,
    Click,
    audience_of_submission,
    origin_of,
    refuse_submission,
    tell,
)
from bots.slack_bot.commands import Command
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.identity import audience_for
from bots.slack_bot.modals import (
    SETTINGS_MODAL,
    Origin,
    SettingsRefused,
    notice_view,
    read_settings,
    settings_view,
)
from bots.slack_bot.mrkdwn import MRKDWN
from bots.slack_bot.notices import post_picture
from engine.errors import EngineError
from feedback import picture
from storage.errors import StorageError
from storage.runs import Recipe, RunKind

logger = logging.getLogger(__name__)


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle the settings modal when it comes back; the verbs are dispatched from `VERBS`."""

    @app.view(SETTINGS_MODAL)
    async def submitted(
        ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient
    ) -> None:
        await _submitted(context, ack, body, view, client)


async def administers(
    context: SlackContext, client: AsyncWebClient, *, team: str, user: str
) -> bool:
    """Whether the person administers the workspace at this moment; no when Slack does not say.

    Somebody who administers another company's workspace administers nothing in a shared channel.
    """
    people = context.people
    try:
        if not await people.is_admin(client, user):
            return False
        return user in people.admins or not (await people.info(client, user)).stranger_to(team)
    except (SlackClientError, TimeoutError) as error:
        logger.warning(
            "rights unknown: %s", type(error).__name__, extra={"action": "admin_unknown"}
        )
        return False


async def _actor(command: Command) -> Actor:
    body = command.body
    admin = await administers(
        command.context, command.client, team=body["team_id"], user=body["user_id"]
    )
    return Actor(audience=command.audience, administers=admin)


# -- Models ---------------------------------------------------------------------------------------


async def model(command: Command) -> None:
    """`/parley model [set] [NAME | default]`."""
    await command.ack()
    name = command.rest.removeprefix("set ").strip()[:NAME_CHARACTERS]
    actor = await _actor(command)
    administration = command.context.workplace.administration
    if not name:
        choice = await administration.models(actor)
        await command.reply(models_text(choice, MRKDWN))
        return
    wanted = None if name == "default" else name
    await administration.set_model(actor, wanted)
    await command.reply(model_set(wanted, MRKDWN))


# -- Settings -------------------------------------------------------------------------------------


async def settings(command: Command) -> None:
    """`/parley settings`: open the modal of this channel."""
    await command.ack()
    body = command.body
    origin = Origin(team=body["team_id"], channel=body["channel_id"], user=body["user_id"])
    await _open(command.context, command.client, await _actor(command), origin, body["trigger_id"])


async def open_settings(click: Click, *, channel: str) -> None:
    """Open the modal of a channel that was chosen in the App Home."""
    await click.done()
    here = origin_of(click.body)
    audience = await audience_for(click.context, team=here.team, channel=channel, user=here.user)
    admin = await administers(click.context, click.client, team=here.team, user=here.user)
    actor = Actor(audience=audience, administers=admin)
    origin = Origin(team=here.team, channel=channel, user=here.user)
    await _open(click.context, click.client, actor, origin, click.body["trigger_id"])


async def _open(
    context: SlackContext, client: AsyncWebClient, actor: Actor, origin: Origin, trigger_id: str
) -> None:
    """Open it within the 3 s that a `trigger_id` lives; without the engine, without models."""
    now = await context.workplace.administration.settings(actor)
    try:
        served = await answering_models(context.workplace.engine, actor.audience.workspace_id)
        models = [model.name for model in served]
    except EngineError:
        models = []
    view = settings_view(origin, now, models)
    await context.calls(client).open_view(trigger_id=trigger_id, view=view)


async def _submitted(
    context: SlackContext,
    ack: AsyncAck,
    body: Mapping[str, Any],
    view: Mapping[str, Any],
    client: AsyncWebClient,
) -> None:
    try:
        async with asyncio.timeout(ACK_S):
            origin = Origin.load(view.get("private_metadata", ""))
            audience = await audience_of_submission(context, origin, body)
            wanted = read_settings(view)
            admin = await administers(context, client, team=origin.team, user=origin.user)
            actor = Actor(audience=audience, administers=admin)
            await context.workplace.administration.save_settings(actor, wanted)
    except SettingsRefused as error:
        await ack(response_action="errors", errors=error.errors)
        return
    except (NotAdministrator, NoChannel) as error:
        await ack(response_action="update", view=notice_view(str(error)))
        return
    except (ValueError, StorageError, TimeoutError) as error:
        await refuse_submission(ack, error, block_id="comparison_share")
        return
    await ack()
    await tell(context, client, origin, f"The settings of <#{origin.channel}> are saved.")


# -- Runs -----------------------------------------------------------------------------------------


async def train(command: Command) -> None:
    """`/parley train [METHOD]`: without one, by the recipe of the settings."""
    method = command.rest.strip().lower()
    if method and method not in METHODS:
        await command.ack()
        await command.reply(f"I know these methods: {', '.join(METHODS)}.")
        return
    await _queue(command, "train", {"recipe": method} if method else {})


async def promote(command: Command) -> None:
    """`/parley promote [VERSION]`: without one, the tried version or the newest candidate."""
    await _queue(command, "promote", _version(command))


async def rollback(command: Command) -> None:
    """`/parley rollback [VERSION | base]`: which answers instead; without one, see the help."""
    await _queue(command, "rollback", _version(command))


async def judge(command: Command) -> None:
    """`/parley judge [VERSION]`: without one, the newest that the gate could not decide about."""
    await _queue(command, "judge", _version(command))


def _version(command: Command) -> dict[str, str]:
    version = command.rest.strip()[:NAME_CHARACTERS]
    return {"version": version} if version else {}


async def _queue(command: Command, kind: RunKind, parameters: Mapping[str, str]) -> None:
    await command.ack()
    await ask_for_run(
        command.context.workplace.administration,
        await _actor(command),
        Recipe(kind=kind, parameters=parameters),
        person=str(command.body.get("user_name", "")),
        thread=_Thread(command),
        dialect=MRKDWN,
    )


class _Thread:
    """The thread of a run, in the channel of the command."""

    def __init__(self, command: Command) -> None:
        self._calls = command.context.calls(command.client)
        self._body = command.body
        self._head = ""

    async def open(self, text: str) -> Mapping[str, str]:
        self._head = await self._calls.post_message(channel=self._body["channel_id"], text=text)
        return {
            "platform": SURFACE,
            "workspace": self._body["team_id"],
            "channel": self._body["channel_id"],
            "member": self._body["user_id"],
            "thread": self._head,
        }

    async def report(self, text: str) -> None:
        channel = self._body["channel_id"]
        await self._calls.post_message(channel=channel, thread_ts=self._head, text=text)


async def status(command: Command) -> None:
    """`/parley status`."""
    await command.ack()
    actor = await _actor(command)
    now = await command.context.workplace.administration.status(actor)
    await command.reply(status_text(now, MRKDWN))


# -- For everybody --------------------------------------------------------------------------------


async def forget_me(command: Command) -> None:
    """`/parley forget-me`: whoever types it is forgotten."""
    forgotten = await command.context.workplace.administration.forget(command.audience)
    await command.ack()
    await command.reply(str(forgotten))


async def leaderboard(command: Command) -> None:
    """`/parley leaderboard [share]`: for whoever asks, or with its picture for the channel."""
    await command.ack()
    context, channel = command.context, command.body["channel_id"]
    board = await context.workplace.feedback.ranking(workspace_id=command.audience.workspace_id)
    text = leaderboard_text(board, MRKDWN)
    if command.rest.lower() != "share":
        hint = f"\nShare it here: {MRKDWN.command('leaderboard share')}." if board.enough else ""
        await command.reply(text + hint)
        return
    calls = context.calls(command.client)
    if not board.enough:
        await calls.post_message(channel=channel, text=text)
        return
    async with context.drawing:
        drawn = await picture(board, title="Leaderboard")
    await post_picture(calls, channel=channel, thread_ts=None, text=text, picture=drawn)


async def help_(command: Command) -> None:
    """`/parley help`."""
    await command.ack()
    await command.reply(help_text(MRKDWN))


VERBS: Final[Mapping[str, Callable[[Command], Awaitable[None]]]] = {
    "model": model,
    "settings": settings,
    "train": train,
    "promote": promote,
    "rollback": rollback,
    "judge": judge,
    "status": status,
    "leaderboard": leaderboard,
    "forget-me": forget_me,
    "help": help_,
}
"""By the first word after `/parley`."""
