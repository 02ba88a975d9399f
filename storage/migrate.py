"""Forward-only SQL migrations: files `NNNN_words.sql`, one transaction each, in order."""

import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from storage.errors import (
    DimensionMismatch,
    MigrationChanged,
    MigrationFailed,
    SchemaOutdated,
    SchemaTooNew,
    errors_mapped,
)
from storage.settings import DatabaseSettings

logger = logging.getLogger(__name__)

DIMENSION_MARK = "{{embedding_dim}}"
"""Stands for `database.embedding_dim` in a migration; the only substitution there is."""

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9]+(_[a-z0-9]+)*\.sql")
_LOCK_KEY = 0x7061726C6579
"""Advisory lock of whoever migrates: the bytes of `parley`."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file; `sha256` is of the file as it stands, before the dimension is put in."""

    number: int
    name: str
    statements: str
    sha256: str


def migrations() -> list[Migration]:
    """Read the migration files in order.

    Raises:
        ValueError: a file is misnamed, or the numbers are not 1, 2, 3, …
    """
    found = []
    for entry in resources.files("storage.migrations").iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = _FILE_NAME.fullmatch(entry.name)
        if match is None:
            raise ValueError(f"migration {entry.name!r} is not named NNNN_words.sql")
        content = entry.read_bytes()
        found.append(
            Migration(
                number=int(match[1]),
                name=entry.name,
                statements=content.decode(),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migration numbers have gaps: {[m.name for m in found]}")
    return found


async def migrate(url: str, settings: DatabaseSettings) -> list[str]:
    """Apply what is missing, and return the names of the applied files.

    Several processes may call this at once: one works, the others wait and find nothing to do.

    Raises:
        MigrationFailed: a file's SQL failed; earlier files stay applied.
        SchemaTooNew, MigrationChanged, DimensionMismatch: this database is not for this version.
        StorageUnavailable: nobody answers within `connect_timeout_s`.
    """
    applied = []
    async with _connect(url, settings) as connection:
        await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK_KEY])
        for migration in await _missing(connection, settings):
            await _apply(connection, migration, settings)
            applied.append(migration.name)
            logger.info(
                "migration %s applied", migration.name, extra={"action": "migration_applied"}
            )
    return applied


async def pending(url: str, settings: DatabaseSettings) -> list[str]:
    """Names of the migrations that `migrate` would apply; raises as `migrate` does."""
    async with _connect(url, settings) as connection:
        return [migration.name for migration in await _missing(connection, settings)]


async def require_current(url: str, settings: DatabaseSettings) -> None:
    """Check that the schema is exactly this version's.

    Raises:
        SchemaOutdated: migrations are missing. Otherwise as `migrate`.
    """
    async with _connect(url, settings) as connection:
        missing = await _missing(connection, settings)
    if missing:
        raise SchemaOutdated(have=missing[0].number - 1, need=missing[-1].number)


@asynccontextmanager
async def _connect(
    url: str, settings: DatabaseSettings
) -> AsyncIterator[AsyncConnection[TupleRow]]:
    with errors_mapped():
        timeout_s = max(2, round(settings.connect_timeout_s))
        async with await AsyncConnection.connect(
            url, autocommit=True, connect_timeout=timeout_s
        ) as connection:
            yield connection


async def _missing(
    connection: AsyncConnection[TupleRow], settings: DatabaseSettings
) -> list[Migration]:
    """Compare ledger and files; what is left to apply, in order."""
    known = migrations()
    ledger = await connection.execute("SELECT to_regclass('schema_migrations')")
    if (await ledger.fetchone() or (None,))[0] is None:
        return known
    rows = await connection.execute("SELECT number, sha256 FROM schema_migrations ORDER BY number")
    applied = await rows.fetchall()
    if len(applied) > len(known):
        raise SchemaTooNew(have=len(applied), need=len(known))
    for migration, (_, sha256) in zip(known, applied, strict=False):
        if migration.sha256 != sha256:
            raise MigrationChanged(migration.name)
    await _check_dimension(connection, settings)
    return known[len(applied) :]


async def _check_dimension(
    connection: AsyncConnection[TupleRow], settings: DatabaseSettings
) -> None:
    """A vector column keeps its dimension as its type modifier."""
    found = await connection.execute(
        "SELECT atttypmod FROM pg_attribute"
        " WHERE attrelid = to_regclass('chunk_vectors') AND attname = 'embedding'"
    )
    row = await found.fetchone()
    if row is not None and row[0] != settings.embedding_dim:
        raise DimensionMismatch(have=row[0], need=settings.embedding_dim)


async def _apply(
    connection: AsyncConnection[TupleRow], migration: Migration, settings: DatabaseSettings
) -> None:
    statements = migration.statements.replace(DIMENSION_MARK, str(settings.embedding_dim))
    try:
        async with connection.transaction():
            await connection.execute(_LEDGER)
            await connection.execute(statements.encode())
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, sha256) VALUES (%s, %s, %s)",
                [migration.number, migration.name, migration.sha256],
            )
    except psycopg.DatabaseError as error:
        if isinstance(error, psycopg.OperationalError):
            raise
        raise MigrationFailed(migration.name, str(error).strip()) from error


_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number int PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
