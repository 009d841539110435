//! The life of a command: its states, its parts, and the rules between them (ARCHITECTURE, "The command model").

use crate::words;

words!(
    /// Where a command stands.
    CommandState {
        /// Waits for an approval or a maintenance window; never offered to a device.
        Held = "held",
        /// Waits for the device.
        Queued = "queued",
        /// Handed over; no answer yet.
        Sent = "sent",
        /// The device said "not now"; it will be offered again.
        NotNow = "not-now",
        /// The device said yes; the outcome is awaited until a deadline. Does not occupy the channel.
        Accepted = "accepted",
        /// Done, by the device's own word.
        Acknowledged = "acknowledged",
        /// The device said no.
        Failed = "failed",
        /// No answer in time: outcome unknown.
        Expired = "expired",
        /// Taken back before it was sent.
        Cancelled = "cancelled",
        /// Its enrollment ended or a newer command took its place.
        Superseded = "superseded",
    }
);

impl CommandState {
    /// Terminal states are never left (Q3).
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Failed | Self::Expired | Self::Cancelled | Self::Superseded)
    }
}

words!(
    /// Where one part of a command stands.
    PartState {
        /// Waits for the device.
        Queued = "queued",
        /// Handed over; no answer yet.
        Sent = "sent",
        /// The device said "not now".
        NotNow = "not-now",
        /// The device said yes; the outcome is awaited.
        Accepted = "accepted",
        /// Done.
        Acknowledged = "acknowledged",
        /// The device said no.
        Failed = "failed",
        /// No answer in time.
        Expired = "expired",
        /// Taken back before it was sent.
        Cancelled = "cancelled",
        /// Overtaken.
        Superseded = "superseded",
    }
);

impl PartState {
    /// Terminal states are never left (Q3).
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Failed | Self::Expired | Self::Cancelled | Self::Superseded)
    }

    /// Whether a device may be offered this part.
    pub fn is_offerable(self) -> bool {
        matches!(self, Self::Queued | Self::NotNow | Self::Sent)
    }
}

words!(
    /// What a device answered about one part.
    Outcome {
        /// Done.
        Acknowledged = "acknowledged",
        /// Refused or failed, with the device's own words.
        Failed = "failed",
        /// Later.
        NotNow = "not-now",
        /// Yes; the outcome follows.
        Accepted = "accepted",
    }
);

impl Outcome {
    /// The part's state after this answer.
    pub fn part_state(self) -> PartState {
        match self {
            Self::Acknowledged => PartState::Acknowledged,
            Self::Failed => PartState::Failed,
            Self::NotNow => PartState::NotNow,
            Self::Accepted => PartState::Accepted,
        }
    }
}

words!(
    /// How an intent is handed over.
    Guarantee {
        /// Sent again until answered: the rule.
        UntilAnswered = "until-answered",
        /// Sent again, after a pause, until the device answers or falls silent: wipe and unenroll. A stolen
        /// laptop must not escape because one reply was lost.
        UntilSilent = "until-silent",
        /// Handed over once; what was lost stays lost. Only variants that keep the enrollment and must not
        /// happen twice.
        AtMostOnce = "at-most-once",
    }
);

/// What happened to an answer that a device sent about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerVerdict {
    /// It moved the part.
    Applied,
    /// The same answer again: nothing changes (Q4).
    Duplicate,
    /// It contradicts the part's terminal state: recorded, not applied (Q4).
    Conflict,
    /// Nobody knows this part (Q17), or it belongs to another channel or to an enrollment that is over (Q10).
    Unknown,
}

/// Judges an answer against the state a part is in. Pure: the whole of Q4 is in this function.
pub fn judge(current: PartState, answer: Outcome) -> AnswerVerdict {
    let new = answer.part_state();
    if current.is_terminal() {
        return if current == new { AnswerVerdict::Duplicate } else { AnswerVerdict::Conflict };
    }
    match (current, answer) {
        // A part that was never handed over cannot have been answered.
        (PartState::Queued, _) => AnswerVerdict::Unknown,
        (PartState::Accepted, Outcome::Accepted) => AnswerVerdict::Duplicate,
        // "Not now" after "yes" is a late duplicate of an earlier word.
        (PartState::Accepted, Outcome::NotNow) => AnswerVerdict::Conflict,
        _ => AnswerVerdict::Applied,
    }
}

/// The state of a command from the states of its parts. `None` for a command without parts (it is held, or queued
/// and not planned yet). Worst terminal word wins once all parts are terminal; before that the most active one.
pub fn command_state(parts: &[PartState]) -> Option<CommandState> {
    if parts.is_empty() {
        return None;
    }
    let any = |s: PartState| parts.contains(&s);
    if parts.iter().all(|p| p.is_terminal()) {
        let order = [
            (PartState::Failed, CommandState::Failed),
            (PartState::Expired, CommandState::Expired),
            (PartState::Superseded, CommandState::Superseded),
            (PartState::Cancelled, CommandState::Cancelled),
        ];
        let worst = order.iter().find(|(p, _)| any(*p)).map(|(_, c)| *c);
        return Some(worst.unwrap_or(CommandState::Acknowledged));
    }
    Some(if any(PartState::Sent) {
        CommandState::Sent
    } else if any(PartState::NotNow) {
        CommandState::NotNow
    } else if any(PartState::Queued) {
        // Some parts done, others not offered yet: the command is on its way.
        if parts.iter().all(|p| *p == PartState::Queued) { CommandState::Queued } else { CommandState::Sent }
    } else {
        CommandState::Accepted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_terminal_part_is_never_moved() {
        for state in PartState::ALL.iter().filter(|s| s.is_terminal()) {
            for answer in Outcome::ALL {
                assert_ne!(judge(*state, *answer), AnswerVerdict::Applied, "{state} moved by {answer}");
            }
        }
    }

    #[test]
    fn the_same_final_word_twice_is_no_conflict() {
        assert_eq!(judge(PartState::Acknowledged, Outcome::Acknowledged), AnswerVerdict::Duplicate);
        assert_eq!(judge(PartState::Failed, Outcome::Acknowledged), AnswerVerdict::Conflict);
        assert_eq!(judge(PartState::NotNow, Outcome::Acknowledged), AnswerVerdict::Applied);
    }

    #[test]
    fn one_failed_part_fails_the_command_but_only_when_all_are_done() {
        use PartState::{Acknowledged, Failed, Queued};
        assert_eq!(command_state(&[Acknowledged, Failed]), Some(CommandState::Failed));
        assert_eq!(command_state(&[Failed, Queued]), Some(CommandState::Sent));
        assert_eq!(command_state(&[]), None);
    }

    proptest! {
        #[test]
        fn a_command_is_terminal_exactly_when_all_its_parts_are(
            parts in prop::collection::vec(prop::sample::select(PartState::ALL), 1..8)
        ) {
            let state = command_state(&parts).expect("parts are not empty");
            prop_assert_eq!(state.is_terminal(), parts.iter().all(|p| p.is_terminal()));
        }
    }
}
