"""Databases beside our own."""

import asyncio

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from storage.databases import ensure_database
from storage.errors import DatabaseUnusable


async def test_a_database_is_made_once_and_named_by_variables(database_url: str) -> None:
    name = "neighbour of a test"
    try:
        both = await asyncio.gather(*(ensure_database(database_url, name) for _ in range(2)))
        named = await ensure_database(database_url, name)
        assert both == [named, named]
        assert named["PGDATABASE"] == name
        own = make_conninfo(database_url, dbname=named["PGDATABASE"], host=named["PGHOST"])
        async with await psycopg.AsyncConnection.connect(own) as connection:
            found = await connection.execute("SELECT current_database()")
            assert await found.fetchone() == (name,)
    finally:
        async with await psycopg.AsyncConnection.connect(
            database_url, autocommit=True
        ) as connection:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


async def test_a_password_travels_in_the_environment(database_url: str) -> None:
    url = make_conninfo(database_url, password="p%/@ss")
    named = await ensure_database(url, str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]))
    assert named["PGPASSWORD"] == "p%/@ss"


async def test_a_server_that_is_away_is_named_plainly() -> None:
    with pytest.raises(DatabaseUnusable, match="'argilla' cannot be made"):
        await ensure_database("postgresql://nobody@127.0.0.1:9/none", "argilla")
