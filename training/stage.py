"""What every stage of a run shares: its folder, its progress, and going on after a kill.

A stage writes checkpoints with optimizer, schedule, random numbers and data position; one counts
only once its mark is written, so a kill in the middle of writing costs the steps since the one
before. What a stage leaves is `adapter/` and `result.json`; a stage that has them is not run again.
"""

import errno
import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training.base_model import Reader
from training.device import device_name
from training.errors import DiskFull, OutOfMemory, RunCancelled, TrainingError
from training.execute_files import RESULT
from training.plan import write_whole
from training.recipes import Precision, StageKind, StageRecipe

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)

COMPLETE: Final = "complete"
"""The mark of a checkpoint that is whole."""
_ALLOCATION_FAILED: Final = ("out of memory", "can't allocate memory", "cannot allocate memory")
_DISK_REFUSES: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WRITE_FAILED: Final = "enforce fail at inline_container.cc"
"""What torch says of a file that it could not write, whatever the reason."""

ADVICE_ON_MEMORY: Final = (
    "Raise training.memory_mb; or, where a stage learns, lower per_device_train_batch_size (and "
    "raise gradient_accumulation_steps by as much), lower max_length, or set load_in_8bit or "
    "load_in_4bit."
)
ADVICE_ON_RLOOS_MEMORY: Final = (
    "Raise training.memory_mb; or lower num_generations, max_completion_length, max_length, or "
    "per_device_train_batch_size times gradient_accumulation_steps, which is one batch here; or "
    "set load_in_8bit or load_in_4bit."
)
ADVICE_ON_DISK: Final = "Make room on the disk; the run goes on from its last checkpoint."


@dataclass(kw_only=True)
class Events:
    """`events.jsonl` of a run: what its process tells whoever watches it."""

    file: Path

    def tell(self, **event: Any) -> None:
        """Append one event; readers see whole lines only.

        Raises:
            OSError: the disk does not take it.
        """
        line = json.dumps(event, default=float) + "\n"
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage left.

    Attributes:
        adapter: PEFT directory of the policy, or of the reward model.
        rows: that it learnt from.
        metrics: its own held-out measure and what else is worth telling, by name.
        device: that computed it, or the last one where it went on elsewhere.
    """

    adapter: Path
    rows: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    device: str = "unknown"


@dataclass(kw_only=True)
class Stage:
    """One stage of a run.

    Attributes:
        folder: the stage's own.
        weights: the base's Hugging Face directory.
        reader: makes the prompts.
        snapshot: the rows' folder.
        policy: adapter of the stage before, to begin with; None = the base.
        reference: adapter of the policy to hold on to, the one that `sft` left; None = the base.
        reward_model: adapter of the reward stage, for `rloo`.
        cancelled: asked after every step.
    """

    kind: StageKind
    folder: Path
    weights: Path
    reader: Reader
    snapshot: Path
    events: Events
    policy: Path | None = None
    reference: Path | None = None
    reward_model: Path | None = None
    cancelled: Callable[[], bool] = lambda: False

    def note(self, text: str) -> None:
        """Tell whoever watches the run something in words."""
        logger.info("%s: %s", self.kind, text, extra={"action": "stage_note", "stage": self.kind})
        self.events.tell(stage=self.kind, note=text)

    @property
    def result(self) -> StageResult | None:
        """What the stage left; None while it has not ended."""
        try:
            fields = json.loads((self.folder / RESULT).read_bytes())
        except FileNotFoundError:
            return None
        return StageResult(**{**fields, "adapter": Path(fields["adapter"])})

    def finish(self, trainer: "Trainer", *, rows: int, metrics: Mapping[str, float]) -> StageResult:
        """Keep the adapter and mark the stage as done; its checkpoints go.

        Raises:
            OSError: the disk does not take it.
        """
        adapter = self.folder / "adapter"
        partial = self.folder / ".adapter.partial"
        shutil.rmtree(partial, ignore_errors=True)
        model: Any = trainer.model
        model.save_pretrained(str(partial), selected_adapters=["default"])
        shutil.rmtree(adapter, ignore_errors=True)
        partial.rename(adapter)
        # What the mark below vouches for must outlive a power cut, too.
        os.sync()
        result = StageResult(
            adapter=adapter, rows=rows, metrics=_finite(metrics), device=device_name()
        )
        write_whole(self.folder / RESULT, json.dumps(asdict(result), default=str, indent=2))
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        return result

    @property
    def checkpoints(self) -> Path:
        """Where the trainer writes."""
        return self.folder / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint; what a kill left half written is removed."""
        whole: list[tuple[int, Path]] = []
        for folder in self.checkpoints.glob("checkpoint-*"):
            if (folder / COMPLETE).exists():
                whole.append((int(folder.name.partition("-")[2]), folder))
            else:
                shutil.rmtree(folder)
        return max(whole)[1] if whole else None


def arguments(stage: Stage, recipe: StageRecipe) -> dict[str, Any]:
    """What every TRL configuration is given: the recipe's fields and how a stage is kept."""
    import torch

    elsewhere = {"kind", "lora", *Precision.model_fields}
    return {
        **recipe.model_dump(exclude=elsewhere),
        # transformers' new name and the one that TRL still reads must say the same.
        "gradient_checkpointing": recipe.activation_checkpointing,
        "output_dir": str(stage.checkpoints),
        "save_strategy": "steps",
        "save_total_limit": 2,
        "logging_strategy": "steps",
        # transformers would put an average in the place of a loss that is no number.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
        "data_seed": recipe.seed,
        "full_determinism": False,
    }


