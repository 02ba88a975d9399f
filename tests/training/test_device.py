"""Which device a run computes on."""

from pathlib import Path

import pytest

from training.device import device_of
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
