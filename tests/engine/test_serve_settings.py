"""`engine serve` and its settings: one shared file, strict about its own section."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def serve(folder: Path, toml: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "parley.toml").write_text(toml)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    return subprocess.run(
        [sys.executable, "-m", "engine", "serve", "--port", "0"],
        cwd=folder,
        env={**clean, "PYTHONPATH": os.getcwd(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("toml", "environment", "named"),
    [
        ("[engine]\nprot = 1\n", {}, "engine.port"),
        ("", {"PARLEY_ENGINE__PROT": "1"}, "PARLEY_ENGINE__PORT"),
        ("[engine]\nport = 'high'\n", {}, "engine.port"),
        ("[engine]\nadmin_token = 'x'\n", {}, "PARLEY_ENGINE__ADMIN_TOKEN"),
        ("[engin]\nport = 1\n", {}, "engin.port in parley.toml; did you mean engine.port?"),
        ("[serch]\nx = 1\n", {}, "serch.x in parley.toml; did you mean search.x?"),
        ("hom = 'x'\n", {}, "hom in parley.toml; did you mean home?"),
        ("", {"PARLEY_ENGIN__PORT": "1"}, "PARLEY_ENGINE__PORT"),
        ("", {"PARLEY_SERCH__X": "1"}, "did you mean PARLEY_SEARCH__X?"),
        ("", {"PARLEY_HOM": "x"}, "did you mean PARLEY_HOME?"),
    ],
)
def test_a_bad_engine_setting_is_named_and_exits_78(
    tmp_path: Path, toml: str, environment: dict[str, str], named: str
) -> None:
    result = serve(tmp_path, toml, **environment)
    assert result.returncode == 78
    assert named in result.stderr


def test_other_rooms_sections_pass_and_missing_models_exit_69(tmp_path: Path) -> None:
    result = serve(
        tmp_path,
        "[web]\nport = 1\n\n[search]\nx = 2\n",
        PARLEY_DATABASE__URL="postgres://elsewhere",
    )
    assert result.returncode == 69
    assert "engine pull" in result.stderr
