//! Calls as values, and what they are answered: one vocabulary for the reference model and for the store's driver.

use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;
use std::collections::BTreeSet;

/// One call, with every id and time in it, so that it can be run, run again and put into any order.
#[derive(Clone, Debug)]
pub struct Act {
    /// The first id of the audit entry and the events that it writes when it changes something.
    pub mark: u128,
    pub now: i64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// Accepts a command, under an idempotency key or without.
    Insert {
        wish: Wish,
        key: Option<u8>,
    },
    /// Looks what a channel would be offered; reads only.
    Peek {
        channel: ChannelId,
        answering: Vec<PartId>,
        skip: bool,
        limit: usize,
    },
    /// A poll's transaction: answers in, what was planned out.
    Exchange {
        channel: ChannelId,
        delivery: DeliveryId,
        answers: Vec<(PartId, Outcome)>,
        hand: Vec<PartId>,
        skip: bool,
    },
    Cancel(CommandId),
    GiveUp(CommandId),
    Spare(CommandId, PartId),
    Release(CommandId),
    /// A part that the device accepted is to be sent again.
    Again(PartId),
    /// An admin looks; reads only.
    Look {
        command: CommandId,
        channel: ChannelId,
    },
    Expire,
    Purge {
        before: i64,
    },
    Supersede(EnrollmentId),
    /// The enrollment is over (a wipe, a check-out); its queue is swept at once or later.
    End {
        enrollment: EnrollmentId,
        sweep: bool,
    },
    /// Rule (c): a new epoch that ends the old one. With a claimant, rule (d): an unproven one beside it.
    Enroll {
        device: DeviceId,
        claimant: Option<DeviceId>,
        enrollment: EnrollmentId,
        identity: IdentityId,
        channels: [ChannelId; 2],
    },
    /// An admin approves an unproven enrollment.
    Approve(EnrollmentId),
    /// The device kept an enrollment that was over.
    Revive(EnrollmentId),
    /// Rule (a): the same certificate again.
    Retry(EnrollmentId),
    /// Rule (b): a renewal is staged, and with the next call it is the one.
    Renew {
        enrollment: EnrollmentId,
        identity: IdentityId,
    },
    Enable {
        channel: ChannelId,
        on: bool,
    },
    JobStart {
        job: JobId,
        targets: Vec<ChannelId>,
    },
    /// The next chunk of a job, if nobody else has done it.
    JobChunk {
        job: JobId,
        expected: usize,
        wishes: Vec<Wish>,
        last: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Wish {
    pub id: CommandId,
    pub enrollment: EnrollmentId,
    pub channel: ChannelId,
    pub lane: Lane,
    pub guarantee: Guarantee,
    pub coalesce: Option<u8>,
    pub held: bool,
    pub not_before: Option<i64>,
    pub expires: i64,
    pub parts: Vec<PartId>,
    pub job: Option<JobId>,
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    New(i64),
    Same(CommandId),
    Replayed(CommandId),
    /// The enrollment takes no commands any more.
    Over,
    /// Parts in order, and whether they are sent again.
    Offer(Vec<PartId>, bool),
    Exchanged(Vec<AnswerVerdict>, Option<Handed>),
    Cancel(CancelWord),
    Flag(bool),
    Count(usize),
    Ended(BTreeSet<CommandId>),
    Seen(Option<CommandState>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    Done { parts: usize, again: bool },
    Moved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelWord {
    Done,
    Sent,
    Over,
    Nothing,
}

impl Told {
    /// How many events such an answer stands for: one for each transition.
    pub fn events(&self) -> usize {
        match self {
            Self::New(_) | Self::Cancel(CancelWord::Done) | Self::Flag(true) => 1,
            Self::Exchanged(verdicts, handed) => {
                let applied = verdicts.iter().filter(|v| **v == AnswerVerdict::Applied).count();
                applied + if let Some(Handed::Done { parts, .. }) = handed { *parts } else { 0 }
            }
            Self::Ended(ended) => ended.len(),
            Self::Count(count) => (*count).min(1),
            _ => 0,
        }
    }
}
