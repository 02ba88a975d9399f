"""A worker that is killed: real processes, real database, a tiny model."""

import asyncio
import json
import os
import sys
from pathlib import Path

from storage.model_versions import ModelVersions
from storage.pool import Pool
from storage.runs import Runs, StoredRun
from tests.conftest import CHECKOUT
from tests.storage.conftest import Team
from tests.training.conftest import ENOUGH, MODEL, RECIPE, TIMEOUT_S, Rates, ended, queued, until


async def test_a_run_whose_worker_is_killed_is_finished_by_the_next_one(
    pool: Pool, team: Team, rate: Rates, home: Path, database_url: str
) -> None:
    await rate(ENOUGH)
    run_id = await queued(pool, team, recipe={**RECIPE, "max_steps": 12})
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PARLEY_HOME": str(home),
        "PARLEY_DATABASE__URL": database_url,
        "PARLEY_ENGINE__MODELS": json.dumps({MODEL: f"ctranslate2:{MODEL}"}),
        "PARLEY_ENGINE__LIVE": MODEL,
        "PARLEY_TRAINING__MIN_LABELS": "10",
    }
    runs, started = Runs(pool), []

    async def worker() -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "training", "worker")
        started.append(
            await asyncio.create_subprocess_exec(*command, env=environment, cwd=CHECKOUT)
        )
        return started[-1]

    async def has_stepped(_: StoredRun) -> bool:
        return any(metric.step >= 3 for metric in await runs.metrics(run_id))

    try:
        first = await worker()
        await until(pool, run_id, has_stepped)
        first.kill()
        await first.wait()
        await worker()
        run = await until(pool, run_id, ended)
    finally:
        for process in started:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(TIMEOUT_S):
                await process.wait()
    assert (run.status, run.failure) == ("succeeded", None)
    steps = [each.step for each in await runs.metrics(run_id) if "loss" in each.values]
    assert steps == list(range(1, 13))
    assert len(await ModelVersions(pool).list(team.general.workspace_id)) == 1
