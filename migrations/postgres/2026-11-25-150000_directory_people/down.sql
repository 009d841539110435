-- Undo of directory ids: people are found by their account names alone again.
DROP INDEX invitations_person;
DROP INDEX enrollments_person;
DROP INDEX people_directory;
ALTER TABLE people DROP COLUMN directory_id;
