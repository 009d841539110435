//! The rows, as the rest of the house sees them. Sealed fields are opaque here: the engine sealed them before the
//! transaction and opens them after it.

use bellwether_model::device::{CertificateState, ChallengePurpose, ChallengeState, IdentityState};
use bellwether_model::permit::Grants;
use bellwether_model::{
    ApiKeyId, AuditId, AuthorityId, CertificateId, ChallengeId, ChannelId, ChannelKind, CommandId,
    CommandState, DeliveryId, DeviceId, EnrollmentAccountId, EnrollmentId, EnrollmentState, EventId,
    EventKind, Guarantee, IdentityId, InvitationId, InvitationState, JobId, Lane, Outcome, Ownership,
    PackageId, PackageKind, PartId, PartState, PersonId, Platform, SiteId, Timestamp,
};

/// Bytes that only the engine can open.
pub type Sealed = Vec<u8>;

/// A customer of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Its id.
    pub id: SiteId,
    /// Shown to admins.
    pub name: String,
    /// Its sealing key, wrapped by the master key.
    pub wrapped_key: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A device CA of a site. Unique over the whole server by `id`.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// Opaque name in `/scep/{ca}`.
    pub id: AuthorityId,
    /// Certificate, DER.
    pub certificate: Vec<u8>,
    /// Private key, sealed.
    pub key: Sealed,
    /// When it was made.
    pub created_at: Timestamp,
    /// No longer issues since.
    pub retired_at: Option<Timestamp>,
}

/// Somebody who uses devices. `account` is unique in a site, compared in lower case; so is `directory_id`, if there is
/// one.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Id.
    pub id: PersonId,
    /// E-mail or login name, lower case.
    pub account: String,
    /// Shown to admins.
    pub name: Option<String>,
    /// When first named.
    pub created_at: Timestamp,
    /// Who this is in a directory, such as `entra:{tenant}:{object id}`: unlike the account it is never given to
    /// somebody else.
    pub directory_id: Option<String>,
}

/// What a person holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Invitation {
    /// Id.
    pub id: InvitationId,
    /// For which dialect.
    pub platform: Platform,
    /// For whom.
    pub person_id: Option<PersonId>,
    /// Only for this device (re-enrollment rule c), by hardware id.
    pub device_id: Option<DeviceId>,
    /// Keyed hash of the link's secret (at least 128 bits). Unique over the server.
    pub code_hash: Vec<u8>,
    /// Keyed hash of the typed short code (at least 40 bits). Unique over the server.
    pub short_hash: Option<Vec<u8>>,
    /// Wrong or right uses of the short code so far.
    pub attempts: i32,
    /// Uses after which the short code is dead.
    pub attempt_cap: i32,
    /// The device can never be pushed.
    pub test_only: bool,
    /// Profiles are handed out without a signature.
    pub unsigned: bool,
    /// Whose device it will be.
    pub ownership: Ownership,
    /// State.
    pub state: InvitationState,
    /// When made.
    pub created_at: Timestamp,
    /// By whom (actor text).
    pub created_by: String,
    /// Refused from then on.
    pub expires_at: Timestamp,
    /// When its enrollment was activated or it was revoked.
    pub closed_at: Option<Timestamp>,
    /// The enrollment it led to.
    pub enrollment_id: Option<EnrollmentId>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    /// Id.
    pub id: ChallengeId,
    /// Hash of the secret in the profile. Unique over the server.
    pub secret_hash: Vec<u8>,
    /// First identity, renewal, or a certificate that is no identity.
    pub purpose: ChallengePurpose,
    /// Minted by this invitation …
    pub invitation_id: Option<InvitationId>,
    /// … or for this enrollment: its renewal, or a certificate.
    pub enrollment_id: Option<EnrollmentId>,
    /// State.
    pub state: ChallengeState,
    /// SHA-256 of the CSR it is bound to.
    pub csr_hash: Option<Vec<u8>>,
    /// What was issued for that CSR.
    pub identity_id: Option<IdentityId>,
    /// When minted.
    pub created_at: Timestamp,
    /// Refused from then on.
    pub expires_at: Timestamp,
    /// The name under which a certificate was asked for; none for identities.
    pub requested: Option<String>,
}

