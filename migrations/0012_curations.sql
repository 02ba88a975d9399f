-- Why: what curators say of rated answers and comparisons comes back from the curation tool, and is
-- kept beside the raw ratings, which it never overwrites.
-- Locks: none on existing tables but SHARE ROW EXCLUSIVE on answers and comparisons for foreign keys.
-- Expected time: under 1 s.

-- A curator is a user of the curation tool, no member. `value`, `correction` and `winner` mean what
-- they mean in votes, corrections and comparison_votes; NULL where nothing was said.
-- `curated_at`: by the clock of the curation tool. `withdrawn_at`: when it was found to be gone there.
CREATE TABLE curations (
    answer_id uuid REFERENCES answers ON DELETE CASCADE,
    comparison_id uuid REFERENCES comparisons ON DELETE CASCADE,
    record_id uuid NOT NULL GENERATED ALWAYS AS (coalesce(answer_id, comparison_id)) STORED,
    curator_id uuid NOT NULL,
    curator text NOT NULL,
    status text NOT NULL CHECK (status IN ('submitted', 'discarded')),
    value smallint CHECK (value IN (-1, 1)),
    reasons text[] NOT NULL DEFAULT '{}',
    comment text,
    correction text,
    winner text CHECK (winner IN ('left', 'right', 'tie', 'both_bad')),
    curated_at timestamptz NOT NULL,
    pulled_at timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz,
    PRIMARY KEY (record_id, curator_id),
    CHECK (num_nonnulls(answer_id, comparison_id) = 1)
);
CREATE INDEX curations_answer ON curations (answer_id);
CREATE INDEX curations_comparison ON curations (comparison_id);
