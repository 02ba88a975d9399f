"""What recipes are shipped, what a file may say, and how a wrong one is told."""

import json
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, get_args

import discord
import peft
import pytest
from discord.app_commands import Command, CommandTree
from transformers import SchedulerType
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.kto_config import KTOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.reward_config import RewardConfig
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.sft_config import SFTConfig

from bots.administration_wording import METHODS
from bots.discord_bot import administer
from storage.settings import TrainingSettings
from training import recipes
from training.errors import RecipeInvalid, TrainingError
from training.plan import Plan
from training.planning import recipe_of
from training.recipes import (
    NAMES,
    Device,
    LoraSettings,
    PipelineRecipe,
    StageKind,
    named,
    parse,
    stages_of,
)

DEVICES: tuple[Device, ...] = ("cpu", "cuda")


def kinds(recipe: recipes.Recipe) -> list[StageKind]:
    return [stage.kind for stage in stages_of(recipe)]


def told(fields: Any) -> str:
    with pytest.raises(RecipeInvalid) as caught:
        parse(fields)
    return str(caught.value)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_recipe_can_be_carried_out(name: str, device: Device) -> None:
    recipe = named(name, device)
    order = kinds(recipe)
    # What `training.execute` asks for: a reward model before `rloo`, a policy before the others.
    assert "rloo" not in order or "reward" in order[: order.index("rloo")]
    assert order[0] == "sft" or order == ["reward"]
    assert name in (*order, "pipeline")
    assert parse(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("device", DEVICES)
def test_preference_stages_hold_on_to_the_sft_policy(device: Device) -> None:
    assert kinds(named("dpo", device)) == ["sft", "dpo"]
    assert kinds(named("kto", device)) == ["sft", "kto"]
    assert kinds(named("rloo", device)) == ["sft", "reward", "rloo"]
    begun = stages_of(named("rloo", device))[0]
    assert (begun.learning_rate, begun.num_train_epochs) == (2e-4, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_cpu_computes_in_float32_and_a_gpu_in_4_bits(name: str) -> None:
    for stage in stages_of(named(name, "cpu")):
        assert (stage.dtype, stage.load_in_4bit, stage.bf16) == ("float32", False, False)
    for stage in stages_of(named(name, "cuda")):
        assert (stage.dtype, stage.load_in_4bit, stage.bf16) == ("bfloat16", True, True)
        assert stage.max_length == 4096
        assert stage.learning_rate <= 2e-4


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_gets_the_defaults_of_its_device(device: Device) -> None:
    assert recipe_of({}, default="sft", device=device) == named("sft", device)
    asked = {"recipe": {"kind": "sft"}}
    assert recipe_of(asked, default="dpo", device=device) == named("sft", device)


@pytest.mark.parametrize("device", DEVICES)
def test_what_a_file_does_not_name_has_the_devices_defaults(device: Device) -> None:
    assert parse({"kind": "sft"}, device) == named("sft", device)
    assert parse({"kind": "pipeline"}, device) == named("pipeline", device)
    stages = [{"kind": "sft", "learning_rate": 3e-4}, {"kind": "dpo"}]
    sft, dpo = stages_of(parse({"kind": "pipeline", "stages": stages}, device))
    assert sft.learning_rate == 3e-4
    assert (sft.load_in_4bit, sft.max_length) == (dpo.load_in_4bit, dpo.max_length)
    assert dpo == stages_of(named("dpo", device))[1]


def test_who_names_8_bits_gets_them_instead_of_the_gpus_4() -> None:
    (stage,) = stages_of(parse({"kind": "sft", "load_in_8bit": True}, "cuda"))
    assert (stage.load_in_8bit, stage.load_in_4bit, stage.dtype) == (True, False, "bfloat16")


OWN = {
    "sft": {"kind", "lora"},
    "dpo": {"kind", "lora"},
    "kto": {"kind", "lora"},
    "reward": {"kind", "lora"},
    "rloo": {"kind", "lora", "length_limit", "max_length"},
}
"""Fields that TRL has no name for."""


def names(config: Any) -> set[str]:
    """The fields of a configuration."""
    return {each.name for each in fields_of(config)}


@pytest.mark.parametrize(
    ("stage", "config"),
    [
        (recipes.SftRecipe(), SFTConfig),
        (recipes.DpoRecipe(), DPOConfig),
        (recipes.KtoRecipe(), KTOConfig),
        (recipes.RewardRecipe(), RewardConfig),
        (recipes.RlooRecipe(), RLOOConfig),
    ],
    ids=get_args(StageKind),
)
def test_every_field_is_one_of_trls_or_pefts(stage: recipes.StageRecipe, config: Any) -> None:
    ours, known = type(stage).model_fields, {*names(config), *names(ModelConfig)}
    assert set(ours) - known == OWN[stage.kind]
    assert set(LoraSettings.model_fields) <= names(peft.LoraConfig)
    (dtype,) = (each for each in fields_of(ModelConfig) if each.name == "dtype")
    allowed = {
        "dtype": set(dtype.metadata["choices"]),
        "lr_scheduler_type": {each.value for each in SchedulerType},
    }
    for name, choices in allowed.items():
        assert set(get_args(ours[name].annotation)) <= choices


def test_a_plan_of_another_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    plan = {"run_id": "1", "recipe": {"kind": "sft", "load_in": "4bit"}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(TrainingError, match="another version of Parley: sft: there is no field"):
        Plan.read(tmp_path)


def test_a_plan_keeps_its_recipe_whatever_reads_it(tmp_path: Path) -> None:
    plan = Plan(
        run_id="1",
        name="v1",
        recipe=named("rloo", "cuda"),
        snapshot=tmp_path,
        snapshot_sha256="1" * 64,
        base=tmp_path,
        home=tmp_path,
    )
    plan.write(tmp_path)
    assert Plan.read(tmp_path).recipe == plan.recipe


def test_rloo_alone_is_refused_before_anything_is_trained() -> None:
    assert "needs a reward stage" in told({"kind": "rloo"})
    assert "needs a reward stage" in told(
        {"kind": "pipeline", "stages": [{"kind": "sft"}, {"kind": "rloo"}]}
    )
    assert isinstance(parse({"kind": "dpo"}), recipes.DpoRecipe)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"kind": "sft", "learning_rte": 1e-3},
            "sft: there is no field 'learning_rte'; did you mean 'learning_rate'?",
        ),
        (
            {"kind": "sft", "lora": {"lora_alfa": 1}, "seeds": 1, "bf": 1},
            "sft.lora: there is no field 'lora_alfa'; did you mean 'lora_alpha'? There are 2 more "
            "to correct.",
        ),
        ({"kind": "sft", "learning_rate": 2}, "sft: learning_rate is 2, but must be below 1."),
        ({"kind": "sft", "seed": "x"}, "sft: seed is 'x', but must be a whole number."),
        ({"kind": "sft", "bf16": "x"}, "sft: bf16 is 'x', but must be true or false."),
        ({"kind": "dpo", "beta": float("inf")}, "dpo: beta is inf, but must be finite."),
        (
            {"kind": "sft", "dtype": "float64"},
            "sft: dtype is 'float64', but must be 'float32' or 'bfloat16'.",
        ),
        (
            {"kind": "sft", "load_in_2bit": True},
            "sft: there is no field 'load_in_2bit'; did you mean 'load_in_8bit'?",
        ),
        (
            {"kind": "sft", "load_in_8bit": True, "load_in_4bit": True},
            "sft: load_in_8bit and load_in_4bit are both true, but only one may be.",
        ),
        (
            {"kind": "sft", "lora": {"target_modules": 5}},
            "sft.lora: target_modules is 5, but must be text, or a list of texts.",
        ),
        ({"kind": "sft", "lora": 5}, "sft.lora: this is 5, but must be a table of fields."),
        (
            {"kind": "dpo", "label_smoothing": 0.1},
            "dpo: label_smoothing changes nothing unless loss_type is robust.",
        ),
        (
            {"kind": "dpo", "lora": {"lora_dropout": 0.1}},
            "dpo: lora_dropout changes nothing outside sft.",
        ),
        (
            {"kind": "pipeline", "stages": [{"kind": "sft"}, {"kind": "kto", "lora": {"r": 64}}]},
            "pipeline: kto goes on with the adapter of the first stage, whose lora it must have or "
            "leave out.",
        ),
        ({}, "recipe: its kind is missing."),
        ({"kind": "stf"}, "recipe: there is no kind 'stf'; did you mean 'sft'?"),
        (
            {"kind": "pipeline", "stages": [{"kind": "sft"}, {"kind": "dop"}]},
            "stage 2: there is no kind 'dop'; did you mean 'dpo'?",
        ),
        (
            {"kind": "pipeline", "stages": [{"kind": "sft"}, {"kind": "dpo", "bta": 1}]},
            "dpo: there is no field 'bta'; did you mean 'beta'?",
        ),
        (
            {"kind": "pipeline", "stages": "sft"},
            "pipeline: stages is 'sft', but must be a list.",
        ),
        ({"kind": "pipeline", "stages": [3]}, "stage 1: this is 3, but must be a table of fields."),
        ({"kind": "pipeline", "stages": []}, "pipeline: there must be at least one stage."),
        (
            {"kind": "pipeline", "stages": [{"kind": "dpo"}]},
            "pipeline: the first stage must be sft, whose policy the others hold on to.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(fields: Any, sentence: str) -> None:
    assert told(fields) == sentence


def test_a_policys_stages_have_one_adapter_and_a_reward_model_its_own() -> None:
    one = {"r": 8, "lora_alpha": 16}
    stages = [
        {"kind": "sft", "lora": {**one, "lora_dropout": 0.1}},
        {"kind": "dpo"},
        {"kind": "kto", "lora": one},
        {"kind": "reward", "lora": {"r": 4}},
    ]
    recipe = parse({"kind": "pipeline", "stages": stages})
    found = [(stage.lora.r, stage.lora.lora_dropout) for stage in stages_of(recipe)]
    assert found == [(8, 0.1), (8, 0), (8, 0), (4, 0)]
    assert parse(recipe.model_dump(mode="json")) == recipe


def test_a_step_of_rloo_draws_whole_groups() -> None:
    stages = [{"kind": "sft"}, {"kind": "reward"}, {"kind": "rloo", "num_generations": 3}]
    assert "multiple of num_generations" in told({"kind": "pipeline", "stages": stages})


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(RecipeInvalid, match="'stf'; did you mean 'sft'") as caught:
        named("stf", "cpu")
    assert caught.value.advice == (
        "Name one of sft, dpo, kto, reward, rloo, pipeline, or a TOML or JSON file."
    )


def test_all_rooms_name_the_same_recipes() -> None:
    tree = CommandTree(discord.Client(intents=discord.Intents.none()))
    context: Any = None  # nobody calls a command here
    administer.register(tree, context)
    train = tree.get_command("train")
    assert isinstance(train, Command)
    method = train.get_parameter("method")
    assert method is not None
    setting = get_args(TrainingSettings.model_fields["recipe"].annotation)
    assert NAMES == METHODS == setting == tuple(each.value for each in method.choices)
    assert set(NAMES) == {*get_args(StageKind), "pipeline"}
    assert kinds(PipelineRecipe()) == list(get_args(StageKind))
