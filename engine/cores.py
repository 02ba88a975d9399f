"""How many cores one CTranslate2 thread uses, changed while it runs.

Why: two cores read a lone 600-token prompt in 0.48 s, one core in 0.71 s; but decoding on two cores
is three times slower than on one, because a step is hundreds of small loops with a barrier each.
CTranslate2 fixes the number when a model is loaded. OpenMP keeps it per thread, though, and the
token callback runs in the very thread that computes: it switches to one core at the first token and
back when the batch has ended.
"""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path

import ctranslate2

logger = logging.getLogger(__name__)


def _find_setter() -> Callable[[int], None] | None:
    """`omp_set_num_threads` of the OpenMP that CTranslate2's wheel brings; None elsewhere."""
    folder = Path(ctranslate2.__file__).parent.parent / "ctranslate2.libs"
    for library in folder.glob("libgomp*"):
        setter = ctypes.CDLL(str(library)).omp_set_num_threads
        setter.argtypes, setter.restype = [ctypes.c_int], None
        return lambda cores: setter(cores)
    logger.info("OpenMP not found: prompts are read on one core", extra={"action": "no_openmp"})
    return None


_setter = _find_setter()


def cores_for_prompts(available: int) -> int:
    """Number of cores to load a model with: all where it can be changed later, else one."""
    return available if _setter else 1


def use_cores(cores: int) -> None:
    """Let the calling thread's next computations use this many cores, where that is possible."""
    if _setter:
        _setter(cores)
