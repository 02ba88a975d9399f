-- Why: an administrator may take a person's ratings out of rankings and training, and back in.
-- Locks: ACCESS EXCLUSIVE on members for the time of adding a column without a rewrite.
-- Expected time: under 1 s.

-- When it began; NULL for everybody whose ratings count.
ALTER TABLE members ADD COLUMN quarantined_at timestamptz;
