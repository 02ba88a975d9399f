"""Migration files and the runner."""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import psycopg
import pytest
from procrastinate.schema import SchemaManager
from psycopg import sql
from psycopg.conninfo import make_conninfo

from storage import migrate as runner
from storage.errors import (
    DimensionMismatch,
    MigrationChanged,
    MigrationFailed,
    SchemaOutdated,
    SchemaTooNew,
    StorageUnavailable,
)
from storage.migrate import Migration, migrate, migrations, pending, require_current
from storage.pool import open_pool
from storage.settings import DatabaseSettings

SETTINGS = DatabaseSettings()


@pytest.fixture
def empty_database(postgres_url: str, tmp_path: Path) -> Iterator[str]:
    name = f"parley_empty_{abs(hash(tmp_path)):x}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_conninfo(postgres_url, dbname=name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_every_file_says_why_what_it_locks_and_how_long_it_takes() -> None:
    for migration in migrations():
        header = migration.statements.split("\n\n")[0]
        for part in ("-- Why: ", "-- Locks: ", "-- Expected time: "):
            assert part in header, (migration.name, part)


def test_the_dimension_is_written_in_one_place() -> None:
    marks = [m.name for m in migrations() for _ in re.findall(re.escape("{{"), m.statements)]
    assert marks == ["0002_documents.sql"]
    assert not any(
        re.search(r"(?i)vector\(\d", m.statements.replace("sparsevec", "")) for m in migrations()
    )


def test_a_gap_or_a_misnamed_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    (tmp_path / "0001_one.sql").write_text("SELECT 1")
    (tmp_path / "0003_three.sql").write_text("SELECT 3")
    with pytest.raises(ValueError, match="gaps"):
        migrations()
    (tmp_path / "0003_three.sql").rename(tmp_path / "2_two.sql")
    with pytest.raises(ValueError, match="NNNN_words"):
        migrations()


def test_the_queue_is_exactly_procrastinates() -> None:
    (ours,) = [m.statements for m in migrations() if m.name == "0003_jobs.sql"]
    header, _, schema = ours.partition("\n\n")
    assert header.startswith("-- Why") and schema == SchemaManager.get_schema()


async def test_from_zero_and_again(empty_database: str) -> None:
    names = [migration.name for migration in migrations()]
    assert await pending(empty_database, SETTINGS) == names
    with pytest.raises(SchemaOutdated, match="run `parley migrate`"):
        await require_current(empty_database, SETTINGS)
    assert await migrate(empty_database, SETTINGS) == names
    assert await migrate(empty_database, SETTINGS) == []
    assert await pending(empty_database, SETTINGS) == []
    await require_current(empty_database, SETTINGS)


async def test_another_dimension_is_named(empty_database: str) -> None:
    await migrate(empty_database, DatabaseSettings(embedding_dim=768))
    with pytest.raises(DimensionMismatch, match=r"768 dimensions, not 384; set .*embedding_dim"):
        async with open_pool(empty_database, settings=SETTINGS):
            pass


async def test_a_changed_or_an_unknown_applied_file_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE schema_migrations SET sha256 = 'x' WHERE number = 2")
        with pytest.raises(MigrationChanged, match=re.escape("0002_documents.sql")):
            await migrate(database_url, SETTINGS)
        connection.execute(
            "INSERT INTO schema_migrations SELECT max(number) + 1, 'n', 'x' FROM schema_migrations"
        )
    with pytest.raises(SchemaTooNew):
        await require_current(database_url, SETTINGS)


async def test_a_failing_migration_leaves_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    broken = Migration(
        number=len(known) + 1,
        name="broken",
        statements="CREATE TABLE half (id int); SELECT no_such_function();",
        sha256="x",
    )
    monkeypatch.setattr(runner, "migrations", lambda: [*known, broken])
    with pytest.raises(MigrationFailed, match="no_such_function"):
        await migrate(database_url, SETTINGS)
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT to_regclass('half')").fetchone()
    assert row == (None,)
    assert await pending(database_url, SETTINGS) == ["broken"]


async def test_a_database_that_is_not_there_is_said_quickly(tmp_path: Path) -> None:
    settings = DatabaseSettings(connect_timeout_s=2)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        await migrate(f"postgresql://postgres@/x?host={tmp_path}", settings)


def test_migrations_travel_with_the_package() -> None:
    names = {entry.name for entry in resources.files("storage.migrations").iterdir()}
    assert {migration.name for migration in migrations()} <= names
