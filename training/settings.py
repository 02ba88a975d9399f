"""What `python -m training` reads from the shared `parley.toml`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from engine.settings import EngineSettings, ProcessSettings
from storage.settings import DatabaseSettings, TrainingSettings
from training.errors import BaseUnusable


class TrainingProcessSettings(ProcessSettings):
    """The settings of training's worker."""

    model_config = ProcessSettings.model_config | {"extra": "ignore"}

    home: Path = Field(Path(".parley"), description="State folder.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log record that is written."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of the log records.")
    engine: EngineSettings = Field(default_factory=EngineSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    @property
    def base_directory(self) -> Path:
        """Model directory of the base, as the engine serves it.

        Raises:
            BaseUnusable: the settings name none that is served from here.
        """
        name = self.training.base or self.engine.live
        directory = self.directory_of(name)
        if directory is None:
            raise BaseUnusable(
                f"There is no model {name!r} on this machine to train.",
                advice="Let training.base name a model of engine.models that is "
                "ctranslate2:<directory>.",
            )
        return directory

    def directory_of(self, name: str) -> Path | None:
        """Directory of a model of the engine's settings; None where it is not on this machine."""
        kind, _, place = self.engine.models.get(name, "").partition(":")
        directory = (self.home / "models" / place).absolute()
        return directory if kind == "ctranslate2" and directory.is_dir() else None
