"""Which model a version must beat, and which settings of a judge are whole."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import SettingsInvalid
from engine.settings import EngineSettings, load_settings
from storage.model_versions import ModelVersions
from storage.pool import Pool
from tests.storage.conftest import Team
from tests.training.conftest import MODEL
from training.plan import Live
from training.planning import live_model
from training.settings import TrainingProcessSettings


@pytest.mark.parametrize(
    ("live", "here"), [(MODEL, True), ("hosted", False)], ids=["here", "on another server"]
)
async def test_without_a_version_the_settings_model_is_live_also_where_another_is_trained(
    pool: Pool,
    team: Team,
    home: Path,
    settings_of: Callable[..., TrainingProcessSettings],
    live: str,
    here: bool,
) -> None:
    (home / "models" / "trained").mkdir()
    models = {
        MODEL: f"ctranslate2:{MODEL}",
        "trained": "ctranslate2:trained",
        "hosted": "openai:http://127.0.0.1:9/v1#hosted",
    }
    judge = {"judge_url": "http://127.0.0.1:9/v1", "judge_model": "strict"}
    settings = settings_of(base="trained", **judge).model_copy(
        update={"engine": EngineSettings(models=models, live=live)}
    )
    found = await live_model(
        team.general.workspace_id, versions=ModelVersions(pool), settings=settings
    )
    directory = (home / "models" / MODEL).absolute()
    assert found == Live(
        name=live, directory=directory if here else None, judge="http://127.0.0.1:9/v1#strict"
    )
    assert settings.base_directory == (home / "models" / "trained").absolute()


@pytest.mark.parametrize("url", ["judge:8000/v1", "http:///v1", "http://judge:port/v1"])
def test_a_judge_without_an_address_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARLEY_TRAINING__JUDGE_URL", url)
    monkeypatch.setenv("PARLEY_TRAINING__JUDGE_MODEL", "any")
    with pytest.raises(SettingsInvalid, match=r"Setting training\.judge_url: "):
        load_settings(TrainingProcessSettings)


@pytest.mark.parametrize("name", ["JUDGE_URL", "JUDGE_MODEL"])
def test_half_a_judge_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"PARLEY_TRAINING__{name}", "http://127.0.0.1:9/v1")
    with pytest.raises(SettingsInvalid, match="judge_url and judge_model are set together"):
        load_settings(TrainingProcessSettings)
