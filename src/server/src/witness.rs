//! The audit's witness as a file: a line for each signed head.

use bellwether_engine::Witness;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// More is not read: some hundred thousand heads.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A file that is only ever added to.
pub struct WitnessFile {
    path: PathBuf,
}

impl WitnessFile {
    /// The file is made with the first line.
    pub fn shared(path: PathBuf) -> Arc<dyn Witness> {
        Arc::new(Self { path })
    }

    fn said(&self, error: &std::io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

impl Witness for WitnessFile {
    fn append(&self, line: &str) -> Result<(), String> {
        let mut whole = line.to_owned();
        whole.push('\n');
        let added = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            // One write: two servers that share a file mix no lines.
            file.write_all(whole.as_bytes())?;
            file.sync_data()
        };
        added().map_err(|error| self.said(&error))
    }

    fn lines(&self) -> Result<Vec<String>, String> {
        let mut text = String::new();
        match OpenOptions::new().read(true).open(&self.path) {
            // Nothing has been sealed since it was configured.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.said(&error)),
            Ok(file) => file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| self.said(&error))?,
        };
        Ok(text.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness.jsonl");
        let witness = WitnessFile { path: path.clone() };
        assert_eq!(witness.lines(), Ok(Vec::new()), "there is nothing yet");
        witness.append("one").unwrap();
        witness.append("two").unwrap();
        assert_eq!(witness.lines().unwrap(), ["one", "two"]);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let nowhere = WitnessFile { path: folder.path().join("no/such/folder") };
        let why = nowhere.append("three").unwrap_err();
        assert!(why.contains("no/such/folder"), "{why}");
    }
}
