"""Errors of training, sorted by who must act."""


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
