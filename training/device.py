"""Which device a run computes on: whose defaults it gets, and what is said of it afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from training.recipes import Device

GPUS: Final = "CUDA_VISIBLE_DEVICES"
DRIVER: Final = Path("/proc/driver/nvidia/version")
_NAMED: Final = ("GPU-", "MIG-")


def on_one_gpu(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment that allows one GPU; several would make the trainers share a model out.

    It is the first one that was allowed. An empty list allows none, and stays.
    """
    return {**environment, GPUS: environment.get(GPUS, "0").partition(",")[0].strip()}


def device_of(environment: Mapping[str, str], *, driver: Path = DRIVER) -> Device:
    """What a run's process computes on, without importing torch into the worker.

    Args:
        environment: the process's own. CUDA sees no GPU where the first of its list is neither a
            number nor an id, such as `-1`.
        driver: the file that NVIDIA's driver shows while it is loaded.
    """
    gpu = on_one_gpu(environment)[GPUS]
    allowed = gpu.isdecimal() or gpu.startswith(_NAMED)
    return "cuda" if allowed and driver.exists() else "cpu"


def device_name() -> str:
    """What this process computes on: a GPU's name, or the CPU with its number of threads."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"
