"""Asking a quantized model as it will be served."""

from pathlib import Path

import pytest

from bots.settings import AssistantSettings
from engine.errors import ModelCorrupt, PromptTooLong
from engine.prompt import MAX_ANSWER_TOKENS, ChatMessage
from training import evaluation
from training.evaluation import ask, served, size_bytes

PROMPTS = [(ChatMessage(role="user", content="word " * number),) for number in range(1, 7)]


async def test_replies_are_those_of_each_prompt_and_the_same_again(tiny_model_dir: Path) -> None:
    with served(tiny_model_dir, replicas=1) as backend:
        together = await ask(backend, PROMPTS, max_tokens=6)
        alone = [(await ask(backend, [prompt], max_tokens=6))[0] for prompt in PROMPTS]
    assert [each.text for each in together] == [each.text for each in alone]
    assert len({each.text for each in together}) > 1
    assert all(0 < each.tokens <= 6 and each.seconds > 0 for each in together)


async def test_answers_stop_and_are_as_long_as_the_assistants(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tiny_model_dir, replicas=1) as backend:
        replies = await ask(backend, PROMPTS)
        stop = replies[0].text[8:12]
        monkeypatch.setattr(evaluation, "STOP_TEXTS", (stop,))
        [stopped] = await ask(backend, PROMPTS[:1])
    assert AssistantSettings().max_answer_tokens == MAX_ANSWER_TOKENS
    assert max(each.tokens for each in replies) == MAX_ANSWER_TOKENS
    assert stopped.text == replies[0].text.partition(stop)[0].strip()
    assert stopped.finish_reason == "stop"


async def test_a_prompt_beyond_the_context_is_refused(tiny_model_dir: Path) -> None:
    with served(tiny_model_dir, replicas=1) as backend, pytest.raises(PromptTooLong):
        await ask(backend, PROMPTS[:1], max_tokens=10**6)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt), served(tmp_path):
        pass


def test_the_size_is_that_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"4567")
    assert size_bytes(tmp_path) == 7
