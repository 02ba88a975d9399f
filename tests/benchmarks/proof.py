"""The whole loop on real data: `python -m tests.benchmarks proof [--short]`.

A simulated team (`simulated_team`) asks about the first sixteen articles of XQuAD, rates what the
default model answers through real retrieval, and a training worker makes of it what it makes of any
team's ratings: snapshot, the shipped recipe for CPUs, quantized model, gate, promotion. Then both
models are asked about the articles that nobody has seen, with the right passage as the source.
A second team votes without any sense; the gate must reject what comes of it.
"""

import asyncio
import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr

from engine.client import EngineClient
from engine.convert import convert
from engine.prompt import PromptSource, rag_messages
from engine.settings import EngineSettings
from storage.model_versions import ModelVersions
from storage.pool import Pool, open_pool
from storage.runs import Recipe, RunId, Runs, StoredRun
from storage.settings import DatabaseSettings, TrainingSettings
from tests.benchmarks import Row
from tests.benchmarks.corpus import EMBEDDER, xquad
from tests.benchmarks.database import temporary_database
from tests.benchmarks.simulated_team import Asked, SimulatedTeam, questions
from tests.engine.serving import EngineProcess
from training import artifact, bootstrap
from training.evaluation import ask, served
from training.metrics import contains, f1
from training.serving import ModelSwitch
from training.settings import TrainingProcessSettings
from training.worker import TrainingWorker

MODEL = "smollm2-135m-instruct"
LEARNT = 16
"""Articles of which the team asks; the others are never seen."""
MOST_PIECES = 300
TOKEN = "the-admin-token"
MINUTES = 60.0
REACH_F1 = 0.45
QUANTIZATION_MAY_COST = 0.01


@dataclass(frozen=True, kw_only=True)
class Models:
    """Model directories: before, after, and after without quantization."""

    untrained: Path
    trained: Path
    float32: Path


def run(*, short: bool) -> Iterator[Row]:
    """300 pieces of feedback and all unseen questions, or a handful that proves nothing."""
    articles = xquad()
    begun = time.monotonic()
    rows, models = asyncio.run(_loop(articles, short=short))
    yield from rows
    minutes = (time.monotonic() - begun) / 60
    yield Row(
        what="the whole loop, 2 cores",
        reached=f"{minutes:.0f} min",
        target=f"< {MINUTES:.0f} min",
        ok=minutes < MINUTES,
    )
    unseen = questions(articles[LEARNT:])[:: 40 if short else 1]
    yield from asyncio.run(_unseen(unseen, models))
    if not short:
        yield asyncio.run(_noise(articles))


async def _loop(articles: Sequence[dict[str, Any]], *, short: bool) -> tuple[list[Row], Models]:
    """Rate, train, gate, promote."""
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(_place(short=short))
        await place.team.move_in(articles[: 2 if short else LEARNT])
        await place.team.rate(place.asked, most=40 if short else MOST_PIECES)
        run_ = await place.carried_out("train", recipe=place.recipe)
        pieces = ", ".join(f"{count} {kind}" for kind, count in sorted(place.team.pieces.items()))
        rows = [Row(what="feedback", reached=pieces, target=f"<= {MOST_PIECES} pieces")]
        if run_.status != "succeeded":
            raise RuntimeError(f"{run_.failure} {run_.advice}")
        print(json.dumps(run_.result, indent=1), flush=True)
        accepted = run_.result["outcome"] == "candidate"
        rows.append(
            Row(
                what="the gate says",
                reached=f"{run_.result['outcome']}: {' '.join(run_.result['reasons'])}",
                target="candidate",
                ok=None if short else accepted,
            )
        )
        if accepted:
            promoted = await place.carried_out("promote")
            rows.append(
                Row(
                    what="promoted",
                    reached=f"{promoted.status}: {promoted.result.get('version')}",
                    target="succeeded",
                    ok=promoted.status == "succeeded",
                )
            )
        models = _kept(Path(run_.result["model"]), (place.home / "models" / MODEL).resolve())
        return rows, models


