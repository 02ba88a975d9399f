"""`parley argilla`: Argilla and its Redis, started, kept running and stopped."""

import asyncio
import contextlib
import fcntl
import logging
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from engine.children import Part, answers, keep, port_is_free
from engine.errors import SettingsInvalid
from feedback.argilla_server import credentials
from feedback.argilla_server.environment import environment_folder, prepare, redis_server
from feedback.argilla_server.errors import ArgillaUnusable
from feedback.records import VOTER
from feedback.settings import ArgillaSettings
from storage.databases import ensure_database
from storage.embedded import database_url
from storage.settings import DatabaseSettings

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 120.0
PORT_TIMEOUT_S = 8.0
"""A killed predecessor's server needs a moment to go."""
READY_PATH = "/api/v1/status"
"""Answers only when Argilla's database does."""
_LAUNCHER = Path(__file__).parent / "inside" / "launch.py"
_NOT_INHERITED = ("PARLEY_", "PG", "PYTHON")
"""Variables that are ours or would change what Argilla runs on; `ARGILLA_…` ones pass."""


async def run(
    settings: ArgillaSettings,
    *,
    database: DatabaseSettings,
    home: Path,
    environment: Mapping[str, str],
) -> None:
    """Build what is missing, then run Argilla until SIGTERM or Ctrl-C.

    Raises:
        ArgillaUnusable: the environment cannot be built, the port is taken, or another process
            runs Argilla on this state folder.
        SettingsInvalid: `argilla.url` names another Argilla.
        StorageError: its database cannot be made.
    """
    if settings.url is not None:
        raise SettingsInvalid(
            "Setting argilla.url names another Argilla, so none is started here; unset "
            "PARLEY_ARGILLA__URL to run an own one."
        )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(
        _run(settings, database=database, home=home, environment=environment)
    )
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _run(
    settings: ArgillaSettings,
    *,
    database: DatabaseSettings,
    home: Path,
    environment: Mapping[str, str],
) -> None:
    folder = credentials.state_folder(home)
    logs = folder.with_name("logs")
    for made in (folder / "redis", logs):
        made.mkdir(parents=True, exist_ok=True)
    venv = environment_folder(settings, home)
    with _only_one(folder):
        log = logs / "argilla-environment.log"
        python = await prepare(venv, environment=environment, log=log)
        await _wait_for_port(settings)
        async with AsyncExitStack() as stack:
            variables = {
                name: value
                for name, value in environment.items()
                if not name.startswith(_NOT_INHERITED)
            }
            variables |= _argilla_variables(settings, home)
            variables |= await stack.enter_async_context(_database(settings, database, home))
            redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
            if redis_url is None:
                redis_url = await stack.enter_async_context(_redis(venv, folder, logs, environment))
            argilla = Part(name="argilla-server", command=(str(python), str(_LAUNCHER)))
            await stack.enter_async_context(
                _kept(argilla, variables | {"ARGILLA_REDIS_URL": redis_url}, logs)
            )
            await _announce(settings, folder, logs)
            await asyncio.Event().wait()


def _argilla_variables(settings: ArgillaSettings, home: Path) -> dict[str, str]:
    """Argilla's own settings and the launcher's; secrets travel by the environment alone."""
    folder = credentials.state_folder(home)
    scratch = folder / "tmp"  # Argilla copies its pages into a temporary folder at every start
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    return {
        "ARGILLA_HOME_PATH": str(folder),
        "ARGILLA_SEARCH_ENGINE": "sql",
        "ARGILLA_AUTH_SECRET_KEY": credentials.session_key(home),
        "ARGILLA_CORS_ORIGINS": "[]",
        # Of the 64 connections that the embedded Postgres has; each running job takes one more.
        "ARGILLA_DATABASE_POSTGRESQL_POOL_SIZE": "4",
        "ARGILLA_DATABASE_POSTGRESQL_MAX_OVERFLOW": "8",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TMPDIR": str(scratch),
        "PARLEY_ARGILLA_MEMBER": VOTER,
        "PARLEY_ARGILLA_USERNAME": settings.username,
        "PARLEY_ARGILLA_PASSWORD": credentials.password(settings, home),
        "PARLEY_ARGILLA_API_KEY": credentials.api_key(settings, home),
        "PARLEY_ARGILLA_HOST": settings.host,
        "PARLEY_ARGILLA_PORT": str(settings.port),
    }


@asynccontextmanager
async def _database(
    settings: ArgillaSettings, database: DatabaseSettings, home: Path
) -> AsyncIterator[dict[str, str]]:
    """Argilla's database, made if missing, as variables; without `ARGILLA_DATABASE_URL`, SQLite."""
    if settings.store == "sqlite":
        yield {}
        return
    async with database_url(database, home=home) as url:
        # No address in the URL: libpq's variables hold what a URL would have to escape.
        named = await ensure_database(url, settings.database)
        yield {"ARGILLA_DATABASE_URL": "postgresql+asyncpg://", **named}


@asynccontextmanager
async def _redis(
    venv: Path, folder: Path, logs: Path, environment: Mapping[str, str]
) -> AsyncIterator[str]:
    """A Redis on a socket that only our user reaches; it keeps jobs over a restart."""
    program = redis_server(venv) or shutil.which("redis-server")
    if program is None:
        raise ArgillaUnusable(
            "There is no redis-server: install Debian's package redis-server, or name a Redis in "
            "PARLEY_ARGILLA__REDIS_URL."
        )
    # A path of its own: the one of a deep state folder may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="parley-redis-") as sockets:
        socket = Path(sockets) / "redis.sock"
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(folder / "redis"),
            "appendonly": "yes",
            "save": "",
            "loglevel": "warning",
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        part = Part(name="argilla-redis", command=(str(program), *flags))
        async with _kept(part, environment, logs):
            yield f"unix://{socket}?db=0"


@asynccontextmanager
async def _kept(part: Part, environment: Mapping[str, str], logs: Path) -> AsyncIterator[None]:
    task = asyncio.create_task(
        keep(part, environment=environment, log=logs / f"{part.name}.log"), name=part.name
    )
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _announce(settings: ArgillaSettings, folder: Path, logs: Path) -> None:
    url = settings.own_url
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        if not await answers(client, f"{url}{READY_PATH}", within_s=READY_TIMEOUT_S):
            log = logs / "argilla-server.log"
            logger.error("Argilla does not answer at %s yet. Its log: %s", url, log)
            return
    logger.info(
        "Argilla is ready: %s (user %s, password in %s)",
        url,
        settings.username,
        "PARLEY_ARGILLA__PASSWORD" if settings.password else folder / "password",
        extra={"action": "argilla_ready"},
    )


async def _wait_for_port(settings: ArgillaSettings) -> None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + PORT_TIMEOUT_S
    while not port_is_free(settings.host, settings.port):
        if loop.time() > deadline_s:
            raise ArgillaUnusable(
                f"Port {settings.port} on {settings.host}, needed by Argilla, is in use by another "
                "program; stop it or set PARLEY_ARGILLA__PORT to a free one."
            )
        await asyncio.sleep(0.2)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it however this process ends."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArgillaUnusable(f"Argilla is already running on {str(folder)!r}.") from error
        yield
