"""Answers drawn from a policy, on a tiny random model."""

from pathlib import Path
from typing import Any

import torch

from tests.training.conftest import MODEL
from training.base_model import load_base
from training.sampling import Drawing, draw


def test_drawn_answers_are_what_transformers_draws(trainable: Path) -> None:
    model: Any = load_base(trainable / "bases" / MODEL)
    prompt = torch.randint(3, 200, (20,), generator=torch.Generator().manual_seed(1)).tolist()
    greedy = Drawing(max_tokens=8, ends=[2], temperature=None)
    wanted = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=2,
        pad_token_id=2,
    )[0, len(prompt) :].tolist()
    assert draw(model, prompt, greedy, count=2, seed=0) == [wanted, wanted]
    assert draw(
        model, prompt, Drawing(max_tokens=8, ends=[wanted[2]], temperature=None), count=1, seed=0
    ) == [wanted[: wanted.index(wanted[2]) + 1]]
    warm = Drawing(max_tokens=8, ends=[2], temperature=1.5)
    drawn = draw(model, prompt, warm, count=4, seed=5)
    assert drawn == draw(model, prompt, warm, count=4, seed=5)
    assert len({tuple(answer) for answer in drawn}) > 1
