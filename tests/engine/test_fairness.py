"""Ingesting documents does not hold up the people who ask: the default models in a real engine."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.client import ChatMessage, EngineClient, Sampling
from tests.engine.serving import EngineProcess

CHAT = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
PASSAGE = "The keeper wrote into her book every evening what she had seen from the gallery. " * 6
BULK_REQUESTS = 16
PASSAGES_PER_REQUEST = 96
"""All requests together keep two cores busy for seven seconds; the questions take one."""


@pytest.fixture(scope="module")
def engine(default_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EngineProcess(
        home=tmp_path_factory.mktemp("fairness"),
        models={CHAT: f"ctranslate2:{default_models / CHAT}"},
        live=CHAT,
        embedder=f"ctranslate2:{default_models / EMBEDDER}",
    ) as process:
        yield process.url


@pytest.fixture
async def client(engine: str) -> AsyncIterator[EngineClient]:
    async with EngineClient(url=engine) as client:
        yield client


@pytest.fixture
async def bulk(client: EngineClient) -> AsyncIterator[list[asyncio.Task[object]]]:
    """The passages of a large upload: the first ones are embedded, the others wait or run."""
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(
            client.embed([f"{request}.{n}. {PASSAGE}" for n in range(PASSAGES_PER_REQUEST)])
        )
        for request in range(BULK_REQUESTS)
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not [task for task in tasks if not task.cancelled() and task.exception()]


def _finished(tasks: list[asyncio.Task[object]]) -> int:
    return sum(task.done() for task in tasks)


async def test_a_questions_embedding_overtakes_a_bulk_of_passages(
    client: EngineClient, bulk: list[asyncio.Task[object]]
) -> None:
    for number in range(5):
        await client.embed([f"What did the keeper see on evening {number}?"])
    assert _finished(bulk) <= BULK_REQUESTS // 2


async def test_an_answer_is_written_while_a_bulk_of_passages_is_embedded(
    client: EngineClient, bulk: list[asyncio.Task[object]]
) -> None:
    asked = ChatMessage(role="user", content=f"{PASSAGE} What did the keeper write?")
    deltas = [delta async for delta in client.chat([asked], sampling=Sampling(max_tokens=16))]
    assert deltas
    assert _finished(bulk) <= BULK_REQUESTS // 2
