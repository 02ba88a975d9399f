"""Stages that learn from preferences, on a tiny random model: what they learn and hold on to."""

import gc
import importlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from engine.convert import convert
from engine.prompt import PromptSource, rag_messages
from feedback.rows import Basis
from tests.engine import tiny_models
from tests.engine.test_convert import _answer, _reference
from tests.training.conftest import MODEL
from tests.training.test_sft import holds
from training.base_model import Reader
from training.errors import NotEnoughFeedback
from training.kto import voted
from training.recipes import LoraSettings, StageKind, named, parse, stages_of
from training.reward import RewardModel
from training.rloo import WINDOW, length_watch, whole_steps
from training.rows import read_rows
from training.stage import Events, Stage, StageResult, train

LORA = LoraSettings(r=4)
FIELDS: dict[str, Any] = {
    "lora": LORA.model_dump(),
    "learning_rate": 0.01,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "save_steps": 2,
}
KINDS: tuple[StageKind, ...] = ("dpo", "kto", "reward", "rloo")
MEASURES: dict[StageKind, str] = {
    "sft": "log_likelihood",
    "dpo": "margin",
    "kto": "value",
    "reward": "accuracy",
    "rloo": "reward",
}


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage() -> Iterator[None]:
    """Every start of a trainer collects garbage; looking through torch and TRL takes longer."""
    gc.freeze()
    yield
    gc.unfreeze()


def message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    for split, count in (("train", 8), ("held_out", 3)):
        pairs, votes, imitated = [], [], []
        for number in range(count):
            prompt = message("user", f"What is number {number}? " + "x" * number)
            good = message("assistant", f"It is {number}.")
            bad = message("assistant", "Nobody has ever known.")
            pairs.append({"prompt": prompt, "chosen": good, "rejected": bad})
            imitated.append({"prompt": prompt, "completion": good})
            said, liked = (good, True) if number % 3 else (bad, False)
            votes.append({"prompt": prompt, "completion": said, "label": liked})
        for kind, rows in (("preference", pairs), ("unpaired", votes), ("sft", imitated)):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{kind}.{split}.jsonl").write_text(lines)
    write_bases(folder, ["votes", "comparison", "correction"])
    return folder


def write_bases(snapshot: Path, bases: Sequence[Basis]) -> None:
    """Replace what is told of where the held-out pairs come from."""
    told = [{"kind": "preference", "split": "held_out", "basis": basis} for basis in bases]
    (snapshot / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in told))


@pytest.fixture(scope="session")
def new_stage(trainable: Path, snapshot: Path) -> Callable[..., Stage]:
    def make(folder: Path, kind: StageKind, **options: Any) -> Stage:
        folder.mkdir(exist_ok=True)
        return Stage(
            kind=kind,
            folder=folder,
            weights=trainable / "bases" / MODEL,
            reader=Reader.of(trainable / "models" / MODEL),
            events=Events(file=folder / "events.jsonl"),
            **({"snapshot": snapshot} | options),
        )

    return make


@pytest.fixture
def stage_in(tmp_path: Path, new_stage: Callable[..., Stage]) -> Callable[..., Stage]:
    return lambda name, kind, **options: new_stage(tmp_path / name, kind, **options)


def run(stage: Stage, **fields: Any) -> StageResult:
    answers = {"max_completion_length": 6, "num_generations": 4, "per_device_train_batch_size": 8}
    small = answers if stage.kind == "rloo" else {}  # as all others, two steps in each epoch
    before = [
        {"kind": kind, "lora": FIELDS["lora"]}
        for kind in takewhile(stage.kind.__ne__, ("sft", "reward"))
    ]
    last = {"kind": stage.kind, **FIELDS, **small, **fields}
    recipe = stages_of(parse({"kind": "pipeline", "stages": [*before, last]}))[-1]
    found: StageResult = importlib.import_module(f"training.{stage.kind}").run(stage, recipe)
    return found


def told(stage: Stage, name: str) -> list[float]:
    """The steps' values of a name, in order; the last word on a step counts."""
    events = [json.loads(line) for line in stage.events.file.read_text().splitlines()]
    values = {
        each["step"]: each["values"][name] for each in events if name in each.get("values", {})
    }
    return list(values.values())


