-- What an assessment took into account decides what awaits assessment; order no longer does.

ALTER TABLE interactions ADD COLUMN feedback_count INTEGER NOT NULL DEFAULT 0;  -- rows in `feedback`
ALTER TABLE interactions ADD COLUMN feedback_seen INTEGER;  -- of these, those in the latest assessment

-- Assessments of the first format do not say what they saw, which reads as nothing: where there is feedback,
-- they are made once more. From here on `awaiting` is 1 where there is no assessment, or more feedback than
-- the latest one saw.
UPDATE interactions SET
    feedback_count = (SELECT count(*) FROM feedback f WHERE f.interaction_seq = interactions.seq),
    feedback_seen = CASE WHEN assessment_seq IS NOT NULL THEN 0 END;
UPDATE interactions SET awaiting = 1 WHERE feedback_count > coalesce(feedback_seen, -1);

-- Judged is what has a reference, and what a verifier or feedback gave a score for accuracy without one.
UPDATE interactions SET judged_seq = assessment_seq
WHERE judged_seq IS NULL AND assessment_seq IS NOT NULL AND EXISTS (
    SELECT 1 FROM events e
    WHERE e.seq = interactions.assessment_seq AND json_type(e.json, '$.scores.accuracy') IS NOT NULL
);
