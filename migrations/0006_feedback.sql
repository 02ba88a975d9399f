-- Why: what people think of answers, and the outbox that carries it to the curation tool.
-- Locks: none on existing tables; all tables are new.
-- Expected time: under 1 s.

-- `consent`, here and below: whether the member and the place had both agreed to training when the
-- row was written. Withdrawn consent reaches back; given consent does not.
CREATE TABLE votes (
    answer_id uuid NOT NULL REFERENCES answers ON DELETE CASCADE,
    member_id uuid NOT NULL REFERENCES members ON DELETE CASCADE,
    value smallint NOT NULL CHECK (value IN (-1, 1)),
    reasons text[] NOT NULL DEFAULT '{}',
    comment text,
    consent boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (answer_id, member_id)
);
CREATE INDEX votes_member ON votes (member_id, updated_at);

-- The better answer that somebody wrote.
CREATE TABLE corrections (
    answer_id uuid NOT NULL REFERENCES answers ON DELETE CASCADE,
    member_id uuid NOT NULL REFERENCES members ON DELETE CASCADE,
    text text NOT NULL,
    consent boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (answer_id, member_id)
);
CREATE INDEX corrections_member ON corrections (member_id);

-- Two answers to one question, as they stood side by side.
CREATE TABLE comparisons (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    message_id uuid NOT NULL REFERENCES messages ON DELETE CASCADE,
    left_answer uuid NOT NULL REFERENCES answers ON DELETE CASCADE,
    right_answer uuid NOT NULL REFERENCES answers ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT comparisons_message UNIQUE (message_id),
    CHECK (left_answer <> right_answer)
);
CREATE INDEX comparisons_left ON comparisons (left_answer);
CREATE INDEX comparisons_right ON comparisons (right_answer);

CREATE TABLE comparison_votes (
    comparison_id uuid NOT NULL REFERENCES comparisons ON DELETE CASCADE,
    member_id uuid NOT NULL REFERENCES members ON DELETE CASCADE,
    winner text NOT NULL CHECK (winner IN ('left', 'right', 'tie', 'both_bad')),
    consent boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (comparison_id, member_id)
);
CREATE INDEX comparison_votes_member ON comparison_votes (member_id);

-- An answer for which people were called; they are called once.
CREATE TABLE help_requests (
    answer_id uuid PRIMARY KEY REFERENCES answers ON DELETE CASCADE,
    member_id uuid REFERENCES members ON DELETE SET NULL,
    requested_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX help_requests_member ON help_requests (member_id);

-- Records that changed and must be told to the curation tool. A row holds no content: whoever carries
-- it reads the record's present state, and a record that is gone is to be removed there as well. So
-- deletion needs no case of its own, and many changes of a record are one row. `revision` grows with
-- every change: the carrier deletes the row only at the revision that it has read. No foreign keys: a
-- row outlives what it names.
CREATE SEQUENCE outbox_revisions;
CREATE TABLE outbox (
    kind text NOT NULL CHECK (kind IN ('answer', 'comparison')),
    record_id uuid NOT NULL,
    workspace_id uuid NOT NULL,
    revision bigint NOT NULL DEFAULT nextval('outbox_revisions'),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, record_id)
);
CREATE INDEX outbox_order ON outbox (revision);
