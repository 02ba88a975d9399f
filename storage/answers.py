"""Answers: as they were given, with the evidence they were given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from storage.identity import AnswerId, ChunkId, DocumentId, MessageId
from storage.pool import Connection

OWN_WORDS = "own_words"
"""Among an answer's parameters: how many of its first characters the model wrote; a passage that
was quoted below them is the product's."""
WEIGHTS = "weights"
"""Among an answer's parameters: the hash of the quantized weights, and of adapters in them."""


@dataclass(frozen=True, kw_only=True)
class AnswerSource:
    """A chunk that was retrieved for an answer.

    Attributes:
        number: its number in the prompt.
        score: calibrated, as search gave it.
        quote: the passage that supports the answer where the answer cites the source, else None.
    """

    number: int
    chunk_id: ChunkId
    document_id: DocumentId
    document: str
    page: int | None
    heading: str | None
    score: float
    quote: str | None


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """An answer as it was given.

    Attributes:
        current: whether it is the question's answer; false for one that was regenerated, or lost a
            comparison.
        params: how the model was asked, such as the temperature; empty without a model call.
    """

    id: AnswerId
    message_id: MessageId
    text: str
    found: bool
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    timings_ms: Mapping[str, float]
    current: bool
    params: Mapping[str, Any]
    sources: tuple[AnswerSource, ...]
    created_at: datetime


ANSWER_COLUMNS = (
    "a.id, a.text, a.found, a.finish_reason, a.model, a.prompt_tokens, a.completion_tokens,"
    " a.timings_ms, a.current, a.params, a.created_at, s.sources"
)
"""What `answer_of` reads, from answers `a` and `ANSWER_SOURCES`."""
_FIELDS = (
    *("id", "text", "found", "finish_reason", "model", "prompt_tokens", "completion_tokens"),
    *("timings_ms", "current", "params", "created_at"),
)
ANSWER_SOURCES = """
LEFT JOIN LATERAL (
    SELECT jsonb_agg(to_jsonb(answer_sources) - 'answer_id' ORDER BY number) AS sources
    FROM answer_sources WHERE answer_id = a.id
) s ON true
"""


def answer_of(message_id: MessageId, row: Sequence[Any]) -> StoredAnswer:
    """The answer that a row of `ANSWER_COLUMNS` holds."""
    *values, sources = row
    return StoredAnswer(
        message_id=message_id,
        sources=tuple(AnswerSource(**source) for source in _typed(sources)),
        **dict(zip(_FIELDS, values, strict=True)),
    )


async def insert_answer(
    connection: Connection,
    message_id: MessageId,
    *,
    values: Mapping[str, Any],
    sources: Sequence[AnswerSource],
    prompt: Sequence[Mapping[str, str]] | None,
) -> AnswerId | None:
    """Insert an answer with its sources; None where it should be current and another one is.

    A source whose document is gone is left out, and so is the prompt, which quotes it.
    """
    made = await connection.execute(
        "INSERT INTO answers (message_id, text, found, finish_reason, model, prompt_sha256,"
        " prompt_tokens, completion_tokens, timings_ms, params, current)"
        " VALUES (%(message_id)s, %(text)s, %(found)s, %(finish_reason)s, %(model)s,"
        " %(prompt_sha256)s, %(prompt_tokens)s, %(completion_tokens)s, %(timings_ms)s,"
        " %(params)s, %(current)s)"
        " ON CONFLICT (message_id) WHERE current DO NOTHING RETURNING id",
        {"message_id": message_id, **values},
    )
    row = await made.fetchone()
    if row is None:
        return None
    answer_id = AnswerId(row[0])
    kept = [await _insert_source(connection, answer_id, source) for source in sources]
    if prompt is not None and all(kept):
        # JSON text may hold what Postgres cannot store, as the answer's own text may.
        messages = [{k: v.replace("\0", " ") for k, v in part.items()} for part in prompt]
        await connection.execute(
            "UPDATE answers SET prompt = %s WHERE id = %s", [Jsonb(messages), answer_id]
        )
    return answer_id


async def make_current(connection: Connection, answer_id: AnswerId) -> None:
    """Make an answer the one that counts; the caller holds its question."""
    await connection.execute(
        "UPDATE answers SET current = false WHERE current AND id <> %(id)s"
        " AND message_id = (SELECT message_id FROM answers WHERE id = %(id)s)",
        {"id": answer_id},
    )
    await connection.execute("UPDATE answers SET current = true WHERE id = %s", [answer_id])


def _typed(sources: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """JSON has no ids: make them ones again."""
    return [
        {
            **source,
            "chunk_id": ChunkId(UUID(source["chunk_id"])),
            "document_id": DocumentId(UUID(source["document_id"])),
        }
        for source in sources or ()
    ]


async def _insert_source(connection: Connection, answer_id: AnswerId, source: AnswerSource) -> bool:
    made = await connection.execute(
        "INSERT INTO answer_sources"
        " (answer_id, number, chunk_id, document_id, document, page, heading, score, quote)"
        " SELECT %s, %s, %s, d.id, %s, %s, %s, %s, %s FROM documents d WHERE d.id = %s"
        " FOR KEY SHARE",
        [
            *(answer_id, source.number, source.chunk_id, source.document, source.page),
            *(source.heading, source.score, source.quote, source.document_id),
        ],
    )
    return made.rowcount == 1
