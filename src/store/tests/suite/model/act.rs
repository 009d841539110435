//! Runs the model's calls on a store, each in one transaction with its audit entry and its events, as the engine does.

use super::calls::{Act, CancelWord, Handed, Told, What, Wish};
use super::reference::Rules;
use crate::world::{self, T0, World};
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, Store, StoreError, Tx};
use std::sync::Arc;
use uuid::Uuid;

/// What becomes of a transaction once its closure has done everything.
#[derive(Clone)]
pub enum Fate {
    Lives,
    /// The closure changes its mind.
    Refuses,
    Panics,
    /// Somebody pulls a plug right before COMMIT; then the closure ends as it would have.
    Cut(Arc<dyn Fn() + Send + Sync>),
    /// The same, for a plug whose cut the closure must not outlive.
    CutAndGone(Arc<dyn Fn() + Send + Sync>),
}

/// What a panicking closure says; the tests' panic hook stays silent about it.
pub const DIES: &str = "the model's closure dies";

/// Why a call has no answer.
#[derive(Debug)]
pub enum Stop {
    Store(StoreError),
    /// It rolled back by itself.
    Refused,
    Told(Told),
}

impl From<StoreError> for Stop {
    fn from(why: StoreError) -> Self {
        Self::Store(why)
    }
}

/// One call. The answer, or the error that the caller is told.
pub fn run(store: &Store, world: &World, rules: Rules, act: &Act, fate: Fate) -> Result<Told, Stop> {
    let (world, act) = (*world, act.clone());
    let reads = matches!(act.what, What::Peek { .. } | What::Look { .. });
    let system = matches!(act.what, What::Expire | What::Purge { .. });
    let scope = if system { Scope::System } else { Scope::Site(world.site) };
    let work = move |tx: &mut Tx<'_>| {
        let told = perform(tx, &world, &rules.store(), &act)?;
        if !reads {
            write_down(tx, world.site, act.mark, act.now, &told)?;
        }
        match &fate {
            Fate::Lives => Ok(told),
            Fate::Refuses => Err(Stop::Refused),
            Fate::Panics => std::panic::panic_any(DIES),
            Fate::Cut(cut) => {
                cut();
                Ok(told)
            }
            Fate::CutAndGone(cut) => {
                cut();
                Err(Stop::Refused)
            }
        }
    };
    let outcome = if reads { store.read_blocking(scope, work) } else { store.write_blocking(scope, work) };
    match outcome {
        Err(Stop::Told(told)) => Ok(told),
        Err(Stop::Store(StoreError::Conflict(rule))) if rule == "enrollment_over" => Ok(Told::Over),
        other => other,
    }
}

/// The hash under which a key's answer is stored.
pub fn key_hash(site: SiteId, key: u8) -> Vec<u8> {
    let mut hash = site.as_bytes().repeat(2);
    hash.push(key);
    hash
}

/// One audit entry, and one event for each transition (Q13).
fn write_down(tx: &mut Tx<'_>, site: SiteId, mark: u128, now: i64, told: &Told) -> Result<(), Stop> {
    let events = told.events();
    if events > 0 {
        let id = AuditId(Uuid::from_u128(mark));
        tx.audit_append_in(site, &AuditEntry { id, at: Timestamp(now), ..world::audit_entry() })?;
    }
    for n in 0..events as u128 {
        let id = EventId(Uuid::from_u128(mark + n));
        tx.event_append_in(
            site,
            &Event { id, at: Timestamp(now), kind: EventKind::CommandChanged, ..world::event() },
        )?;
    }
    Ok(())
}

