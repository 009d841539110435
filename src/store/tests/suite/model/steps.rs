//! What can happen in a history, and how often.

use proptest::prelude::*;

/// What can happen. The numbers that come with a step say to whom and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Insert,
    InsertUnderKey,
    Poll,
    PollThatIsOvertaken,
    PollWhoseReplyIsLost,
    StrayAnswer,
    Cancel,
    GiveUp,
    Spare,
    Release,
    SendAgain,
    Look,
    Wait,
    Expire,
    Purge,
    Supersede,
    Wipe,
    EndWithoutSweep,
    ReEnroll,
    EnrollUnproven,
    Approve,
    Revive,
    RetryOfTheSameIdentity,
    Renew,
    Disable,
    Enable,
    StartJob,
    ChunkOfJob,
    ChunkOfJobTwice,
    Reopen,
}

pub const KINDS: &[(u32, Kind)] = &[
    (26, Kind::Insert),
    (5, Kind::InsertUnderKey),
    (70, Kind::Poll),
    (4, Kind::PollThatIsOvertaken),
    (8, Kind::PollWhoseReplyIsLost),
    (8, Kind::StrayAnswer),
    (9, Kind::Cancel),
    (1, Kind::GiveUp),
    (3, Kind::Spare),
    (4, Kind::Release),
    (3, Kind::SendAgain),
    (2, Kind::Look),
    (14, Kind::Wait),
    (7, Kind::Expire),
    (1, Kind::Purge),
    (1, Kind::Supersede),
    (1, Kind::Wipe),
    (1, Kind::EndWithoutSweep),
    (2, Kind::ReEnroll),
    (1, Kind::EnrollUnproven),
    (1, Kind::Approve),
    (1, Kind::Revive),
    (1, Kind::RetryOfTheSameIdentity),
    (1, Kind::Renew),
    (1, Kind::Disable),
    (3, Kind::Enable),
    (1, Kind::StartJob),
    (2, Kind::ChunkOfJob),
    (1, Kind::ChunkOfJobTwice),
    (1, Kind::Reopen),
];

#[derive(Clone, Debug)]
pub struct Step {
    pub kind: Kind,
    /// Who, what and how.
    pub r: [u16; 4],
    /// Small numbers: the transaction dies first.
    pub fate: u8,
    /// Through the second server.
    pub other_node: bool,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds: Vec<(u32, Just<Kind>)> = KINDS.iter().map(|(weight, kind)| (*weight, Just(*kind))).collect();
    let kind = proptest::strategy::Union::new_weighted(kinds);
    let step = (kind, any::<[u16; 4]>(), any::<u8>(), any::<bool>())
        .prop_map(|(kind, r, fate, other_node)| Step { kind, r, fate, other_node });
    prop::collection::vec(step, 40..260)
}
