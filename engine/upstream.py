"""`openai:` models: any OpenAI-compatible server behind one of our names."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from engine.chat import ChatDelta, Sampling
from engine.errors import (
    EngineBusy,
    EngineUnavailable,
    InvalidRequest,
    ModelUnsupported,
    UpstreamFailed,
)
from engine.openai_stream import StreamFailed, chat_body, chat_deltas
from engine.prompt import ChatMessage

_CONNECT_TIMEOUT_S = 10.0
_CHARS_PER_TOKEN = 3
"""Conservative: English has about four, so counts come out too high rather than too low."""


class Upstream:
    """One model of another server; chat and embeddings."""

    def __init__(
        self, *, name: str, address: str, api_key: SecretStr | None, timeout_s: float
    ) -> None:
        """Args: `address` is `<url>#<model name there>`, the URL with its `/v1`.

        Raises:
            ModelUnsupported: the address is not of that form.
        """
        url, _, model = address.partition("#")
        if not _is_http(url) or not model:
            raise ModelUnsupported(f"Model {name!r}: write openai:<http(s) url>#<model name>.")
        self._name = name
        self._model = model
        self._url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self._url,
            headers={"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
        )

    @property
    def dimension(self) -> int | None:
        """Unknown before the first vector."""
        return None

    async def chat(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[ChatDelta, None]:
        """Stream an answer; closing the iterator hangs up.

        Raises:
            EngineBusy, EngineUnavailable, InvalidRequest, UpstreamFailed: what the server answered.
        """
        body = chat_body(self._model, messages, sampling)
        try:
            async with self._http.stream("POST", "/chat/completions", json=body) as response:
                await self._check(response)
                async for delta in chat_deltas(response.aiter_bytes()):
                    yield replace(delta, model=self._name)
        except httpx.HTTPError as error:
            raise EngineUnavailable(self._url, type(error).__name__) from error
        except StreamFailed as failure:
            raise UpstreamFailed(self._name, status=502, message=str(failure)) from failure
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._malformed(200) from error

    async def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Return unit vectors, shape (N, dim), and the number of tokens read.

        Raises:
            EngineBusy, EngineUnavailable, InvalidRequest, UpstreamFailed: what the server answered.
        """
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        try:
            response = await self._http.post("/embeddings", json=body)
            await self._check(response)
        except httpx.HTTPError as error:
            raise EngineUnavailable(self._url, type(error).__name__) from error
        answer = self._object(response.text)
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
            tokens = int((answer.get("usage") or {}).get("prompt_tokens", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise self._malformed(response.status_code) from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise self._malformed(response.status_code)
        norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return np.asarray(vectors / norms, dtype=np.float32), tokens

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """A conservative estimate: other servers have no way to ask."""
        await asyncio.sleep(0)
        return [len(text) // _CHARS_PER_TOKEN + 1 for text in texts]

    async def count_prompt(self, messages: Sequence[ChatMessage]) -> int:
        """A conservative estimate, with a few tokens for each message's frame."""
        counts = await self.count_tokens([message.content for message in messages])
        return sum(counts) + 8 * len(messages)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        await response.aread()
        message = self._message(response)
        if response.status_code == 429:
            raise EngineBusy(retry_after_s=_seconds(response.headers.get("Retry-After")))
        if response.status_code in (400, 413, 422):
            raise InvalidRequest(f"Model {self._name!r} refuses the request: {message}")
        raise UpstreamFailed(self._name, status=response.status_code, message=message)

    def _message(self, response: httpx.Response) -> str:
        try:
            error = json.loads(response.content)["error"]
            return str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError):
            return response.reason_phrase

    def _object(self, data: str) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except ValueError as error:
            raise self._malformed(200) from error
        if not isinstance(value, dict):
            raise self._malformed(200)
        return value

    def _malformed(self, status: int) -> UpstreamFailed:
        return UpstreamFailed(self._name, status=status, message="its answer is malformed")


def _seconds(header: str | None) -> float:
    try:
        return max(1.0, float(header or 1))
    except ValueError:  # an HTTP date
        return 10.0


def _is_http(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)
