"""Frozen linear layers give what torch's give, and learn where they are to learn."""

from pathlib import Path

import pytest
import torch

from tests.engine import tiny_models
from training.base_model import load_base, load_policy
from training.frozen_linear import FrozenLinear
from training.recipes import LoraSettings, Precision

ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU layers are torch's")


def linear(*, bias: bool, learns: bool) -> torch.nn.Linear:
    torch.manual_seed(3)
    layer = torch.nn.Linear(48, 20, bias=bias)
    return layer.requires_grad_(learns)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(48,), (5, 48), (2, 3, 48), (0, 48)])
def test_a_frozen_layer_gives_what_torchs_gives_and_passes_the_same_gradient_on(
    shape: tuple[int, ...], bias: bool
) -> None:
    theirs = linear(bias=bias, learns=False)
    ours = FrozenLinear(theirs)
    rows = torch.randn(*shape, requires_grad=True)
    above = torch.randn(*shape[:-1], 20)
    (wanted,) = torch.autograd.grad(theirs(rows), rows, above)
    (found,) = torch.autograd.grad(ours(rows), rows, above)
    assert torch.allclose(ours(rows), theirs(rows), atol=1e-5)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_rows_that_lie_across_memory_are_read_as_they_are() -> None:
    theirs = linear(bias=True, learns=False)
    across = torch.randn(48, 7).t()
    assert torch.allclose(FrozenLinear(theirs)(across), theirs(across), atol=1e-5)


def test_a_layer_whose_weights_learn_gets_its_gradient() -> None:
    theirs = linear(bias=True, learns=True)
    FrozenLinear(theirs)(torch.ones(2, 48)).sum().backward()
    assert theirs.weight.grad is not None and theirs.bias.grad is not None
    assert torch.allclose(theirs.weight.grad, torch.full((20, 48), 2.0))


def test_in_lower_precision_a_frozen_layer_computes_as_torchs_does() -> None:
    theirs = linear(bias=True, learns=False)
    rows = torch.randn(5, 48)
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = FrozenLinear(theirs)(rows), theirs(rows)
    assert found.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(found, wanted)


@ON_CPU
def test_every_linear_layer_of_a_policys_base_is_frozen_but_that_of_its_output(
    tmp_path: Path,
) -> None:
    weights = tiny_models.write_generator(tmp_path)
    policy = load_policy(weights, lora=LoraSettings(r=4))
    kinds = {
        name: type(layer)
        for name, layer in policy.named_modules()
        if isinstance(layer, torch.nn.Linear) and "lora_" not in name
    }
    output = {name for name in kinds if name.endswith("lm_head")}
    assert len(output) == 1
    assert {kinds[name] for name in output} == {torch.nn.Linear}
    assert {kind for name, kind in kinds.items() if name not in output} == {FrozenLinear}


@ON_CPU
def test_layers_that_are_held_in_fewer_bits_stay_as_they_are(tmp_path: Path) -> None:
    weights = tiny_models.write_generator(tmp_path)
    model = load_base(weights, precision=Precision(dtype="bfloat16"))
    assert not any(isinstance(layer, FrozenLinear) for layer in model.modules())
