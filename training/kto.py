"""Learning from single votes: liked answers become likelier, disliked ones less likely.

The reference is the policy that `sft` left, as in `training.dpo`. How far the policy has moved from
it at all (the divergence of the paper's equation 8) is estimated as TRL does: from answers of the
same batch behind each other's prompts.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from training.base_model import (
    Reader,
    as_trained,
    load_policy,
    load_tokenizer,
    new_trainer,
)
from training.cores import map_on_cores
from training.errors import NotEnoughFeedback
from training.preferences import compared, once, reference_totals, step_on_cores
from training.recipes import KtoRecipe
from training.rows import TrainingRow, question_of, read_rows
from training.shared_prompt import Group, Scorer
from training.stage import Stage, StageResult, arguments, train

if TYPE_CHECKING:
    from torch import Tensor


def run(stage: Stage, recipe: KtoRecipe) -> StageResult:
    """Train the policy on the snapshot's single votes.

    The held-out measure is `value`, the paper's value function of how far answers moved since the
    stage began, which in a pipeline is not since `sft`: what stages before it gained is theirs. So
    it begins at 0.5, which says nothing; 1 is an answer that people liked made certain or one that
    they disliked made impossible. Liked and disliked rows weigh the same in it.

    Raises:
        NotEnoughFeedback: there are no two votes that fit `max_length`.
        BaseUnusable, RunCancelled, TrainingError: as their names say.
    """
    votes = _voted(stage, recipe, read_rows(stage.snapshot, "unpaired", "train"))
    if len(votes) < 2:
        raise NotEnoughFeedback("No votes to learn from.")
    # TRL pairs the rows of a batch before it trains, so their order is fixed here.
    votes = [votes[place] for place in np.random.default_rng(recipe.seed).permutation(len(votes))]
    held_out = _voted(stage, recipe, read_rows(stage.snapshot, "unpaired", "held_out"))
    policy = load_policy(
        stage.weights,
        lora=recipe.lora,
        precision=recipe,
        adapter=stage.policy,
        seed=recipe.seed,
    )
    batch = max(recipe.per_device_train_batch_size, 2)  # one row says nothing of the others
    votes = rotated(votes, batch=batch, max_length=recipe.max_length)
    held_out = rotated(held_out, batch=max(len(held_out), 1), max_length=recipe.max_length)
    groups = [group for group, _ in votes]
    tested = [group for group, _ in held_out]
    scorer = Scorer.of(policy, groups)
    with as_trained(recipe):
        reference = reference_totals(stage, scorer, groups)
        before = once(stage, "before", lambda: scorer.totals(tested))
    trainer = trainer_of(stage, recipe, scorer, votes, reference, batch=batch)
    train(trainer, stage)
    with as_trained(recipe):
        after = scorer.totals(tested)
    metrics = {"train_rows": float(len(votes)), "held_out_rows": float(len(held_out))}
    metrics |= _measured(held_out, before, after, beta=recipe.beta)
    return stage.finish(trainer, rows=len(votes), metrics=metrics)


Vote = tuple[Group, bool]
"""A prompt with its one answer, and whether people liked it; `rotated` adds another answer."""


def _voted(stage: Stage, recipe: KtoRecipe, rows: Sequence[TrainingRow]) -> list[Vote]:
    return voted(stage.reader, rows, max_length=recipe.max_length)


def voted(reader: Reader, rows: Sequence[TrainingRow], *, max_length: int) -> list[Vote]:
    """Votes as ids; one that is too long is left out."""
    found = []
    for row in rows:
        if row.label is None:
            continue
        group = Group(
            prompt=reader.prompt(row.prompt),
            answers=[reader.answer(row.chosen)],
            question=question_of(row.prompt),
        )
        if len(group) <= max_length:
            found.append((group, row.label))
    return found


def rotated(votes: Sequence[Vote], *, batch: int, max_length: int) -> list[Vote]:
    """The votes with a second answer each: that of the row before it in its batch.

    It estimates how far the policy has moved on answers that were not given to the prompt. One that
    does not fit behind the prompt is cut to the room there, which the prompt's own answer fits.
    """
    found = []
    for begin in range(0, len(votes), batch):
        rows = votes[begin : begin + batch]
        for number, (group, liked) in enumerate(rows):
            other = rows[number - 1][0].answers[0][: max_length - len(group.prompt)]
            found.append((replace(group, answers=[group.answers[0], other]), liked))
    return found


def _measured(
    votes: Sequence[Vote],
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    *,
    beta: float,
) -> dict[str, float]:
    if not votes:
        return {}
    moved = [now[0] - then[0] for now, then in zip(after, before, strict=True)]
    drift = statistics.fmean(now[1] - then[1] for now, then in zip(after, before, strict=True))
    weights = _weights([liked for _, liked in votes])

    def value(ratio: float, divergence: float, liked: bool) -> float:
        gain = ratio - divergence if liked else divergence - ratio
        return 1 / (1 + math.exp(-max(min(beta * gain, 50.0), -50.0)))

    labels = [liked for _, liked in votes]
    return compared(
        "value",
        [weights[liked] * 0.5 for liked in labels],
        [
            weights[liked] * value(ratio, max(drift, 0.0), liked)
            for ratio, liked in zip(moved, labels, strict=True)
        ],
        groups=[group.question for group, _ in votes],
    )


def _weights(labels: Sequence[bool]) -> dict[bool, float]:
    """What makes liked and disliked rows weigh the same, 1 on average."""
    counts = {label: sum(label == each for each in labels) for label in (True, False)}
    sides = sum(count > 0 for count in counts.values())
    return {
        label: len(labels) / (sides * count) if count else 1.0 for label, count in counts.items()
    }


def trainer_of(
    stage: Stage,
    recipe: KtoRecipe,
    scorer: Scorer,
    votes: Sequence[Vote],
    reference: Sequence[Sequence[float]],
    *,
    batch: int,
) -> Any:
    """TRL's KTO trainer, whose loss runs on our log probabilities.

    Args:
        votes: as `rotated` makes them.
        reference: log probability of each vote's own answer and of the other one, by the stage's
            reference.
        batch: rows of a batch.
    """
    import torch
    from datasets import Dataset
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    class SharedPromptTrainer(KTOTrainer):
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

        def _compute_kl_logps(self, model: Any, batch: dict[str, Any]) -> Any:
            if "KL_logps" in batch:
                return batch["KL_logps"]
            return super()._compute_kl_logps(model, batch)  # type: ignore[no-untyped-call]

        def training_step(
            self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
        ) -> Any:
            if self.args.device.type != "cpu":
                return super().training_step(  # type: ignore[no-untyped-call]
                    model, inputs, num_items_in_batch
                )
            rows = single_votes(inputs)
            moved = map_on_cores(model, lambda row: self._compute_kl_logps(scorer, row), rows)
            whole = {"KL_logps": torch.cat(moved), "ref_KL_logps": inputs["ref_KL_logps"]}
            return step_on_cores(self, model, inputs, [row | whole for row in rows])

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            kept = self._metrics["train"]
            liked, disliked = kept.get("rewards/chosen"), kept.get("rewards/rejected")
            if liked and disliked:  # TRL compares them within a batch only, and ours are single
                kept["rewards/margins"] = [statistics.fmean(liked) - statistics.fmean(disliked)]
            super().log(logs, start_time)

    weights = _weights([liked for _, liked in votes])
    given = {
        True: recipe.desirable_weight,
        False: recipe.undesirable_weight,
    }
    desirable, undesirable = (
        weights[label] if given[label] is None else given[label] for label in (True, False)
    )
    trainer = new_trainer(
        SharedPromptTrainer,
        model=scorer.policy,
        args=KTOConfig(
            **arguments(stage, recipe)
            | {
                "desirable_weight": desirable,
                "undesirable_weight": undesirable,
                "per_device_train_batch_size": batch,
                "max_length": None,  # what is too long was left out; TRL would cut it unseen
                "router_aux_loss_coef": 0.0,
            }
        ),
        train_dataset=Dataset.from_list(
            [
                {
                    "prompt_ids": group.prompt,
                    "completion_ids": group.answers[0],
                    "KL_completion_ids": group.answers[1],
                    "label": liked,
                    "ref_logps": own_total,
                    "ref_KL_logps": other_total,
                }
                for (group, liked), (own_total, other_total) in zip(votes, reference, strict=True)
            ]
        ),
        processing_class=load_tokenizer(stage.weights),
    )
    trainer.precompute_ref_logps = True  # they come with the rows, not from TRL's own pass
    return trainer


def single_votes(batch: Mapping[str, "Tensor"]) -> list[dict[str, "Tensor"]]:
    """The rows of a batch as batches of one."""
    return [
        {key: values[number : number + 1] for key, values in batch.items()}
        for number in range(len(batch["label"]))
    ]
