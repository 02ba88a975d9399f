"""`/parley`: one slash command whose first word is a verb.

Slack sends a command once. Whatever must not be lost is stored before the ack; a database that does
not answer is said in the ack itself, so nobody waits for an answer that will not come.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bots import replies
from bots.administration import AdministrationError
from bots.channel_settings import load
from bots.failures import log_failure
from bots.messages import Question
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.contract import COMMAND
from bots.slack_bot.gate import Asker, judged
from bots.slack_bot.identity import audience_of, is_direct
from bots.slack_bot.mrkdwn import escape
from bots.slack_bot.said import plain_text
from engine.errors import EngineError
from storage.errors import StorageError
from storage.identity import Audience

logger = logging.getLogger(__name__)

BEFORE_ACK_S = 2.0
"""For what is stored before the ack, which Slack wants within 3 s."""
WORK_S = 60.0
"""Of one verb, its calls to engine and Slack included."""
RESPOND_S = 10.0

ASK_USAGE = f"Ask like this: `{COMMAND} ask How many days of leave do we have?`"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A use of `/parley`.

    Attributes:
        rest: what follows the verb, as Slack sent it.
        ack: acknowledges; the verb awaits it as soon as what must not be lost is stored.
    """

    context: SlackContext
    client: AsyncWebClient
    body: Mapping[str, Any]
    rest: str
    audience: Audience
    ack: AsyncAck

    async def reply(self, text: str, blocks: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Say something that only the person sees; `text` is escaped mrkdwn.

        Raises:
            SlackClientError, TimeoutError: it could not be said.
        """
        await respond(self.client, self.body["response_url"], text, blocks)


async def respond(
    client: AsyncWebClient,
    url: str,
    text: str,
    blocks: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Say something to whoever used a command, at its `response_url`, within its 30 minutes.

    Raises:
        SlackClientError, TimeoutError, OSError: it could not be said.
    """
    hook = AsyncWebhookClient(url, session=client.session, retry_handlers=[])
    async with asyncio.timeout(RESPOND_S):
        response = await hook.send(
            text=text,
            blocks=[dict(block) for block in blocks] if blocks else None,
            response_type="ephemeral",
            unfurl_links=False,
            unfurl_media=False,
        )
    if response.status_code != 200:
        raise SlackClientError(f"Slack refused a reply to a command ({response.status_code})")


_EXPECTED = (AdministrationError, EngineError, StorageError, SlackClientError, TimeoutError)

Verb = Callable[[Command], Awaitable[None]]


def register(app: AsyncApp, context: SlackContext, verbs: Mapping[str, Verb]) -> None:
    """Dispatch `/parley VERB …`; an unknown verb, or none, is `help`."""

    @app.command(COMMAND)
    async def typed(ack: AsyncAck, body: dict[str, Any], client: AsyncWebClient) -> None:
        word, _, rest = str(body.get("text") or "").strip().partition(" ")
        verb = verbs.get(word.lower(), verbs["help"])
        try:
            async with asyncio.timeout(BEFORE_ACK_S):
                audience = await audience_of(body, context)
        except (StorageError, TimeoutError, ValueError) as error:
            await ack(text=sentence_for(error))
            return
        command = Command(
            context=context,
            client=client,
            body=body,
            rest=rest.strip(),
            audience=audience,
            ack=ack,
        )
        await _carry_out(command, verb, word)


async def _carry_out(command: Command, verb: Verb, word: str) -> None:
    """Run a verb; whatever happens, the person is told and Slack gets its ack."""
    acked = asyncio.create_task(_ack_in_time(command.ack))
    try:
        async with asyncio.timeout(WORK_S):
            await verb(command)
    except Exception as error:
        expected = isinstance(error, _EXPECTED)
        log_failure(logger, "a command", error, expected=expected, action="command_failed")
        await _tell(command, sentence_for(error))
    finally:
        acked.cancel()
        if command.ack.response is None:
            await command.ack()


async def _ack_in_time(ack: AsyncAck) -> None:
    await asyncio.sleep(BEFORE_ACK_S)
    if ack.response is None:
        await ack()


async def _tell(command: Command, text: str) -> None:
    if command.ack.response is None:
        await command.ack(text=text)
        return
    try:
        await command.reply(text)
    except (SlackClientError, TimeoutError, OSError) as error:
        logger.warning("a reply was lost: %s", type(error).__name__, extra={"action": "reply_lost"})


def sentence_for(error: BaseException, *, clicked: bool = False) -> str:
    """What to tell somebody whose command or click ended in `error`, as `bots.replies` says it."""
    if isinstance(error, SlackClientError):
        return "Slack did not let me do that here. Am I in this channel?"
    return escape(replies.sentence_for(error, clicked=clicked))


# -- Questions ------------------------------------------------------------------------------------


def question_of(command: Command) -> tuple[Question, dict[str, str]]:
    """The question that a command carries, and the place of its answer.

    A command is no message, so its `trigger_id`, which is used once, names it; the answer becomes a
    message of its own, and its replies a thread.
    """
    body = command.body
    name = f"{body['api_app_id']}:{body['channel_id']}:command-{body['trigger_id']}"
    place = {
        "platform": SURFACE,
        "workspace": str(body["team_id"]),
        "channel": "" if is_direct(body["channel_id"]) else str(body["channel_id"]),
        "member": str(body["user_id"]),
        "team": str(body.get("user_team_id") or body["team_id"]),
        "reply_to": str(body["channel_id"]),
        "thread": "",
        "ts": "",
        "via": "command",
        "calling": "yes",
        "response_url": str(body["response_url"]),
    }
    question = Question(
        text=plain_text(command.rest),
        audience=command.audience,
        thread_ref=name,
        message_ref=name,
        author_id=command.audience.member_id,
    )
    return question, place


async def ask_by_command(command: Command, kind: Literal["answer", "compare"]) -> None:
    """Store a command's question and queue its answer, then acknowledge.

    Raises:
        StorageError, TimeoutError: nothing was acknowledged yet.
    """
    question, place = question_of(command)
    async with asyncio.timeout(BEFORE_ACK_S):
        settings = await load(command.context.workplace.places, command.audience.channel_id)
        asker = Asker(
            user=place["member"],
            team=place["workspace"],
            bot=False,
            outside=False,
            direct=place["channel"] == "",
        )
        known = command.context.people.known(command.client, asker.user)
        refusal = judged(asker, settings, known)
        if refusal is not None:
            await command.ack(text=refusal.text)
            return
        if settings.ephemeral and place["channel"]:
            place["via"] = "ephemeral"
        await command.context.turns.accept(question, place=place, kind=kind)
    await command.ack()
