-- Why: the gate can be asked again about a version on which it could not decide, which is a run of a
-- kind of its own.
-- Locks: ACCESS EXCLUSIVE on runs for a moment; runs are few.
-- Expected time: under 1 s.

ALTER TABLE runs
    DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('train', 'judge', 'promote', 'rollback'));
