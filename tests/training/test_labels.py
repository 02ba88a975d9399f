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
        require_enough(found(rows), recipe("pipeline"), Thresholds(min_labels=30))


def test_a_model_that_cannot_be_judged_is_not_trained() -> None:
    learnt = [row("sft", answer) for answer in answers(50)]
    held_out = [
        row(kind, answer, split="held_out", question=f"Who is {number}?")
        for number, answer in enumerate(answers(20))
        for kind in CORRECTED
    ]
    enough = Thresholds(min_labels=30, min_prompts=20)
    with pytest.raises(NotEnoughFeedback, match="12 held-out questions; 20 are needed") as caught:
        require_enough(found(learnt + held_out[: 12 * 3]), recipe("sft"), enough)
    assert "About 40 more questions" in caught.value.advice
    require_enough(found(learnt + held_out), recipe("sft"), enough)


def test_a_question_above_other_sources_is_the_same_held_out_question() -> None:
    rows = [
        row("sft", answer, split="held_out", question=question, source=f"Source {number}. ")
        for number, answer in enumerate(answers(12))
        for question in ("Who is it?", "who is it", "When is it?")
    ]
    assert held_out_questions(rows) == 2


def test_a_reward_model_alone_needs_no_questions_for_the_gate() -> None:
    rows = [row("preference", answer) for answer in answers(30)]
    enough = Thresholds(min_labels=30, min_prompts=20)
    require_enough(found(rows), recipe("reward"), enough)
    with pytest.raises(NotEnoughFeedback, match="0 held-out questions"):
        require_enough(found(rows), recipe("dpo"), enough)
