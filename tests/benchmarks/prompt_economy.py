"""What a turn's sources cost, and whether the answer is in them: `… prompt_economy [--short]`.

XQuAD through real ingest and search; counted with the default model's tokenizer, against the same
question's whole top-3 passages.
"""

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bots import sources
from bots.messages import Source
from bots.settings import AssistantSettings
from engine.manifest import Manifest
from engine.prompt import PromptSource, rag_messages
from engine.tokenizer import Tokenizer
from storage.pool import open_pool
from storage.search import Hit, search
from storage.settings import DatabaseSettings, SearchSettings
from tests.benchmarks import Row
from tests.benchmarks.corpus import load_embedding, xquad
from tests.benchmarks.database import temporary_database
from tests.benchmarks.retrieval import ingest_all, layouts

MODEL = "smollm2-135m-instruct"
REACH_TOKENS = 350
WHOLE_PASSAGES = 3


@dataclass(frozen=True, kw_only=True)
class Found:
    """A question, its right answers, and what search found."""

    question: str
    answers: tuple[str, ...]
    hits: list[Hit]


def run(*, short: bool) -> list[Row]:
    """All questions, or every eighth one."""
    found = asyncio.run(search_all(step=8 if short else 1))
    tokenizer = _tokenizer()
    tokens, spans_hold, whole_hold, whole_tokens = [], [], [], []
    for case in found:
        shown = _selected(case, tokenizer)
        tokens.append(_cost(case.question, shown, tokenizer))
        spans_hold.append(_holds(case, [source.text for source in shown]))
        whole = [hit.text for hit in case.hits[:WHOLE_PASSAGES]]
        whole_hold.append(_holds(case, whole))
        whole_tokens.append(sum(tokenizer.count(whole)))
    mean = float(np.mean(tokens))
    return [
        Row(
            what=f"prompt tokens of the sources, mean of {len(found)} turns",
            reached=f"{mean:.0f} (most {max(tokens)})",
            target=f"<= {REACH_TOKENS}",
            ok=mean <= REACH_TOKENS,
        ),
        Row(
            what="answer is in the sources",
            reached=f"{np.mean(spans_hold):.4f}",
            target=f">= {np.mean(whole_hold):.4f} (whole top {WHOLE_PASSAGES})",
            ok=sum(spans_hold) >= sum(whole_hold),
        ),
        Row(
            what=f"tokens of the whole top {WHOLE_PASSAGES}", reached=f"{np.mean(whole_tokens):.0f}"
        ),
    ]


async def search_all(*, step: int) -> list[Found]:
    """Search for every `step`-th question of XQuAD in all of its articles."""
    articles = xquad()
    embedding = load_embedding()
    cases: list[dict[str, Any]] = [
        qa for article in articles for part in article["paragraphs"] for qa in part["qas"]
    ][::step]
    vectors = await embedding.embed([qa["question"] for qa in cases])
    found = []
    async with temporary_database() as url, open_pool(url, settings=DatabaseSettings()) as pool:
        with tempfile.TemporaryDirectory() as home:
            files = layouts(articles)["article per file"]
            audience = await ingest_all(pool, Path(home), "xquad", files, embedding)
            for qa, vector in zip(cases, vectors, strict=True):
                hits = await search(
                    pool,
                    query=qa["question"],
                    vector=vector,
                    audience=audience,
                    settings=SearchSettings(),
                )
                answers = tuple(answer["text"] for answer in qa["answers"])
                found.append(Found(question=qa["question"], answers=answers, hits=hits))
    return found


def _tokenizer() -> Tokenizer:
    directory = Path(os.environ.get("PARLEY_HOME", ".parley")) / "models" / MODEL
    return Tokenizer.read(directory / Manifest.read(directory, verify=False).tokenizer)


def _selected(case: Found, tokenizer: Tokenizer) -> tuple[Source, ...]:
    units = sources.units_of(case.hits)
    return sources.select(
        case.question,
        case.hits,
        units,
        unit_tokens=tokenizer.count([unit.text for unit in units]),
        title_tokens=tokenizer.count([sources.title(hit) for hit in case.hits]),
        max_tokens=AssistantSettings().max_source_tokens,
    )


def _cost(question: str, shown: tuple[Source, ...], tokenizer: Tokenizer) -> int:
    """Tokens that the sources add to the prompt, numbers and titles included."""
    prompt_sources = [
        PromptSource(number=source.number, title=sources.title(source), text=source.text)
        for source in shown
    ]
    counts = [
        tokenizer.count([rag_messages(question=question, history=[], sources=given)[-1].content])[0]
        for given in (prompt_sources, [])
    ]
    return counts[0] - counts[1]


def _holds(case: Found, texts: list[str]) -> bool:
    return any(answer in text for answer in case.answers for text in texts)
