//! A site with a device that takes commands.

use crate::harness::Bed;
use bellwether_model::device::{CertificateState, ChallengePurpose, ChallengeState, IdentityState};
use bellwether_model::*;
use bellwether_store::records::*;
use uuid::Uuid;

/// Where the tests' time begins.
pub const T0: Timestamp = Timestamp(1_800_000_000_000);

pub const RULES: QueueRules = QueueRules {
    max_sends: 3,
    park_for: 60_000,
    not_now_pause: 0,
    silent_pause: 30_000,
    accepted_for: 600_000,
};

pub fn at(millis: i64) -> Timestamp {
    T0.plus(millis)
}

pub fn id<T: From<Uuid>>() -> T {
    T::from(Uuid::now_v7())
}

pub fn bytes() -> Vec<u8> {
    Uuid::now_v7().as_bytes().to_vec()
}

#[derive(Clone, Copy, Debug)]
pub struct World {
    pub site: SiteId,
    pub authority: AuthorityId,
    pub device: DeviceId,
    pub identity: IdentityId,
    pub enrollment: EnrollmentId,
    pub channel: ChannelId,
}

impl World {
    pub fn new(bed: &Bed) -> Self {
        let world = Self {
            site: id(),
            authority: id(),
            device: id(),
            identity: id(),
            enrollment: id(),
            channel: id(),
        };
        bed.system(move |tx| {
            tx.site_insert(&Site {
                id: world.site,
                name: "Acme".into(),
                wrapped_key: vec![1],
                created_at: T0,
            })?;
            tx.authority_insert(world.site, &authority(world.authority))
        });
        bed.write(world.site, move |tx| {
            tx.device_insert(&device(world.device, "UDID-1"))?;
            tx.identity_insert(&identity(&world, world.identity))?;
            tx.enrollment_insert(&enrollment(&world))?;
            tx.channel_insert(&channel(&world, world.channel))
        });
        world
    }

    /// A second device with an enrollment in the same site.
    pub fn another(&self, bed: &Bed) -> Self {
        let world = Self { device: id(), identity: id(), enrollment: id(), channel: id(), ..*self };
        bed.write(world.site, move |tx| {
            tx.device_insert(&device(world.device, &world.device.to_string()))?;
            tx.identity_insert(&identity(&world, world.identity))?;
            tx.enrollment_insert(&enrollment(&world))?;
            tx.channel_insert(&channel(&world, world.channel))
        });
        world
    }

    pub fn command(&self) -> NewCommand {
        NewCommand {
            id: id(),
            enrollment_id: self.enrollment,
            channel_id: self.channel,
            kind: "lock".into(),
            lane: Lane::Interactive,
            guarantee: Guarantee::UntilAnswered,
            intent: b"sealed intent".to_vec(),
            job_id: None,
            coalesce_key: None,
            held_reason: None,
            not_before: None,
            expires_at: at(10_000_000),
            created_at: T0,
            created_by: "key:test".into(),
            parts: vec![(id(), "DeviceLock".into())],
        }
    }

    pub fn insert(&self, bed: &Bed, command: &NewCommand) -> Inserted {
        let command = command.clone();
        bed.write(self.site, move |tx| tx.command_insert(&command))
    }

    pub fn peek(&self, bed: &Bed, now: Timestamp) -> Option<Candidate> {
        let peek = Peek { now, answering: Vec::new(), skip_not_now: false };
        bed.read(self.site, |tx| tx.peek(self.channel, &peek, &RULES))
    }

    /// One poll without an answer: what the device gets.
    pub fn poll(&self, bed: &Bed, now: Timestamp) -> Option<PartId> {
        let part = self.peek(bed, now)?.part.id;
        assert!(matches!(self.hand_over(bed, &[part], now), HandOver::Done { .. }));
        Some(part)
    }

    pub fn hand_over(&self, bed: &Bed, parts: &[PartId], now: Timestamp) -> HandOver {
        let peek = Peek { now, answering: Vec::new(), skip_not_now: false };
        let parts: Vec<_> = parts.iter().map(|p| (*p, Some(wire(*p)))).collect();
        let (world, delivery) = (*self, id());
        bed.write(self.site, move |tx| tx.hand_over(world.channel, delivery, &parts, &peek, &RULES))
    }

    pub fn answer(&self, bed: &Bed, part: PartId, outcome: Outcome, now: Timestamp) -> Answered {
        let world = *self;
        bed.write(self.site, move |tx| tx.answer(world.channel, part, &reply(outcome), now, &RULES))
    }

    pub fn get(&self, bed: &Bed, command: &NewCommand) -> Command {
        bed.read(self.site, |tx| tx.command(command.id)).expect("the command is there")
    }

    pub fn part(&self, bed: &Bed, part: PartId) -> Part {
        bed.read(self.site, |tx| tx.part(part)).expect("the part is there")
    }

    pub fn end(&self, bed: &Bed, now: Timestamp) {
        let world = *self;
        bed.write(self.site, move |tx| {
            let mut enrollment = tx.enrollment(world.enrollment)?.expect("there");
            enrollment.state = EnrollmentState::Ended;
            enrollment.ended_at = Some(now);
            tx.enrollment_update(&enrollment)
        });
    }
}

