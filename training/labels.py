"""How much feedback a run has: what it learns from, and what its model can be judged on. Pure.

A label is one piece of feedback, however many rows it makes: a correction is an answer to imitate,
a liked one, and the better side of a pair, and yet one person said one thing once.
"""

import math
from collections.abc import Iterable
from typing import Final, get_args

from feedback.datasets import Snapshot
from feedback.rows import Kind, Row
from storage.identity import AnswerId
from training.decision import Thresholds, enough_labels
from training.errors import NotEnoughFeedback
from training.recipes import Recipe, StageKind, stages_of

_LEARNS_FROM: Final[dict[StageKind, frozenset[Kind]]] = {
    "sft": frozenset({"sft"}),
    "dpo": frozenset({"preference"}),
    "kto": frozenset({"unpaired"}),
    "reward": frozenset({"preference"}),
    "rloo": frozenset(get_args(Kind)),  # it only needs their prompts
}


def labels(rows: Iterable[Row], recipe: Recipe) -> int:
    """Pieces of feedback that a recipe's stages learn from.

    A choice between two answers is one, a vote on or a correction of each answer is one.
    """
    learnt = [row for row in met(rows, recipe) if row.split == "train"]
    return len({piece for row in learnt for piece in _pieces(row)})


def met(rows: Iterable[Row], recipe: Recipe) -> list[Row]:
    """The rows that a recipe's stages learn from, and all that are held out."""
    kinds = frozenset[Kind]().union(*(_LEARNS_FROM[each.kind] for each in stages_of(recipe)))
    return [row for row in rows if row.split == "held_out" or row.kind in kinds]


def _pieces(row: Row) -> list[tuple[str, tuple[AnswerId, ...]]]:
    if row.basis == "comparison":
        return [(row.basis, row.answer_ids)]
    return [(row.basis, (answer_id,)) for answer_id in row.answer_ids]


def held_out_questions(rows: Iterable[Row]) -> int:
    """Different questions that the gate can ask, whatever was retrieved for them each time."""
    return len({row.question_sha256 for row in rows if row.split == "held_out"})


def provable_questions(rows: Iterable[Row]) -> int:
    """Most held-out questions of which people's ratings can prove a model better.

    Those are questions whose right answer somebody wrote, or those of which somebody chose between
    two answers side by side. A vote on a single answer tells which answers are liked, and not
    whether another model's are: see `training.decision`.
    """
    held_out = [row for row in rows if row.split == "held_out"]
    corrected = {
        row.question_sha256 for row in held_out if row.kind == "sft" and row.basis == "correction"
    }
    compared = {
        row.question_sha256
        for row in held_out
        if row.kind == "preference" and row.basis == "comparison"
    }
    return max(len(corrected), len(compared))


def require_enough(
    found: Snapshot, recipe: Recipe, thresholds: Thresholds, *, others_decide: bool
) -> None:
    """Refuse what the gate would have to refuse when all the training is done.

    Args:
        others_decide: whether more than people's ratings can tell which model is better: a judge,
            or whoever promotes what cannot be compared with a live model on another server.

    Raises:
        NotEnoughFeedback: with what is missing.
    """
    too_few = enough_labels(labels(found.rows, recipe), thresholds)
    if too_few is not None:
        left_out = "; ".join(f"{reason}: {count}" for reason, count in found.left_out.items())
        raise NotEnoughFeedback(
            f"Not enough feedback: {too_few.reasons[0]}",
            advice=f"Left out: {left_out}." if left_out else "Rate and correct more answers.",
        )
    if all(stage.kind == "reward" for stage in stages_of(recipe)):
        return  # it answers nobody, so no gate asks it anything
    held_out = held_out_questions(found.rows)
    missing = thresholds.min_questions - held_out
    if missing > 0:
        more = math.ceil(missing / found.rules.held_out_share)
        raise NotEnoughFeedback(
            f"Not enough feedback: {held_out} held-out questions; {thresholds.min_questions} are "
            "needed.",
            advice=f"About {more} more questions must be rated: one in "
            f"{round(1 / found.rules.held_out_share)} is held out, to judge the model on.",
        )
    provable = provable_questions(found.rows)
    if provable < thresholds.min_observations and not others_decide:
        raise NotEnoughFeedback(
            "Not enough feedback: nothing could prove the model better. People wrote the right "
            f"answer, or compared answers, to {provable} of the held-out questions; "
            f"{thresholds.min_observations} are needed, because votes on single answers do not "
            "tell two models apart.",
            advice="Correct answers, compare answers, or set training.judge_url; one question in "
            f"{round(1 / found.rules.held_out_share)} is held out.",
        )
