-- Why: runs of training with their progress, the rows that they learnt from, and the versions of a
-- workspace's model that they made.
-- Locks: ACCESS EXCLUSIVE on runs for the moment of adding columns.
-- Expected time: under 1 s.

ALTER TABLE runs
    ADD COLUMN started_at timestamptz,
    ADD COLUMN ended_at timestamptz,
    ADD COLUMN stage text,
    ADD COLUMN failure text,
    ADD COLUMN advice text,
    ADD COLUMN result jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN snapshot_sha256 text,
    ADD COLUMN cancel_requested boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT runs_status_check,
    ADD CONSTRAINT runs_status_check
        CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled'));

CREATE TABLE run_metrics (
    run_id uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    stage text NOT NULL,
    step int NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    values jsonb NOT NULL,
    PRIMARY KEY (run_id, stage, step)
);

-- Which ratings a run learnt from. Ids only: who is forgotten leaves no text behind here.
CREATE TABLE run_rows (
    run_id uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    row_id text NOT NULL,
    kind text NOT NULL,
    split text NOT NULL,
    basis text NOT NULL,
    answer_ids uuid[] NOT NULL,
    PRIMARY KEY (run_id, row_id)
);
CREATE INDEX run_rows_answers ON run_rows USING gin (answer_ids);
CREATE INDEX run_rows_row ON run_rows (row_id);

-- `parent_id`: the version that was live when the run began, against which the gate compared.
-- `share`: of the threads that a canary answers, 0 to 1.
CREATE TABLE model_versions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    number int NOT NULL,
    name text NOT NULL,
    run_id uuid REFERENCES runs ON DELETE SET NULL,
    parent_id uuid REFERENCES model_versions ON DELETE SET NULL,
    directory text NOT NULL,
    sha256 text NOT NULL,
    snapshot_sha256 text NOT NULL,
    recipe jsonb NOT NULL,
    gate jsonb NOT NULL,
    status text NOT NULL
        CHECK (status IN ('candidate', 'canary', 'live', 'retired', 'rejected', 'rolled_back')),
    share real NOT NULL DEFAULT 0 CHECK (share BETWEEN 0 AND 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    status_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_versions_number UNIQUE (workspace_id, number)
);
CREATE UNIQUE INDEX model_versions_live ON model_versions (workspace_id) WHERE status = 'live';
CREATE UNIQUE INDEX model_versions_canary ON model_versions (workspace_id) WHERE status = 'canary';
CREATE INDEX model_versions_run ON model_versions (run_id);
CREATE INDEX model_versions_parent ON model_versions (parent_id);
