"""An engine that only lists its models, over the wire, for tests of those who only ask for that."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from engine.client import EngineClient

MODELS = {"live": "small", "small": "small", "large": "large", "embedder": "mini", "mini": "mini"}
"""Names and the model behind each."""


@asynccontextmanager
async def serve_models(models: Mapping[str, str] = MODELS) -> AsyncIterator[EngineClient]:
    """A client of it."""

    async def list_models(_: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "root": root} for name, root in models.items()]
        return web.json_response({"object": "list", "data": data})

    app = web.Application()
    app.router.add_get("/v1/models", list_models)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with EngineClient(url=f"http://{host}:{port}") as engine:
            yield engine
    finally:
        await runner.cleanup()
