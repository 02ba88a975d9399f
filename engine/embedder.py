"""A CTranslate2 encoder as an embedder: texts in, unit vectors out.

Small requests (a question) overtake large ones (a document being ingested): a lane of their own,
and large ones run on threads of lower priority, so neither questions nor chat wait for an upload.
"""

import asyncio
import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineBusy, ModelCorrupt, ModelUnsupported, PromptTooLong
from engine.manifest import Manifest
from engine.memory import release_free_memory
from engine.metrics import Metrics
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_BATCH_TOKENS = 256
"""Padded tokens of one run: one passage's layer fits the second-level cache, larger runs do not.

130 passages/s at 160 to 256 tokens, 125 at 512, 111 at 2,048 (default model, two lanes).
"""

_SMALL_REQUEST_TOKENS = 512
"""A request up to this size is a question or a few; larger ones are documents."""

_BULK_NICENESS = 5
"""Leaves bulk work a quarter of a core that chat wants as well (Linux: a factor 1.25 per step)."""

_THREAD_TEXTS = 8
"""More texts than this are tokenized off the event loop."""


class EmbeddingBackend(Protocol):
    """An embedding model behind a name."""

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None where only the other server knows."""
        ...

    async def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Unit vectors, shape (N, dim), and the number of tokens read."""
        ...

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text."""
        ...

    async def close(self) -> None:
        """Free what the model holds; no request is running any more."""
        ...


class Encoder:
    """The synchronous core: token ids to unit vectors in the calling thread."""

    def __init__(self, model: ctranslate2.Encoder, *, pooling: str) -> None:
        self._model = model
        self._pooling = pooling

    @classmethod
    def load(cls, directory: Path, *, manifest: Manifest, replicas: int, niceness: int = 0) -> Self:
        """Load an encoder whose threads run at `niceness`.

        Raises:
            ModelCorrupt: CTranslate2 refuses the directory.
        """
        # On Linux niceness belongs to a thread and threads inherit it: a short-lived thread sets
        # its own, starts CTranslate2's workers and ends.
        loaded: list[ctranslate2.Encoder | Exception] = []

        def load() -> None:
            try:
                if niceness:
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
                loaded.append(
                    ctranslate2.Encoder(
                        str(directory), device="cpu", inter_threads=replicas, intra_threads=1
                    )
                )
            except (RuntimeError, OSError) as error:
                loaded.append(error)

        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        if isinstance(loaded[0], Exception):
            raise ModelCorrupt(directory, str(loaded[0])) from loaded[0]
        return cls(loaded[0], pooling=manifest.pooling or "mean")

    def encode(self, ids: Sequence[list[int]]) -> NDArray[np.float32]:
        """Return unit vectors, shape (len(ids), dim), of token id lists."""
        states = np.asarray(self._model.forward_batch(list(ids)).last_hidden_state)
        if self._pooling == "cls":
            pooled = states[:, 0]
        else:
            lengths = np.array([len(row) for row in ids], dtype=np.float32)[:, None]
            mask = np.arange(states.shape[1])[None, :] < lengths
            pooled = np.einsum("bth,bt->bh", states, mask.astype(np.float32)) / lengths
        norms = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / np.maximum(norms, 1e-12), dtype=np.float32)


@dataclass(order=True)
class _Run:
    """One encoder call of one or more requests' texts."""

    number: int
    ids: list[list[int]] = field(compare=False)
    deliver: Callable[[NDArray[np.float32] | Exception], None] = field(compare=False)
    cancelled: Callable[[], bool] = field(compare=False)


