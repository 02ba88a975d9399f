"""Our own Argilla as `parley argilla` runs it, one server for all tests of a session.

Where PARLEY_ARGILLA__URL (with its key) names an Argilla, on Elasticsearch for one, the contract is
tested against that instead; its owner's PARLEY_ARGILLA__USERNAME and __PASSWORD let the browser in.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import httpx
import pytest

from engine.children import die_with_parent
from tests.conftest import CHECKOUT, TEST_HOME_VARIABLE
from tests.feedback.argilla_server.records import Filled, Team, fill, meet
from tests.feedback.argilla_server.sdk import rg

START_DEADLINE_S = 120.0
BUILD_DEADLINE_S = 600.0
STOP_DEADLINE_S = 20.0
PASSWORD = "correct horse battery"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "argilla: needs Argilla's own environment, built once")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running Argilla and its owner."""

    url: str
    api_key: str
    username: str
    password: str

    def sdk(self) -> rg.Argilla:
        return rg.Argilla(api_url=self.url, api_key=self.api_key)

    def http(self, api_key: str | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"X-Argilla-Api-Key": api_key or self.api_key},
            timeout=30,
        )


@dataclass(kw_only=True)
class Process:
    """`python -m feedback argilla` on a state folder of its own."""

    home: Path
    store: str
    environment: dict[str, str]
    server: Server
    popen: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        return self.home / "process.log"

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "feedback", "argilla"],
                cwd=CHECKOUT,
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it answers."""
        built = (environment_folder() / "bin").exists()
        eventually(
            lambda: httpx.get(f"{self.server.url}/api/v1/status", timeout=5).is_success,
            lambda: self.log.read_text(),
            deadline_s=START_DEADLINE_S if built else BUILD_DEADLINE_S,
        )

    def stop(self) -> int:
        assert self.popen is not None
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(STOP_DEADLINE_S)


def environment_folder() -> Path:
    """Argilla's environment, built once and kept beside the test home's models."""
    home = Path(os.environ.get(TEST_HOME_VARIABLE, CHECKOUT / ".parley")).resolve()
    return home / "argilla" / "venv"


def eventually(
    claim: Callable[[], bool], otherwise: Callable[[], str], *, deadline_s: float
) -> None:
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        with contextlib.suppress(httpx.HTTPError):
            if claim():
                return
        time.sleep(0.05)
    pytest.fail(f"not within {deadline_s:g} s: {otherwise()}")


def new_process(home: Path, store: str) -> Process:
    """One that is not started yet."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    server = Server(
        url=f"http://127.0.0.1:{port}", api_key="a-key-for-tests", username="ada", password=PASSWORD
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")},
        "PARLEY_HOME": str(home),
        "PARLEY_ARGILLA__PORT": str(port),
        "PARLEY_ARGILLA__STORE": store,
        "PARLEY_ARGILLA__ENVIRONMENT": str(environment_folder()),
        "PARLEY_ARGILLA__API_KEY": server.api_key,
        "PARLEY_ARGILLA__USERNAME": server.username,
        "PARLEY_ARGILLA__PASSWORD": server.password,
    }
    return Process(home=home, store=store, environment=environment, server=server)


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[Server]:
    """The session's server: its first user starts it, and stops it when all are done."""
    note, users = folder / "argilla.json", folder / "argilla.users"
    with locked(folder):
        mine = None
        if not note.exists():
            home = folder / "argilla"
            home.mkdir(exist_ok=True)
            mine = new_process(home, "postgres")
            mine.start()
            note.write_text(json.dumps(asdict(mine.server)))
        server = Server(**json.loads(note.read_text()))
        users.write_text(str(int(users.read_text()) + 1 if users.exists() else 1))
    try:
        yield server
    finally:
        with locked(folder):
            users.write_text(str(int(users.read_text()) - 1))
        while mine is not None:
            with locked(folder):
                if users.read_text() == "0":
                    note.unlink()
                    break
            time.sleep(0.1)
        if mine is not None:
            mine.stop()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / "argilla.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def argilla(common_folder: Path) -> Iterator[Server]:
    """Argilla as `parley up` runs it, or the one that the settings name."""
    given = named()
    if given is not None:
        yield given
        return
    with shared(common_folder) as server:
        yield server


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the session's workers share; short, and open to the database's user."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def named() -> Server | None:
    """The Argilla that the settings name."""
    url = os.environ.get("PARLEY_ARGILLA__URL")
    if url is None:
        return None
    return Server(
        url=url.rstrip("/"),
        api_key=os.environ["PARLEY_ARGILLA__API_KEY"],
        username=os.environ.get("PARLEY_ARGILLA__USERNAME", "argilla"),
        password=os.environ.get("PARLEY_ARGILLA__PASSWORD", ""),
    )


@pytest.fixture(scope="session", autouse=True)
def one_maker() -> Iterator[None]:
    """One process makes the data sets of all tests: to read Argilla's library takes it 2 s.

    The real one, which ends with its work, is used by the relay in `tests/e2e/test_argilla.py`.
    """
    with (
        ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool,
        pytest.MonkeyPatch.context() as patch,
    ):

        async def in_one_process(
            within_s: float, work: Callable[..., object], *args: object
        ) -> object:
            async with asyncio.timeout(within_s):
                return await asyncio.wrap_future(pool.submit(work, *args))

        patch.setattr("feedback.argilla_client.in_own_process", in_one_process)
        yield


@dataclass(frozen=True)
class Hooks:
    """A web server that webhooks are sent to."""

    url: str
    received: list[dict[str, object]]


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    received: list[dict[str, object]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what failed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Hooks(f"http://127.0.0.1:{server.server_port}/", received)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def people(argilla: Server) -> Iterator[Team]:
    """Who rates."""
    with meet(argilla.sdk()) as people:
        yield people


@pytest.fixture(scope="session")
def filled(people: Team) -> Iterator[Filled]:
    """The records of `records.py`, which no test changes."""
    with fill(people) as filled:
        yield filled
