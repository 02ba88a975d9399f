"""The plan of a run: everything that decides which model comes out, in one file.

`plan.json` lies in the run's folder before its process starts and never changes, so that a killed
run goes on with the same plan, and anybody can say later what made a model. What the model is then
compared with, and by whom, may change while it is trained, and when the gate is asked again: that
is `live.json`.
"""

import os
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationError, field_validator

from training.errors import RecipeInvalid, TrainingError
from training.recipes import Recipe, parse

FILE: Final = "plan.json"


class _InFolder(BaseModel):
    """What is written down in a run's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    in_file: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write it into a run's folder, in one step.

        Raises:
            OSError: the disk does not take it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / self.in_file, self.model_dump_json(indent=2))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What a run's folder holds.

        Raises:
            TrainingError: there is none that can be read.
        """
        file = folder / cls.in_file
        try:
            return cls.model_validate_json(file.read_bytes())
        except RecipeInvalid as error:
            raise TrainingError(
                f"{file} was written by another version of Parley: {error}",
                advice="Use the run's folder with that version, or train again.",
            ) from error
        except (OSError, ValidationError) as error:
            raise TrainingError(f"{file} cannot be used: {error}") from error


class Live(_InFolder):
    """The model that answers now, with which the gate compares, and who judges both.

    Attributes:
        name: by which the engine knows it.
        directory: its model directory; None = it answers from another server.
        judge: an OpenAI-compatible judge, as `<url>#<model>`; None = no judge.
    """

    in_file = "live.json"

    name: str
    directory: Path | None
    judge: str | None = None


class Plan(_InFolder):
    """What a run does.

    Attributes:
        run_id: of the run, as text.
        name: of the version that the run is to make, as the engine will know it.
        recipe: see `training.recipes`.
        snapshot: the folder of `feedback.datasets.write` that is trained on.
        snapshot_sha256: its hash.
        base: model directory of the base as the engine serves it: template, tokenizer, and the
            source of the weights to train on.
        home: state folder, where the bases' weights are kept.
        parent: name of the version that was live then; None = the base itself.
        versions: of Python, the libraries and Parley that run it.
        code: revision of Parley's code, see `training.provenance`.
        labels: pieces of feedback that it learns from, see `training.labels`.
        min_labels: labels below which the gate lets nothing pass.
        memory_mb: most memory of the run's process.
    """

    in_file = FILE

    run_id: str
    name: str
    recipe: SerializeAsAny[Recipe]
    snapshot: Path
    snapshot_sha256: str
    base: Path
    home: Path
    parent: str | None = None
    versions: dict[str, str] = {}
    code: str = "unknown"
    labels: int = 0
    min_labels: int = 30
    memory_mb: int = 8192

    @field_validator("recipe", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        return parse(value) if isinstance(value, dict) else value


def write_whole(file: Path, text: str) -> None:
    """Replace a file in one step, durably: a kill leaves the old one or the new one.

    Raises:
        OSError: the disk does not take it.
    """
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("w", encoding="utf-8") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)
