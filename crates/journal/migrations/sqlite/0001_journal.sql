-- The journal and its projections.
--
-- `events` is the truth: append-only, one row for everything that ever happened. A projection row holds only
-- what queries look for; its body is the JSON of the event it points at, so nothing is stored twice.
-- Columns named `seq` or `…_seq` are positions in `events`.

-- "aglm": tells this file from other SQLite databases.
PRAGMA application_id = 1634167917;

CREATE TABLE events (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    name   TEXT NOT NULL,
    at     INTEGER NOT NULL,  -- milliseconds since the Unix epoch
    json   TEXT NOT NULL,     -- the record, its vector left empty
    vector BLOB               -- embedding or centroid, little-endian f32
) STRICT;

CREATE TABLE interactions (
    seq            INTEGER PRIMARY KEY REFERENCES events (seq),
    id             TEXT NOT NULL UNIQUE,
    awaiting       INTEGER NOT NULL DEFAULT 1,  -- 1: no assessment since the latest feedback
    assessment_seq INTEGER,                     -- the latest assessment
    judged_seq     INTEGER                      -- the same, where it has a reference
) STRICT;
CREATE INDEX interactions_awaiting ON interactions (awaiting) WHERE awaiting = 1;
CREATE INDEX interactions_judged ON interactions (judged_seq) WHERE judged_seq IS NOT NULL;

CREATE TABLE feedback (
    seq             INTEGER PRIMARY KEY REFERENCES events (seq),
    id              TEXT NOT NULL UNIQUE,
    interaction_seq INTEGER NOT NULL REFERENCES interactions (seq)
) STRICT;
CREATE INDEX feedback_interaction ON feedback (interaction_seq);

CREATE TABLE assessments (
    seq             INTEGER PRIMARY KEY REFERENCES events (seq),
    id              TEXT NOT NULL UNIQUE,
    interaction_seq INTEGER NOT NULL REFERENCES interactions (seq)
) STRICT;
CREATE INDEX assessments_interaction ON assessments (interaction_seq);

CREATE TABLE experiences (
    seq         INTEGER PRIMARY KEY REFERENCES events (seq),
    id          TEXT NOT NULL UNIQUE,
    amended_seq INTEGER  -- the latest amendment
) STRICT;

-- Records that are replaced keep the place of their first event and the body of their latest.
CREATE TABLE patterns (
    first_seq  INTEGER PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq INTEGER NOT NULL,
    count      INTEGER NOT NULL
) STRICT;
CREATE INDEX patterns_count ON patterns (count DESC, first_seq);

CREATE TABLE runs (
    first_seq  INTEGER PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq INTEGER NOT NULL
) STRICT;

CREATE TABLE rollouts (
    first_seq  INTEGER PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    seq    INTEGER PRIMARY KEY REFERENCES events (seq),
    number INTEGER NOT NULL UNIQUE
) STRICT;

CREATE TABLE aliases (
    name   TEXT NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT;

CREATE TABLE alias_moves (
    seq   INTEGER PRIMARY KEY REFERENCES events (seq),
    alias TEXT NOT NULL
) STRICT;
CREATE INDEX alias_moves_alias ON alias_moves (alias);
