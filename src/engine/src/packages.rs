//! The package store: files that devices install, and the tokens with which they fetch them (AT-37, AT-56).
//!
//! Content stands in the database in pieces of 1 MiB under its SHA-256 (docs/adr/0008). No name that anybody sends ever
//! becomes a path.

use crate::error::Error;
use crate::links;
use crate::permit::{Permit, may};
use crate::vault::new_uuid;
use crate::views::{Listed, PackageView, next_page};
use crate::{Engine, audit};
use bellwether_certs::hash::{hex, sha256};
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{EnrollmentId, EventKind, PackageId, PackageKind, SiteId, Timestamp};
use bellwether_store::Scope;
use bellwether_store::records::{Package, PackageGrant, Page};
use secrecy::SecretString;
use std::sync::Arc;

/// Bytes of one piece of content.
const PIECE: usize = 1024 * 1024;
/// Pieces written in one transaction: other writers wait for at most so much.
const PIECES_AT_ONCE: usize = 16;
/// How long a device may fetch what it was told to install. Installers retry for days.
const TOKEN_LIFE: i64 = 31 * DAY;
/// What tokens are hashed for.
const TOKEN_PURPOSE: &str = "package-token";
/// Pieces without a package this old belong to no upload that still runs.
const UNFINISHED: i64 = 12 * HOUR;
/// What files of Windows Installer begin with (compound files, [MS-CFB] 2.2).
const COMPOUND_FILE: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
/// What ZIP files begin with.
const ZIP: &[u8] = b"PK\x03\x04";

/// What is said about a file that is uploaded.
#[derive(Clone, Debug)]
pub struct NewPackage {
    /// What kind of file it is.
    pub kind: PackageKind,
    /// For people; also the base of the file name that devices see.
    pub name: String,
    /// Product code of an MSI (`{…}`), package family name of an MSIX.
    pub product: String,
    /// One to four numbers with dots.
    pub version: String,
}

/// A file that a token opens. Holds no bytes: [`Engine::package_piece`] reads them.
#[derive(Clone, Debug)]
pub struct PackageFile {
    site: SiteId,
    /// SHA-256.
    pub sha256: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// What kind of file.
    pub kind: PackageKind,
    /// Name, as the admin wrote it.
    pub name: String,
}

impl Engine {
    /// Stores a file. The edge has bounded its size.
    pub async fn upload_package(
        &self,
        permit: &Permit<may::WritePackages>,
        new: NewPackage,
        bytes: Vec<u8>,
    ) -> Result<PackageView, Error> {
        let now = self.now();
        let new = checked(new, &bytes)?;
        let (bytes, digest) = blocking(move || {
            let digest = sha256(&bytes).to_vec();
            (Arc::new(bytes), digest)
        })
        .await?;
        let row = Package {
            id: PackageId(new_uuid(now)?),
            kind: new.kind,
            name: new.name,
            product: new.product,
            version: new.version,
            sha256: digest.clone(),
            size: i64::try_from(bytes.len()).map_err(|_| Error::Invalid("the file is too large".into()))?,
            created_at: now,
            created_by: permit.actor.to_string(),
        };
        self.write_content(permit.site, &digest, &bytes, now).await?;
        let entry = audit::entry(
            now,
            &permit.actor,
            EventKind::PackageUploaded,
            &format!("package:{}", row.id),
            permit.source.as_deref(),
            Some(serde_json::json!({
                "kind": row.kind, "name": row.name, "product": row.product, "version": row.version,
                "sha256": hex(&row.sha256), "size": row.size,
            })),
        )?;
        let (stored, pieces) = (row.clone(), bytes.len().div_ceil(PIECE) as i64);
        self.store
            .write(Scope::Site(permit.site), move |tx| {
                // Whoever deleted the last package with this content meanwhile took the pieces along.
                if tx.package_chunk_count(&stored.sha256)? != pieces {
                    return Err(Error::Conflict(
                        "the same file was deleted while it was uploaded; upload it again".into(),
                    ));
                }
                tx.package_insert(&stored)?;
                tx.audit_append(&entry)?;
                Ok(())
            })
            .await?;
        Ok(view(row))
    }