@pytest.fixture(scope="session")
def reward_model(new_stage: Callable[..., Stage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(new_stage(tmp_path_factory.mktemp("reward"), "reward")).adapter


@pytest.fixture(scope="session")
def sft_policy(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_adapter(tmp_path_factory.mktemp("policy"), trainable / "bases" / MODEL)


@pytest.fixture(scope="session")
def moved_policy(
    new_stage: Callable[..., Stage], sft_policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a stage between `sft` and the one that is tested has left."""
    folder = tmp_path_factory.mktemp("between")
    return run(new_stage(folder, "dpo", policy=sft_policy, reference=sft_policy)).adapter


Trained = tuple[Stage, StageResult, Any]


@pytest.fixture(scope="session")
def trained(
    new_stage: Callable[..., Stage],
    sft_policy: Path,
    moved_policy: Path,
    reward_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[StageKind], Trained]:
    """A stage of each kind that ran from its beginning to its end, and the model it left.

    As in a pipeline, what it holds on to is not what it begins with.
    """

    @cache
    def of(kind: StageKind) -> Trained:
        options: dict[str, Any] = {
            "policy": moved_policy,
            "reference": sft_policy,
            "reward_model": reward_model,
        }
        stage = new_stage(tmp_path_factory.mktemp(kind), kind, **options)
        models = []

        def train_and_keep(trainer: Any, stage: Stage) -> None:
            train(trainer, stage)
            models.append(trainer.model)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"training.{kind}.train", train_and_keep)
            return stage, run(stage), models[0]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_of_the_adapter_learns_and_the_base_stays(
    trained: Callable[[StageKind], Trained], kind: StageKind, moved_policy: Path
) -> None:
    stage, result, model = trained(kind)
    assert len(told(stage, "loss")) == 3
    begun = load_file(moved_policy / "adapter_model.safetensors")
    learnt = load_file(result.adapter / "adapter_model.safetensors")
    adapters = [name for name in learnt if "lora_" in name]
    assert len(adapters) == len(begun)
    for name in adapters:
        assert learnt[name].abs().max() > 0, name  # a new adapter's B begins at zero
        assert kind == "reward" or not torch.equal(begun[name], learnt[name]), name
    assert holds(model, stage.weights)
    low, gain = (result.metrics[f"held_out_{MEASURES[kind]}_gain{end}"] for end in ("_low", ""))
    assert low <= gain
    assert low > 0 or kind in ("rloo", "reward")  # three steps do not suffice for these


@pytest.mark.parametrize("kind", MEASURES)
def test_prompts_of_one_question_are_one_observation(
    stage_in: Callable[..., Stage],
    snapshot: Path,
    tmp_path: Path,
    reward_model: Path,
    kind: StageKind,
) -> None:
    for file in snapshot.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for number, row in enumerate(rows if ".held_out." in file.name else ()):
            source = PromptSource(number=1, title="Handbook", text="Ann. " * (number + 1))
            asked = rag_messages(question="Who is it?", history=(), sources=[source])
            row["prompt"] = [asdict(each) for each in asked]
        (tmp_path / file.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = stage_in("run", kind, snapshot=tmp_path, reward_model=reward_model)
    metrics = run(stage, max_steps=1).metrics
    assert metrics["held_out_rows"] == 3
    assert f"held_out_{MEASURES[kind]}_gain" in metrics
    assert f"held_out_{MEASURES[kind]}_gain_low" not in metrics
    assert kind != "reward" or metrics["held_out_questions"] == 1


class Killed(Exception):
    """Stands for a process that dies: nothing is told or saved afterwards."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_that_dies_goes_on_as_if_it_had_not(
    stage_in: Callable[..., Stage], trained: Callable[[StageKind], Trained], kind: StageKind
) -> None:
    unbroken, result, _ = trained(kind)
    options = {name: getattr(unbroken, name) for name in ("policy", "reference", "reward_model")}
    asked = 0

    def dies() -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Killed
        return False

    broken = stage_in("broken", kind, cancelled=dies, **options)
    with pytest.raises(Killed):
        run(broken)
    assert broken.last_checkpoint() is not None
    again = run(stage_in("broken", kind, **options))
    # The loss of online learning is always near zero, whatever is drawn.
    for name in ("reward", "kl") if kind == "rloo" else ("loss",):
        assert told(broken, name) == pytest.approx(told(unbroken, name), rel=1e-3, abs=1e-4), name
    assert again.metrics == pytest.approx(result.metrics, rel=1e-3, abs=1e-4)


def test_a_reward_model_learns_on_weights_of_4_bits(stage_in: Callable[..., Stage]) -> None:
    result = run(stage_in("run", "reward"), load_in_4bit=True)
    assert result.metrics["held_out_accuracy"] == 1


@pytest.mark.parametrize(
    ("held", "rounded"),
    [
        ({}, 1e-4),
        ({"dtype": "bfloat16", "bf16": True}, 2e-3),
        ({"load_in_8bit": True}, 2e-3),
        ({"load_in_4bit": True, "dtype": "bfloat16", "bf16": True}, 2e-3),
    ],
    ids=["float32", "bfloat16", "8bit", "4bit"],
)
def test_after_sft_the_reference_is_the_policy_that_the_stage_begins_with(
    stage_in: Callable[..., Stage],
    tmp_path: Path,
    sft_policy: Path,
    held: dict[str, Any],
    rounded: float,
) -> None:
    stage = stage_in("run", "dpo", policy=sft_policy, reference=sft_policy)
    adapter = run(stage, max_steps=1, **held).adapter
    # Against any other reference, the rewards of the first step would not be zero.
    assert told(stage, "loss") == [pytest.approx(math.log(2), abs=rounded)]
    assert told(stage, "rewards/chosen") == [pytest.approx(0, abs=rounded)]
    convert(stage.weights, out=tmp_path / "made", quantization="float32", adapter=adapter)
    assert _answer(tmp_path / "made") == _reference(stage.weights, adapter)


def test_after_sft_the_reference_of_votes_is_that_policy_too(
    stage_in: Callable[..., Stage], sft_policy: Path
) -> None:
    stage = stage_in("run", "kto", policy=sft_policy, reference=sft_policy)
    run(stage, max_steps=1, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    # All votes are in this step, whose mean weight is 1.
    assert told(stage, "loss") == [pytest.approx(0.5, abs=1e-4)]
    for name in ("rewards/chosen", "rewards/rejected", "kl"):
        assert told(stage, name) == [pytest.approx(0, abs=1e-3)], name


@pytest.mark.parametrize(
    ("kind", "held", "after_sft"),
    [
        ("dpo", {}, True),
        ("kto", {"load_in_8bit": True}, True),
        ("dpo", {"load_in_4bit": True}, False),
    ],
)
def test_whatever_moved_since_sft_the_reference_is_what_it_left_or_the_base(
    stage_in: Callable[..., Stage],
    sft_policy: Path,
    moved_policy: Path,
    kind: StageKind,
    held: dict[str, Any],
    after_sft: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"training.{kind}.train", lambda trainer, stage: None)
    reference = sft_policy if after_sft else None
    measured: dict[str, list[Any]] = {"reference": [], "before": []}
    for name, policy in (("unmoved", reference), ("moved", moved_policy)):
        stage = stage_in(name, kind, policy=policy, reference=reference)
        adapter = run(stage, **held).adapter
        for what, each in measured.items():
            each.append(torch.tensor(json.loads((stage.folder / f"{what}.json").read_bytes())))
    first, second = measured["reference"]
    assert torch.allclose(first, second, atol=1e-4)
    unmoved, moved = measured["before"]  # which tells what the stage gains
    assert not torch.allclose(unmoved, moved, atol=0.1)
    left = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in load_file(moved_policy / "adapter_model.safetensors").items():
        assert torch.equal(left[name], tensor), name


@pytest.mark.parametrize(
    ("moved", "after_sft", "beta"),
    [(False, True, 0.05), (True, True, 0.05), (True, False, 0.05), (True, True, 0.0)],
    ids=["begins there", "moved since", "moved from the base", "holds on to nothing"],
)
def test_online_learning_pays_for_the_distance_from_what_sft_left_or_the_base(
    stage_in: Callable[..., Stage],
    reward_model: Path,
    sft_policy: Path,
    moved_policy: Path,
    moved: bool,
    after_sft: bool,
    beta: float,
) -> None:
    stage = stage_in(
        "run",
        "rloo",
        policy=moved_policy if moved else sft_policy,
        reference=sft_policy if after_sft else None,
        reward_model=reward_model,
    )
    run(stage, max_steps=1, beta=beta)
    if beta:
        (far,) = told(stage, "kl")
        assert far > 0.01 if moved else far == pytest.approx(0, abs=1e-4)
    else:
        assert told(stage, "kl") == []


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_the_shipped_recipe_for_a_gpu_runs_on_one(stage_in: Callable[..., Stage]) -> None:
    policy: Path | None = None
    left: dict[StageKind, Path] = {}
    for recipe in stages_of(named("pipeline", "cuda")):
        assert (recipe.dtype, recipe.load_in_4bit, recipe.bf16) == ("bfloat16", True, True)
        options = {"reference": left.get("sft"), "reward_model": left.get("reward")}
        stage = stage_in(recipe.kind, recipe.kind, policy=policy, **options)
        module = importlib.import_module(f"training.{recipe.kind}")
        adapter = module.run(stage, recipe.model_copy(update={"max_steps": 2})).adapter
        assert len(told(stage, "loss")) == 2
        left[recipe.kind] = adapter
        if recipe.kind != "reward":
            policy = adapter


def test_an_answer_behind_another_prompt_is_cut_to_the_room_there(
    stage_in: Callable[..., Stage], tmp_path: Path
) -> None:
    """Every row fits, but not every answer behind every prompt."""
    rows = [
        {
            "prompt": message("user", "Where is it? " + "y z " * (20 * long)),
            "completion": message("assistant", "It is. " * (1 if long else 20)),
            "label": True,
        }
        for long in (0, 1, 0, 1)
    ]
    for split in ("train", "held_out"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"unpaired.{split}.jsonl").write_text(text)
    stage = stage_in("run", "kto", snapshot=tmp_path)
    votes = voted(stage.reader, read_rows(tmp_path, "unpaired", "train"), max_length=1024)
    fitting = max(len(group) for group, _ in votes)
    assert len(votes[1][0].prompt) + len(votes[0][0].answers[0]) > fitting
    fields = {"max_length": fitting, "per_device_train_batch_size": 4, "learning_rate": 1e-9}

    result = run(stage, max_steps=1, **fields)

    assert result.metrics["train_rows"] == 4
    assert told(stage, "kl") == [pytest.approx(0, abs=1e-4)]
    assert told(stage, "loss") == [pytest.approx(0.5, abs=1e-4)]


@pytest.mark.parametrize("kind", ["dpo", "kto", "reward"])
def test_a_step_on_cores_is_the_step_of_the_whole_batch(
    stage_in: Callable[..., Stage], kind: StageKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"training.{kind}")
    compared: list[bool] = []

    def instead(trainer: Any, stage: Stage) -> None:
        batch = next(iter(trainer.get_train_dataloader()))
        trained = [each for each in trainer.model.parameters() if each.requires_grad]
        trainer.current_gradient_accumulation_steps = 1
        whole = trainer.compute_loss(trainer.model, dict(batch))
        wanted = torch.autograd.grad(whole, trained)
        loss = trainer.training_step(trainer.model, dict(batch))
        assert float(loss) == pytest.approx(float(whole.detach()), rel=1e-4)
        for ours, theirs in zip(trained, wanted, strict=True):
            assert ours.grad is not None
            assert torch.allclose(ours.grad, theirs, rtol=1e-2, atol=1e-4)
        compared.append(True)

    monkeypatch.setattr(module, "train", instead)
    run(stage_in("run", kind))
    assert compared


def test_a_reward_model_ranks_as_it_learnt(
    trainable: Path, reward_model: Path, snapshot: Path
) -> None:
    from training.dpo import paired

    pairs = paired(
        Reader.of(trainable / "models" / MODEL),
        read_rows(snapshot, "preference", "train"),
        max_length=512,
    )
    alone = RewardModel.load(trainable / "bases" / MODEL, reward_model)
    together = alone.sharing(pairs)
    assert together.shared
    rewards = together.rewards(pairs)
    assert sum(good > bad for good, bad in rewards) >= 7
    for ours, theirs in zip(rewards, alone.rewards(pairs), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


def test_a_reward_model_is_measured_apart_on_pairs_of_two_models_answers(
    trained: Callable[[StageKind], Trained],
    snapshot: Path,
    stage_in: Callable[..., Stage],
    tmp_path: Path,
) -> None:
    _, result, _ = trained("reward")
    metrics = result.metrics
    assert (metrics["held_out_questions"], metrics["held_out_answers_questions"]) == (3, 2)
    assert {"held_out_answers_accuracy", "held_out_answers_accuracy_low"} <= metrics.keys()
    shutil.copytree(snapshot, tmp_path / "corrected")
    write_bases(tmp_path / "corrected", ["correction"] * 3)
    corrected = run(stage_in("again", "reward", snapshot=tmp_path / "corrected"), max_steps=1)
    assert corrected.metrics["held_out_questions"] == 3
    assert not any("answers" in name for name in corrected.metrics)


@pytest.mark.parametrize(
    ("lengths", "rewards", "ended"),
    [
        ((10.0, 30.0), (0.0, 1.0), True),
        ((10.0, 30.0), (1.0, 0.0), False),
        ((10.0, 15.0), (0.0, 1.0), False),
    ],
    ids=["longer and better paid", "longer but worse paid", "hardly longer"],
)
def test_a_stage_ends_when_longer_answers_fool_the_reward_model(
    stage_in: Callable[..., Stage],
    tmp_path: Path,
    lengths: tuple[float, float],
    rewards: tuple[float, float],
    ended: bool,
) -> None:
    stage = stage_in("run", "rloo")
    watch = length_watch(stage, limit=2.0, usual_length=10.0)
    state, control = TrainerState(), TrainerControl()
    for length, reward in zip(lengths, rewards, strict=True):
        state.log_history += [{"completions/mean_length": length, "reward": reward}] * WINDOW
    watch.on_log(TrainingArguments(output_dir=str(tmp_path)), state, control)
    assert control.should_training_stop is ended
    assert stage.events.file.exists() is ended


@pytest.fixture
def five_rows(snapshot: Path, tmp_path: Path) -> Path:
    """The snapshot with five rows of each kind, and nothing held out."""
    folder = tmp_path / "five"
    folder.mkdir()
    for file in snapshot.glob("*.train.jsonl"):
        rows = file.read_text().splitlines(keepends=True)
        (folder / file.name).write_text("".join(rows[:5]))
        (folder / file.name.replace("train", "held_out")).write_text("")
    write_bases(folder, [])
    return folder


@pytest.mark.parametrize("kind", ["dpo", "kto", "reward"])
def test_an_epochs_last_step_learns_from_the_rows_that_are_left(
    stage_in: Callable[..., Stage], five_rows: Path, kind: StageKind
) -> None:
    """Five rows: whether four of them come in one batch or in two makes no difference."""
    found = []
    for batch, count in ((4, 1), (2, 2)):
        stage = stage_in(f"{count} of {batch}", kind, snapshot=five_rows)
        run(
            stage,
            max_steps=-1,
            num_train_epochs=1.0,
            warmup_steps=0.0,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=count,
        )
        found.append([*told(stage, "loss"), *told(stage, "grad_norm")])
    assert len(found[0]) == 4  # two steps, both of which have something to learn
    assert all(found[0])
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_online_learning_asks_every_question_in_each_epoch_and_some_twice_to_fill_a_step() -> None:
    asked = whole_steps(5, of_a_step=2, answers=3, seed=1)
    orders = []
    for epoch in range(2):
        asked.set_epoch(epoch)
        order = list(asked)
        assert len(order) == len(asked) == 6 * 3
        prompts = order[::3]
        assert order == [prompt for prompt in prompts for _ in range(3)]
        assert set(prompts) == set(range(5))
        assert prompts[-1] == prompts[0]
        orders.append(prompts)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_that_holds_nothing_out_learns_and_measures_nothing(
    stage_in: Callable[..., Stage], five_rows: Path, reward_model: Path, kind: StageKind
) -> None:
    stage = stage_in("run", kind, snapshot=five_rows, reward_model=reward_model)
    result = run(stage, max_steps=1)
    assert len(told(stage, "loss")) == 1
    assert [name for name in result.metrics if name.startswith("held_out")] == ["held_out_rows"]
    assert result.metrics["held_out_rows"] == 0


def test_rloo_needs_the_questions_of_a_step(
    stage_in: Callable[..., Stage], reward_model: Path
) -> None:
    stage = stage_in("run", "rloo", reward_model=reward_model)
    with pytest.raises(NotEnoughFeedback, match="answers 9 different questions, and 8 fit"):
        run(stage, per_device_train_batch_size=18)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_trained_without_rows(
    stage_in: Callable[..., Stage], tmp_path: Path, kind: StageKind, reward_model: Path
) -> None:
    for name in ("sft", "preference", "unpaired"):
        (tmp_path / f"{name}.train.jsonl").write_text("")
    with pytest.raises(NotEnoughFeedback):
        run(stage_in("run", kind, snapshot=tmp_path, reward_model=reward_model))
