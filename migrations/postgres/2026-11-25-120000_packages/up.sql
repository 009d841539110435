-- Packages: what was uploaded, its bytes in chunks, and who may fetch it until when.

CREATE TABLE packages (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    sha256 BYTEA NOT NULL,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE INDEX packages_content ON packages (site_id, sha256);

-- Content by its hash, in pieces of 1 MiB: the same bytes are stored once in a site.
CREATE TABLE package_chunks (
    site_id BYTEA NOT NULL,
    sha256 BYTEA NOT NULL,
    ordinal INTEGER NOT NULL,
    bytes BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, sha256, ordinal),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE INDEX package_chunks_created ON package_chunks (created_at);

-- A device may fetch a package: the token is in the URL, its keyed hash is here.
CREATE TABLE package_grants (
    site_id BYTEA NOT NULL,
    token_hash BYTEA NOT NULL,
    package_id BYTEA NOT NULL,
    enrollment_id BYTEA NOT NULL,
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

-- The wall between sites.
ALTER TABLE packages ENABLE ROW LEVEL SECURITY;
ALTER TABLE packages FORCE ROW LEVEL SECURITY;
CREATE POLICY packages_wall ON packages
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE package_chunks ENABLE ROW LEVEL SECURITY;
ALTER TABLE package_chunks FORCE ROW LEVEL SECURITY;
CREATE POLICY package_chunks_wall ON package_chunks
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE package_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE package_grants FORCE ROW LEVEL SECURITY;
CREATE POLICY package_grants_wall ON package_grants
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
