"""What can go wrong in the engine, sorted by who must act.

EngineError
├── wait and retry
│   ├── EngineBusy            the queue is full; `retry_after_s` says when to come back
│   ├── EngineUnavailable     nobody answers at the engine's address
│   └── DeadlineExceeded      the request's own deadline passed
├── the asker
│   ├── PromptTooLong         more tokens than the model's context
│   └── InvalidRequest        a parameter is missing, unknown or out of range
├── the operator
│   ├── ModelNotFound         no model or alias of that name is loaded
│   ├── ModelCorrupt          a file's checksum differs from the manifest
│   ├── ModelUnsupported      a format or architecture that cannot be converted or served
│   ├── ConversionFailed      a converted model could not be written
│   ├── PullFailed            a model could not be fetched
│   └── SettingsInvalid       a setting is unknown or has a bad value
└── UpstreamFailed            an `openai:` model's server answered with an error
"""

from pathlib import Path


class EngineError(Exception):
    """Root of everything the engine raises on purpose."""


class EngineBusy(EngineError):
    """The queue is full."""

    def __init__(self, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"The engine is busy; try again in {retry_after_s:.0f} s.")


class EngineUnavailable(EngineError):
    """Nobody answers at the engine's address."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(f"The engine at {url} does not answer ({reason}).")


class DeadlineExceeded(EngineError):
    """The request's deadline passed before it finished."""

    def __init__(self, *, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        super().__init__(f"No answer within {deadline_s:g} s.")


class PromptTooLong(EngineError):
    """Prompt plus requested tokens exceed the model's context."""

    def __init__(self, *, tokens: int, limit: int) -> None:
        self.tokens = tokens
        self.limit = limit
        super().__init__(
            f"This request needs {tokens} tokens, but the model's context holds {limit}."
        )


class InvalidRequest(EngineError):
    """A request parameter is missing, unknown or out of range."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class ModelNotFound(EngineError):
    """No loaded model or alias has this name."""

    def __init__(self, name: str, *, known: list[str]) -> None:
        self.name = name
        self.known = known
        super().__init__(f"No model or alias {name!r}; loaded: {', '.join(known) or 'none'}.")


class ModelCorrupt(EngineError):
    """A model directory does not match its manifest."""

    def __init__(self, directory: Path, problem: str) -> None:
        self.directory = directory
        super().__init__(f"Model directory {str(directory)!r} refused: {problem}.")


class ModelUnsupported(EngineError):
    """A model's format or architecture cannot be converted or served."""


class ConversionFailed(EngineError):
    """A converted model could not be written: in the way, in use, or the disk refuses."""


class PullFailed(EngineError):
    """A model could not be fetched."""


class UpstreamFailed(EngineError):
    """The server behind an `openai:` model answered with an error."""

    def __init__(self, name: str, *, status: int, message: str) -> None:
        self.name = name
        self.status = status
        super().__init__(f"Model {name!r} answered {status}: {message}")


class SettingsInvalid(EngineError):
    """A setting is unknown or bad; the text names its path and the nearest valid name."""
