"""Recipes: what a run does, in the words of TRL and PEFT.

Every field has the name that TRL's or PEFT's own configuration gives it, so their documentation is
ours; `tests.training.test_recipes` lists the few that they have not. A recipe is a TOML or JSON
file, or the name of a shipped one: `sft`, `dpo`, `kto`, `reward`, `rloo` and `pipeline`, each with
defaults for a GPU and for a small CPU. What a file does not name has the same defaults.
"""

import difflib
import json
import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from training.errors import RecipeInvalid

Device = Literal["cpu", "cuda"]


class _Fields(BaseModel):
    # An infinite number has no place in the JSON of a plan.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoraSettings(_Fields):
    """The adapter; fields of `peft.LoraConfig`.

    Rank 16 on all linear layers is what LoRA needs to match full fine-tuning on small data sets
    ("LoRA Without Regret", thinkingmachines.ai/blog/lora; TRL's `lora_without_regret` page).

    Attributes:
        lora_dropout: of `sft` alone; the other stages compare likelihoods, which dropout would
            blur, so TRL's trainers take it out.
    """

    r: int = Field(16, ge=1, le=512)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False


class Precision(_Fields):
    """How the base's weights are held; fields of `trl.ModelConfig`.

    Attributes:
        dtype: of the weights, or with 4 bits of what is computed with them.
        load_in_8bit, load_in_4bit: through bitsandbytes; 4 bits are nf4, whose scales are quantized
            again.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    load_in_8bit: bool = False
    load_in_4bit: bool = False

    @model_validator(mode="after")
    def _held_in_one_way(self) -> Self:
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("load_in_8bit and load_in_4bit are both true, but only one may be")
        return self


FLOAT32: Final = Precision()


class _Stage(Precision):
    """What every stage has; fields of `transformers.TrainingArguments`.

    Attributes:
        bf16: whether the forward pass computes in bfloat16; adapters stay in float32.
        save_steps: optimizer steps between two points from which a killed run goes on.
    """

    lora: LoraSettings = LoraSettings()
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

    @model_validator(mode="after")
    def _without_dropout(self) -> Self:
        if self.lora.lora_dropout and not isinstance(self, SftRecipe):
            raise ValueError("lora_dropout changes nothing outside sft")
        return self


class SftRecipe(_Stage):
    """Supervised fine-tuning on corrections and liked answers; `trl.SFTConfig`."""

    kind: Literal["sft"] = "sft"
    learning_rate: float = Field(1e-3, gt=0, lt=1)
    num_train_epochs: float = Field(4.0, gt=0, le=100)


class DpoRecipe(_Stage):
    """Preference pairs against the SFT policy; `trl.DPOConfig` (arxiv.org/abs/2305.18290).

    Attributes:
        beta: of the implicit reward; 0.1 is the paper's and TRL's.
        label_smoothing: share of pairs in which people are taken to have erred, for `robust`.
    """

    kind: Literal["dpo"] = "dpo"
    learning_rate: float = Field(5e-5, gt=0, lt=1)
    beta: float = Field(0.1, gt=0)
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _smoothed(self) -> Self:
        if self.label_smoothing and self.loss_type != "robust":
            raise ValueError("label_smoothing changes nothing unless loss_type is robust")
        return self


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
    choose (`tests.benchmarks.recipes`): where `rloo` shall do the work, give `sft` one at 2e-4, as
    the shipped `rloo` does.

    Attributes:
        max_grad_norm: so high that steps in which an answer fails weigh more than those in which
            all earn nearly the same.
        num_generations: answers drawn for each prompt; each one's baseline is the others' mean.
        beta: weight of the divergence from the SFT policy.
        max_completion_length: tokens of a drawn answer.
        max_length: tokens of a prompt with its drawn answer; a longer prompt is not asked. TRL has
            no such field here.
        length_limit: ratio of mean answer lengths, now over those that the stage began with, at
            which it ends: longer answers that earn ever more are a reward model being fooled.
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

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        answers = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if answers % self.num_generations:
            raise ValueError(
                "per_device_train_batch_size times gradient_accumulation_steps must be a multiple "
                "of num_generations: a step draws so many answers"
            )
        return self


StageRecipe = SftRecipe | DpoRecipe | KtoRecipe | RewardRecipe | RlooRecipe
StageKind = Literal["sft", "dpo", "kto", "reward", "rloo"]


class PipelineRecipe(_Fields):
    """Several stages, each beginning with the policy that the one before it left.

    What `dpo`, `kto` and `rloo` hold on to is the policy that `sft` left, however many stages stand
    between, or the base where it was left out. So `sft` comes first, and `reward` before `rloo`,
    which needs its model. All but `reward` train one adapter: they have the `lora` of `sft`. A
    stage without rows of its kind is left out, which its events say.
    """

    kind: Literal["pipeline"] = "pipeline"
    stages: tuple[Annotated[StageRecipe, Field(discriminator="kind")], ...] = (
        SftRecipe(),
        DpoRecipe(),
        KtoRecipe(),
        RewardRecipe(),
        RlooRecipe(),
    )

    @field_validator("stages")
    @classmethod
    def _one_adapter(cls, stages: tuple[StageRecipe, ...]) -> tuple[StageRecipe, ...]:
        begun, others = stages[:1], stages[1:]
        return begun + tuple(
            each if each.kind == "reward" else _going_on(begun[0], each) for each in others
        )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        kinds = [stage.kind for stage in self.stages]
        if not kinds:
            raise ValueError("there must be at least one stage")
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind of stage may come once")
        if "rloo" in kinds and "reward" not in kinds[: kinds.index("rloo")]:
            raise ValueError("rloo needs a reward stage before it, whose model it learns from")
        if kinds[0] != "sft" and set(kinds) != {"reward"}:
            raise ValueError("the first stage must be sft, whose policy the others hold on to")
        return self


def _going_on(begun: StageRecipe, stage: StageRecipe) -> StageRecipe:
    """A later stage of the policy, with the adapter that the first one began."""
    lora = begun.lora.model_copy(update={"lora_dropout": 0.0})
    if "lora" in stage.model_fields_set and stage.lora != lora:
        raise ValueError(
            f"{stage.kind} goes on with the adapter of the first stage, whose lora it must have or "
            "leave out"
        )
    return stage.model_copy(update={"lora": lora})


Recipe = Annotated[
    SftRecipe | DpoRecipe | KtoRecipe | RewardRecipe | PipelineRecipe, Field(discriminator="kind")
]
"""What a run does. `rloo` needs the reward model of its own run, so it only comes in a pipeline."""

_RECIPE: Final[TypeAdapter[Recipe]] = TypeAdapter(Recipe)
_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "sft": tuple(SftRecipe.model_fields),
    "dpo": tuple(DpoRecipe.model_fields),
    "kto": tuple(KtoRecipe.model_fields),
    "reward": tuple(RewardRecipe.model_fields),
    "rloo": tuple(RlooRecipe.model_fields),
    "pipeline": tuple(PipelineRecipe.model_fields),
    "lora": tuple(LoraSettings.model_fields),
}
"""Names that may be written into each table of a file."""
_BEGUN: Final = {"kind": "sft", "learning_rate": 2e-4, "num_train_epochs": 1.0}
_SHIPPED: Final[Mapping[str, Mapping[str, Any]]] = {
    "sft": {"kind": "sft"},
    "dpo": {"kind": "pipeline", "stages": [{"kind": "sft"}, {"kind": "dpo"}]},
    "kto": {"kind": "pipeline", "stages": [{"kind": "sft"}, {"kind": "kto"}]},
    "reward": {"kind": "reward"},
    "rloo": {"kind": "pipeline", "stages": [_BEGUN, {"kind": "reward"}, {"kind": "rloo"}]},
    "pipeline": {"kind": "pipeline"},
}
NAMES: Final = tuple(_SHIPPED)

_GPU_STAGE: Final[Mapping[str, Any]] = {
    "dtype": "bfloat16",
    "load_in_4bit": True,
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

    `dpo` and `kto` begin with `sft`, whose policy is their reference; `rloo` begins with a short
    `sft`, which leaves it something to choose, and the reward model that it learns from.

    Raises:
        RecipeInvalid: there is none of that name.
    """
    if name not in NAMES:
        raise RecipeInvalid(
            f"There is no recipe {name!r}{_nearest(name, NAMES)}",
            advice=f"Name one of {', '.join(NAMES)}, or a TOML or JSON file.",
        )
    return parse(_SHIPPED[name], device)


