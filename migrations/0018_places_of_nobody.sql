-- Why: a run that was queued by itself took the place of the last run with whoever had asked for
-- that one: a platform's id of a person who, when forgotten, is not found there. And a run that
-- waits for room on the disk tells so, which is told besides its end.
-- Locks: ROW EXCLUSIVE on runs; ACCESS EXCLUSIVE on notices for a moment; both are few.
-- Expected time: under 1 s.

UPDATE runs SET place = place - 'member' WHERE member_id IS NULL AND place ? 'member';

ALTER TABLE notices
    DROP CONSTRAINT notices_about_check,
    ADD CONSTRAINT notices_about_check CHECK (about IN (
        'ended', 'better', 'promoted', 'rolled back', 'no room'
    ));
