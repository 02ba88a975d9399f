"""A reward model: a number for an answer, learnt from which of two people preferred.

The loss is Bradley and Terry's, as `feedback.rankings` ranks models by it; TRL computes it on
numbers that are ours, because both answers of a pair share their prompt.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from feedback.rows import Basis
from training import bootstrap
from training.base_model import (
    Reader,
    answering,
    as_trained,
    base_weights,
    load_base,
    load_tokenizer,
    lora_fields,
    new_trainer,
)
from training.cores import map_on_cores
from training.dpo import paired
from training.errors import BaseUnusable, NotEnoughFeedback
from training.plan import Plan
from training.preferences import compared, once, single_pairs, step_on_cores
from training.recipes import FLOAT32, Precision, RewardRecipe, stages_of
from training.rows import read_rows, read_rows_with_basis
from training.shared_prompt import Group, may_share, of_each_answer
from training.stage import Stage, StageResult, arguments, train

if TYPE_CHECKING:
    from torch import Tensor

    from training.evaluation import Prompt


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """What people would think of answers; only differences between answers to a prompt mean much.

    Calling it is calling a sequence classifier, so TRL's loss runs on it unchanged.

    Attributes:
        model: a `peft.PeftModel` around a sequence classifier with one label.
        shared: whether answers to one prompt are computed together; see `shared_prompt.may_share`.
    """

    model: Any
    shared: bool = False

    @classmethod
    def load(cls, weights: Path, adapter: Path, *, precision: Precision = FLOAT32) -> Self:
        """The reward model of an ended stage; it answers, and does not learn.

        Args:
            weights: from `base_model.base_weights`.
            adapter: what the stage left.
            precision: of the base; a stage's recipe is one.

        Raises:
            BaseUnusable: the weights cannot be loaded, or the adapter does not fit them.
        """
        from peft import PeftModel

        base = _classifier(weights, precision)
        try:
            model = PeftModel.from_pretrained(base, adapter)
        except (ValueError, OSError, RuntimeError) as error:
            raise BaseUnusable(f"The reward model does not fit {weights.name}: {error}") from error
        return cls(model=model.eval())

    def sharing(self, groups: Sequence[Group]) -> "RewardModel":
        """The same, sharing prompts where the model allows it; tried on the longest group."""
        with answering(self.model):
            shared = may_share(self.model, self._of_group, groups)
        return RewardModel(model=self.model, shared=shared)

    def _of_group(self, group: Group) -> "list[Tensor]":
        """The number of each answer, of shape ()."""
        base = self.model.get_base_model()
        device = next(base.parameters()).device
        inputs = group.inputs(device)
        hidden = base.base_model(**inputs, use_cache=False).last_hidden_state[0, group.ends()]
        head = base.score.modules_to_save["default"]  # peft's copy, which learns
        return list(head(hidden.to(head.weight.dtype))[:, 0].float().unbind())

    def rewards(self, groups: Sequence[Group]) -> list[list[float]]:
        """The number of each answer of each group, without training."""
        import torch

        def of(group: Group) -> list[float]:
            with torch.no_grad():
                return [
                    float(each)
                    for each in of_each_answer(self._of_group, group, shared=self.shared)
                ]

        with answering(self.model):
            return map_on_cores(self.model, of, groups)

    def __call__(self, *, input_ids: "Tensor", attention_mask: "Tensor", **_: Any) -> Any:
        """The numbers of a padded batch of pairs, preferred answers first: `logits` (2 N, 1)."""
        import torch

        rows = [
            ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]
        half = len(rows) // 2
        found = [
            of_each_answer(self._of_group, _common(chosen, rejected), shared=self.shared)
            for chosen, rejected in zip(rows[:half], rows[half:], strict=True)
        ]
        chosen, rejected = zip(*found, strict=True)
        return SimpleNamespace(logits=torch.stack([*chosen, *rejected])[:, None])


def _common(first: Sequence[int], second: Sequence[int]) -> Group:
    """Two rows of tokens as what they share and how each goes on; neither begins with the other."""
    same = next(place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return Group(prompt=list(first[:same]), answers=[list(first[same:]), list(second[same:])])


def reward_scores(
    plan: Plan, adapter: Path, answers: "Sequence[tuple[Prompt, str]]"
) -> list[float]:
    """What a run's reward model says of answers to prompts.

    Args:
        adapter: what the run's reward stage left.

    Raises:
        BaseUnusable: the base's weights cannot be had, or the adapter does not fit them.
        InvalidRequest: the base's template refuses a prompt.
    """
    recipe = next(each for each in stages_of(plan.recipe) if each.kind == "reward")
    weights = base_weights(plan.base, home=plan.home)
    reader = Reader.of(plan.base)
    groups = [
        Group(prompt=reader.prompt(prompt), answers=[reader.answer(text)])
        for prompt, text in answers
    ]
    model = RewardModel.load(weights, adapter, precision=recipe)
    return [reward for (reward,) in model.rewards(groups)]


def run(stage: Stage, recipe: RewardRecipe) -> StageResult:
    """Train a reward model on the snapshot's preference pairs.

    The held-out measure is `accuracy`, the share of pairs whose preferred answer gets the higher
    number, with its own interval beside that of what was gained. `answers_accuracy` is that of the
    pairs of two answers that models wrote: who tells people's own words from a model's knows the
    better side of every correction, and not yet which answer people prefer.

    Raises:
        NotEnoughFeedback: there is no pair that fits `max_length`.
        BaseUnusable, RunCancelled, TrainingError: as their names say.
    """
    rows = read_rows(stage.snapshot, "preference", "train")
    pairs = _different(paired(stage.reader, rows, max_length=recipe.max_length))
    if not pairs:
        raise NotEnoughFeedback("No comparison and no correction of an answer to learn from.")
    held_out, bases = _held_out(stage, recipe)
    model = RewardModel(model=_untrained(stage, recipe)).sharing(pairs)
    with as_trained(recipe):
        before = once(stage, "before", lambda: model.rewards(held_out))
    trainer = trainer_of(stage, recipe, model, pairs)
    train(trainer, stage)
    with as_trained(recipe):
        after = model.rewards(held_out)
    metrics = {"train_rows": float(len(pairs)), "held_out_rows": float(len(held_out))}
    measured = list(zip(held_out, before, after, strict=True))
    of_models = [each for each, basis in zip(measured, bases, strict=True) if basis != "correction"]
    metrics |= _measured(measured) | _measured(of_models, of="answers_")
    return stage.finish(trainer, rows=len(pairs), metrics=metrics)


def _held_out(stage: Stage, recipe: RewardRecipe) -> tuple[list[Group], list[Basis]]:
    """The pairs to measure on, and what people did for each."""
    groups, bases = [], []
    for row, basis in read_rows_with_basis(stage.snapshot, "preference", "held_out"):
        for pair in _different(paired(stage.reader, [row], max_length=recipe.max_length)):
            groups.append(pair)
            bases.append(basis)
    return groups, bases


def _different(pairs: Sequence[Group]) -> list[Group]:
    """Pairs of two answers; the same tokens twice prefer nothing."""
    return [pair for pair in pairs if pair.answers[0] != pair.answers[1]]


def _untrained(stage: Stage, recipe: RewardRecipe) -> Any:
    """The base with a new adapter and a new head, whose numbers mean nothing yet."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    base = _classifier(stage.weights, recipe)
    try:
        return get_peft_model(base, LoraConfig(task_type="SEQ_CLS", **lora_fields(recipe.lora)))
    except (ValueError, RuntimeError) as error:
        raise BaseUnusable(f"The adapter does not fit {stage.weights.name}: {error}") from error


