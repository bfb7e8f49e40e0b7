-- How far each mirror of the journal is. No event: what a mirror has is no part of what happened.

CREATE TABLE cursors (
    mirror TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seq    BIGINT NOT NULL,  -- everything up to here was delivered
    begun  BIGINT NOT NULL   -- end of the batch after it that was begun; `seq` where none was
);
