"""What can go wrong in storage, sorted by who must act.

StorageError
├── wait and retry
│   ├── StorageUnavailable    no connection, a lost one, a statement that took too long
│   └── EmbeddingFailed       the embedder that the worker was given does not answer
├── the asker
│   ├── DocumentRejected      a file that cannot become searchable; `reason` says why
│   │   └── DocumentTooLarge  more bytes than an upload may have
│   └── NotFound
│       ├── DocumentNotFound  no such document that this audience may read
│       ├── MessageNotFound   no such thread, question or answer that this audience may read
│       └── PlaceNotFound     no such channel or workspace
├── the operator
│   ├── DiskFull              no space left for the database or the files
│   ├── DatabaseUnusable      the embedded database cannot be started here
│   ├── KeysInvalid           the encryption keys cannot be read or do not fit the data
│   ├── SchemaOutdated        the database lacks migrations
│   ├── SchemaTooNew          the database has migrations that this version does not know
│   ├── MigrationChanged      an applied migration file was edited
│   ├── MigrationFailed       a migration's SQL failed; nothing of it stays
│   └── DimensionMismatch     vectors and the schema differ in dimension
└── the worker
    └── IngestSuperseded      another run, a newer version or a deletion overtook this ingest
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg


class StorageError(Exception):
    """Root of everything that storage raises on purpose."""


class StorageUnavailable(StorageError):
    """The database does not answer; trying again later may work."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The database does not answer ({reason}).")


class EmbeddingFailed(StorageError):
    """The embedder that the worker was given does not answer; the cause is chained."""


class DocumentRejected(StorageError):
    """A file cannot become searchable; `reason` is a sentence for the person who sent it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class DocumentTooLarge(DocumentRejected):
    """An upload has more bytes than allowed."""

    def __init__(self, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"The file is larger than {limit_bytes / 2**20:g} MB, the upload limit.")


class NotFound(StorageError):
    """Nothing of this id that the audience may read."""


class DocumentNotFound(NotFound):
    """No document of this id that the audience may read."""

    def __init__(self, document_id: UUID) -> None:
        self.document_id = document_id
        super().__init__(f"No document {document_id} here.")


class MessageNotFound(NotFound):
    """No thread, message or answer of this id that the audience may read."""

    def __init__(self, record_id: UUID) -> None:
        self.record_id = record_id
        super().__init__(f"No message {record_id} here.")


class PlaceNotFound(NotFound):
    """No channel or workspace of this id; it may have been deleted with its workspace."""

    def __init__(self, place_id: UUID) -> None:
        self.place_id = place_id
        super().__init__(f"No channel or workspace {place_id}.")


class DiskFull(StorageError):
    """No space left on the database's or the files' disk."""

    def __init__(self, where: str) -> None:
        self.where = where
        super().__init__(f"No space left on the disk of {where}; free some and try again.")


class DatabaseUnusable(StorageError):
    """The embedded database cannot be created or started on this machine."""


class KeysInvalid(StorageError):
    """The encryption keys cannot be read or do not fit the data."""


class SchemaOutdated(StorageError):
    """The database lacks migrations."""

    def __init__(self, *, have: int, need: int) -> None:
        self.have = have
        self.need = need
        super().__init__(
            f"The database schema is at {have}, this version needs {need}; run `parley migrate`."
        )


class SchemaTooNew(StorageError):
    """The database has migrations that this version does not know."""

    def __init__(self, *, have: int, need: int) -> None:
        self.have = have
        self.need = need
        super().__init__(
            f"The database schema is at {have}, this version knows only {need}; "
            "install the version that migrated it."
        )


class MigrationChanged(StorageError):
    """An applied migration file was edited since."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Migration {name!r} was applied with other contents; restore the file and write the "
            "change as a new migration."
        )


class MigrationFailed(StorageError):
    """A migration's SQL failed; its transaction was rolled back."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        super().__init__(f"Migration {name!r} failed and was rolled back: {reason}")


class DimensionMismatch(StorageError):
    """Vectors and the schema differ in dimension."""

    def __init__(self, *, have: int, need: int) -> None:
        self.have = have
        self.need = need
        super().__init__(
            f"The database holds vectors of {have} dimensions, not {need}; set "
            f"database.embedding_dim to {have} and use the embedder that wrote them, or start with "
            "an empty database and ingest again."
        )


class IngestSuperseded(StorageError):
    """Another run, a newer version or a deletion overtook this ingest; there is nothing to do."""


@contextmanager
def errors_mapped() -> Iterator[None]:
    """Turn the driver's and the disk's errors into storage errors; bugs pass unchanged."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        mapped = mapped_error(error)
        if mapped is None:
            raise
        raise mapped from error


def mapped_error(error: psycopg.Error | OSError) -> StorageError | None:
    """The storage error for an error of driver or disk; None when it is a bug of ours.

    Integrity, data and programming errors stay what they are: a caller that expects one names its
    constraint, and everybody else has a bug.
    """
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return DiskFull("the uploaded files") if full else None
    if isinstance(error, psycopg.errors.DiskFull):
        return DiskFull("the database")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        # Only the first line: the driver adds hints that belong in a log.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return StorageUnavailable(lines[0].rstrip("."))
    return None
