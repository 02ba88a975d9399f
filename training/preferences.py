"""What the stages share that learn from preferences: measures before and after, and one step."""

import json
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training import bootstrap
from training.base_model import being
from training.cores import add_gradients
from training.plan import write_whole
from training.shared_prompt import Group, Scorer
from training.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


def once(stage: Stage, name: str, measure: Callable[[], Any]) -> Any:
    """What was measured before the stage's first step; a run that goes on reads it again.

    Args:
        measure: its result must be of JSON's types.

    Raises:
        OSError: the disk does not take it.
    """
    file = stage.folder / f"{name}.json"
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        found = measure()
        write_whole(file, json.dumps(found))
        return found


def reference_totals(stage: Stage, scorer: Scorer, groups: Sequence[Group]) -> list[list[float]]:
    """What the policy that a stage holds on to says of answers (`Scorer.totals`), measured `once`.

    Args:
        scorer: of the policy that the stage begins with, before its first step.

    Raises:
        OSError: the disk does not take it.
    """

    def measure() -> list[list[float]]:
        if stage.reference == stage.policy:
            return scorer.totals(groups)
        with being(scorer.policy, stage.reference):
            return scorer.totals(groups)

    found: list[list[float]] = once(stage, "reference", measure)
    return found


def compared(
    name: str,
    before: Sequence[float],
    after: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """A measure of held-out rows before and after a stage, with the interval of what was gained.

    Args:
        before, after: of the same rows, more is better.
        groups: the question of each row; see `bootstrap.mean`.

    Returns:
        `held_out_<name>_before`, `held_out_<name>`, `held_out_<name>_gain`, `…_gain_low` and
        `…_gain_high` (95 %); nothing without rows, and no interval of one question.
    """
    if not before:
        return {}
    gain = bootstrap.difference(after, before, groups=groups)
    whole = f"held_out_{name}"
    told = {
        f"{whole}_before": statistics.fmean(before),
        whole: statistics.fmean(after),
        f"{whole}_gain": gain.value,
    }
    if gain.high < bootstrap.UNKNOWN:
        told |= {f"{whole}_gain_low": gain.low, f"{whole}_gain_high": gain.high}
    return told


def step_on_cores(
    trainer: Any, model: Any, inputs: Mapping[str, "Tensor"], parts: Sequence[Mapping[str, Any]]
) -> "Tensor":
    """A training step of one of TRL's trainers whose loss is the mean over parts of the batch.

    Args:
        parts: batches for `trainer.compute_loss`, independent of each other.
    """
    tokens = trainer._total_train_tokens + int(inputs["attention_mask"].sum())
    share = len(parts) * trainer.current_gradient_accumulation_steps
    model.train()
    loss = add_gradients(model, lambda part: trainer.compute_loss(model, part) / share, parts)
    # TRL's own count is not made for several threads.
    trainer._total_train_tokens = tokens
    trainer._metrics["train"]["num_tokens"] = [tokens]
    return loss


def single_pairs(batch: Mapping[str, "Tensor"]) -> list[dict[str, "Tensor"]]:
    """The pairs of a batch as batches of one.

    Args:
        batch: of TRL's collators: tensors of N, one for each pair, or of 2 N, of which the first
            half are the preferred answers.
    """
    count = len(batch["input_ids"]) // 2
    return [
        {
            key: values[number::count] if len(values) > count else values[number : number + 1]
            for key, values in batch.items()
        }
        for number in range(count)
    ]