pub fn first(command: &NewCommand) -> PartId {
    command.parts[0].0
}

pub fn wire(part: PartId) -> Vec<u8> {
    format!("wire of {part}").into_bytes()
}

pub fn reply(outcome: Outcome) -> Reply {
    Reply { outcome, answer: Some(outcome.as_str().as_bytes().to_vec()), error: None }
}

pub fn authority(id: AuthorityId) -> Authority {
    Authority { id, certificate: vec![1], key: vec![2], created_at: T0, retired_at: None }
}

pub fn device(id: DeviceId, hardware: &str) -> Device {
    Device {
        id,
        platform: Platform::Apple,
        hardware_id: hardware.into(),
        claims_device_id: None,
        serial: Some("C02ABC".into()),
        product: Some("iPhone15,3".into()),
        model: None,
        name: Some("Ada's iPhone".into()),
        os_version: Some("18.1".into()),
        os_build: None,
        supervised: Some(true),
        ownership: Ownership::Company,
        created_at: T0,
    }
}

pub fn identity(world: &World, id: IdentityId) -> Identity {
    Identity {
        id,
        authority_id: world.authority,
        serial: id.to_string(),
        fingerprint: id.as_bytes().repeat(2),
        key_hash: vec![7; 32],
        certificate: vec![3; 600],
        common_name: "device".into(),
        not_before: T0,
        not_after: at(1_000_000_000),
        state: IdentityState::Live,
        challenge_id: None,
        invitation_id: None,
        enrollment_id: None,
        issued_at: T0,
        revoked_at: None,
        revoked_reason: None,
    }
}

pub fn enrollment(world: &World) -> Enrollment {
    Enrollment {
        id: world.enrollment,
        device_id: world.device,
        epoch: 1,
        platform: Platform::Apple,
        state: EnrollmentState::Active,
        user_enrollment: false,
        invitation_id: None,
        person_id: None,
        identity_id: world.identity,
        staged_identity_id: None,
        topic: Some("com.apple.mgmt.External.1".into()),
        test_only: false,
        awaiting_configuration: false,
        started_at: T0,
        activated_at: Some(T0),
        ended_at: None,
        end_reason: None,
        last_seen_at: None,
    }
}

pub fn channel(world: &World, id: ChannelId) -> Channel {
    Channel {
        id,
        enrollment_id: world.enrollment,
        kind: ChannelKind::Device,
        user_key: String::new(),
        user_name: None,
        enabled: true,
        push_token: Some(vec![1, 2]),
        push_magic: None,
        push_dead: false,
        last_seq: 0,
        token_updates: 1,
        last_was_not_now: false,
        wake_due_at: None,
        wake_attempts: 0,
        woken_at: None,
        wake_note: None,
    }
}

pub fn invitation(person: Option<PersonId>) -> Invitation {
    Invitation {
        id: id(),
        platform: Platform::Apple,
        person_id: person,
        device_id: None,
        code_hash: bytes(),
        short_hash: Some(bytes()),
        attempts: 0,
        attempt_cap: 5,
        test_only: false,
        unsigned: true,
        ownership: Ownership::Personal,
        state: InvitationState::Open,
        created_at: T0,
        created_by: "key:test".into(),
        expires_at: at(1_000),
        closed_at: None,
        enrollment_id: None,
    }
}

pub fn challenge(invitation: InvitationId) -> Challenge {
    Challenge {
        id: id(),
        secret_hash: bytes(),
        purpose: ChallengePurpose::Enroll,
        invitation_id: Some(invitation),
        enrollment_id: None,
        state: ChallengeState::Open,
        csr_hash: None,
        identity_id: None,
        created_at: T0,
        expires_at: at(1_000),
        requested: None,
    }
}

/// A challenge for a certificate of an enrollment.
pub fn certificate_challenge(world: &World) -> Challenge {
    Challenge {
        purpose: ChallengePurpose::Certificate,
        invitation_id: None,
        enrollment_id: Some(world.enrollment),
        requested: Some("wifi".into()),
        ..challenge(id())
    }
}

pub fn certificate(world: &World, challenge: ChallengeId) -> Certificate {
    Certificate {
        id: id(),
        authority_id: world.authority,
        serial: Uuid::now_v7().simple().to_string(),
        fingerprint: bytes(),
        certificate: vec![0x30, 0],
        enrollment_id: world.enrollment,
        challenge_id: challenge,
        requested: "wifi".into(),
        common_name: world.device.to_string(),
        not_before: T0,
        not_after: at(1_000),
        state: CertificateState::Issued,
        issued_at: T0,
        revoked_at: None,
        revoked_reason: None,
    }
}

pub fn audit_entry() -> AuditEntry {
    AuditEntry {
        id: id(),
        at: T0,
        actor: "key:test".into(),
        kind: EventKind::CommandQueued,
        target: "device:1".into(),
        source: None,
        details_digest: vec![9; 32],
        details: Some("{}".into()),
        position: None,
        chain: None,
    }
}

pub fn event() -> Event {
    Event {
        id: id(),
        at: T0,
        kind: EventKind::CommandQueued,
        subject: "device:1".into(),
        data: "{}".into(),
        position: None,
    }
}
