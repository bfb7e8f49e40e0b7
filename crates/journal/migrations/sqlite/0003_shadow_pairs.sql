-- Requests that two versions answered, and looks at rollouts on live traffic.

CREATE TABLE shadow_pairs (
    first_seq  INTEGER PRIMARY KEY REFERENCES events (seq),
    id         TEXT NOT NULL UNIQUE,
    latest_seq INTEGER NOT NULL,
    rollout    TEXT NOT NULL,
    gain       REAL NOT NULL,  -- how much better the candidate's answer is, -1 to 1
    distance   REAL NOT NULL   -- how much the answers differ, 0 to 1
) STRICT;
CREATE INDEX shadow_pairs_rollout ON shadow_pairs (rollout, first_seq);
CREATE INDEX shadow_pairs_gain ON shadow_pairs (rollout, gain, first_seq);
CREATE INDEX shadow_pairs_distance ON shadow_pairs (rollout, distance DESC, first_seq);

CREATE TABLE rollout_progress (
    seq     INTEGER PRIMARY KEY REFERENCES events (seq),
    rollout TEXT NOT NULL
) STRICT;
CREATE INDEX rollout_progress_rollout ON rollout_progress (rollout, seq);
