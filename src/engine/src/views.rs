//! What the use cases take and give. Plain data; the edge turns it into JSON, tables and pages.

use bellwether_model::device::CertificateState;
use bellwether_model::permit::Grants;
use bellwether_model::{
    ApiKeyId, AuthorityId, CertificateId, ChannelKind, CommandId, CommandState, DeviceId,
    EnrollmentAccountId, EnrollmentId, EnrollmentState, Fact, InvitationId, InvitationState, JobId, Lane,
    Ownership, PackageId, PackageKind, PartId, PartState, Platform, Timestamp,
};
use secrecy::SecretString;

/// A freshly minted API key. The secret is shown once.
#[derive(Debug)]
pub struct NewKey {
    /// The row.
    pub key: KeyView,
    /// `bw_…`, to be stored by whoever asked.
    pub secret: SecretString,
}

/// An API key without its secret.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// Id.
    pub id: ApiKeyId,
    /// Name.
    pub name: String,
    /// First characters.
    pub prefix: String,
    /// What it may do.
    pub grants: Grants,
    /// When made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// Taken back.
    pub revoked_at: Option<Timestamp>,
    /// Last use (batched).
    pub last_used_at: Option<Timestamp>,
}

/// What an admin asks for.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    /// For which dialect.
    pub platform: Platform,
    /// E-mail or login name of the person.
    pub account: Option<String>,
    /// The person's name.
    pub name: Option<String>,
    /// Only this device may use it.
    pub device_id: Option<DeviceId>,
    /// Milliseconds; 5 minutes to 30 days. `None`: 24 hours.
    pub expires_in: Option<i64>,
    /// Also make a code to type (valid for at most an hour).
    pub short_code: bool,
    /// Enroll without push.
    pub test_only: bool,
    /// Hand out unsigned profiles.
    pub unsigned: bool,
    /// Whose device.
    pub ownership: Ownership,
}

/// An invitation as admins see it: without its secrets.
#[derive(Clone, Debug)]
pub struct InvitationView {
    /// Id.
    pub id: InvitationId,
    /// Dialect.
    pub platform: Platform,
    /// For whom.
    pub account: Option<String>,
    /// Only this device.
    pub device_id: Option<DeviceId>,
    /// Never pushed.
    pub test_only: bool,
    /// Whose device.
    pub ownership: Ownership,
    /// State; an open one past its time shows `expired: true`.
    pub state: InvitationState,
    /// Past its time.
    pub expired: bool,
    /// When made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// What it led to.
    pub enrollment_id: Option<EnrollmentId>,
}

/// A new invitation with its secrets, shown once.
#[derive(Debug)]
pub struct CreatedInvitation {
    /// The row.
    pub invitation: InvitationView,
    /// `https://…/enroll/<code>`.
    pub link: SecretString,
    /// The typed code (`ABCD-EFGH-J`), when asked for.
    pub short_code: Option<SecretString>,
}

/// A wish for an account with which several devices may enroll.
#[derive(Clone, Debug)]
pub struct NewEnrollmentAccount {
    /// For which dialect.
    pub platform: Platform,
    /// What is typed as the user's name.
    pub name: String,
    /// E-mail or login of the person whose devices they will be.
    pub account: Option<String>,
    /// Most devices that may enroll.
    pub cap: i32,
    /// Milliseconds.
    pub expires_in: i64,
    /// Whose devices they will be.
    pub ownership: Ownership,
}

/// An account for many devices, without its password.
#[derive(Clone, Debug)]
pub struct EnrollmentAccountView {
    /// Id.
    pub id: EnrollmentAccountId,
    /// Dialect.
    pub platform: Platform,
    /// What is typed as the user's name.
    pub name: String,
    /// For whom.
    pub account: Option<String>,
    /// Most devices that may enroll.
    pub cap: i32,
    /// Devices that count against the cap.
    pub used: i64,
    /// Whose devices.
    pub ownership: Ownership,
    /// When made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// Taken back.
    pub revoked_at: Option<Timestamp>,
}

/// A new account with its password, shown once.
#[derive(Debug)]
pub struct CreatedEnrollmentAccount {
    /// The row.
    pub account: EnrollmentAccountView,
    /// `bwe_…`.
    pub password: SecretString,
}

