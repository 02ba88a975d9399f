"""Which code and libraries made a model."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from training.provenance import code_revision, library_versions


def test_every_library_that_training_computes_with_is_told_with_its_version() -> None:
    libraries = "torch transformers trl peft accelerate datasets tokenizers safetensors numpy"
    told = library_versions()
    assert {name: told[name] for name in libraries.split()} == {
        name: version(name) for name in libraries.split()
    }
    assert told["python"] == platform.python_version()


def test_code_is_named_by_its_commit_and_without_a_checkout_by_its_source(tmp_path: Path) -> None:
    source = tmp_path / "training" / "one.py"
    source.parent.mkdir()
    source.write_text("a = 1\n")
    first = code_revision(tmp_path)
    source.write_text("a = 2\n")
    assert first.startswith("sha256:")
    assert code_revision(tmp_path) != first

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", *identity, "-C", str(tmp_path), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "One")
    commit = git("rev-parse", "HEAD")
    assert code_revision(tmp_path) == commit
    source.write_text("a = 3\n")
    assert code_revision(tmp_path) == f"{commit}-dirty"
