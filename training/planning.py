"""Plans a run: what it learns from, how, on which base, and which model its own must beat."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from engine.errors import ModelCorrupt
from engine.manifest import Manifest
from feedback import datasets
from feedback.datasets import Snapshot
from feedback.rows import Row
from feedback.rules import Rules
from storage.identity import WorkspaceId
from storage.model_versions import ModelVersions, version_name
from storage.pool import Pool
from storage.runs import RunRow, Runs, StoredRun
from training.decision import Thresholds
from training.errors import TrainingError, process_errors
from training.labels import labels, met, require_enough
from training.plan import Live, Plan
from training.provenance import code_revision, library_versions
from training.recipes import Device, Recipe, named, parse
from training.settings import TrainingProcessSettings

SNAPSHOT_S: Final = 3600.0
"""Most time to compile all feedback of a workspace."""


async def planned(
    run: StoredRun, *, pool: Pool, settings: TrainingProcessSettings, device: Device
) -> Plan:
    """Note down what a run learns from, and plan how.

    Args:
        device: whose defaults the recipe gets.

    Raises:
        NotEnoughFeedback: there is too little to learn from, or to judge the model on.
        TrainingError: the files of the live model are gone.
        RecipeInvalid, BaseUnusable: the recipe or the settings must be corrected.
        OSError: the disk does not take the snapshot.
        StorageUnavailable: safe to repeat.
    """
    runs, versions, training = Runs(pool), ModelVersions(pool), settings.training
    await runs.tell(run.id, stage="snapshot")
    recipe = recipe_of(run.parameters, default=training.recipe, device=device)
    base = settings.base_directory
    found = await _snapshot(run, pool)
    live = await live_model(run.workspace_id, versions=versions, settings=settings)
    _require_files(live)
    require_enough(
        found,
        recipe,
        Thresholds(min_labels=training.min_labels),
        others_decide=training.judge_url is not None or live.directory is None,
    )
    home = settings.home.absolute()
    snapshot = await asyncio.to_thread(datasets.write, found, home / "snapshots")
    rows = [_run_row(row) for row in met(found.rows, recipe)]
    await runs.learn_from(run.id, snapshot_sha256=found.sha256, rows=rows)
    parent = (await versions.serving(run.workspace_id)).live
    number = await versions.next_number(run.workspace_id)
    return Plan(
        run_id=str(run.id),
        name=version_name(run.workspace_id, number),
        recipe=recipe,
        snapshot=snapshot,
        snapshot_sha256=found.sha256,
        base=base,
        home=home,
        parent=parent.name if parent else None,
        versions=library_versions(),
        code=await asyncio.to_thread(code_revision),
        labels=labels(found.rows, recipe),
        min_labels=training.min_labels,
        memory_mb=training.memory_mb,
    )


async def live_model(
    workspace_id: WorkspaceId, *, versions: ModelVersions, settings: TrainingProcessSettings
) -> Live:
    """What answers a workspace at the moment: its live version, else the settings' model.

    The judge is that of the settings.

    Raises:
        StorageUnavailable: safe to repeat.
    """
    training = settings.training
    judge = f"{training.judge_url}#{training.judge_model}" if training.judge_url else None
    version = (await versions.serving(workspace_id)).live
    if version is not None:
        return Live(name=version.name, directory=Path(version.directory), judge=judge)
    name = settings.engine.live
    return Live(name=name, directory=settings.directory_of(name), judge=judge)


def _require_files(live: Live) -> None:
    """Refuse what the gate could compare with nothing when all the training is done.

    Raises:
        TrainingError: the engine still serves the live model, but its files are gone.
    """
    if live.directory is None:
        return
    try:
        Manifest.read(live.directory, verify=False)
    except ModelCorrupt as error:
        raise TrainingError(
            f"The files of the live model {live.name} are gone: {error}",
            advice="Let another one answer first: `parley rollback base`, or one that "
            "`parley versions` lists.",
        ) from error


async def _snapshot(run: StoredRun, pool: Pool) -> Snapshot:
    with process_errors("The feedback could not be compiled"):
        return await datasets.snapshot(
            pool, workspace_id=run.workspace_id, rules=Rules(), apart_s=SNAPSHOT_S
        )


def recipe_of(parameters: Mapping[str, Any], *, default: str, device: Device) -> Recipe:
    """The recipe that somebody asked for: a shipped one by name, or all of its fields.

    Raises:
        RecipeInvalid: there is none of that name, or a field is impossible.
    """
    asked = parameters.get("recipe", default)
    if isinstance(asked, Mapping):
        return parse(asked, device)
    return named(str(asked), device)


def _run_row(row: Row) -> RunRow:
    return RunRow(
        row_id=row.id,
        kind=row.kind,
        split=row.split,
        basis=row.basis,
        answer_ids=list(row.answer_ids),
    )
