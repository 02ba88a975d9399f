"""Supervised fine-tuning on a tiny random model: what is learnt, and going on after a kill."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.convert import convert
from tests.conftest import files_limited_to
from tests.engine import tiny_models
from tests.engine.test_convert import _answer, _reference
from training import sft
from training.base_model import Reader, load_policy
from training.errors import DiskFull, NotEnoughFeedback, RunCancelled, TrainingError
from training.recipes import LoraSettings, SftRecipe
from training.rows import read_rows, rendered
from training.stage import COMPLETE, Events, Stage, disk_errors, train

pytestmark = pytest.mark.filterwarnings(
    # transformers' own word for what peft still calls by its old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

RECIPE = SftRecipe(
    lora=LoraSettings(r=4),
    learning_rate=0.02,
    max_steps=8,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    save_steps=2,
)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_generator(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def reader(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    served = tmp_path_factory.mktemp("served") / "tiny"
    convert(weights, out=served)
    return Reader.of(served)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for split, count in (("train", 12), ("held_out", 3)):
        rows = [
            {
                "prompt": [
                    {"role": "user", "content": f"Question: what is number {n}? " + "x" * n}
                ],
                "completion": [{"role": "assistant", "content": f"It is {n} <|im_end|>."}],
            }
            for n in range(count)
        ]
        (folder / f"sft.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def stage_in(
    tmp_path: Path, weights: Path, reader: Reader, snapshot: Path
) -> Iterator[Callable[..., Stage]]:
    def make(name: str, **options: Any) -> Stage:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Stage(
            kind="sft",
            folder=folder,
            weights=weights,
            reader=reader,
            snapshot=snapshot,
            events=Events(file=folder / "events.jsonl"),
            **options,
        )

    threads = torch.get_num_threads()
    yield make
    torch.set_num_threads(threads)


def losses(stage: Stage) -> dict[int, float]:
    told = [json.loads(line) for line in stage.events.file.read_text().splitlines()]
    return {
        each["step"]: each["values"]["loss"] for each in told if "loss" in each.get("values", {})
    }


def holds(model: Any, weights: Path) -> bool:
    """Whether a model in memory has the weights of a file, whatever its adapter learnt."""
    held = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in model.get_base_model().state_dict().items()
    }
    stored = load_file(weights / "model.safetensors")
    assert stored.keys() - held.keys() <= {"lm_head.weight"}  # a reward model has another head
    return all(torch.equal(stored[name], held[name]) for name in stored.keys() & held.keys())


def test_every_tensor_of_the_adapter_learns_and_the_base_stays(
    stage_in: Callable[..., Stage], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []

    def train_and_keep(trainer: Any, stage: Stage) -> None:
        train(trainer, stage)
        models.append(trainer.model)

    monkeypatch.setattr(sft, "train", train_and_keep)
    first = load_policy(weights, lora=RECIPE.lora, seed=RECIPE.seed).state_dict()
    stage = stage_in("run")

    result = sft.run(stage, RECIPE)

    assert list(losses(stage)) == list(range(1, 9))
    assert result.metrics["held_out_loss"] < result.metrics["held_out_loss_before"]
    assert result.metrics["held_out_log_likelihood_gain_low"] > 0
    learnt = load_file(result.adapter / "adapter_model.safetensors")
    assert len(learnt) == sum("lora_" in name for name in first)
    for name, tensor in learnt.items():
        begun = first[name.replace(".weight", ".default.weight")]
        assert not torch.equal(begun, tensor), name
    assert holds(models[0], weights)
    assert stage.result == result
    assert not stage.checkpoints.exists()


def test_the_loss_is_that_of_a_whole_batch_over_the_answers_alone(
    stage_in: Callable[..., Stage], weights: Path, reader: Reader, snapshot: Path
) -> None:
    rows = rendered(
        reader,
        [(row.prompt, row.chosen) for row in read_rows(snapshot, "sft", "train")],
        max_length=512,
    )
    model = load_policy(weights, lora=RECIPE.lora)
    for row, loss in zip(rows, sft.row_losses(model, rows), strict=True):
        scores = model(input_ids=torch.tensor([row.prompt + row.answer])).logits[0].detach()
        probabilities = scores.log_softmax(-1)[len(row.prompt) - 1 : -1]
        wanted = [
            float(-each[token]) for each, token in zip(probabilities, row.answer, strict=True)
        ]
        assert loss == pytest.approx(sum(wanted) / len(wanted), rel=1e-4)
    # An end that somebody typed is text; the one that ends the answer is the token.
    assert all(row.answer[-1] == 2 and 2 not in row.answer[:-1] for row in rows)


@pytest.mark.parametrize(
    "fields",
    [
        {"load_in_8bit": True},
        {"load_in_4bit": True, "dtype": "bfloat16", "bf16": True},
        {"lora": {"r": 4, "use_rslora": True}},
        {"lora": {"r": 4, "use_dora": True}},
    ],
    ids=["8bit", "4bit", "rslora", "dora"],
)
def test_an_adapter_of_any_kind_answers_as_transformers_does(
    stage_in: Callable[..., Stage], weights: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    one_step = {"max_steps": 1, "warmup_steps": 0}
    recipe = SftRecipe.model_validate(RECIPE.model_dump() | one_step | fields)
    adapter = sft.run(stage_in("run"), recipe).adapter
    convert(weights, out=tmp_path / "made", quantization="float32", adapter=adapter)
    answer = _answer(tmp_path / "made")
    assert answer == _reference(weights, adapter)
    assert answer != _reference(weights)


def test_an_epochs_last_step_learns_from_the_rows_that_are_left(
    stage_in: Callable[..., Stage], snapshot: Path
) -> None:
    """Five rows: whether four of them come in one batch or in two makes no difference."""
    rows = (snapshot / "sft.train.jsonl").read_text().splitlines(keepends=True)
    (snapshot / "sft.train.jsonl").write_text("".join(rows[:5]))
    found = []
    for batch, count in ((4, 1), (2, 2)):
        stage = stage_in(f"{count} of {batch}")
        result = sft.run(
            stage,
            RECIPE.model_copy(
                update={
                    "max_steps": -1,
                    "num_train_epochs": 1.0,
                    "warmup_steps": 0.0,
                    "per_device_train_batch_size": batch,
                    "gradient_accumulation_steps": count,
                }
            ),
        )
        found.append({**losses(stage), 3: result.metrics["held_out_loss"]})
    assert list(found[0]) == [1, 2, 3]
    assert found[1] == pytest.approx(found[0], rel=1e-4)


class Killed(Exception):
    """Stands for a process that dies: nothing is told or saved afterwards."""


@pytest.mark.parametrize(
    ("at", "load_in_4bit"),
    [(6, False), (9, False), (6, True)],
    ids=["between steps", "after the last step", "on weights of 4 bits"],
)
def test_a_run_that_dies_goes_on_as_if_it_had_not(
    stage_in: Callable[..., Stage], at: int, load_in_4bit: bool
) -> None:
    recipe = RECIPE.model_copy(update={"load_in_4bit": load_in_4bit})
    unbroken = stage_in("unbroken")
    sft.run(unbroken, recipe)
    asked = 0

    def dies() -> bool:
        nonlocal asked
        asked += 1
        if asked == at:
            raise Killed
        return False

    broken = stage_in("broken", cancelled=dies)
    with pytest.raises(Killed):
        sft.run(broken, recipe)
    torn = broken.checkpoints / "checkpoint-5"
    torn.mkdir()  # a checkpoint that the kill left half written
    sft.run(stage_in("broken"), recipe)

    assert losses(broken) == pytest.approx(losses(unbroken), rel=1e-5)
    assert json.loads((broken.folder / "result.json").read_text())["metrics"][
        "held_out_loss"
    ] == pytest.approx(
        json.loads((unbroken.folder / "result.json").read_text())["metrics"]["held_out_loss"],
        rel=1e-5,
    )


def test_small_steps_change_every_number_of_an_adapter_on_4_bits(
    stage_in: Callable[..., Stage], weights: Path, tmp_path: Path
) -> None:
    policy = tiny_models.write_adapter(tmp_path / "policy", weights)
    held = {"load_in_4bit": True, "dtype": "bfloat16", "bf16": True}
    small = {**held, "learning_rate": 5e-5, "max_steps": 4}

    result = sft.run(stage_in("run", policy=policy), RECIPE.model_copy(update=small))

    begun = load_file(policy / "adapter_model.safetensors")
    for name, tensor in load_file(result.adapter / "adapter_model.safetensors").items():
        assert tensor.dtype == torch.float32
        assert bool((tensor != begun[name]).all()) or "lora_B" in name, name


def test_a_cancelled_run_ends_at_the_next_step_with_a_checkpoint(
    stage_in: Callable[..., Stage],
) -> None:
    stage = stage_in("run")
    stage.cancelled = lambda: len(losses(stage)) >= 3 if stage.events.file.exists() else False
    with pytest.raises(RunCancelled):
        sft.run(stage, RECIPE)
    last = stage.last_checkpoint()
    assert last is not None
    assert (last / COMPLETE).exists()
    assert stage.result is None


def test_nothing_is_trained_without_rows(stage_in: Callable[..., Stage], snapshot: Path) -> None:
    (snapshot / "sft.train.jsonl").write_text("")
    with pytest.raises(NotEnoughFeedback):
        sft.run(stage_in("run"), RECIPE)


def test_without_held_out_rows_it_trains_and_claims_nothing_of_them(
    stage_in: Callable[..., Stage], snapshot: Path
) -> None:
    (snapshot / "sft.held_out.jsonl").write_text("")
    stage = stage_in("run")
    result = sft.run(stage, RECIPE.model_copy(update={"max_steps": 2}))
    assert (result.metrics["train_rows"], result.metrics["held_out_rows"]) == (12, 0)
    assert not any("gain" in name or "loss" in name for name in result.metrics)
    assert (result.adapter / "adapter_model.safetensors").exists()
    assert len(losses(stage)) == 2


def test_a_run_that_diverges_ends_with_the_step_and_tells_numbers_only(
    stage_in: Callable[..., Stage],
) -> None:
    stage = stage_in("run")
    diverging = {"learning_rate": 1e30, "max_grad_norm": 0.0, "max_steps": 8}
    with pytest.raises(TrainingError, match=r"^The loss diverged at step \d\.$") as caught:
        sft.run(stage, RECIPE.model_copy(update=diverging))
    assert "learning_rate" in caught.value.advice
    text = stage.events.file.read_text()
    assert "NaN" not in text and "Infinity" not in text


def test_a_checkpoint_that_the_disk_does_not_take_is_a_full_disk(
    stage_in: Callable[..., Stage],
) -> None:
    """A limit on the size of files makes libraries fail where a full disk does."""
    for number, limit in enumerate((2**12, 2**14, 2**16)):
        stage = stage_in(f"run {number}")
        with pytest.raises(DiskFull) as caught, files_limited_to(limit), disk_errors():
            sft.run(stage, RECIPE)
        assert "Make room" in caught.value.advice
        stage.last_checkpoint()  # what was half written is removed
