"""`parley up` as a user runs it: a real process tree on its own state folder."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

DEADLINE_S = 60.0


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    home: Path
    environment: dict[str, str]
    web: str
    engine: str
    errors: Path

    def pid(self, module: str, verb: str) -> int | None:
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cmdline()[-2:] == [module, verb]:
                    return int(child.pid)
        return None

    def postmaster(self) -> int:
        return int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])


def parley(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bots", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(claim: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(httpx.HTTPError, OSError, psutil.NoSuchProcess):
            if claim():
                return
        time.sleep(0.05)
    pytest.fail(f"not within {DEADLINE_S:g} s: {what}")


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, default_models: Path
) -> tuple[Path, dict[str, str]]:
    home = tmp_path_factory.mktemp("up") / "home"
    (home / "models").mkdir(parents=True)
    for model in default_models.iterdir():
        if model.is_dir():
            (home / "models" / model.name).symlink_to(model)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "PARLEY_HOME": str(home),
        "PARLEY_ENGINE__PORT": str(free_port()),
        "PARLEY_WEB__PORT": str(free_port()),
        "PARLEY_ARGILLA__ENABLED": "false",
    }
    return home, environment


@contextlib.contextmanager
def started(home: Path, environment: dict[str, str]) -> Iterator[Running]:
    errors = home.parent / "errors.txt"
    with errors.open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "bots", "up"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        web = f"http://127.0.0.1:{environment['PARLEY_WEB__PORT']}"
        assert web in line, errors.read_text()
        yield Running(
            process,
            home,
            environment,
            web,
            f"http://127.0.0.1:{environment['PARLEY_ENGINE__PORT']}",
            errors,
        )
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
        process.stdout.close()


@pytest.fixture(scope="module")
def up(prepared: tuple[Path, dict[str, str]]) -> Iterator[Running]:
    with started(*prepared) as running:
        yield running


def test_every_part_is_healthy_once_the_address_is_printed(up: Running) -> None:
    eventually(
        lambda: parley("check", "--json", environment=up.environment).returncode == 0, "all healthy"
    )
    report = json.loads(parley("check", "--json", environment=up.environment).stdout)
    assert {part["part"] for part in report["parts"]} == {
        "database",
        "worker",
        "training",
        "engine",
        "web",
    }
    assert report["settings"]["home"] == {"value": f'"{up.home}"', "source": "environment"}


def test_a_second_up_says_so_and_disturbs_nothing(up: Running) -> None:
    engine = up.pid("engine", "serve")
    second = parley("up", environment=up.environment)
    assert second.returncode == 0
    assert "already running" in second.stderr
    assert up.web in second.stderr
    assert up.pid("engine", "serve") == engine
    assert httpx.get(f"{up.engine}/healthz").is_success


@pytest.mark.parametrize(
    ("module", "verb"), [("engine", "serve"), ("bots", "worker"), ("bots", "web")]
)
def test_a_killed_part_is_noticed_and_started_again(up: Running, module: str, verb: str) -> None:
    eventually(lambda: up.pid(module, verb) is not None, "running")
    before = up.pid(module, verb)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    eventually(lambda: up.pid(module, verb) not in (None, before), "started again")
    assert "killed by SIGKILL" in up.errors.read_text()
    eventually(
        lambda: parley("check", "--json", environment=up.environment).returncode == 0, "healthy"
    )


def test_a_killed_database_is_noticed_and_started_again(up: Running) -> None:
    before = up.postmaster()
    os.kill(before, signal.SIGKILL)
    eventually(lambda: up.postmaster() != before, "started again")
    assert "database ended" in up.errors.read_text()
    eventually(
        lambda: parley("check", "--json", environment=up.environment).returncode == 0, "healthy"
    )


def test_ctrl_c_stops_every_child_and_leaves_no_orphan(up: Running) -> None:
    family = psutil.Process(up.process.pid).children(recursive=True)
    family.append(psutil.Process(up.postmaster()))
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(DEADLINE_S) == 0
    assert not psutil.wait_procs(family, timeout=5)[1]
    assert not (up.home / "up.json").exists()


def test_a_killed_supervisor_takes_its_children_along_and_can_start_again(
    up: Running, prepared: tuple[Path, dict[str, str]]
) -> None:
    # After `up` has been stopped by the test above, on the same state.
    with started(*prepared) as running:
        family = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        running.process.wait(DEADLINE_S)
        assert not psutil.wait_procs(family, timeout=15)[1]
    with started(*prepared) as running:
        assert httpx.get(f"{running.engine}/healthz").is_success


def test_a_taken_port_is_named_with_the_setting_that_changes_it(
    prepared: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    _, environment = prepared
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        result = parley(
            "up",
            environment=environment | {"PARLEY_HOME": str(tmp_path), "PARLEY_WEB__PORT": port},
        )
    assert result.returncode == 69
    assert port in result.stderr
    assert "PARLEY_WEB__PORT" in result.stderr


def test_an_unknown_setting_stops_before_anything_starts(
    prepared: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    _, environment = prepared
    result = parley(
        "up",
        environment=environment | {"PARLEY_HOME": str(tmp_path), "PARLEY_WEB__PROT": "1"},
    )
    assert result.returncode == 78
    assert "PARLEY_WEB__PORT" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_unreachable_database_is_one_sentence(
    prepared: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    _, environment = prepared
    result = parley(
        "up",
        environment=environment
        | {
            "PARLEY_HOME": str(tmp_path),
            "PARLEY_DATABASE__URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none",
            "PARLEY_ENGINE__URL": "http://127.0.0.1:9",
        },
    )
    assert result.returncode == 69
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
