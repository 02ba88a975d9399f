"""The ledger: from an answer to the ratings, rows, runs and versions that came of it, and back.

Ids only, and what was decided: no text of questions or answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from bots.errors import InputUnusable
from storage.curations import Curation
from storage.identity import AnswerId
from storage.model_versions import ModelVersion, ModelVersions, VersionId
from storage.pool import Pool
from storage.rated import Rated, RatedAnswer, RatedComparison
from storage.runs import RunId, RunRow, Runs, StoredRun


async def trace(pool: Pool, named: str) -> Mapping[str, Any]:
    """Everything that hangs together with an answer, a row, a run or a version.

    Args:
        named: id of an answer, a run or a version, or of a row as a snapshot names it; or the name
            of a version, such as `v1` or as the engine knows it.

    Raises:
        InputUnusable: nothing of that id or name is known, or several versions have the name.
        StorageUnavailable: safe to retry.
    """
    runs = Runs(pool)
    try:
        known = UUID(named)
    except ValueError:
        return await _of_version(pool, await _named(pool, named))
    if (run := await runs.get(RunId(known))) is not None:
        return await _of_runs(pool, [run], only=None)
    version = await ModelVersions(pool).get(VersionId(known))
    if version is not None:
        return await _of_version(pool, version)
    # A row's id is 32 hexadecimal digits, which read as a UUID, too.
    if found := await runs.of_row(known.hex):
        return await _of_runs(pool, found, only=known.hex)
    answers = await Rated(pool).answers_of([AnswerId(known)])
    if not answers:
        raise _unknown(named)
    rows = await runs.rows_of_answer(AnswerId(known))
    met = [await runs.get(run_id) for run_id in dict.fromkeys(run_id for run_id, _ in rows)]
    return await _told(
        pool, answers, [row for _, row in rows], [each for each in met if each is not None]
    )


async def _named(pool: Pool, name: str) -> ModelVersion:
    """The version of a name, in whichever workspace it is."""
    found = await ModelVersions(pool).named(name)
    if len(found) > 1:
        names = ", ".join(version.name for version in found)
        raise InputUnusable(f"Several workspaces have a {name}: name one of {names}.")
    if not found:
        raise _unknown(name)
    return found[0]


def _unknown(named: str) -> InputUnusable:
    return InputUnusable(
        f"Nothing is known of {named}: `parley versions` and `parley runs list` show names and ids"
        ", `parley ask --json` an answer's."
    )


async def _of_version(pool: Pool, version: ModelVersion) -> Mapping[str, Any]:
    made_by = await Runs(pool).get(version.run_id) if version.run_id is not None else None
    return await _of_runs(pool, [made_by] if made_by else [], only=None)


async def _of_runs(pool: Pool, runs: Sequence[StoredRun], *, only: str | None) -> Mapping[str, Any]:
    rows = [
        row
        for run in runs
        for _, row in await Runs(pool).rows_of_run(run.id)
        if only in (None, row.row_id)
    ]
    ids = dict.fromkeys(answer_id for row in rows for answer_id in row.answer_ids)
    return await _told(pool, await Rated(pool).answers_of(list(ids)), rows, runs)


async def _told(
    pool: Pool,
    answers: Sequence[RatedAnswer],
    rows: Sequence[RunRow],
    runs: Sequence[StoredRun],
) -> Mapping[str, Any]:
    made = [await ModelVersions(pool).of_run(run.id) for run in runs]
    compared = await Rated(pool).comparisons_with([answer.id for answer in answers])
    return {
        "answers": [_answer(answer) for answer in answers],
        "comparisons": [_comparison(comparison) for comparison in compared],
        "rows": list({row.row_id: asdict(row) for row in rows}.values()),
        "runs": [_run(run) for run in runs],
        "versions": [_version(version) for version in made if version is not None],
    }


def _answer(answer: RatedAnswer) -> Mapping[str, Any]:
    return {
        "answer_id": answer.id,
        "model": answer.model,
        "weights": answer.weights,
        "answered_at": answer.created_at,
        "votes": [
            {"member": vote.voter, "value": vote.value, "consent": vote.consent, "at": vote.at}
            for vote in answer.votes
        ],
        "corrections": [
            {"member": each.voter, "consent": each.consent, "at": each.at}
            for each in answer.corrections
        ],
        "curations": _ruled(answer.curations),
    }


def _comparison(comparison: RatedComparison) -> Mapping[str, Any]:
    return {
        "comparison_id": comparison.id,
        "left": comparison.left.id,
        "right": comparison.right.id,
        "choices": [
            {"member": each.voter, "winner": each.winner, "consent": each.consent, "at": each.at}
            for each in comparison.judgements
        ],
        "curations": _ruled(comparison.curations),
    }


def _ruled(curations: Sequence[Curation]) -> list[Mapping[str, Any]]:
    return [
        {
            "curator_id": each.curator_id,
            "curator": each.curator,
            "status": each.status,
            "value": each.value,
            "winner": each.winner,
            "corrected": each.correction is not None,
            "at": each.at,
        }
        for each in curations
    ]


def _run(run: StoredRun) -> Mapping[str, Any]:
    return {
        "run_id": run.id,
        "kind": run.kind,
        "status": run.status,
        "snapshot_sha256": run.snapshot_sha256,
        "recipe": run.parameters.get("recipe"),
        "ended_at": run.ended_at,
    }


def _version(version: ModelVersion) -> Mapping[str, Any]:
    return {
        "version_id": version.id,
        "name": version.name,
        "status": version.status,
        "sha256": version.sha256,
        "snapshot_sha256": version.snapshot_sha256,
        "parent_id": version.parent_id,
        "outcome": version.gate.get("outcome"),
    }


# -- In lines -------------------------------------------------------------------------------------


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What `trace` found, a line for each thing."""
    for answer in found["answers"]:
        votes = ", ".join(f"{vote['value']:+d}" for vote in answer["votes"]) or "none"
        yield (
            f"answer {answer['answer_id']} by {answer['model']}: votes {votes}, "
            f"{len(answer['corrections'])} corrections{_curators(answer['curations'])}"
        )
    for each in found["comparisons"]:
        chosen = ", ".join(f"{one['winner']} by {one['member']}" for one in each["choices"])
        yield (
            f"comparison {each['comparison_id']} of {each['left']} (left) and {each['right']} "
            f"(right): chosen {chosen}{_curators(each['curations'])}"
        )
    for row in found["rows"]:
        yield f"row {row['row_id']}: {row['kind']}, {row['split']}, from {row['basis']}"
    for run in found["runs"]:
        yield f"run {run['run_id']}: {run['status']}, snapshot {run['snapshot_sha256']}"
    for version in found["versions"]:
        yield f"version {version['name']} ({version['version_id']}): {version['status']}"


def _curators(ruled: Sequence[Mapping[str, Any]]) -> str:
    """What curators say, who count before members; empty where they say nothing."""
    return "".join(f"; curator {each['curator']}: {_said(each)}" for each in ruled)


def _said(ruling: Mapping[str, Any]) -> str:
    if ruling["status"] == "discarded":
        return "discarded"
    value, winner = ruling["value"], ruling["winner"]
    said = [f"{value:+d}"] if value is not None else []
    said += [winner] if winner is not None else []
    said += ["corrected"] if ruling["corrected"] else []
    return ", ".join(said) or "nothing"
