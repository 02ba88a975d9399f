"""The OpenAI-compatible HTTP server: routes over one registry."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engine.admin import Admin
from engine.api import (
    ChatRequest,
    ChunkWriter,
    EmbeddingRequest,
    TokenizeRequest,
    completion,
    embeddings,
    error_body,
    parse,
)
from engine.chat import ChatBackend, ChatDelta
from engine.embedder import EmbeddingBackend
from engine.endpoint import Endpoints
from engine.errors import InvalidRequest
from engine.metrics import Metrics
from engine.registry import EMBEDDER, LIVE, Entry, Registry
from engine.settings import EngineSettings


def build_app(*, settings: EngineSettings, registry: Registry, metrics: Metrics) -> Starlette:
    """Return the ASGI application."""
    routes = Routes(registry=registry, metrics=metrics)
    admin = Admin(registry=registry)
    public = Endpoints(metrics=metrics, key=settings.api_key, deadline_s=settings.request_timeout_s)
    # Loading a model takes as long as it takes: no deadline of a request applies.
    operator = Endpoints(metrics=metrics, key=settings.admin_token, deadline_s=None)
    paths = [
        public.route("GET", "/v1/models", routes.models),
        public.route("GET", "/v1/models/{name:path}", routes.model),
        public.route("POST", "/v1/chat/completions", routes.chat),
        public.route("POST", "/v1/embeddings", routes.embed),
        public.route("POST", "/tokenize", routes.tokenize),
        Route("/healthz", routes.health, methods=["GET"]),
        Route("/metrics", routes.scrape, methods=["GET"]),
    ]
    if settings.admin_token is not None:
        paths += [
            operator.route("GET", "/admin/models", admin.list),
            operator.route("POST", "/admin/models", admin.change),
        ]
    return Starlette(routes=paths, exception_handlers={HTTPException: _no_route})


async def _no_route(_request: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405) in OpenAI's shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it above
    body = error_body(error.detail, kind="invalid_request_error", code="unknown_url")
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


class Routes:
    """What clients ask for."""

    def __init__(self, *, registry: Registry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics

    async def health(self, _request: Request) -> Response:
        """200 once chat and embeddings can be served, 503 before, with the reason."""
        registry = self._registry
        aliases = registry.aliases
        ready = LIVE in aliases and EMBEDDER in aliases and not registry.loading
        status = "ok" if ready else "loading" if registry.loading else "degraded"
        body = {
            "status": status,
            "models": [entry.name for entry in registry.entries],
            "aliases": aliases,
            "problems": registry.problems,
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    async def scrape(self, _request: Request) -> Response:
        """Prometheus's text format."""
        return Response(
            self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def models(self, _request: Request, _body: bytes) -> Response:
        """Every model and alias."""
        entries = {entry.name: entry for entry in self._registry.entries}
        data = [_model(entry, entry.name) for entry in entries.values()]
        data += [_model(entries[name], alias) for alias, name in self._registry.aliases.items()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request, _body: bytes) -> Response:
        """One model or alias."""
        name = request.path_params["name"]
        async with self._registry.lease(name) as entry:
            return JSONResponse(_model(entry, name))

    async def chat(self, _request: Request, body: bytes) -> Response:
        """A chat answer, streamed or whole."""
        request = parse(body, ChatRequest)
        deltas = self._deltas(request)
        if not request.stream:
            return JSONResponse(completion([delta async for delta in deltas]))
        # Errors before the first token still get a status of their own.
        first = await anext(deltas)
        return EventStream(_chunks(first, deltas, request))

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        async with self._registry.lease(request.model) as entry:
            backend = _chat_of(entry)
            async with aclosing(backend.chat(request.chat_messages, request.sampling)) as deltas:
                async for delta in deltas:
                    yield delta

    async def embed(self, _request: Request, body: bytes) -> Response:
        """Unit vectors of texts."""
        request = parse(body, EmbeddingRequest)
        async with self._registry.lease(request.model) as entry:
            backend = _embedding_of(entry)
            _check_dimensions(request.dimensions, backend.dimension)
            vectors, tokens = await backend.embed(request.texts)
            _check_dimensions(request.dimensions, vectors.shape[1])
            return JSONResponse(
                embeddings(
                    vectors, model=entry.name, tokens=tokens, encoding=request.encoding_format
                )
            )

    async def tokenize(self, _request: Request, body: bytes) -> Response:
        """Token counts of texts, or of the prompt that a chat makes."""
        request = parse(body, TokenizeRequest)
        async with self._registry.lease(request.model) as entry:
            if request.messages is not None:
                messages = [message.message() for message in request.messages]
                counts = [await _chat_of(entry).count_prompt(messages)]
            else:
                texts = [request.input] if isinstance(request.input, str) else request.input or []
                backend = entry.chat or _embedding_of(entry)
                counts = await backend.count_tokens(texts)
            return JSONResponse({"counts": counts, "max_model_len": entry.context_length})


class EventStream(Response):
    """Server-sent events; what `events` raises passes through to the endpoint."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every event as it comes."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _chunks(
    first: ChatDelta, rest: AsyncGenerator[ChatDelta, None], request: ChatRequest
) -> AsyncGenerator[bytes, None]:
    writer = ChunkWriter(model=first.model, include_usage=request.include_usage)
    async with aclosing(rest) as deltas:
        for chunk in writer.chunks(first):
            yield _event(chunk)
        async for delta in deltas:
            for chunk in writer.chunks(delta):
                yield _event(chunk)
    yield b"data: [DONE]\n\n"


def _event(chunk: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _model(entry: Entry, name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": entry.loaded_at,
        "owned_by": "parley",
        "root": entry.name,
        "max_model_len": entry.context_length,
    }


def _chat_of(entry: Entry) -> ChatBackend:
    if entry.chat is None:
        raise InvalidRequest(f"{entry.name!r} is an embedding model.", param="model")
    return entry.chat


def _embedding_of(entry: Entry) -> EmbeddingBackend:
    if entry.embedding is None:
        raise InvalidRequest(f"{entry.name!r} is a chat model.", param="model")
    return entry.embedding


def _check_dimensions(wanted: int | None, have: int | None) -> None:
    if wanted is not None and have is not None and wanted != have:
        raise InvalidRequest(
            f"This model's vectors have {have} dimensions, not {wanted}.", param="dimensions"
        )
