"""Hybrid search: vectors and BM25 in one SQL statement, for one audience."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector

from storage.identity import Audience, ChunkId, DocumentId
from storage.pool import Pool
from storage.settings import SearchSettings
from storage.terms import TERM_SPACE, query_terms

MAX_QUERY_CHARACTERS = 2000
"""What of a question is searched for; longer ones are pasted text, and every term costs time."""

DUPLICATE_SIMILARITY = 0.9
"""Jaccard similarity of two texts' shingles from which on one of them is enough: a typo apart."""
DUPLICATES_EXPECTED = 4
"""Hits fetched beyond the limit, so that it is still reached when duplicates are dropped."""
PRIOR_CHUNKS = 30
"""Chunks without any of the words, added to every collection, so that words have a rarity even
where there is one chunk. Collections of 1 to 40 XQuAD passages: answerable questions pass 98 % of
the time instead of 91 %."""
EXACT_VECTORS = 5
"""So many times `exact_below` chunks have their vectors compared without the index, cheaper than
BM25. Of 10,000 readable chunks among 100,000 it finds all of the ten nearest, where the index finds
95 %, and p95 falls by a fifth."""

_LONGEST_USUAL_WORD = 20
_COMMENT = re.compile(r"\s*--[^\n]*")
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A chunk that may answer the question.

    Attributes:
        document: the document's name.
        score: calibrated probability that the chunk answers, 0 to 1.
        cosine: similarity of the embeddings, -1 to 1.
        bm25: the lexical score, 0 and more; comparable within one search only.
    """

    chunk_id: ChunkId
    document_id: DocumentId
    document: str
    page: int | None
    heading: str | None
    offset: int
    ordinal: int
    text: str
    score: float
    cosine: float
    bm25: float


async def search(
    pool: Pool,
    *,
    query: str,
    vector: NDArray[np.float32],
    audience: Audience,
    limit: int = 8,
    settings: SearchSettings,
) -> list[Hit]:
    """Return the chunks that the audience may read and that answer a question best, best first.

    Args:
        pool: connections.
        query: the question, in any language.
        vector: its embedding, a unit vector of shape (dimension,).
        audience: whose scopes are searched.
        limit: most hits returned, 1 to 50.
        settings: weights and bounds; they should not vary from call to call.

    Returns:
        Hits of different texts. Those below `settings.threshold` are included: whoever answers
        decides on the best one's score whether anything was found.

    Raises:
        StorageUnavailable: no connection in time; safe to retry.
    """
    terms = query_terms(query[:MAX_QUERY_CHARACTERS])
    values = {
        "terms": list(terms),
        "weights": list(terms.values()),
        "vector": Vector(vector),
        "workspace_id": audience.workspace_id,
        "scopes": list(audience.scope_ids),
        "limit": limit + DUPLICATES_EXPECTED,
    }
    async with pool.single_statement() as connection:
        cursor = await connection.execute(_statement(settings), values, prepare=True)
        rows = await cursor.fetchall()
    hits = []
    for *fields, cosine, bm25, coverage in rows:
        names = ("chunk_id", "document_id", "document", "page", "heading", "offset", "ordinal")
        hits.append(
            Hit(
                **dict(zip(names, fields, strict=False)),
                text=fields[-1],
                cosine=cosine,
                bm25=bm25,
                score=calibrated(cosine, coverage, settings),
            )
        )
    return collapsed(hits)[:limit]


def collapsed(hits: list[Hit]) -> list[Hit]:
    """Drop hits that say the same as a better one. Texts with other numbers do not say the same."""
    kept: list[tuple[Hit, frozenset[tuple[str, ...]], frozenset[str]]] = []
    for hit in hits:
        shingles, numbers = _shingles(hit.text), frozenset(_NUMBER.findall(hit.text))
        if not any(
            numbers == other_numbers and _alike(shingles, other) for _, other, other_numbers in kept
        ):
            kept.append((hit, shingles, numbers))
    return [hit for hit, _, _ in kept]


def _alike(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    shared = len(one & other)
    return shared >= DUPLICATE_SIMILARITY * (len(one) + len(other) - shared)


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Every pair of neighbouring words; of characters where a script has no spaces."""
    words = text.casefold().split()
    parts = words if len(words) * _LONGEST_USUAL_WORD >= len(text) else text.casefold()
    return frozenset(pairwise(parts)) or frozenset([tuple(parts)])


def calibrated(cosine: float, coverage: float, settings: SearchSettings) -> float:
    """Probability that a chunk answers, from both rankings."""
    evidence = settings.cosine_weight * cosine + settings.coverage_weight * coverage - settings.bias
    return 1 / (1 + math.exp(-evidence))


@lru_cache(maxsize=8)
def _statement(settings: SearchSettings) -> bytes:
    """The SQL with the settings' numbers in; constant, so that Postgres plans it once."""
    text = resources.files("storage").joinpath("search.sql").read_text(encoding="utf-8")
    # Without comments it is short enough for the driver to remember how it parsed it.
    return (
        _COMMENT.sub("", text)
        .format(
            term_space=TERM_SPACE,
            prior_chunks=PRIOR_CHUNKS,
            exact_vectors_below=EXACT_VECTORS * settings.exact_below,
            **settings.model_dump(exclude={"threshold"}),
        )
        .encode()
    )
