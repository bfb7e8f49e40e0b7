-- The journal and its projections, as in `migrations/sqlite`, in the schema `autoglm`, which is in the search path.
--
-- `events` is the truth: append-only, one row for everything that ever happened. A projection row holds only
-- what queries look for; its body is the JSON of the event it points at, so nothing is stored twice.
-- Columns named `seq` or `…_seq` are positions in `events`.

-- One row. Whoever appends locks it first and keeps it until the commit: positions are given in the order of
-- commits, without gaps, and whoever has seen a position sees every one before it.
CREATE TABLE head (
    single   BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    last_seq BIGINT NOT NULL,  -- position of the latest event
    term     BIGINT NOT NULL   -- how often a process became the leader; what an earlier leader writes is refused
);
INSERT INTO head (last_seq, term) VALUES (0, 0);

CREATE TABLE events (
    seq    BIGINT PRIMARY KEY,
    name   TEXT NOT NULL,
    at     BIGINT NOT NULL,  -- milliseconds since the Unix epoch
    json   TEXT NOT NULL,    -- the record, its vector left empty; as text, to read back exactly as it was written
    vector BYTEA             -- embedding or centroid, little-endian f32
);

CREATE TABLE interactions (
    seq            BIGINT PRIMARY KEY REFERENCES events (seq),
    id             TEXT NOT NULL UNIQUE,
    awaiting       INTEGER NOT NULL DEFAULT 1,  -- 1: no assessment, or more feedback than the latest one saw
    assessment_seq BIGINT,                      -- the latest assessment
    judged_seq     BIGINT,                      -- the same, where it judged accuracy by something outside the model
    feedback_count BIGINT NOT NULL DEFAULT 0,   -- rows in `feedback`
    feedback_seen  BIGINT                       -- of these, those in the latest assessment
);
CREATE INDEX interactions_awaiting ON interactions (seq) WHERE awaiting = 1;
CREATE INDEX interactions_judged ON interactions (judged_seq) WHERE judged_seq IS NOT NULL;

CREATE TABLE feedback (
    seq             BIGINT PRIMARY KEY REFERENCES events (seq),
    id              TEXT NOT NULL UNIQUE,
    interaction_seq BIGINT NOT NULL REFERENCES interactions (seq)
);
CREATE INDEX feedback_interaction ON feedback (interaction_seq);

CREATE TABLE assessments (
    seq             BIGINT PRIMARY KEY REFERENCES events (seq),
    id              TEXT NOT NULL UNIQUE,
    interaction_seq BIGINT NOT NULL REFERENCES interactions (seq)
);
CREATE INDEX assessments_interaction ON assessments (interaction_seq);

CREATE TABLE experiences (
    seq         BIGINT PRIMARY KEY REFERENCES events (seq),
    id          TEXT NOT NULL UNIQUE,
    amended_seq BIGINT  -- the latest amendment
);

-- Records that are replaced keep the place of their first event and the body of their latest.
CREATE TABLE patterns (
    first_seq  BIGINT PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq BIGINT NOT NULL,
    count      BIGINT NOT NULL
);
CREATE INDEX patterns_count ON patterns (count DESC, first_seq);

CREATE TABLE runs (
    first_seq  BIGINT PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq BIGINT NOT NULL
);

CREATE TABLE rollouts (
    first_seq  BIGINT PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq BIGINT NOT NULL
);

CREATE TABLE versions (
    seq    BIGINT PRIMARY KEY REFERENCES events (seq),
    number BIGINT NOT NULL UNIQUE
);

CREATE TABLE aliases (
    name   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);

CREATE TABLE alias_moves (
    seq   BIGINT PRIMARY KEY REFERENCES events (seq),
    alias TEXT NOT NULL
);
CREATE INDEX alias_moves_alias ON alias_moves (alias, seq);

-- Requests that two versions answered, and looks at rollouts on live traffic.

CREATE TABLE shadow_pairs (
    first_seq  BIGINT PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq BIGINT NOT NULL,
    rollout    TEXT NOT NULL,
    gain       DOUBLE PRECISION NOT NULL,  -- how much better the candidate's answer is, -1 to 1
    distance   DOUBLE PRECISION NOT NULL   -- how much the answers differ, 0 to 1
);
CREATE INDEX shadow_pairs_rollout ON shadow_pairs (rollout, first_seq);
CREATE INDEX shadow_pairs_gain ON shadow_pairs (rollout, gain, first_seq);
CREATE INDEX shadow_pairs_distance ON shadow_pairs (rollout, distance DESC, first_seq);

CREATE TABLE rollout_progress (
    seq     BIGINT PRIMARY KEY REFERENCES events (seq),
    rollout TEXT NOT NULL
);
CREATE INDEX rollout_progress_rollout ON rollout_progress (rollout, seq);
