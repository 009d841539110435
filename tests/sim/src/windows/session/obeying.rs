//! A machine that obeys one message.

use bellwether_windows::syncml::client::{Answer, Obey};
use bellwether_windows::syncml::{Data, Request, Verb};

use super::super::csp::{self, After, State};
use super::super::machine::Machine;

/// A command that the machine was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `Get`, `Add`, `Replace`, `Delete` or `Exec`.
    pub verb: Verb,
    /// The node, as it was written.
    pub uri: String,
    /// The data, when there was any.
    pub data: Option<String>,
    /// What was answered; none when nothing left the machine.
    pub answer: Option<Answer>,
    /// It stood in an Atomic.
    pub atomic: bool,
}

impl Told {
    /// The status code; 0 when nothing was answered.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.code)
    }
}

/// The machine while it obeys one message.
pub(super) struct Obeying<'m> {
    machine: &'m mut Machine,
    told: &'m mut Vec<Told>,
    /// The state before an Atomic, and how much was told then.
    before: Option<(State, usize)>,
}

impl<'m> Obeying<'m> {
    pub(super) fn new(machine: &'m mut Machine, told: &'m mut Vec<Told>) -> Self {
        Self { machine, told, before: None }
    }
}

impl Obey for Obeying<'_> {
    fn obey(&mut self, request: &Request) -> Answer {
        // The session has ended in the middle of this message.
        if matches!(self.machine.state.after, After::Unenroll | After::WipeUnanswered) {
            return Answer::status(215);
        }
        let answer = csp::obey(self.machine, request);
        for item in &request.items {
            self.told.push(Told {
                verb: request.verb,
                uri: item.target.as_ref().map(|target| target.uri.clone()).unwrap_or_default(),
                data: item.data.as_ref().and_then(Data::as_str).map(str::to_owned),
                answer: Some(answer.clone()),
                atomic: self.before.is_some(),
            });
        }
        answer
    }

    fn begin(&mut self) {
        self.before = Some((self.machine.state.clone(), self.told.len()));
    }

    fn end(&mut self, failed: bool) {
        let Some((state, first)) = self.before.take() else { return };
        if !failed {
            return;
        }
        self.machine.state = state;
        let undone = self.told.iter_mut().skip(first).filter_map(|told| told.answer.as_mut());
        undone.filter(|answer| answer.code < 300).for_each(|answer| *answer = Answer::status(216));
    }
}

pub(super) fn unanswered(told: &mut [Told]) {
    told.iter_mut().for_each(|told| told.answer = None);
}
