//! The program `bellwether`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    bellwether::cli::main().await
}
