"""The client's side of OpenAI's chat protocol: the request's body and the stream of its answer."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import asdict

from engine.chat import ChatDelta, FinishReason, Sampling
from engine.prompt import ChatMessage

_DONE = b"[DONE]"


class StreamFailed(Exception):
    """The server reported an error in the middle of its answer; `error` is what it sent."""

    def __init__(self, error: object) -> None:
        self.error = error
        super().__init__(str(error))


def chat_body(model: str, messages: Sequence[ChatMessage], sampling: Sampling) -> dict[str, object]:
    """Return the body of a streamed chat request."""
    body: dict[str, object] = {
        "model": model,
        "messages": [asdict(message) for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.max_tokens is not None:
        body["max_tokens"] = sampling.max_tokens
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return body


async def chat_deltas(body: AsyncIterator[bytes]) -> AsyncGenerator[ChatDelta, None]:
    """Yield the pieces of a streamed chat answer.

    Args:
        body: the response's bytes, server-sent events, in pieces of any size.

    Raises:
        StreamFailed: the server sent an error.
        ValueError, KeyError, TypeError: what it sent is no such stream, or ends early.
    """
    model = fingerprint = ""
    reason: FinishReason | None = None
    usage: dict[str, int] = {}
    async for line in _lines(body):
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == _DONE:
            continue  # comments, event names and the empty lines between events
        chunk = json.loads(data)
        if chunk.get("error"):
            raise StreamFailed(chunk["error"])
        model = chunk.get("model") or model
        fingerprint = chunk.get("system_fingerprint") or fingerprint
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices") or ():
            if choice.get("finish_reason"):
                reason = "length" if choice["finish_reason"] == "length" else "stop"
            if text := (choice.get("delta") or {}).get("content"):
                yield ChatDelta(text=text, model=model, fingerprint=fingerprint)
    if reason is None:
        raise ValueError("the stream ended early")
    yield ChatDelta(
        text="",
        finish_reason=reason,
        model=model,
        fingerprint=fingerprint,
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
    )


async def _lines(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Split at line feeds only.

    httpx's own `aiter_lines` also splits at U+2028, form feeds and the like, which stand unescaped
    inside the JSON of many servers.
    """
    rest = b""
    async for piece in body:
        *complete, rest = (rest + piece).split(b"\n")
        for line in complete:
            yield line
    if rest:
        yield rest