/// A package of the package store.
#[derive(Clone, Debug)]
pub struct PackageView {
    /// Id.
    pub id: PackageId,
    /// What kind of file.
    pub kind: PackageKind,
    /// Name.
    pub name: String,
    /// Product code of an MSI, package family name of an MSIX.
    pub product: String,
    /// Version.
    pub version: String,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: i64,
    /// When uploaded.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// What the page behind a link shows before anything is minted.
#[derive(Clone, Debug)]
pub struct OpenInvitation {
    /// Dialect.
    pub platform: Platform,
    /// The organisation's name.
    pub organization: String,
    /// The person's name or account, if any.
    pub person: Option<String>,
    /// The person's account: what a Windows machine asks for as user name.
    pub account: Option<String>,
    /// Until when.
    pub expires_at: Timestamp,
    /// Never pushed.
    pub test_only: bool,
}

/// A profile for the device that asked by POST.
#[derive(Clone)]
pub struct EnrollmentFile {
    /// Bytes.
    pub bytes: Vec<u8>,
    /// `enroll.mobileconfig`.
    pub file_name: &'static str,
    /// `application/x-apple-aspen-config`.
    pub content_type: &'static str,
}

impl std::fmt::Debug for EnrollmentFile {
    /// The profile carries a challenge: its length only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EnrollmentFile({}, {} bytes)", self.file_name, self.bytes.len())
    }
}

/// A device in a list.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// Id.
    pub id: DeviceId,
    /// Dialect.
    pub platform: Platform,
    /// UDID or the like.
    pub hardware_id: String,
    /// Serial.
    pub serial: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// OS version.
    pub os_version: Option<String>,
    /// OS build.
    pub os_build: Option<String>,
    /// Supervised, if known.
    pub supervised: Option<bool>,
    /// Whose.
    pub ownership: Ownership,
    /// When first seen.
    pub created_at: Timestamp,
    /// It only claims to be that device.
    pub claims_device_id: Option<DeviceId>,
    /// Its newest enrollment.
    pub enrollment: Option<EnrollmentView>,
}

/// One period of trust, as admins see it.
#[derive(Clone, Debug)]
pub struct EnrollmentView {
    /// Id.
    pub id: EnrollmentId,
    /// Count.
    pub epoch: i32,
    /// State.
    pub state: EnrollmentState,
    /// For whom.
    pub account: Option<String>,
    /// Never pushed.
    pub test_only: bool,
    /// Setup Assistant waits.
    pub awaiting_configuration: bool,
    /// Authenticate.
    pub started_at: Timestamp,
    /// First TokenUpdate.
    pub activated_at: Option<Timestamp>,
    /// Over.
    pub ended_at: Option<Timestamp>,
    /// Why.
    pub end_reason: Option<String>,
    /// Last contact (batched, seconds late).
    pub last_seen_at: Option<Timestamp>,
    /// The identity's last day.
    pub identity_expires_at: Option<Timestamp>,
}

/// A device with everything that is known.
#[derive(Clone, Debug)]
pub struct DeviceDetail {
    /// The device.
    pub device: DeviceView,
    /// All enrollments, newest first.
    pub enrollments: Vec<EnrollmentView>,
    /// Channels of the newest one.
    pub channels: Vec<ChannelView>,
    /// Facts with their ages.
    pub facts: Vec<Fact>,
    /// Names of stored secrets (never their values).
    pub escrow: Vec<String>,
    /// Certificates that the newest enrollment got for use elsewhere, newest first.
    pub certificates: Vec<CertificateView>,
}

/// A certificate that a device got for use elsewhere (Wi-Fi, VPN). It is no identity.
#[derive(Clone, Debug)]
pub struct CertificateView {
    /// Id.
    pub id: CertificateId,
    /// Of.
    pub enrollment_id: EnrollmentId,
    /// The name under which it was asked for.
    pub requested: String,
    /// Subject CN: the device's id.
    pub common_name: String,
    /// The CA that issued it.
    pub authority_id: AuthorityId,
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 of the DER, lower-case hex.
    pub fingerprint: String,
    /// Validity.
    pub not_before: Timestamp,
    /// Validity.
    pub not_after: Timestamp,
    /// Good, or on the revocation list.
    pub state: CertificateState,
    /// When issued.
    pub issued_at: Timestamp,
    /// When revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why.
    pub revoked_reason: Option<String>,
}

/// A stream of commands, as admins see it.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// Device or user.
    pub kind: ChannelKind,
    /// User's name.
    pub user: Option<String>,
    /// Takes commands.
    pub enabled: bool,
    /// Can be woken: has a token that the push service has not retired.
    pub pushable: bool,
    /// What the push service said last.
    pub wake_note: Option<String>,
    /// Waiting commands.
    pub pending: i64,
}

