"""Answers that share the reading of their prompt, on tiny random models of each family."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine import tiny_models
from training.base_model import load_base
from training.shared_prompt import Group, Scorer, may_share


def groups_of(vocabulary: int) -> list[Group]:
    ids = torch.randint(3, vocabulary, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    return [
        Group(prompt=ids[:20], answers=[ids[20:25], ids[25:33], ids[33:34]]),
        Group(prompt=ids[5:9], answers=[ids[9:12], ids[30:38]]),
    ]


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("llama", {"num_key_value_heads": 2}),
        ("qwen2", {"num_key_value_heads": 2}),
        ("gemma", {"num_key_value_heads": 2, "head_dim": 16}),
        ("mistral", {"num_key_value_heads": 2, "sliding_window": None}),
        ("falcon", {}),
        ("gpt_neox", {}),
    ],
)
def test_answers_that_share_a_prompt_get_what_trl_gives_them_alone(
    tmp_path: Path, family: str, shape: dict[str, Any]
) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference
    from trl.trainer.utils import add_fused_lm_head

    model = load_base(tiny_models.write_generator(tmp_path, family=family, **shape))
    groups = groups_of(model.config.vocab_size)
    scorer = Scorer.of(model, groups)
    assert scorer.shared
    batch = DataCollatorForPreference(pad_token_id=2)(
        [
            {
                "prompt_ids": each.prompt,
                "chosen_ids": each.answers[0],
                "rejected_ids": each.answers[1],
            }
            for each in groups
        ]
    )
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    ours = scorer(**inputs, labels=labels)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    with torch.no_grad():
        theirs = model(**inputs, labels=labels, fused_lm_head=True)
    learnt = labels[:, 1:] != -100
    for name in ("log_probs", "entropy", "mean_logits", "is_top1"):
        wanted = theirs[name].masked_fill(~learnt, 0).float()
        assert torch.allclose(ours[name].float(), wanted, atol=1e-3), name


def test_a_model_that_looks_back_a_window_computes_each_answer_alone(tmp_path: Path) -> None:
    weights = tiny_models.write_generator(
        tmp_path, family="mistral", num_key_value_heads=2, sliding_window=8
    )
    assert not Scorer.of(load_base(weights), groups_of(200)).shared


def test_a_model_that_refuses_to_share_computes_each_answer_alone(tmp_path: Path) -> None:
    weights = tiny_models.write_generator(tmp_path, family="falcon", alibi=True)
    scorer = Scorer.of(load_base(weights), groups_of(200))
    assert not scorer.shared
    assert len(scorer.totals(groups_of(200))[0]) == 3


@pytest.mark.parametrize(("dtype", "shared"), [(torch.float32, False), (torch.bfloat16, True)])
def test_sharing_may_change_what_rounded_weights_do_anyway(
    dtype: torch.dtype, shared: bool
) -> None:
    """Results are float32 all the same."""

    def compute(group: Group) -> list[torch.Tensor]:
        return [torch.tensor(0.05 if len(group.answers) > 1 else 0.0)] * len(group.answers)

    assert may_share(torch.nn.Linear(1, 1, dtype=dtype), compute, groups_of(200)) is shared
