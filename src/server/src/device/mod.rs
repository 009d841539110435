//! What devices call. Every answer is in the protocol's own terms.

pub mod apple;
pub mod package;
pub mod scep;
pub mod upload;
pub mod windows;
