-- Tests of versions against one another.

CREATE TABLE ab_tests (
    first_seq  INTEGER PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq INTEGER NOT NULL
) STRICT;
