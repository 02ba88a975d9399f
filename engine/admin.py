"""`/admin/models`: load, unload and alias models while serving."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.api import AdminRequest, AliasAction, LoadAction, UnloadAction, parse
from engine.registry import Registry


class Admin:
    """What the operator asks for."""

    def __init__(self, *, registry: Registry) -> None:
        self._registry = registry
        self._tasks: set[asyncio.Task[None]] = set()

    async def list(self, _request: Request, _body: bytes) -> Response:
        """Models with their sources and running requests, aliases, and what could not be loaded."""
        return self._state()

    async def change(self, _request: Request, body: bytes) -> Response:
        """Do one action; answers when it is done (an unloading: after the last request)."""
        task = asyncio.create_task(self._do(parse(body, AdminRequest)))
        # An operator who hangs up does not leave a model half loaded.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
        return self._state()

    async def _do(self, request: AdminRequest) -> None:
        match request.request:
            case LoadAction(name=name, source=source):
                await self._registry.load(name, source)
            case UnloadAction(name=name):
                await self._registry.unload(name)
            case AliasAction(alias=alias, name=name):
                await self._registry.alias(alias, name)

    def _state(self) -> Response:
        models = [
            {
                "name": entry.name,
                "source": entry.source,
                "chat": entry.chat is not None,
                "embedding": entry.embedding is not None,
                "context_length": entry.context_length,
                "requests": entry.leases,
            }
            for entry in self._registry.entries
        ]
        return JSONResponse(
            {
                "models": models,
                "aliases": self._registry.aliases,
                "problems": self._registry.problems,
            }
        )
