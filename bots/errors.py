"""What can go wrong in a turn, as a surface sees it.

BotsError
├── TurnFailed       the asker gets `reply`; the question is kept when `message_id` is set
└── InputUnusable    a file or argument of a terminal verb cannot be used
"""

from dataclasses import dataclass

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
