//! The folder of backups: names, what is in it, what may leave it.

use super::file::{self, Header};
use crate::error::Error;
use bellwether_certs::seal::MasterKey;
use bellwether_model::Timestamp;
use bellwether_model::time::DAY;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const PREFIX: &str = "bellwether-";
const SUFFIX: &str = ".bwb";
/// What is being written ends so.
const PART: &str = ".part";
/// Says how the last drill went.
const DRILL: &str = "last-drill.json";
/// So many stay whatever their age: a clock that jumped must not cost every backup.
const ALWAYS: usize = 3;

/// One file of the folder that carries our name.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The file's name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// What it says of itself, when that was signed with this master key; or why not.
    pub header: Result<Header, String>,
}

/// How a drill went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// When.
    pub at: Timestamp,
    /// Of which file.
    pub backup: String,
    /// What was wrong; `None`: it was good.
    pub problem: Option<String>,
}

/// Makes the folder, for its owner only.
pub(super) fn make(folder: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(folder, &e))
}

/// What is in the folder, newest first by the name, which is the time.
pub(super) fn list(folder: &Path, master: &MasterKey) -> Result<Vec<Listed>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| failed(folder, &e))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(meta) = entry.metadata() else { continue };
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) && meta.is_file() {
            let header = header(&entry.path(), master).map_err(|e| e.to_string());
            found.push(Listed { name, bytes: meta.len(), header });
        }
    }
    found.sort_by(|a, b| b.name.cmp(&a.name));
    Ok(found)
}

/// A file's header, when it is one of ours.
pub(super) fn header(path: &Path, master: &MasterKey) -> Result<Header, Error> {
    let input = File::open(path).map_err(|e| failed(path, &e))?;
    Ok(file::open(input, master)?.0)
}

/// The newest backup of this master key.
pub(super) fn newest(folder: &Path, master: &MasterKey) -> Result<PathBuf, Error> {
    let all = list(folder, master)?;
    let newest = all.iter().filter_map(|one| Some((one.header.as_ref().ok()?.at, &one.name))).max();
    newest.map(|(_, name)| folder.join(name)).ok_or_else(|| {
        Error::Invalid(format!("there is no backup of this master key in {}", folder.display()))
    })
}

/// A new file under a name that says that it is not finished; for its owner only.
pub(super) fn begin(folder: &Path, node: &str) -> Result<(PathBuf, File), Error> {
    let path = folder.join(format!(".{PREFIX}{node}{PART}"));
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    Ok((path.clone(), opened.map_err(|e| failed(&path, &e))?))
}

/// Gives a finished file its name, and makes sure of it.
pub(super) fn publish(folder: &Path, part: &Path, at: Timestamp) -> Result<PathBuf, Error> {
    let stamp = stamp(at);
    let names = (1..100).map(|n| match n {
        1 => format!("{PREFIX}{stamp}{SUFFIX}"),
        n => format!("{PREFIX}{stamp}-{n}{SUFFIX}"),
    });
    for name in names {
        let path = folder.join(name);
        // A link, not a rename: another process that shares the folder may have taken the name.
        match std::fs::hard_link(part, &path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(&path, &e)),
            Ok(()) => {
                std::fs::remove_file(part).map_err(|e| failed(part, &e))?;
                File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(folder, &e))?;
                return Ok(path);
            }
        }
    }
    Err(Error::Conflict("there are a hundred backups of this second".into()))
}

/// Removes what a crash left behind: parts that this process began, or that are older than a day by the file's own time.
pub(super) fn sweep(folder: &Path, node: &str, now: Timestamp) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with(&format!(".{PREFIX}"));
        let since = |at: std::time::SystemTime| at.duration_since(std::time::UNIX_EPOCH).ok();
        let touched = entry.metadata().and_then(|m| m.modified()).ok().and_then(since);
        let old = touched.is_some_and(|at| now.0.saturating_sub(at.as_millis() as i64) > DAY);
        if hidden && (old || name.contains(node)) {
            let gone = if entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path())
            } else {
                std::fs::remove_file(entry.path())
            };
            tracing::info!(file = name, removed = gone.is_ok(), "an unfinished backup was left behind");
        }
    }
}

