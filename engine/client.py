"""The engine's client, for every other process; speaks to any OpenAI-compatible server.

Why httpx and not the `openai` package: that costs 60 MB resident in each process that imports it.
"""

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from engine.chat import ChatDelta, Sampling
from engine.errors import (
    DeadlineExceeded,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    PromptTooLong,
    UpstreamFailed,
)
from engine.openai_stream import StreamFailed, chat_body, chat_deltas
from engine.prompt import ChatMessage

__all__ = ["ChatDelta", "ChatMessage", "EngineClient", "ModelInfo", "Sampling"]

_GREEDY = Sampling()
_CONNECT_TIMEOUT_S = 5.0
_EMBED_TEXTS = 256
"""Texts per embeddings request: a second or two of work, so that a cancelled ingest stops soon."""

_CHARS_PER_TOKEN = 3
"""For servers that cannot count: English has about four characters a token, so this errs high."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One name that requests may use.

    Attributes:
        name: the model or alias.
        root: the model itself; equal to `name` unless that is an alias.
        context_length: most tokens of prompt and answer; None where the server does not say.
    """

    name: str
    root: str
    context_length: int | None


class EngineClient:
    """One connection pool to an engine; use as an async context manager.

    Args of the constructor:
        url: address without `/v1`.
        timeout_s: most time of one request; the engine has a deadline of its own as well.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str | None = None,
        admin_token: str | None = None,
        timeout_s: float = 180.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._admin_token = admin_token
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=self._url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        model: str = "live",
        sampling: Sampling = _GREEDY,
    ) -> AsyncGenerator[ChatDelta, None]:
        """Stream an answer; closing the iterator hangs up and the engine stops the sequence.

        Raises:
            EngineBusy, EngineUnavailable, DeadlineExceeded: wait and retry. PromptTooLong,
            InvalidRequest, ModelNotFound, UpstreamFailed: the request cannot succeed.
        """
        body = chat_body(model, messages, sampling)
        async with (
            self._errors_mapped(),
            self._http.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            await self._check(response)
            try:
                async for delta in chat_deltas(response.aiter_bytes()):
                    yield delta
            except StreamFailed as failure:
                raise self._error(502, failure.error, response) from failure

    async def embed(self, texts: Sequence[str], *, model: str = "embedder") -> NDArray[np.float32]:
        """Return unit vectors, shape (N, dim), in the texts' order.

        Raises:
            EngineBusy, EngineUnavailable, DeadlineExceeded: wait and retry. PromptTooLong,
            InvalidRequest, ModelNotFound, UpstreamFailed: the request cannot succeed.
        """
        parts = [
            await self._embed(texts[start : start + _EMBED_TEXTS], model)
            for start in range(0, len(texts), _EMBED_TEXTS)
        ]
        return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)

    async def _embed(self, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        body = {"model": model, "input": list(texts), "encoding_format": "base64"}
        answer = await self._post("/v1/embeddings", body)
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = np.stack([_vector(row["embedding"]) for row in rows])
        norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return np.asarray(vectors / norms, dtype=np.float32)

    async def count_tokens(self, texts: Sequence[str], *, model: str = "live") -> list[int]:
        """Return each text's number of tokens; too high an estimate on servers without `/tokenize`.

        Raises:
            EngineUnavailable, ModelNotFound: as for `chat`.
        """
        counts = await self._counts({"model": model, "input": list(texts)})
        if counts is None:
            return [len(text) // _CHARS_PER_TOKEN + 1 for text in texts]
        return counts

    async def count_prompt(self, messages: Sequence[ChatMessage], *, model: str = "live") -> int:
        """Return the tokens of the prompt that these messages make; an estimate as above.

        Raises:
            EngineUnavailable, ModelNotFound, InvalidRequest: as for `chat`.
        """
        body = {"model": model, "messages": [asdict(message) for message in messages]}
        counts = await self._counts(body)
        if counts is None:
            return sum(len(each.content) // _CHARS_PER_TOKEN + 1 for each in messages)
        return counts[0]

    async def _counts(self, body: Mapping[str, object]) -> list[int] | None:
        """What `/tokenize` counts; None on servers without it."""
        async with self._errors_mapped():
            response = await self._http.post("/tokenize", json=body)
            if response.status_code in (404, 405) and not _is_model_not_found(response):
                return None
            await self._check(response)
            return [int(count) for count in response.json()["counts"]]

    async def models(self) -> list[ModelInfo]:
        """Every model and alias that requests may name.

        Raises:
            EngineUnavailable: nobody answers.
        """
        async with self._errors_mapped():
            response = await self._http.get("/v1/models")
            await self._check(response)
            return [
                ModelInfo(
                    name=model["id"],
                    root=model.get("root") or model["id"],
                    context_length=model.get("max_model_len"),
                )
                for model in response.json()["data"]
            ]

    async def health(self) -> dict[str, object]:
        """What `/healthz` says, ready or not.

        Raises:
            EngineUnavailable: nobody answers.
        """
        async with self._errors_mapped():
            response = await self._http.get("/healthz", timeout=_CONNECT_TIMEOUT_S)
            return dict(response.json())

    async def load(self, name: str, source: str) -> None:
        """Load a model under a name, or replace the one of that name.

        Raises:
            InvalidRequest: the model is refused, with the reason.
        """
        await self._admin({"action": "load", "name": name, "source": source})

    async def unload(self, name: str) -> None:
        """Free a model; returns when its last request has ended.

        Raises:
            ModelNotFound, InvalidRequest: there is none, or it is in use as `live` or `embedder`.
        """
        await self._admin({"action": "unload", "name": name})

    async def alias(self, alias: str, name: str) -> None:
        """Point an alias at a loaded model.

        Raises:
            ModelNotFound, InvalidRequest: there is none, or it is of the wrong kind.
        """
        await self._admin({"action": "alias", "alias": alias, "name": name})

    async def _admin(self, body: dict[str, str]) -> None:
        headers = {"Authorization": f"Bearer {self._admin_token}"} if self._admin_token else {}
        async with self._errors_mapped():
            response = await self._http.post("/admin/models", json=body, headers=headers)
            await self._check(response)

    async def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        async with self._errors_mapped():
            response = await self._http.post(path, json=body)
            await self._check(response)
            return dict(response.json())

    @asynccontextmanager
    async def _errors_mapped(self) -> AsyncIterator[None]:
        """Map httpx's errors and unreadable answers: the only place that does."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise EngineUnavailable(self._url, "no connection") from error
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(deadline_s=self._timeout_s) from error
        except httpx.HTTPError as error:
            raise EngineUnavailable(self._url, str(error) or type(error).__name__) from error
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailable(self._url, f"malformed answer: {error}") from error

    async def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        await response.aread()
        try:
            error = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = response.reason_phrase
        raise self._error(response.status_code, error, response)

    def _error(self, status: int, error: object, response: httpx.Response) -> EngineError:
        """The exception of an OpenAI-shaped error; other servers have no codes, only a status."""
        fields: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
        message = str(fields.get("message"))
        match fields.get("code"), status:
            case "context_length_exceeded", _ if "tokens" in fields:
                return PromptTooLong(tokens=fields["tokens"], limit=fields["limit"])
            case "model_not_found", _ if "known" in fields:
                return ModelNotFound(fields["name"], known=fields["known"])
            case "deadline_exceeded", _:
                return DeadlineExceeded(deadline_s=fields.get("deadline_s", self._timeout_s))
            case _, 429:
                seconds = fields.get("retry_after_s") or response.headers.get("Retry-After", "1")
                return EngineBusy(retry_after_s=float(seconds))
            case _, 503:
                return EngineUnavailable(self._url, message)
            case _, code if code < 500:
                return InvalidRequest(message, param=fields.get("param"))
        return UpstreamFailed(self._url, status=status, message=message)


def _vector(embedding: str | list[float]) -> NDArray[np.float32]:
    """A vector as either encoding brings it; some servers always answer with numbers."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype=np.float32)


def _is_model_not_found(response: httpx.Response) -> bool:
    return b"model_not_found" in response.content
