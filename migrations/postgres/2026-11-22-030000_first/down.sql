-- Undo of the first schema: everything is lost.
DROP TABLE sites, server_settings, site_settings, authorities, people, devices, invitations, challenges, identities, enrollments, channels, escrow, facts, jobs, commands, parts, deliveries, delivery_parts, audit, audit_checkpoints, events, push_certs, api_keys, idempotency, rates, leases CASCADE;