/// A device's certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Id.
    pub id: IdentityId,
    /// Issued by.
    pub authority_id: AuthorityId,
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 of the DER. Unique over the server.
    pub fingerprint: Vec<u8>,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key_hash: Vec<u8>,
    /// DER.
    pub certificate: Vec<u8>,
    /// Subject CN.
    pub common_name: String,
    /// Validity.
    pub not_before: Timestamp,
    /// Validity.
    pub not_after: Timestamp,
    /// State.
    pub state: IdentityState,
    /// Asked for through this challenge (SCEP renewal by the old key has none).
    pub challenge_id: Option<ChallengeId>,
    /// The invitation behind the challenge.
    pub invitation_id: Option<InvitationId>,
    /// Pinned to, or issued for the renewal of.
    pub enrollment_id: Option<EnrollmentId>,
    /// When recorded.
    pub issued_at: Timestamp,
    /// When revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why revoked.
    pub revoked_reason: Option<String>,
}

/// The physical thing, by what it reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Id.
    pub id: DeviceId,
    /// Dialect.
    pub platform: Platform,
    /// UDID, EnrollmentID, hardware hash: opaque, at most 256 bytes. Unique per (site, platform) among proven devices.
    pub hardware_id: String,
    /// Claims to be this other device, unproven (rule d). An unproven device never shares its row.
    pub claims_device_id: Option<DeviceId>,
    /// Serial number.
    pub serial: Option<String>,
    /// Product (`iPhone15,3`).
    pub product: Option<String>,
    /// Model name.
    pub model: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Build.
    pub os_build: Option<String>,
    /// Supervised, when it has said so.
    pub supervised: Option<bool>,
    /// Whose.
    pub ownership: Ownership,
    /// When first seen.
    pub created_at: Timestamp,
}

/// One period of trust.
#[derive(Clone, Debug, PartialEq)]
pub struct Enrollment {
    /// Id.
    pub id: EnrollmentId,
    /// Of this device.
    pub device_id: DeviceId,
    /// Counts a device's enrollments from 1.
    pub epoch: i32,
    /// Dialect.
    pub platform: Platform,
    /// State.
    pub state: EnrollmentState,
    /// Apple user enrollment (no UDID, no serial).
    pub user_enrollment: bool,
    /// Invited by.
    pub invitation_id: Option<InvitationId>,
    /// For whom.
    pub person_id: Option<PersonId>,
    /// The pinned, live identity.
    pub identity_id: IdentityId,
    /// A renewal that was seen in Authenticate and not proven yet.
    pub staged_identity_id: Option<IdentityId>,
    /// Push topic.
    pub topic: Option<String>,
    /// Can never be pushed.
    pub test_only: bool,
    /// In Setup Assistant, waiting for DeviceConfigured.
    pub awaiting_configuration: bool,
    /// When Authenticate was accepted.
    pub started_at: Timestamp,
    /// When the first TokenUpdate came.
    pub activated_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Why.
    pub end_reason: Option<String>,
    /// Batched, see [`crate::Tx::touch_enrollments`].
    pub last_seen_at: Option<Timestamp>,
}

/// A stream of commands inside an enrollment.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Id.
    pub id: ChannelId,
    /// Of.
    pub enrollment_id: EnrollmentId,
    /// Device or user.
    pub kind: ChannelKind,
    /// Empty for the device channel; the user's id, or a Shared iPad's short name. Unique per enrollment and kind.
    pub user_key: String,
    /// The user's short name, to show.
    pub user_name: Option<String>,
    /// Takes commands.
    pub enabled: bool,
    /// Push token, sealed.
    pub push_token: Option<Sealed>,
    /// Push magic, sealed.
    pub push_magic: Option<Sealed>,
    /// The push service retired the token (410).
    pub push_dead: bool,
    /// Last sequence number given out.
    pub last_seq: i64,
    /// How many TokenUpdates.
    pub token_updates: i32,
    /// The device's last word was NotNow: it will call by itself.
    pub last_was_not_now: bool,
    /// When a wake is due.
    pub wake_due_at: Option<Timestamp>,
    /// Wakes since the device last called.
    pub wake_attempts: i32,
    /// When a wake was last accepted by the push service.
    pub woken_at: Option<Timestamp>,
    /// What the push service said last, in words.
    pub wake_note: Option<String>,
}

