//! The road without a network: invitation, SCEP, check-in, commands, and the rules of re-enrollment.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

#[macro_use]
mod backends;
mod backups;
mod certificates;
mod enrolling;
mod enrollment_accounts;
mod entra;
mod packages;
mod pc;
mod promises;
mod queue;
mod reliability;
mod review_queue;
mod review_trust;
mod review_wakes;
mod support;
mod uploads;
mod windows;
mod windows_settings;
