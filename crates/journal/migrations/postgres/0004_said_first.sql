-- What somebody has spoken of is assessed first: `awaiting` is 2 there, and 1 where nobody has.

UPDATE interactions SET awaiting = 2 WHERE awaiting = 1 AND feedback_count > 0;
DROP INDEX interactions_awaiting;
CREATE INDEX interactions_awaiting ON interactions (awaiting DESC, seq) WHERE awaiting > 0;
