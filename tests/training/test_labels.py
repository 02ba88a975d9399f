"""What counts as a label, and when there is too little to judge a model on."""

from collections.abc import Sequence
from itertools import count
from uuid import UUID, uuid4

import pytest

from feedback.datasets import LengthBias, Snapshot
from feedback.rows import Basis, Kind, Row, Split, question_sha256
from feedback.rules import Rules
from storage.identity import AnswerId, WorkspaceId
from training.decision import Thresholds
from training.errors import NotEnoughFeedback
from training.labels import held_out_questions, labels, met, require_enough
from training.recipes import Recipe, parse

_numbers = count()
CORRECTED: tuple[Kind, ...] = ("sft", "unpaired", "preference")
"""The rows of one correction."""


def row(
    kind: Kind,
    *answers: AnswerId,
    basis: Basis = "correction",
    split: Split = "train",
    question: str = "Who?",
    source: str = "",
) -> Row:
    return Row(
        id=str(next(_numbers)),
        kind=kind,
        split=split,
        prompt=({"role": "user", "content": source + question},),
        chosen="Ann.",
        rejected="Nobody." if kind == "preference" else None,
        label=True if kind == "unpaired" else None,
        basis=basis,
        answer_ids=answers,
        voters=(),
        question=question,
        question_sha256=question_sha256(question),
    )


def answers(number: int) -> list[AnswerId]:
    return [AnswerId(UUID(int=each)) for each in range(number)]


def recipe(kind: str) -> Recipe:
    if kind != "rloo":
        return parse({"kind": kind})
    stages = [{"kind": each} for each in ("sft", "reward", "rloo")]
    return parse({"kind": "pipeline", "stages": stages})


def found(rows: Sequence[Row]) -> Snapshot:
    return Snapshot(
        sha256="0" * 64,
        workspace_id=WorkspaceId(uuid4()),
        rules=Rules(),
        rows=tuple(rows),
        left_out={},
        scrubbed={},
        length_bias=LengthBias(pairs=0, longer_chosen=None, mean_difference=None),
    )


@pytest.mark.parametrize(
    ("kind", "counted"),
    [("sft", 2), ("dpo", 5), ("kto", 4), ("reward", 5), ("rloo", 5), ("pipeline", 5)],
)
def test_a_label_is_one_piece_of_feedback_that_a_stage_learns_from(kind: str, counted: int) -> None:
    one, other, liked, disliked = answers(4)
    rows = [row(kind, answer) for answer in (one, other) for kind in CORRECTED]
    rows += [row("unpaired", answer, basis="votes") for answer in (liked, disliked)]
    rows.append(row("preference", liked, disliked, basis="votes"))
    rows.append(row("preference", one, liked, basis="comparison"))
    rows.append(row("preference", one, other, basis="comparison", split="held_out"))
    assert labels(rows, recipe(kind)) == counted


def test_a_run_meets_the_rows_that_it_learns_from_and_all_that_are_held_out() -> None:
    corrected, held_out = answers(2)
    learnt = [row(kind, corrected) for kind in CORRECTED]
    asked = [row(kind, held_out, split="held_out") for kind in CORRECTED]
    assert met(learnt + asked, recipe("sft")) == learnt[:1] + asked
    assert met(learnt + asked, recipe("kto")) == learnt[1:2] + asked
    assert met(learnt + asked, recipe("pipeline")) == learnt + asked


def test_ten_corrections_are_not_thirty_labels() -> None:
    rows = [row(kind, answer) for answer in answers(10) for kind in CORRECTED]
    with pytest.raises(NotEnoughFeedback, match="10 usable labels; 30 are needed"):
        require_enough(
            found(rows), recipe("pipeline"), Thresholds(min_labels=30), others_decide=False
        )


def test_a_model_that_cannot_be_judged_is_not_trained() -> None:
    learnt = [row("sft", answer) for answer in answers(50)]
    held_out = [
        row(kind, answer, split="held_out", question=f"Who is {number}?")
        for number, answer in enumerate(answers(20))
        for kind in CORRECTED
    ]
    enough = Thresholds(min_labels=30, min_questions=20)
    with pytest.raises(NotEnoughFeedback, match="12 held-out questions; 20 are needed") as caught:
        require_enough(
            found(learnt + held_out[: 12 * 3]), recipe("sft"), enough, others_decide=False
        )
    assert "About 40 more questions" in caught.value.advice
    require_enough(found(learnt + held_out), recipe("sft"), enough, others_decide=False)


def test_a_question_above_other_sources_is_the_same_held_out_question() -> None:
    rows = [
        row("sft", answer, split="held_out", question=question, source=f"Source {number}. ")
        for number, answer in enumerate(answers(12))
        for question in ("Who is it?", "who is it", "When is it?")
    ]
    assert held_out_questions(rows) == 2


def test_a_reward_model_alone_needs_no_questions_for_the_gate() -> None:
    rows = [row("preference", answer) for answer in answers(30)]
    enough = Thresholds(min_labels=30, min_questions=20)
    require_enough(found(rows), recipe("reward"), enough, others_decide=False)
    with pytest.raises(NotEnoughFeedback, match="0 held-out questions"):
        require_enough(found(rows), recipe("dpo"), enough, others_decide=False)


def of_held_out(kind: Kind, basis: Basis, *, of: int) -> list[Row]:
    """Rows of so many of twenty held-out questions."""
    return [
        row(kind, answer, basis=basis, split="held_out", question=f"Who is {number}?")
        for number, answer in enumerate(answers(of))
    ]


VOTED = [
    *(row("unpaired", answer, basis="votes") for answer in answers(40)),
    *of_held_out("unpaired", "votes", of=20),
    *of_held_out("sft", "votes", of=20),
]
"""What a team leaves that only votes on single answers, of which several people like some."""


@pytest.mark.parametrize(
    "beside",
    [
        [],
        of_held_out("preference", "correction", of=20),
        of_held_out("preference", "votes", of=20),
        of_held_out("sft", "correction", of=9),
        of_held_out("sft", "correction", of=5) + of_held_out("preference", "comparison", of=9),
    ],
    ids=[
        "votes alone",
        "a pair of one's own words",
        "liked against disliked",
        "too few corrections",
        "too few of both",
    ],
)
def test_a_model_that_nothing_could_prove_better_is_not_trained(beside: list[Row]) -> None:
    enough = Thresholds(min_labels=30, min_questions=20)
    rows = found(VOTED + beside)
    with pytest.raises(NotEnoughFeedback, match="nothing could prove the model better") as caught:
        require_enough(rows, recipe("kto"), enough, others_decide=False)
    for way in ("Correct answers", "compare answers", "training.judge_url"):
        assert way in caught.value.advice
    require_enough(rows, recipe("kto"), enough, others_decide=True)


@pytest.mark.parametrize(
    "beside",
    [
        of_held_out("sft", "correction", of=10),
        of_held_out("preference", "comparison", of=10),
    ],
    ids=["corrections", "comparisons"],
)
def test_ten_questions_may_prove_a_model_better(beside: list[Row]) -> None:
    enough = Thresholds(min_labels=30, min_questions=20)
    require_enough(found(VOTED + beside), recipe("kto"), enough, others_decide=False)
