//! Windows on the wire, without any input or output: MS-MDE2 enrollment ([`enrollment`]), OMA-DM sessions
//! ([`syncml`]), and the nodes that they talk about ([`csp`]).
//!
//! Bytes come in, typed messages and replies go out; time, random bytes and signatures are arguments.

pub mod csp;
pub mod enrollment;
pub mod syncml;
