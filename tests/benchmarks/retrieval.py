"""Retrieval and calibration on XQuAD: `python -m tests.benchmarks retrieval [--short]`.

Every passage goes through real ingest, chunking and Postgres. A question counts as answered by the
passage that holds its answer. Unanswerable questions are those of articles that are not ingested.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.documents import Documents, Owner
from storage.identity import Audience, Identities, Keys
from storage.ingest import ingest
from storage.pool import Pool, open_pool
from storage.search import Hit, search
from storage.settings import DatabaseSettings, DocumentsSettings, SearchSettings
from tests.benchmarks import Row
from tests.benchmarks.corpus import Embedding, load_embedding, xquad
from tests.benchmarks.database import temporary_database

REACH_AT_1 = 0.95
REACH_AT_5 = 0.99


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, its vector, and the text of the passage that answers it."""

    text: str
    vector: NDArray[np.float32]
    passage: str


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel's documents, by the way they were made of the articles."""

    audience: Audience
    files: dict[str, str]


def run(*, short: bool) -> list[Row]:
    """Every question in both layouts, or every fourth one with an article per file."""
    return asyncio.run(_run(short=short))


async def _run(*, short: bool) -> list[Row]:
    articles = xquad()
    embedding = load_embedding()
    questions = await _questions(articles, embedding, step=4 if short else 1)
    rows = []
    async with temporary_database() as url, open_pool(url, settings=DatabaseSettings()) as pool:
        with tempfile.TemporaryDirectory() as home:
            for name, files in list(layouts(articles).items())[: 1 if short else None]:
                audience = await ingest_all(pool, Path(home), name, files, embedding)
                ranks = [await _rank(pool, q, audience) for group in questions for q in group]
                for most, reach in ((1, REACH_AT_1), (5, REACH_AT_5)):
                    share = _share(ranks, most)
                    what = f"hit@{most}, {name}, {len(ranks)} questions"
                    rows.append(
                        Row(
                            what=what,
                            reached=f"{share:.3f}",
                            target=f">= {reach}",
                            ok=share >= reach,
                        )
                    )
            scores = await _calibration(pool, Path(home), articles, questions, embedding)
    return rows + _calibration_rows(*scores)


def layouts(articles: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """File names and contents: an article per Markdown file, and a passage per text file."""
    whole, single = {}, {}
    for number, article in enumerate(articles):
        title = str(article.get("title") or f"Article {number}").replace("_", " ")
        passages = [paragraph["context"] for paragraph in article["paragraphs"]]
        whole[f"{number:03}.md"] = f"# {title}\n\n" + "\n\n".join(passages)
        for index, passage in enumerate(passages):
            single[f"{number:03}-{index}.txt"] = passage
    return {"article per file": whole, "passage per file": single}


async def _questions(
    articles: Sequence[dict[str, Any]], embedding: Embedding, *, step: int
) -> list[list[Question]]:
    """Questions by article."""
    groups = []
    for article in articles:
        pairs = [
            (qa["question"], paragraph["context"])
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
        ][::step]
        vectors = await embedding.embed([question for question, _ in pairs])
        groups.append(
            [
                Question(text=text, vector=vector, passage=passage)
                for (text, passage), vector in zip(pairs, vectors, strict=True)
            ]
        )
    return groups


async def ingest_all(
    pool: Pool, home: Path, channel: str, files: dict[str, str], embedding: Embedding
) -> Audience:
    """Ingest files into a channel of their own."""
    identities = Identities(pool=pool, keys=Keys.load(home=home, secret=None))
    audience = await identities.resolve(platform="benchmark", workspace=channel, channel="c")
    await ingest_files(pool, home, audience, files, embedding)
    return audience


async def ingest_files(
    pool: Pool, home: Path, audience: Audience, files: dict[str, str], embedding: Embedding
) -> None:
    """Ingest files for a channel, or for the workspace where the audience has none."""
    owner: Owner = "workspace" if audience.channel_id is None else "channel"
    settings = DocumentsSettings()
    documents = Documents(pool=pool, files_dir=home / "files", settings=settings)
    for name, text in files.items():
        document = await documents.add(name, text.encode(), audience=audience, owner=owner)
        await ingest(
            document.id,
            pool=pool,
            files_dir=home / "files",
            embed=embedding.embed,
            count_tokens=embedding.count_tokens,
            settings=settings,
        )


async def _search(pool: Pool, question: Question, audience: Audience) -> list[Hit]:
    return await search(
        pool,
        query=question.text,
        vector=question.vector,
        audience=audience,
        limit=10,
        settings=SearchSettings(),
    )


async def _rank(pool: Pool, question: Question, audience: Audience) -> int | None:
    """Place of the right passage among the passages found, 1 for the best; None = not found."""
    passages: list[str] = []
    for hit in await _search(pool, question, audience):
        passage = _plain(hit.text)
        whole = _plain(question.passage)
        if passage in whole or whole in passage:
            return len(passages) + 1
        passages.append(passage)
    return None


def _plain(text: str) -> str:
    return " ".join(text.split())


def _share(ranks: Sequence[int | None], most: int) -> float:
    return sum(rank is not None and rank <= most for rank in ranks) / len(ranks)


async def _calibration(
    pool: Pool,
    home: Path,
    articles: Sequence[dict[str, Any]],
    questions: Sequence[Sequence[Question]],
    embedding: Embedding,
) -> tuple[list[float], list[float]]:
    """Best scores of answerable and of unanswerable questions, each half against the other."""
    answerable: list[float] = []
    unanswerable: list[float] = []
    for half in (0, 1):
        files = layouts(articles[half::2])["article per file"]
        audience = await ingest_all(pool, home, f"half {half}", files, embedding)
        for number, group in enumerate(questions):
            scores = answerable if number % 2 == half else unanswerable
            for question in group:
                hits = await _search(pool, question, audience)
                scores.append(hits[0].score if hits else 0.0)
    return answerable, unanswerable


def _calibration_rows(answerable: list[float], unanswerable: list[float]) -> list[Row]:
    default = SearchSettings().threshold
    rows = []
    for threshold in sorted({0.05, 0.1, 0.3, 0.5, default}):
        found, falsely = (
            np.mean(np.array(scores) >= threshold) for scores in (answerable, unanswerable)
        )
        what = f"threshold {threshold:g}{' (default)' if threshold == default else ''}"
        reached = f"{found:.3f} of answerable, {falsely:.3f} of unanswerable pass"
        rows.append(Row(what=what, reached=reached))
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = [low <= score <= high for score in (*answerable, *unanswerable)]
        if any(inside):
            share = sum(inside[: len(answerable)]) / sum(inside)
            rows.append(Row(what=f"score {low} to {high}", reached=f"{share:.2f} are answerable"))
    return rows
