-- Why: what became of a run is told in the place where it was asked for, by the app of that chat.
-- Locks: none on existing tables but SHARE ROW EXCLUSIVE on runs for the foreign key.
-- Expected time: under 1 s.

CREATE TABLE notices (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    platform text NOT NULL,
    place jsonb NOT NULL,
    text text NOT NULL,
    picture bytea,
    attempts int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notices_platform ON notices (platform, created_at);
CREATE INDEX notices_run ON notices (run_id);
