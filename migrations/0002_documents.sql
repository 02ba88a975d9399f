-- Why: documents, their versions, and the chunks that search reads.
-- Locks: none on existing tables; all tables are new.
-- Expected time: under 1 s.

-- A document keeps its id and name over all versions of its bytes. Its scope is the workspace, channel
-- or member that owns it. Search sees the chunks of version `visible` only; NULL = none is ready yet.
CREATE TABLE documents (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    scope_id uuid NOT NULL,
    name text NOT NULL,
    visible int,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT documents_name UNIQUE (scope_id, name)
);

-- One upload of a document's bytes. `run` fences: a worker that lost its job to another one holds an
-- older number, and nothing that it writes counts.
CREATE TABLE document_versions (
    document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    version int NOT NULL,
    sha256 text NOT NULL,
    bytes bigint NOT NULL,
    media_type text NOT NULL,
    status text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'parsing', 'embedding', 'ready', 'failed')),
    reason text,
    progress real NOT NULL DEFAULT 0,
    run int NOT NULL DEFAULT 0,
    pages int,
    chunks int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (document_id, version)
);

-- What a hit shows. The ids are given by the worker, because three tables share them.
CREATE TABLE chunks (
    id uuid PRIMARY KEY,
    document_id uuid NOT NULL,
    version int NOT NULL,
    ordinal int NOT NULL,
    page int,
    heading text,
    "offset" int NOT NULL,
    text text NOT NULL,
    FOREIGN KEY (document_id, version) REFERENCES document_versions ON DELETE CASCADE,
    CONSTRAINT chunks_place UNIQUE (document_id, version, ordinal)
);

-- What the two rankings read, one narrow row per chunk each, nothing moved to TOAST: a search reads
-- hundreds of these rows and a handful of `chunks`.
CREATE TABLE chunk_vectors (
    chunk_id uuid PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    document_id uuid NOT NULL,
    version int NOT NULL,
    scope_id uuid NOT NULL,
    embedding vector({{embedding_dim}}) NOT NULL
);
ALTER TABLE chunk_vectors ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX chunk_vectors_scope ON chunk_vectors (scope_id);
-- m and ef_construction: recall@10 0.97 and more at ef_search 100 over 100,000 chunks
-- (`tests.benchmarks search`), at about 1 ms per inserted row.
CREATE INDEX chunk_vectors_hnsw ON chunk_vectors
    USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 100);

-- `terms` are hashed term ids, for finding candidates; `bm25` holds each term's saturated frequency, so
-- that BM25 is the inner product with the query's inverse document frequencies.
CREATE TABLE chunk_terms (
    chunk_id uuid PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    document_id uuid NOT NULL,
    version int NOT NULL,
    scope_id uuid NOT NULL,
    terms int[] NOT NULL,
    bm25 sparsevec(1000000000) NOT NULL
);
ALTER TABLE chunk_terms ALTER COLUMN bm25 SET STORAGE MAIN;
ALTER TABLE chunk_terms ALTER COLUMN terms SET STORAGE MAIN;
ALTER TABLE chunk_terms SET (toast_tuple_target = 8160);  -- up to a page, neither moved nor packed
CREATE INDEX chunk_terms_scope ON chunk_terms (scope_id);
-- No pending list: a search would have to scan it.
CREATE INDEX chunk_terms_terms ON chunk_terms USING gin (terms) WITH (fastupdate = off);

-- In how many searchable chunks of the workspace a term occurs. Kept by the transactions that make
-- chunks visible or delete them.
CREATE TABLE term_frequencies (
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    term int NOT NULL,
    chunks int NOT NULL,
    PRIMARY KEY (workspace_id, term)
);

-- Searchable chunks per scope: how large the collection is, and how selective an audience.
CREATE TABLE scope_sizes (
    scope_id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    chunks bigint NOT NULL
);
CREATE INDEX scope_sizes_workspace ON scope_sizes (workspace_id);
