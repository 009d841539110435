//! Bringing a backup back: into an empty place, and into quarantine (Q14).

use super::folder::{self, stamp};
use super::verify::{Scratch, Verified, of_rows, open, read_master_key, verify};
use crate::StoreConfig;
use crate::audit;
use crate::error::Error;
use crate::quarantine::Words;
use bellwether_certs::seal::MasterKey;
use bellwether_model::{Actor, EventKind, Timestamp};
use bellwether_store::records::AuditEntry;
use bellwether_store::{StoreError, Tx, backup as rows};
use secrecy::{ExposeSecret as _, SecretString};
use std::path::{Path, PathBuf};

const DATABASE: &str = "bellwether.db";

/// What is to be brought back, and where.
pub struct RestoreWish {
    /// The backup.
    pub file: PathBuf,
    /// Into.
    pub store: StoreConfig,
    /// The data folder.
    pub data_dir: PathBuf,
    /// The master key, when it comes from outside.
    pub master_key: Option<SecretString>,
    /// What is there moves aside.
    pub replace: bool,
    /// Every API key is taken away; the next start mints a setup token.
    pub revoke_keys: bool,
    /// Who sits at the terminal.
    pub actor: String,
    /// Now.
    pub now: Timestamp,
}

/// What was brought back.
pub struct Restored {
    /// What the backup held.
    pub verified: Verified,
    /// Where the old data is: a folder, or a schema of the database.
    pub aside: Option<String>,
    /// Invitations that were open and are closed.
    pub invitations: usize,
    /// API keys that were taken away.
    pub keys: usize,
}

/// Restores. Everything is opened and tried before anything is changed; what was there is moved, never deleted.
pub async fn restore(wish: RestoreWish) -> Result<Restored, Error> {
    let text = match &wish.master_key {
        Some(text) => text.clone(),
        None => read_master_key(&wish.data_dir)?,
    };
    let master = MasterKey::from_text(text.expose_secret())?;
    open(&wish.file, &master)?;
    folder::make(&wish.data_dir)?;
    let database = wish.data_dir.join(DATABASE);
    let lock = match &wish.store {
        StoreConfig::Sqlite { folder, .. } => Some(rows::lock(folder)?),
        _ => None,
    };
    if lock.is_some() && database.exists() && !wish.replace {
        return Err(Error::Conflict(format!(
            "{} is there already. With --replace it is moved aside, not deleted. Nothing was changed",
            database.display()
        )));
    }
    folder::sweep(&wish.data_dir, "nobody's", wish.now);
    let verified = verify(&wish.file, &wish.data_dir, &master).await?;
    let work = tokio::task::spawn_blocking(move || {
        let _lock = lock;
        bring_back(&wish, &master, verified)
    });
    work.await.map_err(|e| Error::Internal(e.to_string()))?
}

fn bring_back(wish: &RestoreWish, master: &MasterKey, verified: Verified) -> Result<Restored, Error> {
    let settle = Settle::new(wish, &verified)?;
    let (mut invitations, mut keys) = (0, 0);
    let (header, mut opening) = open(&wish.file, master)?;
    if header != verified.header {
        return Err(Error::Conflict("the file was changed while it was read".into()));
    }
    let mut finish = |tx: &mut Tx<'_>| {
        (invitations, keys) = settle.run(tx)?;
        Ok(())
    };
    let name = format!("replaced_{}", stamp(wish.now).to_lowercase());
    let aside = match &wish.store {
        StoreConfig::Postgres { url, allow_rls_bypass, .. } => {
            let aside = wish.replace.then(|| name.clone());
            let into = rows::Into::Postgres {
                url: url.clone(),
                aside: aside.clone(),
                allow_rls_bypass: *allow_rls_bypass,
            };
            rows::fill(into, &header.schema, &mut opening, &mut finish).map_err(of_rows)?;
            aside.map(|schema| format!("schema {schema}"))
        }
        _ => {
            let scratch = Scratch::new(&wish.data_dir)?;
            let into = rows::Into::Folder(scratch.0.clone());
            rows::fill(into, &header.schema, &mut opening, &mut finish).map_err(of_rows)?;
            swap(&wish.data_dir, &scratch.0, &name)?
        }
    };
    Ok(Restored { verified, aside, invitations, keys })
}

