"""What a model answers to the gate's prompts, asked as it will be served.

The quantized directory runs in the engine's own classes, so template, tokenizer, batching and ends
of answers are those of serving; stop texts and length are the assistant's. Prompts hold what was
retrieved when they were made: every model reads the same text.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.chat import ChatBackend, FinishReason, Sampling
from engine.generator import Generator
from engine.local_chat import LocalChat
from engine.metrics import Metrics
from engine.prompt import MAX_ANSWER_TOKENS, STOP_TEXTS, ChatMessage
from engine.scheduler import Scheduler
from training.base_model import Reader

AT_ONCE: Final = 4
"""Answers under way, each with its own deadline; both models are asked under the same load."""
DEADLINE_S: Final = 180.0
"""The engine's own default for a request."""

Prompt = tuple[ChatMessage, ...]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer with what it took.

    Attributes:
        seconds: from the question to the last token, waiting for a lane included.
        tokens: new ones.
    """

    text: str
    finish_reason: FinishReason | None
    seconds: float
    tokens: int


async def ask(
    backend: ChatBackend,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int = MAX_ANSWER_TOKENS,
    deadline_s: float = DEADLINE_S,
) -> list[Reply]:
    """Answer every prompt, the likeliest token each time; replies in the prompts' order.

    Raises:
        EngineError: the model refuses a prompt, or another server failed.
        TimeoutError: one answer took longer than `deadline_s`.
    """
    places = asyncio.Semaphore(AT_ONCE)
    sampling = Sampling(max_tokens=max_tokens, stop=STOP_TEXTS)

    async def one(prompt: Prompt) -> Reply:
        async with places, asyncio.timeout(deadline_s):
            begun = time.perf_counter()
            async with contextlib.aclosing(backend.chat(prompt, sampling)) as stream:
                deltas = [delta async for delta in stream]
        return Reply(
            text="".join(delta.text for delta in deltas).strip(),
            finish_reason=deltas[-1].finish_reason if deltas else None,
            seconds=time.perf_counter() - begun,
            tokens=deltas[-1].completion_tokens if deltas else 0,
        )

    return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))


def likelihoods(
    directory: Path, pairs: Sequence[tuple[Prompt, str]], *, replicas: int = 2
) -> list[float]:
    """Mean log-probability per token of each answer after its prompt, by a quantized model.

    Per token, because the longer of two answers is always the less likely one.

    Raises:
        ModelCorrupt, ModelUnsupported: the directory is no chat model that its manifest describes.
        InvalidRequest: its template refuses a prompt.
    """
    generator = Generator.load(directory, replicas=replicas)
    reader = Reader(manifest=generator.manifest, tokenizer=generator.tokenizer)

    def one(pair: tuple[Prompt, str]) -> float:
        prompt, answer = reader.prompt_tokens(pair[0]), reader.answer_tokens(pair[1])
        return sum(generator.score(prompt, answer)) / len(answer)

    with ThreadPoolExecutor(replicas) as pool:
        return list(pool.map(one, pairs))


@contextmanager
def served(directory: Path, *, replicas: int = 2) -> Iterator[LocalChat]:
    """A quantized model as the engine serves it, until the context ends.

    Raises:
        ModelCorrupt, ModelUnsupported: the directory is no chat model that its manifest describes.
    """
    generator = Generator.load(directory, replicas=replicas)
    metrics = Metrics()
    scheduler = Scheduler(
        lanes=replicas, max_batch_size=AT_ONCE, batch_wait_s=0.02, max_queue=64, metrics=metrics
    )
    scheduler.start()
    try:
        yield LocalChat(
            name=generator.manifest.name,
            generator=generator,
            scheduler=scheduler,
            metrics=metrics,
        )
    finally:
        scheduler.close()


def size_bytes(directory: Path) -> int:
    """What a model directory takes on disk."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
