"""A simulated team with a real engine and a real training worker, for benchmarks of training."""

import asyncio
import contextlib
import os
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from engine.client import EngineClient
from engine.settings import EngineSettings
from storage.model_versions import ModelVersions
from storage.pool import Pool, open_pool
from storage.runs import Recipe, RunId, Runs, StoredRun
from storage.settings import DatabaseSettings, TrainingSettings
from tests.benchmarks.corpus import EMBEDDER, xquad
from tests.benchmarks.database import temporary_database
from tests.benchmarks.simulated_team import (
    NOISE,
    SimulatedTeam,
    Writes,
    questions,
    right_answer,
)
from tests.engine.serving import EngineProcess
from training.serving import ModelSwitch
from training.settings import TrainingProcessSettings
from training.worker import TrainingWorker

MODEL = "smollm2-135m-instruct"
LEARNT = 16
"""Articles of which the team asks; the others are never seen."""
MOST_PIECES = 300
TOKEN = "the-admin-token"


class TrainingTeam:
    """A team with an engine and a training worker.

    Attributes:
        pieces: the feedback so far, in words.
    """

    def __init__(self, home: Path, pool: Pool, team: SimulatedTeam, *, short: bool) -> None:
        self.home = home
        self.team = team
        self.versions = ModelVersions(pool)
        # Fewer would hold out too few questions for the gate.
        self._articles = xquad()[: 6 if short else LEARNT]
        self._most = 220 if short else MOST_PIECES
        self._runs = Runs(pool)

    @property
    def pieces(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.team.pieces.items()))

    async def rate(self, *, noise: float = NOISE, writes: Writes = right_answer) -> None:
        """Ask of the team's articles and rate, until there is enough."""
        await self.team.move_in(self._articles)
        asked = questions(self._articles)
        random.Random(3).shuffle(asked)
        await self.team.rate(asked, most=self._most, noise=noise, writes=writes)

    async def trained(self, recipe: Any) -> StoredRun:
        """Train, and wait for the end.

        Raises:
            RuntimeError: the run failed.
        """
        run = await self.carried_out("train", recipe=recipe)
        if run.status != "succeeded":
            raise RuntimeError(f"{run.failure} {run.advice}")
        return run

    async def carried_out(self, kind: Any, **parameters: Any) -> StoredRun:
        """Queue a run and wait for its end."""
        workspace = self.team.audiences[0].workspace_id
        run_id = await self._runs.queue(
            Recipe(kind=kind, parameters=parameters), workspace_id=workspace, by=None, place={}
        )
        return await self._ended(run_id)

    async def _ended(self, run_id: RunId) -> StoredRun:
        while True:
            found = await self._runs.get(run_id)
            if found is not None and found.ended_at is not None:
                return found
            await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def training_team(*, short: bool) -> AsyncIterator[TrainingTeam]:
    """Open everything that a team needs to rate and to train, in a state folder of its own."""
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-proof-")))
        _borrow(home)
        url = await stack.enter_async_context(temporary_database())
        pool = await stack.enter_async_context(open_pool(url, settings=DatabaseSettings()))
        models = {MODEL: f"ctranslate2:{MODEL}"}
        process = stack.enter_context(
            EngineProcess(home=home, models=models, live=MODEL, embedder=f"ctranslate2:{EMBEDDER}")
        )
        engine = await stack.enter_async_context(EngineClient(url=process.url, admin_token=TOKEN))
        worker = TrainingWorker(
            pool=pool,
            settings=TrainingProcessSettings(
                home=home,
                database=DatabaseSettings(url=SecretStr(url)),
                engine=EngineSettings(models=models, live=MODEL),
                training=TrainingSettings(min_labels=10 if short else 30, canary_share=0.2),
            ),
            environment=os.environ,
            switch=ModelSwitch(versions=ModelVersions(pool), engine=engine),
        )
        working = asyncio.create_task(worker.work())
        team = SimulatedTeam(pool=pool, engine=engine, home=home)
        try:
            yield TrainingTeam(home, pool, team, short=short)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def _borrow(home: Path) -> None:
    """Use the models that `make up` has fetched; what is fetched now is kept beside them."""
    source = Path(os.environ.get("PARLEY_HOME", ".parley")).resolve()
    for name in ("models", "bases", "downloads"):
        (source / name).mkdir(exist_ok=True)
    (home / "models").mkdir()
    for model in (MODEL, EMBEDDER):
        (home / "models" / model).symlink_to(source / "models" / model)
    for name in ("bases", "downloads"):
        (home / name).symlink_to(source / name)
