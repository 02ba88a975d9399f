"""Linear layers that do not learn, multiplied by oneDNN on a CPU.

Why not as torch does it: on x86 it multiplies float32 by MKL, which leaves half of some processors
unused. On an AMD EPYC (Zen 5) a core does 110 GFLOP/s by MKL and 245 by oneDNN, 127 where that may
use AVX2 alone (2026-11-30, torch 2.13). Adapters, which learn, are small, and stay torch's.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable


class FrozenLinear(torch.nn.Linear):
    """A linear layer with another's weights; it is torch's own wherever its weights learn."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(
            layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
        )
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`torch.nn.functional.linear`."""
        if self.weight.requires_grad or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        product: torch.Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias
        )
        return product


class _Product(torch.autograd.Function):
    """`torch.nn.functional.linear`, and the gradient of its input."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(gradient, weight.t(), None), None, None


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def freeze_linear_layers(model: Any) -> None:
    """Let a model's linear layers be multiplied by oneDNN, where that can be.

    The layer of its output stays: TRL has losses that look into it.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    output = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) is torch.nn.Linear and layer is not output and _fits(layer.weight):
                setattr(parent, name, FrozenLinear(layer))


def _fits(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
