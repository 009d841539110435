//! The shape of the table's facts.

use crate::family::{Os, Version};

/// Which channels of a Shared iPad take a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    Device,
    User,
    Both,
}

/// What one system says about one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub introduced: Version,
    pub removed: Option<Version>,
    pub right: u32,
    pub supervised: bool,
    pub automated: bool,
    pub byod: bool,
    pub device_channel: bool,
    pub user_channel: bool,
    pub shared: Option<Shared>,
    pub shared_only: bool,
}

/// A command that exists since a version, for the device channel, with nothing else said.
pub(super) const fn since(major: u32, minor: u32, patch: u32) -> Rule {
    Rule {
        introduced: Version::new(major, minor, patch),
        removed: None,
        right: 0,
        supervised: false,
        automated: false,
        byod: false,
        device_channel: true,
        user_channel: false,
        shared: None,
        shared_only: false,
    }
}

impl Rule {
    pub(super) const fn removed(mut self, major: u32, minor: u32, patch: u32) -> Self {
        self.removed = Some(Version::new(major, minor, patch));
        self
    }

    pub(super) const fn right(mut self, right: u32) -> Self {
        self.right = right;
        self
    }

    pub(super) const fn supervised(mut self) -> Self {
        self.supervised = true;
        self
    }

    pub(super) const fn automated(mut self) -> Self {
        self.automated = true;
        self
    }

    pub(super) const fn byod(mut self) -> Self {
        self.byod = true;
        self
    }

    pub(super) const fn both_channels(mut self) -> Self {
        self.user_channel = true;
        self
    }

    pub(super) const fn user_channel(mut self) -> Self {
        self.device_channel = false;
        self.user_channel = true;
        self
    }

    pub(super) const fn shared(mut self, shared: Shared) -> Self {
        self.shared = Some(shared);
        self
    }

    pub(super) const fn shared_only(mut self) -> Self {
        self.shared_only = true;
        self
    }
}

/// One command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub request_type: &'static str,
    /// The command at the beginning of a sentence.
    pub title: &'static str,
    ios: Option<Rule>,
    macos: Option<Rule>,
    tvos: Option<Rule>,
    visionos: Option<Rule>,
    watchos: Option<Rule>,
}

impl Row {
    pub(super) const fn new(request_type: &'static str, title: &'static str) -> Self {
        Self { request_type, title, ios: None, macos: None, tvos: None, visionos: None, watchos: None }
    }

    pub(super) const fn ios(mut self, rule: Rule) -> Self {
        self.ios = Some(rule);
        self
    }

    pub(super) const fn macos(mut self, rule: Rule) -> Self {
        self.macos = Some(rule);
        self
    }

    pub(super) const fn tvos(mut self, rule: Rule) -> Self {
        self.tvos = Some(rule);
        self
    }

    pub(super) const fn visionos(mut self, rule: Rule) -> Self {
        self.visionos = Some(rule);
        self
    }

    pub(super) const fn watchos(mut self, rule: Rule) -> Self {
        self.watchos = Some(rule);
        self
    }

    pub(super) const fn rule(&self, os: Os) -> Option<Rule> {
        match os {
            Os::Ios => self.ios,
            Os::Macos => self.macos,
            Os::Tvos => self.tvos,
            Os::Visionos => self.visionos,
            Os::Watchos => self.watchos,
        }
    }
}