class Embedder:
    """An embedding model that runs in this process."""

    def __init__(
        self,
        *,
        name: str,
        manifest: Manifest,
        tokenizer: Tokenizer,
        small: Encoder,
        bulk: Encoder,
        bulk_lanes: int,
        max_queue: int,
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._encoders = {0: small, 1: bulk}
        self._max_queue = max_queue
        self._metrics = metrics
        self._changed = threading.Condition()
        self._waiting: dict[int, list[_Run]] = {0: [], 1: []}
        self._numbers = itertools.count()
        self._requests = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run_lane, args=(kind,), name=f"embed-{kind}", daemon=True)
            for kind in (0, *[1] * bulk_lanes)
        ]

    @classmethod
    def load(
        cls, directory: Path, *, name: str, replicas: int, max_queue: int, metrics: Metrics
    ) -> Self:
        """Check a model directory against its manifest, load it and start its lanes.

        Raises:
            ModelCorrupt: the directory does not match its manifest or CTranslate2 refuses it.
            ModelUnsupported: the model is not an embedder.
        """
        manifest = Manifest.read(directory)
        if manifest.kind != "embedder":
            raise ModelUnsupported(f"Model {manifest.name!r} is a {manifest.kind}, no embedder.")
        embedder = cls(
            name=name,
            manifest=manifest,
            tokenizer=Tokenizer.read(directory / manifest.tokenizer),
            small=Encoder.load(directory, manifest=manifest, replicas=1),
            bulk=Encoder.load(
                directory, manifest=manifest, replicas=replicas, niceness=_BULK_NICENESS
            ),
            bulk_lanes=replicas,
            max_queue=max_queue,
            metrics=metrics,
        )
        for thread in embedder._threads:
            thread.start()
        return embedder

    @property
    def dimension(self) -> int | None:
        """Length of the vectors."""
        return self._manifest.embedding_dim

    @property
    def context_length(self) -> int:
        """Most tokens of one text, its frame included."""
        return self._manifest.context_length

    async def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Return unit vectors, shape (N, dim), in the texts' order, and the number of tokens read.

        Raises:
            PromptTooLong: a text exceeds the model's context.
            EngineBusy: too many requests wait.
        """
        if self._requests >= self._max_queue:
            raise EngineBusy(retry_after_s=2.0)
        self._requests += 1
        try:
            ids = await self._tokenize(texts)
            tokens = sum(map(len, ids))
            vectors = await self._encode(ids, small=tokens <= _SMALL_REQUEST_TOKENS)
        finally:
            self._requests -= 1
        self._metrics.tokens.labels(self._name, "embedding").inc(tokens)
        return vectors, tokens

    async def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        limit = self.context_length

        def tokenize() -> list[list[int]]:
            ids = self._tokenizer.encode_passages(texts, max_tokens=limit + 1)
            for text, row in zip(texts, ids, strict=True):
                if len(row) > limit:
                    frame = len(self._tokenizer.encode_passages([""], max_tokens=limit)[0])
                    raise PromptTooLong(
                        tokens=self._tokenizer.count([text])[0] + frame, limit=limit
                    )
            return ids

        if len(texts) > _THREAD_TEXTS:
            return await asyncio.to_thread(tokenize)
        return tokenize()

    async def _encode(self, ids: list[list[int]], *, small: bool) -> NDArray[np.float32]:
        loop = asyncio.get_running_loop()
        vectors = np.empty((len(ids), self.dimension or 0), dtype=np.float32)
        cancelled = False
        futures = []
        runs = []
        for positions in _by_length(ids):
            future: asyncio.Future[None] = loop.create_future()
            futures.append(future)

            def deliver(
                result: NDArray[np.float32] | Exception,
                positions: list[int] = positions,
                future: asyncio.Future[None] = future,
            ) -> None:
                def settle() -> None:
                    if future.done():
                        return
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        vectors[positions] = result
                        future.set_result(None)

                loop.call_soon_threadsafe(settle)

            runs.append(
                _Run(
                    number=next(self._numbers),
                    ids=[ids[at] for at in positions],
                    deliver=deliver,
                    cancelled=lambda: cancelled,
                )
            )
        with self._changed:
            for run in runs:
                heapq.heappush(self._waiting[0 if small else 1], run)
            self._changed.notify_all()
        try:
            await asyncio.gather(*futures)
        finally:
            cancelled = True
        return vectors

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, without its frame."""
        return await asyncio.to_thread(self._tokenizer.count, texts)

    async def close(self) -> None:
        """Stop the lanes and free the weights."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._encoders.clear()

    def _run_lane(self, kind: int) -> None:
        encoder = self._encoders[kind]
        while runs := self._next_runs(kind):
            ids = [row for run in runs for row in run.ids]
            try:
                vectors = encoder.encode(ids)
            except Exception as error:  # a lane must outlive whatever one run does
                logger.exception("An embedding run failed", extra={"action": "embedding_failed"})
                for run in runs:
                    run.deliver(error)
                continue
            start = 0
            for run in runs:
                run.deliver(vectors[start : start + len(run.ids)])
                start += len(run.ids)

    def _next_runs(self, kind: int) -> list[_Run]:
        """Wait for work: several small requests together, or one run of a large one."""
        with self._changed:
            while True:
                if self._closed:
                    return []
                waiting = self._waiting[kind]
                while waiting and waiting[0].cancelled():
                    heapq.heappop(waiting)
                if waiting:
                    break
                if kind == 1:
                    release_free_memory()
                self._changed.wait()
            runs = [heapq.heappop(waiting)]
            rows = len(runs[0].ids)
            longest = max(map(len, runs[0].ids))
            while kind == 0 and waiting:
                rows += len(waiting[0].ids)
                longest = max(longest, *map(len, waiting[0].ids))
                if rows * longest > _BATCH_TOKENS:
                    break
                runs.append(heapq.heappop(waiting))
            return runs


def _by_length(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions grouped into runs of similar length, at most `_BATCH_TOKENS` padded tokens each."""
    runs: list[list[int]] = []
    for at in sorted(range(len(ids)), key=lambda at: len(ids[at]), reverse=True):
        if runs and len(ids[runs[-1][0]]) * (len(runs[-1]) + 1) <= _BATCH_TOKENS:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs
