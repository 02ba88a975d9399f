"""The judge, over the wire: an OpenAI-compatible server that says what the test wants."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from engine.upstream import Upstream
from tests.fakes.scripted_model import ScriptedModel
from tests.training.conftest import compared_in
from training.judge import Pair, judge

PAIRS = [
    Pair(prompt="Which city?", candidate=f"Paris {number}", live=f"Rome {number}")
    for number in range(5)
]


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        yield model


@contextlib.asynccontextmanager
async def connected(model: ScriptedModel) -> AsyncIterator[Upstream]:
    address = model.source.removeprefix("openai:")
    upstream = Upstream(name="judge", address=address, api_key=None, timeout_s=5)
    try:
        yield upstream
    finally:
        await upstream.close()


def prefers(word: str, prompt: str) -> str:
    return "A" if word in compared_in(prompt)[0] else "B."


@pytest.mark.parametrize(("word", "score"), [("Paris", 1.0), ("Rome", 0.0)])
async def test_a_consistent_judge_counts_in_both_orders(
    model: ScriptedModel, word: str, score: float
) -> None:
    model.script = lambda prompt: prefers(word, prompt)
    async with connected(model) as backend:
        judged = await judge(backend, PAIRS)
    assert judged.scores == (score,) * len(PAIRS)
    assert judged.failure is None
    assert len(model.prompts) == 2 * len(PAIRS)


async def test_a_tie_is_half(model: ScriptedModel) -> None:
    model.script = lambda prompt: "T"
    async with connected(model) as backend:
        assert (await judge(backend, PAIRS)).scores == (0.5,) * len(PAIRS)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("A", ""),
        (
            "Both are fine.",
            "; 10 of its 10 replies were not just A, B or T, which is all that it is asked for",
        ),
    ],
    ids=["by place", "no verdict"],
)
async def test_a_judge_that_goes_by_place_or_says_nothing_gives_no_result(
    model: ScriptedModel, reply: str, why: str
) -> None:
    model.script = lambda prompt: reply
    async with connected(model) as backend:
        judged = await judge(backend, PAIRS)
    assert judged.failure == f"it agreed with itself on 0 of 5 pairs{why}"
    assert set(judged.scores) == {None}


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_an_outage_or_a_wrong_key_gives_no_result(model: ScriptedModel, status: int) -> None:
    model.failing = status
    async with connected(model) as backend:
        judged = await judge(backend, PAIRS)
    assert judged.failure == "it does not answer"
    assert set(judged.scores) == {None}


async def test_a_judge_that_hangs_gives_no_result(model: ScriptedModel) -> None:
    model.may_end.clear()
    async with connected(model) as backend:
        judged = await judge(backend, PAIRS[:1], deadline_s=0.1)
    assert judged.failure == "it does not answer"
