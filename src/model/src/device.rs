//! Life cycles of invitations, challenges, identities and enrollments.

use crate::words;

words!(
    /// An invitation is open until its enrollment is activated.
    InvitationState {
        /// Can still mint a challenge.
        Open = "open",
        /// Its enrollment was activated (first TokenUpdate, first authenticated session or check-in).
        Activated = "activated",
        /// Taken back by an admin, or spent by too many wrong short codes.
        Revoked = "revoked",
    }
);

words!(
    /// One attempt of an invitation (or of a renewal).
    ChallengeState {
        /// Minted; no CSR has claimed it.
        Open = "open",
        /// Bound to its first CSR; an exact retry gets the same certificate, another CSR fails.
        Bound = "bound",
        /// Superseded by a newer attempt, revoked, or its invitation is over.
        Dead = "dead",
    }
);

words!(
    /// A device's certificate.
    IdentityState {
        /// Recorded and handed out; not yet seen in a request.
        Issued = "issued",
        /// The pinned identity of an enrollment.
        Live = "live",
        /// Issued for a renewal and seen in an Authenticate, not yet proven by its TokenUpdate.
        Staged = "staged",
        /// Replaced by a renewal that was seen.
        Replaced = "replaced",
        /// Refused from now on.
        Revoked = "revoked",
    }
);

words!(
    /// One period of trust between a device and the server.
    EnrollmentState {
        /// Authenticate was accepted; no TokenUpdate yet: cannot be commanded.
        Pending = "pending",
        /// Takes commands.
        Active = "active",
        /// A fresh invitation of another person claimed a device whose enrollment is alive: waits for an admin.
        Unproven = "unproven",
        /// Over: CheckOut, wipe, re-enrollment, or an admin's word.
        Ended = "ended",
    }
);

words!(
    /// Whose device it is. A person's own device can never be wiped whole.
    Ownership {
        /// Bought by the organisation.
        Company = "company",
        /// Brought by its user.
        Personal = "personal",
        /// Nobody has said.
        Unknown = "unknown",
    }
);

words!(
    /// What a certificate is asked for.
    ChallengePurpose {
        /// A first certificate, through an invitation.
        Enroll = "enroll",
        /// A new certificate for a living enrollment.
        Renew = "renew",
        /// A certificate that a device uses elsewhere (Wi-Fi, VPN). Never an identity.
        Certificate = "certificate",
    }
);

words!(
    /// A certificate that a device uses elsewhere.
    CertificateState {
        /// Recorded and handed out.
        Issued = "issued",
        /// Its enrollment ended: on the revocation list.
        Revoked = "revoked",
    }
);
