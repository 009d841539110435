//! The transaction's methods.

use crate::StoreError;
use crate::records::*;
use bellwether_model::*;

/// An open transaction.
pub struct Tx<'c> {
    _conn: std::marker::PhantomData<&'c mut ()>,
}

macro_rules! methods {
    ($($(#[$m:meta])* fn $name:ident(&mut self $(, $a:ident : $t:ty)* $(,)?) -> $r:ty;)*) => {
        impl Tx<'_> {
            $($(#[$m])* pub fn $name(&mut self, $($a: $t),*) -> Result<$r, StoreError> {
                let _ = ($($a,)*);
                Err(StoreError::Unavailable("not built yet".to_owned()))
            })*
        }
    };
}

methods! {
    /// Site scope. The site itself; System scope sees any.
    fn site(&mut self, id: SiteId) -> Option<Site>;
    /// System.
    fn site_insert(&mut self, site: &Site) -> ();
    /// System.
    fn sites(&mut self) -> Vec<Site>;
    /// System.
    fn server_setting(&mut self, key: &str) -> Option<Vec<u8>>;
    /// System.
    fn server_setting_put(&mut self, key: &str, value: &[u8]) -> ();
    /// System. Whether it was absent.
    fn server_setting_insert_if_absent(&mut self, key: &str, value: &[u8]) -> bool;
    /// System.
    fn authority_insert(&mut self, site: SiteId, authority: &Authority) -> ();
    /// System.
    fn authority_find(&mut self, id: AuthorityId) -> Option<(SiteId, Authority)>;
    /// Site scope.
    fn authorities(&mut self) -> Vec<Authority>;
    /// Site scope.
    fn site_setting(&mut self, key: &str) -> Option<Vec<u8>>;
    /// Site scope.
    fn site_setting_put(&mut self, key: &str, value: &[u8]) -> ();

    /// Site scope. Compared in lower case.
    fn person_by_account(&mut self, account: &str) -> Option<Person>;
    /// Site scope.
    fn person_insert(&mut self, person: &Person) -> ();
    /// Site scope.
    fn person(&mut self, id: PersonId) -> Option<Person>;
    /// Site scope. By id, oldest first; `after` is the last id.
    fn people(&mut self, page: &Page) -> Vec<Person>;

    /// Site scope.
    fn invitation_insert(&mut self, invitation: &Invitation) -> ();
    /// Site scope.
    fn invitation(&mut self, id: InvitationId) -> Option<Invitation>;
    /// Site scope. Newest first; `after` is the last id.
    fn invitations(&mut self, page: &Page) -> Vec<Invitation>;
    /// Site scope. State, closing time and enrollment.
    fn invitation_update(&mut self, invitation: &Invitation) -> ();
    /// System.
    fn invitation_by_code_hash(&mut self, hash: &[u8]) -> Option<(SiteId, Invitation)>;
    /// System.
    fn invitation_by_short_hash(&mut self, hash: &[u8]) -> Option<(SiteId, Invitation)>;
    /// Site scope. Counts one use of the short code; the new count.
    fn invitation_attempt(&mut self, id: InvitationId) -> i32;
    /// Site scope.
    fn challenge_insert(&mut self, challenge: &Challenge) -> ();
    /// Site scope.
    fn challenge(&mut self, id: ChallengeId) -> Option<Challenge>;
    /// Site scope.
    fn challenge_update(&mut self, challenge: &Challenge) -> ();
    /// Site scope.
    fn challenges_of_invitation(&mut self, id: InvitationId) -> Vec<Challenge>;
    /// System.
    fn challenge_by_hash(&mut self, hash: &[u8]) -> Option<(SiteId, Challenge)>;

    /// Site scope.
    fn identity_insert(&mut self, identity: &Identity) -> ();
    /// Site scope.
    fn identity(&mut self, id: IdentityId) -> Option<Identity>;
    /// Site scope.
    fn identity_update(&mut self, identity: &Identity) -> ();
    /// Site scope.
    fn identities_of_invitation(&mut self, id: InvitationId) -> Vec<Identity>;
    /// Site scope.
    fn identities_of_enrollment(&mut self, id: EnrollmentId) -> Vec<Identity>;
    /// Site scope. For the revocation list.
    fn revoked_identities(&mut self, authority: AuthorityId) -> Vec<Identity>;
    /// System. The hot path of every device request.
    fn known_identity(&mut self, fingerprint: &[u8]) -> Option<KnownIdentity>;

    /// Site scope.
    fn device_insert(&mut self, device: &Device) -> ();
    /// Site scope.
    fn device_update(&mut self, device: &Device) -> ();
    /// Site scope.
    fn device(&mut self, id: DeviceId) -> Option<Device>;
    /// Site scope. The proven row.
    fn device_by_hardware(&mut self, platform: Platform, hardware_id: &str) -> Option<Device>;
    /// Site scope. With the newest enrollment; by id, `after` is the last id.
    fn devices(&mut self, filter: &DeviceFilter, page: &Page) -> Vec<(Device, Option<Enrollment>)>;
    /// Site scope.
    fn device_count(&mut self) -> i64;
    /// Site scope.
    fn enrollment_insert(&mut self, enrollment: &Enrollment) -> ();
    /// Site scope.
    fn enrollment_update(&mut self, enrollment: &Enrollment) -> ();
    /// Site scope.
    fn enrollment(&mut self, id: EnrollmentId) -> Option<Enrollment>;
    /// Site scope. Newest first.
    fn enrollments_of_device(&mut self, id: DeviceId) -> Vec<Enrollment>;
    /// Site scope. Pending or active; a database rule allows one.
    fn living_enrollment(&mut self, device: DeviceId) -> Option<Enrollment>;
    /// Site scope.
    fn next_epoch(&mut self, device: DeviceId) -> i32;
    /// Site scope. Living enrollments that are not test-only, by topic.
    fn topic_counts(&mut self) -> Vec<(String, i64)>;
    /// System. The same over all sites.
    fn topic_counts_everywhere(&mut self) -> Vec<(String, i64)>;
    /// Site scope.
    fn channel_insert(&mut self, channel: &Channel) -> ();
    /// Site scope. Everything but the sequence.
    fn channel_update(&mut self, channel: &Channel) -> ();
    /// Site scope.
    fn channel(&mut self, id: ChannelId) -> Option<Channel>;
    /// Site scope.
    fn channel_find(&mut self, enrollment: EnrollmentId, kind: ChannelKind, user_key: &str) -> Option<Channel>;
    /// Site scope.
    fn channels(&mut self, enrollment: EnrollmentId) -> Vec<Channel>;
    /// Site scope.
    fn escrow_put(&mut self, escrow: &Escrow) -> ();
    /// Site scope.
    fn escrow(&mut self, enrollment: EnrollmentId, field: &str) -> Option<Escrow>;
    /// Site scope.
    fn escrow_list(&mut self, enrollment: EnrollmentId) -> Vec<Escrow>;
    /// Site scope. How many were erased.
    fn escrow_clear(&mut self, enrollment: EnrollmentId) -> i64;
    /// Site scope. Only newer values replace older ones.
    fn facts_put(&mut self, device: DeviceId, facts: &[Fact]) -> ();
    /// Site scope. By key.
    fn facts(&mut self, device: DeviceId) -> Vec<Fact>;
    /// System. Batched "last seen"; never moves backwards.
    fn touch_enrollments(&mut self, seen: &[(SiteId, EnrollmentId, Timestamp)]) -> ();

    /// Site scope.
    fn command_insert(&mut self, command: &NewCommand) -> Inserted;
    /// Site scope. What to offer next.
    fn peek(&mut self, channel: ChannelId, peek: &Peek, rules: &QueueRules) -> Option<Candidate>;
    /// Site scope. Up to `limit` parts for one delivery.
    fn peek_many(&mut self, channel: ChannelId, peek: &Peek, rules: &QueueRules, limit: i64) -> Vec<Candidate>;
    /// Site scope. `peek.answering` is ignored: record the answer first, in the same transaction.
    fn hand_over(&mut self, channel: ChannelId, delivery: DeliveryId, parts: &[(PartId, Option<Sealed>)], peek: &Peek, rules: &QueueRules) -> HandOver;
    /// Site scope.
    fn answer(&mut self, channel: ChannelId, part: PartId, reply: &Reply, now: Timestamp, rules: &QueueRules) -> Answered;
    /// Site scope. Remembers whether the device's last word was NotNow.
    fn session_word(&mut self, channel: ChannelId, was_not_now: bool) -> ();
    /// Site scope.
    fn command(&mut self, id: CommandId) -> Option<Command>;
    /// Site scope. In order.
    fn parts(&mut self, command: CommandId) -> Vec<Part>;
    /// Site scope.
    fn part(&mut self, id: PartId) -> Option<Part>;
    /// Site scope. Newest first; `after` is the last id.
    fn commands(&mut self, filter: &CommandFilter, page: &Page) -> Vec<Command>;
    /// Site scope (Q12).
    fn command_cancel(&mut self, id: CommandId, now: Timestamp) -> Cancelled;
    /// Site scope. Held becomes queued; whether it was held.
    fn command_release(&mut self, id: CommandId) -> bool;
    /// Site scope. Commands without a terminal state.
    fn pending_count(&mut self, channel: ChannelId) -> i64;
    /// Site scope. Ends what waits in an enrollment that is over; call until 0.
    fn supersede_commands(&mut self, enrollment: EnrollmentId, now: Timestamp, note: &str, limit: i64) -> i64;
    /// System. Ends what is past its time (Q3).
    fn expire_due(&mut self, now: Timestamp, limit: i64) -> Vec<(SiteId, CommandId)>;
    /// System. Deletes commands that finished before; how many.
    fn purge_finished(&mut self, before: Timestamp, limit: i64) -> i64;
    /// System.
    fn queue_stats(&mut self) -> QueueStats;
    /// Site scope. Whether a wake is due now (enabled, token not dead, not test-only).
    fn wake_request(&mut self, channel: ChannelId, due_at: Timestamp) -> bool;
    /// System.
    fn wakes_due(&mut self, now: Timestamp, limit: i64) -> Vec<DueWake>;
    /// Site scope.
    fn wake_result(&mut self, channel: ChannelId, result: &WakeResult) -> ();

    /// Site scope.
    fn job_insert(&mut self, job: &Job) -> ();
    /// Site scope.
    fn job(&mut self, id: JobId) -> Option<Job>;
    /// Site scope. Newest first; `after` is the last id.
    fn jobs(&mut self, page: &Page) -> Vec<Job>;
    /// Site scope.
    fn job_progress(&mut self, id: JobId, done: i32, refused: i32, finished_at: Option<Timestamp>) -> ();
    /// System. Oldest first.
    fn jobs_open(&mut self, limit: i64) -> Vec<(SiteId, Job)>;

    /// Site scope.
    fn audit_append(&mut self, entry: &AuditEntry) -> ();
    /// System, or the same site.
    fn audit_append_in(&mut self, site: SiteId, entry: &AuditEntry) -> ();
    /// Site scope.
    fn event_append(&mut self, event: &Event) -> ();
    /// System, or the same site.
    fn event_append_in(&mut self, site: SiteId, event: &Event) -> ();
    /// System. Sites with unsealed entries or events.
    fn unsealed_sites(&mut self) -> Vec<SiteId>;
    /// Site scope. By id.
    fn unsealed_audit(&mut self, limit: i64) -> Vec<AuditEntry>;
    /// Site scope.
    fn unsealed_audit_count(&mut self) -> i64;
    /// Site scope. Last position and its chain value.
    fn audit_head(&mut self) -> Option<(i64, Vec<u8>)>;
    /// Site scope. `false`: the head has moved, nothing was sealed. An empty chain has head 0.
    fn audit_seal(&mut self, expected_head: i64, sealed: &[(AuditId, i64, Vec<u8>)]) -> bool;
    /// Site scope. By id.
    fn unsealed_events(&mut self, limit: i64) -> Vec<Event>;
    /// Site scope. 0 when nothing is sealed.
    fn event_head(&mut self) -> i64;
    /// Site scope.
    fn event_seal(&mut self, expected_head: i64, sealed: &[(EventId, i64)]) -> bool;
    /// Site scope.
    fn checkpoint_insert(&mut self, checkpoint: &Checkpoint) -> ();
    /// Site scope. By position.
    fn checkpoints(&mut self) -> Vec<Checkpoint>;
    /// Site scope. Sealed entries after a position, ascending.
    fn audit(&mut self, after: i64, limit: i64) -> Vec<AuditEntry>;
    /// Site scope. Sealed entries before a position (`None`: from the newest), descending.
    fn audit_newest(&mut self, before: Option<i64>, limit: i64) -> Vec<AuditEntry>;
    /// Site scope. Sealed events after a position, ascending.
    fn events(&mut self, after: i64, limit: i64) -> Vec<Event>;

    /// System.
    fn api_key_insert(&mut self, key: &ApiKey) -> ();
    /// System.
    fn api_key_by_hash(&mut self, hash: &[u8]) -> Option<ApiKey>;
    /// System.
    fn api_keys(&mut self) -> Vec<ApiKey>;
    /// System. Whether it existed and was not revoked.
    fn api_key_revoke(&mut self, id: ApiKeyId, at: Timestamp) -> bool;
    /// System.
    fn api_key_touch(&mut self, id: ApiKeyId, at: Timestamp) -> ();

    /// Site scope. Counts `version` up by itself; the new version.
    fn push_cert_put(&mut self, cert: &PushCert) -> i32;
    /// Site scope.
    fn push_certs(&mut self) -> Vec<PushCert>;
    /// Site scope.
    fn push_cert(&mut self, topic: &str) -> Option<PushCert>;
    /// System.
    fn all_push_certs(&mut self) -> Vec<(SiteId, PushCert)>;

    /// Any scope.
    fn idempotent(&mut self, key_hash: &[u8]) -> Option<Idempotent>;
    /// Any scope: it belongs into the business transaction (Q2). `Some`: it was there already, nothing was stored.
    fn idempotent_put(&mut self, row: &Idempotent) -> Option<Idempotent>;
    /// System.
    fn idempotent_purge(&mut self, before: Timestamp) -> i64;
    /// Any scope. The count within the current window, this one included.
    fn rate_bump(&mut self, bucket: &str, now: Timestamp, window_ms: i64) -> i32;
    /// System. Whether the holder has the lease now. On PostgreSQL the database's clock counts, not `now`.
    fn lease_acquire(&mut self, name: &str, holder: &str, ttl_ms: i64, now: Timestamp) -> bool;
    /// System.
    fn lease_release(&mut self, name: &str, holder: &str) -> ();
}
