"""Retrieval and calibration on XQuAD: `python -m tests.benchmarks retrieval [--short]`.

Every passage goes through real ingest, chunking and Postgres. A question counts as answered by the
passage that holds its answer. Unanswerable questions are those of articles that are not ingested.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.documents import Documents
from storage.identity import Audience, Identities, Keys
from storage.ingest import ingest
from storage.pool import Pool, open_pool
from storage.search import Hit, search
from storage.settings import DatabaseSettings, DocumentsSettings, SearchSettings
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--short", action="store_true", help="every fourth question")
    parser.add_argument("--data", type=Path, default=None, help="another file in XQuAD's form")


async def run(args: argparse.Namespace) -> int:
    articles = xquad(args.data)
    embedding = load_embedding()
    questions = await _questions(articles, embedding, step=4 if args.short else 1)
    async with temporary_database() as url, open_pool(url, settings=DatabaseSettings()) as pool:
        with tempfile.TemporaryDirectory() as home:
            rows = []
            for name, files in _layouts(articles).items():
                audience = await _ingest_all(pool, Path(home), name, files, embedding)
                ranks = [await _rank(pool, q, audience) for group in questions for q in group]
                rows.append((name, _share(ranks, 1), _share(ranks, 5)))
            scores = await _calibration(pool, Path(home), articles, questions, embedding)
    print(f"{'layout':<24}{'hit@1':>8}{'hit@5':>8}   ({sum(map(len, questions))} questions)")
    for name, at_1, at_5 in rows:
        print(f"{name:<24}{at_1:>8.3f}{at_5:>8.3f}")
    _print_calibration(*scores)
    good = all(at_1 >= REACH_AT_1 and at_5 >= REACH_AT_5 for _, at_1, at_5 in rows)
    return 0 if good or args.short else 1


def _layouts(articles: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
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


async def _ingest_all(
    pool: Pool, home: Path, channel: str, files: dict[str, str], embedding: Embedding
) -> Audience:
    identities = Identities(pool=pool, keys=Keys.load(home=home, secret=None))
    audience = await identities.resolve(platform="benchmark", workspace=channel, channel="c")
    settings = DocumentsSettings()
    documents = Documents(pool=pool, files_dir=home / "files", settings=settings)
    for name, text in files.items():
        document = await documents.add(name, text.encode(), audience=audience)
        await ingest(
            document.id,
            pool=pool,
            files_dir=home / "files",
            embed=embedding.embed,
            count_tokens=embedding.count_tokens,
            settings=settings,
        )
    return audience


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
    answerable, unanswerable = [], []
    for half in (0, 1):
        files = _layouts(articles[half::2])["article per file"]
        audience = await _ingest_all(pool, home, f"half {half}", files, embedding)
        for number, group in enumerate(questions):
            scores = answerable if number % 2 == half else unanswerable
            for question in group:
                hits = await _search(pool, question, audience)
                scores.append(hits[0].score if hits else 0.0)
    return answerable, unanswerable


def _print_calibration(answerable: list[float], unanswerable: list[float]) -> None:
    default = SearchSettings().threshold
    print(f"\n{'threshold':<24}{'found':>8}{'falsely':>8}")
    for threshold in sorted({0.05, 0.1, 0.3, 0.5, default}):
        shares = [np.mean(np.array(scores) >= threshold) for scores in (answerable, unanswerable)]
        mark = " (default)" if threshold == default else ""
        print(f"{f'{threshold:g}{mark}':<24}{shares[0]:>8.3f}{shares[1]:>8.3f}")
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = [low <= score <= high for score in (*answerable, *unanswerable)]
        right = sum(inside[: len(answerable)])
        if any(inside):
            print(f"score {low:.1f} to {high:.1f}: {right / sum(inside):.2f} are answerable")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(main())
