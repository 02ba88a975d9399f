"""Secrets that are made at first use and kept in files that only their owner reads."""

import contextlib
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

_BYTES = 32


def kept_secret(given: SecretStr | None, path: Path) -> str:
    """The secret that the settings hold, else the one in the file, which is made if missing."""
    if given is not None:
        return given.get_secret_value()
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(_BYTES))
    return path.read_text().strip()
