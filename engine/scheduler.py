"""The batching scheduler: a bounded queue in front of a few lanes that run CTranslate2.

A lane is one thread; it asks `engine.batching`, which has the measurements and the rules, what to
run next. A lane waits a moment for company before it starts: a small part of the prompt's own time.
"""

import bisect
import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from engine.batching import Waiting, next_batch
from engine.chat import FinishReason
from engine.errors import EngineBusy
from engine.generator import Draw, Generator
from engine.memory import release_free_memory
from engine.metrics import Metrics

logger = logging.getLogger(__name__)

_job_numbers = itertools.count(1)

_PATIENCE = 0.04
"""Part of its prompt's reading time that a request may wait for company."""

_IDLE_S = 0.5
"""Idle time after which free memory goes back; at once would cost the next request 20 ms."""

_MAX_BATCH_TOKENS = 3000
"""Prompt and new tokens of a batch: the default model keeps 140 KB of keys and values for each."""


@dataclass(kw_only=True, eq=False)
class Job:
    """One sequence to generate.

    Attributes:
        emit: called from a lane's thread with each new token id, end tokens left out.
        arrived_at: `time.monotonic()` when its request came in.
        done: called once from a lane's thread: with the finish reason, or with what went wrong.
    """

    generator: Generator
    prompt: list[str]
    max_tokens: int
    draw: Draw
    seed: int | None
    emit: Callable[[int], None]
    done: Callable[[FinishReason | Exception], None]
    cancelled: bool = False
    new_tokens: int = 0
    arrived_at: float = field(default_factory=time.monotonic)
    due_at: float = 0.0
    number: int = field(default_factory=lambda: next(_job_numbers))

    @property
    def alone_s(self) -> float:
        """How long this takes by itself."""
        return self.generator.cost.batch_s([(len(self.prompt), self.max_tokens)])

    @property
    def kind(self) -> Hashable:
        """What a batch must have in common."""
        return (id(self.generator), self.draw, self.seed is not None and self.number)

    def waiting(self) -> Waiting:
        """This job as the choice of the next batch sees it."""
        return Waiting(
            kind=self.kind,
            cost=self.generator.cost,
            prompt_tokens=len(self.prompt),
            max_tokens=self.max_tokens,
            alone_s=self.alone_s,
            due_at=self.due_at,
        )


