-- The first schema. The same tables, columns and rules as migrations/sqlite; a test compares them.
-- Ids are 16 bytes, times are milliseconds since 1970 (UTC), words are text.

-- A customer of the server; a hard wall.
CREATE TABLE sites (
    id BYTEA NOT NULL,
    name TEXT NOT NULL,
    wrapped_key BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

-- Server-wide values; opaque here.
CREATE TABLE server_settings (
    key TEXT NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (key)
);

-- A site's values; opaque here.
CREATE TABLE site_settings (
    site_id BYTEA NOT NULL,
    key TEXT NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (site_id, key),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- Device CAs; the id stands in URLs, so it is unique over the server.
CREATE TABLE authorities (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    certificate BYTEA NOT NULL,
    key BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX authorities_id ON authorities (id);

-- Who uses devices; account in lower case.
CREATE TABLE people (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    account TEXT NOT NULL,
    name TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX people_account ON people (site_id, account);

-- The physical thing. An unproven claim (claims_device_id) never shares the proven row.
CREATE TABLE devices (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    platform TEXT NOT NULL,
    hardware_id TEXT NOT NULL,
    claims_device_id BYTEA,
    serial TEXT,
    product TEXT,
    model TEXT,
    name TEXT,
    os_version TEXT,
    os_build TEXT,
    supervised BOOLEAN,
    ownership TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX devices_proven_hardware ON devices (site_id, platform, hardware_id) WHERE claims_device_id IS NULL;
CREATE INDEX devices_claims ON devices (site_id, claims_device_id) WHERE claims_device_id IS NOT NULL;

-- What a person holds.
CREATE TABLE invitations (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    platform TEXT NOT NULL,
    person_id BYTEA,
    device_id BYTEA,
    code_hash BYTEA NOT NULL,
    short_hash BYTEA,
    attempts INTEGER NOT NULL,
    attempt_cap INTEGER NOT NULL,
    test_only BOOLEAN NOT NULL,
    unsigned BOOLEAN NOT NULL,
    ownership TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    closed_at BIGINT,
    enrollment_id BYTEA,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX invitations_code ON invitations (code_hash);
CREATE UNIQUE INDEX invitations_short ON invitations (short_hash);

-- One attempt.
CREATE TABLE challenges (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    secret_hash BYTEA NOT NULL,
    purpose TEXT NOT NULL,
    invitation_id BYTEA,
    enrollment_id BYTEA,
    state TEXT NOT NULL,
    csr_hash BYTEA,
    identity_id BYTEA,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX challenges_secret ON challenges (secret_hash);
CREATE INDEX challenges_invitation ON challenges (site_id, invitation_id) WHERE invitation_id IS NOT NULL;

-- Device certificates.
CREATE TABLE identities (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    authority_id BYTEA NOT NULL,
    serial TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    key_hash BYTEA NOT NULL,
    certificate BYTEA NOT NULL,
    common_name TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    state TEXT NOT NULL,
    challenge_id BYTEA,
    invitation_id BYTEA,
    enrollment_id BYTEA,
    issued_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_reason TEXT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX identities_fingerprint ON identities (fingerprint);
CREATE UNIQUE INDEX identities_serial ON identities (site_id, authority_id, serial);
CREATE INDEX identities_invitation ON identities (site_id, invitation_id) WHERE invitation_id IS NOT NULL;
CREATE INDEX identities_enrollment ON identities (site_id, enrollment_id) WHERE enrollment_id IS NOT NULL;
CREATE INDEX identities_revoked ON identities (site_id, authority_id) WHERE revoked_at IS NOT NULL;

-- One period of trust. `newest` marks a device's latest.
CREATE TABLE enrollments (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    device_id BYTEA NOT NULL,
    epoch INTEGER NOT NULL,
    platform TEXT NOT NULL,
    state TEXT NOT NULL,
    user_enrollment BOOLEAN NOT NULL,
    invitation_id BYTEA,
    person_id BYTEA,
    identity_id BYTEA NOT NULL,
    staged_identity_id BYTEA,
    topic TEXT,
    test_only BOOLEAN NOT NULL,
    awaiting_configuration BOOLEAN NOT NULL,
    started_at BIGINT NOT NULL,
    activated_at BIGINT,
    ended_at BIGINT,
    end_reason TEXT,
    last_seen_at BIGINT,
    newest BOOLEAN NOT NULL,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX enrollments_epoch ON enrollments (site_id, device_id, epoch);
CREATE UNIQUE INDEX enrollments_one_living ON enrollments (site_id, device_id) WHERE state IN ('pending', 'active');

-- Streams of commands inside an enrollment.
CREATE TABLE channels (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    enrollment_id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    user_key TEXT NOT NULL,
    user_name TEXT,
    enabled BOOLEAN NOT NULL,
    push_token BYTEA,
    push_magic BYTEA,
    push_dead BOOLEAN NOT NULL,
    last_seq BIGINT NOT NULL,
    token_updates INTEGER NOT NULL,
    last_was_not_now BOOLEAN NOT NULL,
    wake_due_at BIGINT,
    wake_attempts INTEGER NOT NULL,
    woken_at BIGINT,
    wake_note TEXT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX channels_user ON channels (site_id, enrollment_id, kind, user_key);
CREATE INDEX channels_wake_due ON channels (wake_due_at) WHERE wake_due_at IS NOT NULL;

-- Kept secrets of an enrollment, sealed.
CREATE TABLE escrow (
    site_id BYTEA NOT NULL,
    enrollment_id BYTEA NOT NULL,
    field TEXT NOT NULL,
    value BYTEA NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, enrollment_id, field),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- What a device said about itself; JSON.
CREATE TABLE facts (
    site_id BYTEA NOT NULL,
    device_id BYTEA NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (site_id, device_id, key),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- One admin action on many devices.
CREATE TABLE jobs (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    intent BYTEA NOT NULL,
    targets BYTEA NOT NULL,
    done INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE INDEX jobs_open ON jobs (id) WHERE finished_at IS NULL;

-- The queue. pending_lane is the lane's rank until the state is terminal, then NULL; waiting_key is the coalesce key
-- until the first hand-over; ends_at is expires_at, or the deadline of an accepted command.
CREATE TABLE commands (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    enrollment_id BYTEA NOT NULL,
    device_id BYTEA NOT NULL,
    channel_id BYTEA NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL,
    guarantee TEXT NOT NULL,
    intent BYTEA NOT NULL,
    job_id BYTEA,
    waiting_key TEXT,
    state TEXT NOT NULL,
    pending_lane INTEGER,
    note TEXT,
    not_before BIGINT,
    expires_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    first_sent_at BIGINT,
    finished_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX commands_seq ON commands (site_id, channel_id, seq);
CREATE UNIQUE INDEX commands_one_waiting ON commands (site_id, channel_id, waiting_key) WHERE waiting_key IS NOT NULL;
CREATE INDEX commands_pending ON commands (site_id, channel_id, pending_lane, seq) WHERE pending_lane IS NOT NULL;
CREATE INDEX commands_ending ON commands (ends_at) WHERE pending_lane IS NOT NULL;
CREATE INDEX commands_finished ON commands (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX commands_job ON commands (site_id, job_id) WHERE job_id IS NOT NULL;
CREATE INDEX commands_device ON commands (site_id, device_id, id);

-- 1..n parts of a command; the id is the wire's.
CREATE TABLE parts (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    command_id BYTEA NOT NULL,
    ordinal INTEGER NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    wire BYTEA,
    sends INTEGER NOT NULL,
    last_sent_at BIGINT,
    not_now INTEGER NOT NULL,
    not_before BIGINT,
    answer BYTEA,
    error TEXT,
    finished_at BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX parts_ordinal ON parts (site_id, command_id, ordinal);

-- Hand-overs; one open per channel (Q6).
CREATE TABLE deliveries (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    channel_id BYTEA NOT NULL,
    opened_at BIGINT NOT NULL,
    closed_at BIGINT,
    close_reason TEXT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX deliveries_one_open ON deliveries (site_id, channel_id) WHERE closed_at IS NULL;
CREATE INDEX deliveries_closed ON deliveries (closed_at) WHERE closed_at IS NOT NULL;

-- Which parts a delivery carried.
CREATE TABLE delivery_parts (
    site_id BYTEA NOT NULL,
    delivery_id BYTEA NOT NULL,
    part_id BYTEA NOT NULL,
    answered_at BIGINT,
    PRIMARY KEY (site_id, delivery_id, part_id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE INDEX delivery_parts_part ON delivery_parts (site_id, part_id);

-- Who did what; position and chain are the sealer's.
CREATE TABLE audit (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    source TEXT,
    details_digest BYTEA NOT NULL,
    details TEXT,
    position BIGINT,
    chain BYTEA,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX audit_position ON audit (site_id, position);
CREATE INDEX audit_unsealed ON audit (site_id, id) WHERE position IS NULL;

-- Signed heads of the chain.
CREATE TABLE audit_checkpoints (
    site_id BYTEA NOT NULL,
    position BIGINT NOT NULL,
    chain BYTEA NOT NULL,
    at BIGINT NOT NULL,
    signature BYTEA NOT NULL,
    PRIMARY KEY (site_id, position),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- The outbox.
CREATE TABLE events (
    site_id BYTEA NOT NULL,
    id BYTEA NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL,
    position BIGINT,
    PRIMARY KEY (site_id, id),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);
CREATE UNIQUE INDEX events_position ON events (site_id, position);
CREATE INDEX events_unsealed ON events (site_id, id) WHERE position IS NULL;

-- Push certificates by topic.
CREATE TABLE push_certs (
    site_id BYTEA NOT NULL,
    topic TEXT NOT NULL,
    certificate TEXT NOT NULL,
    key BYTEA NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    imported_at BIGINT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (site_id, topic),
    FOREIGN KEY (site_id) REFERENCES sites (id)
);

-- Server-wide; grants say where a key may act.
CREATE TABLE api_keys (
    id BYTEA NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash BYTEA NOT NULL,
    grants TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    last_used_at BIGINT,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

-- Stored answers (Q2).
CREATE TABLE idempotency (
    key_hash BYTEA NOT NULL,
    request_hash BYTEA NOT NULL,
    status INTEGER NOT NULL,
    body BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (key_hash)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Fixed windows of rate limits.
CREATE TABLE rates (
    bucket TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (bucket)
);

-- Which process does a background job.
CREATE TABLE leases (
    name TEXT NOT NULL,
    holder TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (name)
);

-- Foreign keys, after all tables exist. MATCH SIMPLE: a NULL half means no reference.
ALTER TABLE devices ADD CONSTRAINT devices_claims_device_id_fk FOREIGN KEY (site_id, claims_device_id) REFERENCES devices (site_id, id);
ALTER TABLE invitations ADD CONSTRAINT invitations_person_id_fk FOREIGN KEY (site_id, person_id) REFERENCES people (site_id, id);
ALTER TABLE invitations ADD CONSTRAINT invitations_device_id_fk FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id);
ALTER TABLE invitations ADD CONSTRAINT invitations_enrollment_id_fk FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id);
ALTER TABLE challenges ADD CONSTRAINT challenges_invitation_id_fk FOREIGN KEY (site_id, invitation_id) REFERENCES invitations (site_id, id);
ALTER TABLE challenges ADD CONSTRAINT challenges_enrollment_id_fk FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id);
ALTER TABLE challenges ADD CONSTRAINT challenges_identity_id_fk FOREIGN KEY (site_id, identity_id) REFERENCES identities (site_id, id);
ALTER TABLE identities ADD CONSTRAINT identities_authority_id_fk FOREIGN KEY (site_id, authority_id) REFERENCES authorities (site_id, id);
ALTER TABLE identities ADD CONSTRAINT identities_challenge_id_fk FOREIGN KEY (site_id, challenge_id) REFERENCES challenges (site_id, id);
ALTER TABLE identities ADD CONSTRAINT identities_invitation_id_fk FOREIGN KEY (site_id, invitation_id) REFERENCES invitations (site_id, id);
ALTER TABLE identities ADD CONSTRAINT identities_enrollment_id_fk FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id);
ALTER TABLE enrollments ADD CONSTRAINT enrollments_device_id_fk FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id);
ALTER TABLE enrollments ADD CONSTRAINT enrollments_invitation_id_fk FOREIGN KEY (site_id, invitation_id) REFERENCES invitations (site_id, id);
ALTER TABLE enrollments ADD CONSTRAINT enrollments_person_id_fk FOREIGN KEY (site_id, person_id) REFERENCES people (site_id, id);
ALTER TABLE enrollments ADD CONSTRAINT enrollments_identity_id_fk FOREIGN KEY (site_id, identity_id) REFERENCES identities (site_id, id);
ALTER TABLE enrollments ADD CONSTRAINT enrollments_staged_identity_id_fk FOREIGN KEY (site_id, staged_identity_id) REFERENCES identities (site_id, id);
ALTER TABLE channels ADD CONSTRAINT channels_enrollment_id_fk FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id);
ALTER TABLE escrow ADD CONSTRAINT escrow_enrollment_id_fk FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id);
ALTER TABLE facts ADD CONSTRAINT facts_device_id_fk FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id);
ALTER TABLE commands ADD CONSTRAINT commands_enrollment_id_fk FOREIGN KEY (site_id, enrollment_id) REFERENCES enrollments (site_id, id);
ALTER TABLE commands ADD CONSTRAINT commands_device_id_fk FOREIGN KEY (site_id, device_id) REFERENCES devices (site_id, id);
ALTER TABLE commands ADD CONSTRAINT commands_channel_id_fk FOREIGN KEY (site_id, channel_id) REFERENCES channels (site_id, id);
ALTER TABLE commands ADD CONSTRAINT commands_job_id_fk FOREIGN KEY (site_id, job_id) REFERENCES jobs (site_id, id);
ALTER TABLE parts ADD CONSTRAINT parts_command_id_fk FOREIGN KEY (site_id, command_id) REFERENCES commands (site_id, id) ON DELETE CASCADE;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_channel_id_fk FOREIGN KEY (site_id, channel_id) REFERENCES channels (site_id, id);
ALTER TABLE delivery_parts ADD CONSTRAINT delivery_parts_delivery_id_fk FOREIGN KEY (site_id, delivery_id) REFERENCES deliveries (site_id, id) ON DELETE CASCADE;
ALTER TABLE delivery_parts ADD CONSTRAINT delivery_parts_part_id_fk FOREIGN KEY (site_id, part_id) REFERENCES parts (site_id, id) ON DELETE CASCADE;

-- The wall between sites. Every transaction sets bellwether.site (hex) and bellwether.system before anything else;
-- FORCE makes the wall hold for the owning role too. A superuser or BYPASSRLS role would walk through it: the server
-- refuses to start under one.
ALTER TABLE sites ENABLE ROW LEVEL SECURITY;
ALTER TABLE sites FORCE ROW LEVEL SECURITY;
CREATE POLICY sites_wall ON sites
    USING (current_setting('bellwether.system', true) = 'on'
        OR id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE site_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE site_settings FORCE ROW LEVEL SECURITY;
CREATE POLICY site_settings_wall ON site_settings
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE authorities ENABLE ROW LEVEL SECURITY;
ALTER TABLE authorities FORCE ROW LEVEL SECURITY;
CREATE POLICY authorities_wall ON authorities
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE people ENABLE ROW LEVEL SECURITY;
ALTER TABLE people FORCE ROW LEVEL SECURITY;
CREATE POLICY people_wall ON people
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE devices ENABLE ROW LEVEL SECURITY;
ALTER TABLE devices FORCE ROW LEVEL SECURITY;
CREATE POLICY devices_wall ON devices
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE invitations ENABLE ROW LEVEL SECURITY;
ALTER TABLE invitations FORCE ROW LEVEL SECURITY;
CREATE POLICY invitations_wall ON invitations
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE challenges ENABLE ROW LEVEL SECURITY;
ALTER TABLE challenges FORCE ROW LEVEL SECURITY;
CREATE POLICY challenges_wall ON challenges
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE identities ENABLE ROW LEVEL SECURITY;
ALTER TABLE identities FORCE ROW LEVEL SECURITY;
CREATE POLICY identities_wall ON identities
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE enrollments ENABLE ROW LEVEL SECURITY;
ALTER TABLE enrollments FORCE ROW LEVEL SECURITY;
CREATE POLICY enrollments_wall ON enrollments
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE channels ENABLE ROW LEVEL SECURITY;
ALTER TABLE channels FORCE ROW LEVEL SECURITY;
CREATE POLICY channels_wall ON channels
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE escrow ENABLE ROW LEVEL SECURITY;
ALTER TABLE escrow FORCE ROW LEVEL SECURITY;
CREATE POLICY escrow_wall ON escrow
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE facts ENABLE ROW LEVEL SECURITY;
ALTER TABLE facts FORCE ROW LEVEL SECURITY;
CREATE POLICY facts_wall ON facts
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs_wall ON jobs
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE commands ENABLE ROW LEVEL SECURITY;
ALTER TABLE commands FORCE ROW LEVEL SECURITY;
CREATE POLICY commands_wall ON commands
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE parts FORCE ROW LEVEL SECURITY;
CREATE POLICY parts_wall ON parts
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY deliveries_wall ON deliveries
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE delivery_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE delivery_parts FORCE ROW LEVEL SECURITY;
CREATE POLICY delivery_parts_wall ON delivery_parts
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_wall ON audit
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE audit_checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_checkpoints FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_checkpoints_wall ON audit_checkpoints
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE events FORCE ROW LEVEL SECURITY;
CREATE POLICY events_wall ON events
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE push_certs ENABLE ROW LEVEL SECURITY;
ALTER TABLE push_certs FORCE ROW LEVEL SECURITY;
CREATE POLICY push_certs_wall ON push_certs
    USING (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'))
    WITH CHECK (current_setting('bellwether.system', true) = 'on'
        OR site_id = decode(current_setting('bellwether.site', true), 'hex'));
ALTER TABLE server_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE server_settings FORCE ROW LEVEL SECURITY;
CREATE POLICY server_settings_system ON server_settings
    USING (current_setting('bellwether.system', true) = 'on')
    WITH CHECK (current_setting('bellwether.system', true) = 'on');
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY api_keys_system ON api_keys
    USING (current_setting('bellwether.system', true) = 'on')
    WITH CHECK (current_setting('bellwether.system', true) = 'on');
ALTER TABLE leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE leases FORCE ROW LEVEL SECURITY;
CREATE POLICY leases_system ON leases
    USING (current_setting('bellwether.system', true) = 'on')
    WITH CHECK (current_setting('bellwether.system', true) = 'on');
