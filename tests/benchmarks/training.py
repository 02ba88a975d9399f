"""Speed and steadiness of training: `python -m tests.benchmarks training [--short]`.

The default model with the shipped LoRA on the same batches, once by TRL's own trainer as it comes
and once by ours. Then a run's own process, killed again and again, against one that is left alone.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.prompt import PromptSource, rag_messages
from tests.benchmarks import Row
from tests.benchmarks.corpus import xquad
from tests.benchmarks.simulated_team import questions
from training import sft
from training.base_model import (
    Reader,
    base_weights,
    load_policy,
    load_tokenizer,
    lora_fields,
)
from training.plan import Plan
from training.recipes import SftRecipe, parse
from training.rows import Rendered, rendered
from training.stage import Events, Stage, arguments, train

MODEL = "smollm2-135m-instruct"
REACH_FASTER = 3.0
KILLS = 10
REACH_SAME = 0.01
WAIT_S = 600.0


def run(*, short: bool) -> list[Row]:
    """Six steps of each trainer and ten kills, or one step and one kill."""
    home = Path(os.environ.get("PARLEY_HOME", ".parley")).resolve()
    rows = _speed(home, steps=1 if short else 6)
    return rows + _killed(home, kills=1 if short else KILLS)


def _pairs() -> list[tuple[Any, str]]:
    """Questions with their passage, as they are served, and the right answers."""
    asked = questions(xquad())
    random.Random(5).shuffle(asked)
    return [
        (
            rag_messages(
                question=each.text,
                history=(),
                sources=[PromptSource(number=1, title=each.title, text=each.passage)],
            ),
            each.right[0],
        )
        for each in asked
    ]


# -- Speed ----------------------------------------------------------------------------------------


def _speed(home: Path, *, steps: int) -> list[Row]:
    base = home / "models" / MODEL
    reader = Reader.of(base)
    # One step more than is counted: what is computed once is not what training costs.
    recipe = SftRecipe.model_validate(
        {
            "max_steps": steps + 1,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "save_steps": 1000,
        }
    )
    rows = rendered(reader, _pairs()[: 8 * (steps + 1)], max_length=recipe.max_length)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = {}
        for name in ("plain", "ours"):
            stage = Stage(
                kind="sft",
                folder=Path(folder) / name,
                weights=base_weights(base, home=home),
                reader=reader,
                snapshot=Path(folder),
                events=Events(file=Path(folder) / f"{name}.jsonl"),
            )
            stage.folder.mkdir()
            make = _plain if name == "plain" else _ours
            train(make(stage, recipe, rows), stage)
            told[name] = _steps(stage.events.file)
    plain, ours = (_tokens_per_s(told[name]) for name in ("plain", "ours"))
    difference = max(
        abs(a["loss"] - b["loss"]) for a, b in zip(told["plain"], told["ours"], strict=True)
    )
    faster = ours / plain
    return [
        Row(what="plain TRL, tokens/s", reached=f"{plain:.0f}"),
        Row(
            what="ours, tokens/s",
            reached=f"{ours:.0f}, {faster:.1f} times",
            target=f">= {REACH_FASTER:.0f} times",
            ok=faster >= REACH_FASTER,
        ),
        Row(
            what="largest difference of a step's loss",
            reached=f"{difference:.1e}",
            target="< 1e-3",
            ok=difference < 1e-3,
        ),
    ]


def _ours(stage: Stage, recipe: SftRecipe, rows: Sequence[Rendered]) -> Any:
    policy = load_policy(stage.weights, lora=recipe.lora, seed=recipe.seed)
    return sft.trainer_of(stage, recipe, policy, rows)


def _plain(stage: Stage, recipe: SftRecipe, rows: Sequence[Rendered]) -> Any:
    """TRL's, PEFT's and transformers' own, with the same adapter on the same ids and labels."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    base = AutoModelForCausalLM.from_pretrained(stage.weights, dtype=torch.float32)
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(task_type="CAUSAL_LM", **lora_fields(recipe.lora))
    fields = arguments(stage, recipe)
    del fields["remove_unused_columns"]
    return SFTTrainer(
        model=get_peft_model(base, lora),
        args=SFTConfig(**fields),
        train_dataset=Dataset.from_list(
            [{"input_ids": row.prompt + row.answer, "labels": row.labels} for row in rows]
        ),
        processing_class=load_tokenizer(stage.weights),
    )


