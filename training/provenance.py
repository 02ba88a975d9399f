"""What computes a run: the code's revision and the versions of Python and the libraries."""

import hashlib
import importlib.metadata
import logging
import platform
import subprocess
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

LIBRARIES: Final = (
    "parley",
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "accelerate",
    "ctranslate2",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
)
ROOMS: Final = ("engine", "feedback", "storage", "training")
"""Whose code decides which model comes out of the same ratings."""
GIT_TIMEOUT_S: Final = 10.0
_DESCRIBE: Final = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def library_versions() -> dict[str, str]:
    """Versions of Python and of what a run computes with, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def code_revision(root: Path | None = None) -> str:
    """Which code runs: the commit where there is a checkout, and else a hash of the source.

    Args:
        root: the folder of the rooms; None = where this one lies.

    Returns:
        `<commit>`, `<commit>-dirty` where files were changed since, or `sha256:<hash>`.
    """
    root = root or Path(__file__).parent.parent
    if (root / ".git").exists():  # not that of a repository around an installation
        try:
            told = subprocess.run(  # noqa: S603 - nothing from outside
                ["git", "-C", str(root), *_DESCRIBE],  # noqa: S607 - wherever git is
                capture_output=True,
                text=True,
                check=True,
                timeout=GIT_TIMEOUT_S,
            )
            return told.stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            logger.debug("git says nothing: %s", error, extra={"action": "no_git"})
    return f"sha256:{_source_hash(root)}"


def _source_hash(root: Path) -> str:
    total = hashlib.sha256()
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            total.update(f"{file.relative_to(root)}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
