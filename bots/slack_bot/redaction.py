"""Keeps tokens out of logs, whoever writes the record.

Why a formatter and not a filter: a token may stand in a message, in its arguments, in an extra
field or in a traceback of the SDK; only the finished line has all of them.
"""

import logging
import re

_SECRETS = re.compile(
    r"\bx(?:ox[a-z]|app|oxe)(?:\.xox[a-z])?-[\w.-]+"  # tokens of every kind, rotated ones too
    r"|(?<=ticket=)[^&\s\"']+|(?<=code=)[^&\s\"']+|(?<=state=)[^&\s\"']+"
    r"|(?<=[Bb]earer )\S+|(?<=[Bb]asic )\S+"
    r"|(?<=/link/)[\w?=&-]+"
)
HIDDEN = "[hidden]"


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text without anything that looks like a token, and without `secrets`."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _SECRETS.sub(HIDDEN, text)


class _Redacting(logging.Formatter):
    def __init__(self, inner: logging.Formatter, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._inner, self._secrets = inner, secrets

    def format(self, record: logging.LogRecord) -> str:
        return redact(self._inner.format(record), self._secrets)


def redact_logs(secrets: tuple[str, ...]) -> None:
    """Redact every line that the process's handlers write from now on.

    Args:
        secrets: further values to hide, which no pattern would recognise.
    """
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Redacting(handler.formatter or logging.Formatter(), secrets))
