"""Strengths come out as they went in, whoever stood where, however long the answers were."""

from itertools import combinations
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from feedback.rankings import MIN_VOTES, leaderboard, voter_weights
from storage.identity import MemberId
from storage.ratings import Battle, ComparisonId, Winner

STRENGTHS = {"a": 0.9, "b": 0.3, "c": -0.2, "d": -1.0}
MAX_WEIGHT = 10_000.0


def battle(
    left: str,
    right: str,
    winner: Winner,
    *,
    voter: int = 1,
    left_characters: int = 100,
    right_characters: int = 100,
) -> Battle:
    return Battle(
        comparison_id=ComparisonId(uuid4()),
        left_model=left,
        right_model=right,
        winner=winner,
        voter=MemberId(UUID(int=voter)),
        left_text="x" * left_characters,
        right_text="x" * right_characters,
        question="?",
    )


def simulated(
    count: int, *, seed: int, position: float = 0.0, length: float = 0.0, ties: float = 0.0
) -> list[Battle]:
    """Battles as the model says: a tie takes the same from a win as from a loss.

    Longer answers come from the stronger models, so that ignoring length would flatter them.
    """
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        left, right = draw.choice(list(STRENGTHS), size=2, replace=False)
        characters = [int(300 + 100 * STRENGTHS[m] + draw.integers(200)) for m in (left, right)]
        difference = (characters[0] - characters[1]) / sum(characters)
        margin = STRENGTHS[left] - STRENGTHS[right] + position + length * difference
        wins = 1 / (1 + np.exp(-margin))
        tie = ties * min(wins, 1 - wins)
        luck = draw.random()
        winner: Winner = "left" if luck < wins - tie / 2 else "right"
        if wins - tie / 2 <= luck < wins + tie / 2:
            winner = "tie" if draw.random() < 0.5 else "both_bad"
        found.append(
            battle(
                str(left),
                str(right),
                winner,
                left_characters=characters[0],
                right_characters=characters[1],
            )
        )
    return found


def test_known_strengths_biases_and_ties_are_recovered() -> None:
    board = leaderboard(
        simulated(5000, seed=1, position=0.4, length=1.5, ties=0.5), max_weight=MAX_WEIGHT
    )
    assert [ranked.model for ranked in board.models] == ["a", "b", "c", "d"]
    for ranked in board.models:
        assert ranked.strength is not None
        assert ranked.strength.value == pytest.approx(STRENGTHS[ranked.model], abs=0.1)
        assert ranked.strength.high - ranked.strength.low < 0.4
    assert board.position is not None and board.position.low < 0.4 < board.position.high
    assert board.length is not None and board.length.low < 1.5 < board.length.high
    assert board.position.low > 0 and board.length.low > 0


def test_intervals_hold_what_they_promise() -> None:
    inside = total = 0
    for seed in range(40):
        for ranked in leaderboard(simulated(1000, seed=seed), max_weight=MAX_WEIGHT).models:
            assert ranked.strength is not None
            inside += ranked.strength.low <= STRENGTHS[ranked.model] <= ranked.strength.high
            total += 1
    assert 0.90 <= inside / total <= 0.99


def test_the_fit_is_that_of_statsmodels() -> None:
    battles = simulated(600, seed=6, position=0.3, length=1.0, ties=0.4)
    names = sorted(STRENGTHS)
    design, score = [], []
    for each in battles:
        lengths = len(each.left_text), len(each.right_text)
        sides = [(name == each.left_model) - (name == each.right_model) for name in names[1:]]
        design.append([*sides, 1.0, (lengths[0] - lengths[1]) / sum(lengths)])
        score.append({"left": 1.0, "right": 0.0}.get(each.winner, 0.5))
    reference = GLM(score, np.array(design), family=Binomial()).fit().params
    strengths = np.array([0.0, *reference[:3]])
    board = leaderboard(battles, max_weight=MAX_WEIGHT)
    found = {ranked.model: ranked.strength for ranked in board.models}
    for name, strength in zip(names, strengths - strengths.mean(), strict=True):
        estimate = found[name]
        assert estimate is not None and estimate.value == pytest.approx(strength, abs=1e-3)
    assert board.position is not None and board.length is not None
    assert board.position.value == pytest.approx(reference[3], abs=1e-3)
    assert board.length.value == pytest.approx(reference[4], abs=5e-3)  # the ridge shrinks it


def test_a_model_with_few_votes_is_listed_without_a_strength() -> None:
    battles = simulated(2000, seed=3) + [battle("new", "a", "left")] * (MIN_VOTES - 1)
    new = leaderboard(battles, max_weight=MAX_WEIGHT).models[-1]
    assert (new.model, new.votes, new.rank, new.strength) == ("new", MIN_VOTES - 1, None, None)


def test_too_few_votes_at_all_are_no_ranking() -> None:
    board = leaderboard([battle("a", "b", "left")] * (MIN_VOTES - 1), max_weight=MAX_WEIGHT)
    assert not board.enough and board.position is None and board.votes == MIN_VOTES - 1
    assert leaderboard([], max_weight=MAX_WEIGHT).models == ()


def test_models_that_never_met_the_others_are_not_compared_with_them() -> None:
    islands = simulated(1000, seed=4)
    islands += [battle("x", "y", winner) for winner in ("left", "right") for _ in range(MIN_VOTES)]
    board = leaderboard(islands, max_weight=MAX_WEIGHT)
    unranked = {ranked.model for ranked in board.models if ranked.rank is None}
    assert unranked == {"x", "y"}


def test_a_model_that_never_lost_has_a_finite_strength() -> None:
    battles = [battle("a", "b", "left")] * 40 + [battle("b", "a", "right")] * 40
    first, second = leaderboard(battles, max_weight=MAX_WEIGHT).models
    assert first.model == "a" and first.strength is not None and second.strength is not None
    assert np.isfinite([first.strength.value, first.strength.high, second.strength.low]).all()
    assert first.win_rate is not None and 0.9 < first.win_rate.value < 1


def test_models_that_cannot_be_told_apart_share_a_rank() -> None:
    battles = [
        battle(left, right, winner)
        for left, right in (("a", "b"), ("b", "a"))
        for winner in ("left", "right")
        for _ in range(20)
    ]
    assert [r.rank for r in leaderboard(battles, max_weight=MAX_WEIGHT).models] == [1, 1]


def test_one_person_cannot_outvote_the_others() -> None:
    many = [battle("a", "b", "left", voter=voter) for voter in range(2, 42)]
    zealot = [battle("b", "a", "left", voter=1)] * 400
    assert leaderboard(many + zealot, max_weight=MAX_WEIGHT).models[0].model == "b"
    assert leaderboard(many + zealot, max_weight=10).models[0].model == "a"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(1, 20))
def test_no_voter_weighs_more_than_allowed(voters: list[int], max_weight: float) -> None:
    weights = voter_weights(voters, max_weight=max_weight)
    for voter in set(voters):
        own = sum(weight for weight, each in zip(weights, voters, strict=True) if each == voter)
        assert own <= max_weight + 1e-9 and own == pytest.approx(
            min(max_weight, voters.count(voter))
        )


def test_the_same_votes_give_the_same_figures() -> None:
    battles = simulated(300, seed=5, ties=0.3)
    assert leaderboard(battles, max_weight=50) == leaderboard(battles, max_weight=50)
    assert all(
        a.model != b.model for a, b in combinations(leaderboard(battles, max_weight=50).models, 2)
    )
