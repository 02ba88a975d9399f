"""One chat request and its answer, whoever computes it: a local model or another server.

No CTranslate2 here: clients import this module and stay small.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.prompt import ChatMessage

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        max_tokens: most new tokens; None fills what remains of the context.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn.
        top_p: draw only among the likeliest tokens that together hold this probability.
        seed: with a temperature above 0, equal seeds and prompts give equal answers.
        stop: texts that end the answer; they are not part of it.
    """

    max_tokens: int | None = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChatDelta:
    """The next piece of an answer; the last one has a finish reason and the token counts.

    Attributes:
        fingerprint: which weights exactly, as `Manifest.fingerprint` or another server names them;
            empty where that is unknown.
    """

    text: str
    finish_reason: FinishReason | None = None
    model: str = ""
    fingerprint: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatBackend(Protocol):
    """A chat model behind a name."""

    def chat(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[ChatDelta, None]:
        """Stream an answer; closing the iterator stops the work."""
        ...

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text."""
        ...

    async def count_prompt(self, messages: Sequence[ChatMessage]) -> int:
        """Number of tokens of the prompt that these messages make."""
        ...

    async def close(self) -> None:
        """Free what the model holds; no request is running any more."""
        ...
