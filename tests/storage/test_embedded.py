"""The embedded server starts once, anywhere, and survives what kills it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from storage.embedded import EmbeddedPostgres, database_url
from storage.errors import DatabaseUnusable
from storage.settings import DatabaseSettings


def query(url: str, statement: str) -> object:
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


def test_it_listens_on_a_private_socket_only_and_keeps_what_it_was_told(
    server: EmbeddedPostgres,
) -> None:
    url = server.start()
    assert server.start() == url
    assert query(url, "SHOW listen_addresses") == ""
    assert query(url, "SHOW fsync") == query(url, "SHOW full_page_writes") == "on"
    assert query(url, "SELECT current_setting('server_encoding')") == "UTF8"
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    pid = query(url, "SELECT pg_backend_pid()")
    server.stop()
    assert not server.is_running() and not Path(f"/proc/{pid}").exists()
    server.stop()
    assert query(server.start(), "SELECT answer FROM kept") == 42


def test_a_killed_server_starts_again_with_everything_committed(
    server: EmbeddedPostgres, server_folder: Path
) -> None:
    url = server.start()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    pid_file = server_folder / "postgres" / "postmaster.pid"
    pid = int(pid_file.read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cwd").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert query(server.start(), "SELECT answer FROM kept") == 42


def test_a_pid_file_that_names_somebody_else_is_no_obstacle(
    server: EmbeddedPostgres, server_folder: Path
) -> None:
    server.start()
    pid_file = server_folder / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        assert query(server.start(), "SELECT 1") == 1
        other.communicate()


def test_several_starts_at_once_make_one_server_even_below_an_odd_and_long_path() -> None:
    script = (
        "import sys; from pathlib import Path; from storage.embedded import EmbeddedPostgres; "
        "print(EmbeddedPostgres(Path(sys.argv[1])).start())"
    )

    def start(home: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, str(home)],
            cwd=Path(__file__).parent.parent.parent,
            check=True,
            capture_output=True,
            text=True,
            timeout=90,
        )
        return done.stdout.strip()

    with tempfile.TemporaryDirectory(prefix="parley-test-") as name:
        home = Path(name) / ("it's a long folder name " * 8).strip() / "état"
        server = EmbeddedPostgres(home)
        try:
            with ThreadPoolExecutor(3) as pool:
                urls = set(pool.map(start, [home] * 3))
            assert urls == {server.url}
            named = "SELECT count(*) FROM pg_database WHERE datname = 'parley'"
            assert query(server.url, named) == 1
        finally:
            server.stop()


async def test_a_verb_starts_the_server_for_its_own_time_only(
    server: EmbeddedPostgres, server_folder: Path
) -> None:
    server.stop()
    async with database_url(DatabaseSettings(), home=server_folder) as url:
        assert query(url, "SELECT 1") == 1
    assert not server.is_running()
    server.start()
    async with database_url(DatabaseSettings(), home=server_folder):
        pass
    assert server.is_running()
    given = DatabaseSettings(url=SecretStr("postgresql://elsewhere/x"))
    async with database_url(given, home=server_folder) as url:
        assert url == "postgresql://elsewhere/x"


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres, server_folder: Path) -> None:
    server.start()
    server.stop()
    configuration = server_folder / "postgres" / "postgresql.conf"
    good = configuration.read_text()
    configuration.write_text(f"{good}no_such_setting = 1\n")
    with pytest.raises(DatabaseUnusable, match="no_such_setting"):
        server.start()
    configuration.write_text(good)
    server.start()
