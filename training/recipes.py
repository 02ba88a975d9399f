"""Recipes: what a run does, in the words of TRL and PEFT.

Every field has the name that TRL's or PEFT's own configuration gives it, so their documentation is
ours. A recipe is a TOML or JSON file, or the name of a shipped one: `sft`, `dpo`, `kto`, `reward`,
`rloo` and `pipeline`, each with defaults for a GPU and for a small CPU.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from training.errors import RecipeInvalid

Device = Literal["cpu", "cuda"]
LoadIn = Literal["float32", "bfloat16", "8bit", "4bit"]
"""How the base's weights are held; `8bit` and `4bit` (nf4) through bitsandbytes."""


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraSettings(_Fields):
    """The adapter; fields of `peft.LoraConfig`.

    Rank 16 on all linear layers is what LoRA needs to match full fine-tuning on small data sets
    ("LoRA Without Regret", thinkingmachines.ai/blog/lora; TRL's `lora_without_regret` page).
    """

    r: int = Field(16, ge=1, le=512)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False


class _Stage(_Fields):
    """What every stage has; fields of `transformers.TrainingArguments`.

    Attributes:
        load_in: see `LoadIn`.
        bf16: whether the forward pass computes in bfloat16; adapters stay in float32.
        save_steps: optimizer steps between two points from which a killed run goes on.
    """

    lora: LoraSettings = LoraSettings()
    load_in: LoadIn = "float32"
    bf16: bool = False
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: float = Field(0.05, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    num_train_epochs: float = Field(1.0, gt=0, le=100)
    max_steps: int = Field(-1, ge=-1)
    per_device_train_batch_size: int = Field(4, ge=1)
    gradient_accumulation_steps: int = Field(2, ge=1)
    activation_checkpointing: bool = False
    max_length: int = Field(1024, ge=16)
    save_steps: int = Field(10, ge=1)
    logging_steps: int = Field(1, ge=1)
    seed: int = Field(17, ge=0, lt=2**32)


class SftRecipe(_Stage):
    """Supervised fine-tuning on corrections and liked answers; `trl.SFTConfig`."""

    kind: Literal["sft"] = "sft"
    learning_rate: float = Field(1e-3, gt=0, lt=1)
    num_train_epochs: float = Field(4.0, gt=0, le=100)


class DpoRecipe(_Stage):
    """Preference pairs against the SFT policy; `trl.DPOConfig` (arxiv.org/abs/2305.18290).

    Attributes:
        beta: of the implicit reward; 0.1 is the paper's and TRL's.
    """

    kind: Literal["dpo"] = "dpo"
    learning_rate: float = Field(5e-5, gt=0, lt=1)
    beta: float = Field(0.1, gt=0)
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class KtoRecipe(_Stage):
    """Single votes against the SFT policy; `trl.KTOConfig` (arxiv.org/abs/2402.01306).

    Attributes:
        desirable_weight, undesirable_weight: of liked and disliked rows; None = so that both sides
            weigh the same, within the ratio of 1 to 4/3 that the paper recommends.
    """

    kind: Literal["kto"] = "kto"
    learning_rate: float = Field(5e-5, gt=0, lt=1)
    beta: float = Field(0.1, gt=0)
    desirable_weight: float | None = Field(None, gt=0)
    undesirable_weight: float | None = Field(None, gt=0)


class RewardRecipe(_Stage):
    """A reward model from preference pairs; `trl.RewardConfig` (Bradley-Terry loss)."""

    kind: Literal["reward"] = "reward"
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    num_train_epochs: float = Field(2.0, gt=0, le=100)
    center_rewards_coefficient: float | None = Field(0.01, ge=0)


class RlooRecipe(_Stage):
    """Online learning against the reward model; `trl.RLOOConfig` (arxiv.org/abs/2402.14740).

    On a CPU all answers to a prompt share its reading, which is what a step costs: sixteen take
    hardly longer than four, and where four are all alike there is nothing to learn.
    After the four epochs of `sft` a policy is so sure of its few words that little is left to
    choose (`tests.benchmarks.recipes`): where `rloo` shall do the work, give `sft` one at 2e-4.

    Attributes:
        max_grad_norm: so high that steps in which an answer fails weigh more than those in which
            all earn nearly the same.
        num_generations: answers drawn for each prompt; each one's baseline is the others' mean.
        beta: weight of the divergence from the SFT policy.
        max_completion_length: tokens of a drawn answer.
        length_limit: ratio of mean answer lengths, now over the SFT policy's, at which a stage
            ends: longer answers that earn ever more are a reward model being fooled.
    """

    kind: Literal["rloo"] = "rloo"
    learning_rate: float = Field(3e-4, gt=0, lt=1)
    max_grad_norm: float = Field(20.0, gt=0)
    per_device_train_batch_size: int = Field(16, ge=1)
    num_generations: int = Field(16, ge=2)
    beta: float = Field(0.05, ge=0)
    temperature: float = Field(0.9, gt=0)
    max_completion_length: int = Field(48, ge=1)
    length_limit: float = Field(2.0, gt=1)


StageRecipe = SftRecipe | DpoRecipe | KtoRecipe | RewardRecipe | RlooRecipe
StageKind = Literal["sft", "dpo", "kto", "reward", "rloo"]


class PipelineRecipe(_Fields):
    """Several stages, each beginning with the policy that the one before it left.

    A stage of preferences needs a policy to hold on to, and `rloo` a reward model, so `sft` comes
    first and `reward` before `rloo`. A stage without rows of its kind is left out, which its
    events say.
    """

    kind: Literal["pipeline"] = "pipeline"
    stages: Annotated[
        tuple[Annotated[StageRecipe, Field(discriminator="kind")], ...], Field(min_length=1)
    ] = (SftRecipe(), DpoRecipe(), KtoRecipe(), RewardRecipe(), RlooRecipe())

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        kinds = [stage.kind for stage in self.stages]
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind of stage may come once")
        if "rloo" in kinds and "reward" not in kinds[: kinds.index("rloo")]:
            raise ValueError("rloo needs a reward stage before it")
        if kinds[0] != "sft" and set(kinds) != {"reward"}:
            raise ValueError("the first stage must be sft, whose policy the others hold on to")
        return self


Recipe = Annotated[
    SftRecipe | DpoRecipe | KtoRecipe | RewardRecipe | RlooRecipe | PipelineRecipe,
    Field(discriminator="kind"),
]
NAMES: Final = ("sft", "dpo", "kto", "reward", "rloo", "pipeline")

_RECIPE: Final[TypeAdapter[Recipe]] = TypeAdapter(Recipe)
_GPU_STAGE: Final[Mapping[str, Any]] = {
    "load_in": "4bit",
    "bf16": True,
    "activation_checkpointing": True,
    "max_length": 4096,
}
_SMALLER_STEPS: Final[Mapping[str, Mapping[str, Any]]] = {
    "sft": {"learning_rate": 2e-4},
    "rloo": {
        "learning_rate": 2e-5,
        "max_grad_norm": 1.0,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
    },
}
"""A GPU's models have billions of parameters: what is right for 135 million would undo them. There
every answer that is drawn also keeps its prompt's cache for itself."""


def named(name: str, device: Device) -> Recipe:
    """A shipped recipe.

    Raises:
        RecipeInvalid: there is none of that name.
    """
    if name not in NAMES:
        raise RecipeInvalid(
            f"No recipe {name!r}.",
            advice=f"Name one of {', '.join(NAMES)}, or a TOML or JSON file.",
        )
    recipe = parse({"kind": name})
    if device == "cpu":
        return recipe
    if isinstance(recipe, PipelineRecipe):
        stages = [_for_gpu(stage) for stage in recipe.stages]
        return parse({"kind": "pipeline", "stages": stages})
    return parse(_for_gpu(recipe))


def _for_gpu(stage: StageRecipe) -> dict[str, Any]:
    return {"kind": stage.kind, **_GPU_STAGE, **_SMALLER_STEPS.get(stage.kind, {})}


def parse(fields: Mapping[str, Any]) -> Recipe:
    """A recipe from its fields; what is not named has its default.

    Raises:
        RecipeInvalid: a field is unknown or has an impossible value; the text names it.
    """
    try:
        return _RECIPE.validate_python(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise RecipeInvalid(f"{where}: {first['msg']}.", advice=f"Recipes: {NAMES}.") from error


def read(path: Path) -> Recipe:
    """A recipe from a TOML or JSON file.

    Raises:
        RecipeInvalid: it cannot be read, or is none; the text names the file.
    """
    try:
        text = path.read_text("utf-8")
        fields = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise RecipeInvalid(f"{path} cannot be read: {error}.") from error
    try:
        return parse(fields)
    except RecipeInvalid as error:
        raise RecipeInvalid(f"{path}: {error}", advice=error.advice) from error


def stages_of(recipe: Recipe) -> tuple[StageRecipe, ...]:
    """The stages that a run of this recipe goes through.

    A preference stage alone begins with the base model, which is then its own reference.
    """
    return recipe.stages if isinstance(recipe, PipelineRecipe) else (recipe,)
