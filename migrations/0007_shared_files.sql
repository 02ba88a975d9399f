-- Why: files that people share in chats. A file is noted before the platform is told that its event
--      arrived, so that a crash loses none; its status message and whoever shared it are found again.
-- Locks: none on existing tables; the table is new.
-- Expected time: under 1 s.

-- `platform_ref` is the platform's name of message and file, which makes a redelivery no second file.
-- `source` says where to get it, empty once that is done. `status_ref` is the platform's name of the
-- message that shows what becomes of it. Who shared a document may remove it.
CREATE TABLE shared_files (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    member_id uuid REFERENCES members ON DELETE CASCADE,
    platform_ref text NOT NULL,
    source jsonb NOT NULL,
    document_id uuid REFERENCES documents ON DELETE SET NULL,
    status_ref text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT shared_files_ref UNIQUE (workspace_id, platform_ref)
);
CREATE INDEX shared_files_document ON shared_files (document_id);
CREATE INDEX shared_files_member ON shared_files (member_id);