/// A command to insert, with its parts already planned by the platform's room.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCommand {
    /// Id, made by the caller (so that a retry of the transaction makes no second one).
    pub id: CommandId,
    /// For.
    pub enrollment_id: EnrollmentId,
    /// Through.
    pub channel_id: ChannelId,
    /// Intent kind.
    pub kind: String,
    /// Lane.
    pub lane: Lane,
    /// Guarantee.
    pub guarantee: Guarantee,
    /// The whole intent, sealed. Empty when the job holds it.
    pub intent: Sealed,
    /// Of this job.
    pub job_id: Option<JobId>,
    /// Same key waiting = same command (Q9).
    pub coalesce_key: Option<String>,
    /// Held for this reason; not offered until released.
    pub held_reason: Option<String>,
    /// Not offered before.
    pub not_before: Option<Timestamp>,
    /// Ends as expired then.
    pub expires_at: Timestamp,
    /// When accepted.
    pub created_at: Timestamp,
    /// By whom (actor text).
    pub created_by: String,
    /// Its parts in order: (wire id, request type).
    pub parts: Vec<(PartId, String)>,
}

/// What became of an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// A new row with this sequence number.
    New(i64),
    /// The same thing already waits (Q9).
    Coalesced(CommandId),
}

/// A command as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Id.
    pub id: CommandId,
    /// For.
    pub enrollment_id: EnrollmentId,
    /// Of this device (joined).
    pub device_id: DeviceId,
    /// Through.
    pub channel_id: ChannelId,
    /// Order within the channel.
    pub seq: i64,
    /// Intent kind.
    pub kind: String,
    /// Lane.
    pub lane: Lane,
    /// Guarantee.
    pub guarantee: Guarantee,
    /// Intent, sealed (empty: see the job).
    pub intent: Sealed,
    /// Of this job.
    pub job_id: Option<JobId>,
    /// State.
    pub state: CommandState,
    /// Why it waits or how it ended, in words for an admin.
    pub note: Option<String>,
    /// Not offered before.
    pub not_before: Option<Timestamp>,
    /// Ends as expired then.
    pub expires_at: Timestamp,
    /// When accepted.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// First hand-over.
    pub first_sent_at: Option<Timestamp>,
    /// When it reached a terminal state.
    pub finished_at: Option<Timestamp>,
}

/// One part of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Id on the wire.
    pub id: PartId,
    /// Of.
    pub command_id: CommandId,
    /// Order inside the command.
    pub ordinal: i32,
    /// The platform's name of the request (`DeviceLock`).
    pub request: String,
    /// State.
    pub state: PartState,
    /// Wire bytes as first sent, sealed; frozen for every resend.
    pub wire: Option<Sealed>,
    /// Deliveries so far.
    pub sends: i32,
    /// When last handed over.
    pub last_sent_at: Option<Timestamp>,
    /// How often NotNow.
    pub not_now: i32,
    /// Not offered before (back-off after NotNow or after unanswered deliveries).
    pub not_before: Option<Timestamp>,
    /// The device's answer, sealed.
    pub answer: Option<Sealed>,
    /// The device's error, as JSON, for admins.
    pub error: Option<String>,
    /// Terminal since.
    pub finished_at: Option<Timestamp>,
}

/// The part that a channel should be offered next.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its command.
    pub command: Command,
    /// The part.
    pub part: Part,
    /// It is already in the channel's open delivery: send the same bytes again.
    pub resend_of: Option<DeliveryId>,
}