def parse(fields: Mapping[str, Any], device: Device = "cpu") -> Recipe:
    """A recipe from its fields; what is not named has its default.

    A preference stage alone begins with the base model, which is then its own reference.

    Args:
        device: whose defaults; to a stored plan, which names every field, it makes no difference.

    Raises:
        RecipeInvalid: a field is unknown or has an impossible value; the text names it.
    """
    if fields.get("kind") == "rloo":
        raise RecipeInvalid(
            "rloo cannot be alone: it needs a reward stage before it, whose model it learns from.",
            advice="Use the shipped recipe rloo, or a pipeline of sft, reward and rloo.",
        )
    try:
        return _RECIPE.validate_python(_on(device, fields))
    except ValidationError as error:
        raise _invalid(error) from error


def _on(device: Device, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A file's fields above the device's defaults, in each stage."""
    if device == "cpu":
        return dict(fields)  # the classes' own defaults
    if fields.get("kind") != "pipeline":
        smaller = _SMALLER_STEPS.get(str(fields.get("kind")), {})
        # Who names 8 bits wants them instead of the device's 4.
        bits = {"load_in_4bit": False} if fields.get("load_in_8bit") else {}
        return {**_GPU_STAGE, **smaller, **bits, **fields}
    stages = fields.get("stages", [{"kind": each.kind} for each in PipelineRecipe().stages])
    if isinstance(stages, list | tuple):
        stages = [_on(device, each) if isinstance(each, Mapping) else each for each in stages]
    return {**fields, "stages": stages}


def read(path: Path, device: Device = "cpu") -> Recipe:
    """A recipe from a TOML or JSON file.

    Raises:
        RecipeInvalid: it cannot be read, or is none; the text names the file.
    """
    try:
        text = path.read_text("utf-8")
        fields = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise RecipeInvalid(f"{path} cannot be read: {error}.") from error
    if not isinstance(fields, dict):
        raise RecipeInvalid(f"{path} holds no table of fields.")
    try:
        return parse(fields, device)
    except RecipeInvalid as error:
        raise RecipeInvalid(f"{path}: {error}", advice=error.advice) from error


def named_or_read(name: str, device: Device) -> Recipe:
    """A shipped recipe, or that of a file.

    Raises:
        RecipeInvalid: as `named` and `read`.
    """
    if name in NAMES or not Path(name).exists():
        return named(name, device)
    return read(Path(name), device)


def stages_of(recipe: Recipe) -> tuple[StageRecipe, ...]:
    """The stages that a run of this recipe goes through."""
    return recipe.stages if isinstance(recipe, PipelineRecipe) else (recipe,)


# -- What is wrong, in words ----------------------------------------------------------------------

_MUST: Final[Mapping[str, str]] = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "finite_number": "must be finite",
    "tuple_type": "must be a list",
    "string_type": "must be text, or a list of texts",
}
_MUST_OF_TYPES: Final[Mapping[str, str]] = {
    "float": "must be a number",
    "int": "must be a whole number",
    "bool": "must be true or false",
    "model": "must be a table of fields",
}
"""By the first word of what pydantic calls a fault, where that is not in `_MUST`."""


def _invalid(error: ValidationError) -> RecipeInvalid:
    """The first fault as a sentence, with how many more there are."""
    faults = error.errors(include_url=False)
    sentence, advice = _fault(faults[0])
    more = len({_place(each["loc"]) for each in faults}) - 1
    if more:
        sentence += f" There {'is' if more == 1 else 'are'} {more} more to correct."
    return RecipeInvalid(sentence, advice=advice)


def _fault(fault: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and what is allowed there where the sentence does not say it."""
    where, field = _place(fault["loc"])
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            where, _ = _place(fault["loc"][:-1])
            known = _FIELDS[where.rpartition(".")[2]]
            name = str(fault["loc"][-1])
            sentence = f"there is no field {name!r}{_nearest(name, known)}"
            return f"{where}: {sentence}", f"Fields: {', '.join(known)}."
        case "union_tag_not_found":
            return f"{where}: its kind is missing.", f"Kinds: {', '.join(_kinds(where))}."
        case "union_tag_invalid":
            kinds = _kinds(where)
            sentence = f"there is no kind {context['tag']!r}{_nearest(context['tag'], kinds)}"
            return f"{where}: {sentence}", f"Kinds: {', '.join(kinds)}."
        case "value_error":
            return f"{where}: {context['error']}.", ""
        case kind:
            must = _MUST.get(kind) or _MUST_OF_TYPES.get(kind.partition("_")[0], "cannot be")
            given = reprlib.repr(fault["input"])
            return f"{where}: {field or 'this'} is {given}, but {must.format(**context)}.", ""


def _place(parts: Iterable[int | str]) -> tuple[str, str]:
    """The table in which a fault is, such as `sft.lora` or `stage 2`, and the field."""
    table, field = "recipe", ""
    for part in parts:
        if part == "lora":
            table, field = f"{table}.lora", ""
        elif part in _FIELDS:  # of a stage, whose kind says which one it is
            table, field = str(part), ""
        elif isinstance(part, int) and field == "stages":
            table, field = f"stage {part + 1}", ""
        elif not field:
            field = str(part)
    return table, field


def _kinds(where: str) -> tuple[str, ...]:
    """What may be a whole recipe, and what a stage of one."""
    alone = ("sft", "dpo", "kto", "reward")
    return (*alone, "pipeline") if where == "recipe" else (*alone, "rloo")


def _nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else "."
