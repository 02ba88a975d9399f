"""The app's own side of a fake Discord: a client that is logged in, without a gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import discord
import pytest
from discord.app_commands import CommandTree

from bots.administration import Administration
from bots.discord_bot.client import build_client
from bots.discord_bot.context import DIRECT, SURFACE, DiscordContext
from bots.discord_bot.gateway import stay_connected
from bots.discord_bot.messages import Post, answer_posts
from bots.discord_bot.rest import DiscordCalls
from bots.messages import Answer
from bots.screens import Reach
from bots.settings import DiscordSettings
from bots.turns import Turns
from engine.client import EngineClient
from storage.identity import Audience, MessageId
from storage.pool import Pool
from tests.bots.conftest import make_workplace
from tests.bots.model_list import serve_models
from tests.bots.turn_script import Stored
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Channel, Message, Person

EVERY_S = 0.02
"""Between two edits of a message, where a test does not wait for seconds."""


@dataclass(kw_only=True)
class Stage:
    """The app, and what a test does beside it."""

    discord: DiscordServer
    context: DiscordContext

    async def audience(self, person: Person, channel: Channel) -> Audience:
        """A person in a channel, as the app finds them."""
        return await self.context.workplace.identities.resolve(
            platform=SURFACE,
            workspace=channel.guild.id if channel.guild is not None else DIRECT,
            channel=channel.id if channel.guild is not None else None,
            member=person.id,
        )

    async def ask(self, person: Person, channel: Channel, text: str) -> tuple[Message, MessageId]:
        """A question that nobody answers yet."""
        said = self.discord.say(person, channel, text, deliver=False)
        ref = f"{self.discord.app_id}:{channel.id}:{said.id}"
        audience = await self.audience(person, channel)
        message_id = await self.stored.question(audience, text, thread_ref=said.id, message_ref=ref)
        return said, message_id

    @property
    def stored(self) -> Stored:
        """What is stored of questions and answers."""
        return Stored(conversations=self.context.workplace.conversations)

    async def answered(self, person: Person, channel: Channel) -> tuple[Message, Answer]:
        """A question and its answer, in Discord and in the database."""
        _, message_id = await self.ask(person, channel, "How many days of leave?")
        answer = await self.stored.answer(message_id, await self.audience(person, channel))
        reach = Reach.ALONE if channel.guild is None else Reach.CHANNEL
        (post,) = answer_posts(answer, links={}, reach=reach)
        return await self.post(channel, post), answer

    async def post(self, channel: Channel, post: Post) -> Message:
        """Any message of the app's."""
        rest = self.context.rest
        posted = await rest.send(channel.id, content=post.content, view=post.view())
        return channel.messages[posted]

    @asynccontextmanager
    async def listening(self, *modules: ModuleType) -> AsyncIterator[None]:
        """Let the features hear what happens, over the gateway."""
        client = self.context.client
        commands = CommandTree(client)
        for module in modules:
            module.register(commands, self.context)
        connected = asyncio.create_task(stay_connected(client, self.context.settings))
        try:
            await self.discord.gateway.connected()
            await client.wait_until_ready()
            yield
        finally:
            connected.cancel()
            await asyncio.wait([connected])


@asynccontextmanager
async def logged_in(
    discord_server: DiscordServer,
    pool: Pool,
    engine: EngineClient,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """A client that may call, and everything below the listeners."""
    monkeypatch.setattr(discord.http.Route, "BASE", discord_server.api_url)
    monkeypatch.setattr("bots.discord_bot.client.GUILDS_S", 0.1)  # it has few servers
    workplace = make_workplace(pool, engine, state)
    settings = DiscordSettings(
        api_url=discord_server.api_url, gateway_url=discord_server.gateway_url
    )
    async with build_client(settings) as client:
        await client.login(discord_server.token)
        yield Stage(
            discord=discord_server,
            context=DiscordContext(
                settings=settings.model_copy(update={"edit_interval_s": EVERY_S}),
                workplace=workplace,
                turns=Turns(workplace=workplace, surface=SURFACE, max_concurrent=1),
                administration=Administration(
                    pool=pool,
                    engine=engine,
                    documents=workplace.documents,
                    places=workplace.places,
                    runs=workplace.runs,
                    files_dir=state / "files",
                ),
                client=client,
                rest=DiscordCalls(client, timeout_s=20.0),
            ),
        )


def at_full_pace(stage: Stage) -> DiscordContext:
    """The context with Discord's own pace of edits."""
    return replace(stage.context, settings=DiscordSettings(api_url=stage.discord.api_url))


def hearing(*modules: ModuleType) -> Any:
    """A fixture: a stage on which these features hear what happens, and an engine lists models."""

    @pytest.fixture
    async def stage(
        discord_server: DiscordServer, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Stage]:
        async with (
            serve_models() as engine,
            logged_in(discord_server, pool, engine, tmp_path, monkeypatch) as stage,
            stage.listening(*modules),
        ):
            yield stage

    return stage
