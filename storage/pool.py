"""Connections to Postgres: a bounded pool whose errors are storage errors."""

import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg_pool
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from storage.errors import errors_mapped
from storage.migrate import require_current
from storage.settings import DatabaseSettings

Connection = AsyncConnection[TupleRow]


class Pool:
    """A bounded set of connections; `connection()` is one transaction on one of them.

    Attributes:
        driver: the psycopg pool, for procrastinate, which brings its own statements.
    """

    def __init__(
        self, *, driver: psycopg_pool.AsyncConnectionPool[Connection], settings: DatabaseSettings
    ) -> None:
        self.driver = driver
        self._settings = settings

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One transaction: committed at the end, rolled back on any exception.

        Raises:
            StorageUnavailable: no connection in time, or it was lost; safe to retry.
            DiskFull: the database has no space left.
        """
        with errors_mapped():
            async with self.driver.connection(self._settings.connect_timeout_s) as connection:
                yield connection

    @asynccontextmanager
    async def single_statement(self) -> AsyncIterator[Connection]:
        """A connection for one statement that is its own transaction: one round trip, not three.

        Raises:
            StorageUnavailable: as `connection`.
        """
        async with self.connection() as connection:
            await connection.set_autocommit(True)
            try:
                yield connection
            finally:
                if not connection.closed:
                    await connection.set_autocommit(False)


async def one_row(cursor: AsyncCursor[TupleRow]) -> TupleRow:
    """The row of a statement that always has one.

    Raises:
        LookupError: it had none, which is a bug in the statement.
    """
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("a statement that always returns a row returned none")
    return row


@asynccontextmanager
async def open_pool(url: str, *, settings: DatabaseSettings) -> AsyncIterator[Pool]:
    """Connect, check the schema, and keep connections until the block ends.

    Raises:
        StorageUnavailable: nobody answers within `connect_timeout_s`.
        SchemaOutdated, SchemaTooNew, DimensionMismatch: this database is not for this version.
    """
    await require_current(url, settings)
    driver = psycopg_pool.AsyncConnectionPool(
        url,
        connection_class=AsyncConnection[TupleRow],
        kwargs={
            "connect_timeout": max(2, round(settings.connect_timeout_s)),
            "application_name": "parley",
        },
        min_size=1,
        max_size=settings.pool_size,
        timeout=settings.connect_timeout_s,  # for procrastinate, which names none
        # Callers beyond this are refused at once: a queue that long cannot be served in time.
        max_waiting=64 * settings.pool_size,
        configure=_configure(settings),
        check=_check_if_touched,
        reconnect_timeout=settings.connect_timeout_s,
        open=False,
    )
    with errors_mapped():
        await driver.open(wait=True, timeout=settings.connect_timeout_s)
    try:
        yield Pool(driver=driver, settings=settings)
    finally:
        await driver.close()


def _configure(settings: DatabaseSettings) -> Callable[[Connection], Awaitable[None]]:
    async def configure(connection: Connection) -> None:
        await register_vector_async(connection)
        await connection.execute(
            sql.SQL(
                # Custom plans would plan the search statement, the longest of all, on every call.
                "SET plan_cache_mode = force_generic_plan; SET jit = off;"
                # Which rows an audience may read is unknown to a generic plan, which then thinks
                # of reading whole tables. Every table here has the index that its queries need.
                "SET enable_seqscan = off; SET enable_mergejoin = off;"
                "SET hnsw.iterative_scan = relaxed_order; SET hnsw.ef_search = {};"
                "SET statement_timeout = {}"
            ).format(settings.hnsw_ef_search, round(settings.statement_timeout_s * 1000))
        )
        await connection.commit()

    return configure


async def _check_if_touched(connection: Connection) -> None:
    """Check a pooled connection only if its socket has something to say.

    A server that went away has closed the socket, so an idle connection that is quiet is good. This
    finds every connection that a restart killed without a round trip per use.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await psycopg_pool.AsyncConnectionPool.check_connection(connection)