/// How a poll sees the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Peek {
    /// Now.
    pub now: Timestamp,
    /// The poll carries answers to these parts, which are about to be recorded.
    pub answering: Vec<PartId>,
    /// The device's report is NotNow: parts that said NotNow within the last two
    /// minutes, which is this session, are not offered (Q7).
    pub skip_not_now: bool,
}

/// What the queue tolerates before a part is parked (Q8).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueRules {
    /// Unanswered hand-overs after which a part is parked.
    pub max_sends: i32,
    /// How long a parked part waits.
    pub park_for: i64,
    /// How long a NotNow part waits when the device calls by itself, times its count up to 8. Zero: at once.
    pub not_now_pause: i64,
    /// How long `until-silent` commands wait between two hand-overs.
    pub silent_pause: i64,
    /// How long `accepted` may last.
    pub accepted_for: i64,
}

/// A command that a quarantine withholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Id.
    pub id: CommandId,
    /// For.
    pub device_id: DeviceId,
    /// In the queue of.
    pub channel_id: ChannelId,
    /// Intent kind.
    pub kind: String,
    /// When accepted.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// What an answer did.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The verdict (Q4, Q17).
    pub verdict: bellwether_model::lifecycle::AnswerVerdict,
    /// The part's command, when known on this channel.
    pub command: Option<Command>,
    /// The command's state before.
    pub before: Option<CommandState>,
    /// The part's request, when known.
    pub request: Option<String>,
}

/// What became of a cancel (Q12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It was not sent: cancelled.
    Done,
    /// It was handed over already; it stays.
    AlreadySent(CommandState),
    /// It had ended.
    AlreadyOver(CommandState),
    /// No such command in this site.
    NotFound,
}

/// One admin action on many devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Id.
    pub id: JobId,
    /// Intent kind.
    pub kind: String,
    /// The whole intent, sealed, once for all.
    pub intent: Sealed,
    /// Device ids, 16 bytes each, in the order they are worked off.
    pub targets: Vec<u8>,
    /// How many of them are worked off.
    pub done: i32,
    /// How many of those made no command (refused by the platform, not enrolled …).
    pub refused: i32,
    /// When accepted.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When the last target was worked off.
    pub finished_at: Option<Timestamp>,
}

/// What a protocol remembers between two requests of an identity: its account, an open session. Opaque here.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtocolState {
    /// Of.
    pub identity_id: IdentityId,
    /// What: `account`, `session:<id>`.
    pub key: String,
    /// Sealed.
    pub value: Sealed,
    /// Counts writes from 1: who read another version must look again.
    pub version: i64,
    /// When last written.
    pub touched_at: Timestamp,
}

/// A certificate that a device uses elsewhere. It is in no table that tells devices apart: it opens nothing here.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// Id.
    pub id: CertificateId,
    /// Issued by.
    pub authority_id: AuthorityId,
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 of the DER.
    pub fingerprint: Vec<u8>,
    /// DER.
    pub certificate: Vec<u8>,
    /// Of.
    pub enrollment_id: EnrollmentId,
    /// Asked for with this challenge.
    pub challenge_id: ChallengeId,
    /// The name under which an administrator asked for it.
    pub requested: String,
    /// Subject CN.
    pub common_name: String,
    /// Validity.
    pub not_before: Timestamp,
    /// Validity.
    pub not_after: Timestamp,
    /// State.
    pub state: CertificateState,
    /// When recorded.
    pub issued_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why.
    pub revoked_reason: Option<String>,
}

/// A name and a password with which several devices may enroll (provisioning packages).
#[derive(Clone, Debug, PartialEq)]
pub struct EnrollmentAccount {
    /// Id.
    pub id: EnrollmentAccountId,
    /// For which dialect.
    pub platform: Platform,
    /// What is typed as the user's name.
    pub name: String,
    /// Keyed hash of the password (160 random bits). Unique over the server.
    pub secret_hash: Vec<u8>,
    /// For whom its devices are.
    pub person_id: Option<PersonId>,
    /// Most devices that may enroll.
    pub cap: i32,
    /// Whose devices they will be.
    pub ownership: Ownership,
    /// When made.
    pub created_at: Timestamp,
    /// By whom (actor text).
    pub created_by: String,
    /// Refused from then on.
    pub expires_at: Timestamp,
    /// Refused since.
    pub revoked_at: Option<Timestamp>,
}