fn perform(tx: &mut Tx<'_>, world: &World, rules: &QueueRules, act: &Act) -> Result<Told, Stop> {
    let now = Timestamp(act.now);
    Ok(match &act.what {
        What::Insert { wish, key } => insert(tx, world.site, wish, *key, now)?,
        What::Peek { channel, answering, skip, limit } => {
            let peek = Peek { now, answering: answering.clone(), skip_not_now: *skip };
            let offered = tx.peek_many(*channel, &peek, rules, *limit as i64)?;
            for candidate in &offered {
                let part = &candidate.part;
                assert_eq!(part.wire.is_some(), part.sends > 0, "bytes are made at the first hand-over");
                assert!(part.wire.iter().all(|bytes| *bytes == world::wire(part.id)), "and frozen (Q4)");
            }
            let again = offered.iter().any(|c| c.resend_of.is_some());
            Told::Offer(offered.into_iter().map(|c| c.part.id).collect(), again)
        }
        What::Exchange { channel, delivery, answers, hand, skip } => {
            exchange(tx, *channel, *delivery, answers, hand, *skip, now, rules)?
        }
        What::Cancel(command) => Told::Cancel(match tx.command_cancel(*command, now)? {
            Cancelled::Done => CancelWord::Done,
            Cancelled::AlreadySent(_) => CancelWord::Sent,
            Cancelled::AlreadyOver(_) => CancelWord::Over,
            Cancelled::NotFound => CancelWord::Nothing,
        }),
        What::GiveUp(command) => {
            Told::Flag(tx.command_give_up(*command, now, "this device cannot do it any more")?)
        }
        What::Spare(command, part) => Told::Count(tx.parts_spare(*command, &[*part], now, "it has it")?.0),
        What::Release(command) => Told::Flag(tx.command_release(*command)?),
        What::Again(part) => Told::Flag(tx.part_reopen(*part, "it did not do it", now)?),
        What::Look { command, channel } => {
            let state = tx.command(*command)?.map(|c| c.state);
            Told::Seen(state, usize::try_from(tx.pending_count(*channel)?).expect("a count"))
        }
        What::Expire => Told::Ended(
            tx.expire_due(now, 500)?
                .into_iter()
                .filter(|(site, _)| *site == world.site)
                .map(|(_, id)| id)
                .collect(),
        ),
        What::Purge { before } => Told::Count(count(tx.purge_finished(Timestamp(*before), 500)?)),
        What::Supersede(enrollment) => {
            Told::Count(count(tx.supersede_commands(*enrollment, now, "over", 500)?))
        }
        What::End { enrollment, sweep } => match tx.enrollment(*enrollment)? {
            Some(row) if row.state != EnrollmentState::Ended => {
                end(tx, row, *sweep, now)?;
                Told::Flag(true)
            }
            _ => Told::Flag(false),
        },
        What::Enroll { device, claimant, enrollment, identity, channels } => {
            enroll(tx, world, *device, *claimant, *enrollment, *identity, channels, now)?;
            Told::Flag(true)
        }
        What::Approve(enrollment) => Told::Flag(approve(tx, *enrollment, now)?),
        What::Revive(enrollment) => revive(tx, *enrollment, now)?,
        What::Retry(enrollment) => match tx.enrollment(*enrollment)? {
            Some(row) if row.state != EnrollmentState::Ended => {
                tx.enrollment_update(&row)?;
                Told::Flag(true)
            }
            _ => Told::Flag(false),
        },
        What::Renew { enrollment, identity } => Told::Flag(renew(tx, world, *enrollment, *identity)?),
        What::Enable { channel, on } => match tx.channel(*channel)? {
            Some(mut row) if lives(tx, row.enrollment_id)? => {
                row.enabled = *on;
                tx.channel_update(&row)?;
                Told::Flag(true)
            }
            _ => Told::Flag(false),
        },
        What::JobStart { job, targets } => {
            tx.job_insert(&Job {
                id: *job,
                kind: "lock".into(),
                intent: b"sealed".to_vec(),
                targets: targets.iter().flat_map(|c| *c.as_bytes()).collect(),
                done: 0,
                refused: 0,
                created_at: now,
                created_by: "key:test".into(),
                finished_at: None,
            })?;
            Told::Flag(true)
        }
        What::JobChunk { job, expected, wishes, last } => job_chunk(tx, *job, *expected, wishes, *last, now)?,
    })
}

fn count(rows: i64) -> usize {
    usize::try_from(rows).expect("a count")
}

fn lives(tx: &mut Tx<'_>, enrollment: EnrollmentId) -> Result<bool, Stop> {
    Ok(tx.enrollment(enrollment)?.is_some_and(|row| row.state != EnrollmentState::Ended))
}

