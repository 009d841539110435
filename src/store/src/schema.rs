//! The tables, once for both backends. A test compares this, and both migrations, with each other.

diesel::table! {
    sites (id) {
        id -> Binary,
        name -> Text,
        wrapped_key -> Binary,
        created_at -> BigInt,
    }
}

diesel::table! {
    server_settings (key) {
        key -> Text,
        value -> Binary,
    }
}

diesel::table! {
    site_settings (site_id, key) {
        site_id -> Binary,
        key -> Text,
        value -> Binary,
    }
}

diesel::table! {
    authorities (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        certificate -> Binary,
        key -> Binary,
        created_at -> BigInt,
        retired_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    people (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        account -> Text,
        name -> Nullable<Text>,
        created_at -> BigInt,
        directory_id -> Nullable<Text>,
    }
}

diesel::table! {
    devices (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        platform -> Text,
        hardware_id -> Text,
        claims_device_id -> Nullable<Binary>,
        serial -> Nullable<Text>,
        product -> Nullable<Text>,
        model -> Nullable<Text>,
        name -> Nullable<Text>,
        os_version -> Nullable<Text>,
        os_build -> Nullable<Text>,
        supervised -> Nullable<Bool>,
        ownership -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    invitations (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        platform -> Text,
        person_id -> Nullable<Binary>,
        device_id -> Nullable<Binary>,
        code_hash -> Binary,
        short_hash -> Nullable<Binary>,
        attempts -> Integer,
        attempt_cap -> Integer,
        test_only -> Bool,
        unsigned -> Bool,
        ownership -> Text,
        state -> Text,
        created_at -> BigInt,
        created_by -> Text,
        expires_at -> BigInt,
        closed_at -> Nullable<BigInt>,
        enrollment_id -> Nullable<Binary>,
    }
}

diesel::table! {
    challenges (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        secret_hash -> Binary,
        purpose -> Text,
        invitation_id -> Nullable<Binary>,
        enrollment_id -> Nullable<Binary>,
        state -> Text,
        csr_hash -> Nullable<Binary>,
        identity_id -> Nullable<Binary>,
        created_at -> BigInt,
        expires_at -> BigInt,
        requested -> Nullable<Text>,
    }
}

diesel::table! {
    identities (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        authority_id -> Binary,
        serial -> Text,
        fingerprint -> Binary,
        key_hash -> Binary,
        certificate -> Binary,
        common_name -> Text,
        not_before -> BigInt,
        not_after -> BigInt,
        state -> Text,
        challenge_id -> Nullable<Binary>,
        invitation_id -> Nullable<Binary>,
        enrollment_id -> Nullable<Binary>,
        issued_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
        revoked_reason -> Nullable<Text>,
    }
}

diesel::table! {
    enrollments (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        device_id -> Binary,
        epoch -> Integer,
        platform -> Text,
        state -> Text,
        user_enrollment -> Bool,
        invitation_id -> Nullable<Binary>,
        person_id -> Nullable<Binary>,
        identity_id -> Binary,
        staged_identity_id -> Nullable<Binary>,
        topic -> Nullable<Text>,
        test_only -> Bool,
        awaiting_configuration -> Bool,
        started_at -> BigInt,
        activated_at -> Nullable<BigInt>,
        ended_at -> Nullable<BigInt>,
        end_reason -> Nullable<Text>,
        last_seen_at -> Nullable<BigInt>,
        newest -> Bool,
    }
}

diesel::table! {
    channels (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        enrollment_id -> Binary,
        kind -> Text,
        user_key -> Text,
        user_name -> Nullable<Text>,
        enabled -> Bool,
        push_token -> Nullable<Binary>,
        push_magic -> Nullable<Binary>,
        push_dead -> Bool,
        last_seq -> BigInt,
        token_updates -> Integer,
        last_was_not_now -> Bool,
        wake_due_at -> Nullable<BigInt>,
        wake_attempts -> Integer,
        woken_at -> Nullable<BigInt>,
        wake_note -> Nullable<Text>,
    }
}

diesel::table! {
    escrow (site_id, enrollment_id, field) {
        site_id -> Binary,
        enrollment_id -> Binary,
        field -> Text,
        value -> Binary,
        stored_at -> BigInt,
    }
}

diesel::table! {
    facts (site_id, device_id, key) {
        site_id -> Binary,
        device_id -> Binary,
        key -> Text,
        value -> Text,
        reported_at -> BigInt,
    }
}

diesel::table! {
    jobs (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        kind -> Text,
        intent -> Binary,
        targets -> Binary,
        done -> Integer,
        refused -> Integer,
        created_at -> BigInt,
        created_by -> Text,
        finished_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    commands (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        enrollment_id -> Binary,
        device_id -> Binary,
        channel_id -> Binary,
        seq -> BigInt,
        kind -> Text,
        lane -> Text,
        guarantee -> Text,
        intent -> Binary,
        job_id -> Nullable<Binary>,
        waiting_key -> Nullable<Text>,
        state -> Text,
        pending_lane -> Nullable<Integer>,
        note -> Nullable<Text>,
        not_before -> Nullable<BigInt>,
        expires_at -> BigInt,
        ends_at -> BigInt,
        created_at -> BigInt,
        created_by -> Text,
        first_sent_at -> Nullable<BigInt>,
        finished_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    parts (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        command_id -> Binary,
        ordinal -> Integer,
        request -> Text,
        state -> Text,
        wire -> Nullable<Binary>,
        sends -> Integer,
        last_sent_at -> Nullable<BigInt>,
        not_now -> Integer,
        not_before -> Nullable<BigInt>,
        answer -> Nullable<Binary>,
        error -> Nullable<Text>,
        finished_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    deliveries (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        channel_id -> Binary,
        opened_at -> BigInt,
        closed_at -> Nullable<BigInt>,
        close_reason -> Nullable<Text>,
    }
}

diesel::table! {
    delivery_parts (site_id, delivery_id, part_id) {
        site_id -> Binary,
        delivery_id -> Binary,
        part_id -> Binary,
        answered_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    audit (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        at -> BigInt,
        actor -> Text,
        kind -> Text,
        target -> Text,
        source -> Nullable<Text>,
        details_digest -> Binary,
        details -> Nullable<Text>,
        position -> Nullable<BigInt>,
        chain -> Nullable<Binary>,
    }
}

diesel::table! {
    audit_checkpoints (site_id, position) {
        site_id -> Binary,
        position -> BigInt,
        chain -> Binary,
        at -> BigInt,
        signature -> Binary,
    }
}

diesel::table! {
    events (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        at -> BigInt,
        kind -> Text,
        subject -> Text,
        data -> Text,
        position -> Nullable<BigInt>,
    }
}

diesel::table! {
    push_certs (site_id, topic) {
        site_id -> Binary,
        topic -> Text,
        certificate -> Text,
        key -> Binary,
        not_before -> BigInt,
        not_after -> BigInt,
        imported_at -> BigInt,
        version -> Integer,
    }
}

diesel::table! {
    api_keys (id) {
        id -> Binary,
        name -> Text,
        prefix -> Text,
        hash -> Binary,
        grants -> Text,
        created_at -> BigInt,
        created_by -> Text,
        expires_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
        last_used_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    idempotency (key_hash) {
        key_hash -> Binary,
        request_hash -> Binary,
        status -> Integer,
        body -> Binary,
        created_at -> BigInt,
    }
}

diesel::table! {
    rates (bucket) {
        bucket -> Text,
        window_start -> BigInt,
        count -> Integer,
    }
}

diesel::table! {
    leases (name) {
        name -> Text,
        holder -> Text,
        expires_at -> BigInt,
    }
}

diesel::table! {
    protocol_states (site_id, identity_id, key) {
        site_id -> Binary,
        identity_id -> Binary,
        key -> Text,
        value -> Binary,
        version -> BigInt,
        touched_at -> BigInt,
    }
}

diesel::table! {
    enrollment_accounts (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        platform -> Text,
        name -> Text,
        secret_hash -> Binary,
        person_id -> Nullable<Binary>,
        cap -> Integer,
        ownership -> Text,
        created_at -> BigInt,
        created_by -> Text,
        expires_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    enrollment_account_uses (site_id, account_id, invitation_id) {
        site_id -> Binary,
        account_id -> Binary,
        invitation_id -> Binary,
        claim -> Text,
    }
}

diesel::table! {
    applied_settings (site_id, enrollment_id, setting) {
        site_id -> Binary,
        enrollment_id -> Binary,
        setting -> Text,
        digest -> Binary,
        applied_at -> BigInt,
    }
}

diesel::table! {
    packages (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        kind -> Text,
        name -> Text,
        product -> Text,
        version -> Text,
        sha256 -> Binary,
        size -> BigInt,
        created_at -> BigInt,
        created_by -> Text,
    }
}

diesel::table! {
    package_chunks (site_id, sha256, ordinal) {
        site_id -> Binary,
        sha256 -> Binary,
        ordinal -> Integer,
        bytes -> Binary,
        created_at -> BigInt,
    }
}

diesel::table! {
    package_grants (site_id, token_hash) {
        site_id -> Binary,
        token_hash -> Binary,
        package_id -> Binary,
        enrollment_id -> Binary,
        created_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    certificates (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        authority_id -> Binary,
        serial -> Text,
        fingerprint -> Binary,
        certificate -> Binary,
        enrollment_id -> Binary,
        challenge_id -> Binary,
        requested -> Text,
        common_name -> Text,
        not_before -> BigInt,
        not_after -> BigInt,
        state -> Text,
        issued_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
        revoked_reason -> Nullable<Text>,
    }
}

diesel::table! {
    uploads (site_id, part_id) {
        site_id -> Binary,
        part_id -> Binary,
        command_id -> Binary,
        enrollment_id -> Binary,
        token_hash -> Binary,
        created_at -> BigInt,
        expires_at -> BigInt,
        attempt -> Nullable<Binary>,
        size -> BigInt,
        sha256 -> Nullable<Binary>,
        received_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    upload_pieces (site_id, part_id, attempt, ordinal) {
        site_id -> Binary,
        part_id -> Binary,
        attempt -> Binary,
        ordinal -> Integer,
        bytes -> Binary,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    sites,
    server_settings,
    site_settings,
    authorities,
    people,
    devices,
    invitations,
    challenges,
    identities,
    enrollments,
    channels,
    escrow,
    facts,
    jobs,
    commands,
    parts,
    deliveries,
    delivery_parts,
    audit,
    audit_checkpoints,
    events,
    push_certs,
    api_keys,
    idempotency,
    rates,
    leases,
    protocol_states,
    enrollment_accounts,
    enrollment_account_uses,
    applied_settings,
    packages,
    package_chunks,
    package_grants,
    certificates,
    uploads,
    upload_pieces,
);
