-- Why: the outbox is carried to the curation tool; what fails waits or is parked with its reason, and
-- what was carried is known, so that a withdrawn vote can be taken back there.
-- Locks: ACCESS EXCLUSIVE on outbox for the time of adding columns without a rewrite.
-- Expected time: under 1 s.

-- `parked_at`: refused for good, until the record changes or everything is carried again.
ALTER TABLE outbox
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN not_before timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN parked_at timestamptz,
    ADD COLUMN error text;

-- Whose ratings the curation tool was told, written before it is told them: never fewer than it
-- holds. No foreign keys: a row outlives what it names, until that is removed there as well.
CREATE TABLE relayed_records (
    kind text NOT NULL CHECK (kind IN ('answer', 'comparison')),
    record_id uuid NOT NULL,
    workspace_id uuid NOT NULL,
    voters uuid[] NOT NULL,
    relayed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, record_id)
);
CREATE INDEX relayed_records_workspace ON relayed_records (workspace_id);
