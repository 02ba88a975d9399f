"""The administrators' side of `/parley`, and `forget-me` and `help` for everybody.

Whether somebody administers is asked of Slack for every verb and once more when a modal comes back:
rights end while a modal is open.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.administration import Actor, NoChannel, NotAdministrator, Status, answering_models
from bots.slack_bot.clicks import (
    ACK_S,
    Click,
    audience_of_submission,
    origin_of,
    refuse_submission,
    tell,
)
from bots.slack_bot.commands import Command
from bots.slack_bot.context import SlackContext
from bots.slack_bot.identity import audience_for
from bots.slack_bot.modals import (
    SETTINGS_MODAL,
    Origin,
    SettingsRefused,
    notice_view,
    read_settings,
    settings_view,
)
from bots.slack_bot.mrkdwn import escape
from engine.errors import EngineError
from storage.errors import StorageError
from storage.runs import Recipe

logger = logging.getLogger(__name__)

METHODS = ("sft", "dpo", "kto", "reward", "rloo")
"""What `/parley train` may name; without one the training room decides."""
NAME_CHARACTERS = 100
"""Of a model's version in a command."""

HELP = """*What I can do*
• `/parley ask QUESTION`: answer from the documents of this channel
• `/parley compare QUESTION`: two answers, blind; you choose the better one
• `/parley documents`: what I have read for this channel
• `/parley forget-me`: delete what I know of you, for good
• `/parley help`: this
*For administrators*
• `/parley model [NAME | default]`: list the models, or set this channel's
• `/parley settings`: how I behave in this channel
• `/parley train [METHOD]`, `/parley promote [VERSION]`, `/parley rollback [VERSION]`: queue a run
• `/parley status`: engine, documents, runs"""

NO_WORKER = (
    "It waits until a training worker runs, which this version of Parley does not bring yet; "
    "`/parley status` shows where it stands."
)


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
    administration = command.context.administration
    if not name:
        choice = await administration.models(actor)
        lines = [
            f"• `{escape(model.name)}`"
            + (" (this channel's)" if model.name == choice.chosen else "")
            for model in choice.models
        ]
        own = "" if choice.chosen else "\nThis channel uses the workspace's model."
        await command.reply("*Models*\n" + "\n".join(lines) + own)
        return
    await administration.set_model(actor, None if name == "default" else name)
    who = "the workspace's model" if name == "default" else f"`{escape(name)}`"
    await command.reply(f"This channel is answered by {who} from now on.")


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
    now = await context.administration.settings(actor)
    try:
        models = [model.name for model in await answering_models(context.workplace.engine)]
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
            await context.administration.save_settings(actor, wanted)
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
    """`/parley train [METHOD]`."""
    method = command.rest.strip().lower()
    if method and method not in METHODS:
        await command.ack()
        await command.reply(f"I know these methods: {', '.join(METHODS)}.")
        return
    await _queue(command, "train", {"method": method} if method else {})


async def promote(command: Command) -> None:
    """`/parley promote [VERSION]`: without one, the newest candidate."""
    await _queue(command, "promote", _version(command))


async def rollback(command: Command) -> None:
    """`/parley rollback [VERSION]`: without one, the version before the live one."""
    await _queue(command, "rollback", _version(command))


def _version(command: Command) -> dict[str, str]:
    version = command.rest.strip()[:NAME_CHARACTERS]
    return {"version": version} if version else {}


_RUNS: Final = {"train": "A training run", "promote": "A promotion", "rollback": "A rollback"}


async def _queue(
    command: Command,
    kind: Literal["train", "promote", "rollback"],
    parameters: Mapping[str, str],
) -> None:
    """Queue a run whose reports go into the thread of a message that is posted first."""
    await command.ack()
    actor = await _actor(command)
    if not actor.administers:
        raise NotAdministrator
    body = command.body
    channel = body["channel_id"]
    named = "".join(f" ({key} `{escape(value)}`)" for key, value in parameters.items())
    calls = command.context.calls(command.client)
    text = f"{_RUNS[kind]}{named} was asked for by {escape(str(body.get('user_name', '')))}."
    posted = await calls.post_message(channel=channel, text=text)
    place = {
        "platform": "slack",
        "workspace": body["team_id"],
        "channel": channel,
        "member": body["user_id"],
        "thread": posted,
    }
    recipe = Recipe(kind=kind, parameters=parameters)
    try:
        run_id = await command.context.administration.queue(actor, recipe, place=place)
    except StorageError:
        await calls.post_message(
            channel=channel,
            thread_ts=posted,
            text="It could not be queued: the database does not answer. Please ask again later.",
        )
        raise
    report = f"Queued as run `{run_id}`. {NO_WORKER}"
    await calls.post_message(channel=channel, thread_ts=posted, text=report)


async def status(command: Command) -> None:
    """`/parley status`."""
    await command.ack()
    actor = await _actor(command)
    await command.reply(_status_text(await command.context.administration.status(actor)))


def _status_text(now: Status) -> str:
    names = ", ".join(f"`{escape(model.name)}`" for model in now.models) or "none"
    engine = f"answers; models: {names}" if now.engine_trouble is None else "does not answer"
    documents = ", ".join(f"{count} {status}" for status, count in now.documents.items()) or "none"
    runs = [
        f"• {run.kind} `{run.id}`: {run.status}, asked for {run.created_at:%Y-%m-%d %H:%M} UTC"
        for run in now.runs
    ]
    return "\n".join(
        [f"*Engine* {engine}", f"*Documents here* {documents}", "*Runs*", *(runs or ["none yet"])]
    )


# -- For everybody --------------------------------------------------------------------------------


async def forget_me(command: Command) -> None:
    """`/parley forget-me`: whoever types it is forgotten."""
    forgotten = await command.context.administration.forget(command.audience)
    await command.ack()
    await command.reply(str(forgotten))


async def help_(command: Command) -> None:
    """`/parley help`."""
    await command.ack()
    await command.reply(HELP)


VERBS: Final[Mapping[str, Callable[[Command], Awaitable[None]]]] = {
    "model": model,
    "settings": settings,
    "train": train,
    "promote": promote,
    "rollback": rollback,
    "status": status,
    "forget-me": forget_me,
    "help": help_,
}
"""By the first word after `/parley`."""
