"""Reading a snapshot's rows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.rows import read_rows


@pytest.mark.parametrize(
    "damage",
    [lambda line: line[:40], lambda line: "{}", lambda line: line.replace("completion", "chose")],
)
def test_a_damaged_snapshot_names_its_file(tmp_path: Path, damage: Callable[[str], str]) -> None:
    row = {
        "prompt": [{"role": "user", "content": "When?"}],
        "completion": [{"role": "assistant", "content": "In May."}],
    }
    file = tmp_path / "sft.train.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (read,) = read_rows(tmp_path, "sft", "train")
    assert read.chosen == "In May."
    file.write_text(f"{json.dumps(row)}\n{damage(json.dumps(row))}")
    with pytest.raises(TrainingError, match=r"sft\.train\.jsonl cannot be read") as caught:
        read_rows(tmp_path, "sft", "train")
    assert "new run" in caught.value.advice
