"""The scheduler's choice: throughput where it wins, and nobody late."""

from hypothesis import given
from hypothesis import strategies as st

from engine.batching import CostModel, Waiting, next_batch

COST = CostModel()


def waiting(
    prompt_tokens: int,
    new_tokens: int,
    *,
    kind: str = "greedy",
    queue_s: float = 0.0,
    waited_s: float = 0.0,
) -> Waiting:
    alone_s = COST.batch_s([(prompt_tokens, new_tokens)])
    return Waiting(
        kind=kind,
        cost=COST,
        prompt_tokens=prompt_tokens,
        max_tokens=new_tokens,
        alone_s=alone_s,
        due_at=2 * alone_s + queue_s - waited_s,
    )


def choose(
    queue: list[Waiting], *, others_free_at: float = 0.0, max_batch_size: int = 8
) -> list[int]:
    return next_batch(
        queue,
        now=0.0,
        lanes_free_at=[others_free_at],
        max_batch_size=max_batch_size,
        max_batch_tokens=3000,
    )


def test_two_equals_on_two_idle_lanes_run_apart() -> None:
    assert choose([waiting(60, 64), waiting(60, 64)]) == [0]


def test_short_equals_share_a_batch_when_lanes_are_scarce() -> None:
    queue = [waiting(60, 64, queue_s=n / 4) for n in range(8)]
    assert len(choose(queue, others_free_at=1.0)) >= 2


def test_a_long_queue_allows_larger_batches() -> None:
    short = choose([waiting(60, 64) for _ in range(8)], others_free_at=1.0)
    long = choose([waiting(60, 64, queue_s=10) for _ in range(8)], others_free_at=1.0)
    assert len(long) > len(short)


def test_different_drawings_never_share_a_batch() -> None:
    queue = [waiting(60, 64, kind=str(n), queue_s=10) for n in range(6)]
    assert len(choose(queue, others_free_at=1.0)) == 1


def test_lengths_far_apart_never_share_a_batch() -> None:
    queue = [
        waiting(300, 64, queue_s=60),
        waiting(600, 64, queue_s=60),
        waiting(150, 64, queue_s=60),
    ]
    assert len(choose(queue, others_free_at=1.0)) == 1


def test_nearly_equal_lengths_share_a_batch_when_others_wait() -> None:
    queue = [waiting(60, 64, queue_s=60), waiting(62, 64, queue_s=60), waiting(600, 64, queue_s=60)]
    batch = choose(queue, others_free_at=1.0, max_batch_size=2)
    assert batch in ([2], [0, 1], [1, 0])
    assert choose(queue[:2], others_free_at=1.0) in ([0, 1], [1, 0])


def test_no_lane_takes_more_than_its_share_of_what_the_next_one_could_do() -> None:
    queue = [waiting(60, 64, queue_s=60) for _ in range(4)]
    assert len(choose(queue, others_free_at=0.3)) == 2
    assert len(choose(queue, others_free_at=100.0)) > 2


def test_the_longest_goes_first_unless_somebody_would_be_late() -> None:
    patient = [waiting(150, 20, queue_s=60), waiting(150, 20, queue_s=60), waiting(700, 200)]
    assert choose(patient) == [2]
    urgent = [waiting(150, 20), waiting(150, 20), waiting(700, 200)]
    assert choose(urgent, others_free_at=5.0)[0] == 0


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2000),
            st.integers(1, 400),
            st.sampled_from(["greedy", "drawn"]),
            st.floats(0, 30),
            st.floats(0, 30),
        ),
        min_size=1,
        max_size=12,
    ),
    st.floats(0, 5),
)
def test_every_choice_is_sound(
    jobs: list[tuple[int, int, str, float, float]], others_free_at: float
) -> None:
    queue = [
        waiting(prompt, new, kind=kind, queue_s=behind, waited_s=waited)
        for prompt, new, kind, behind, waited in jobs
    ]
    batch = choose(queue, others_free_at=others_free_at)
    assert 1 <= len(batch) == len(set(batch)) <= 8
    assert len({queue[at].kind for at in batch}) == 1
    if len(batch) > 1:
        together = COST.batch_s([queue[at].size for at in batch])
        assert together < sum(queue[at].alone_s for at in batch)
        assert all(together <= queue[at].due_at for at in batch)
    # Nobody overtakes a request that is already late.
    if queue[0].due_at <= 0:
        assert batch[0] == 0


def test_the_cost_model_learns_a_slower_machine() -> None:
    cost = CostModel()
    before = cost.batch_s([(300, 50)])
    for _ in range(30):
        cost.observe_prefill(tokens=300, sequences=1, seconds=2 * COST.prefill_s(300))
        cost.observe_step(sequences=1, context=325, seconds=2 * COST.steps_s(1, 1, 325))
    assert 1.9 < cost.batch_s([(300, 50)]) / before < 2.1
