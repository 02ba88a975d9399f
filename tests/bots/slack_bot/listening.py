"""The listeners that rate and administer, on a real Bolt app beside the fake Slack.

No engine answers here: answers are stored as the assistant would store them, and posted as its
delivery posts them.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bots.messages import Answer
from bots.screens import Reach
from bots.settings import SlackSettings
from bots.slack_bot import actions, admin, commands, compare, home, rate
from bots.slack_bot.blocks import answer_posts, stop_button
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.people import People
from bots.slack_bot.web_api import SlackCalls
from bots.turns import Turns
from engine.client import EngineClient
from storage.identity import AnswerId, Audience, MessageId
from storage.pool import Pool
from tests.bots.conftest import make_workplace
from tests.bots.turn_script import Stored
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person


@dataclass(kw_only=True)
class Stage:
    """The app, and what a test does beside it."""

    slack: SlackServer
    context: SlackContext
    client: AsyncWebClient
    asked: int = 0

    async def audience(self, person: Person, channel: Channel) -> Audience:
        """A person in a channel, as the app finds them."""
        return await self.context.workplace.identities.resolve(
            platform=SURFACE,
            workspace=channel.team_id,
            channel=None if channel.kind == "im" else channel.id,
            member=person.id,
        )

    async def ask(self, person: Person, channel: Channel, text: str) -> tuple[Message, MessageId]:
        """A question that nobody answers yet."""
        self.asked += 1
        said = self.slack.say(person, channel, text, deliver=False)
        audience = await self.audience(person, channel)
        message_id = await self.stored.question(
            audience, text, thread_ref=said.ts, message_ref=f"A:{channel.id}:{said.ts}"
        )
        return said, message_id

    async def store_answer(
        self,
        message_id: MessageId,
        audience: Audience,
        *,
        text: str = "Twenty-five days.",
        model: str = "small",
        current: bool = True,
    ) -> AnswerId:
        """An answer as the assistant stores it."""
        answer = await self.stored.answer(
            message_id, audience, text=text, model=model, current=current
        )
        return answer.id

    @property
    def stored(self) -> Stored:
        """What is stored of questions and answers."""
        return Stored(conversations=self.context.workplace.conversations)

    async def answered(
        self, person: Person, channel: Channel, text: str = "How many days of leave?"
    ) -> tuple[Message, Answer]:
        """A question and its answer, in Slack and in the database."""
        said, message_id = await self.ask(person, channel, text)
        audience = await self.audience(person, channel)
        answer = Answer(
            id=await self.store_answer(message_id, audience),
            message_id=message_id,
            text="Twenty-five days.",
            found=True,
            finish_reason="stop",
            model="small",
        )
        reach = Reach.ALONE if channel.kind == "im" else Reach.CHANNEL
        (post,) = answer_posts(answer, links={}, reach=reach)
        ts = await self.context.calls(self.client).post_message(
            channel=channel.id, thread_ts=said.ts, **post.arguments()
        )
        return channel.messages[ts], answer

    async def post_blocks(
        self, channel: Channel, blocks: Sequence[Mapping[str, object]]
    ) -> Message:
        """Any message of the app's."""
        ts = await self.context.calls(self.client).post_message(
            channel=channel.id, text="…", blocks=blocks
        )
        return channel.messages[ts]

    async def post_stop(self, channel: Channel, message_id: MessageId) -> Message:
        """A message with a stop button."""
        block = {"type": "actions", "elements": [stop_button(message_id)]}
        return await self.post_blocks(channel, [block])

    async def told(self, person: Person, channel: Channel, part: str) -> Message:
        """Wait until the person alone is told something that contains `part`."""

        def check() -> Message | None:
            found = [m for m in self.slack.ephemerals(channel, person) if part in m.seen]
            return found[-1] if found else None

        found = await self.slack.until(check, f"an ephemeral with {part!r}", within_s=10.0)
        assert found is not None
        return found


@asynccontextmanager
async def listening(
    slack: SlackServer, pool: Pool, engine: EngineClient, state: Path
) -> AsyncIterator[Stage]:
    """The app with a socket."""
    client = AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    context = make_context(slack, pool, engine, state, client)
    app = AsyncApp(name="parley", client=client)
    for module in (rate, compare, actions, admin, home):
        module.register(app, context)
    commands.register(app, context, {**admin.VERBS, "compare": compare.ask_to_compare})
    handler = AsyncSocketModeHandler(app, slack.app_token)
    await handler.connect_async()  # type: ignore[no-untyped-call]
    try:
        await slack.sockets.connected()
        yield Stage(slack=slack, context=context, client=client)
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]


def make_context(
    slack: SlackServer,
    pool: Pool,
    engine: EngineClient,
    state: Path,
    client: AsyncWebClient,
) -> SlackContext:
    """Everything below the listeners, for one workspace."""
    workplace = make_workplace(pool, engine, state)
    calls = SlackCalls(client)

    async def client_for(_: str) -> AsyncWebClient:
        return client

    return SlackContext(
        settings=SlackSettings(base_url=slack.base_url),
        workplace=workplace,
        turns=Turns(workplace=workplace, surface=SURFACE, max_concurrent=1),
        people=People(admins=frozenset(), calls=lambda _: calls),
        calls=lambda _: calls,
        client_for=client_for,
    )
