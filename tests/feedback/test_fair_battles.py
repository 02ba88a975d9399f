"""Curators' word about a comparison counts in the ranking before the members'."""

from dataclasses import replace
from uuid import UUID

from feedback.collect import MAX_VOTER_WEIGHT
from feedback.fair_battles import fair
from feedback.rankings import MIN_VOTES, leaderboard
from storage.ratings import Battle
from tests.feedback.test_rankings import battle
from tests.feedback.test_rulings import word

FAY = UUID(int=22)


def _same_comparison(*battles: Battle) -> list[Battle]:
    return [replace(each, comparison_id=battles[0].comparison_id) for each in battles]


def test_what_curators_decide_stands_once_for_all_that_members_said() -> None:
    judged = _same_comparison(
        battle("a", "b", "left", voter=1),
        battle("a", "b", "left", voter=2),
        battle("a", "b", "tie", voter=3),
    )
    other = battle("a", "b", "left", voter=4)
    decided = {judged[0].comparison_id: (word(winner="right"),)}
    counted, left_out = fair([*judged, other], decided)
    assert [(each.winner, each.voter) for each in counted] == [
        ("right", None),
        ("left", other.voter),
    ]
    assert left_out == {"curators decided it": 2}


def test_what_curators_discard_or_dispute_counts_for_nobody() -> None:
    gone, disputed, kept = (battle("a", "b", "left") for _ in range(3))
    counted, left_out = fair(
        [gone, disputed, kept],
        {
            gone.comparison_id: (word(status="discarded"),),
            disputed.comparison_id: (word(winner="left"), word(FAY, winner="right")),
            kept.comparison_id: (word(comment="Both are dull."),),
        },
    )
    assert counted == [kept]
    assert left_out == {"curators discarded it": 1, "curators disagree": 1}


def test_what_curators_decide_is_capped_with_nobodys_votes() -> None:
    many = 4 * int(MAX_VOTER_WEIGHT)
    curated = [replace(battle("a", "b", "left"), voter=None) for _ in range(many)]
    zealot = [battle("a", "b", "right", voter=7) for _ in range(many)]
    best = leaderboard(curated + zealot, max_weight=MAX_VOTER_WEIGHT).models[0]
    assert best.model == "a" and best.votes == 2 * many > MIN_VOTES
    assert best.win_rate is not None and best.win_rate.low > 0.5
