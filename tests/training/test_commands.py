"""`python -m training` as people and other processes call it: what it prints, and how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from training.__main__ import main
from training.recipes import Device, named, parse

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def call(
        *words: str, python: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, "-m", "training", *words],
            env={**os.environ, "PARLEY_HOME": str(tmp_path / "home"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_a_recipe_is_printed_whole_without_torch(call: Call) -> None:
    done = call("recipe", "rloo", "--device", "cuda", python=("-X", "importtime"))
    assert done.returncode == 0
    assert parse(json.loads(done.stdout)) == named("rloo", "cuda")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "training.recipes" in imported
    assert not imported & {"torch", "transformers", "trl", "peft"}


def test_a_files_fields_lie_above_the_defaults(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('kind = "sft"\nlora.r = 8\n')
    printed = json.loads(call("recipe", str(file), "--device", "cpu").stdout)
    assert (printed["lora"]["r"], printed["lora"]["lora_alpha"]) == (8, 32)
    assert printed["learning_rate"] == 1e-3


@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("cuda", 2)])
def test_a_recipe_is_read_as_this_machines_worker_reads_it(
    device: Device, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.__main__.device_of", lambda environment: device)
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    file = tmp_path / "mine.json"
    # A CPU's step draws 32 answers by default, a GPU's 8.
    stages = [{"kind": "sft"}, {"kind": "reward"}, {"kind": "rloo", "num_generations": 16}]
    file.write_text(json.dumps({"kind": "pipeline", "stages": stages}))
    assert main(["recipe", str(file)]) == code


def test_a_wrong_recipe_is_said_in_a_sentence(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('kind = "sft"\nlearning_rte = 1\n')
    for asked, sentence in (
        ("stf", "There is no recipe 'stf'; did you mean 'sft'?"),
        (str(file), f"{file}: sft: there is no field 'learning_rte'; did you mean"),
        (str(tmp_path), "cannot be read"),
    ):
        done = call("recipe", asked)
        assert done.returncode == 2 and not done.stdout
        assert sentence in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("execute", "nosuch"), "nosuch is no run's folder"),
        (("export", "nosuch", "out"), "nosuch is no run's folder"),
        (("push", "nosuch", "team/model"), "nosuch is no run's folder"),
        (("curves", "nosuch/a.png", str(UUID(int=1))), "nosuch/a.png is no place for a file"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(
    call: Call, words: tuple[str, ...], sentence: str
) -> None:
    done = call(*words)
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_curves_of_no_run_are_not_drawn(call: Call, tmp_path: Path, database_url: str) -> None:
    out = tmp_path / "a.png"
    done = call("curves", str(out), str(UUID(int=1)), PARLEY_DATABASE__URL=database_url)
    assert done.returncode == 2 and not out.exists()
    assert f"There is no run {UUID(int=1)}" in done.stderr
