"""Each rule that stands between a rating and a training row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.rows import Compiled, Kind, Row, compile_rows, question_sha256, split_of
from feedback.rules import Rules
from storage.identity import (
    AnswerId,
    ChannelId,
    ChunkId,
    DocumentId,
    MemberId,
    MessageId,
    WorkspaceId,
)
from storage.rated import (
    Correction,
    Judgement,
    RatedAnswer,
    RatedComparison,
    RatedSource,
    Readers,
    Vote,
)
from storage.ratings import ComparisonId, Winner

AT = datetime(2026, 1, 1, tzinfo=UTC)
CHANNEL = ChannelId(UUID(int=7))
ANA, BEN, CLEO = (MemberId(UUID(int=number)) for number in (1, 2, 3))
PROMPT = ({"role": "system", "content": "Answer."}, {"role": "user", "content": "When?"})


def source(readers: Readers = "workspace") -> RatedSource:
    return RatedSource(
        chunk_id=ChunkId(UUID(int=1)),
        document_id=DocumentId(UUID(int=1)),
        document="plan.md",
        score=0.9,
        cited=True,
        readers=readers,
    )


def vote(voter: MemberId, value: Literal[-1, 1], *, consent: bool = True) -> Vote:
    return Vote(voter=voter, value=value, reasons=(), comment=None, consent=consent, at=AT)


def correction(voter: MemberId, text: str, *, consent: bool = True) -> Correction:
    return Correction(voter=voter, text=text, consent=consent, at=AT)


def answer(number: int = 1, text: str = "In October.", **changes: Any) -> RatedAnswer:
    values: dict[str, Any] = {
        "id": AnswerId(UUID(int=number)),
        "message_id": MessageId(UUID(int=100)),
        "workspace_id": WorkspaceId(UUID(int=5)),
        "channel_id": CHANNEL,
        "open": True,
        "platform": "slack",
        "question": "When is the launch?",
        "prompt": PROMPT,
        "text": text,
        "found": True,
        "finish_reason": "stop",
        "model": "m@1",
        "params": {},
        "current": True,
        "created_at": AT,
        "sources": (source(),),
        "votes": (),
        "corrections": (),
        "called_for_help": False,
    }
    return RatedAnswer(**{**values, **changes})


def comparison(left: RatedAnswer, right: RatedAnswer, **winners: Winner) -> RatedComparison:
    voters = {"ana": ANA, "ben": BEN, "cleo": CLEO}
    return RatedComparison(
        id=ComparisonId(UUID(int=50)),
        left=left,
        right=right,
        judgements=tuple(
            Judgement(voter=voters[name], winner=winner, consent=True, at=AT)
            for name, winner in winners.items()
        ),
    )


def compiled(
    *answers: RatedAnswer,
    comparisons: Sequence[RatedComparison] = (),
    **rules: Any,
) -> Compiled:
    return compile_rows(answers, comparisons, rules=Rules(**rules))


def said(found: Compiled, kind: Kind) -> list[tuple[str, str | None, bool | None]]:
    return sorted(
        ((row.chosen, row.rejected, row.label) for row in found.rows if row.kind == kind), key=str
    )


def test_a_correction_is_imitated_preferred_and_liked() -> None:
    found = compiled(answer(corrections=(correction(ANA, " In November. "),)))
    assert said(found, "sft") == [("In November.", None, None)]
    assert said(found, "preference") == [("In November.", "In October.", None)]
    assert said(found, "unpaired") == [("In November.", None, True)]
    assert {row.basis for row in found.rows} == {"correction"}


def test_rows_have_the_schemas_of_the_trainers() -> None:
    found = compiled(answer(corrections=(correction(ANA, "In November."),)))
    rows = {row.kind: row.trl() for row in found.rows}
    prompt = [dict(message) for message in PROMPT]
    better = [{"role": "assistant", "content": "In November."}]
    assert rows["sft"] == {"prompt": prompt, "completion": better}
    assert rows["unpaired"] == {"prompt": prompt, "completion": better, "label": True}
    assert rows["preference"] == {
        "prompt": prompt,
        "chosen": better,
        "rejected": [{"role": "assistant", "content": "In October."}],
    }


def test_an_answer_is_imitated_once_enough_people_like_it() -> None:
    one = compiled(answer(votes=(vote(ANA, 1),)))
    assert said(one, "sft") == [] and said(one, "unpaired") == [("In October.", None, True)]
    two = compiled(answer(votes=(vote(ANA, 1), vote(BEN, 1))))
    assert said(two, "sft") == [("In October.", None, None)]


def test_a_disliked_answer_is_only_an_unpaired_row() -> None:
    found = compiled(answer(votes=(vote(ANA, -1),)))
    assert [(row.kind, row.label) for row in found.rows] == [("unpaired", False)]


def test_voters_who_contradict_each_other_teach_nothing() -> None:
    found = compiled(answer(votes=(vote(ANA, 1), vote(BEN, -1))))
    assert found.rows == [] and found.left_out["votes are contradictory"] == 1
    two_of_three = (vote(ANA, 1), vote(BEN, -1), vote(CLEO, 1))
    assert said(compiled(answer(votes=two_of_three)), "unpaired") == [("In October.", None, True)]
    strict = compiled(answer(votes=two_of_three), min_majority=0.9)
    assert strict.rows == []


def test_fewer_voters_than_asked_for_teach_nothing() -> None:
    found = compiled(answer(votes=(vote(ANA, 1), vote(BEN, 1))), min_voters=3)
    assert found.rows == [] and found.left_out["votes are too few"] == 1


def test_without_consent_there_is_no_row() -> None:
    silent = answer(
        votes=(vote(ANA, 1, consent=False),),
        corrections=(correction(BEN, "In November.", consent=False),),
    )
    assert compiled(silent).rows == []


def test_who_is_quarantined_counts_nowhere() -> None:
    rated = answer(votes=(vote(ANA, 1),), corrections=(correction(ANA, "In November."),))
    judged = comparison(answer(2, "A"), answer(3, "B"), ana="left")
    found = compiled(rated, comparisons=[judged], quarantined=frozenset({ANA}))
    assert found.rows == []


@pytest.mark.parametrize(
    ("readers", "everywhere", "in_channel"),
    [
        ("workspace", True, True),
        ("open channel", True, True),
        ("channel", False, True),
        ("member", False, False),
    ],
)
def test_only_what_all_readers_of_the_model_may_see_is_learnt(
    readers: Readers, everywhere: bool, in_channel: bool
) -> None:
    rated = answer(sources=(source(readers),), votes=(vote(ANA, 1),))
    assert bool(compiled(rated).rows) is everywhere
    assert bool(compiled(rated, channel_id=CHANNEL).rows) is in_channel
    assert compiled(rated, channel_id=ChannelId(UUID(int=8))).rows == []


def test_direct_messages_train_nobody_elses_model() -> None:
    assert compiled(answer(channel_id=None, open=False, votes=(vote(ANA, 1),))).rows == []


def test_conversations_of_a_private_channel_stay_in_it() -> None:
    rated = answer(open=False, votes=(vote(ANA, 1),))
    assert compiled(rated).rows == []
    assert compiled(rated, channel_id=CHANNEL).rows != []


def test_without_the_served_prompt_there_is_no_row() -> None:
    found = compiled(answer(prompt=None, votes=(vote(ANA, 1),)))
    assert found.rows == [] and found.left_out["nothing that was served is stored"] == 1


def test_a_cut_answer_is_no_model_of_an_answer_but_may_be_the_worse_one() -> None:
    cut = answer(1, "In Octo", finish_reason="length", votes=(vote(ANA, 1),))
    assert compiled(cut).rows == []
    pair = comparison(answer(2, "In October."), cut, ana="left")
    assert said(compiled(comparisons=[pair]), "preference") == [("In October.", "In Octo", None)]
    assert compiled(comparisons=[comparison(cut, answer(2, "x"), ana="left")]).rows == []


@pytest.mark.parametrize(
    ("winners", "expected"),
    [
        ({"ana": "left"}, [("A", "B", None)]),
        ({"ana": "right"}, [("B", "A", None)]),
        ({"ana": "tie"}, []),
        ({"ana": "both_bad"}, []),
        ({"ana": "left", "ben": "right"}, []),
        ({"ana": "left", "ben": "left", "cleo": "right"}, [("A", "B", None)]),
    ],
)
def test_comparisons_become_pairs_by_majority(
    winners: Mapping[str, Winner], expected: list[tuple[str, str, None]]
) -> None:
    pair = comparison(answer(1, "A"), answer(2, "B"), **winners)
    assert said(compiled(comparisons=[pair]), "preference") == expected


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": None, "text": "Stopped."}, "nothing that was served is stored"),
        (
            {"prompt": ({"role": "user", "content": "Something else."},)},
            "two answers read different sources",
        ),
        ({"open": False}, "not everybody may read its sources"),
    ],
)
def test_a_pair_needs_two_answers_to_one_prompt_that_all_may_read(
    side: str, changes: dict[str, Any], reason: str
) -> None:
    sides = {"left": answer(1), "right": answer(2, "In March.")}
    sides[side] = answer(3, **{"text": "In May.", **changes})
    winner: Winner = "left" if side == "right" else "right"
    found = compiled(comparisons=[comparison(sides["left"], sides["right"], ana=winner)])
    assert found.rows == []
    assert found.left_out[reason] == 1


def test_a_pair_whose_other_side_not_everybody_may_read_is_left_out() -> None:
    private = answer(2, "B", sources=(source("channel"),))
    for pair in (comparison(answer(1, "A"), private, ana="left"),):
        assert compiled(comparisons=[pair]).rows == []
        swapped = replace(pair, left=pair.right, right=pair.left)
        assert compiled(comparisons=[swapped]).rows == []


def test_liked_and_disliked_answers_to_the_same_prompt_are_a_pair() -> None:
    good, bad = answer(1, "A", votes=(vote(ANA, 1),)), answer(2, "B", votes=(vote(BEN, -1),))
    elsewhere = replace(bad, prompt=({"role": "user", "content": "Other?"},))
    assert said(compiled(good, bad), "preference") == [("A", "B", None)]
    assert said(compiled(good, elsewhere), "preference") == []


def test_the_same_row_is_one_with_everybody_who_vouches_for_it() -> None:
    twice = [answer(number, votes=(vote(voter, 1),)) for number, voter in ((1, ANA), (2, BEN))]
    (row,) = (row for row in compiled(*twice).rows if row.kind == "unpaired")
    assert set(row.voters) == {ANA, BEN} and len(row.answer_ids) == 2


def test_rows_that_say_the_contrary_of_each_other_go_both() -> None:
    liked, disliked = answer(1, votes=(vote(ANA, 1),)), answer(2, votes=(vote(BEN, -1),))
    found = compiled(liked, disliked)
    assert found.rows == [] and found.left_out["rows contradict each other"] == 2
    pairs = [
        comparison(answer(1, "A"), answer(2, "B"), ana="left"),
        replace(
            comparison(answer(3, "B"), answer(4, "A"), ben="left"), id=ComparisonId(UUID(int=51))
        ),
    ]
    assert compiled(comparisons=pairs).rows == []


def test_nobody_alone_makes_more_rows_than_allowed() -> None:
    answers = [
        answer(number, f"Answer {number}", votes=(vote(ANA, 1),), question=f"Question {number}?")
        for number in range(1, 21)
    ]
    found = compiled(*answers, max_rows_per_voter=5)
    assert len(found.rows) == 5 and found.left_out["too many rows on one person's word"] == 15
    shared = [replace(each, votes=(vote(ANA, 1), vote(BEN, 1))) for each in answers]
    assert len(said(compiled(*shared, max_rows_per_voter=5), "unpaired")) == 20


def asked_often(count: int, **changes: Any) -> list[RatedAnswer]:
    """The same answer to many questions, each from another prompt."""
    return [
        answer(
            number,
            question=f"Question {number}?",
            prompt=({"role": "user", "content": f"Question {number}?"},),
            **changes,
        )
        for number in range(1, count + 1)
    ]


def test_one_answer_to_many_questions_is_no_slogan() -> None:
    people = [MemberId(UUID(int=number)) for number in range(1, 101)]
    corrected = [
        replace(each, corrections=(correction(people[number], text),))
        for number, each in enumerate(asked_often(100))
        for text in ["Buy at  ACME!" if number % 2 else "buy at acme"]
    ]
    found = compiled(*corrected)
    taught = Counter((row.kind, row.split) for row in found.rows)
    assert set(taught.values()) == {10} and len(taught) == 6
    assert found.left_out["too many questions with the same answer"] == 300 - 60
    assert found.rows == compiled(*reversed(corrected)).rows
    assert len(compiled(*corrected, max_rows_per_answer=100).rows) == 300


def test_what_is_disliked_often_is_all_kept() -> None:
    disliked = asked_often(100, votes=(vote(ANA, -1), vote(BEN, -1)))
    assert len(said(compiled(*disliked), "unpaired")) == 100
    liked = asked_often(100, votes=(vote(ANA, 1), vote(BEN, 1)))
    assert Counter((row.kind, row.split) for row in compiled(*liked).rows) == {
        ("unpaired", "train"): 10,
        ("unpaired", "held_out"): 10,
        ("sft", "train"): 10,
        ("sft", "held_out"): 10,
    }


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_what_is_blank_teaches_nothing(blank: str) -> None:
    liked = (vote(ANA, 1), vote(BEN, 1))
    assert compiled(answer(text=blank, votes=liked)).rows == []
    assert compiled(answer(corrections=(correction(ANA, blank),))).rows == []
    pair = comparison(answer(1, blank), answer(2, "B"), ana="left")
    assert compiled(comparisons=[pair]).rows == []


def test_a_question_stays_where_it_is_however_it_is_written() -> None:
    assert question_sha256("When is the LAUNCH?") == question_sha256(" when is  the launch")
    assert question_sha256("When is the launch?") != question_sha256("When was the launch?")


@given(st.text(max_size=60), st.floats(0, 0.5), st.floats(0, 0.5))
def test_what_is_held_out_stays_held_out_when_more_is(
    question: str, share: float, more: float
) -> None:
    name = question_sha256(question)
    if split_of(name, held_out_share=share) == "held_out":
        assert split_of(name, held_out_share=share + more) == "held_out"


def test_the_held_out_share_is_about_what_it_says() -> None:
    splits = [split_of(question_sha256(f"Question {n}"), held_out_share=0.2) for n in range(5000)]
    assert 0.17 < splits.count("held_out") / 5000 < 0.23


def test_order_of_reading_does_not_matter() -> None:
    answers = [
        answer(number, f"Answer {number % 4}", votes=(vote(ANA, 1), vote(BEN, 1)))
        for number in range(1, 9)
    ]
    pair = comparison(answer(20, "A"), answer(21, "B"), ana="left")

    def ids(rows: Sequence[Row]) -> list[str]:
        return [row.id for row in rows]

    forward = compiled(*answers, comparisons=[pair])
    backward = compiled(*reversed(answers), comparisons=[pair])
    assert ids(forward.rows) == ids(backward.rows) and forward.rows


def test_a_passage_that_was_quoted_below_an_answer_is_not_taught() -> None:
    text = "It is in May.\n\nThe closest passage: the launch is in October."
    quoted = replace(
        answer(1, text, votes=(vote(ANA, 1),), corrections=(correction(BEN, "In October."),)),
        params={"own_words": len("It is in May.")},
    )
    found = compile_rows([quoted], [], rules=Rules())
    assert {row.chosen for row in found.rows} == {"It is in May.", "In October."}
    assert {row.rejected for row in found.rows} == {None, "It is in May."}
    silent = replace(quoted, params={"own_words": 0}, corrections=())
    assert compile_rows([silent], [], rules=Rules()).rows == []
