"""Direct preference optimization: preferred answers become likelier than the others.

The reference is the policy that `sft` left, however many stages stand between, or the base where
there was none. What it says of the pairs is computed once, before the first step, with its adapter
on the same base, so no second model is held.
"""

from collections.abc import Sequence
from typing import Any

from training.base_model import (
    Reader,
    as_trained,
    load_policy,
    load_tokenizer,
    new_trainer,
)
from training.errors import NotEnoughFeedback
from training.preferences import (
    compared,
    once,
    reference_totals,
    single_pairs,
    step_on_cores,
)
from training.recipes import DpoRecipe
from training.rows import TrainingRow, question_of, read_rows
from training.shared_prompt import Group, Scorer
from training.stage import Stage, StageResult, arguments, train


def run(stage: Stage, recipe: DpoRecipe) -> StageResult:
    """Train the policy on the snapshot's preference pairs.

    The held-out measures are `accuracy`, the share of pairs whose preferred answer is the likelier
    one per token, and `margin`, how much likelier it is (nats per answer), of the policy that the
    stage begins with and of the one that it leaves.

    Raises:
        NotEnoughFeedback: there is no pair that fits `max_length`.
        BaseUnusable, RunCancelled, TrainingError: as their names say.
    """
    rows = read_rows(stage.snapshot, "preference", "train")
    pairs = paired(stage.reader, rows, max_length=recipe.max_length)
    if not pairs:
        raise NotEnoughFeedback("No comparison and no correction of an answer to learn from.")
    held_out_rows = read_rows(stage.snapshot, "preference", "held_out")
    held_out = paired(stage.reader, held_out_rows, max_length=recipe.max_length)
    policy = load_policy(
        stage.weights,
        lora=recipe.lora,
        precision=recipe,
        adapter=stage.policy,
        seed=recipe.seed,
    )
    scorer = Scorer.of(policy, pairs)
    with as_trained(recipe):
        reference = reference_totals(stage, scorer, pairs)
        before = once(stage, "before", lambda: scorer.totals(held_out))
    trainer = trainer_of(stage, recipe, scorer, pairs, reference)
    train(trainer, stage)
    with as_trained(recipe):
        after = scorer.totals(held_out)
    metrics = {"train_rows": float(len(pairs)), "held_out_rows": float(len(held_out))}
    metrics |= _measured(held_out, before, after)
    return stage.finish(trainer, rows=len(pairs), metrics=metrics)


def paired(reader: Reader, rows: Sequence[TrainingRow], *, max_length: int) -> list[Group]:
    """Preference pairs as ids, the preferred answer first; one that is too long is left out."""
    found = []
    for row in rows:
        if row.rejected is None:
            continue
        answers = [reader.answer(row.chosen), reader.answer(row.rejected)]
        prompt, question = reader.prompt(row.prompt), question_of(row.prompt)
        group = Group(prompt=prompt, answers=answers, question=question)
        if len(group.prompt) + max(map(len, answers)) <= max_length:
            found.append(group)
    return found


def _measured(
    pairs: Sequence[Group], before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]
) -> dict[str, float]:
    questions = [pair.question for pair in pairs]

    def likelier(pair: Group, totals: Sequence[float]) -> float:
        chosen, rejected = (
            total / len(answer) for total, answer in zip(totals, pair.answers, strict=True)
        )
        return float(chosen > rejected)

    return compared(
        "accuracy",
        [likelier(*each) for each in zip(pairs, before, strict=True)],
        [likelier(*each) for each in zip(pairs, after, strict=True)],
        groups=questions,
    ) | compared(
        "margin",
        [chosen - rejected for chosen, rejected in before],
        [chosen - rejected for chosen, rejected in after],
        groups=questions,
    )


def trainer_of(
    stage: Stage,
    recipe: DpoRecipe,
    scorer: Scorer,
    pairs: Sequence[Group],
    reference: Sequence[Sequence[float]],
) -> Any:
    """TRL's DPO trainer, whose losses run on our log probabilities.

    Args:
        reference: log probability of both answers of each pair, by the stage's reference.
    """
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class SharedPromptTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            return self._compute_loss(  # type: ignore[no-untyped-call]
                scorer, inputs, return_outputs
            )

        def training_step(
            self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
        ) -> Any:
            if self.args.device.type != "cpu":
                return super().training_step(  # type: ignore[no-untyped-call]
                    model, inputs, num_items_in_batch
                )
            return step_on_cores(self, model, inputs, single_pairs(inputs))

    trainer = new_trainer(
        SharedPromptTrainer,
        model=scorer.policy,
        args=DPOConfig(
            **arguments(stage, recipe)
            | {"loss_type": [recipe.loss_type], "router_aux_loss_coef": 0.0}
        ),
        train_dataset=Dataset.from_list(
            [
                {
                    "prompt_ids": pair.prompt,
                    "chosen_ids": pair.answers[0],
                    "rejected_ids": pair.answers[1],
                    "ref_chosen_logps": chosen,
                    "ref_rejected_logps": rejected,
                }
                for pair, (chosen, rejected) in zip(pairs, reference, strict=True)
            ]
        ),
        processing_class=load_tokenizer(stage.weights),
    )
    trainer.precompute_ref_logps = True  # they come with the rows, not from TRL's own pass
    return trainer