    async fn write_content(
        &self,
        site: SiteId,
        digest: &[u8],
        bytes: &Arc<Vec<u8>>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let pieces = bytes.len().div_ceil(PIECE);
        for first in (0..pieces).step_by(PIECES_AT_ONCE) {
            let (digest, bytes) = (digest.to_vec(), Arc::clone(bytes));
            self.store
                .write(Scope::Site(site), move |tx| {
                    let some = bytes.chunks(PIECE).enumerate().skip(first).take(PIECES_AT_ONCE);
                    for (ordinal, piece) in some {
                        tx.package_chunk_put(&digest, ordinal_of(ordinal)?, piece, now)?;
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        Ok(())
    }

    /// A page of packages, newest first.
    pub async fn packages(
        &self,
        permit: &Permit<may::ReadPackages>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<PackageView>, Error> {
        self.store
            .read(Scope::Site(permit.site), move |tx| {
                let rows = tx.packages(&Page { after: cursor.clone(), limit })?;
                let next = next_page(&rows, limit, |row| row.id.as_bytes());
                Ok(Listed { items: rows.into_iter().map(view).collect(), next })
            })
            .await
    }

    /// One package.
    pub async fn package(
        &self,
        permit: &Permit<may::ReadPackages>,
        id: PackageId,
    ) -> Result<PackageView, Error> {
        self.package_info(permit.site, id).await?.map(view).ok_or(Error::NotFound("package"))
    }

    /// Deletes a package. Every token for it is refused from now on; a transfer that goes on breaks off, unless another
    /// package has the same content.
    pub async fn delete_package(
        &self,
        permit: &Permit<may::WritePackages>,
        id: PackageId,
    ) -> Result<PackageView, Error> {
        let row = self.package_info(permit.site, id).await?.ok_or(Error::NotFound("package"))?;
        let entry = audit::entry(
            self.now(),
            &permit.actor,
            EventKind::PackageDeleted,
            &format!("package:{id}"),
            permit.source.as_deref(),
            Some(serde_json::json!({ "name": row.name, "version": row.version, "sha256": hex(&row.sha256) })),
        )?;
        self.store
            .write(Scope::Site(permit.site), move |tx| {
                if tx.package(id)?.is_none() {
                    return Err(Error::NotFound("package"));
                }
                tx.package_delete(id)?;
                tx.audit_append(&entry)?;
                Ok(())
            })
            .await?;
        // In pieces, so that nobody waits long for the writer. What a crash leaves is swept up like half uploads.
        loop {
            let digest = row.sha256.clone();
            let gone = self
                .store
                .write(Scope::Site(permit.site), move |tx| {
                    tx.package_content_drop(&digest).map_err(Error::from)
                })
                .await?;
            if gone == 0 {
                return Ok(view(row));
            }
        }
    }

    /// A package as planning needs it.
    pub(crate) async fn package_info(&self, site: SiteId, id: PackageId) -> Result<Option<Package>, Error> {
        self.store.read(Scope::Site(site), move |tx| tx.package(id).map_err(Error::from)).await
    }

    /// Lets an enrollment fetch a package without a command that installs it: for programs that embed this
    /// engine and for tests. No route leads here. Commands make their own tokens.
    pub async fn grant_package(
        &self,
        permit: &Permit<may::WritePackages>,
        package: PackageId,
        enrollment: EnrollmentId,
    ) -> Result<SecretString, Error> {
        let (token, grant) = self.mint_package_token(package, enrollment, self.now())?;
        self.store
            .write(Scope::Site(permit.site), move |tx| {
                tx.package(package)?.ok_or(Error::NotFound("package"))?;
                tx.enrollment(enrollment)?.ok_or(Error::NotFound("enrollment"))?;
                tx.package_grant_insert(&grant).map_err(Error::from)
            })
            .await?;
        Ok(token)
    }

    /// A fresh token with which one enrollment may fetch one package from `/packages/{token}`. It works once its row was
    /// inserted (`tx.package_grant_insert`), in the transaction that hands the URL out.
    pub(crate) fn mint_package_token(
        &self,
        package: PackageId,
        enrollment: EnrollmentId,
        now: Timestamp,
    ) -> Result<(SecretString, PackageGrant), Error> {
        let (token, token_hash) = links::mint(&self.vault, TOKEN_PURPOSE)?;
        let grant = PackageGrant {
            token_hash,
            package_id: package,
            enrollment_id: enrollment,
            created_at: now,
            expires_at: now.plus(TOKEN_LIFE),
        };
        Ok((token, grant))
    }

    /// The file behind a token. `None` for every reason not to give it: unknown, expired, the enrollment has ended, the
    /// package is gone, or the client certificate of the connection is another device's.
    pub async fn package_by_token(
        &self,
        token: &str,
        tls_certificate: Option<&[u8]>,
    ) -> Result<Option<PackageFile>, Error> {
        let Some(hash) = links::hash(&self.vault, TOKEN_PURPOSE, token) else { return Ok(None) };
        let now = self.now();
        let fingerprint = tls_certificate.map(sha256);
        let granted = self
            .store
            .read(Scope::System, move |tx| {
                let Some((site, grant)) = tx.package_grant_by_hash(&hash)? else { return Ok(None) };
                let own = links::may_use(
                    tx,
                    fingerprint.as_ref().map(<[u8; 32]>::as_slice),
                    site,
                    grant.enrollment_id,
                )?;
                Ok::<_, Error>((own && grant.expires_at > now).then_some((site, grant)))
            })
            .await?;
        let Some((site, grant)) = granted else { return Ok(None) };
        self.store
            .read(Scope::Site(site), move |tx| {
                if !links::is_active(tx, grant.enrollment_id)? {
                    return Ok(None);
                }
                Ok(tx.package(grant.package_id)?.map(|package| PackageFile {
                    site,
                    sha256: package.sha256,
                    size: u64::try_from(package.size).unwrap_or_default(),
                    kind: package.kind,
                    name: package.name,
                }))
            })
            .await
    }

    /// The bytes of a file from `offset` on, at most to `end` and to the end of the stored piece: call again with what is
    /// left. Never more than 1 MiB in memory.
    pub async fn package_piece(&self, file: &PackageFile, offset: u64, end: u64) -> Result<Vec<u8>, Error> {
        let end = end.min(file.size);
        let piece = PIECE as u64;
        let (site, digest) = (file.site, file.sha256.clone());
        let ordinal = i32::try_from(offset / piece).map_err(|_| Error::NotFound("piece"))?;
        let mut bytes = self
            .store
            .read(Scope::Site(site), move |tx| tx.package_chunk(&digest, ordinal).map_err(Error::from))
            .await?
            .ok_or(Error::NotFound("piece"))?;
        let from = usize::try_from(offset % piece).unwrap_or(usize::MAX).min(bytes.len());
        let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        bytes.drain(..from);
        bytes.truncate(wanted);
        if bytes.is_empty() && wanted > 0 {
            return Err(Error::Internal("a piece of a package is too short".into()));
        }
        Ok(bytes)
    }

    /// Forgets tokens that are over, and what uploads left behind that never ended.
    pub(crate) async fn sweep_packages(&self, now: Timestamp) -> Result<(), Error> {
        loop {
            let gone = self
                .store
                .write(Scope::System, move |tx| tx.package_grants_purge(now).map_err(Error::from))
                .await?;
            if gone == 0 {
                break;
            }
        }
        let before = now.plus(-UNFINISHED);
        loop {
            let gone = self
                .store
                .write(Scope::System, move |tx| tx.package_chunks_purge(before).map_err(Error::from))
                .await?;
            if gone == 0 {
                return Ok(());
            }
        }
    }
}

/// The description in its one spelling, or what is wrong with it.
fn checked(new: NewPackage, bytes: &[u8]) -> Result<NewPackage, Error> {
    let wrong = |text: &str| Err(Error::Invalid(text.to_owned()));
    let name = new.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return wrong("a package needs a name of 1 to 100 printable characters");
    }
    let version = new.version.trim().to_owned();
    let numbers: Vec<&str> = version.split('.').collect();
    let number = |n: &&str| n.len() <= 5 && n.bytes().all(|b| b.is_ascii_digit()) && n.parse::<u16>().is_ok();
    if numbers.len() > 4 || !numbers.iter().all(number) {
        return wrong("a version is one to four numbers of at most 65535 with dots, such as 1.2.3");
    }
    let product = match new.kind {
        PackageKind::Msi => product_code(new.product.trim()),
        PackageKind::Msix => family_name(new.product.trim()),
    };
    let Some(product) = product else {
        return wrong(match new.kind {
            PackageKind::Msi => {
                "the product of an MSI is its product code, {XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}"
            }
            PackageKind::Msix => {
                "the product of an MSIX is its package family name, such as Name_8wekyb3d8bbwe"
            }
        });
    };
    match new.kind {
        PackageKind::Msi if !bytes.starts_with(COMPOUND_FILE) => {
            wrong("this file is no MSI: it does not begin as a file of Windows Installer does")
        }
        PackageKind::Msix if !bytes.starts_with(ZIP) => {
            wrong("this file is no MSIX: it does not begin as a ZIP file does")
        }
        _ => Ok(NewPackage { kind: new.kind, name, product, version }),
    }
}

/// `{GUID}` in upper case.
fn product_code(text: &str) -> Option<String> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let uuid = (inner.len() == 36).then(|| uuid::Uuid::try_parse(inner).ok()).flatten()?;
    Some(uuid.braced().to_string().to_uppercase())
}

/// `<name>_<hash of the publisher>`: 3 to 50 letters, and 13 of base 32.
fn family_name(text: &str) -> Option<String> {
    let (name, publisher) = text.rsplit_once('_')?;
    let named = (3..=50).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    let published = publisher.len() == 13 && publisher.bytes().all(|b| b.is_ascii_alphanumeric());
    (named && published).then(|| text.to_owned())
}

fn ordinal_of(index: usize) -> Result<i32, Error> {
    i32::try_from(index).map_err(|_| Error::Invalid("the file is too large".into()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(e.to_string()))
}

fn view(row: Package) -> PackageView {
    PackageView {
        id: row.id,
        kind: row.kind,
        name: row.name,
        product: row.product,
        version: row.version,
        sha256: hex(&row.sha256),
        size: row.size,
        created_at: row.created_at,
        created_by: row.created_by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kind: PackageKind, product: &str) -> NewPackage {
        NewPackage { kind, name: " Tool ".into(), product: product.into(), version: "1.2.3".into() }
    }

    #[test]
    fn descriptions_get_one_spelling_and_nonsense_is_refused() {
        let code = "{0190a5d0-0000-7000-8000-00000000abcd}";
        let msi = checked(new(PackageKind::Msi, code), COMPOUND_FILE).unwrap();
        assert_eq!(
            (msi.name.as_str(), msi.product.as_str()),
            ("Tool", "{0190A5D0-0000-7000-8000-00000000ABCD}")
        );
        let family = "Contoso.Tool_8wekyb3d8bbwe";
        assert_eq!(checked(new(PackageKind::Msix, family), ZIP).unwrap().product, family);
        for wrong in ["", "0190a5d0-0000-7000-8000-00000000abcd", "{}", "{x}", "{../../etc}", family] {
            assert!(checked(new(PackageKind::Msi, wrong), COMPOUND_FILE).is_err(), "{wrong}");
        }
        for wrong in ["", code, "Tool_8wekyb3d8bbwe/../x", "a_8wekyb3d8bbwe", "Contoso_short"] {
            assert!(checked(new(PackageKind::Msix, wrong), ZIP).is_err(), "{wrong}");
        }
        assert!(checked(new(PackageKind::Msi, code), ZIP).is_err());
        assert!(checked(new(PackageKind::Msi, code), b"").is_err());
        assert!(checked(new(PackageKind::Msix, family), COMPOUND_FILE).is_err());
        for version in ["", "1.", ".1", "1.2.3.4.5", "1.x", "65536", "+1", "1.2.-3"] {
            let wish = NewPackage { version: version.into(), ..new(PackageKind::Msi, code) };
            assert!(checked(wish, COMPOUND_FILE).is_err(), "{version}");
        }
        for name in ["", "  ", "a\nb", &"x".repeat(101)] {
            let wish = NewPackage { name: name.into(), ..new(PackageKind::Msi, code) };
            assert!(checked(wish, COMPOUND_FILE).is_err(), "{name:?}");
        }
    }
}
