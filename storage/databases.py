"""Databases beside our own on the same server, for programs that bring their own tables."""

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from storage.errors import DatabaseUnusable

_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}
"""https://www.postgresql.org/docs/18/libpq-envars.html"""


async def ensure_database(url: str, name: str) -> dict[str, str]:
    """Create a database on the server of `url` if it is missing.

    Returns:
        The libpq variables that name it, password included: for a child's environment, since a
        command line shows to everybody on the machine.

    Raises:
        DatabaseUnusable: the server does not answer, or our user may not create databases.
    """
    try:
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=10
        ) as connection:
            found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if await found.fetchone() is None:
                statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
                await connection.execute(statement)
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        pass  # another process was faster
    except psycopg.Error as error:
        raise DatabaseUnusable(f"The database {name!r} cannot be made: {error}") from error
    parameters = conninfo_to_dict(make_conninfo(url, dbname=name))
    named = {
        variable: str(parameters[key]) for key, variable in _VARIABLES.items() if key in parameters
    }
    return {**named, "PGDATABASE": name}
