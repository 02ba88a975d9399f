"""The HTTP bodies: OpenAI's requests as the engine reads them, its answers and its errors.

Fields that OpenAI defines and the engine ignores without harm (such as `user`) pass; those whose
absence would change the answer (such as `tools`) are refused.
"""

import base64
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from engine.chat import ChatDelta, Sampling
from engine.errors import (
    DeadlineExceeded,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    ModelCorrupt,
    ModelNotFound,
    ModelUnsupported,
    PromptTooLong,
    UpstreamFailed,
)
from engine.prompt import ChatMessage

MAX_EMBEDDING_INPUTS = 2048
"""OpenAI's own limit of texts per request."""

_REFUSED: Mapping[str, tuple[Any, ...]] = {
    # name: values that ask for nothing
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "modalities": (None, ["text"]),
    "audio": (None,),
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _TextPart(_Body):
    type: Literal["text"]
    text: str


class _Message(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]

    def message(self) -> ChatMessage:
        """The message as the engine knows it: parts joined, `developer` read as `system`."""
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(role=role, content=content)


class _StreamOptions(_Body):
    include_usage: bool = False


_Stop = Annotated[str, Field(min_length=1)]


class ChatRequest(_Body):
    """Body of `/v1/chat/completions`."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    temperature: float | None = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    seed: StrictInt | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    n: StrictInt | None = None

    @model_validator(mode="after")
    def _is_supported(self) -> Self:
        if self.n not in (None, 1):
            raise InvalidRequest("Only n = 1 is supported.", param="n")
        for name, harmless in _REFUSED.items():
            value = (self.model_extra or {}).get(name)
            if value not in harmless:
                raise InvalidRequest(f"{name} is not supported by this engine.", param=name)
        return self

    @property
    def chat_messages(self) -> list[ChatMessage]:
        """The messages as the engine knows them."""
        return [message.message() for message in self.messages]

    @property
    def sampling(self) -> Sampling:
        """How to draw; OpenAI's defaults where the body is silent."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=stop,
        )

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class EmbeddingRequest(_Body):
    """Body of `/v1/embeddings`."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None

    @property
    def texts(self) -> list[str]:
        """The texts, one or many.

        Raises:
            InvalidRequest: none, too many, or an empty one.
        """
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not texts or not all(texts):
            raise InvalidRequest("input must not be empty.", param="input")
        if len(texts) > MAX_EMBEDDING_INPUTS:
            raise InvalidRequest(
                f"input has {len(texts)} texts; at most {MAX_EMBEDDING_INPUTS} are allowed.",
                param="input",
            )
        return texts


class TokenizeRequest(_Body):
    """Body of `/tokenize`: texts to count one by one, or a chat to count as one prompt."""

    model: str
    input: str | list[str] | None = None
    messages: Annotated[list[_Message], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.input is None) == (self.messages is None):
            raise InvalidRequest("Give either input or messages.", param="input")
        return self


class LoadAction(_Body):
    """Load a model beside the others, or replace the one of the same name."""

    action: Literal["load"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    source: str


class UnloadAction(_Body):
    """Let a model finish its requests and free it."""

    action: Literal["unload"]
    name: str


class AliasAction(_Body):
    """Point an alias at a loaded model."""

    action: Literal["alias"]
    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    name: str


class AdminRequest(_Body):
    """Body of `POST /admin/models`."""

    request: Annotated[LoadAction | UnloadAction | AliasAction, Field(discriminator="action")]

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, body: object) -> object:
        return {"request": body}


B = TypeVar("B", bound=_Body)


def parse(body: bytes, cls: type[B]) -> B:
    """Read a request's body.

    Raises:
        InvalidRequest: naming the first field that is missing or wrong.
    """
    try:
        return cls.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        parts = [str(part) for part in problem["loc"] if not str(part).startswith(("str", "list["))]
        param = ".".join(parts) or None
        where = f"{param}: " if param else ""
        raise InvalidRequest(f"{where}{problem['msg']}", param=param) from error


def error_of(error: EngineError) -> tuple[int, dict[str, object], dict[str, str]]:
    """Status, OpenAI-shaped body and headers of an error: the only place that maps them."""
    status, kind, code = 500, "server_error", "internal_error"
    details: dict[str, object] = {}
    headers: dict[str, str] = {}
    param: str | None = None
    match error:
        case EngineBusy():
            status, kind, code = 429, "rate_limit_error", "engine_busy"
            details["retry_after_s"] = error.retry_after_s
            headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        case EngineUnavailable():
            status, kind, code = 503, "server_error", "engine_unavailable"
        case DeadlineExceeded():
            status, kind, code = 504, "timeout_error", "deadline_exceeded"
            details["deadline_s"] = error.deadline_s
            headers["x-should-retry"] = "false"  # OpenAI's clients would start the same work again
        case PromptTooLong():
            status, kind, code = 400, "invalid_request_error", "context_length_exceeded"
            details |= {"tokens": error.tokens, "limit": error.limit}
        case InvalidRequest():
            status, kind, code = 400, "invalid_request_error", "invalid_request"
            param = error.param
        case ModelNotFound():
            status, kind, code = 404, "invalid_request_error", "model_not_found"
            param = "model"
            details |= {"name": error.name, "known": error.known}
        case ModelCorrupt():
            status, kind, code = 400, "invalid_request_error", "model_corrupt"
        case ModelUnsupported():
            status, kind, code = 400, "invalid_request_error", "model_unsupported"
        case UpstreamFailed():
            status, kind, code = 502, "server_error", "upstream_failed"
            headers["x-should-retry"] = "false" if error.status < 500 else "true"
    return status, error_body(str(error), kind=kind, code=code, param=param, **details), headers


def error_body(
    message: str, *, kind: str, code: str, param: str | None = None, **details: object
) -> dict[str, object]:
    """OpenAI's error object; `details` are fields that only our own client reads."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **details}}


