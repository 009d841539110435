//! The JSON of the API: the engine's views with ids as text and times as RFC 3339.

use crate::clock::rfc3339;
use bellwether_engine as engine;
use bellwether_model::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct Page<T> {
    /// Rows.
    pub items: Vec<T>,
    /// `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// From the engine's list.
    pub fn of<V: Into<T>>(list: engine::Listed<V>) -> Self {
        Self {
            items: list.items.into_iter().map(Into::into).collect(),
            next: super::input::cursor(list.next),
        }
    }
}

/// A time that may be missing.
pub(super) fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(rfc3339)
}

/// Declares a JSON view: each field with the expression that makes it from the engine's view `v`.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident from $source:ty { $($(#[$fdoc:meta])* $field:ident: $kind:ty = $make:expr),+ $(,)? } |$v:ident|) => {
        $(#[$doc])*
        #[derive(Serialize, ToSchema)]
        pub struct $name { $($(#[$fdoc])* pub $field: $kind),+ }

        impl From<$source> for $name {
            fn from($v: $source) -> Self {
                Self { $($field: $make),+ }
            }
        }
    };
}
pub(super) use view;

view!(
    /// An API key without its secret.
    Key from engine::KeyView {
        /// Id.
        id: Uuid = v.id.0,
        /// Name.
        name: String = v.name,
        /// First characters of the secret.
        prefix: String = v.prefix,
        /// `ACTION@server` or `ACTION@SITE-ID`.
        grants: Vec<String> = v.grants.0.iter().map(ToString::to_string).collect(),
        /// When made, RFC 3339.
        created_at: String = rfc3339(v.created_at),
        /// By whom.
        created_by: String = v.created_by,
        /// Until when.
        expires_at: String = rfc3339(v.expires_at),
        /// Taken back.
        revoked_at: Option<String> = time(v.revoked_at),
        /// Last use, a few seconds late.
        last_used_at: Option<String> = time(v.last_used_at),
    } |v|
);

view!(
    /// A new API key. The secret is shown once.
    NewKey from engine::NewKey {
        /// The key without its secret.
        key: Key = v.key.into(),
        /// `bw_…`.
        secret: String = v.secret.expose_secret().to_owned(),
    } |v|
);

view!(
    /// An invitation without its secrets.
    Invitation from engine::InvitationView {
        /// Id.
        id: Uuid = v.id.0,
        /// `apple`, `windows`, `android`.
        platform: String = v.platform.to_string(),
        /// For whom.
        account: Option<String> = v.account,
        /// Only this device may use it.
        device_id: Option<Uuid> = v.device_id.map(|id| id.0),
        /// Never pushed.
        test_only: bool = v.test_only,
        /// `company`, `personal`, `unknown`.
        ownership: String = v.ownership.to_string(),
        /// `open`, `activated`, `revoked`.
        state: String = v.state.to_string(),
        /// Past its time.
        expired: bool = v.expired,
        /// When made.
        created_at: String = rfc3339(v.created_at),
        /// By whom.
        created_by: String = v.created_by,
        /// Until when.
        expires_at: String = rfc3339(v.expires_at),
        /// What it led to.
        enrollment_id: Option<Uuid> = v.enrollment_id.map(|id| id.0),
    } |v|
);

view!(
    /// A new invitation. Link and code are shown once.
    NewInvitation from engine::CreatedInvitation {
        /// The invitation without its secrets.
        invitation: Invitation = v.invitation.into(),
        /// What the person opens.
        link: String = v.link.expose_secret().to_owned(),
        /// What the person can type at `/enroll` instead.
        short_code: Option<String> = v.short_code.map(|code| code.expose_secret().to_owned()),
    } |v|
);

view!(
    /// An account with which several devices may enroll, without its password.
    EnrollmentAccount from engine::EnrollmentAccountView {
        /// Id.
        id: Uuid = v.id.0,
        /// `windows`.
        platform: String = v.platform.to_string(),
        /// What is typed as the user's name.
        name: String = v.name,
        /// For whom.
        account: Option<String> = v.account,
        /// Most devices that may enroll.
        cap: i32 = v.cap,
        /// Devices that count against the cap: enrolled ones, and those that may still finish.
        used: i64 = v.used,
        /// `company`, `personal`, `unknown`.
        ownership: String = v.ownership.to_string(),
        /// When made.
        created_at: String = rfc3339(v.created_at),
        /// By whom.
        created_by: String = v.created_by,
        /// Until when.
        expires_at: String = rfc3339(v.expires_at),
        /// Taken back.
        revoked_at: Option<String> = time(v.revoked_at),
    } |v|
);

view!(
    /// A new account. The password is shown once.
    NewEnrollmentAccount from engine::CreatedEnrollmentAccount {
        /// The account without its password.
        account: EnrollmentAccount = v.account.into(),
        /// `bwe_…`.
        password: String = v.password.expose_secret().to_owned(),
    } |v|
);

view!(
    /// An uploaded file that devices may install.
    Package from engine::PackageView {
        /// Id.
        id: Uuid = v.id.0,
        /// `msi`, `msix`.
        kind: String = v.kind.to_string(),
        /// Name.
        name: String = v.name,
        /// Product code of an MSI, package family name of an MSIX.
        product: String = v.product,
        /// Version.
        version: String = v.version,
        /// SHA-256 in lower-case hex.
        sha256: String = v.sha256,
        /// Bytes.
        size: i64 = v.size,
        /// When uploaded.
        created_at: String = rfc3339(v.created_at),
        /// By whom.
        created_by: String = v.created_by,
    } |v|
);

view!(
    /// One period of trust between a device and the server.
    Enrollment from engine::EnrollmentView {
        /// Id.
        id: Uuid = v.id.0,
        /// Counts a device's enrollments.
        epoch: i32 = v.epoch,
        /// `pending`, `active`, `unproven`, `ended`.
        state: String = v.state.to_string(),
        /// For whom.
        account: Option<String> = v.account,
        /// Never pushed.
        test_only: bool = v.test_only,
        /// Setup Assistant waits.
        awaiting_configuration: bool = v.awaiting_configuration,
        /// First contact.
        started_at: String = rfc3339(v.started_at),
        /// Takes commands since.
        activated_at: Option<String> = time(v.activated_at),
        /// Over since.
        ended_at: Option<String> = time(v.ended_at),
        /// Why it is over.
        end_reason: Option<String> = v.end_reason,
        /// Last contact, a few seconds late.
        last_seen_at: Option<String> = time(v.last_seen_at),
        /// The identity's last day.
        identity_expires_at: Option<String> = time(v.identity_expires_at),
    } |v|
);

view!(
    /// A device.
    Device from engine::DeviceView {
        /// Id.
        id: Uuid = v.id.0,
        /// `apple`, `windows`, `android`.
        platform: String = v.platform.to_string(),
        /// UDID or the like; a claim of the device.
        hardware_id: String = v.hardware_id,
        /// Serial number; a claim of the device.
        serial: Option<String> = v.serial,
        /// Product, such as `Mac14,2`.
        product: Option<String> = v.product,
        /// Model.
        model: Option<String> = v.model,
        /// Name.
        name: Option<String> = v.name,
        /// Version of the operating system.
        os_version: Option<String> = v.os_version,
        /// Build of the operating system.
        os_build: Option<String> = v.os_build,
        /// Supervised, if known.
        supervised: Option<bool> = v.supervised,
        /// `company`, `personal`, `unknown`.
        ownership: String = v.ownership.to_string(),
        /// When first seen.
        created_at: String = rfc3339(v.created_at),
        /// It only claims to be that device: an admin must approve.
        claims_device_id: Option<Uuid> = v.claims_device_id.map(|id| id.0),
        /// Its newest enrollment.
        enrollment: Option<Enrollment> = v.enrollment.map(Into::into),
    } |v|
);

view!(
    /// A stream of commands.
    Channel from engine::ChannelView {
        /// `device` or `user`.
        kind: String = v.kind.to_string(),
        /// The user's name.
        user: Option<String> = v.user,
        /// Takes commands.
        enabled: bool = v.enabled,
        /// Can be woken.
        pushable: bool = v.pushable,
        /// What the push service said last.
        wake_note: Option<String> = v.wake_note,
        /// Waiting commands.
        pending: i64 = v.pending,
    } |v|
);

view!(
    /// One reported value.
    Fact from bellwether_model::Fact {
        /// Dotted name, such as `os.version`.
        key: String = v.key,
        /// As reported.
        value: Value = v.value,
        /// When.
        reported_at: String = rfc3339(v.reported_at),
    } |v|
);

view!(
    /// A device with everything that is known.
    DeviceDetail from engine::DeviceDetail {
        /// The device.
        device: Device = v.device.into(),
        /// All enrollments, newest first.
        enrollments: Vec<Enrollment> = v.enrollments.into_iter().map(Into::into).collect(),
        /// Channels of the newest one.
        channels: Vec<Channel> = v.channels.into_iter().map(Into::into).collect(),
        /// Facts with their ages.
        facts: Vec<Fact> = v.facts.into_iter().map(Into::into).collect(),
        /// Names of stored secrets, never their values.
        escrow: Vec<String> = v.escrow,
        /// Certificates that the newest enrollment got for use elsewhere, newest first.
        certificates: Vec<Certificate> = v.certificates.into_iter().map(Into::into).collect(),
    } |v|
);

view!(
    /// A certificate that a device got for use elsewhere, such as Wi-Fi or a VPN. It is no identity: it opens nothing here.
    Certificate from engine::CertificateView {
        /// Id.
        id: Uuid = v.id.0,
        /// The enrollment that it ends with.
        enrollment_id: Uuid = v.enrollment_id.0,
        /// The `id` of the intent that asked for it.
        requested: String = v.requested,
        /// Common name of its subject: the device's id.
        common_name: String = v.common_name,
        /// The CA that issued it, as in `/scep/{ca}` and `/crl/{ca}`.
        authority_id: Uuid = v.authority_id.0,
        /// Serial number, lower-case hex.
        serial: String = v.serial,
        /// SHA-256 of the certificate, lower-case hex.
        fingerprint: String = v.fingerprint,
        /// Valid from.
        not_before: String = rfc3339(v.not_before),
        /// Valid until.
        not_after: String = rfc3339(v.not_after),
        /// `issued`, `revoked`.
        state: String = v.state.to_string(),
        /// When issued.
        issued_at: String = rfc3339(v.issued_at),
        /// Revoked since.
        revoked_at: Option<String> = time(v.revoked_at),
        /// Why it was revoked.
        revoked_reason: Option<String> = v.revoked_reason,
    } |v|
);

view!(
    /// A command.
    Command from engine::CommandView {
        /// Id.
        id: Uuid = v.id.0,
        /// Device.
        device_id: Uuid = v.device_id.0,
        /// Enrollment.
        enrollment_id: Uuid = v.enrollment_id.0,
        /// `type` of its intent.
        kind: String = v.kind,
        /// `emergency`, `interactive`, `policy`, `inventory`.
        lane: String = v.lane.to_string(),
        /// `held`, `queued`, `sent`, `not-now`, `accepted`, `acknowledged`, `failed`, `expired`, `cancelled`, `superseded`.
        state: String = v.state.to_string(),
        /// Why it waits or how it ended.
        note: Option<String> = v.note,
        /// The job that made it.
        job_id: Option<Uuid> = v.job_id.map(|id| id.0),
        /// When accepted.
        created_at: String = rfc3339(v.created_at),
        /// By whom.
        created_by: String = v.created_by,
        /// Until when.
        expires_at: String = rfc3339(v.expires_at),
        /// First hand-over.
        first_sent_at: Option<String> = time(v.first_sent_at),
        /// Final since.
        finished_at: Option<String> = time(v.finished_at),
    } |v|
);

view!(
    /// One part of a command.
    Part from engine::PartView {
        /// Its id; Apple's `CommandUUID`.
        id: Uuid = v.id.0,
        /// The platform's name of it, such as `DeviceLock`.
        request: String = v.request,
        /// As a command's state.
        state: String = v.state.to_string(),
        /// Hand-overs.
        sends: i32 = v.sends,
        /// How often the device said "not now".
        not_now: i32 = v.not_now,
        /// The device's own error.
        error: Option<Value> = v.error,
        /// Final since.
        finished_at: Option<String> = time(v.finished_at),
    } |v|
);

view!(
    /// A command with its parts.
    CommandDetail from engine::CommandDetail {
        /// The command.
        command: Command = v.command.into(),
        /// Its parts.
        parts: Vec<Part> = v.parts.into_iter().map(Into::into).collect(),
        /// What the device sent for it, as long as it is kept.
        upload: Option<Upload> = v.upload.map(Into::into),
    } |v|
);

view!(
    /// A file that a device sent.
    Upload from engine::UploadView {
        /// Bytes.
        size: i64 = v.size,
        /// When it was whole.
        received_at: String = rfc3339(v.received_at),
        /// Lower-case hex.
        sha256: String = v.sha256,
    } |v|
);

view!(
    /// One action on many devices.
    Job from engine::JobView {
        /// Id.
        id: Uuid = v.id.0,
        /// `type` of its intent.
        kind: String = v.kind,
        /// Devices aimed at.
        total: i64 = v.total,
        /// Worked off.
        done: i32 = v.done,
        /// Of these without a command.
        refused: i32 = v.refused,
        /// When accepted.
        created_at: String = rfc3339(v.created_at),
        /// By whom.
        created_by: String = v.created_by,
        /// All commands made since.
        finished_at: Option<String> = time(v.finished_at),
    } |v|
);

view!(
    /// A stored secret, shown on purpose.
    Secret from engine::RevealedSecret {
        /// What it is, such as `lock-pin`.
        name: String = v.name,
        /// The value.
        value: String = v.value.expose_secret().to_owned(),
        /// When stored.
        stored_at: String = rfc3339(v.stored_at),
    } |v|
);

view!(
    /// A push certificate's state.
    PushCert from engine::PushCertView {
        /// Topic.
        topic: String = v.topic,
        /// Valid from.
        not_before: String = rfc3339(v.not_before),
        /// Valid until.
        not_after: String = rfc3339(v.not_after),
        /// When imported.
        imported_at: String = rfc3339(v.imported_at),
        /// Living enrollments that need it.
        enrollments: i64 = v.enrollments,
    } |v|
);

view!(
    /// A sealed audit entry.
    AuditEntry from engine::AuditView {
        /// Position in the site's chain.
        position: i64 = v.position,
        /// When.
        at: String = rfc3339(v.at),
        /// Who.
        actor: String = v.actor,
        /// What, such as `command.queued`.
        kind: String = v.kind,
        /// On what.
        target: String = v.target,
        /// From where.
        source: Option<String> = v.source,
        /// Details; null when erased.
        details: Option<Value> = v.details,
        /// HMAC of the chain, hex.
        chain: String = v.chain,
    } |v|
);

view!(
    /// An event of the outbox.
    Event from engine::EventView {
        /// Position.
        position: i64 = v.position,
        /// When.
        at: String = rfc3339(v.at),
        /// What.
        kind: String = v.kind,
        /// About.
        subject: String = v.subject,
        /// Data.
        data: Value = v.data,
    } |v|
);

view!(
    /// What the verifier of the audit found.
    AuditReport from engine::AuditReport {
        /// Whether all is good.
        intact: bool = v.broken.is_none(),
        /// Sealed entries checked.
        entries: i64 = v.entries,
        /// Entries that wait for the sealer.
        unsealed: i64 = v.unsealed,
        /// Signed checkpoints checked.
        checkpoints: i64 = v.checkpoints,
        /// Restores from backups that it went through, in words.
        restored: Vec<String> = v.restored,
        /// The first thing that is wrong.
        broken: Option<String> = v.broken,
    } |v|
);

/// What the device answered about one part of a command.
#[derive(Serialize, ToSchema)]
pub struct PartAnswer {
    /// The part.
    pub part_id: Uuid,
    /// The answer as stored: JSON where it is JSON, otherwise text.
    pub answer: Value,
}
