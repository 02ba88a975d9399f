"""A run's own process, without the process: a pipeline's stages, and what the gate is told."""

import gc
import json
import math
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import MODEL
from tests.training.test_preferences import FIELDS, snapshot
from training import artifact, execute, reports
from training.base_model import Reader
from training.device import device_name
from training.errors import OutOfMemory
from training.plan import Live, Plan
from training.recipes import RlooRecipe, SftRecipe, StageKind, StageRecipe, parse
from training.stage import Events, Stage, StageResult, memory_errors

__all__ = ["snapshot"]

KINDS: tuple[StageKind, ...] = ("sft", "dpo", "kto", "reward", "rloo")
SMALL: dict[StageKind, dict[str, Any]] = {
    "rloo": {"num_generations": 4, "max_completion_length": 6}
}

pytestmark = pytest.mark.filterwarnings(
    # transformers' own word for what peft still calls by its old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage() -> Iterator[None]:
    """Every start of a trainer collects garbage; looking through torch and TRL takes longer."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def rows(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot of preferences, whose preferred answers are also there to imitate."""
    folder = tmp_path_factory.mktemp("rows") / "snapshot"
    shutil.copytree(snapshot, folder)
    for split in ("train", "held_out"):
        pairs = (folder / f"preference.{split}.jsonl").read_text().splitlines()
        lines = [
            json.dumps({"prompt": pair["prompt"], "completion": pair["chosen"]}) + "\n"
            for pair in map(json.loads, pairs)
        ]
        (folder / f"sft.{split}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def without_pairs(rows: Path, tmp_path: Path) -> Path:
    """The same, had nobody compared anything."""
    shutil.copytree(rows, tmp_path / "without-pairs")
    (tmp_path / "without-pairs" / "preference.train.jsonl").write_text("")
    return tmp_path / "without-pairs"


@dataclass(kw_only=True)
class Run:
    """A run's stages in this process.

    Attributes:
        begun: stages that were run, with what they began with.
    """

    plan: Plan
    folder: Path
    begun: list[Stage] = field(default_factory=list)

    def stages(
        self, cancelled: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, StageResult], dict[str, str]]:
        runs = execute._run

        def seen(stage: Stage, recipe: StageRecipe) -> StageResult:
            self.begun.append(stage)
            return runs(stage, recipe)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execute, "_run", seen)
            return execute._stages(self.plan, self.folder, self.weights, self.events, cancelled)

    @property
    def weights(self) -> Path:
        return self.plan.home / "bases" / MODEL

    @property
    def events(self) -> Events:
        return Events(file=self.folder / "events.jsonl")

    def adapter(self, number: int, kind: StageKind) -> Path:
        return self.folder / "stages" / f"{number}-{kind}" / "adapter"

    def losses(self, kind: StageKind) -> list[float]:
        told = map(json.loads, self.events.file.read_text().splitlines())
        return [
            each["values"]["loss"]
            for each in told
            if each["stage"] == kind and "loss" in each.get("values", {})
        ]


def new_run(home: Path, folder: Path, *, kinds: tuple[StageKind, ...], snapshot: Path) -> Run:
    folder.mkdir(parents=True)
    stages = [{**FIELDS, "max_steps": 1, **SMALL.get(kind, {}), "kind": kind} for kind in kinds]
    plan = Plan(
        run_id="1",
        name="v7-tiny",
        recipe=parse({"kind": "pipeline", "stages": stages}),
        snapshot=snapshot,
        snapshot_sha256="1" * 64,
        base=home / "models" / MODEL,
        home=home,
    )
    return Run(plan=plan, folder=folder)


