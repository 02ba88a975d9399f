"""The choice of vector instructions."""

from pathlib import Path

import pytest

from engine.instructions import widest_worthwhile

ICE_LAKE = "avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"
SKYLAKE = "avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    ("flags", "isa"), [(ICE_LAKE, "AVX512"), (SKYLAKE, None), ("avx2 fma", None), ("", None)]
)
def test_wide_vectors_are_used_where_the_processor_does_not_slow_down_for_them(
    tmp_path: Path, flags: str, isa: str | None
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    assert widest_worthwhile(info) == isa


def test_a_machine_without_proc_leaves_the_choice_to_ctranslate2(tmp_path: Path) -> None:
    assert widest_worthwhile(tmp_path / "absent") is None
