//! The program: one binary that serves, and that speaks to a server.

mod args;
mod backups;
mod client;
mod intents;
mod output;
mod server;
mod verbs;

use crate::problem::Problem;
use args::{Audit, Cli, Verb};
use clap::{CommandFactory as _, Parser as _};
use std::process::ExitCode;

/// Why a verb did not do what it should. Exit code 1.
#[derive(Debug)]
pub struct Failure {
    text: String,
}

impl Failure {
    /// In words for the person at the terminal.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    fn refused(problem: Problem) -> Self {
        let id = problem.request_id.map(|id| format!(" (request {id})")).unwrap_or_default();
        Self::new(format!("{}: {}{id}", problem.title, problem.detail))
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// The whole program. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("error: {}", failure.text));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let out = cli.output;
    match cli.verb {
        None | Some(Verb::Serve) => server::serve(&cli.server).await,
        Some(Verb::Config(args::ConfigVerb::Show { origin })) => {
            server::show_config(&cli.server, origin, out)
        }
        Some(Verb::Audit(Audit::Verify { online: false })) => server::verify_audit(&cli.server, out).await,
        Some(Verb::Backup(args::Backup::Now { offline: true })) => backups::now(&cli.server, out).await,
        Some(Verb::Backup(args::Backup::List { offline: true })) => backups::list(&cli.server, out),
        Some(Verb::Backup(args::Backup::Verify { file, all })) => {
            backups::verify(&cli.server, file, all, out).await
        }
        Some(Verb::Backup(args::Backup::Drill)) => backups::drill(&cli.server, out).await,
        Some(Verb::Restore(args)) => backups::restore(&cli.server, args, out).await,
        Some(Verb::Openapi) => {
            output::line(crate::api::openapi::text().trim_end());
            Ok(())
        }
        Some(Verb::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bellwether", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Some(Verb::Login(login)) => verbs::login(&cli.client, login).await,
        Some(verb) => verbs::run(&client::Client::open(&cli.client)?, verb, out).await,
    }
}

/// Every verb with the words before it, such as `audit verify`; for tests of the inventory.
#[cfg(test)]
pub fn verbs() -> Vec<String> {
    fn below(prefix: &str, command: &clap::Command, into: &mut Vec<String>) {
        for one in command.get_subcommands() {
            let name = format!("{prefix}{}", one.get_name());
            below(&format!("{name} "), one, into);
            into.push(name);
        }
    }
    let mut all = Vec::new();
    below("", &Cli::command(), &mut all);
    all.sort();
    all
}
