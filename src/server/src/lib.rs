//! The Bellwether server: listeners, device endpoints, REST API, CLI, wakers.
//!
//! [`serve::start`] runs a server in this process; [`cli::main`] is the program.

pub mod api;
mod background;
mod body;
pub mod cli;
pub mod clock;
pub mod config;
mod device;
mod edge;
mod enroll;
pub mod entra_keys;
mod guard;
mod health;
mod http_answer;
mod listen;
mod logging;
mod metrics;
pub mod problem;
pub mod routes;
pub mod serve;
mod sign_in;
mod terms;
pub mod tls;
pub mod wakers;

#[cfg(test)]
mod tests;
