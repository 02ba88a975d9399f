"""What runs next and together: the pure part of the scheduler.

Why, in numbers measured with the default model on 2 cores (one CTranslate2 thread a lane):

- Reading a prompt costs 0.8 ms a token plus 0.65 us per token squared (60 tokens 0.06 s, 600 tokens
  0.72 s) and gains nothing from a batch.
- A decoding step costs 8 ms for the weights, shared by the batch, plus 2.5 ms and 0.03 ms per token
  of context for each sequence: 11 ms alone and 19 ms for four at 50 tokens, 27 ms alone and 80 ms
  for four at 600. So batches pay for short contexts (three together cost 1.7 times one) and hardly
  for long ones, where eight requests of 600 + 32 tokens took 6.3 s one by one on two lanes, 5.9 s
  in pairs and 7.7 s in fours.
- Prompts of different length in one batch: only the shortest length is read at once, the rest is
  forced through decoding, a step a token. A few tokens of difference still pay while other work
  waits, many do not; the model decides.
- A batch delays its oldest member. `Waiting.due_at` bounds that: twice the time the request takes
  alone, plus the work it found before it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_PREFILL_S_PER_TOKEN = 0.8e-3
_PREFILL_S_PER_TOKEN_SQUARED = 0.65e-6
_STEP_S = 8e-3
_STEP_S_PER_SEQUENCE = 2.5e-3
_STEP_S_PER_CONTEXT_TOKEN = 0.03e-3

_LEARNING_RATE = 0.2
"""Weight of the newest measurement: five runs make an estimate."""

_FIRST_GUESS_LENGTH = 0.6
"""Part of `max_tokens` that an answer takes, before any is known."""

_LONGEST_GUESS_TOKENS = 512
"""No answer is expected to be longer; without `max_tokens` it could fill the context."""

_FAIRNESS_MARGIN = 0.75
"""Part of the bound that plans may use: estimates err, and a busy neighbour lane slows this one."""

_SOON = 0.5
"""A lane that gets free within this part of the leader's time counts as idle: two busy lanes beat a
batch on one."""

_REORDER_DEPTH = 8
"""Waiting requests that may overtake; looking further costs time and gains nothing."""


class CostModel:
    """How long one model's work takes on one lane; learns from what it observes."""

    def __init__(self) -> None:
        self._prefill_scale = 1.0
        self._step_scale = 1.0
        self._length = _FIRST_GUESS_LENGTH

    def prefill_s(self, tokens: int) -> float:
        """Seconds to read one prompt."""
        raw = tokens * (_PREFILL_S_PER_TOKEN + tokens * _PREFILL_S_PER_TOKEN_SQUARED)
        return self._prefill_scale * raw

    def steps_s(self, steps: float, sequences: int, context: float) -> float:
        """Seconds of `steps` steps of `sequences` at a mean context of `context` tokens."""
        each = _STEP_S_PER_SEQUENCE + context * _STEP_S_PER_CONTEXT_TOKEN
        return self._step_scale * steps * (_STEP_S + sequences * each)

    def expected_new_tokens(self, max_tokens: int) -> float:
        """How many tokens a request will really take: many end before their limit."""
        return max(1.0, min(max_tokens * self._length, _LONGEST_GUESS_TOKENS))

    def batch_s(self, requests: Sequence[tuple[int, int]]) -> float:
        """Seconds until all of a batch have ended.

        Args:
            requests: (prompt tokens, most new tokens) of each.
        """
        shortest = min(prompt for prompt, _ in requests)
        # A longer prompt's surplus is forced through decoding.
        ends = sorted(prompt - shortest + self.expected_new_tokens(new) for prompt, new in requests)
        seconds = len(requests) * self.prefill_s(shortest)
        done = 0.0
        for ended, end in enumerate(ends):
            seconds += self.steps_s(end - done, len(ends) - ended, shortest + (done + end) / 2)
            done = end
        return seconds

    def observe_prefill(self, *, tokens: int, sequences: int, seconds: float) -> None:
        """Learn from a batch's first token."""
        expected = sequences * self.prefill_s(tokens) / self._prefill_scale
        self._prefill_scale = _blend(self._prefill_scale, seconds / max(expected, 1e-6))

    def observe_step(self, *, sequences: int, context: int, seconds: float) -> None:
        """Learn from decoding steps of a whole batch."""
        expected = self.steps_s(1, sequences, context) / self._step_scale
        self._step_scale = _blend(self._step_scale, seconds / expected)

    def observe_length(self, *, new_tokens: int, max_tokens: int) -> None:
        """Learn how much of their limit answers take."""
        self._length = _blend(self._length, new_tokens / max_tokens)


