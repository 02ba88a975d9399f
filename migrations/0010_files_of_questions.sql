-- Why: files that are attached to a question are read for it, and its answer tells which of them
--      could not be read, and why.
-- Locks: ACCESS EXCLUSIVE on shared_files for the time of adding columns without a rewrite.
-- Expected time: under 1 s.

-- `name`: what people call the file; NULL for those that were shared before. `reason`: why it was
-- given up.
ALTER TABLE shared_files
    ADD COLUMN name text,
    ADD COLUMN reason text;
