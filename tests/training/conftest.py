"""What training's tests share: tiny models to train, and a team that rated answers."""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

from engine.client import EngineClient
from engine.convert import convert
from engine.settings import EngineSettings
from feedback import Feedback
from storage.conversations import Conversations
from storage.identity import AnswerId, Audience, Keys
from storage.members import Members
from storage.model_versions import ModelVersions
from storage.notices import Notices
from storage.places import Places
from storage.pool import Pool
from storage.runs import Recipe, RunId, Runs, StoredRun
from storage.settings import DatabaseSettings, TrainingSettings
from tests.engine import tiny_models
from tests.engine.conftest import tiny_model_dir
from tests.engine.serving import EngineProcess
from tests.storage.conftest import Team, keys, team
from training.serving import ModelSwitch
from training.settings import TrainingProcessSettings
from training.worker import TrainingWorker

__all__ = ["keys", "team", "tiny_model_dir"]

MODEL = "tiny"
TIMEOUT_S = 300.0
PLACE = {"platform": "slack", "workspace": "T1", "channel": "C1"}
RECIPE = {
    "kind": "sft",
    "lora": {"r": 4},
    "learning_rate": 0.01,
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "save_steps": 2,
}
ENOUGH = 100
"""Questions of which enough are held out for the gate to judge by."""
Working = Callable[..., contextlib.AbstractAsyncContextManager[TrainingWorker]]


@pytest.fixture(scope="session")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a tiny model that is served, and the weights that it came from."""
    home = tmp_path_factory.mktemp("trainable")
    weights = tiny_models.write_generator(home / "bases" / MODEL)
    convert(weights, out=home / "models" / MODEL, name=MODEL)
    return home


@pytest.fixture
def home(trainable: Path, tmp_path: Path) -> Path:
    """A copy of it, to write runs into."""
    home = tmp_path / "home"
    shutil.copytree(trainable, home, copy_function=os.link)
    return home


@pytest.fixture
def settings_of(home: Path, database_url: str) -> Callable[..., TrainingProcessSettings]:
    def make(**training: object) -> TrainingProcessSettings:
        return TrainingProcessSettings(
            home=home,
            database=DatabaseSettings(url=SecretStr(database_url)),
            engine=EngineSettings(models={MODEL: f"ctranslate2:{MODEL}"}, live=MODEL),
            training=TrainingSettings(**({"min_labels": 10} | training)),
        )

    return make


@contextlib.asynccontextmanager
async def at_work(
    pool: Pool, settings: TrainingProcessSettings, switch: ModelSwitch
) -> AsyncIterator[TrainingWorker]:
    """A worker that takes runs until the context ends."""
    worker = TrainingWorker(
        pool=pool,
        settings=settings,
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
        switch=switch,
    )
    task = asyncio.create_task(worker.work())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


Rates = Callable[..., Awaitable[None]]


@pytest.fixture
def rate(pool: Pool, keys: Keys, team: Team) -> Rates:
    """Ask so many different questions in the channel, and correct or vote on every answer."""

    async def rate(count: int, *, votes: bool = False) -> None:
        audience = team.general
        assert audience.member_id is not None
        await Members(pool).set_consent(audience.member_id, True)
        await Places(pool).save_workspace_settings(
            audience.workspace_id, {"consent_to_train": True}, by=audience.member_id
        )
        conversations, feedback = Conversations(pool=pool, keys=keys), Feedback(pool)
        for number in range(count):
            answer = await _answered(conversations, audience, number)
            if votes:
                value: Literal[-1, 1] = -1 if number % 2 else 1
                await feedback.vote(answer_id=answer, audience=audience, value=value)
                continue
            text = f"Room {number} is on floor {number % 7}."
            await feedback.correct(answer_id=answer, audience=audience, text=text)

    return rate


async def _answered(conversations: Conversations, audience: Audience, number: int) -> AnswerId:
    question = f"Where is room {number} {'in the long house ' * (number % 3)}?"
    message_id, _ = await conversations.accept_question(
        audience=audience,
        thread_ref=f"thread {number}",
        message_ref=f"message {number}",
        text=question,
        author_id=audience.member_id,
        surface="chat",
        place={},
    )
    return await conversations.save_answer(
        message_id,
        audience=audience,
        text=f"Somewhere, {number}.",
        found=True,
        finish_reason="stop",
        model=MODEL,
        prompt_sha256="ab",
        prompt_tokens=300,
        completion_tokens=12,
        timings_ms={},
        sources=(),
        prompt=[{"role": "user", "content": question}],
    )


def compared_in(prompt: str) -> tuple[str, str]:
    """The two answers that a judge is asked about, in the order in which it sees them."""
    shown = re.fullmatch(
        r".*\n\nAnswer A:\n(.*?)\n\nAnswer B:\n(.*)\n\nWhich is better\?", prompt, re.DOTALL
    )
    assert shown is not None
    return shown[1], shown[2]


def processes_of(folder: Path) -> list[int]:
    """Ids of the processes that carry out a run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"execute" in words and str(folder).encode() in words:
                found.append(int(entry.name))
    return found


@pytest.fixture
def engine_process(home: Path) -> Iterator[EngineProcess]:
    with EngineProcess(
        home=home,
        models={MODEL: f"ctranslate2:{MODEL}"},
        live=MODEL,
        embedder=f"ctranslate2:{MODEL}",
    ) as process:
        yield process


@pytest.fixture
def working(pool: Pool, settings_of: Callable[..., TrainingProcessSettings]) -> Working:
    """A worker at work, with an engine where one is given."""

    @contextlib.asynccontextmanager
    async def working(
        engine_url: str = "http://127.0.0.1:9", **training: object
    ) -> AsyncIterator[TrainingWorker]:
        async with EngineClient(url=engine_url, admin_token="the-admin-token") as engine:
            switch = ModelSwitch(versions=ModelVersions(pool), engine=engine)
            async with at_work(pool, settings_of(**training), switch) as worker:
                yield worker

    return working


async def queued(pool: Pool, team: Team, kind: Any = "train", **parameters: object) -> RunId:
    recipe = Recipe(kind=kind, parameters=parameters)
    return await Runs(pool).queue(
        recipe, workspace_id=team.general.workspace_id, by=team.general.member_id, place=PLACE
    )


async def notices(pool: Pool) -> list[str]:
    """What the chat's app still has to tell, waited for, and told."""
    found = Notices(pool)
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            due = await found.due(PLACE["platform"])
            for each in due:
                await found.told(each.id)
            if due:
                return [each.text for each in due]
            await asyncio.sleep(0.05)


async def until(
    pool: Pool, run_id: RunId, condition: Callable[[StoredRun], bool | Awaitable[bool]]
) -> StoredRun:
    runs = Runs(pool)
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            run = await runs.get(run_id)
            assert run is not None
            holds = condition(run)
            if holds if isinstance(holds, bool) else await holds:
                return run
            assert run.ended_at is None, f"{run.failure} {run.advice}"
            await asyncio.sleep(0.05)


def ended(run: StoredRun) -> bool:
    return run.ended_at is not None
