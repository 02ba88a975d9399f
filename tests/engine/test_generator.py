"""The generator in the calling thread."""

from pathlib import Path

import pytest

from engine import cores as engine_cores
from engine.generator import Draw, Generator


@pytest.mark.parametrize(("waiting", "cores"), [(False, 2), (True, 1)])
def test_a_thread_with_more_work_to_do_reads_its_next_prompt_on_one_core(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, waiting: bool, cores: int
) -> None:
    told: list[int] = []
    generator = Generator.load(tiny_model_dir, replicas=2)
    monkeypatch.setattr(engine_cores, "_setter", told.append)
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


def test_a_model_may_be_dropped_right_after_its_last_answer(tiny_model_dir: Path) -> None:
    for _ in range(100):
        generator = Generator.load(tiny_model_dir, replicas=2)
        prompt = generator.tokenizer.encode("one two three")

        def on_token(
            _index: int, token: int, _last: bool, generator: Generator = generator
        ) -> bool:
            return generator.is_end(token)  # keeps the generator, as a job does

        generator.generate([prompt], max_tokens=2, draw=Draw(), on_token=on_token)
        del generator, on_token
