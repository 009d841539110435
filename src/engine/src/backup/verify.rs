//! Trying a backup: everything in it is opened, brought into a scratch database and looked at.

use super::file::{self, Header};
use super::folder::{self, Drill, Listed};
use crate::audit::verify_site;
use crate::error::Error;
use crate::offline::OfflineReport;
use crate::setup::opens_master_check;
use crate::vault::{Vault, random_hex};
use bellwether_certs::seal::MasterKey;
use bellwether_model::{SiteId, Timestamp};
use bellwether_store::{Scope, Store, StoreConfig, backup as rows};
use secrecy::{ExposeSecret as _, SecretString};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What a good backup holds.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The file.
    pub file: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// Tables in it.
    pub tables: u64,
    /// Rows in it.
    pub rows: u64,
    /// The audit of each site in it.
    pub audit: Vec<OfflineReport>,
    /// Its sites, with the position that their sealed audit had reached.
    pub(super) sites: Vec<(SiteId, i64)>,
}

/// Backups as files, without a database: works beside a running server.
pub struct OfflineBackups {
    folder: PathBuf,
    master_key: SecretString,
}

impl OfflineBackups {
    /// `master_key`: without it the file in the data folder.
    pub fn new(folder: PathBuf, data_dir: &Path, master_key: Option<SecretString>) -> Result<Self, Error> {
        let master_key = match master_key {
            Some(text) => text,
            None => read_master_key(data_dir)?,
        };
        MasterKey::from_text(master_key.expose_secret())?;
        Ok(Self { folder, master_key })
    }

    fn master(&self) -> Result<MasterKey, Error> {
        Ok(MasterKey::from_text(self.master_key.expose_secret())?)
    }

    /// Makes a backup of a database that no server works on (SQLite), or beside one (PostgreSQL).
    pub async fn make(
        &self,
        store: StoreConfig,
        settings: super::BackupSettings,
        now: Timestamp,
    ) -> Result<super::Made, Error> {
        let master = self.master()?;
        let store = Store::open(store)?;
        if !opens_master_check(&store, &master).await? {
            return Err(Error::Conflict("this master key is not the one that sealed this database".into()));
        }
        let work =
            tokio::task::spawn_blocking(move || super::make(&store, &master, &settings, "offline", || now));
        work.await.map_err(|e| Error::Internal(e.to_string()))?
    }

    /// What is in the folder, newest first.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        folder::list(&self.folder, &self.master()?)
    }

    /// The last drill.
    pub fn last_drill(&self) -> Option<Drill> {
        folder::last_drill(&self.folder)
    }

    /// The newest backup.
    pub fn newest(&self) -> Result<PathBuf, Error> {
        folder::newest(&self.folder, &self.master()?)
    }

    /// A file by its path, or by its name in the folder.
    pub fn find(&self, file: &Path) -> PathBuf {
        let inside = self.folder.join(file);
        if !file.exists() && inside.exists() { inside } else { file.to_owned() }
    }

    /// Tries a backup; what is wrong with it is the error. The scratch is gone afterwards.
    pub async fn verify(&self, file: &Path) -> Result<Verified, Error> {
        let verified = verify(file, &self.folder, &self.master()?).await?;
        match verified.audit.iter().find_map(|site| Some((&site.site, site.report.broken.as_ref()?))) {
            Some((site, broken)) => Err(Error::Conflict(format!("the audit of {site} in it: {broken}"))),
            None => Ok(verified),
        }
    }

    /// Tries the newest backup and writes down how that went.
    pub async fn drill(&self, now: Timestamp) -> Result<(Drill, Option<Verified>), Error> {
        let file = self.newest()?;
        let verified = self.verify(&file).await;
        let backup = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let drill = Drill { at: now, backup, problem: verified.as_ref().err().map(ToString::to_string) };
        folder::note_drill(&self.folder, &drill)?;
        Ok((drill, verified.ok()))
    }
}

pub(super) fn read_master_key(data_dir: &Path) -> Result<SecretString, Error> {
    let path = data_dir.join("master.key");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(SecretString::from(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::Conflict(format!(
            "there is no master key in {}. A backup never holds it: put back the file that you kept apart from it, or \
             give it as master_key_file. Without it nothing in a backup can be opened, by nobody. Nothing was changed",
            path.display()
        ))),
        Err(e) => Err(folder::failed(&path, &e)),
    }
}

/// Opens and reads everything, in a scratch folder inside `near`.
pub(super) async fn verify(file: &Path, near: &Path, master: &MasterKey) -> Result<Verified, Error> {
    let (header, opening) = open(file, master)?;
    folder::make(near)?;
    let scratch = Scratch::new(near)?;
    let (into, schema) = (rows::Into::Folder(scratch.0.clone()), header.schema.clone());
    let counts = tokio::task::spawn_blocking(move || {
        let mut opening = opening;
        rows::fill(into, &schema, &mut opening, &mut |_| Ok(()))
    });
    let counts = counts.await.map_err(|e| Error::Internal(e.to_string()))?.map_err(of_rows)?;
    let store = Store::open(StoreConfig::Sqlite { folder: scratch.0.clone(), readers: 2 })?;
    let looked = store.clone();
    let flaw = tokio::task::spawn_blocking(move || looked.flaw());
    if let Some(flaw) = flaw.await.map_err(|e| Error::Internal(e.to_string()))?? {
        return Err(Error::Conflict(format!("the restored database is damaged: {flaw}")));
    }
    if !opens_master_check(&store, master).await? {
        return Err(Error::Conflict("the secrets in it were sealed with another master key".into()));
    }
    let vault = Vault::new(MasterKey::from_text(master.to_text().expose_secret())?);
    let (mut audit, mut sites) = (Vec::new(), Vec::new());
    for site in store.read(Scope::System, |tx| tx.sites().map_err(Error::from)).await? {
        vault.add_site(site.id, &site.wrapped_key)?;
        let report = verify_site(&store, &vault, site.id, &[]).await?;
        sites.push((site.id, report.entries));
        audit.push(OfflineReport { site: site.name, report });
    }
    let (tables, rows) = (counts.len() as u64, counts.values().sum());
    Ok(Verified { file: file.to_owned(), header, tables, rows, audit, sites })
}

pub(super) fn open(
    path: &Path,
    master: &MasterKey,
) -> Result<(Header, file::Opening<BufReader<File>>), Error> {
    let input = File::open(path).map_err(|e| folder::failed(path, &e))?;
    let (header, opening) = file::open(BufReader::with_capacity(1 << 17, input), master)?;
    if !rows::knows_schema(&header.schema) {
        return Err(Error::Conflict(format!(
            "this backup has the schema {}, of version {} of Bellwether, which this version does not know; restore it \
             with that version",
            header.schema, header.server
        )));
    }
    Ok((header, opening))
}

/// What went wrong with rows is the backup's fault, not the database's.
pub(super) fn of_rows(error: bellwether_store::StoreError) -> Error {
    match error {
        bellwether_store::StoreError::Backup(why) => Error::Invalid(why),
        other => other.into(),
    }
}

/// A folder that is gone when it is dropped.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(near: &Path) -> Result<Self, Error> {
        let path = near.join(format!(".bellwether-scratch-{}", random_hex::<8>()?));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| folder::failed(&path, &e))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), cause = %error, "a scratch folder was left behind");
        }
    }
}