def train(trainer: "Trainer", stage: Stage) -> None:
    """Train to the end, from the last whole checkpoint where there is one.

    Raises:
        RunCancelled: asked to stop; a checkpoint of the last step is there.
        TrainingError: the loss diverged.
    """
    trainer.add_callback(_watching(stage))
    last = stage.last_checkpoint()
    if last is not None:
        stage.note(f"Going on from step {last.name.partition('-')[2]}.")
    if last is not None and _is_final(last):
        # The trainer would do one step more than it was asked for.
        trainer._load_from_checkpoint(str(last))
    else:
        trainer.train(resume_from_checkpoint=str(last) if last is not None else None)
    if stage.cancelled():
        raise RunCancelled("The run was cancelled.")


def _is_final(checkpoint: Path) -> bool:
    """Whether a checkpoint is that of the last step."""
    state = json.loads((checkpoint / "trainer_state.json").read_bytes())
    return bool(state["global_step"] >= state["max_steps"])


@contextmanager
def memory_errors(kind: StageKind | None = None) -> Iterator[None]:
    """Say what to do about memory that does not suffice.

    Args:
        kind: of the stage whose memory it is; None = no stage's.

    Raises:
        OutOfMemory: the libraries' ways of saying so.
    """
    advice = ADVICE_ON_RLOOS_MEMORY if kind == "rloo" else ADVICE_ON_MEMORY
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemory("The memory does not suffice.", advice=advice) from error


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is memory that does not suffice.

    Conversion takes whatever happens to a model for a fault of the model, with this as its cause.
    """
    if error is None:
        return False
    # torch.OutOfMemoryError is a RuntimeError, the CPU's allocator raises one.
    refused = isinstance(error, RuntimeError) and any(
        sign in str(error).lower() for sign in _ALLOCATION_FAILED
    )
    return refused or isinstance(error, MemoryError) or _is_out_of_memory(error.__cause__)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Say what to do about a disk that takes no more.

    Raises:
        DiskFull: the system's and the libraries' ways of saying so.
    """
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:
        if not _is_disk_full(error):
            raise
        raise DiskFull(f"The disk is full: {error}.", advice=ADVICE_ON_DISK) from error


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a disk that takes no more.

    safetensors tells the system's words in an error of its own; a file that outgrows a limit of the
    process or the file system is no other case.
    """
    if error is None:
        return False
    text = str(error)
    return (
        (isinstance(error, OSError) and error.errno in _DISK_REFUSES)
        or any(f"(os error {number})" in text for number in _DISK_REFUSES)
        or (_WRITE_FAILED in text and "Reader" not in text)
        or _is_disk_full(error.__cause__)
    )


def _watching(stage: Stage) -> Any:
    """The callback that tells of progress, marks checkpoints and hears a cancellation."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        begun_at = 0.0
        begun_step = 0
        told_at = 0.0
        tokens = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.begun_at, self.begun_step = time.monotonic(), state.global_step

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            passed_s = time.monotonic() - self.begun_at
            steps = state.global_step - self.begun_step
            _require_convergence(logs or {}, step=state.global_step)
            values = _finite(logs or {})
            if "num_tokens" in values:
                first = self.tokens == 0
                before, self.tokens = self.tokens, values["num_tokens"]
                if not first:
                    values["tokens_per_s"] = (self.tokens - before) / max(
                        time.monotonic() - self.told_at, 1e-9
                    )
            self.told_at = time.monotonic()
            eta_s = passed_s / steps * (state.max_steps - state.global_step) if steps else None
            stage.events.tell(
                stage=stage.kind,
                step=state.global_step,
                of_steps=state.max_steps,
                values=values,
                eta_s=eta_s,
            )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder = stage.checkpoints / f"checkpoint-{state.global_step}"
            os.sync()
            (folder / COMPLETE).touch()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if stage.cancelled():
                control.should_save = control.should_training_stop = True

    return Watching()


def _require_convergence(logs: Mapping[str, Any], *, step: int) -> None:
    """End a run that can learn nothing any more.

    A gradient that is no number makes every weight it touches none, and an infinite one does when
    it is clipped, so one such step spoils all that follow.

    Raises:
        TrainingError: with what to lower.
    """
    for name in ("loss", "grad_norm"):
        value = logs.get(name)
        if isinstance(value, int | float) and not math.isfinite(value):
            raise TrainingError(
                f"The loss diverged at step {step}.",
                advice="Lower learning_rate, to a third for example, then run again.",
            )


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among values; neither JSON nor the database has words for others."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


@contextmanager
def cancelled_by_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has come since; the stage then ends at its next step."""
    came: list[int] = []

    def hear(number: int, _frame: object) -> None:
        came.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def padded(sequences: Sequence[Sequence[int]], value: int) -> Any:
    """A tensor (N, longest) of sequences that end together: padding stands before them."""
    import torch

    longest = max(map(len, sequences))
    return torch.tensor([[value] * (longest - len(each)) + list(each) for each in sequences])
