"""The server through the official client, unchanged: a real process, tiny models."""

import asyncio
import base64
import json
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from engine.client import ChatMessage, EngineClient, Sampling
from engine.errors import (
    DeadlineExceeded,
    EngineBusy,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    PromptTooLong,
)
from engine.manifest import Manifest
from tests.engine.serving import EngineProcess

ASKED = "Who wrote the report in 2023?"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": ASKED}]
LONG = 900  # new tokens that keep the tiny model busy for a while


async def post(url: str, body: object) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as http:
        return await http.post(url, json=body)


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.get(url)


Serve = Callable[..., EngineProcess]


@pytest.fixture(scope="session")
def serve(tiny_model_dir: Path, tiny_embedder_dir: Path) -> Serve:
    def build(home: Path, **settings: Any) -> EngineProcess:
        values = {
            "models": {"tiny": f"ctranslate2:{tiny_model_dir}"},
            "live": "tiny",
            "embedder": f"ctranslate2:{tiny_embedder_dir}",
            **settings,
        }
        return EngineProcess(home=home, **values)

    return build


@pytest.fixture(scope="module")
def engine(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with serve(tmp_path_factory.mktemp("engine")) as process:
        yield process


@pytest.fixture
async def client(engine: EngineProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{engine.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def ours(engine: EngineProcess) -> AsyncIterator[EngineClient]:
    async with EngineClient(url=engine.url, admin_token="the-admin-token") as client:
        yield client


async def answer(client: openai.AsyncOpenAI, **options: Any) -> str:
    defaults: dict[str, Any] = {"model": "live", "messages": QUESTION, "max_tokens": 24}
    completion = await client.chat.completions.create(**{**defaults, "temperature": 0, **options})
    return str(completion.choices[0].message.content)


async def test_models_and_aliases_are_listed(client: openai.AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert {"tiny", "live", "embedder"} <= set(names)
    assert (await client.models.retrieve("live")).id == "live"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("absent")


async def test_a_stream_joins_to_the_whole_answer_and_counts_its_tokens(
    client: openai.AsyncOpenAI, tiny_model_dir: Path
) -> None:
    whole = await client.chat.completions.create(
        model="live",
        messages=QUESTION,
        temperature=0,
        max_tokens=24,
    )
    assert whole.model == "tiny"
    assert whole.system_fingerprint == Manifest.read(tiny_model_dir).fingerprint
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    assert whole.choices[0].finish_reason == "length"
    stream = await client.chat.completions.create(
        model="live",
        messages=QUESTION,
        temperature=0,
        max_completion_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert {chunk.system_fingerprint for chunk in chunks} == {whole.system_fingerprint}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


async def test_an_answer_ends_before_a_stop_string(client: openai.AsyncOpenAI) -> None:
    whole = await answer(client, max_tokens=40)
    middle = len(whole) // 2
    stop = whole[middle : middle + 3]
    completion = await client.chat.completions.create(
        model="live",
        messages=QUESTION,
        temperature=0,
        max_tokens=40,
        stop=[stop, "never seen"],
    )
    assert completion.choices[0].message.content == whole[: whole.index(stop)]
    assert completion.choices[0].finish_reason == "stop"


async def test_a_seed_reproduces_a_drawn_answer(client: openai.AsyncOpenAI) -> None:
    async def draw(seed: int) -> str:
        return await answer(client, temperature=1.5, top_p=0.95, seed=seed)

    first, again, other = await asyncio.gather(draw(1), draw(1), draw(2))
    assert first == again
    assert first != other


async def test_unseeded_draws_differ(client: openai.AsyncOpenAI) -> None:
    answers = await asyncio.gather(*[answer(client, temperature=1.5) for _ in range(4)])
    assert len(set(answers)) == 4


async def test_sharing_a_batch_changes_no_answer(client: openai.AsyncOpenAI) -> None:
    def ask(text: str, tokens: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], "max_tokens": tokens}

    requests = [ask(f"Question {n % 4} about 202{n % 3}?", 8 + 3 * n) for n in range(12)]
    alone = [await answer(client, **request) for request in requests]
    together = await asyncio.gather(*[answer(client, **request) for request in requests])
    assert together == alone


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"model": None}, "model"),
        ({"model": "embedder"}, "model"),
    ],
)
def test_a_bad_field_is_named(engine: EngineProcess, change: dict[str, object], param: str) -> None:
    body = {"model": "live", "messages": QUESTION, **change}
    response = httpx.post(f"{engine.url}/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_bodies_that_are_no_json_or_too_large_are_refused(engine: EngineProcess) -> None:
    url = f"{engine.url}/v1/chat/completions"
    assert httpx.post(url, content=b"{oops").status_code == 400
    assert httpx.post(url, content=b"[]").status_code == 400
    assert httpx.post(url, content=b"\xff\xfe").status_code == 400
    huge = httpx.post(url, content=b" " * (17 * 1024 * 1024))
    assert (huge.status_code, huge.json()["error"]["code"]) == (413, "request_too_large")


def test_unknown_routes_and_methods_answer_in_openais_shape(engine: EngineProcess) -> None:
    for response in (
        httpx.post(f"{engine.url}/v1/completions", json={}),
        httpx.get(f"{engine.url}/v1/embeddings"),
    ):
        assert response.status_code in (404, 405)
        assert response.json()["error"]["code"] == "unknown_url"


def test_harmless_extra_fields_pass(engine: EngineProcess) -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]
    body = {
        "model": "live",
        "messages": [{"role": "user", "content": parts, "name": "ann"}],
        "max_tokens": 1,
        "user": "ann",
        "metadata": {"a": 1},
    }
    assert httpx.post(f"{engine.url}/v1/chat/completions", json=body).status_code == 200


