"""Supervised fine-tuning: corrections and liked answers are imitated.

Why TRL's trainer with a loss of our own: as it comes it scores every position of the prompt against
the whole vocabulary, which on a CPU takes longer than the rest of the step. The loss is the same:
the negative log-likelihood of the answer's tokens, their mean over the step.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.base_model import (
    answering,
    as_trained,
    load_policy,
    load_tokenizer,
    new_trainer,
)
from training.cores import add_gradients, map_on_cores
from training.errors import NotEnoughFeedback
from training.preferences import compared, once
from training.recipes import SftRecipe
from training.rows import Rendered, TrainingRow, read_rows, rendered
from training.stage import Stage, StageResult, arguments, padded, train

if TYPE_CHECKING:
    from torch import Tensor


def run(stage: Stage, recipe: SftRecipe) -> StageResult:
    """Train the policy on the snapshot's SFT rows.

    Raises:
        NotEnoughFeedback: there is no row that fits `max_length`.
        BaseUnusable, RunCancelled, TrainingError: as their names say.
    """
    rows = _rendered(stage, recipe, read_rows(stage.snapshot, "sft", "train"))
    if not rows:
        raise NotEnoughFeedback("No correction and no strongly liked answer to learn from.")
    policy = load_policy(
        stage.weights,
        lora=recipe.lora,
        precision=recipe,
        adapter=stage.policy,
        seed=recipe.seed,
    )
    held_out = _rendered(stage, recipe, read_rows(stage.snapshot, "sft", "held_out"))
    with as_trained(recipe):
        before = once(stage, "before", lambda: row_losses(policy, held_out))
    trainer = trainer_of(stage, recipe, policy, rows)
    train(trainer, stage)
    with as_trained(recipe):
        after = row_losses(policy, held_out)
    metrics = {"train_rows": float(len(rows)), "held_out_rows": float(len(held_out))}
    if held_out:
        metrics |= {
            "held_out_loss_before": statistics.fmean(before),
            "held_out_loss": statistics.fmean(after),
        }
    metrics |= compared(
        "log_likelihood",
        [-each for each in before],
        [-each for each in after],
        groups=[row.question for row in held_out],
    )
    return stage.finish(trainer, rows=len(rows), metrics=metrics)


def _rendered(stage: Stage, recipe: SftRecipe, rows: Sequence[TrainingRow]) -> list[Rendered]:
    pairs = [(row.prompt, row.chosen) for row in rows]
    return rendered(stage.reader, pairs, max_length=recipe.max_length)


def trainer_of(stage: Stage, recipe: SftRecipe, policy: Any, rows: Sequence[Rendered]) -> Any:
    """TRL's SFT trainer, which computes scores only where there is loss."""
    import torch
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class CompletionTrainer(SFTTrainer):
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            losses, correct = answer_losses(model, inputs)
            self._count(inputs, correct)
            return losses.sum() / (num_items_in_batch or len(losses))

        def training_step(
            self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
        ) -> Any:
            if (
                self.args.device.type != "cpu"
                or num_items_in_batch is None
                or recipe.lora.lora_dropout
            ):
                # Threads would draw what dropout leaves out in an order that nobody knows.
                return super().training_step(  # type: ignore[no-untyped-call]
                    model, inputs, num_items_in_batch
                )
            model.train()
            hits = []

            def loss_of(row: dict[str, Any]) -> Any:
                losses, correct = answer_losses(model, row)
                hits.append(correct)
                return losses.sum() / num_items_in_batch

            loss = add_gradients(model, loss_of, single_rows(inputs))
            self._count(inputs, torch.cat(hits))
            return loss

        def _count(self, inputs: dict[str, Any], correct: Any) -> None:
            self._total_train_tokens += int(inputs["attention_mask"].sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            self._metrics["train"]["mean_token_accuracy"].append(float(correct.float().mean()))

    data = Dataset.from_list(
        [{"input_ids": row.prompt + row.answer, "labels": row.labels} for row in rows]
    )
    return new_trainer(
        CompletionTrainer,
        model=policy,
        args=SFTConfig(
            **arguments(stage, recipe) | {"dataset_kwargs": {"skip_prepare_dataset": True}}
        ),
        data_collator=collated,
        train_dataset=data,
        processing_class=load_tokenizer(stage.weights),
    )


def collated(rows: Sequence[dict[str, Any]]) -> dict[str, "Tensor"]:
    """A batch whose answers end together, so that few positions need scores."""
    import torch

    mask = padded([[1] * len(row["input_ids"]) for row in rows], 0)
    return {
        "input_ids": padded([row["input_ids"] for row in rows], 0),
        "attention_mask": mask,
        "position_ids": torch.clamp(mask.cumsum(-1) - 1, min=0),
        "labels": padded([row["labels"] for row in rows], -100),
    }


def single_rows(batch: Mapping[str, "Tensor"]) -> list[dict[str, "Tensor"]]:
    """The rows of a batch as batches of one, without padding.

    The longest come first: where a short one is the last, all cores have work until the end.
    """
    lengths = batch["attention_mask"].sum(-1).tolist()
    longest = sorted(enumerate(lengths), key=lambda each: -each[1])
    return [
        {key: values[number : number + 1, -length:] for key, values in batch.items()}
        for number, length in longest
    ]


def answer_losses(model: Any, inputs: Mapping[str, Any]) -> tuple["Tensor", "Tensor"]:
    """The loss of each token of the answers, and whether it would be the likeliest.

    Args:
        inputs: as `collated` makes them; answers end with the batch.

    Returns:
        Two tensors of shape (number of answer tokens,).
    """
    import torch

    labels = inputs["labels"][:, 1:]
    wanted = labels != -100
    kept = int(wanted.any(0).int().argmax())  # the first position whose successor is learnt
    outputs = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        position_ids=inputs["position_ids"],
        logits_to_keep=inputs["input_ids"].shape[1] - kept,
        use_cache=False,
    )
    scores = outputs.logits[:, :-1][wanted[:, kept:]].float()
    targets = labels[wanted]
    losses = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    return losses, scores.argmax(-1) == targets


def row_losses(policy: Any, rows: Sequence[Rendered]) -> list[float]:
    """Mean loss of each row's answer tokens, without training."""
    import torch

    device = next(policy.parameters()).device

    def loss(row: Rendered) -> float:
        batch = collated([{"input_ids": row.prompt + row.answer, "labels": row.labels}])
        inputs = {key: each.to(device) for key, each in batch.items()}
        with torch.no_grad():
            return float(answer_losses(policy, inputs)[0].mean())

    with answering(policy):
        return map_on_cores(policy, loss, rows)
