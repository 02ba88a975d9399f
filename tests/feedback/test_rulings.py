"""What curators decide counts before what members say, and never without a member's consent."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from storage.curations import Curation
from tests.feedback.test_rows import (
    ANA,
    AT,
    BEN,
    answer,
    comparison,
    compiled,
    correction,
    said,
    vote,
)

EVE, FAY = UUID(int=21), UUID(int=22)


def word(curator: UUID = EVE, **values: Any) -> Curation:
    given: dict[str, Any] = {
        "curator_id": curator,
        "curator": "eve",
        "status": "submitted",
        "at": AT,
    }
    return Curation(**given | values)


def test_a_curators_rating_outweighs_any_majority() -> None:
    liked = (vote(ANA, 1), vote(BEN, 1))
    found = compiled(answer(votes=liked, curations=(word(value=-1),)))
    assert said(found, "unpaired") == [("In October.", None, False)]
    assert said(found, "sft") == []
    assert [(row.voters, row.curators) for row in found.rows] == [((), (EVE,))]
    good = compiled(answer(votes=(vote(ANA, -1),), curations=(word(value=1),)), min_voters=5)
    assert said(good, "sft") == [("In October.", None, None)]


def test_a_curators_correction_replaces_votes_and_members_corrections() -> None:
    rated = answer(
        votes=(vote(ANA, 1), vote(BEN, 1)),
        corrections=(correction(ANA, "In May."),),
        curations=(word(correction=" In June. "),),
    )
    found = compiled(rated)
    assert said(found, "sft") == [("In June.", None, None)]
    assert said(found, "unpaired") == [("In June.", None, True)]
    assert said(found, "preference") == [("In June.", "In October.", None)]
    assert {(row.basis, row.curators) for row in found.rows} == {("correction", (EVE,))}


def test_nothing_is_learnt_from_what_curators_discard() -> None:
    gone = answer(votes=(vote(ANA, 1),), curations=(word(status="discarded"),))
    pair = comparison(answer(2, "A"), gone, ana="left")
    found = compiled(gone, comparisons=[pair, replace(pair, left=gone, right=pair.left)])
    assert found.rows == [] and found.left_out["curators discarded it"] == 3
    judged = comparison(answer(2, "A"), answer(3, "B"), ana="left")
    discarded = replace(judged, curations=(word(status="discarded"),))
    assert compiled(comparisons=[discarded]).rows == []


def test_curators_who_disagree_decide_nothing_and_nothing_is_learnt() -> None:
    liked = answer(votes=(vote(ANA, 1),))
    for one, other in (
        (word(value=1), word(FAY, value=-1)),
        (word(value=1), word(FAY, status="discarded")),
    ):
        found = compiled(replace(liked, curations=(one, other)))
        assert found.rows == [] and found.left_out["curators disagree"] == 1
    agreeing = compiled(replace(liked, curations=(word(value=1), word(FAY, value=1))))
    assert {row.curators for row in agreeing.rows} == {(EVE, FAY)}


def test_a_curators_choice_wins_over_the_members_majority() -> None:
    judged = comparison(answer(1, "A"), answer(2, "B"), ana="left", ben="left")
    found = compiled(comparisons=[replace(judged, curations=(word(winner="right"),))])
    assert said(found, "preference") == [("B", "A", None)]
    neither = compiled(comparisons=[replace(judged, curations=(word(winner="both_bad"),))])
    assert neither.rows == [] and neither.left_out["judgements are undecided"] == 1


def test_a_curator_consents_for_nobody() -> None:
    ruled = (word(value=1, correction="In June."),)
    silent = answer(votes=(vote(ANA, -1, consent=False),), curations=ruled)
    assert compiled(silent).rows == []
    rated = answer(votes=(vote(ANA, -1),), curations=ruled)
    assert compiled(rated, quarantined=frozenset({ANA})).rows == []
    assert compiled(rated).rows != []


def test_a_curators_word_stands_against_the_same_answer_rated_otherwise_elsewhere() -> None:
    curated = answer(1, votes=(vote(ANA, 1),), curations=(word(value=-1),))
    liked = answer(2, votes=(vote(BEN, 1),))
    assert said(compiled(curated, liked), "unpaired") == [("In October.", None, False)]