class Scheduler:
    """Runs jobs on `lanes` threads, grouped where that wins.

    Thread-safe. All models share the lanes, so however many are loaded, no more than `lanes` cores
    work.
    """

    def __init__(
        self,
        *,
        lanes: int,
        max_batch_size: int,
        batch_wait_s: float,
        max_queue: int,
        metrics: Metrics,
    ) -> None:
        self._lanes = lanes
        self._max_batch_size = max_batch_size
        self._batch_wait_s = batch_wait_s
        self._max_queue = max_queue
        self._metrics = metrics
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._running: dict[int, list[Job]] = {}
        self._free_at = [0.0] * lanes
        """When each lane is expected to be free; the past while it is idle."""
        self._holds_memory = False
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the lanes."""
        for lane in range(self._lanes):
            thread = threading.Thread(
                target=self._run_lane, args=(lane,), name=f"lane-{lane}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            EngineBusy: the queue is full or the scheduler is closing.
        """
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_queue:
                raise EngineBusy(retry_after_s=self._work_s(self._waiting) / self._lanes)
            # A long prompt is tokenized for longer, but keeps the place of its arrival.
            place = bisect.bisect_right(
                self._waiting, job.arrived_at, key=lambda waiting: waiting.arrived_at
            )
            before = self._work_s(self._waiting[:place])
            job.due_at = job.arrived_at + 2 * job.alone_s + before
            self._waiting.insert(place, job)
            self._metrics.queue_depth.set(len(self._waiting))
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Stop a job: at once if it waits, within one step if it runs; `done` is not called."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._metrics.queue_depth.set(len(self._waiting))

    def close(self) -> None:
        """Stop everything and wait for the lanes."""
        with self._changed:
            self._closed = True
            for job in itertools.chain(self._waiting, *self._running.values()):
                job.cancelled = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work_s(self, waiting: Sequence[Job]) -> float:
        """Seconds of one lane's work in these jobs and all that runs now."""
        now = time.monotonic()
        running = sum(max(0.0, free_at - now) for free_at in self._free_at)
        return running + sum(job.alone_s for job in waiting)

    def _run_lane(self, lane: int) -> None:
        while batch := self._next_batch(lane):
            self._run(batch)
            with self._changed:
                del self._running[lane]
                self._free_at[lane] = 0.0
                self._changed.notify_all()  # a seeded job may have waited for this one's end

    def _next_batch(self, lane: int) -> list[Job]:
        """Wait for work and take it; empty when the scheduler closes."""
        with self._changed:
            while not self._closed:
                ready = self._ready()
                if not ready:
                    woken = self._changed.wait(_IDLE_S if self._holds_memory else None)
                    if not (woken or self._running or self._waiting) and self._holds_memory:
                        self._holds_memory = False
                        release_free_memory()
                    continue
                if (patience := self._patience_s(ready[0])) > 0:
                    self._changed.wait(patience)
                    continue
                return self._take(lane, ready)
            return []

    def _ready(self) -> list[Job]:
        """What may start now, oldest first: one seeded job runs at a time, as it loads a model."""
        seeded = any(batch[0].seed is not None for batch in self._running.values())
        return [job for job in self._waiting if job.seed is None or not seeded]

    def _patience_s(self, oldest: Job) -> float:
        """How much longer to wait: requests that come together arrive milliseconds apart."""
        longest = min(
            self._batch_wait_s,
            _PATIENCE * oldest.generator.cost.prefill_s(len(oldest.prompt)),
        )
        return oldest.arrived_at + longest - time.monotonic()

    def _take(self, lane: int, ready: list[Job]) -> list[Job]:
        now = time.monotonic()
        positions = next_batch(
            [job.waiting() for job in ready],
            now=now,
            lanes_free_at=[at for other, at in enumerate(self._free_at) if other != lane],
            max_batch_size=self._max_batch_size,
            max_batch_tokens=_MAX_BATCH_TOKENS,
        )
        batch = [ready[at] for at in positions]
        self._waiting = [job for job in self._waiting if job not in batch]
        self._running[lane] = batch
        self._holds_memory = True
        sizes = [(len(job.prompt), job.max_tokens) for job in batch]
        self._free_at[lane] = now + batch[0].generator.cost.batch_s(sizes)
        self._metrics.queue_depth.set(len(self._waiting))
        self._changed.notify_all()  # an idle lane may have waited for this choice
        return batch

    def _run(self, batch: list[Job]) -> None:
        self._metrics.batch_size.observe(len(batch))
        job = batch[0]
        clock = _Clock(batch)

        def on_token(index: int, token: int, last: bool) -> bool:
            clock.tick()
            return self._step(batch[index], token, last)

        try:
            if job.seed is None:
                job.generator.generate(
                    [job.prompt for job in batch],
                    max_tokens=max(job.max_tokens for job in batch),
                    draw=job.draw,
                    on_token=on_token,
                    crowded=lambda: bool(self._waiting),
                )
                clock.learn()
            else:
                job.generator.generate_seeded(
                    job.prompt,
                    max_tokens=job.max_tokens,
                    draw=job.draw,
                    seed=job.seed,
                    on_token=on_token,
                )
        except Exception as error:  # a lane must outlive whatever one batch does
            logger.exception("A batch failed", extra={"action": "batch_failed"})
            for job in batch:
                if not job.cancelled:
                    job.done(error)

    def _step(self, job: Job, token: int, last: bool) -> bool:
        self._metrics.steps.inc()
        if job.cancelled:
            self._metrics.cancelled.inc()
            return True
        if job.generator.is_end(token):
            job.done("stop")
            return True
        job.new_tokens += 1
        job.emit(token)
        if last or job.new_tokens >= job.max_tokens:
            job.done("length")
            return True
        return False


class _Clock:
    """Measures one batch for its cost model."""

    def __init__(self, batch: list[Job]) -> None:
        self._batch = batch
        self._started_at = time.monotonic()
        self._first_at = 0.0
        self._last_at = 0.0

    def tick(self) -> None:
        """A token has come."""
        self._last_at = time.monotonic()
        self._first_at = self._first_at or self._last_at

    def learn(self) -> None:
        """Tell the cost model what this batch took; prompts of unequal length say nothing clear."""
        cost = self._batch[0].generator.cost
        lengths = {len(job.prompt) for job in self._batch}
        steps = max(job.new_tokens for job in self._batch) - 1
        if any(job.cancelled for job in self._batch) or len(lengths) > 1 or not self._first_at:
            return
        (tokens,) = lengths
        cost.observe_prefill(
            tokens=tokens,
            sequences=len(self._batch),
            seconds=self._first_at - self._started_at,
        )
        for job in self._batch:
            cost.observe_length(new_tokens=job.new_tokens, max_tokens=job.max_tokens)
        if steps > 0:
            mean_sequences = sum(job.new_tokens - 1 for job in self._batch) / steps
            cost.observe_step(
                sequences=round(mean_sequences),
                context=tokens + steps // 2,
                seconds=(self._last_at - self._first_at) / steps,
            )
