//! The road without a network: invitation, SCEP, check-in, commands, and the rules of re-enrollment.

mod enrolling;
mod queue;
mod support;
