-- Why: which queues somebody works on. The queue's own table of workers does not say whose they are,
--      and a chat surface that works on its questions is no sign that documents are read.
-- Locks: none on existing tables; the table is new.
-- Expected time: under 1 s.

CREATE TABLE queue_workers (
    id uuid PRIMARY KEY,
    queue text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);
