"""The manifest that makes a model directory describe itself.

A model directory holds CTranslate2's `model.bin`, `config.json` and `vocabulary.json`, the
tokenizer's `tokenizer.json`, and `manifest.json`: what the model is, where it came from, and the
SHA-256 of every other file. A directory whose bytes differ from its manifest is never loaded.
"""

import hashlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import ModelCorrupt

FORMAT_VERSION = 1
"""Version that this code writes; it reads this one and older."""

MANIFEST_NAME = "manifest.json"
REQUIRED_FILES = ("model.bin", "config.json", "tokenizer.json")
"""Files without which no model can be loaded, whatever its kind."""


def _plain_file_name(name: str) -> str:
    if not name or name in (".", "..", MANIFEST_NAME) or any(sign in name for sign in "/\\:\0"):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain_file_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    # A manifest of the same format version may gain optional fields: unknown ones are no error.
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileEntry(_Record):
    """Size and checksum of one file of the directory."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Ancestor(_Record):
    """One source that the weights were made from, oldest first in `Manifest.lineage`."""

    kind: Literal["base", "adapter"]
    source: str
    sha256: Sha256
    """Of the weight file; of the concatenated per-file digests, in name order, where there are
    several."""


class Manifest(_Record):
    """What a model directory holds, and where it came from."""

    format_version: int = Field(FORMAT_VERSION, ge=1)
    name: str = Field(min_length=1)
    kind: Literal["generator", "embedder"]
    base: str
    """Name of the model that this one is or was tuned from."""
    lineage: tuple[Ancestor, ...] = Field(min_length=1)
    architecture: str
    """Class of the source model, such as `LlamaForCausalLM`."""
    quantization: str
    context_length: int = Field(ge=1)
    """Most tokens the model reads, prompt and answer together."""
    chat_template: str | None = None
    """Jinja source; None only for embedders."""
    bos_token: str | None = None
    eos_token: str | None = None
    stop_tokens: tuple[str, ...] = ()
    """Every token that ends an answer, `eos_token` among them."""
    embedding_dim: int | None = None
    """Length of an embedder's vectors; None for generators."""
    pooling: Literal["mean", "cls"] | None = None
    """How an embedder makes one vector of a text's token vectors; None for generators."""
    tokenizer: FileName = "tokenizer.json"
    licence: str | None = None
    source: str
    created_at: datetime
    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        missing = sorted({*REQUIRED_FILES, self.tokenizer} - set(self.files))
        if missing:
            raise ValueError(f"it does not list {', '.join(missing)}")
        if self.kind == "generator" and self.chat_template is None:
            raise ValueError("a generator needs a chat template")
        if self.kind == "embedder" and (self.embedding_dim is None or self.pooling is None):
            raise ValueError("an embedder needs embedding_dim and pooling")
        return self

    @property
    def fingerprint(self) -> str:
        """Which weights exactly: the quantization, their hash, and those of merged adapters."""
        merged = [ancestor.sha256 for ancestor in self.lineage if ancestor.kind == "adapter"]
        hashes = (self.files["model.bin"].sha256, *merged)
        return "-".join([self.quantization, *(sha256[:16] for sha256 in hashes)])

    @classmethod
    def read(cls, directory: Path, *, verify: bool = True) -> Self:
        """Read a directory's manifest and check the directory against it.

        Args:
            directory: the model directory.
            verify: also hash every file (0.1 s per 100 MB); without it, presence and size are
                checked.

        Raises:
            ModelCorrupt: no manifest, an unreadable or newer one, or files that do not match it.
        """
        manifest = cls._parse(directory)
        for name, entry in manifest.files.items():
            problem = _file_problem(directory / name, entry, verify=verify)
            if problem:
                raise ModelCorrupt(directory, f"{name} {problem}")
        return manifest

    @classmethod
    def _parse(cls, directory: Path) -> Self:
        try:
            text = (directory / MANIFEST_NAME).read_bytes()
        except FileNotFoundError as error:
            raise ModelCorrupt(directory, f"it has no {MANIFEST_NAME}") from error
        except OSError as error:
            raise ModelCorrupt(directory, f"{MANIFEST_NAME} cannot be read: {error}") from error
        try:
            version = _Version.model_validate_json(text).format_version
            if version > FORMAT_VERSION:
                raise ModelCorrupt(
                    directory,
                    f"its manifest has format version {version}, this Parley reads up to "
                    f"{FORMAT_VERSION}; update Parley or convert the model again",
                )
            return cls.model_validate_json(text)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in detail["loc"])
            problem = f"{where}: {detail['msg']}" if where else detail["msg"]
            raise ModelCorrupt(directory, f"{MANIFEST_NAME} is invalid ({problem})") from error

    def write(self, directory: Path) -> None:
        """Write `manifest.json`, durably: it is the last file that makes a directory complete."""
        path = directory / MANIFEST_NAME
        with path.open("w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())


class _Version(_Record):
    format_version: int = Field(ge=1)


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Checksums of every file in a directory but its manifest, for `Manifest.files`."""
    return {
        path.name: FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name != MANIFEST_NAME
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(paths: Iterable[Path]) -> str:
    """One digest for the weight files of a model, as `Ancestor.sha256` defines it."""
    digests = [file_sha256(path) for path in sorted(paths)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def now() -> datetime:
    """Time for `created_at`: UTC, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _file_problem(path: Path, entry: FileEntry, *, verify: bool) -> str | None:
    try:
        if path.is_symlink() or not path.is_file():
            return "is missing" if not path.exists() else "is not a regular file"
        if path.stat().st_size != entry.bytes:
            return f"has {path.stat().st_size} bytes instead of {entry.bytes}"
        if verify and file_sha256(path) != entry.sha256:
            return "differs from its checksum"
    except OSError as error:
        return f"cannot be read: {error}"
    return None