fn new_command(wish: &Wish, now: Timestamp) -> NewCommand {
    NewCommand {
        id: wish.id,
        enrollment_id: wish.enrollment,
        channel_id: wish.channel,
        kind: "lock".into(),
        lane: wish.lane,
        guarantee: wish.guarantee,
        intent: b"sealed intent".to_vec(),
        job_id: wish.job,
        coalesce_key: wish.coalesce.map(|key| format!("wish {key}")),
        held_reason: wish.held.then(|| "waits for a second admin".to_owned()),
        not_before: wish.not_before.map(Timestamp),
        expires_at: Timestamp(wish.expires),
        created_at: now,
        created_by: "key:test".into(),
        parts: wish.parts.iter().map(|id| (*id, "Request".to_owned())).collect(),
    }
}

fn insert(tx: &mut Tx<'_>, site: SiteId, wish: &Wish, key: Option<u8>, now: Timestamp) -> Result<Told, Stop> {
    let first = |body: &[u8]| Told::Replayed(CommandId::from_slice(body).expect("an id"));
    let hash = key.map(|key| key_hash(site, key));
    if let Some(hash) = &hash
        && let Some(known) = tx.idempotent(hash)?
    {
        return Ok(first(&known.body));
    }
    let (told, id) = match tx.command_insert(&new_command(wish, now))? {
        Inserted::New(seq) => (Told::New(seq), wish.id),
        Inserted::Coalesced(same) => (Told::Same(same), same),
    };
    if let Some(key_hash) = hash {
        let row = Idempotent {
            key_hash,
            request_hash: vec![2; 32],
            status: 202,
            body: id.as_bytes().to_vec(),
            created_at: now,
        };
        if let Some(known) = tx.idempotent_put(&row)? {
            return Err(Stop::Told(first(&known.body)));
        }
    }
    Ok(told)
}

#[expect(clippy::too_many_arguments, reason = "one poll")]
fn exchange(
    tx: &mut Tx<'_>,
    channel: ChannelId,
    delivery: DeliveryId,
    answers: &[(PartId, Outcome)],
    hand: &[PartId],
    skip: bool,
    now: Timestamp,
    rules: &QueueRules,
) -> Result<Told, Stop> {
    let mut verdicts = Vec::new();
    for (part, outcome) in answers {
        verdicts.push(tx.answer(channel, *part, &world::reply(*outcome), now, rules)?.verdict);
    }
    if !answers.is_empty() {
        tx.session_word(channel, skip)?;
    }
    if hand.is_empty() {
        return Ok(Told::Exchanged(verdicts, None));
    }
    let peek = Peek { now, answering: answers.iter().map(|(part, _)| *part).collect(), skip_not_now: skip };
    let parts: Vec<(PartId, Option<Sealed>)> =
        hand.iter().map(|part| (*part, Some(world::wire(*part)))).collect();
    let handed = match tx.hand_over(channel, delivery, &parts, &peek, rules)? {
        HandOver::Done { resent, .. } => Handed::Done { parts: hand.len(), again: resent },
        HandOver::Moved => Handed::Moved,
    };
    Ok(Told::Exchanged(verdicts, Some(handed)))
}

