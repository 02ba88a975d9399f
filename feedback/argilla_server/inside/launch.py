"""Argilla's server and its job worker, from one import of Argilla.

Runs inside Argilla's environment, as `python launch.py`; its settings are Argilla's own variables
(`ARGILLA_…`), libpq's (`PG…`) and those that `_setting` reads.

Why one process that forks: importing Argilla takes seconds and 260 MB, which the server and the
worker share this way, and a killed one is back at once. The parent opens no connection, so nothing
of that kind crosses a fork.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bulk_writes
import curators
import sql_search  # noqa: F401 (registers the search engine)
import uvicorn
from alembic import command
from alembic.config import Config
from argilla_server._app import app
from argilla_server.contexts import accounts
from argilla_server.database import ALEMBIC_CONFIG_FILE, AsyncSessionLocal
from argilla_server.enums import UserRole
from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE, REDIS_CONNECTION
from argilla_server.models import User
from record_sql import set_up
from rq import Worker

STOP_TIMEOUT_S = 5
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_AFTER_S = 30.0
_PR_SET_PDEATHSIG = 1
_WEB_FONT = re.compile(r"@import url\(https?://[^)]*\);?")

logger = logging.getLogger("launch")
Job = Callable[[], None]


def _setting(name: str) -> str:
    return os.environ[f"PARLEY_ARGILLA_{name}"]  # noqa: TID251 (this is a process's entry)


def prepare() -> None:
    """Bring Argilla's tables up to date, add what searching needs, and see to the owner."""
    command.upgrade(Config(ALEMBIC_CONFIG_FILE), "head")
    asyncio.run(_prepare())


async def _prepare() -> None:
    await set_up()
    username, password, key = _setting("USERNAME"), _setting("PASSWORD"), _setting("API_KEY")
    async with AsyncSessionLocal() as db:
        owner = await accounts.get_user_by_username(db, username)
        if owner is None:
            await User.create(
                db,
                first_name=username,
                username=username,
                role=UserRole.owner,
                password_hash=accounts.hash_password(password),
                api_key=key,
            )
        elif owner.api_key != key or not accounts.verify_password(password, owner.password_hash):
            await owner.update(db, password_hash=accounts.hash_password(password), api_key=key)


def keep_pages_at_home() -> None:
    """Take the import of web fonts out of the pages' styles: readers' browsers ask nobody else.

    Argilla has copied its pages into a temporary folder by now; the installed ones stay as they
    are.
    """
    pages = next(route.app.directory for route in app.routes if route.name == "static")
    for style in Path(pages).rglob("*.css"):
        content = style.read_text()
        if _WEB_FONT.search(content):
            style.write_text(_WEB_FONT.sub("", content))


def serve() -> None:
    """Serve Argilla's API and web pages."""
    uvicorn.run(
        app,
        host=_setting("HOST"),
        port=int(_setting("PORT")),
        access_log=False,
        timeout_graceful_shutdown=STOP_TIMEOUT_S - 2,
    )


def work() -> None:
    """Run Argilla's jobs: webhooks first, then what takes long."""
    _Worker([HIGH_QUEUE, DEFAULT_QUEUE], connection=REDIS_CONNECTION).work(with_scheduler=True)


class _Worker(Worker):  # type: ignore[misc]
    def main_work_horse(self, *arguments: object) -> None:
        _die_with_parent()
        super().main_work_horse(*arguments)


class Family:
    """The forked children, kept until a signal says stop."""

    def __init__(self) -> None:
        self.children: dict[int, tuple[Job, float]] = {}
        self.stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)

    def fork(self, job: Job) -> int:
        """Run a job in a child; returns its process id."""
        pid = os.fork()
        if pid == 0:
            _become_child(job)
        self.children[pid] = (job, time.monotonic())
        if self.stopping:  # the signal came while there was nobody to pass it on to
            self._pass_on(signal.SIGTERM)
        return pid

    def keep(self) -> None:
        """Fork a child again whenever it ends; returns when all are gone after a signal."""
        backoff_s = FIRST_BACKOFF_S
        while self.children:
            pid, status = os.wait()
            if pid not in self.children:
                continue
            job, started_at_s = self.children.pop(pid)
            if self.stopping:
                continue
            if time.monotonic() - started_at_s >= STABLE_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            code = os.waitstatus_to_exitcode(status)
            logger.warning("%s ended (%d); again in %g s", job.__name__, code, backoff_s)
            time.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            if not self.stopping:
                self.fork(job)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        self._pass_on(signal.SIGTERM)
        signal.alarm(STOP_TIMEOUT_S)

    def _kill(self, *_: object) -> None:
        self._pass_on(signal.SIGKILL)

    def _pass_on(self, number: signal.Signals) -> None:
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):  # gone, and not waited for yet
                os.kill(pid, number)


def _become_child(job: Job) -> None:
    """Never returns: the parent's code is not the child's."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        _die_with_parent()
        job()
        code = 0
    except BaseException:
        logger.exception("%s failed", job.__name__)
    finally:
        logging.shutdown()
        os._exit(code)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> int:
    """Prepare, then keep server and worker until a signal; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    keep_pages_at_home()
    bulk_writes.set_up()
    curators.set_up(member=_setting("MEMBER"))
    gc.freeze()
    family = Family()
    pid = family.fork(prepare)
    _, status = os.waitpid(pid, 0)
    del family.children[pid]
    if status and not family.stopping:
        return os.waitstatus_to_exitcode(status)
    if not family.stopping:
        family.fork(serve)
        family.fork(work)
    family.keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
