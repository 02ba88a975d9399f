"""The part of the app that takes files, on a real Bolt app beside the fake Slack; no engine.

Documents are really ingested, with the tiny embedder of the storage tests.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot import admin, ask, commands, documents, files
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.contract import EVENTS
from bots.slack_bot.fetching import serve_files
from engine.client import EngineClient
from storage.documents import Document
from storage.identity import Audience, DocumentId
from storage.ingest import ingest
from storage.jobs import run_worker
from storage.pool import Pool
from storage.settings import DocumentsSettings
from tests.bots.conftest import running
from tests.bots.slack_bot.listening import make_context
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person
from tests.storage.embedding import count_tokens, embed


@dataclass(kw_only=True)
class Filing:
    """The app, and what a test sees of it."""

    slack: SlackServer
    context: SlackContext
    pool: Pool
    state: Path

    async def documents(self, channel: Channel, person: Person) -> list[Document]:
        """What the person may read there."""
        audience = await self.audience(channel, person)
        return await self.context.workplace.documents.list(audience=audience)

    async def audience(self, channel: Channel, person: Person) -> Audience:
        """The person there, as the app finds them."""
        return await self.context.workplace.identities.resolve(
            platform=SURFACE,
            workspace=channel.team_id,
            channel=None if channel.kind == "im" else channel.id,
            member=person.id,
        )

    async def status(self, shared: Message, part: str, *, within_s: float = 30.0) -> Message:
        """Wait for the status message that contains `part`."""

        def check() -> Message | None:
            return next((m for m in self.slack.replies(shared) if part in m.body["text"]), None)

        found = await self.slack.until(check, f"a status with {part!r}", within_s=within_s)
        assert found is not None
        return found

    async def told(self, person: Person, channel: Channel, part: str) -> Message:
        """Wait until the person alone is told something that contains `part`."""

        def check() -> Message | None:
            found = [m for m in self.slack.ephemerals(channel, person) if part in m.seen]
            return found[-1] if found else None

        found = await self.slack.until(check, f"an ephemeral with {part!r}", within_s=10.0)
        assert found is not None
        return found

    @asynccontextmanager
    async def fetching(self) -> AsyncIterator[None]:
        """Serve the queue of files meanwhile."""
        async with running(serve_files(self.context)):
            yield

    @asynccontextmanager
    async def ingesting(self) -> AsyncIterator[None]:
        """Ingest what is stored meanwhile."""
        async with running(run_worker(self.pool, ingest=tiny_ingest(self.pool, self.state))):
            yield


def tiny_ingest(pool: Pool, state: Path) -> Callable[[DocumentId], Awaitable[object]]:
    """An ingest with the tiny embedder."""

    async def run(document_id: DocumentId) -> None:
        await ingest(
            document_id,
            pool=pool,
            files_dir=state / "files",
            embed=embed,
            count_tokens=count_tokens,
            settings=DocumentsSettings(),
        )

    return run


@asynccontextmanager
async def filing(slack: SlackServer, pool: Pool, state: Path) -> AsyncIterator[Filing]:
    """The app with a socket; nothing fetches or ingests yet."""
    slack.subscriptions = frozenset(EVENTS)
    client = AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    async with EngineClient(url="http://127.0.0.1:9") as engine:
        context = make_context(slack, pool, engine, state, client)
        app = AsyncApp(name="parley", client=client)
        for module in (ask, files, documents):
            module.register(app, context)
        verbs = {**admin.VERBS, "documents": documents.list_documents}
        commands.register(app, context, verbs)
        handler = AsyncSocketModeHandler(app, slack.app_token)
        await handler.connect_async()  # type: ignore[no-untyped-call]
        try:
            await slack.sockets.connected()
            yield Filing(slack=slack, context=context, pool=pool, state=state)
        finally:
            await handler.close_async()  # type: ignore[no-untyped-call]
