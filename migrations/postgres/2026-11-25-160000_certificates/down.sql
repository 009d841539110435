-- Undo of certificates that are no identities: what was issued is forgotten, and so is what their challenges were for.
DROP TABLE certificates;
DELETE FROM challenges WHERE purpose = 'certificate';
ALTER TABLE challenges DROP COLUMN requested;