/// Removes backups that are older than `keep_days`: only files whose header this master key signed, never the newest
/// ones. Their names.
pub(super) fn prune(
    folder: &Path,
    master: &MasterKey,
    now: Timestamp,
    keep_days: u32,
) -> Result<Vec<String>, Error> {
    let mut ours: Vec<(Timestamp, String)> =
        list(folder, master)?.into_iter().filter_map(|one| Some((one.header.ok()?.at, one.name))).collect();
    ours.sort_unstable();
    ours.reverse();
    let oldest = now.plus(-i64::from(keep_days).saturating_mul(DAY));
    let mut gone = Vec::new();
    for (at, name) in ours.into_iter().skip(ALWAYS) {
        if at < oldest {
            let path = folder.join(&name);
            std::fs::remove_file(&path).map_err(|e| failed(&path, &e))?;
            gone.push(name);
        }
    }
    Ok(gone)
}

/// How the last drill went, if there was one.
pub(super) fn last_drill(folder: &Path) -> Option<Drill> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(DRILL)).ok()?).ok()
}

/// Writes down how a drill went.
pub(super) fn note_drill(folder: &Path, drill: &Drill) -> Result<(), Error> {
    let text = serde_json::to_string(drill).map_err(|e| Error::Internal(e.to_string()))?;
    let (fresh, path) = (folder.join(format!(".{DRILL}.new")), folder.join(DRILL));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(|e| failed(&path, &e))
}

pub(super) fn failed(path: &Path, why: &std::io::Error) -> Error {
    Error::Conflict(format!("{}: {why}", path.display()))
}

/// `20261125T190500Z`.
pub(crate) fn stamp(at: Timestamp) -> String {
    let seconds = at.0.div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::super::file::Sealing;
    use super::*;

    #[test]
    fn names_are_times() {
        assert_eq!(stamp(Timestamp(0)), "19700101T000000Z");
        assert_eq!(stamp(Timestamp(1_795_633_500_000)), "20261125T190500Z");
        assert_eq!(stamp(Timestamp(951_782_400_000)), "20000229T000000Z");
        assert_eq!(stamp(Timestamp(4_107_542_399_999)), "21000228T235959Z");
    }

    fn backup(folder: &Path, master: &MasterKey, at: i64) -> String {
        let header = Header::new(master, "0", "sqlite", "1", Timestamp(at)).unwrap();
        let (part, file) = begin(folder, "node").unwrap();
        Sealing::new(file, master, &header).unwrap().finish().unwrap();
        let path = publish(folder, &part, Timestamp(at)).unwrap();
        path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn only_old_files_of_ours_leave_and_never_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (MasterKey::from_bytes(&[7; 32]), MasterKey::from_bytes(&[8; 32]));
        let now = 1_800_000_000_000;
        let old: Vec<String> = (0..5).map(|n| backup(folder.path(), &ours, now - (100 + n) * DAY)).collect();
        let foreign = backup(folder.path(), &other, now - 200 * DAY);
        let strange = "bellwether-20200101T000000Z.bwb";
        std::fs::write(folder.path().join(strange), "something else").unwrap();
        let gone = prune(folder.path(), &ours, Timestamp(now), 90).unwrap();
        assert_eq!(gone, [old[3].clone(), old[4].clone()], "the three newest stay, whatever their age");
        let young = backup(folder.path(), &ours, now - 89 * DAY);
        assert_eq!(prune(folder.path(), &ours, Timestamp(now), 90).unwrap(), [old[2].clone()]);
        let left: Vec<String> = list(folder.path(), &ours).unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(left.len(), 5);
        for kept in [&young, &foreign, &strange.to_owned(), &old[0]] {
            assert!(left.contains(kept), "{kept}: {left:?}");
        }
        assert_eq!(newest(folder.path(), &ours).unwrap(), folder.path().join(young));
    }

    #[test]
    fn two_backups_of_one_second_have_two_names_and_parts_are_swept() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let ours = MasterKey::from_bytes(&[7; 32]);
        let names = [backup(folder.path(), &ours, 5), backup(folder.path(), &ours, 6)];
        assert_eq!(names, ["bellwether-19700101T000000Z.bwb", "bellwether-19700101T000000Z-2.bwb"]);
        let mode = folder.path().join(&names[0]).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        begin(folder.path(), "node").unwrap();
        begin(folder.path(), "another").unwrap();
        sweep(folder.path(), "node", Timestamp(0));
        let hidden = std::fs::read_dir(folder.path()).unwrap().flatten();
        let left: Vec<_> =
            hidden.map(|e| e.file_name().into_string().unwrap()).filter(|n| n.starts_with('.')).collect();
        assert_eq!(left, [".bellwether-another.part"], "another process may be writing it");
    }
}
