"""The async bridge from a chat request to the scheduler and back: messages in, text pieces out."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from engine.chat import ChatDelta, FinishReason, Sampling
from engine.errors import PromptTooLong
from engine.generator import Draw, Generator
from engine.metrics import Metrics
from engine.prompt import ChatMessage, prompt_tokens
from engine.scheduler import Job, Scheduler
from engine.stop_strings import StopStrings

_LONG_TEXT_CHARS = 20_000
"""Tokenizing more than this takes over 5 ms and moves off the event loop."""


@dataclass(frozen=True)
class _Finished:
    reason: FinishReason


class LocalChat:
    """A chat model that runs in this process."""

    def __init__(
        self, *, name: str, generator: Generator, scheduler: Scheduler, metrics: Metrics
    ) -> None:
        self._name = name
        self._generator = generator
        self._fingerprint = generator.manifest.fingerprint
        self._scheduler = scheduler
        self._metrics = metrics

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._generator.manifest.context_length

    async def chat(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[ChatDelta, None]:
        """Stream an answer; closing the iterator stops the sequence within one step.

        Raises:
            PromptTooLong: prompt and `max_tokens` exceed the context.
            InvalidRequest: the model's template refuses the messages.
            EngineBusy: the queue is full.
        """
        arrived = time.monotonic()
        prompt = await self._tokenize(messages)
        max_tokens = self._room(len(prompt), sampling.max_tokens)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[int | _Finished | Exception] = asyncio.Queue()

        def post(event: int | _Finished | Exception) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        job = Job(
            generator=self._generator,
            prompt=prompt,
            max_tokens=max_tokens,
            draw=Draw(temperature=sampling.temperature, top_p=sampling.top_p),
            seed=sampling.seed if sampling.temperature > 0 else None,
            emit=post,
            done=lambda end: post(end if isinstance(end, Exception) else _Finished(end)),
            arrived_at=arrived,
        )
        self._scheduler.submit(job)
        try:
            async for delta in self._deltas(events, sampling.stop, len(prompt), arrived):
                yield delta
        finally:
            self._scheduler.cancel(job)

    async def _deltas(
        self,
        events: asyncio.Queue[int | _Finished | Exception],
        stop: Sequence[str],
        prompt_tokens: int,
        arrived: float,
    ) -> AsyncGenerator[ChatDelta, None]:
        decoder = self._generator.tokenizer.stream_decoder()
        stops = StopStrings(stop)
        new_tokens = 0
        first_at = 0.0
        while True:
            event = await events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, _Finished):
                text = stops.feed(decoder.flush()) + stops.flush()
                reason: FinishReason = "stop" if stops.found else event.reason
                break
            new_tokens += 1
            if new_tokens == 1:
                first_at = time.monotonic()
                self._metrics.time_to_first_token.labels(self._name).observe(first_at - arrived)
            text = stops.feed(decoder.push(event))
            if stops.found:
                reason = "stop"
                break
            if text:
                yield ChatDelta(text=text, model=self._name, fingerprint=self._fingerprint)
        self._count(prompt_tokens, new_tokens, first_at)
        yield ChatDelta(
            text=text,
            finish_reason=reason,
            model=self._name,
            fingerprint=self._fingerprint,
            prompt_tokens=prompt_tokens,
            completion_tokens=new_tokens,
        )

    def _count(self, prompt_tokens: int, new_tokens: int, first_at: float) -> None:
        self._metrics.tokens.labels(self._name, "prompt").inc(prompt_tokens)
        self._metrics.tokens.labels(self._name, "completion").inc(new_tokens)
        if new_tokens > 1:
            rate = (new_tokens - 1) / (time.monotonic() - first_at)
            self._metrics.decode_rate.labels(self._name).observe(rate)

    def _room(self, prompt_tokens: int, max_tokens: int | None) -> int:
        limit = self.context_length
        if prompt_tokens + (max_tokens or 1) > limit:
            raise PromptTooLong(tokens=prompt_tokens + (max_tokens or 1), limit=limit)
        return max_tokens or limit - prompt_tokens

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, read as data."""
        return await asyncio.to_thread(self._generator.tokenizer.count, texts)

    async def count_prompt(self, messages: Sequence[ChatMessage]) -> int:
        """Number of tokens of the prompt that these messages make."""
        return len(await self._tokenize(messages))

    async def _tokenize(self, messages: Sequence[ChatMessage]) -> list[str]:
        if sum(len(message.content) for message in messages) > _LONG_TEXT_CHARS:
            return await asyncio.to_thread(self._prompt, messages)
        return self._prompt(messages)

    def _prompt(self, messages: Sequence[ChatMessage]) -> list[str]:
        return prompt_tokens(
            messages, manifest=self._generator.manifest, tokenizer=self._generator.tokenizer
        )

    async def close(self) -> None:
        """Free the weights."""
        del self._generator