/// An uploaded file that devices may install. Its bytes are chunks under their hash.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// Id.
    pub id: PackageId,
    /// What kind of file.
    pub kind: PackageKind,
    /// Shown to admins.
    pub name: String,
    /// Product code of an MSI, package family name of an MSIX.
    pub product: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of all bytes.
    pub sha256: Vec<u8>,
    /// Bytes.
    pub size: i64,
    /// When uploaded.
    pub created_at: Timestamp,
    /// By whom (actor text).
    pub created_by: String,
}

/// An enrollment may fetch a package. Deleted with the package, or when its time is over.
#[derive(Clone, Debug, PartialEq)]
pub struct PackageGrant {
    /// Keyed hash of the token in the URL. Unique over the server.
    pub token_hash: Vec<u8>,
    /// What.
    pub package_id: PackageId,
    /// Who.
    pub enrollment_id: EnrollmentId,
    /// Since.
    pub created_at: Timestamp,
    /// Until.
    pub expires_at: Timestamp,
}

/// One file that an enrollment may send us, or has sent. Deleted with its command.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// Told to send it by this part.
    pub part_id: PartId,
    /// Of this command.
    pub command_id: CommandId,
    /// Who.
    pub enrollment_id: EnrollmentId,
    /// Keyed hash of the token in the URL. Unique over the server.
    pub token_hash: Vec<u8>,
    /// Since.
    pub created_at: Timestamp,
    /// Until when it may begin.
    pub expires_at: Timestamp,
    /// The attempt whose pieces count; none: nothing is kept.
    pub attempt: Option<Vec<u8>>,
    /// Bytes that are set aside for the attempt; of a received upload its size.
    pub size: i64,
    /// Of the whole file, once it is received.
    pub sha256: Option<Vec<u8>>,
    /// When it was whole. From then on the token is used.
    pub received_at: Option<Timestamp>,
}

/// A kept secret of an enrollment: unlock token, bootstrap token, lock PIN …
#[derive(Clone, Debug, PartialEq)]
pub struct Escrow {
    /// Of.
    pub enrollment_id: EnrollmentId,
    /// What (`unlock-token`, `bootstrap-token`, `lock-pin:<part id>`).
    pub field: String,
    /// Sealed.
    pub value: Sealed,
    /// When stored.
    pub stored_at: Timestamp,
}

/// An audit entry before the sealer has seen it, or after.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Id.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// Who (actor text).
    pub actor: String,
    /// What.
    pub kind: EventKind,
    /// On what (`device:<id>`).
    pub target: String,
    /// From where, when known.
    pub source: Option<String>,
    /// SHA-256 of `details`; stays when they are erased.
    pub details_digest: Vec<u8>,
    /// JSON without secrets; may be erased later.
    pub details: Option<String>,
    /// Given by the sealer: 1, 2, 3 … per site.
    pub position: Option<i64>,
    /// Given by the sealer: HMAC over the entry and the previous one's HMAC.
    pub chain: Option<Vec<u8>>,
}

/// A signed statement about the chain's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Position of the last entry it covers.
    pub position: i64,
    /// That entry's HMAC.
    pub chain: Vec<u8>,
    /// When.
    pub at: Timestamp,
    /// Ed25519 over position, chain and time.
    pub signature: Vec<u8>,
}

/// An outbox row.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Id.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// About (`device:<id>`).
    pub subject: String,
    /// JSON without secrets.
    pub data: String,
    /// Given by the sealer.
    pub position: Option<i64>,
}

/// An API key. Server-wide row; its grants say where it may act.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    /// Id.
    pub id: ApiKeyId,
    /// Shown to admins.
    pub name: String,
    /// First characters of the key, to recognise it.
    pub prefix: String,
    /// Keyed hash of the key (256 random bits).
    pub hash: Vec<u8>,
    /// What it may do.
    pub grants: Grants,
    /// When made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Refused from then on.
    pub expires_at: Timestamp,
    /// Refused since.
    pub revoked_at: Option<Timestamp>,
    /// Batched.
    pub last_used_at: Option<Timestamp>,
}

