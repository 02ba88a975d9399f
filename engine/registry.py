"""The models that are loaded, their aliases, and the file that lets them survive a restart.

A request holds its model by a lease: unloading or replacing a model takes it out of the names at
once and frees it when the last lease ends, so no request is dropped.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.chat import ChatBackend
from engine.embedder import Embedder, EmbeddingBackend
from engine.errors import EngineBusy, EngineError, InvalidRequest, ModelNotFound, ModelUnsupported
from engine.generator import Generator
from engine.local_chat import LocalChat
from engine.manifest import Manifest
from engine.memory import release_free_memory
from engine.metrics import Metrics
from engine.scheduler import Scheduler
from engine.settings import EngineSettings
from engine.upstream import Upstream

logger = logging.getLogger(__name__)

LIVE = "live"
EMBEDDER = "embedder"
STATE_FILE = "registry.json"

_LOADING_RETRY_S = 2.0
"""The default models load in one to two seconds."""


class _State(BaseModel):
    """What `registry.json` holds: sources and aliases by name."""

    model_config = ConfigDict(extra="ignore")
    models: dict[str, str] = {}
    aliases: dict[str, str] = {}


@dataclass(kw_only=True, eq=False)
class Entry:
    """One loaded model: what it can do, and how many requests use it."""

    name: str
    source: str
    chat: ChatBackend | None = None
    embedding: EmbeddingBackend | None = None
    context_length: int | None = None
    loaded_at: int = 0
    leases: int = 0

    def can_replace(self, other: "Entry") -> bool:
        """Whether this model can do all that the other can."""
        return bool((self.chat or not other.chat) and (self.embedding or not other.embedding))

    async def close(self) -> None:
        """Free the model."""
        for backend in {self.chat, self.embedding} - {None}:
            assert backend is not None  # noqa: S101 - taken out one line above
            await backend.close()


class Registry:
    """Loads, names and frees models. Used from the event loop only."""

    def __init__(
        self,
        *,
        settings: EngineSettings,
        models_dir: Path,
        scheduler: Scheduler,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._models_dir = models_dir
        self._scheduler = scheduler
        self._metrics = metrics
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._leaving: dict[Entry, asyncio.Task[None]] = {}
        self._freed = asyncio.Condition()
        self.problems: dict[str, str] = {}
        """Why a model that should be loaded is not, by name."""
        self.loading = True

    async def start(self) -> None:
        """Load the configured models and those that were loaded when the engine last ran.

        Changes wait until it is done: they store what is loaded by then.
        """
        async with self._changing:
            await self._load_all()
        release_free_memory()
        self.loading = False

    async def _load_all(self) -> None:
        state = self._read_state()
        embedder = _default_name(self._settings.embedder)
        sources = {**self._settings.models, **state.models, embedder: self._settings.embedder}
        for name, source in sources.items():
            try:
                self._entries[name] = await self._open(name, source)
            except EngineError as error:
                self.problems[name] = str(error)
                logger.error(
                    "A model was not loaded: %s",
                    error,
                    extra={"action": "model_refused", "model": name},
                )
        wanted = {LIVE: self._settings.live, **state.aliases, EMBEDDER: embedder}
        for alias, name in wanted.items():
            if name in self._entries:
                self._aliases[alias] = name
        if LIVE not in self._aliases and self._settings.live in self._entries:
            self._aliases[LIVE] = self._settings.live

    @property
    def names(self) -> list[str]:
        """Every name a request may use: models first, then aliases."""
        return [*self._entries, *self._aliases]

    @property
    def entries(self) -> list[Entry]:
        """The loaded models."""
        return list(self._entries.values())

    @property
    def aliases(self) -> dict[str, str]:
        """Model name by alias."""
        return dict(self._aliases)

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Entry]:
        """Hold the model behind a name or alias for one request.

        Raises:
            ModelNotFound: nothing of that name is loaded.
            EngineBusy: not yet: the engine has just started.
        """
        entry = self._find(name)
        entry.leases += 1
        try:
            yield entry
        finally:
            entry.leases -= 1
            if entry in self._leaving and not entry.leases:
                async with self._freed:
                    self._freed.notify_all()

    async def load(self, name: str, source: str) -> Entry:
        """Load a model, or replace the one of that name, which serves until the new one is ready.

        Raises:
            ModelCorrupt, ModelUnsupported: the model is refused; nothing changes.
            InvalidRequest: the name is an alias, or the new model cannot do what the old one does.
        """
        async with self._changing:
            if name in self._aliases:
                raise InvalidRequest(f"{name!r} is an alias; choose another name.", param="name")
            entry = await self._open(name, source)
            old = self._entries.get(name)
            if old and not entry.can_replace(old):
                await entry.close()
                raise InvalidRequest(f"{source!r} cannot stand in for {name!r}.", param="source")
            self._entries[name] = entry
            self.problems.pop(name, None)
            self._write_state()
            logger.info("Model loaded", extra={"action": "model_loaded", "model": name})
        if old:
            await self._drain(old)
        return entry

    async def unload(self, name: str) -> None:
        """Take a model and its aliases out of service; free it once its requests have ended.

        Raises:
            ModelNotFound: no model of that name.
            InvalidRequest: it is the live model or the embedder.
        """
        async with self._changing:
            if name not in self._entries:
                raise ModelNotFound(name, known=list(self._entries))
            for alias in (LIVE, EMBEDDER):
                if self._aliases.get(alias) == name:
                    raise InvalidRequest(
                        f"{name!r} is {alias!r}; point that alias at another model first.",
                        param="name",
                    )
            entry = self._entries.pop(name)
            self._aliases = {a: n for a, n in self._aliases.items() if n != name}
            self._write_state()
            logger.info("Model unloaded", extra={"action": "model_unloaded", "model": name})
        await self._drain(entry)

    async def alias(self, alias: str, name: str) -> None:
        """Point an alias at a loaded model; requests that run keep the model they began with.

        Raises:
            ModelNotFound: no model of that name.
            InvalidRequest: the alias is a model's name, or the model is of the wrong kind for it.
        """
        async with self._changing:
            entry = self._entries.get(name)
            if entry is None:
                raise ModelNotFound(name, known=list(self._entries))
            if alias in self._entries:
                raise InvalidRequest(f"{alias!r} is a model's name.", param="alias")
            old = self._entries.get(self._aliases.get(alias, ""))
            suits = entry.embedding if alias == EMBEDDER else entry.chat
            if (alias in (LIVE, EMBEDDER) and not suits) or (old and not entry.can_replace(old)):
                raise InvalidRequest(f"{name!r} cannot serve as {alias!r}.", param="name")
            self._aliases[alias] = name
            self._write_state()
            logger.info("Alias set", extra={"action": "alias_set", "alias": alias, "model": name})

    async def close(self) -> None:
        """Free every model."""
        for entry in [*self._entries.values(), *self._leaving]:
            await entry.close()

    def _find(self, name: str) -> Entry:
        entry = self._entries.get(self._aliases.get(name, name))
        if entry is None and self.loading:
            raise EngineBusy(retry_after_s=_LOADING_RETRY_S)
        if entry is None:
            raise ModelNotFound(name, known=self.names)
        return entry

    async def _open(self, name: str, source: str) -> Entry:
        kind, _, address = source.partition(":")
        entry = Entry(name=name, source=source, loaded_at=int(time.time()))
        if kind == "openai":
            entry.chat = entry.embedding = Upstream(
                name=name,
                address=address,
                api_key=self._settings.upstream_keys.get(name),
                timeout_s=self._settings.request_timeout_s,
            )
        elif kind == "ctranslate2":
            await asyncio.to_thread(self._open_directory, entry, self._models_dir / address)
        else:
            raise ModelUnsupported(
                f"Model {name!r}: write ctranslate2:<directory> or openai:<url>#<name>, "
                f"not {source!r}."
            )
        return entry

    def _open_directory(self, entry: Entry, directory: Path) -> None:
        manifest = Manifest.read(directory, verify=False)
        entry.context_length = manifest.context_length
        if manifest.kind == "embedder":
            entry.embedding = Embedder.load(
                directory,
                name=entry.name,
                replicas=self._settings.replicas,
                max_queue=self._settings.max_queue,
                metrics=self._metrics,
            )
        else:
            entry.chat = LocalChat(
                name=entry.name,
                generator=Generator.load(directory, replicas=self._settings.replicas),
                scheduler=self._scheduler,
                metrics=self._metrics,
            )

    async def _drain(self, entry: Entry) -> None:
        """Free a model after its last request, even if nobody waits for it any more."""
        self._leaving[entry] = asyncio.create_task(self._free(entry))
        await asyncio.shield(self._leaving[entry])

    async def _free(self, entry: Entry) -> None:
        async with self._freed:
            await self._freed.wait_for(lambda: not entry.leases)
        del self._leaving[entry]
        await entry.close()

    def _read_state(self) -> _State:
        file = self._models_dir / STATE_FILE
        try:
            return _State.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return _State()
        except (OSError, ValidationError) as error:
            logger.error(
                "%s cannot be read and is ignored: %s",
                STATE_FILE,
                type(error).__name__,
                extra={"action": "registry_unreadable"},
            )
            return _State()

    def _write_state(self) -> None:
        """Replace the state file in one step, durably."""
        state = _State(
            models={name: entry.source for name, entry in self._entries.items()},
            aliases=self._aliases,
        )
        partial = self._models_dir / f".{STATE_FILE}.partial"
        self._models_dir.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(state.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._models_dir / STATE_FILE)
        with contextlib.suppress(OSError):
            folder = os.open(self._models_dir, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _default_name(source: str) -> str:
    """Name of a model that the settings give none: the directory's, or the other server's."""
    kind, _, address = source.partition(":")
    return address.rpartition("#")[2] if kind == "openai" else Path(address).name
