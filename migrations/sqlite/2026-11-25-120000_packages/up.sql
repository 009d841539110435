-- Packages: what was uploaded, its bytes in chunks, and who may fetch it until when.

CREATE TABLE packages (
    site_id BLOB NOT NULL,
    id BLOB NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE INDEX packages_content ON packages (site_id, sha256);

-- Content by its hash, in pieces of 1 MiB: the same bytes are stored once in a site.
CREATE TABLE package_chunks (
    site_id BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    ordinal INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, sha256, ordinal),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE INDEX package_chunks_created ON package_chunks (created_at);

-- A device may fetch a package: the token is in the URL, its keyed hash is here.
CREATE TABLE package_grants (
    site_id BLOB NOT NULL,
    token_hash BLOB NOT NULL,
    package_id BLOB NOT NULL,
    enrollment_id BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, token_hash),
    FOREIGN KEY (site_id) REFERENCES sites (id),
    FOREIGN KEY (site_id, package_id) REFERENCES packages (site_id, id),
    FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id)
);
CREATE UNIQUE INDEX package_grants_token ON package_grants (token_hash);
CREATE INDEX package_grants_package ON package_grants (site_id, package_id);
CREATE INDEX package_grants_expires ON package_grants (expires_at);
