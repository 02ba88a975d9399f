"""What runs together: the pure part of the scheduler."""

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar


class Batchable(Protocol):
    """What the choice needs to know of a waiting job."""

    @property
    def kind(self) -> Hashable:
        """Jobs of different kinds (model, drawing) cannot share a batch."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        ...


J = TypeVar("J", bound=Batchable)


def next_batch(waiting: Sequence[J], *, idle_lanes: int, max_batch_size: int) -> list[J]:
    """Choose the jobs that the next idle lane runs: always the oldest, and whoever belongs with it.

    Args:
        waiting: oldest first, not empty.
        idle_lanes: lanes that are free now, the asking one included; equals are shared out among them.
        max_batch_size: most jobs of one batch.
    """
    oldest = waiting[0]
    equals = [
        job
        for job in waiting
        if job.kind == oldest.kind and job.prompt_tokens == oldest.prompt_tokens
    ]
    fair_share = -(-len(equals) // max(1, idle_lanes))
    return equals[: min(fair_share, max_batch_size)]