@pytest.fixture(scope="module")
def pipeline(trainable: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole pipeline that has ended, a step for each stage."""
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    run = new_run(trainable, folder, kinds=KINDS, snapshot=rows)
    results, left_out = run.stages()
    assert (tuple(results), left_out) == (KINDS, {})
    return run


def test_each_stage_begins_with_the_policy_before_it_and_holds_on_to_that_of_sft(
    pipeline: Run,
) -> None:
    sft, dpo, kto = (pipeline.adapter(n, kind) for n, kind in enumerate(KINDS[:3], 1))
    assert [(each.kind, each.policy, each.reference) for each in pipeline.begun] == [
        ("sft", None, None),
        ("dpo", sft, sft),
        ("kto", dpo, sft),
        ("reward", kto, sft),
        ("rloo", kto, sft),
    ]
    assert pipeline.begun[-1].reward_model == pipeline.adapter(4, "reward")


def test_the_reference_of_a_pipelines_preferences_is_the_policy_that_sft_left(
    pipeline: Run,
) -> None:
    # Against the base, whose answers sft has changed, the first rewards would not be zero.
    assert pipeline.losses("dpo")[0] == pytest.approx(math.log(2), abs=1e-4)


def test_stages_without_rows_are_left_out_and_each_says_why(
    trainable: Path, without_pairs: Path, tmp_path: Path
) -> None:
    run = new_run(trainable, tmp_path / "run", kinds=KINDS, snapshot=without_pairs)
    results, left_out = run.stages()
    assert (tuple(results), tuple(left_out)) == (("sft", "kto"), ("dpo", "reward", "rloo"))
    assert all(left_out.values())
    assert "no reward model" in left_out["rloo"]


@pytest.mark.parametrize(
    "refused",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. can't allocate memory: 9 bytes"
        ),
    ],
    ids=["Python", "torch"],
)
def test_an_adapter_that_memory_does_not_suffice_to_merge_is_not_blamed(
    trainable: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refused

    monkeypatch.setattr("peft.PeftModel.from_pretrained", refuse)
    run = new_run(trainable, tmp_path / "run", kinds=("sft",), snapshot=rows)
    (tmp_path / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).touch()
    with pytest.raises(OutOfMemory, match="does not suffice") as caught, memory_errors():
        artifact.make(run.plan, run.folder, weights=run.weights, adapter=tmp_path / "adapter")
    assert "training.memory_mb" in caught.value.advice


class Killed(Exception):
    """Stands for a process that dies: nothing is told or saved afterwards."""


def test_a_kill_between_two_stages_runs_no_ended_stage_again(
    trainable: Path, rows: Path, tmp_path: Path
) -> None:
    run = new_run(trainable, tmp_path / "run", kinds=("sft", "dpo", "kto"), snapshot=rows)

    def dies() -> bool:
        if run.adapter(2, "dpo").exists() and len(run.begun) == 3:
            raise Killed
        return False

    with pytest.raises(Killed):
        run.stages(dies)
    assert [each.kind for each in run.begun] == ["sft", "dpo", "kto"]
    run.begun.clear()
    results, _ = run.stages()
    assert [each.kind for each in run.begun] == ["kto"]
    assert tuple(results) == ("sft", "dpo", "kto")


@pytest.fixture
def stage_of(trainable: Path, tmp_path: Path) -> Callable[[StageKind], Stage]:
    """A stage whose `run` the test replaces."""
    return lambda kind: Stage(
        kind=kind,
        folder=tmp_path,
        weights=tmp_path,
        reader=Reader.of(trainable / "models" / MODEL),
        snapshot=tmp_path,
        events=Events(file=tmp_path / "events.jsonl"),
        reward_model=tmp_path,
    )


@pytest.mark.parametrize(
    ("recipe", "advised"),
    [
        (SftRecipe(), "lower per_device_train_batch_size (and raise gradient_accumulation_steps"),
        (RlooRecipe(), "lower num_generations, max_completion_length"),
    ],
    ids=["sft", "rloo"],
)
def test_a_stage_that_lacks_memory_advises_what_helps_it(
    stage_of: Callable[[StageKind], Stage],
    monkeypatch: pytest.MonkeyPatch,
    recipe: StageRecipe,
    advised: str,
) -> None:
    def exhausts(stage: Stage, recipe: StageRecipe) -> StageResult:
        raise MemoryError

    monkeypatch.setattr(f"training.{recipe.kind}.run", exhausts)
    with pytest.raises(OutOfMemory) as caught:
        execute._run(stage_of(recipe.kind), recipe)
    assert advised in caught.value.advice


def test_what_an_ended_stage_held_is_free_before_the_next_one(
    stage_of: Callable[[StageKind], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        model: Any

    left: list[weakref.ref[Trainer]] = []

    def leaves_a_cycle(stage: Stage, recipe: StageRecipe) -> StageResult:
        trainer = Trainer()
        trainer.model = [trainer]
        left.append(weakref.ref(trainer))
        return StageResult(adapter=stage.folder, rows=1)

    monkeypatch.setattr("training.sft.run", leaves_a_cycle)
    gc.disable()
    try:
        execute._run(stage_of("sft"), SftRecipe())
    finally:
        gc.enable()
    assert [each() for each in left] == [None]


def test_where_the_live_model_is_on_another_server_nothing_is_decided_and_the_report_says_so(
    trainable: Path, without_pairs: Path, tmp_path: Path
) -> None:
    run = new_run(trainable, tmp_path / "run", kinds=("sft", "dpo"), snapshot=without_pairs)
    Live(name="hosted", directory=None).write(run.folder)
    result = execute._execute(run.plan, run.folder, run.events, None)
    assert result["outcome"] == result["gate"]["outcome"] == "no decision"
    (reason,) = result["reasons"]
    assert "hosted answers from another server" in reason
    assert "`parley promote v7`" in reason
    assert Path(result["model"]).is_dir()
    assert result["stages"]["sft"]["rows"] > 0
    assert result["stages"]["sft"]["device"] == device_name()
    left_out = result["stages"]["dpo"]["left_out"]
    told = reports.made({**result, "version": run.plan.name}, learnt=9, tried=0.2)
    assert "no decision" in told
    assert "Ask again with `parley judge v7`" in told
    assert f"The stage dpo was left out: {left_out}" in told


@pytest.mark.parametrize(
    ("found", "questions", "proves"),
    [
        ({"reward": 0.6}, 10, True),
        ({"reward": 1.0}, 9, False),
        ({"reward": 0.5}, 10, False),
        ({"reward": 0.6, "rloo": 0.0}, 10, False),
        ({"sft": 0.6}, 10, False),
    ],
    ids=[
        "better than a coin",
        "of too few questions",
        "no better",
        "the policy learnt to please it",
        "there is none",
    ],
)
def test_a_reward_model_proves_something_where_it_finds_what_people_prefer(
    found: dict[str, float], questions: int, proves: bool
) -> None:
    results = {
        kind: StageResult(
            adapter=Path(kind),
            rows=9,
            metrics={
                "held_out_answers_accuracy_low": low,
                "held_out_answers_questions": questions,
            },
        )
        for kind, low in found.items()
    }
    assert execute._may_prove(results) is proves


def test_a_reward_model_that_only_knows_peoples_own_words_proves_nothing() -> None:
    told = {"held_out_accuracy_low": 0.9, "held_out_questions": 40.0}
    found = StageResult(adapter=Path("reward"), rows=9, metrics=told)
    assert not execute._may_prove({"reward": found})
