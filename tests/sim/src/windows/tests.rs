//! Two parties: a PC, and a server of a few lines.

mod apps;
mod enrolling;
mod server;
mod sessions;

use super::*;

pub(crate) use server::{CODE, Server, USER};

async fn enrolled() -> (Server, WindowsPc) {
    let server = Server::start();
    let mut pc = WindowsPc::builder(server.http()).build().unwrap();
    pc.enroll(&server.discovery(), server::USER, server::CODE).await.unwrap();
    (server, pc)
}

/// Verb, last name of the node, and status of what a machine was told.
fn short(told: &[Told]) -> Vec<(&str, &str, u16)> {
    told.iter().map(|told| (told.verb.as_str(), told.uri.rsplit('/').next().unwrap(), told.code())).collect()
}
