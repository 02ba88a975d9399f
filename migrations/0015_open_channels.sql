-- Why: what a workspace's model learns is said to everybody in it, so that only conversations and
--      documents of channels that everybody may read can teach it.
-- Locks: ACCESS EXCLUSIVE on channels for a moment; the default is not written to the rows.
-- Expected time: under 1 s.

-- Closed until the platform said that it is open.
ALTER TABLE channels ADD COLUMN open boolean NOT NULL DEFAULT false;

-- The page and the terminal are behind one door.
UPDATE channels SET open = true
WHERE workspace_id IN (SELECT id FROM workspaces WHERE platform = 'local');
