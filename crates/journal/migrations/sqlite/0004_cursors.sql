-- How far each mirror of the journal is. No event: what a mirror has is no part of what happened.

CREATE TABLE cursors (
    mirror TEXT NOT NULL PRIMARY KEY,
    seq    INTEGER NOT NULL,  -- everything up to here was delivered
    begun  INTEGER NOT NULL   -- end of the batch after it that was begun; `seq` where none was
) STRICT;
