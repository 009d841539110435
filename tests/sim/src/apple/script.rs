//! Bad behaviour on purpose, command by command.

use bellwether_apple::checkin::{ErrorItem, Status};
use plist::Dictionary;

/// What a device does with a command instead of answering it well.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Behaviour {
    /// Answers `NotNow` and does nothing.
    NotNow,
    /// Answers `Error` with this chain and does nothing.
    Error(Vec<ErrorItem>),
    /// Answers `CommandFormatError` and does nothing.
    FormatError,
    /// Does nothing, says nothing; the session is over.
    Silence,
    /// Does what it is told, but the answer never leaves; the session is over. The next poll begins
    /// with `Idle`.
    LoseAnswer,
    /// Does what it is told and answers, but the server's reply, and a command in it, is lost.
    LoseReply,
    /// Sends its report twice.
    Duplicate,
    /// Sends its report, then another one for the same command with this status.
    Contradict(Status),
    /// Answers this without doing anything.
    Answer(Status, Dictionary),
}

/// A behaviour, for which commands, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The `RequestType`; none means every command.
    pub request_type: Option<String>,
    /// How often it applies; none means for ever.
    pub times: Option<u32>,
    /// What the device does.
    pub behaviour: Behaviour,
}

/// Rules, of which the first that fits is taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script {
    rules: Vec<Rule>,
}

impl Script {
    /// No bad behaviour.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule for a request type that applies `times` times.
    #[must_use]
    pub fn on(mut self, request_type: &str, times: u32, behaviour: Behaviour) -> Self {
        self.add(Rule { request_type: Some(request_type.to_owned()), times: Some(times), behaviour });
        self
    }

    /// Adds a rule for a request type that applies for ever.
    #[must_use]
    pub fn always(mut self, request_type: &str, behaviour: Behaviour) -> Self {
        self.add(Rule { request_type: Some(request_type.to_owned()), times: None, behaviour });
        self
    }

    /// Adds a rule for every command, `times` times.
    #[must_use]
    pub fn on_any(mut self, times: u32, behaviour: Behaviour) -> Self {
        self.add(Rule { request_type: None, times: Some(times), behaviour });
        self
    }

    /// Adds a rule.
    pub fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Forgets every rule.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// The behaviour for this command, if any; counts it.
    pub(super) fn take(&mut self, request_type: &str) -> Option<Behaviour> {
        let rule = self.rules.iter_mut().find(|rule| {
            rule.times != Some(0) && rule.request_type.as_deref().is_none_or(|wanted| wanted == request_type)
        })?;
        if let Some(left) = &mut rule.times {
            *left -= 1;
        }
        Some(rule.behaviour.clone())
    }
}
