//! Room for the last things: a file that is given up when the disk is full, so that an administrator can still sign in,
//! take things back and find them in the audit (RT-13).
//!
//! The file is written out, and with bytes that do not compress: a hole, or zeros on a file system that compresses,
//! would hold no room. From its release until it stands again the store is *tight*. It is made again only where twice
//! its size fits, or the room that its own release has made would look like the end of the trouble.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The file's name in the data folder.
const FILE: &str = "bellwether.reserve";
/// While it is written.
const FRESH: &str = ".bellwether.reserve.new";
/// How long to wait between two tries while the disk is full.
const TIGHT_PAUSE: Duration = Duration::from_secs(2);
/// The same when the reserve cannot be made in the first place.
const PAUSE: Duration = Duration::from_secs(60);
/// Bytes of one write.
const PIECE: usize = 1024 * 1024;

/// The reserve of one data folder.
pub(crate) struct Reserve {
    folder: PathBuf,
    state: Mutex<State>,
    tight: AtomicBool,
}

struct State {
    /// Bytes that the file has.
    have: u64,
    /// Bytes that it should have; none while nobody has said.
    wanted: Option<u64>,
    tried: Option<Instant>,
}

impl Reserve {
    /// Finds what an earlier process has left.
    pub(crate) fn of(folder: &Path) -> Self {
        let have = folder.join(FILE).metadata().map_or(0, |file| file.len());
        let state = Mutex::new(State { have, wanted: None, tried: None });
        Self { folder: folder.to_owned(), state, tight: AtomicBool::new(false) }
    }

    /// How many bytes to keep from now on; 0: none. [`Reserve::tend`] does it.
    pub(crate) fn keep(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.wanted = Some(bytes);
        state.tried = None;
    }

    /// Whether the disk was full and has not been seen otherwise since.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Acquire)
    }

    /// The disk is full: gives the room away. Waits for a try to make the file again, which fills the disk itself.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = std::mem::take(&mut state.have);
        if kept == 0 && state.wanted.is_none_or(|wanted| wanted == 0) {
            // Nothing is kept here: the error itself is all there is to say.
            return;
        }
        if let Err(why) = remove(&self.folder.join(FILE)) {
            tracing::error!(%why, "the emergency reserve could not be removed");
        }
        state.tried = Some(Instant::now());
        if !self.tight.swap(true, Ordering::AcqRel) || kept > 0 {
            tracing::error!(
                bytes = kept,
                folder = %self.folder.display(),
                "the disk is full: the emergency reserve is given to administrators; devices, and whatever adds data, \
                 are refused until there is space again"
            );
        }
    }

    /// Makes the reserve what it should be, when it is time to try. Blocks for as long as writing it takes.
    pub(crate) fn tend(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tight = self.is_tight();
        let Some(wanted) = state.wanted.filter(|wanted| tight || *wanted != state.have) else { return };
        let pause = if tight { TIGHT_PAUSE } else { PAUSE };
        if state.tried.is_some_and(|tried| tried.elapsed() < pause) {
            return;
        }
        state.tried = Some(Instant::now());
        match make(&self.folder, wanted, if tight { wanted.saturating_mul(2) } else { wanted }) {
            Ok(()) => {
                state.have = wanted;
                if self.tight.swap(false, Ordering::AcqRel) {
                    tracing::warn!(bytes = wanted, "there is space on the disk again; everybody is served");
                }
            }
            Err(why) => {
                let left = remove(&self.folder.join(FRESH)).err().map(|why| why.to_string());
                if !tight {
                    tracing::warn!(bytes = wanted, %why, left, "the emergency reserve could not be made");
                }
            }
        }
    }
}

/// Writes `room` bytes and keeps `bytes` of them.
fn make(folder: &Path, bytes: u64, room: u64) -> io::Result<()> {
    if bytes == 0 {
        return remove(&folder.join(FILE));
    }
    let fresh = folder.join(FRESH);
    remove(&fresh)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    fill(&mut file, room)?;
    file.sync_all()?;
    file.set_len(bytes)?;
    std::fs::rename(&fresh, folder.join(FILE))
}

/// Bytes without a pattern (xorshift64).
fn fill(file: &mut File, mut room: u64) -> io::Result<()> {
    let mut word = 0x9E37_79B9_7F4A_7C15_u64;
    let mut piece = Vec::with_capacity(PIECE);
    while room > 0 {
        piece.clear();
        while piece.len() < PIECE {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            piece.extend_from_slice(&word.to_ne_bytes());
        }
        let take = room.min(PIECE as u64);
        piece.truncate(usize::try_from(take).unwrap_or(PIECE));
        file.write_all(&piece)?;
        room -= take;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_has_real_blocks_and_is_given_up_once() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        let reserve = Reserve::of(folder.path());
        reserve.tend();
        assert!(!file.exists(), "nobody has said how much");
        reserve.keep(3_000_000);
        reserve.tend();
        let made = file.metadata().expect("made");
        assert_eq!(made.len(), 3_000_000);
        assert!(made.blocks() * 512 >= 3_000_000, "a hole holds no room");
        assert_eq!(made.mode() & 0o777, 0o600);
        drop(reserve);

        let reserve = Reserve::of(folder.path());
        assert!(!reserve.is_tight());
        reserve.release();
        assert!(!file.exists(), "also what an earlier process has left");
        assert!(reserve.is_tight());
        reserve.keep(1_000_000);
        reserve.tend();
        assert_eq!(file.metadata().expect("made again").len(), 1_000_000);
        assert!(!reserve.is_tight() && !folder.path().join(FRESH).exists());
        reserve.keep(0);
        reserve.tend();
        assert!(!file.exists());
        reserve.release();
        assert!(!reserve.is_tight(), "without a reserve each call finds out by itself");
    }
}
