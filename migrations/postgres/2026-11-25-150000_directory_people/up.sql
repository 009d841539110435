-- Who a person is in a directory, such as `entra:{tenant}:{object id}`: it stays when an account name is given to
-- somebody else. Null for people whom an admin named.
ALTER TABLE people ADD COLUMN directory_id TEXT;
CREATE UNIQUE INDEX people_directory ON people (site_id, directory_id);

-- How many devices a person has.
CREATE INDEX enrollments_person ON enrollments (site_id, person_id) WHERE person_id IS NOT NULL;
CREATE INDEX invitations_person ON invitations (site_id, person_id) WHERE person_id IS NOT NULL;
