-- Why: a gate that could not decide is no rejection, and whoever watches a run shall read what it
-- says in words, such as which stage was left out.
-- Locks: ACCESS EXCLUSIVE on runs and model_versions for a moment; versions are few.
-- Expected time: under 1 s.

ALTER TABLE runs ADD COLUMN note text;

ALTER TABLE model_versions
    DROP CONSTRAINT model_versions_status_check,
    ADD CONSTRAINT model_versions_status_check CHECK (status IN (
        'candidate', 'undecided', 'canary', 'live', 'retired', 'rejected', 'rolled_back'
    ));
