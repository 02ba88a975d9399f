"""Keeps tokens out of logs, whoever writes the record.

Why a formatter and not a filter: a token may stand in a message, in its arguments, in an extra
field or in a traceback of an SDK; only the finished line has all of them.
"""

import logging
import re

from pydantic import SecretStr

from engine.settings import Section

HIDDEN = "[hidden]"


def redact(text: str, pattern: re.Pattern[str], secrets: tuple[str, ...] = ()) -> str:
    """The text without anything that looks like a token, and without `secrets`."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return pattern.sub(HIDDEN, text)


class _Redacting(logging.Formatter):
    def __init__(
        self, inner: logging.Formatter, pattern: re.Pattern[str], secrets: tuple[str, ...]
    ) -> None:
        super().__init__()
        self._inner, self._pattern, self._secrets = inner, pattern, secrets

    def format(self, record: logging.LogRecord) -> str:
        return redact(self._inner.format(record), self._pattern, self._secrets)


def redact_logs(pattern: re.Pattern[str], settings: Section) -> None:
    """Redact every line that the process's handlers write from now on.

    Args:
        pattern: what the platform's tokens look like.
        settings: the platform's; their secrets are hidden, too, whatever they look like.
    """
    found = (getattr(settings, name) for name in type(settings).model_fields)
    secrets = tuple(value.get_secret_value() for value in found if isinstance(value, SecretStr))
    for handler in logging.getLogger().handlers:
        inner = handler.formatter or logging.Formatter()
        handler.setFormatter(_Redacting(inner, pattern, tuple(filter(None, secrets))))
