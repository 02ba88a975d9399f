"""The driver's errors become storage errors, and the pool survives its server."""

import errno
import inspect
import os

import psycopg
import psycopg_pool
import pytest
from psycopg import errors as driver_errors

from storage.embedded import EmbeddedPostgres
from storage.errors import DiskFull, StorageUnavailable, mapped_error
from storage.migrate import migrate
from storage.pool import Pool, one_row, open_pool
from storage.settings import DatabaseSettings

EVERY_ERROR = sorted(
    {
        cls
        for module in (psycopg, driver_errors, psycopg_pool)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, psycopg.Error)
    },
    key=lambda cls: cls.__name__,
)


def test_every_error_of_the_driver_is_an_outage_a_full_disk_or_a_bug() -> None:
    assert len(EVERY_ERROR) > 200
    for cls in EVERY_ERROR:
        mapped = mapped_error(cls("why\nHINT: more"))
        if issubclass(cls, driver_errors.DiskFull):
            assert isinstance(mapped, DiskFull)
        elif issubclass(cls, psycopg.OperationalError | psycopg.InterfaceError):
            assert isinstance(mapped, StorageUnavailable)
            assert str(mapped) == "The database does not answer (why)."
        else:
            assert mapped is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_file_system_is_a_full_disk(number: int) -> None:
    assert isinstance(mapped_error(OSError(number, os.strerror(number))), DiskFull)
    assert mapped_error(FileNotFoundError()) is None


async def test_a_slow_statement_is_ended(database_url: str) -> None:
    async with open_pool(database_url, settings=DatabaseSettings(statement_timeout_s=0.2)) as pool:
        with pytest.raises(StorageUnavailable, match="statement timeout"):
            async with pool.connection() as connection:
                await connection.execute("SELECT pg_sleep(10)")
        assert await answer(pool) == 1


async def test_an_exhausted_pool_says_so_in_time(database_url: str) -> None:
    settings = DatabaseSettings(pool_size=2, connect_timeout_s=0.3)
    async with (
        open_pool(database_url, settings=settings) as pool,
        pool.connection(),
        pool.connection(),
    ):
        with pytest.raises(StorageUnavailable):
            async with pool.connection():
                pass


async def test_the_pool_recovers_after_the_server_was_away(
    server: EmbeddedPostgres,
) -> None:
    settings = DatabaseSettings(connect_timeout_s=2)
    url = server.start()
    await migrate(url, settings)
    async with open_pool(url, settings=settings) as pool:
        async with pool.connection(), pool.connection(), pool.connection():
            pass  # three connections that the server will take with it
        server.stop()
        with pytest.raises(StorageUnavailable):
            await answer(pool)
        server.start()
        assert [await answer(pool) for _ in range(4)] == [1, 1, 1, 1]


async def answer(pool: Pool) -> int:
    async with pool.connection() as connection:
        return int((await one_row(await connection.execute("SELECT 1")))[0])
