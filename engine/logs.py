"""Logging for every process: stdlib, configured once, by the process's `__main__`.

A record is a short sentence plus `extra={"action": ..., ...}`; the action name is the stable key.
Text form for people, JSON lines for collectors.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and every `extra` field."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def configure_logging(*, level: str, form: Literal["text", "json"] = "text") -> None:
    """Send the process's records of `level` and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These log every request at INFO: addresses with ids and, for some, query text.
    for name in ("httpx", "httpcore", "uvicorn.access", "procrastinate", "openai"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
