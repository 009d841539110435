//! Who did what: the words of audit entries and of the outbox.

use crate::words;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who acted. Kept as text in the audit, so that it outlives the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Actor {
    /// An API key: its public prefix and name.
    ApiKey(String),
    /// Whoever held the one-time setup token.
    SetupToken,
    /// A device, by its enrollment id.
    Device(String),
    /// Somebody with an invitation, by its id.
    Invitation(String),
    /// The server itself (a background job, by its name).
    Server(String),
    /// Somebody at the machine's own terminal.
    LocalAdmin(String),
    /// Nobody that we could identify.
    Anonymous,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(name) => write!(f, "key:{name}"),
            Self::SetupToken => f.write_str("setup-token"),
            Self::Device(id) => write!(f, "device:{id}"),
            Self::Invitation(id) => write!(f, "invitation:{id}"),
            Self::Server(job) => write!(f, "server:{job}"),
            Self::LocalAdmin(name) => write!(f, "local:{name}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

words!(
    /// What an audit entry or an event is about. The spelling is part of the API.
    EventKind {
        /// An invitation was made.
        InvitationCreated = "invitation.created",
        /// An invitation was taken back.
        InvitationRevoked = "invitation.revoked",
        /// A wrong short code was typed.
        InvitationRefused = "invitation.refused",
        /// An enrollment profile was handed out: a challenge was minted.
        ChallengeMinted = "challenge.minted",
        /// A certificate was issued.
        IdentityIssued = "identity.issued",
        /// A certificate request was refused.
        IdentityRefused = "identity.refused",
        /// A certificate was revoked.
        IdentityRevoked = "identity.revoked",
        /// A certificate was replaced by a renewed one.
        IdentityRenewed = "identity.renewed",
        /// A certificate that is no identity was issued to a device.
        CertificateIssued = "certificate.issued",
        /// A device was accepted (Authenticate).
        EnrollmentStarted = "enrollment.started",
        /// A device takes commands now.
        EnrollmentActivated = "enrollment.activated",
        /// A known device came back under another person: an admin must decide.
        EnrollmentUnproven = "enrollment.unproven",
        /// An admin let an unproven enrollment in.
        EnrollmentApproved = "enrollment.approved",
        /// An enrollment is over.
        EnrollmentEnded = "enrollment.ended",
        /// A device request was refused: wrong, foreign, expired or revoked identity.
        DeviceRefused = "device.refused",
        /// A command was accepted from an admin.
        CommandQueued = "command.queued",
        /// A command was handed over for the first time.
        CommandSent = "command.sent",
        /// A command reached a terminal state, or `accepted`.
        CommandChanged = "command.changed",
        /// A command was cancelled by an admin.
        CommandCancelled = "command.cancelled",
        /// A finished command was queued again by an admin.
        CommandRetried = "command.retried",
        /// An answer contradicted an earlier one; recorded, not applied.
        AnswerConflict = "answer.conflict",
        /// An answer to a command that nobody knows.
        AnswerUnknown = "answer.unknown",
        /// One admin action on many devices.
        JobCreated = "job.created",
        /// An API key was minted.
        KeyCreated = "key.created",
        /// An API key was taken back.
        KeyRevoked = "key.revoked",
        /// Somebody was refused.
        AccessDenied = "access.denied",
        /// A stored secret was shown to somebody.
        SecretRevealed = "secret.revealed",
        /// A push certificate was imported.
        PushCertImported = "push-cert.imported",
        /// A push service retired a token (410).
        PushTokenDead = "push.token-dead",
        /// A push service refused us for a reason that an operator must mend.
        PushRejected = "push.rejected",
        /// Settings changed.
        SettingsChanged = "settings.changed",
        /// An account was made with which several devices may enroll.
        EnrollmentAccountCreated = "enrollment-account.created",
        /// Such an account was taken back.
        EnrollmentAccountRevoked = "enrollment-account.revoked",
        /// A directory named a person, or calls one by another account.
        PersonChanged = "person.changed",
        /// A person accepted the terms of use.
        TermsAccepted = "terms.accepted",
        /// A person declined the terms of use.
        TermsDeclined = "terms.declined",
        /// A package was uploaded.
        PackageUploaded = "package.uploaded",
        /// A package was deleted.
        PackageDeleted = "package.deleted",
        /// A device's upload arrived.
        UploadReceived = "upload.received",
        /// A device's upload was fetched by somebody.
        UploadDownloaded = "upload.downloaded",
        /// A backup was made.
        BackupMade = "backup.made",
        /// A backup could not be made.
        BackupFailed = "backup.failed",
        /// A backup was old enough to be removed.
        BackupPruned = "backup.pruned",
        /// The data is a backup's from here on.
        ServerRestored = "server.restored",
        /// An admin ended the quarantine after a restore.
        QuarantineEnded = "quarantine.ended",
        /// The server was set up for the first time.
        ServerSetUp = "server.set-up",
        /// The server started; the audit begins here again.
        ServerStarted = "server.started",
    }
);