def _classifier(weights: Path, precision: Precision) -> Any:
    """The base with a head that gives one number; the adapter brings the head that counts."""
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    with suppress_seqcls_warning():
        return load_base(
            weights,
            precision=precision,
            model_class="AutoModelForSequenceClassification",
            num_labels=1,
        )


Measured = tuple[Group, Sequence[float], Sequence[float]]
"""A held-out pair, and the numbers of its answers before and after training."""


def _measured(pairs: Sequence[Measured], *, of: str = "") -> dict[str, float]:
    """Accuracy and margin of some pairs, and how many questions they rest on.

    Args:
        of: how the names of the measures begin.
    """
    if not pairs:
        return {}
    questions = [pair.question for pair, _, _ in pairs]
    known = [float(chosen > rejected) for _, (chosen, rejected), _ in pairs]
    right = [float(chosen > rejected) for _, _, (chosen, rejected) in pairs]
    reached = bootstrap.mean(right, groups=questions)
    margin = statistics.fmean(chosen - rejected for _, _, (chosen, rejected) in pairs)
    return {
        **compared(f"{of}accuracy", known, right, groups=questions),
        f"held_out_{of}questions": float(len(set(questions))),
        f"held_out_{of}accuracy_low": reached.low,
        f"held_out_{of}accuracy_high": reached.high,
        f"held_out_{of}margin": margin,
    }


def trainer_of(
    stage: Stage, recipe: RewardRecipe, model: RewardModel, pairs: Sequence[Group]
) -> Any:
    """TRL's reward trainer, whose loss runs on our numbers."""
    from datasets import Dataset
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    class SharedPromptTrainer(RewardTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            with self.accelerator.autocast():
                return super().compute_loss(  # type: ignore[no-untyped-call]
                    reward_model, inputs, return_outputs
                )

        def training_step(
            self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
        ) -> Any:
            if self.args.device.type != "cpu":
                return super().training_step(  # type: ignore[no-untyped-call]
                    model, inputs, num_items_in_batch
                )
            return step_on_cores(self, model, inputs, single_pairs(inputs))

    reward_model = model
    return new_trainer(
        SharedPromptTrainer,
        model=model.model,
        args=RewardConfig(**arguments(stage, recipe)),
        train_dataset=Dataset.from_list(
            [
                {"chosen_ids": pair.prompt + chosen, "rejected_ids": pair.prompt + rejected}
                for pair in pairs
                for chosen, rejected in [pair.answers]
            ]
        ),
        processing_class=load_tokenizer(stage.weights),
    )