fn end(tx: &mut Tx<'_>, mut row: Enrollment, sweep: bool, now: Timestamp) -> Result<(), Stop> {
    row.state = EnrollmentState::Ended;
    row.ended_at = Some(now);
    tx.enrollment_update(&row)?;
    for mut channel in tx.channels(row.id)? {
        channel.enabled = false;
        tx.channel_update(&channel)?;
    }
    if sweep {
        tx.supersede_commands(row.id, now, "the enrollment ended", 500)?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ids of one enrollment")]
fn enroll(
    tx: &mut Tx<'_>,
    world: &World,
    device: DeviceId,
    claimant: Option<DeviceId>,
    enrollment: EnrollmentId,
    identity: IdentityId,
    channels: &[ChannelId; 2],
    now: Timestamp,
) -> Result<(), Stop> {
    let mut state = EnrollmentState::Active;
    let own = if let Some(claimant) = claimant {
        state = EnrollmentState::Unproven;
        let row = world::device(claimant, &claimant.to_string());
        tx.device_insert(&Device { claims_device_id: Some(device), ..row })?;
        claimant
    } else {
        device
    };
    if tx.device(own)?.is_none() {
        tx.device_insert(&world::device(own, &own.to_string()))?;
    }
    if let Some(old) = tx.living_enrollment(own)? {
        end(tx, old, true, now)?;
    }
    let epoch = tx.next_epoch(own)?;
    tx.identity_insert(&world::identity(world, identity))?;
    let place = World { device: own, identity, enrollment, ..*world };
    tx.enrollment_insert(&Enrollment { epoch, state, ..world::enrollment(&place) })?;
    for (n, id) in channels.iter().enumerate() {
        let mut row = world::channel(&place, *id);
        if n > 0 {
            row.kind = ChannelKind::User;
            row.user_key = "USER-1".into();
        }
        tx.channel_insert(&row)?;
    }
    Ok(())
}

fn approve(tx: &mut Tx<'_>, id: EnrollmentId, now: Timestamp) -> Result<bool, Stop> {
    let Some(mut row) = tx.enrollment(id)? else { return Ok(false) };
    let claims = tx.device(row.device_id)?.and_then(|device| device.claims_device_id);
    let (EnrollmentState::Unproven, Some(real)) = (row.state, claims) else { return Ok(false) };
    if let Some(old) = tx.living_enrollment(real)? {
        end(tx, old, true, now)?;
    }
    row.device_id = real;
    row.epoch = tx.next_epoch(real)?;
    row.state = EnrollmentState::Active;
    tx.enrollment_update(&row)?;
    enable_all(tx, id)?;
    Ok(true)
}

fn revive(tx: &mut Tx<'_>, id: EnrollmentId, now: Timestamp) -> Result<Told, Stop> {
    let Some(mut row) = tx.enrollment(id)? else { return Ok(Told::Flag(false)) };
    let claims = tx.device(row.device_id)?.is_some_and(|device| device.claims_device_id.is_some());
    if row.state != EnrollmentState::Ended || claims || tx.living_enrollment(row.device_id)?.is_some() {
        return Ok(Told::Flag(false));
    }
    let swept = tx.supersede_commands(id, now, "the enrollment had ended", 500)?;
    if swept > 0 {
        return Ok(Told::Count(count(swept)));
    }
    row.state = EnrollmentState::Active;
    row.ended_at = None;
    tx.enrollment_update(&row)?;
    enable_all(tx, id)?;
    Ok(Told::Flag(true))
}

fn enable_all(tx: &mut Tx<'_>, enrollment: EnrollmentId) -> Result<(), Stop> {
    for mut channel in tx.channels(enrollment)? {
        channel.enabled = true;
        tx.channel_update(&channel)?;
    }
    Ok(())
}

fn renew(tx: &mut Tx<'_>, world: &World, id: EnrollmentId, identity: IdentityId) -> Result<bool, Stop> {
    let Some(mut row) = tx.enrollment(id)? else { return Ok(false) };
    if row.state == EnrollmentState::Ended {
        return Ok(false);
    }
    match row.staged_identity_id.take() {
        None => {
            tx.identity_insert(&world::identity(world, identity))?;
            row.staged_identity_id = Some(identity);
        }
        Some(staged) => row.identity_id = staged,
    }
    tx.enrollment_update(&row)?;
    Ok(true)
}

fn job_chunk(
    tx: &mut Tx<'_>,
    id: JobId,
    expected: usize,
    wishes: &[Wish],
    last: bool,
    now: Timestamp,
) -> Result<Told, Stop> {
    let Some(job) = tx.job(id)? else { return Ok(Told::Flag(false)) };
    if job.done as usize != expected || job.finished_at.is_some() {
        return Ok(Told::Flag(false));
    }
    let mut refused = job.refused;
    for wish in wishes {
        if lives(tx, wish.enrollment)? {
            tx.command_insert(&new_command(wish, now))?;
        } else {
            refused += 1;
        }
    }
    let done = i32::try_from(expected + wishes.len()).expect("small");
    tx.job_progress(id, done, refused, last.then_some(now))?;
    Ok(Told::Flag(true))
}

/// The site and its authority, without any device.
pub fn found_site(store: &Store, world: &World) {
    let world = *world;
    store
        .write_blocking(Scope::System, move |tx| {
            tx.site_insert(&Site {
                id: world.site,
                name: "Acme".into(),
                wrapped_key: vec![1],
                created_at: T0,
            })?;
            tx.authority_insert(world.site, &world::authority(world.authority))
        })
        .expect("a site");
}
