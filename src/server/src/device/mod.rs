//! What devices call. Every answer is in the protocol's own terms.

pub mod apple;
pub mod scep;