def _steps(events: Path) -> list[dict[str, float]]:
    """What each step told, the last word of a step that was done again."""
    told: dict[int, dict[str, float]] = {}
    for line in events.read_text().splitlines():
        event = json.loads(line)
        if "loss" in event.get("values", {}):
            told[event["step"]] = event["values"]
    return [told[step] for step in sorted(told)]


def _tokens_per_s(steps: Sequence[dict[str, float]]) -> float:
    """Over all steps but the first, each with its own time."""
    counted = [each for each in steps if "tokens_per_s" in each]
    before = [steps[0]["num_tokens"], *(each["num_tokens"] for each in counted)]
    tokens = [after - first for first, after in itertools.pairwise(before)]
    seconds = sum(count / each["tokens_per_s"] for count, each in zip(tokens, counted, strict=True))
    return sum(tokens) / seconds


# -- Kills ----------------------------------------------------------------------------------------


def _killed(home: Path, *, kills: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as work:
        snapshot = _snapshot(Path(work) / "snapshot")
        losses = []
        died = 0
        for name in ("unbroken", "killed"):
            folder = Path(work) / name
            _plan(home, snapshot, max_steps=4 * kills).write(folder)
            if name == "killed":
                died = _kill_again_and_again(folder, kills)
            _run_until(folder, lambda events: '"artifact"' in events)
            losses.append(_steps(folder / "events.jsonl")[-1]["loss"])
    apart = abs(losses[1] / losses[0] - 1)
    return [
        Row(
            what=f"last loss after {died} kills",
            reached=f"{losses[1]:.6f}, unbroken {losses[0]:.6f}",
            target=f"within {REACH_SAME:.0%}",
            ok=apart <= REACH_SAME and died == kills,
        )
    ]


def _plan(home: Path, snapshot: Path, *, max_steps: int) -> Plan:
    recipe = {
        "kind": "sft",
        "max_steps": max_steps,
        "save_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
    }
    base = home / "models" / MODEL
    return Plan(
        run_id="benchmark",
        name="v1-benchmark",
        recipe=parse(recipe),
        snapshot=snapshot,
        snapshot_sha256="0",
        base=base,
        home=home,
    )


def _snapshot(folder: Path) -> Path:
    folder.mkdir()
    pairs = _pairs()
    for split, some in (("train", pairs[:64]), ("held_out", pairs[64:68])):
        rows = [
            {
                "prompt": [{"role": each.role, "content": each.content} for each in messages],
                "completion": [{"role": "assistant", "content": right}],
            }
            for messages, right in some
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"sft.{split}.jsonl").write_text(text)
    return folder


def _kill_again_and_again(folder: Path, kills: int) -> int:
    """Kill the run's process, each time after other steps than before."""
    rng = random.Random(7)
    died = 0
    for _ in range(kills):
        before = _count(folder)
        after = before + rng.randint(1, 3)
        died += (
            _run_until(folder, lambda _, after=after: _count(folder) >= after) == -signal.SIGKILL
        )
    return died


def _count(folder: Path) -> int:
    events = folder / "events.jsonl"
    return events.read_text().count('"loss"') if events.exists() else 0


def _run_until(folder: Path, condition: Any) -> int:
    """Run the run's process until its events say enough, then kill it; returns its exit code."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "training", "execute", str(folder)], stdout=log, stderr=log
        )
    deadline = time.monotonic() + WAIT_S
    events = folder / "events.jsonl"
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"nothing came of {folder}")
        if events.exists() and condition(events.read_text()):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    return process.wait()
