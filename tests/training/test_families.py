"""Every family of models that CTranslate2 runs is trained, merged and converted alike."""

import json
from pathlib import Path

import pytest

from engine.convert import convert
from tests.engine import tiny_models
from tests.engine.test_convert import FAMILIES, _answer, _reference
from training import sft
from training.base_model import Reader
from training.recipes import SftRecipe
from training.stage import Events, Stage

RECIPE = SftRecipe.model_validate({"lora": {"r": 4}, "learning_rate": 0.02, "max_steps": 3})


@pytest.mark.parametrize(
    "family", ["llama, 3.1", "qwen2", "gemma", "gemma2", "mistral", "falcon", "gpt_neox"]
)
def test_a_trained_model_answers_as_transformers_does(family: str, tmp_path: Path) -> None:
    weights = tiny_models.write_generator(
        tmp_path / "base", family=family.partition(",")[0], **FAMILIES[family]
    )
    convert(weights, out=tmp_path / "served", quantization="float32")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is number {number}?"}],
            "completion": [{"role": "assistant", "content": f"It is {number}, they say."}],
        }
        for number in range(12)
    ]
    for split, some in (("train", rows[:8]), ("held_out", rows[8:])):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (snapshot / f"sft.{split}.jsonl").write_text(text)
    (tmp_path / "stage").mkdir()
    stage = Stage(
        kind="sft",
        folder=tmp_path / "stage",
        weights=weights,
        reader=Reader.of(tmp_path / "served"),
        snapshot=snapshot,
        events=Events(file=tmp_path / "events.jsonl"),
    )

    result = sft.run(stage, RECIPE)

    assert result.metrics["held_out_loss"] < result.metrics["held_out_loss_before"]
    convert(weights, out=tmp_path / "made", quantization="float32", adapter=result.adapter)
    answer = _answer(tmp_path / "made")
    assert answer == _reference(weights, result.adapter)
    assert answer != _answer(tmp_path / "served")
