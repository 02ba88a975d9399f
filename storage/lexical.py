"""The statistics of lexical ranking, kept exact by whoever makes chunks visible or removes them."""

from uuid import UUID

from storage.pool import Connection

_COUNT_TERMS = """
WITH place AS (
    SELECT workspace_id, scope_id FROM documents WHERE id = %(document_id)s
), delta AS (
    SELECT term,
           sum(CASE c.version WHEN %(added)s::int THEN 1 ELSE -1 END) AS chunks
    FROM chunks c JOIN chunk_terms t ON t.chunk_id = c.id, unnest(t.terms) AS term
    WHERE c.document_id = %(document_id)s AND c.version IN (%(added)s::int, %(removed)s::int)
    GROUP BY term
)
INSERT INTO term_frequencies AS f (workspace_id, term, chunks)
SELECT workspace_id, term, delta.chunks FROM delta, place
WHERE delta.chunks <> 0
ORDER BY term  -- every transaction takes the rows' locks in this order: no deadlocks
ON CONFLICT (workspace_id, term) DO UPDATE SET chunks = f.chunks + excluded.chunks
"""

_REMOVE_UNUSED = """
DELETE FROM term_frequencies f
USING (SELECT DISTINCT term FROM chunks c JOIN chunk_terms t ON t.chunk_id = c.id,
              unnest(t.terms) AS term
       WHERE c.document_id = %(document_id)s AND c.version = %(removed)s::int) gone,
      documents d
WHERE d.id = %(document_id)s AND f.workspace_id = d.workspace_id AND f.term = gone.term
  AND f.chunks <= 0
"""

_COUNT_CHUNKS = """
INSERT INTO scope_sizes AS s (scope_id, workspace_id, chunks)
SELECT d.scope_id, d.workspace_id,
       (SELECT count(*) FILTER (WHERE version = %(added)s::int)
             - count(*) FILTER (WHERE version = %(removed)s::int)
        FROM chunks WHERE document_id = d.id)
FROM documents d WHERE d.id = %(document_id)s
ON CONFLICT (scope_id) DO UPDATE SET chunks = s.chunks + excluded.chunks
"""


async def count_terms(
    connection: Connection, document_id: UUID, *, removed: int | None, added: int | None
) -> None:
    """Count a document's version in or out, or one in for the other, within the transaction.

    Must run while the chunks of both versions exist.
    """
    values = {"document_id": document_id, "removed": removed, "added": added}
    await connection.execute(_COUNT_TERMS, values)
    if removed is not None:
        await connection.execute(_REMOVE_UNUSED, values)
    await connection.execute(_COUNT_CHUNKS, values)
