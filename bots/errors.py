"""What can go wrong in a `bots` process, sorted by who must act.

BotsError
├── the asker
│   ├── TurnFailed        the asker gets `reply`; the question is kept when `message_id` is set
│   └── InputUnusable     a file or argument of a terminal verb cannot be used
└── the operator
    ├── AlreadyRunning    another `parley up` holds this state folder
    ├── PortTaken         another program listens on a port that Parley needs
    ├── PartFailed        a supervised part refuses to start
    └── ServiceMissing    a part that a command needs is not running
"""

from dataclasses import dataclass
from pathlib import Path

from storage.identity import MessageId


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A sentence for a person.

    Attributes:
        retryable: whether the same question may work later; a surface offers "try again" then.
        retry_after_s: when to come back, in seconds, where known.
    """

    text: str
    retryable: bool
    retry_after_s: float | None = None


class BotsError(Exception):
    """Root of everything that bots raise on purpose."""


class TurnFailed(BotsError):
    """A turn ended without an answer; the cause is chained.

    Attributes:
        reply: what to tell the asker.
        message_id: the stored question, for `Assistant.retry`; None when it could not be stored.
    """

    def __init__(self, reply: Reply, *, message_id: MessageId | None) -> None:
        self.reply = reply
        self.message_id = message_id
        super().__init__(reply.text)


class InputUnusable(BotsError):
    """A file or argument given to a terminal verb cannot be used."""


class AlreadyRunning(BotsError):
    """Another supervisor holds this state folder."""

    def __init__(self, home: Path, note: dict[str, object]) -> None:
        self.home = home
        self.url = note.get("url")
        self.pid = note.get("pid")
        super().__init__(
            f"Parley is already running on {str(home)!r}: {self.url or 'still starting'}"
            f" (process {self.pid or 'unknown'})."
        )


class PortTaken(BotsError):
    """Another program listens on a port that Parley needs."""

    def __init__(self, part: str, host: str, port: int) -> None:
        self.part = part
        self.port = port
        super().__init__(
            f"Port {port} on {host}, needed by {part}, is in use by another program; stop it or "
            f"set PARLEY_{part.upper()}__PORT to a free one."
        )


class PartFailed(BotsError):
    """A supervised part refuses to start; its own words are in its log."""

    def __init__(self, part: str, *, exit_code: int, log: Path | None) -> None:
        self.part = part
        self.exit_code = exit_code
        last = ""
        if log is not None and log.is_file():
            lines = log.read_text(errors="replace").strip().splitlines()
            last = f" {lines[-1]}" if lines else ""
        super().__init__(f"{part} cannot start.{last}" + (f" Log: {log}" if log else ""))


class ServiceMissing(BotsError):
    """A part that a command needs is not running; the text names the command that starts it."""