async def test_a_request_beyond_the_context_names_tokens_and_limit(
    client: openai.AsyncOpenAI, ours: EngineClient
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await answer(client, max_tokens=5000)
    assert refusal.value.code == "context_length_exceeded"
    assert "1024" in refusal.value.message
    message = ChatMessage(role="user", content="far " * 3000)
    with pytest.raises(PromptTooLong) as mapped:
        await anext(ours.chat([message]))
    assert mapped.value.tokens > mapped.value.limit == 1024


async def test_without_max_tokens_the_context_is_the_limit(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="live",
        messages=[{"role": "user", "content": "Hello " * 150}],
        temperature=0,
    )
    assert completion.usage is not None
    assert completion.usage.total_tokens <= 1024


async def test_embeddings_are_unit_vectors_in_order_whatever_the_encoding(
    client: openai.AsyncOpenAI, engine: EngineProcess
) -> None:
    texts = [f"Passage {n} " + "about the budget " * (n % 7) for n in range(50)]
    answer = await client.embeddings.create(model="embedder", input=texts)  # asks for base64
    vectors = np.array([row.embedding for row in answer.data])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    one = await client.embeddings.create(
        model="embedder", input=texts[3], encoding_format="float", dimensions=vectors.shape[1]
    )
    assert float(np.dot(one.data[0].embedding, vectors[3])) > 0.999
    body = {"model": "embedder", "input": "x", "encoding_format": "base64"}
    raw = (await post(f"{engine.url}/v1/embeddings", body)).json()["data"][0]["embedding"]
    assert len(base64.b64decode(raw)) == 4 * vectors.shape[1]


@pytest.mark.parametrize(
    "change",
    [
        {"input": []},
        {"input": ""},
        {"input": [1, 2, 3]},
        {"input": ["fine", ""]},
        {"input": "x", "dimensions": 7},
        {"input": "word " * 3000},
        {"input": "x", "model": "live"},
        {"input": ["x"] * 2049},
    ],
)
def test_bad_embedding_requests_are_refused(
    engine: EngineProcess, change: dict[str, object]
) -> None:
    response = httpx.post(f"{engine.url}/v1/embeddings", json={"model": "embedder", **change})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_tokens_are_counted_as_the_server_will_count_them(
    client: openai.AsyncOpenAI, engine: EngineProcess, ours: EngineClient
) -> None:
    completion = await client.chat.completions.create(
        model="live",
        messages=QUESTION,
        max_tokens=1,
    )
    counted = await post(f"{engine.url}/tokenize", {"model": "live", "messages": QUESTION})
    assert completion.usage is not None
    assert counted.json() == {"counts": [completion.usage.prompt_tokens], "max_model_len": 1024}
    asked = [ChatMessage(role="user", content=ASKED)]
    assert await ours.count_prompt(asked) == completion.usage.prompt_tokens
    counts = await ours.count_tokens(["", "a", "a report"])
    assert counts[0] == 0
    assert counts[1] == 1 < counts[2]


async def test_hanging_up_stops_the_sequence(
    client: openai.AsyncOpenAI, engine: EngineProcess
) -> None:
    before = engine.metric("parley_engine_cancelled_sequences_total")
    stream = await client.chat.completions.create(
        model="live",
        messages=QUESTION,
        temperature=0,
        max_tokens=LONG,
        stream=True,
    )
    await anext(aiter(stream))
    await stream.close()
    engine.wait_for(lambda: engine.metric("parley_engine_cancelled_sequences_total") == before + 1)
    steps = engine.metric("parley_engine_steps_total")
    await answer(client, max_tokens=5)
    assert engine.metric("parley_engine_steps_total") == steps + 5


async def test_hanging_up_on_an_answer_that_is_not_streamed_stops_it_too(
    engine: EngineProcess,
) -> None:
    before = engine.metric("parley_engine_cancelled_sequences_total")
    started = engine.metric("parley_engine_steps_total")
    body = {"model": "live", "messages": QUESTION, "temperature": 0, "max_tokens": LONG}
    async with httpx.AsyncClient() as http:
        request = asyncio.create_task(http.post(f"{engine.url}/v1/chat/completions", json=body))
        await asyncio.to_thread(
            engine.wait_for, lambda: engine.metric("parley_engine_steps_total") > started
        )
        request.cancel()
    engine.wait_for(lambda: engine.metric("parley_engine_cancelled_sequences_total") == before + 1)


async def test_a_full_queue_answers_429_with_a_time_to_come_back(
    serve: Serve, tmp_path: Path
) -> None:
    with serve(tmp_path, replicas=1, max_queue=2) as engine:
        async with httpx.AsyncClient(timeout=60) as http:
            body = {
                "model": "live",
                "messages": QUESTION,
                "temperature": 1,
                "seed": 1,
                "max_tokens": LONG,
            }
            responses = await asyncio.gather(
                *[http.post(f"{engine.url}/v1/chat/completions", json=body) for _ in range(12)]
            )
        refused = [response for response in responses if response.status_code == 429]
        assert refused
        assert all(int(response.headers["Retry-After"]) >= 1 for response in refused)
        assert {response.status_code for response in responses} == {200, 429}
        # The mapped error, while the queue is full of requests that nobody reads.
        async with EngineClient(url=engine.url) as ours:
            sampling = Sampling(max_tokens=LONG, temperature=1, seed=1)
            chats = [
                ours.chat([ChatMessage(role="user", content="x")], sampling=sampling)
                for _ in range(12)
            ]
            outcomes = await asyncio.gather(*map(anext, chats), return_exceptions=True)
            busy = [outcome for outcome in outcomes if isinstance(outcome, EngineBusy)]
            assert busy
            assert all(error.retry_after_s >= 1 for error in busy)
            for chat in chats:
                await chat.aclose()


async def test_a_deadline_ends_waiting_and_running_requests(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path, replicas=1, request_timeout_s=0.01) as engine:
        async with EngineClient(url=engine.url) as ours:
            message = ChatMessage(role="user", content="x")
            with pytest.raises(DeadlineExceeded):
                async for _ in ours.chat([message], sampling=Sampling(max_tokens=LONG)):
                    pass
        body = {"model": "live", "messages": QUESTION, "temperature": 0, "max_tokens": LONG}
        whole = await post(f"{engine.url}/v1/chat/completions", body)
        assert (whole.status_code, whole.json()["error"]["code"]) == (504, "deadline_exceeded")


async def test_models_change_while_serving_without_dropping_a_request(
    client: openai.AsyncOpenAI, ours: EngineClient, tiny_model_dir: Path
) -> None:
    expected = await answer(client)
    source = f"ctranslate2:{tiny_model_dir}"
    stop = asyncio.Event()

    async def keep_asking() -> int:
        asked = 0
        while not stop.is_set():
            assert await answer(client) == expected
            asked += 1
        return asked

    askers = [asyncio.create_task(keep_asking()) for _ in range(4)]
    await ours.load("second", source)
    await ours.alias("live", "second")
    with pytest.raises(InvalidRequest, match="live"):
        await ours.unload("second")
    await ours.load("tiny", source)  # replaced under load
    await ours.alias("live", "tiny")
    await ours.alias("candidate", "second")
    await ours.unload("second")
    stop.set()
    asked = await asyncio.gather(*askers)
    assert all(asked)
    names = {model.name for model in await ours.models()}
    assert not {"second", "candidate"} & names
    with pytest.raises(ModelNotFound) as missing:
        await anext(ours.chat([ChatMessage(role="user", content="x")], model="second"))
    assert missing.value.name == "second"


async def test_a_corrupt_model_is_refused_and_the_old_one_keeps_serving(
    client: openai.AsyncOpenAI, ours: EngineClient, tiny_model_dir: Path, tmp_path: Path
) -> None:
    expected = await answer(client)
    corrupt = tmp_path / "corrupt"
    shutil.copytree(tiny_model_dir, corrupt)
    weights = bytearray((corrupt / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (corrupt / "model.bin").write_bytes(weights)
    with pytest.raises(InvalidRequest, match="checksum"):
        await ours.load("tiny", f"ctranslate2:{corrupt}")
    with pytest.raises(InvalidRequest, match="manifest"):
        await ours.load("new", f"ctranslate2:{tmp_path / 'absent'}")
    assert await answer(client) == expected


async def test_admin_needs_its_token_and_the_api_its_key(
    serve: Serve, engine: EngineProcess, tmp_path: Path
) -> None:
    assert (await get(f"{engine.url}/admin/models")).status_code == 401
    async with EngineClient(url=engine.url, admin_token="wrong") as stranger:
        with pytest.raises(InvalidRequest):
            await stranger.alias("live", "tiny")
    with serve(tmp_path, api_key="secret") as locked:
        assert (await get(f"{locked.url}/v1/models")).status_code == 401
        async with EngineClient(url=locked.url, api_key="secret") as friend:
            assert await friend.models()
        assert "secret" not in locked.log.read_text()


async def test_a_restarted_engine_serves_the_same_live_model(
    serve: Serve, tiny_model_dir: Path, tmp_path: Path
) -> None:
    with serve(tmp_path) as engine:
        async with EngineClient(url=engine.url, admin_token="the-admin-token") as ours:
            await ours.load("tuned", f"ctranslate2:{tiny_model_dir}")
            await ours.alias("live", "tuned")
        engine.process.kill()  # no chance to save anything
        engine.process.wait()
    with serve(tmp_path) as engine:
        async with EngineClient(url=engine.url) as ours:
            assert {model.root for model in await ours.models() if model.name == "live"} == {
                "tuned"
            }
            assert (await ours.health())["status"] == "ok"


async def test_an_upstream_model_is_proxied_with_its_key_and_its_errors(
    serve: Serve, tmp_path: Path
) -> None:
    with serve(tmp_path / "far", api_key="far-secret") as far:
        near_models = {
            "far": f"openai:{far.url}/v1#live",
            "gone": "openai:http://127.0.0.1:9/v1#x",
        }
        keys = json.dumps({"far": "far-secret"})
        with serve(tmp_path / "near", models=near_models, live="far", upstream_keys=keys) as near:
            async with (
                openai.AsyncOpenAI(base_url=f"{far.url}/v1", api_key="far-secret") as direct,
                openai.AsyncOpenAI(
                    base_url=f"{near.url}/v1", api_key="none", max_retries=0
                ) as proxied,
            ):
                assert await answer(proxied) == await answer(direct)
                named = await proxied.chat.completions.create(model="far", messages=QUESTION)
                assert (named.system_fingerprint or "").startswith("int8-")
                with pytest.raises(openai.BadRequestError):
                    await answer(proxied, max_tokens=5000)
                with pytest.raises(openai.InternalServerError) as unreachable:
                    await answer(proxied, model="gone")
                assert unreachable.value.status_code == 503
            assert "far-secret" not in near.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_cleanly(serve: Serve, tmp_path: Path, number: int) -> None:
    with serve(tmp_path) as engine:
        async with EngineClient(url=engine.url) as ours:
            chat = ours.chat(
                [ChatMessage(role="user", content="x")], sampling=Sampling(max_tokens=200)
            )
            await anext(chat)
            assert engine.stop(number) == 0
            await chat.aclose()
            with pytest.raises(EngineUnavailable):
                await ours.health()


def test_serving_loads_no_torch(engine: EngineProcess) -> None:
    maps = Path(f"/proc/{engine.process.pid}/maps").read_text()
    assert "ctranslate2" in maps
    assert "torch" not in maps
