"""The generator in the calling thread."""

from pathlib import Path

import pytest

import engine.generator
from engine.generator import Draw, Generator


@pytest.mark.parametrize(("waiting", "cores"), [(False, 2), (True, 1)])
def test_a_thread_with_more_work_to_do_reads_its_next_prompt_on_one_core(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, waiting: bool, cores: int
) -> None:
    told: list[int] = []
    generator = Generator.load(tiny_model_dir, replicas=2)
    real = engine.generator.use_cores
    monkeypatch.setattr(engine.generator, "use_cores", lambda n: (told.append(n), real(n)))
    prompt = generator.tokenizer.encode("one two three")
    ended: list[int] = []

    def on_token(index: int, _token: int, last: bool) -> bool:
        if last:
            ended.append(index)
        return False

    generator.generate(
        [prompt, prompt],
        max_tokens=3,
        draw=Draw(),
        on_token=on_token,
        crowded=lambda: waiting and len(ended) == 2,
    )
    assert told[0] == 1  # decoding
    assert told[-1] == (cores if generator._prompt_cores == 2 else 1)