/// Puts the new database in the old one's place. At every moment one of both is there under its name.
fn swap(data_dir: &Path, scratch: &Path, name: &str) -> Result<Option<String>, Error> {
    let (old, new) = (data_dir.join(DATABASE), scratch.join(DATABASE));
    let aside = data_dir.join(name);
    let moved = old.exists();
    if moved {
        // Its log goes aside before the new database comes: without it the old one should be whole. One that is too
        // damaged for that is moved as it is.
        if let Err(why) = rows::settle_log(data_dir) {
            tracing::warn!(%why, "the log of the old database could not be copied into it; both are moved aside");
        }
        folder::make(&aside)?;
        std::fs::hard_link(&old, aside.join(DATABASE)).map_err(|e| folder::failed(&aside, &e))?;
    }
    for end in ["-wal", "-shm"] {
        let beside = data_dir.join(format!("{DATABASE}{end}"));
        if beside.exists() {
            // It belongs to the old one, and would spoil the new one.
            folder::make(&aside)?;
            let to = aside.join(format!("{DATABASE}{end}"));
            std::fs::rename(&beside, to).map_err(|e| folder::failed(&beside, &e))?;
        }
    }
    let sync = |folder: &Path| std::fs::File::open(folder).and_then(|f| f.sync_all());
    if moved {
        sync(&aside).map_err(|e| folder::failed(&aside, &e))?;
    }
    std::fs::rename(&new, &old).and_then(|()| sync(data_dir)).map_err(|e| folder::failed(&old, &e))?;
    Ok(moved.then(|| aside.display().to_string()))
}

/// What is written into the restored data before anybody works with it.
struct Settle {
    sites: Vec<(bellwether_model::SiteId, AuditEntry)>,
    words: Vec<u8>,
    from: Timestamp,
    now: Timestamp,
    revoke_keys: bool,
}

impl Settle {
    fn new(wish: &RestoreWish, verified: &Verified) -> Result<Self, Error> {
        let backup = wish.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let from = verified.header.at;
        let words = Words { since: wish.now, from, backup: backup.clone() };
        let actor = Actor::LocalAdmin(wish.actor.clone());
        let entry = |position: i64| {
            let details = audit::restored_details(&backup, from, position);
            audit::entry(wish.now, &actor, EventKind::ServerRestored, "server", None, Some(details))
        };
        let sites = verified
            .sites
            .iter()
            .map(|(site, position)| Ok((*site, entry(*position)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let words = serde_json::to_vec(&words).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(Self { sites, words, from, now: wish.now, revoke_keys: wish.revoke_keys })
    }

    fn run(&self, tx: &mut Tx<'_>) -> Result<(usize, usize), StoreError> {
        let mut invitations = 0;
        for (site, entry) in &self.sites {
            invitations += tx.quarantine_begin(*site, &self.words, self.from, self.now)?.0;
            tx.audit_append_in(*site, entry)?;
        }
        Ok((invitations, tx.restored_clear(self.revoke_keys)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_store::{Scope, Store};

    #[test]
    fn the_old_database_is_whole_without_its_log_before_that_moves() {
        let (served, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = |folder: &Path| StoreConfig::Sqlite { folder: folder.to_owned(), readers: 1 };
        let store = Store::open(config(served.path())).unwrap();
        store
            .write_blocking(Scope::System, |tx| {
                tx.server_setting_put("kept", b"in the log").map_err(Error::from)
            })
            .unwrap();
        // What a server that was killed leaves: the change stands in the log alone.
        let log = format!("{DATABASE}-wal");
        for name in [DATABASE, log.as_str()] {
            std::fs::copy(served.path().join(name), killed.path().join(name)).unwrap();
        }
        assert!(killed.path().join(&log).metadata().unwrap().len() > 0);
        let scratch = tempfile::tempdir_in(killed.path()).unwrap();
        drop(Store::open(config(scratch.path())).unwrap());

        let aside = swap(killed.path(), scratch.path(), "replaced").unwrap().unwrap();
        assert!(!Path::new(&aside).join(&log).exists(), "the old database needs its log");
        let kept = |folder: &Path| {
            let store = Store::open(config(folder)).unwrap();
            store.read_blocking(Scope::System, |tx| tx.server_setting("kept").map_err(Error::from)).unwrap()
        };
        assert_eq!(kept(Path::new(&aside)).as_deref(), Some(&b"in the log"[..]));
        assert_eq!(kept(killed.path()), None, "the new one is in its place");
    }
}
