"""The rooms, their import direction and what may stand in them."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("bots", "engine", "feedback", "storage", "training")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_imports_go_downward_only() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("engine/planted.py", "import bots.messages"),
        ("engine/planted.py", "import storage.errors"),
        ("storage/planted.py", "import engine.errors"),
        ("storage/planted.py", "import gradio"),
        ("bots/planted.py", "import psycopg"),
        ("bots/planted.py", "import torch"),
    ],
)
def test_a_planted_forbidden_import_is_caught(tmp_path: Path, module: str, line: str) -> None:
    for room in ROOMS:
        for source in (ROOT / room).rglob("*.py"):
            copy = tmp_path / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / module).write_text(f"{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode != 0
    assert module.removesuffix(".py").replace("/", ".") in result.stdout


def test_each_room_belongs_to_our_distribution_alone() -> None:
    owners = importlib.metadata.packages_distributions()
    assert {room: set(owners[room]) for room in ROOMS} == {room: {"parley"} for room in ROOMS}


def test_every_package_is_shipped() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    present = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert listed - {"storage.migrations"} == present


@pytest.mark.parametrize("process", ["bots.worker", "bots.web.server", "engine.server"])
def test_serving_processes_import_no_torch(process: str) -> None:
    code = (
        f"import sys, {process}; "
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() == "[]"
