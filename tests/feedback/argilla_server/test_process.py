"""`python -m feedback argilla` as an operator runs it."""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from bots.settings import Settings
from bots.supervisor import parts_of
from feedback.settings import ArgillaSettings
from tests.feedback.argilla_server import test_contract as contract
from tests.feedback.argilla_server.conftest import Process, eventually, new_process
from tests.feedback.argilla_server.records import fill, meet

SERVER, REDIS = "launch.py", "redis-server"
BACK_DEADLINE_S = 60.0
PROCESSES = 4
"""Launcher, server, worker, and the worker's scheduler."""

pytestmark = pytest.mark.argilla


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One that the tests below may kill; it keeps its secrets itself."""
    process = new_process(tmp_path_factory.mktemp("argilla"), "sqlite")
    for name in ("API_KEY", "PASSWORD"):
        del process.environment[f"PARLEY_ARGILLA__{name}"]
    process.start()
    process.server = replace(process.server, api_key=owner_key(process))
    yield process
    assert process.popen is not None
    if process.popen.poll() is None:
        process.popen.kill()  # its children go with it
    process.popen.wait()


def family(process: Process, program: str) -> list[psutil.Process]:
    """The running processes of a program, parents first."""
    assert process.popen is not None
    found = []
    for child in psutil.Process(process.popen.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # just killed
            if program in " ".join(child.cmdline()[:2]):
                found.append(child)
    return found


def owner_key(process: Process) -> str:
    return (process.home / "argilla" / "api-key").read_text()


def test_its_secrets_are_made_kept_from_others_and_never_logged(process: Process) -> None:
    folder = process.home / "argilla"
    names = ("api-key", "password", "session-key")
    for name in names:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    me = httpx.get(
        f"{process.server.url}/api/v1/me", headers={"X-Argilla-Api-Key": owner_key(process)}
    )
    assert (me.json()["username"], me.json()["role"]) == ("ada", "owner")
    logs = [process.log, *(process.home / "logs").iterdir()]
    written = "".join(log.read_text() for log in logs)
    assert written
    assert not any((folder / name).read_text() in written for name in names)
    shown = " ".join(word for child in family(process, "") for word in child.cmdline())
    assert not any((folder / name).read_text() in shown for name in names)


def test_on_sqlite_everything_is_found_as_on_postgres(process: Process) -> None:
    with (
        meet(process.server.sdk()) as team,
        fill(team) as filled,
        contract.Pages(process.server, filled) as pages,
    ):
        for query, found in contract.QUERIES:
            assert set(pages.search(contract.text(query))) == found, query
        for filters, found in contract.FILTERS:
            assert set(pages.search(contract.both(*filters))) == found, filters
        for scope, upward, last in contract.ORDERS:
            contract.check_order(pages, scope, upward, last)
        assert pages.search(contract.text("morning", "before")) == ["chat"]
        assert pages.search(who="mia") == pages.search(who="mia")
        contract.check_progress(pages)
        contract.check_metrics(pages)
        contract.check_vectors(pages)


def test_a_second_one_on_the_same_state_says_so(process: Process) -> None:
    second = Process(
        home=process.home,
        store=process.store,
        environment=process.environment,
        server=process.server,
    )
    second.start(wait=False)
    assert second.popen is not None
    assert second.popen.wait(BACK_DEADLINE_S) == 69
    assert "already running" in process.log.read_text()


def test_a_killed_launcher_is_back_and_the_data_stay(process: Process) -> None:
    owner = {"X-Argilla-Api-Key": owner_key(process)}
    address = f"{process.server.url}/api/v1"
    assert httpx.post(f"{address}/workspaces", headers=owner, json={"name": "kept"}).is_success
    kill(process, family(process, SERVER)[0])
    kept = httpx.get(f"{address}/me/workspaces", headers=owner)
    assert [item["name"] for item in kept.json()["items"]] == ["kept"]
    assert "killed by SIGKILL" in process.log.read_text()


@pytest.mark.parametrize("which", [1, 2])
def test_a_killed_server_or_worker_is_back(process: Process, which: int) -> None:
    kill(process, family(process, SERVER)[which])


def kill(process: Process, victim: psutil.Process) -> None:
    """Kill a process of Argilla's, and wait until all of them are there again."""
    victim.kill()
    eventually(lambda: not victim.is_running(), lambda: "still there", deadline_s=BACK_DEADLINE_S)
    eventually(
        lambda: len(family(process, SERVER)) >= PROCESSES,
        lambda: process.log.read_text(),
        deadline_s=BACK_DEADLINE_S,
    )
    process.wait()  # at last: a server whose launcher was killed still answers for a moment


def test_a_killed_redis_is_back(process: Process) -> None:
    (victim,) = family(process, REDIS)
    victim.kill()
    eventually(
        lambda: [found for found in family(process, REDIS) if found.pid != victim.pid] != [],
        lambda: process.log.read_text(),
        deadline_s=BACK_DEADLINE_S,
    )


def wait_for_all(process: Process) -> None:
    """Wait until every process of Argilla's is there.

    The worker's scheduler may be missing: after its Redis was killed it comes back late.
    """
    eventually(
        lambda: bool(len(family(process, SERVER)) >= PROCESSES - 1 and family(process, REDIS)),
        lambda: process.log.read_text(),
        deadline_s=BACK_DEADLINE_S,
    )


def test_sigterm_stops_everything(process: Process) -> None:
    wait_for_all(process)
    everybody = family(process, "")
    assert process.stop() == 0
    assert not psutil.wait_procs(everybody, timeout=5)[1]


def test_a_killed_parent_takes_everybody_along(process: Process) -> None:
    # After it has been stopped by the test above, on the same state.
    process.start(wait=False)
    wait_for_all(process)
    everybody = family(process, "")
    assert process.popen is not None
    process.popen.kill()
    process.popen.wait()
    assert not psutil.wait_procs(everybody, timeout=BACK_DEADLINE_S)[1]


def test_up_includes_it_where_none_exists_and_the_relay_wherever_there_is_one() -> None:
    def names(argilla: ArgillaSettings) -> set[str]:
        settings = Settings().model_copy(update={"argilla": argilla})
        return {part.name for part in parts_of(settings, own_engine=True)}

    here = {"engine", "worker", "web", "training", "argilla", "relay"}
    assert names(ArgillaSettings()) == here
    assert names(ArgillaSettings(url="https://argilla.example")) == here - {"argilla"}
    assert names(ArgillaSettings(enabled=False)) == here - {"argilla", "relay"}


def test_with_the_address_of_another_argilla_none_is_started(tmp_path: Path) -> None:
    other = new_process(tmp_path, "sqlite")
    other.environment["PARLEY_ARGILLA__URL"] = "https://argilla.example"
    other.start(wait=False)
    assert other.popen is not None
    assert other.popen.wait(BACK_DEADLINE_S) == 78
    assert "PARLEY_ARGILLA__URL" in other.log.read_text()
    assert os.listdir(tmp_path) == ["process.log"]
