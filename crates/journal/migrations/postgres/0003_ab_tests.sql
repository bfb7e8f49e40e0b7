-- Tests of versions against one another.

CREATE TABLE ab_tests (
    first_seq  BIGINT PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq BIGINT NOT NULL
);
