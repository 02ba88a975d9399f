"""Storage: Postgres is the one source of truth.

Does: run the embedded Postgres, migrate, keep documents (parse, chunk, index), search them for an
audience, keep conversations, answers, ratings and settings, queue what is to be done and hand it to
whoever does it.

Does not: load models or know a chat platform. Embeddings and token counts are handed in by the
worker.

Entry points: `storage.pool.open_pool`, `storage.migrate.migrate`, `storage.documents.Documents`,
`storage.ingest.ingest`, `storage.search.search`, `storage.conversations.Conversations`,
`storage.jobs.run_worker` and `run_turns`, `storage.ratings.Ratings`, `storage.places.Places`.

Why access lives in SQL: every query that returns document text takes an `Audience` and filters on
`scope_id`; there is no unfiltered read for a surface to misuse.
"""
