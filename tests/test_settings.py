"""The settings loader: sources, misspelt names, secrets, and the README's table."""

from pathlib import Path

import pytest

from bots.settings import Settings
from engine.errors import SettingsInvalid
from engine.settings import (
    OTHER_SECTIONS,
    env_name,
    is_secret,
    load_settings,
    setting_paths,
    setting_source,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "parley.toml"
    monkeypatch.setenv("PARLEY_CONFIG", str(path))
    path.write_text("")
    return path


def test_environment_wins_over_toml_wins_over_default(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text("[engine]\nport = 9001\nmax_queue = 7\n")
    monkeypatch.setenv("PARLEY_ENGINE__PORT", "9002")
    settings = load_settings(Settings)
    assert (settings.engine.port, settings.engine.max_queue) == (9002, 7)
    assert settings.web.port == 8800
    assert setting_source("engine.port") == "environment"
    assert setting_source("engine.max_queue") == "parley.toml"
    assert setting_source("web.port") == "default"


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        ("[engine]\nprot = 1\n", "engine.prot", "engine.port"),
        ("[engin]\nport = 1\n", "engin.port", "engine.port"),
        ("hom = 'x'\n", "hom", "home"),
    ],
)
def test_a_misspelt_toml_key_is_named_with_the_nearest_valid_one(
    toml: Path, text: str, named: str, nearest: str
) -> None:
    toml.write_text(text)
    with pytest.raises(SettingsInvalid, match=rf"{named} .*did you mean {nearest}\?"):
        load_settings(Settings)


def test_the_engine_knows_the_name_of_every_section() -> None:
    sections = {path.partition(".")[0] for path, _ in setting_paths(Settings) if "." in path}
    assert sections <= OTHER_SECTIONS | {"engine"}


def test_a_misspelt_variable_is_named_with_the_nearest_valid_one(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_ENGINE__PROT", "1")
    with pytest.raises(SettingsInvalid, match=r"PARLEY_ENGINE__PROT.*PARLEY_ENGINE__PORT"):
        load_settings(Settings)


def test_a_bad_value_is_named_by_its_path_and_not_shown(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_ENGINE__PORT", "eighty-hunter2")
    with pytest.raises(SettingsInvalid, match=r"engine\.port") as caught:
        load_settings(Settings)
    assert "hunter2" not in str(caught.value)


def test_a_secret_in_toml_is_refused(toml: Path) -> None:
    toml.write_text("[engine]\napi_key = 'hunter2'\n")
    with pytest.raises(SettingsInvalid, match="PARLEY_ENGINE__API_KEY") as caught:
        load_settings(Settings)
    assert "hunter2" not in str(caught.value)


def test_unreadable_toml_is_named(toml: Path) -> None:
    toml.write_text("[engine\n")
    with pytest.raises(SettingsInvalid, match=r"parley\.toml"):
        load_settings(Settings)


def test_a_named_file_that_is_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(SettingsInvalid, match=r"nowhere\.toml"):
        load_settings(Settings)


def test_models_can_be_named_in_toml(toml: Path) -> None:
    toml.write_text(
        "[engine.models]\nsmall = 'ctranslate2:small'\nbig = 'openai:http://gpu:8000/v1#big'\n"
    )
    assert set(load_settings(Settings).engine.models) == {"small", "big"}


def test_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    assert settings_table() in (ROOT / "README.md").read_text()


def test_the_example_file_holds_every_default(monkeypatch: pytest.MonkeyPatch) -> None:
    example = ROOT / "deploy" / "parley.example.toml"
    monkeypatch.setenv("PARLEY_CONFIG", str(example))
    assert load_settings(Settings) == Settings()
    shown = {
        path
        for path, field in setting_paths(Settings)
        if not is_secret(field) and field.get_default(call_default_factory=True) is not None
    }
    assert {path for path in shown if setting_source(path) == "default"} == set()


def settings_table() -> str:
    """The README's table, as `python -m tests.test_settings` prints it."""
    lines = ["| setting | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for path, field in setting_paths(Settings):
        default = field.get_default(call_default_factory=True)
        shown = "unset" if default is None or is_secret(field) else f"`{default}`"
        lines.append(f"| `{path}` | `{env_name(path)}` | {shown} | {field.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_table())