def completion(deltas: Sequence[ChatDelta]) -> dict[str, object]:
    """Body of a chat answer that is not streamed."""
    last = deltas[-1]
    message = {"role": "assistant", "content": "".join(d.text for d in deltas), "refusal": None}
    return {
        **_head("chat.completion", last.model, last.fingerprint),
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": last.finish_reason,
            }
        ],
        "usage": _usage(last),
    }


class ChunkWriter:
    """Makes the chunks of one streamed answer."""

    def __init__(self, *, model: str, include_usage: bool) -> None:
        self._head = _head("chat.completion.chunk", model)
        self._usage = {"usage": None} if include_usage else {}
        self._include_usage = include_usage
        self._first = True

    def chunks(self, delta: ChatDelta) -> Iterator[dict[str, object]]:
        """The chunks of one delta: text, and after the last one finish reason and usage."""
        self._head["system_fingerprint"] = delta.fingerprint or None
        if delta.text or self._first:
            yield self._chunk({"content": delta.text}, None)
        if delta.finish_reason is not None:
            yield self._chunk({}, delta.finish_reason)
            if self._include_usage:
                yield {**self._head, "choices": [], "usage": _usage(delta)}

    def _chunk(self, content: dict[str, str], reason: str | None) -> dict[str, object]:
        role = {"role": "assistant"} if self._first else {}
        self._first = False
        choice = {
            "index": 0,
            "delta": {**role, **content},
            "logprobs": None,
            "finish_reason": reason,
        }
        return {**self._head, "choices": [choice], **self._usage}


def embeddings(
    vectors: NDArray[np.float32], *, model: str, tokens: int, encoding: str
) -> dict[str, object]:
    """Body of an embeddings answer."""

    def encode(vector: NDArray[np.float32]) -> str | list[float]:
        if encoding == "base64":
            return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
        return [float(value) for value in vector]

    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _head(kind: str, model: str, fingerprint: str = "") -> dict[str, object]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint or None,
    }


def _usage(last: ChatDelta) -> dict[str, int]:
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.completion_tokens,
        "total_tokens": last.prompt_tokens + last.completion_tokens,
    }
