"""What can go wrong around the embedded Argilla; all of it is the operator's to mend."""

from pathlib import Path

from feedback.errors import FeedbackError


class ArgillaUnusable(FeedbackError):
    """Our own Argilla cannot be built or started; the text says what to do."""


class EnvironmentFailed(ArgillaUnusable):
    """Argilla's virtual environment could not be built."""

    def __init__(self, step: str, *, log: Path) -> None:
        self.log = log
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        wrong = [line for line in lines if line.startswith("ERROR")] or lines
        said = f": {wrong[-1]}" if wrong else "."
        super().__init__(f"Argilla's environment could not be built ({step}){said} Log: {log}")
