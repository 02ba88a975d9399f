"""Parts of a batch at once, a core each."""

import time

import pytest
import torch

from training.cores import map_on_cores


@pytest.mark.parametrize(("device", "at_once"), [("cpu", 2), ("meta", 1)])
def test_parts_are_computed_at_once_on_cores_only(device: str, at_once: int) -> None:
    """Torch's device without memory stands for every other one that is not the CPU."""
    model = torch.nn.Linear(1, 1, device=device)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    computing: list[int] = []
    seen = []

    def compute(part: int) -> int:
        computing.append(part)
        time.sleep(0.05)
        seen.append(len(computing))
        computing.remove(part)
        return part

    try:
        assert map_on_cores(model, compute, range(4)) == [0, 1, 2, 3]
    finally:
        torch.set_num_threads(before)
    assert max(seen) == at_once
