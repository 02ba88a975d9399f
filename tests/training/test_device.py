"""Which device a run computes on."""

from pathlib import Path

import pytest
import torch

from training.device import device_name, device_of
from training.recipes import Device


@pytest.mark.parametrize(
    ("allowed", "device"),
    [
        (None, "cuda"),
        ("0", "cuda"),
        ("2,3", "cuda"),
        ("GPU-5ab1f1e2", "cuda"),
        ("", "cpu"),
        ("-1", "cpu"),
        ("-1,0", "cpu"),
        ("none", "cpu"),
    ],
)
def test_a_process_that_may_use_no_gpu_gets_a_cpus_defaults(
    tmp_path: Path, allowed: str | None, device: Device
) -> None:
    environment = {} if allowed is None else {"CUDA_VISIBLE_DEVICES": allowed}
    driver = tmp_path / "version"
    assert device_of(environment, driver=driver) == "cpu"
    driver.touch()
    assert device_of(environment, driver=driver) == device


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine computes on its GPU")
def test_a_cpu_is_told_with_its_threads() -> None:
    assert device_name() == f"cpu, {torch.get_num_threads()} threads"


def test_a_gpu_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert device_name() == "NVIDIA H200"
