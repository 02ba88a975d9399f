-- Why: threads, questions, answers with the evidence they were given, and the guard that makes a
--      redelivered event count once.
-- Locks: none on existing tables; all tables are new.
-- Expected time: under 1 s.

-- A conversation in one scope: a channel, or a person's direct messages.
CREATE TABLE threads (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    scope_id uuid NOT NULL,
    platform_ref text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT threads_ref UNIQUE (scope_id, platform_ref)
);

-- A person's question. `position` orders a thread's questions, whatever the clock says.
CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    thread_id uuid NOT NULL REFERENCES threads ON DELETE CASCADE,
    member_id uuid REFERENCES members ON DELETE SET NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    text text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX messages_thread ON messages (thread_id, position);

-- Unique on the platform's identity of a message: whoever inserts the row handles the event.
CREATE TABLE handled_events (
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    platform_ref text NOT NULL,
    message_id uuid NOT NULL REFERENCES messages ON DELETE CASCADE,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, platform_ref)
);
CREATE INDEX handled_events_message ON handled_events (message_id);

CREATE TABLE answers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    message_id uuid NOT NULL REFERENCES messages ON DELETE CASCADE,
    text text NOT NULL,
    found boolean NOT NULL,
    finish_reason text NOT NULL,
    model text NOT NULL,
    prompt_sha256 text NOT NULL,
    prompt_tokens int NOT NULL,
    completion_tokens int NOT NULL,
    timings_ms jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT answers_message UNIQUE (message_id)
);

-- What was retrieved for an answer, and which of it the answer cites. Document, place and quote are
-- copied: a citation outlives the chunk that it came from, but not the document's deletion.
CREATE TABLE answer_sources (
    answer_id uuid NOT NULL REFERENCES answers ON DELETE CASCADE,
    number int NOT NULL,
    chunk_id uuid NOT NULL,
    document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    document text NOT NULL,
    page int,
    heading text,
    score real NOT NULL,
    quote text,
    PRIMARY KEY (answer_id, number)
);
CREATE INDEX answer_sources_document ON answer_sources (document_id);
