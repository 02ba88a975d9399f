"""Errors of training, sorted by who must act."""

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager


class TrainingError(Exception):
    """Anything that training reports; the text is for people.

    Attributes:
        advice: what to do about it; empty where the text says it.
    """

    def __init__(self, text: str, *, advice: str = "") -> None:
        self.advice = advice
        super().__init__(text)


class InputUnusable(TrainingError):
    """Who gave the command must correct it."""


class RecipeInvalid(InputUnusable):
    """Who wrote the recipe must correct it."""


class BaseUnusable(TrainingError):
    """The base model cannot be trained on: another one, or another file, is needed."""


class NotEnoughFeedback(TrainingError):
    """Nothing is trained: people must rate more first."""


class OutOfMemory(TrainingError):
    """The machine is too small for the recipe; the advice names what to lower."""


class DiskFull(TrainingError):
    """There is no room for what a run writes; it goes on from its last checkpoint later."""


class RunCancelled(TrainingError):
    """Somebody asked for the end of the run."""


@contextmanager
def process_errors(failed: str) -> Iterator[None]:
    """Say what failed together with its own process (`feedback.own_process`).

    Args:
        failed: the beginning of a sentence.

    Raises:
        TrainingError: the process took too long, or died.
    """
    try:
        yield
    except (TimeoutError, BrokenProcessPool) as error:
        how = "took too long" if isinstance(error, TimeoutError) else "died"
        raise TrainingError(
            f"{failed}: its process {how}.", advice="Make room in memory, then run again."
        ) from error


def of_system(error: OSError) -> TrainingError:
    """What an error of the system means for a run; a full disk is told by `training.stage`."""
    if isinstance(error, TimeoutError):
        return TrainingError(
            f"A model did not answer in time{f' ({error})' if str(error) else ''}.",
            advice="Run again when the machine has less to do.",
        )
    if isinstance(error, FileNotFoundError):
        return TrainingError(
            f"A file is missing: {error.filename or error}.",
            advice="Somebody removed it, and nothing brings it back: queue a new run.",
        )
    return TrainingError(f"The system refuses: {error}.", advice="Mend that, then run again.")
