"""Whether a version learnt too much from people who perhaps steer it (`feedback.poisoning`)."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from feedback.own_process import in_own_process
from feedback.poisoning import flags
from storage.identity import AnswerId, MemberId
from storage.pool import Pool
from storage.rated import Rated, RatedAnswer, RatedComparison
from storage.runs import RunRow, Runs, StoredRun
from training.errors import process_errors

MOST: Final = 0.2
"""Share of a version's rows that may rest on flagged people; with half as much noise in its ratings
a simulated team still makes its model better (`tests.benchmarks.proof`)."""
FLAGS_S: Final = 600.0
"""Most time to look for flags in all ratings of a workspace."""
Raters = Mapping[tuple[str, frozenset[AnswerId]], frozenset[MemberId]]
"""Who rated what, by what they did (`feedback.rows.Basis`)."""


async def steered(pool: Pool, run: StoredRun) -> str | None:
    """Why no version of this run should be promoted before an administrator has looked.

    Returns:
        None where nobody is flagged on whose ratings more than a fifth of its rows rest.

    Raises:
        StorageUnavailable: safe to repeat.
        TrainingError: looking for flags took too long, or more memory than there is.
    """
    answers, comparisons = await Rated(pool).everything(run.workspace_id)
    with process_errors("The ratings could not be looked through"):
        # Pairs of people are many; meanwhile the worker must go on saying that it lives.
        found = await in_own_process(FLAGS_S, flags, answers, comparisons)
    flagged = {member for flag in found for member in flag.members}
    if not flagged:
        return None
    rows = [row for _, row in await Runs(pool).rows_of_run(run.id) if row.split == "train"]
    raters = _raters(answers, comparisons)
    resting = sum(bool(_behind(row, raters) & flagged) for row in rows)
    if resting <= MOST * len(rows):
        return None
    return (
        f"{resting} of the {len(rows)} rows that it learnt from rest on ratings that look steered: "
        "`parley feedback flags` shows whose"
    )


def _raters(answers: Sequence[RatedAnswer], comparisons: Sequence[RatedComparison]) -> Raters:
    """Who voted on, corrected or compared which answers."""
    found: dict[tuple[str, frozenset[AnswerId]], frozenset[MemberId]] = {}
    for answer in answers:
        one = frozenset({answer.id})
        found["votes", one] = frozenset(each.voter for each in answer.votes)
        found["correction", one] = frozenset(each.voter for each in answer.corrections)
    for comparison in comparisons:
        both = frozenset({comparison.left.id, comparison.right.id})
        judges = frozenset(each.voter for each in comparison.judgements)
        found["comparison", both] = found.get(("comparison", both), frozenset()) | judges
    return found


def _behind(row: RunRow, raters: Raters) -> frozenset[MemberId]:
    """Whose word a row rests on.

    A row that several ratings made has the answers of all of them. A choice is of two answers, and
    votes may have made the same row.
    """
    alone = [frozenset({each}) for each in row.answer_ids]
    keys = [(row.basis, each) for each in alone if row.basis != "comparison"]
    if row.kind == "preference" and row.basis != "correction":
        keys += [("comparison", frozenset(both)) for both in combinations(row.answer_ids, 2)]
    return frozenset[MemberId]().union(*(raters.get(key, frozenset()) for key in keys))
