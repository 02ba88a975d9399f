"""The ledger: from an answer to the ratings, rows, runs and versions that came of it, and back.

Ids only, and what was decided: no text of questions or answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from bots.errors import InputUnusable
from storage.identity import AnswerId
from storage.model_versions import ModelVersion, ModelVersions, VersionId
from storage.pool import Pool
from storage.rated import Rated, RatedAnswer
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
    found = [
        version
        for workspace_id, _ in await Rated(pool).workspaces()
        for version in await ModelVersions(pool).list(workspace_id)
        if name in (version.name, f"v{version.number}")
    ]
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
    return {
        "answers": [_answer(answer) for answer in answers],
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
    }


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
