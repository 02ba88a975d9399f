-- Why: who speaks where. Every document and thread belongs to one of these rows, and what an audience
--      may read is a set of their ids ("scopes").
-- Locks: none on existing tables; all tables are new.
-- Expected time: under 1 s.

CREATE EXTENSION IF NOT EXISTS vector;

-- A team on a platform, by the platform's own id, which never changes; names do.
CREATE TABLE workspaces (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    platform text NOT NULL,
    platform_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workspaces_platform UNIQUE (platform, platform_id)
);

CREATE TABLE channels (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    platform_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT channels_platform UNIQUE (workspace_id, platform_id)
);

-- A person. The pseudonym is an HMAC of the platform id, so that a row is found again without the id
-- being readable; the id and the name shown to others are encrypted.
CREATE TABLE members (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    pseudonym bytea NOT NULL,
    platform_id_encrypted bytea NOT NULL,
    display_name_encrypted bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT members_pseudonym UNIQUE (workspace_id, pseudonym)
);

-- Who did what to the data: uploads, replacements, deletions. Never holds text of messages or documents.
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    member_id uuid REFERENCES members ON DELETE SET NULL,
    action text NOT NULL,
    subject_id uuid NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_subject ON audit (subject_id);
