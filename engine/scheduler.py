"""The batching scheduler: a bounded queue in front of a few lanes that run CTranslate2."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from engine.batching import next_batch
from engine.errors import EngineBusy
from engine.generator import Draw, Generator
from engine.metrics import Metrics

logger = logging.getLogger(__name__)

_job_numbers = itertools.count(1)


@dataclass(kw_only=True, eq=False)
class Job:
    """One sequence to generate.

    Attributes:
        emit: called from a lane's thread with each new token id, end tokens left out.
        done: called once from a lane's thread: with the finish reason, or with what went wrong.
    """

    generator: Generator
    prompt: list[str]
    max_tokens: int
    draw: Draw
    seed: int | None
    emit: Callable[[int], None]
    done: Callable[[str | Exception], None]
    cancelled: bool = False
    new_tokens: int = 0
    submitted_at: float = field(default_factory=time.monotonic)
    number: int = field(default_factory=lambda: next(_job_numbers))

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt)

    @property
    def kind(self) -> Hashable:
        """What a batch must have in common."""
        return (id(self.generator), self.draw, self.seed is not None and self.number)


class Scheduler:
    """Runs jobs on `lanes` threads, grouped where that wins.

    Thread-safe. All models share the lanes, so however many are loaded, no more than `lanes` cores work.
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
        self._running: set[Job] = set()
        self._idle_lanes = 0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the lanes."""
        for lane in range(self._lanes):
            thread = threading.Thread(target=self._run_lane, name=f"lane-{lane}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            EngineBusy: the queue is full or the scheduler is closing.
        """
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_queue:
                raise EngineBusy(retry_after_s=self._time_to_drain_s())
            self._waiting.append(job)
            self._metrics.queue_depth.set(len(self._waiting))
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Stop a job: at once if it waits, within one step if it runs; `done` is not called after that."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._metrics.queue_depth.set(len(self._waiting))

    def close(self) -> None:
        """Stop everything and wait for the lanes."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *self._running]:
                job.cancelled = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _time_to_drain_s(self) -> float:
        return 1.0 + len(self._waiting) / self._lanes

    def _run_lane(self) -> None:
        while batch := self._next_batch():
            self._run(batch)
            with self._changed:
                self._running.difference_update(batch)

    def _next_batch(self) -> list[Job]:
        """Wait for work and take it; empty when the scheduler closes."""
        with self._changed:
            self._idle_lanes += 1
            try:
                while not self._closed:
                    if not self._waiting:
                        self._changed.wait()
                        continue
                    patience = self._waiting[0].submitted_at + self._batch_wait_s - time.monotonic()
                    if patience > 0:
                        self._changed.wait(patience)
                        continue
                    batch = next_batch(
                        self._waiting,
                        idle_lanes=self._idle_lanes,
                        max_batch_size=self._max_batch_size,
                    )
                    self._waiting = [job for job in self._waiting if job not in batch]
                    self._running.update(batch)
                    self._metrics.queue_depth.set(len(self._waiting))
                    return batch
                return []
            finally:
                self._idle_lanes -= 1

    def _run(self, batch: list[Job]) -> None:
        self._metrics.batch_size.observe(len(batch))

        def on_token(index: int, token: int, last: bool) -> bool:
            return self._step(batch[index], token, last)

        job = batch[0]
        try:
            if job.seed is None:
                job.generator.generate(
                    [job.prompt for job in batch],
                    max_tokens=max(job.max_tokens for job in batch),
                    draw=job.draw,
                    on_token=on_token,
                )
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
