-- Why: what became of a run is told in the place where it was asked for, by the app of that chat.
-- Locks: none on existing tables but SHARE ROW EXCLUSIVE on runs for the foreign key.
-- Expected time: under 1 s.

-- `about`: what of the run is told; each is told once. A row stays when it was told, without text.
CREATE TABLE notices (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    about text NOT NULL CHECK (about IN ('ended', 'better', 'promoted', 'rolled back')),
    platform text NOT NULL,
    place jsonb NOT NULL,
    text text NOT NULL,
    picture bytea,
    attempts int NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    told_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT notices_about UNIQUE (run_id, about)
);
CREATE INDEX notices_untold ON notices (platform, not_before) WHERE told_at IS NULL;
