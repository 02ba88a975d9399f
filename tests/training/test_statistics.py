"""Intervals, win rates and the sequential test: properties and small simulations."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import bootstrap
from training.sequential import Arm, Standing, Vote, standing
from training.win_rate import Preference, win_rate

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=30)


@settings(max_examples=25)
@given(scores=SCORES)
def test_an_interval_surrounds_its_mean_and_is_the_same_again(scores: list[float]) -> None:
    found = bootstrap.mean(scores)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9 or len(scores) < 5
    assert bootstrap.mean(scores) == found
    assert bootstrap.difference(scores, scores).high == 0


def test_pairs_see_a_difference_that_unpaired_scores_hide() -> None:
    random = np.random.default_rng(1)
    hardness = random.uniform(0, 0.9, 60)
    found = bootstrap.difference(list(hardness + 0.05 + random.normal(0, 0.02, 60)), list(hardness))
    assert found.low > 0.03
    assert bootstrap.mean(list(hardness)).high - bootstrap.mean(list(hardness)).low > 0.1


def test_prompts_of_one_question_count_once() -> None:
    random = np.random.default_rng(2)
    each = list(random.uniform(0, 1, 30))
    repeated = [score for score in each for _ in range(4)]
    groups = [number for number in range(30) for _ in range(4)]
    once, grouped = bootstrap.mean(each), bootstrap.mean(repeated, groups=groups)
    naive = bootstrap.mean(repeated)
    assert grouped.high - grouped.low == pytest.approx(once.high - once.low, rel=0.01)
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_one_question_says_nothing_about_others() -> None:
    found = bootstrap.difference([0.4, 0.5], [0.1, 0.1], groups=["same", "same"])
    assert found.value == pytest.approx(0.35)
    assert found.low < -1 and found.high > 1
    assert json.loads(json.dumps(found.low, allow_nan=False)) == found.low


@pytest.mark.parametrize("count", [5, 10, 20])
def test_intervals_of_few_scores_are_as_wide_as_students(count: int) -> None:
    random = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        found = bootstrap.mean(list(random.normal(0, 1, count)))
        held += found.low <= 0 <= found.high
    # Plain percentiles hold it 85, 91 and 92 times in a hundred.
    assert held / 400 >= 0.925


def test_the_interval_holds_the_true_mean_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        found = bootstrap.mean(list((random.random(60) < 0.3).astype(float)))
        held += found.low <= 0.3 <= found.high
    assert 0.90 <= held / 200 <= 0.99


@pytest.mark.parametrize("count", [10, 20])
def test_equal_models_are_seldom_better_beyond_doubt(count: int) -> None:
    random = np.random.default_rng(9)
    better = sum(
        bootstrap.difference(
            list(random.beta(0.5, 0.5, count)), list(random.beta(0.5, 0.5, count))
        ).low
        > 0
        for _ in range(400)
    )
    # 2.5 % of 400 is 10; more than 18 has a chance of less than 1 in 100.
    assert better <= 18


@pytest.mark.parametrize("scores", [[], [0.5, 0.5]])
def test_scores_without_partners_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"score|pairs"):
        bootstrap.difference(scores, scores[:1])


def test_a_win_by_length_alone_is_no_win_at_equal_length() -> None:
    random = np.random.default_rng(4)
    preferences = []
    for _ in range(300):
        longer = random.normal(0.3, 0.3)
        ours, theirs = round(100 * (1 + longer)), 100
        share = (ours - theirs) / (ours + theirs)
        won = random.random() < 1 / (1 + np.exp(-6 * share))
        preferences.append(Preference(score=float(won), candidate_length=ours, live_length=theirs))
    found = win_rate(preferences)
    assert found.raw.low > 0.5
    assert found.longer > 0
    assert found.length_controlled is not None
    assert found.length_controlled.low < 0.5 < found.length_controlled.high
    assert found.length_controlled.value < found.raw.value


def test_winning_always_is_certain_to_be_better_but_not_infinitely() -> None:
    always = [Preference(score=1.0, candidate_length=10, live_length=10)] * 40
    found = win_rate(always).length_controlled
    assert found is not None
    assert 0.9 < found.low <= found.value < 1


def of_lengths(*lengths: int) -> list[Preference]:
    """Wins of answers of these lengths over answers of 100 characters."""
    return [Preference(score=1.0, candidate_length=each, live_length=100) for each in lengths]


def test_answers_that_are_always_longer_tell_nothing_of_equal_length() -> None:
    random = np.random.default_rng(10)
    longer = of_lengths(*random.integers(150, 400, 40).tolist())
    assert win_rate(longer).length_controlled is None
    assert win_rate(longer).raw.value == 1
    assert win_rate([*longer, *of_lengths(40, 50, 60)]).length_controlled is None
    assert win_rate([*longer, *of_lengths(40, 50, 60, 70, 80)]).length_controlled is not None
    assert win_rate([*longer, *of_lengths(100, 105, 110, 115, 120)]).length_controlled is not None
    assert win_rate(of_lengths(100, 100)).length_controlled is None


def test_prompts_of_one_question_are_one_win() -> None:
    random = np.random.default_rng(11)
    once = [
        Preference(score=float(random.random() < 0.6), candidate_length=9, live_length=9)
        for _ in range(40)
    ]
    fourfold = [each for each in once for _ in range(4)]
    groups = [number for number in range(40) for _ in range(4)]
    known = win_rate(once).length_controlled
    naive = win_rate(fourfold).length_controlled
    grouped = win_rate(fourfold, groups=groups).length_controlled
    assert known is not None and naive is not None and grouped is not None
    assert naive.high - naive.low < 0.7 * (known.high - known.low)
    assert grouped.high - grouped.low == pytest.approx(known.high - known.low, rel=0.1)


# -- Sequential -----------------------------------------------------------------------------------


TEAM = 5
"""People who vote."""


def votes(
    random: np.random.Generator, *, count: int, candidate: float, live: float, share: float
) -> list[Vote]:
    """One vote a thread."""
    arms: list[Arm] = ["candidate" if drawn < share else "live" for drawn in random.random(count)]
    rates: dict[Arm, float] = {"candidate": candidate, "live": live}
    return [
        Vote(arm=arm, good=bool(random.random() < rates[arm]), thread=number, voter=number % TEAM)
        for number, arm in enumerate(arms)
    ]


def clustered_votes(
    random: np.random.Generator, *, threads: int, candidate: float, live: float, share: float
) -> list[Vote]:
    """5 to 20 votes a thread that share its person and topic; about six threads go on at once.

    Topics move the log odds of a good vote by a deviation of 1.5, people by 1.
    """
    people, topics = random.normal(0, 1.0, TEAM), random.normal(0, 1.5, threads)
    cast: list[tuple[float, Vote]] = []
    for number in range(threads):
        arm: Arm = "candidate" if random.random() < share else "live"
        rate = candidate if arm == "candidate" else live
        voter = int(random.integers(TEAM))
        odds = rate / (1 - rate) * np.exp(topics[number] + people[voter])
        for at in number + random.uniform(0, 6, random.integers(5, 21)):
            good = bool(random.random() < odds / (1 + odds))
            cast.append((float(at), Vote(arm=arm, good=good, thread=number, voter=voter)))
    return [vote for _, vote in sorted(cast, key=lambda each: each[0])]


def test_looking_all_the_time_raises_few_false_alarms() -> None:
    random = np.random.default_rng(5)
    results = [
        standing(votes(random, count=400, candidate=0.6, live=0.6, share=0.3), alpha=0.05)
        for _ in range(200)
    ]
    for verdict in ("better", "worse"):
        # 5 % of 200 is 10; more than 18 has a chance of less than 1 in 100.
        assert sum(each.verdict == verdict for each in results) <= 18


def test_votes_that_share_person_and_topic_raise_no_more_false_alarms() -> None:
    random = np.random.default_rng(8)
    results = [
        standing(clustered_votes(random, threads=120, candidate=0.6, live=0.6, share=0.3))
        for _ in range(200)
    ]
    for verdict in ("better", "worse"):
        assert sum(each.verdict == verdict for each in results) <= 18  # as above


def test_a_thread_counts_once_by_its_first_vote() -> None:
    cast = [
        Vote(arm="candidate", good=True, thread="one", voter="Ada"),
        Vote(arm="candidate", good=False, thread="one", voter="Bob"),
        Vote(arm="live", good=False, thread="two", voter="Bob"),
    ]
    found = standing(cast)
    assert (found.votes, found.blocks) == (2, 1)
    assert found == standing([cast[0], cast[2]])


@pytest.mark.parametrize("good", [True, False])
def test_one_person_alone_decides_nothing(good: bool) -> None:
    def cast(number: int, voter: str) -> Vote:
        ours = number % 2 == 0
        arm: Arm = "candidate" if ours else "live"
        return Vote(arm=arm, good=good is ours, thread=number, voter=voter)

    alone = [cast(number, "Ada") for number in range(100)]
    assert standing(alone).verdict == "undecided"
    joined = standing([*alone, cast(100, "Bob"), cast(101, "Ada")])
    assert (joined.verdict, joined.decided_after) == ("better" if good else "worse", 102)


def test_a_version_that_becomes_worse_is_called_worse_although_it_was_better() -> None:
    def cast(number: int, liked: Arm) -> Vote:
        arm: Arm = "candidate" if number % 2 == 0 else "live"
        return Vote(arm=arm, good=arm == liked, thread=number, voter=number % TEAM)

    early = [cast(number, "candidate") for number in range(30)]
    assert standing(early).verdict == "better"
    late = [cast(number, "live") for number in range(30, 300)]
    found = standing([*early, *late])
    assert found.verdict == "worse"
    assert found.decided_after is not None and 30 < found.decided_after < 200


@pytest.mark.parametrize(("candidate", "verdict"), [(0.9, "better"), (0.3, "worse")])
def test_a_clear_difference_is_found(candidate: float, verdict: str) -> None:
    random = np.random.default_rng(6)
    found = [
        standing(votes(random, count=800, candidate=candidate, live=0.6, share=0.3))
        for _ in range(20)
    ]
    assert [each.verdict for each in found] == [verdict] * 20


VOTES = st.lists(
    st.builds(
        Vote,
        arm=st.sampled_from(["candidate", "live"]),
        good=st.booleans(),
        thread=st.integers(0, 60),
        voter=st.integers(1, TEAM),
    ),
    max_size=80,
)


@settings(max_examples=50)
@given(given_votes=VOTES)
def test_models_that_change_names_change_sides(given_votes: list[Vote]) -> None:
    other: dict[Arm, Arm] = {"candidate": "live", "live": "candidate"}
    ours = standing(given_votes)
    theirs = standing(replace(each, arm=other[each.arm]) for each in given_votes)
    assert (ours.better, ours.worse) == pytest.approx((theirs.worse, theirs.better))
    assert ours.votes == len({each.thread for each in given_votes})


@settings(max_examples=50)
@given(given_votes=VOTES, more=VOTES)
def test_a_decision_stays_unless_better_becomes_worse(
    given_votes: list[Vote], more: list[Vote]
) -> None:
    before: Standing = standing(given_votes, alpha=0.6)
    after = standing([*given_votes, *more], alpha=0.6)
    if before.verdict != "undecided" and (before.verdict, after.verdict) != ("better", "worse"):
        assert (after.verdict, after.decided_after) == (before.verdict, before.decided_after)


def test_on_average_no_stake_grows_where_models_are_equal() -> None:
    random = np.random.default_rng(7)
    wealth = [
        standing(votes(random, count=30, candidate=0.5, live=0.5, share=0.5)).better
        for _ in range(1500)
    ]
    assert np.mean(wealth) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_an_alpha_that_is_no_probability_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        standing([], alpha=alpha)