def _blend(old: float, new: float) -> float:
    return old + _LEARNING_RATE * (new - old)


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One waiting request as the choice sees it; times are in seconds on one clock.

    Attributes:
        kind: requests of different kinds (model, drawing) cannot share a batch.
        alone_s: how long it takes by itself.
        due_at: when it has waited twice that, plus the queue it found at its arrival.
    """

    kind: Hashable
    cost: CostModel
    prompt_tokens: int
    max_tokens: int
    alone_s: float
    due_at: float

    @property
    def size(self) -> tuple[int, int]:
        """What `CostModel.batch_s` needs."""
        return (self.prompt_tokens, self.max_tokens)

    def latest(self, now: float) -> float:
        """Latest end to plan for, a margin before `due_at`."""
        return now + _FAIRNESS_MARGIN * (self.due_at - now)


def next_batch(
    waiting: Sequence[Waiting],
    *,
    now: float,
    lanes_free_at: Sequence[float],
    max_batch_size: int,
    max_batch_tokens: int,
) -> list[int]:
    """Choose what the lane that asks runs now; returns positions in `waiting`, the leader first.

    Args:
        waiting: oldest first, not empty.
        now: the present.
        lanes_free_at: when the other lanes are expected to be free; the past for idle ones.
        max_batch_size: most requests of one batch.
        max_batch_tokens: most prompt and new tokens of a batch of several: bounds its memory.
    """
    leader = _leader(waiting, now, lanes_free_at)
    first = waiting[leader]
    batch = [leader]
    # Whoever is needed to keep the other lanes busy stays behind.
    soon = now + _SOON * first.alone_s
    spare = len(waiting) - 1 - sum(free_at <= soon for free_at in lanes_free_at)
    # No lane takes more than its share: a long batch at the end would leave the others idle.
    helpers = sum(free_at <= now + first.alone_s for free_at in lanes_free_at)
    spare = min(spare, -(-len(waiting) // (1 + helpers)) - 1)
    nearest = sorted(
        (at for at, other in enumerate(waiting) if at != leader and other.kind == first.kind),
        key=lambda at: abs(waiting[at].prompt_tokens - first.prompt_tokens),
    )
    for at in nearest[: max(0, spare)]:
        larger = [*batch, at]
        if len(larger) > max_batch_size:
            break
        sizes = [waiting[each].size for each in larger]
        if sum(map(sum, sizes)) > max_batch_tokens:
            break
        together = first.cost.batch_s(sizes)
        apart = first.cost.batch_s([waiting[each].size for each in batch]) + waiting[at].alone_s
        late = now + together > min(waiting[each].latest(now) for each in larger)
        if together >= apart or late:
            break
        batch = larger
    return batch


def _leader(waiting: Sequence[Waiting], now: float, lanes_free_at: Sequence[float]) -> int:
    """Position of the request to start with: the longest that makes nobody late, else the oldest.

    Longest first packs lanes best: a long request that starts last leaves the other lanes idle.
    """
    longest_first = sorted(
        range(min(len(waiting), _REORDER_DEPTH)), key=lambda at: -waiting[at].alone_s
    )
    for at in longest_first:
        order = [waiting[at], *waiting[:at], *waiting[at + 1 : _REORDER_DEPTH]]
        if at == 0 or _all_in_time(order, now, lanes_free_at):
            return at
    return 0


def _all_in_time(order: Sequence[Waiting], now: float, lanes_free_at: Sequence[float]) -> bool:
    lanes = [now, *(max(now, free_at) for free_at in lanes_free_at)]
    for request in order:
        lane = lanes.index(min(lanes))
        lanes[lane] += request.alone_s
        if lanes[lane] > request.latest(now):
            return False
    return True
