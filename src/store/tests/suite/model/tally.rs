//! How often each step, state, transition and promise was reached; the table, and what it must hold.

use bellwether_model::{CommandState, PartState};
use std::collections::BTreeMap;
use std::io::Write as _;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<(&'static str, String), u64>,
}

pub const STEP: &str = "step";
pub const FATE: &str = "transaction";
pub const STATE: &str = "command state";
pub const PART: &str = "part state";
pub const MOVE: &str = "transition";
pub const PROMISE: &str = "promise";

/// What a run must reach at least once. The model says when it decides by one of these rules.
pub const PROMISES: &[&str] = &[
    "Q1 after closing and opening again every row is as it was",
    "Q1 a crash before COMMIT leaves every row as it was",
    "Q2 a chunk of a job is worked off once",
    "Q2 the same key is answered with the first command",
    "Q3 an accepted part's deadline ran out",
    "Q3 every command of a history is over in the end",
    "Q4 a contradicting last word is not applied",
    "Q4 a late answer to an earlier delivery counts",
    "Q4 at most once is not sent again",
    "Q4 sent again with the same bytes",
    "Q4 the same last word again",
    "Q5 an emergency overtakes an open delivery",
    "Q5 the first of several",
    "Q6 an open delivery goes again before anything else",
    "Q7 a pause after NotNow",
    "Q7 not again in the session of its NotNow",
    "Q7 offered again on the next call",
    "Q7 what said NotNow in an earlier session has its turn",
    "Q8 parked after too many sends",
    "Q8 parked parts wait",
    "Q8 the queue moves past what is not answered",
    "Q9 the same wish waits once",
    "Q10 an answer from an enrollment that is over",
    "Q10 an enrollment that is over takes no command",
    "Q11 a plan that was overtaken is refused",
    "Q11 only an enabled channel of an active enrollment is offered commands",
    "Q12 cancelled before it was sent",
    "Q12 too late to cancel",
    "Q13 a transaction that did not commit leaves no trace",
    "Q13 all rows equal the model's, entries and events too",
    "Q15 finished commands leave with all that hangs on them",
    "Q17 an answer on another's channel",
    "Q17 an answer to nothing",
    "Q17 an answer to what was not sent",
];

impl Tally {
    pub fn add(&mut self, group: &'static str, name: impl Into<String>) {
        *self.counts.entry((group, name.into())).or_default() += 1;
    }

    pub fn of(&self, group: &'static str, name: &str) -> u64 {
        self.counts.get(&(group, name.to_owned())).copied().unwrap_or(0)
    }

    pub fn sum(&self, group: &'static str) -> u64 {
        self.counts.iter().filter(|((g, _), _)| *g == group).map(|(_, n)| n).sum()
    }

    pub fn merge(&mut self, other: &Self) {
        for (key, n) in &other.counts {
            *self.counts.entry(key.clone()).or_default() += n;
        }
    }

    /// To the error stream: seen although the test passes.
    pub fn print(&self, title: &str) {
        let mut text = format!("\n{title}\n");
        for ((group, name), n) in &self.counts {
            text.push_str(&format!("{n:>10}  {group:<14} {name}\n"));
        }
        drop(std::io::stderr().write_all(text.as_bytes()));
    }

    /// Fails when something was never reached, or a terminal state fewer than `least` times.
    pub fn judge(&self, steps: &[&str], fates: &[&str], least: u64) {
        let mut never = Vec::new();
        let mut want = |group: &'static str, name: &str, least: u64| {
            let n = self.of(group, name);
            if n < least {
                never.push(format!("{group} \"{name}\": {n} of {least}"));
            }
        };
        steps.iter().for_each(|name| want(STEP, name, 1));
        fates.iter().for_each(|name| want(FATE, name, 1));
        PROMISES.iter().for_each(|name| want(PROMISE, name, 1));
        PartState::ALL.iter().for_each(|state| want(PART, state.as_str(), 1));
        for state in CommandState::ALL {
            use CommandState::*;
            let terminal = matches!(state, Acknowledged | Failed | Expired | Cancelled | Superseded);
            want(STATE, state.as_str(), if terminal { least } else { 1 });
        }
        assert!(never.is_empty(), "not reached often enough: {never:#?}");
    }
}
