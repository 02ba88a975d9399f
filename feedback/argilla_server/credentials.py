"""What our own Argilla's owner logs in with; made at first use and kept below the state folder."""

from pathlib import Path

from engine.kept_secrets import kept_secret
from feedback.settings import ArgillaSettings


def state_folder(home: Path) -> Path:
    """Where our own Argilla keeps what is not in its database."""
    return home.resolve() / "argilla"


def api_key(settings: ArgillaSettings, home: Path) -> str:
    """The owner's API key: from the settings, else from `<home>/argilla/api-key`."""
    return kept_secret(settings.api_key, state_folder(home) / "api-key")


def password(settings: ArgillaSettings, home: Path) -> str:
    """The owner's password: from the settings, else from `<home>/argilla/password`."""
    return kept_secret(settings.password, state_folder(home) / "password")


def session_key(home: Path) -> str:
    """What signs the sessions of Argilla's pages; kept, so that a restart logs nobody out."""
    return kept_secret(None, state_folder(home) / "session-key")