/// A command, as admins see it.
#[derive(Clone, Debug)]
pub struct CommandView {
    /// Id.
    pub id: CommandId,
    /// Device.
    pub device_id: DeviceId,
    /// Enrollment.
    pub enrollment_id: EnrollmentId,
    /// Intent kind.
    pub kind: String,
    /// Lane.
    pub lane: Lane,
    /// State.
    pub state: CommandState,
    /// Why it waits or how it ended.
    pub note: Option<String>,
    /// Job.
    pub job_id: Option<JobId>,
    /// When accepted.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// First hand-over.
    pub first_sent_at: Option<Timestamp>,
    /// Terminal since.
    pub finished_at: Option<Timestamp>,
}

/// A command with its parts.
#[derive(Clone, Debug)]
pub struct CommandDetail {
    /// The command.
    pub command: CommandView,
    /// Its parts.
    pub parts: Vec<PartView>,
    /// What the device sent for it, as long as it is kept.
    pub upload: Option<UploadView>,
}

/// A file that a device sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadView {
    /// Bytes.
    pub size: i64,
    /// When it was whole.
    pub received_at: Timestamp,
    /// Lower-case hex.
    pub sha256: String,
}

/// One part.
#[derive(Clone, Debug)]
pub struct PartView {
    /// `CommandUUID`.
    pub id: PartId,
    /// `DeviceLock`.
    pub request: String,
    /// State.
    pub state: PartState,
    /// Deliveries.
    pub sends: i32,
    /// NotNow count.
    pub not_now: i32,
    /// The device's error.
    pub error: Option<serde_json::Value>,
    /// Terminal since.
    pub finished_at: Option<Timestamp>,
}

/// How to send.
#[derive(Clone, Debug, Default)]
pub struct SendOptions {
    /// Milliseconds until the command expires; `None`: 30 days (inventory 7 days).
    pub expires_in: Option<i64>,
    /// To a user's channel (short name or id) instead of the device's.
    pub user: Option<String>,
    /// The same key again is the same command (Q2).
    pub idempotency_key: Option<String>,
}

/// One admin action on many devices.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Id.
    pub id: JobId,
    /// Intent kind.
    pub kind: String,
    /// Devices aimed at.
    pub total: i64,
    /// Worked off.
    pub done: i32,
    /// Of these without a command.
    pub refused: i32,
    /// When accepted.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Finished making commands.
    pub finished_at: Option<Timestamp>,
}

/// A stored PIN, shown on purpose.
#[derive(Debug)]
pub struct RevealedSecret {
    /// What it is (`lock-pin`).
    pub name: String,
    /// The value.
    pub value: SecretString,
    /// When stored.
    pub stored_at: Timestamp,
}

/// A push certificate's state.
#[derive(Clone, Debug)]
pub struct PushCertView {
    /// Topic.
    pub topic: String,
    /// Validity.
    pub not_before: Timestamp,
    /// Validity.
    pub not_after: Timestamp,
    /// When imported.
    pub imported_at: Timestamp,
    /// Living enrollments that need it.
    pub enrollments: i64,
}

/// An audit entry.
#[derive(Clone, Debug)]
pub struct AuditView {
    /// Position in the site's chain.
    pub position: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub kind: String,
    /// On what.
    pub target: String,
    /// From where.
    pub source: Option<String>,
    /// Details; `None` when erased.
    pub details: Option<serde_json::Value>,
    /// HMAC, hex.
    pub chain: String,
}

/// An event of the outbox.
#[derive(Clone, Debug)]
pub struct EventView {
    /// Position.
    pub position: i64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: String,
    /// About.
    pub subject: String,
    /// Data.
    pub data: serde_json::Value,
}

/// A list's page and where the next one begins.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// Rows.
    pub items: Vec<T>,
    /// Opaque key of the next page.
    pub next: Option<Vec<u8>>,
}

/// Where the page after these rows begins; `None` after the last.
pub(crate) fn next_page<R>(rows: &[R], limit: i64, key: impl Fn(&R) -> &[u8; 16]) -> Option<Vec<u8>> {
    (rows.len() as i64 == limit).then(|| rows.last().map(|row| key(row).to_vec())).flatten()
}

/// What the verifier found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Sealed entries checked.
    pub entries: i64,
    /// Entries that wait for the sealer.
    pub unsealed: i64,
    /// Checkpoints checked.
    pub checkpoints: i64,
    /// Restores from backups that it went through, in words: what a witness saw before them and is not there any more
    /// was lost with the restore, not cut off.
    pub restored: Vec<String>,
    /// The first thing that is wrong, in words; `None`: all good.
    pub broken: Option<String>,
}
