"""The main job as a user does it: `parley up`, real documents in, cited answers out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PARLEY_EVAL_DATA", CHECKOUT.parent / "shared" / "data"))
DOCUMENTS = DATA / "documents"
START_DEADLINE_S = 90
VERB_DEADLINE_S = 120
EXIT_SERVICE_MISSING = 69

pytestmark = [
    pytest.mark.evaluation,
    pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="PARLEY_EVAL_DATA holds no documents"),
]


@pytest.fixture(scope="module")
def environment(default_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of an installation of its own."""
    home = tmp_path_factory.mktemp("main-job")
    (home / "models").symlink_to(default_models, target_is_directory=True)
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ports.append(str(listener.getsockname()[1]))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")},
        "PARLEY_HOME": str(home),
        "PARLEY_ENGINE__PORT": ports[0],
        "PARLEY_WEB__PORT": ports[1],
        "PARLEY_ARGILLA__ENABLED": "false",
    }


@pytest.fixture(scope="module")
def running(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of everything, started by the one command."""
    log = Path(environment["PARLEY_HOME"]) / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bots", "up"],
            cwd=CHECKOUT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + START_DEADLINE_S
    while "Parley is ready" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield environment
    process.send_signal(signal.SIGINT)
    process.wait(30)


def _parley(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bots", *map(str, arguments)],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=VERB_DEADLINE_S,
        check=False,
    )


def _data(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def ingested(running: dict[str, str]) -> list[dict[str, Any]]:
    """What `ingest` says of good, broken and missing files in one call."""
    names = ("stanley-cups.csv", "fake-memo.pdf", "handbook-1p.docx", "empty.txt", "password.pdf")
    done = _parley(running, "ingest", "--json", *(DOCUMENTS / n for n in names), "missing.txt")
    assert done.returncode == 1
    assert "\r" not in done.stderr  # no progress where nobody watches
    files: list[dict[str, Any]] = _data(done)["files"]
    return files


def test_every_file_ends_ready_or_failed_with_a_reason(ingested: list[dict[str, Any]]) -> None:
    status = {Path(file["path"]).name: file["status"] for file in ingested}
    assert status == {
        "stanley-cups.csv": "ready",
        "fake-memo.pdf": "ready",
        "handbook-1p.docx": "ready",
        "empty.txt": "failed",
        "password.pdf": "failed",
        "missing.txt": "failed",
    }
    for file in ingested:
        assert set(file) == {"path", "document_id", "status", "reason", "chunks"}
        assert (file["chunks"] > 0) == (file["status"] == "ready")
        assert bool(file["reason"]) == (file["status"] == "failed")


def test_the_answer_cites_the_document_that_holds_it(
    running: dict[str, str], ingested: list[dict[str, Any]]
) -> None:
    told = _data(
        _parley(running, "ask", "--json", "How many Stanley Cups did the Maple Leafs win?")
    )
    assert "13" in told["answer"]
    assert told["citations"][0]["document"] == "stanley-cups.csv"
    assert "Maple Leafs" in told["citations"][0]["quote"]
    assert told["model"] == "smollm2-135m-instruct"
    assert told["timings_ms"]["total"] > told["timings_ms"]["engine"] > 0


def test_search_names_the_place(running: dict[str, str], ingested: list[dict[str, Any]]) -> None:
    hits = _data(_parley(running, "search", "--json", "Maple Leafs Toronto"))["hits"]
    assert hits[0]["document"] == "stanley-cups.csv"
    assert {"document", "page", "text", "score"} <= set(hits[0])


def test_a_removed_document_is_found_no_more(
    running: dict[str, str], ingested: list[dict[str, Any]], tmp_path: Path
) -> None:
    note = tmp_path / "notes" / "otters.md"
    note.parent.mkdir()
    note.write_text("# Otters\n\nThe otter of the reception desk is called Bartholomew.\n")
    added = _data(_parley(running, "ingest", "--json", note.parent))["files"]
    assert [file["status"] for file in added] == ["ready"]
    assert _parley(running, "documents", "remove", "otters.md").returncode == 0
    told = _data(_parley(running, "ask", "--json", "What is the otter called?"))
    assert "Bartholomew" not in told["answer"]
    assert _parley(running, "documents", "remove", "otters.md").returncode == 2


def test_without_a_worker_ingest_names_the_command(
    environment: dict[str, str], tmp_path: Path
) -> None:
    alone = {**environment, "PARLEY_HOME": str(tmp_path)}
    assert _parley(alone, "migrate").returncode == 0
    done = _parley(alone, "ingest", __file__)
    assert done.returncode == EXIT_SERVICE_MISSING
    assert "parley up" in done.stderr
    assert done.stdout == ""
