//! Libraries that are preloaded into the server, compiled where the test runs.

use crate::harness::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/crash/NAME.c` into a folder. None where that is not possible, which CI must not be.
pub fn library(folder: &Path, name: &str) -> Option<PathBuf> {
    let found = if cfg!(target_os = "linux") { compiled(folder, name) } else { None };
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name}.c needs Linux and a C compiler");
        println!("SKIPPED: {name}.c needs Linux and a C compiler");
    }
    found
}

fn compiled(folder: &Path, name: &str) -> Option<PathBuf> {
    let library = folder.join(format!("{name}.so"));
    let source = root().join(format!("tests/crash/{name}.c"));
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    let status = command.args(["-ldl", "-lpthread"]).status().ok()?;
    assert!(status.success(), "{name}.c compiles");
    Some(library)
}