def _kept(trained: Path, untrained: Path) -> Models:
    """The models where they outlive the benchmark's state folder."""
    kept = Path(tempfile.mkdtemp(prefix="parley-proof-"))
    merged = artifact.take_away(trained.parent, kept / "merged", "merged")
    convert(merged, out=kept / "float32", quantization="float32", base=MODEL)
    os.rename(trained, kept / "model")
    return Models(untrained=untrained, trained=kept / "model", float32=kept / "float32")


class _Place:
    """A team with an engine and a training worker."""

    def __init__(self, home: Path, pool: Pool, team: SimulatedTeam, *, short: bool) -> None:
        self.home = home
        self.team = team
        self.asked = questions(xquad()[: 2 if short else LEARNT])
        random.Random(3).shuffle(self.asked)
        self.recipe: Any = {"kind": "sft", "max_steps": 2} if short else "sft"
        self._runs = Runs(pool)
        self.versions = ModelVersions(pool)

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
async def _place(*, short: bool) -> Any:
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
                training=TrainingSettings(min_labels=10 if short else 50, canary_share=0.2),
            ),
            environment=os.environ,
            switch=ModelSwitch(versions=ModelVersions(pool), engine=engine),
        )
        working = asyncio.create_task(worker.work())
        team = SimulatedTeam(pool=pool, engine=engine, home=home)
        try:
            yield _Place(home, pool, team, short=short)
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


async def _unseen(unseen: Sequence[Asked], models: Models) -> list[Row]:
    prompts = [
        tuple(
            rag_messages(
                question=each.text,
                history=(),
                sources=[PromptSource(number=1, title=each.title, text=each.passage)],
            )
        )
        for each in unseen
    ]
    f1s, held = {}, {}
    for name, directory in vars(models).items():
        with served(directory) as chat:
            said = list(zip(await ask(chat, prompts), unseen, strict=True))
        f1s[name] = [f1(reply.text, each.right) for reply, each in said]
        held[name] = [float(contains(reply.text, each.right)) for reply, each in said]
    gain = bootstrap.difference(f1s["trained"], f1s["untrained"])
    mean = {name: float(np.mean(each)) for name, each in f1s.items()}
    lost = mean["trained"] - mean["float32"]
    contained = {name: float(np.mean(each)) for name, each in held.items()}
    return [
        Row(
            what=f"F1, {len(unseen)} questions of unseen articles",
            reached=f"{mean['trained']:.3f} (untrained {mean['untrained']:.3f}; "
            f"gain {gain.value:.3f}, {gain.low:.3f} to {gain.high:.3f})",
            target=f">= {REACH_F1}",
            ok=mean["trained"] >= REACH_F1,
        ),
        Row(
            what="right answer contained",
            reached=f"{contained['trained']:.3f} (untrained {contained['untrained']:.3f})",
            target="not lower",
            ok=contained["trained"] >= contained["untrained"],
        ),
        Row(
            what="F1, quantized against merged float32",
            reached=f"{lost:+.3f} (float32 {mean['float32']:.3f})",
            target=f"within {QUANTIZATION_MAY_COST}",
            ok=abs(lost) <= QUANTIZATION_MAY_COST,
        ),
    ]


async def _noise(articles: Sequence[dict[str, Any]]) -> Row:
    """A team whose votes mean nothing, and whose corrections answer other questions."""
    async with _place(short=False) as place:
        await place.team.move_in(articles[:LEARNT])
        await place.team.rate(place.asked, most=MOST_PIECES, noise=0.5)
        run_ = await place.carried_out("train", recipe="sft")
        outcome = run_.result.get("outcome", run_.failure)
        serving = await place.versions.serving(place.team.audiences[0].workspace_id)
        untouched = serving.live is None and serving.canary is None
        return Row(
            what="feedback without sense: the gate says",
            reached=f"{outcome}: {' '.join(run_.result.get('reasons', ()))}",
            target="rejected, live model untouched",
            ok=outcome == "rejected" and untouched,
        )