/// A push certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct PushCert {
    /// Topic.
    pub topic: String,
    /// Leaf and chain, PEM.
    pub certificate: String,
    /// Private key, sealed.
    pub key: Sealed,
    /// Validity.
    pub not_before: Timestamp,
    /// Validity.
    pub not_after: Timestamp,
    /// When imported.
    pub imported_at: Timestamp,
    /// Counts imports of this topic: a node that sees a newer one reconnects.
    pub version: i32,
}

/// A stored answer to a request with an Idempotency-Key (Q2).
#[derive(Clone, Debug, PartialEq)]
pub struct Idempotent {
    /// Hash of actor and key.
    pub key_hash: Vec<u8>,
    /// Hash of method, path and body: the same key with another request is an error.
    pub request_hash: Vec<u8>,
    /// HTTP status.
    pub status: i32,
    /// Body, sealed.
    pub body: Sealed,
    /// When.
    pub created_at: Timestamp,
}

/// One page of a list, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Rows after this key (the last row's sort key of the page before).
    pub after: Option<Vec<u8>>,
    /// At most so many.
    pub limit: i64,
}

/// Which devices to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceFilter {
    /// Exact, case-insensitive serial, hardware id or part of a name.
    pub search: Option<String>,
    /// Dialect.
    pub platform: Option<Platform>,
    /// State of the newest enrollment.
    pub state: Option<EnrollmentState>,
}

/// Which commands to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandFilter {
    /// Of this device (any epoch).
    pub device_id: Option<DeviceId>,
    /// In this state.
    pub state: Option<CommandState>,
    /// Of this job.
    pub job_id: Option<JobId>,
}

/// Everything the device edge must know about a certificate, in one look-up.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownIdentity {
    /// The site.
    pub site_id: SiteId,
    /// The certificate.
    pub identity: Identity,
    /// The enrollment it belongs to, if any.
    pub enrollment: Option<Enrollment>,
    /// That enrollment's device.
    pub device: Option<Device>,
}

/// A channel that should be woken, with what the waker needs.
#[derive(Clone, Debug, PartialEq)]
pub struct DueWake {
    /// Site.
    pub site_id: SiteId,
    /// Channel.
    pub channel: Channel,
    /// Dialect.
    pub platform: Platform,
    /// Topic.
    pub topic: Option<String>,
    /// Never to be pushed.
    pub test_only: bool,
}

/// What a device said about a part.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The word.
    pub outcome: Outcome,
    /// The whole answer, sealed.
    pub answer: Option<Sealed>,
    /// The device's error, as JSON, for admins.
    pub error: Option<String>,
}

/// What became of a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// The parts may leave after COMMIT.
    Done {
        /// The delivery they belong to: the given one, or the open one when they are sent again.
        delivery: DeliveryId,
        /// They were sent before and had no answer.
        resent: bool,
    },
    /// They are no longer what the channel should get (cancelled, overtaken, answered): peek again.
    Moved,
}

/// How the queues stand, over all sites.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueStats {
    /// How many commands are in each state that is not terminal.
    pub waiting: Vec<(CommandState, i64)>,
    /// When the oldest of them was accepted.
    pub oldest_at: Option<Timestamp>,
    /// Deliveries without an answer.
    pub open_deliveries: i64,
}

/// What a wake brought.
#[derive(Clone, Debug, PartialEq)]
pub struct WakeResult {
    /// When to try again; `None`: not by itself.
    pub next_due: Option<Timestamp>,
    /// Wakes since the device last called.
    pub attempts: i32,
    /// When the push service accepted one; `None` leaves the older time.
    pub woken_at: Option<Timestamp>,
    /// What the push service said, in words.
    pub note: Option<String>,
    /// The push service retired the token.
    pub dead: bool,
}
