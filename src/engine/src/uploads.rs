//! What devices send us: one file for one command, to an address that is made for it (AT-37, AT-51, AT-56).
//!
//! The bytes are nobody's friends. They are sealed piece by piece as they come, never read, never unpacked, and given
//! to administrators as they are. No name that a device sends is kept.

use crate::error::Error;
use crate::links::{self, is_active};
use crate::permit::{Permit, may};
use crate::views::UploadView;
use crate::{Engine, audit};
use bellwether_certs::hash::{RunningSha256, hex, random_bytes, sha256};
use bellwether_certs::seal::{SealContext, SiteKey};
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{Actor, CommandId, EnrollmentId, EventKind, PartId, SiteId, Timestamp};
use bellwether_store::Scope;
use bellwether_store::records::Upload;
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;

/// Bytes of one piece. Every piece but the last has so many.
pub const UPLOAD_PIECE: usize = 1024 * 1024;
/// How long after a hand-over an upload may begin.
pub(crate) const TOKEN_LIFE: i64 = DAY;
/// What has begun may go on for so long after the token's time.
const GRACE: i64 = HOUR;
/// Uploads that are kept of one enrollment; the oldest makes room.
const MOST_OF_ENROLLMENT: i64 = 10;
/// What tokens are hashed for.
const TOKEN_PURPOSE: &str = "upload-token";

/// What devices may send.
#[derive(Clone, Copy, Debug)]
pub struct UploadRules {
    /// Bytes of one upload.
    pub largest: u64,
    /// Bytes of all uploads that are kept or on their way.
    pub total: u64,
    /// Milliseconds that an upload is kept.
    pub keep: i64,
}

impl Default for UploadRules {
    fn default() -> Self {
        Self { largest: 256 << 20, total: 10 << 30, keep: 30 * DAY }
    }
}

/// What becomes of a request to upload, before a byte of it is read.
pub enum Opening {
    /// Unknown, over, used, or not this device's: nobody learns which.
    Refused,
    /// It says that it is larger than an upload may be.
    TooLarge,
    /// There is no room for it.
    Full,
    /// Its pieces may come.
    Open(Box<Arriving>),
}

/// An upload that is on its way.
pub struct Arriving {
    site: SiteId,
    part: PartId,
    command: CommandId,
    enrollment: EnrollmentId,
    attempt: [u8; 16],
    key: Arc<SiteKey>,
    digest: RunningSha256,
    /// Bytes that are set aside.
    most: u64,
    size: u64,
    pieces: i32,
}

impl Arriving {
    /// The most bytes that may come.
    pub fn most(&self) -> u64 {
        self.most
    }
}

/// An upload that is whole. Holds no bytes: [`Engine::stored_piece`] reads them.
#[derive(Clone, Debug)]
pub struct StoredUpload {
    site: SiteId,
    part: PartId,
    attempt: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Vec<u8>,
}

impl Engine {
    /// A fresh token with which one enrollment may send one file to `/uploads/{token}`. It works once its row was
    /// inserted, in the transaction that hands the URL out.
    pub(crate) fn mint_upload_token(
        &self,
        (part_id, command_id): (PartId, CommandId),
        enrollment_id: EnrollmentId,
        now: Timestamp,
    ) -> Result<(SecretString, Upload), Error> {
        let (token, token_hash) = links::mint(&self.vault, TOKEN_PURPOSE)?;
        let row = Upload {
            part_id,
            command_id,
            enrollment_id,
            token_hash,
            created_at: now,
            expires_at: now.plus(TOKEN_LIFE),
            attempt: None,
            size: 0,
            sha256: None,
            received_at: None,
        };
        Ok((token, row))
    }

    /// Decides about an upload before it is read. An attempt that runs with the same token is over when this one begins:
    /// who tries again need not wait for the broken one.
    pub async fn open_upload(
        &self,
        token: &str,
        tls_certificate: Option<&[u8]>,
        announced: Option<u64>,
    ) -> Result<Opening, Error> {
        let Some((site, row)) = self.upload_by_token(token, tls_certificate).await? else {
            return Ok(Opening::Refused);
        };
        let rules = self.settings.uploads;
        if announced.is_some_and(|bytes| bytes > rules.largest) {
            return Ok(Opening::TooLarge);
        }
        let arriving = Arriving {
            site,
            part: row.part_id,
            command: row.command_id,
            enrollment: row.enrollment_id,
            attempt: random_bytes::<16>()?,
            key: self.vault.site(site)?,
            digest: RunningSha256::new(),
            most: announced.unwrap_or(rules.largest),
            size: 0,
            pieces: 0,
        };
        let (part, attempt, most, now) = (arriving.part, arriving.attempt, arriving.most, self.now());
        let begun = self
            .store
            .write(Scope::System, move |tx| {
                let held = u64::try_from(tx.uploads_held(part)?).unwrap_or_default();
                if held.saturating_add(most) > rules.total {
                    return Ok(None);
                }
                Ok::<_, Error>(Some(tx.upload_begin(site, part, &attempt, counted(most)?, now)?))
            })
            .await?;
        match begun {
            None => {
                tracing::warn!(%part, "no room for an upload: see uploads.total_bytes");
                Ok(Opening::Full)
            }
            Some(false) => Ok(Opening::Refused),
            Some(true) => {
                self.drop_stale_pieces(site, part).await?;
                Ok(Opening::Open(Box::new(arriving)))
            }
        }
    }

    /// The row behind a token that may still be used. `None` for every reason not to: unknown, expired, used, the
    /// enrollment has ended, or the client certificate of the connection is another device's.
    async fn upload_by_token(
        &self,
        token: &str,
        tls_certificate: Option<&[u8]>,
    ) -> Result<Option<(SiteId, Upload)>, Error> {
        let Some(hash) = links::hash(&self.vault, TOKEN_PURPOSE, token) else { return Ok(None) };
        let now = self.now();
        let fingerprint = tls_certificate.map(sha256);
        let granted = self
            .store
            .read(Scope::System, move |tx| {
                let Some((site, row)) = tx.upload_by_hash(&hash)? else { return Ok(None) };
                let own = links::may_use(
                    tx,
                    fingerprint.as_ref().map(<[u8; 32]>::as_slice),
                    site,
                    row.enrollment_id,
                )?;
                let open = row.received_at.is_none() && row.expires_at > now;
                Ok::<_, Error>((own && open).then_some((site, row)))
            })
            .await?;
        let Some((site, row)) = granted else { return Ok(None) };
        let enrollment = row.enrollment_id;
        let active = self.store.read(Scope::Site(site), move |tx| is_active(tx, enrollment)).await?;
        Ok(active.then_some((site, row)))
    }

    /// Seals and stores the next piece: [`UPLOAD_PIECE`] bytes, or fewer if it is the last.
    pub async fn upload_piece(&self, arriving: &mut Arriving, piece: Vec<u8>) -> Result<(), Error> {
        arriving.size = arriving.size.saturating_add(piece.len() as u64);
        if arriving.size > arriving.most || piece.len() > UPLOAD_PIECE {
            return Err(Error::Invalid("an upload is larger than it said".into()));
        }
        let (key, attempt, ordinal) = (Arc::clone(&arriving.key), arriving.attempt, arriving.pieces);
        let mut digest = std::mem::take(&mut arriving.digest);
        let (digest, sealed) = tokio::task::spawn_blocking(move || {
            digest.update(&piece);
            let field = field_of(ordinal);
            (digest, key.seal(&SealContext { kind: KIND, id: &attempt, field: &field }, &piece))
        })
        .await
        .map_err(|e| Error::Internal(e.to_string()))?;
        arriving.digest = digest;
        let (part, sealed) = (arriving.part, sealed?);
        let stored = self
            .store
            .write(Scope::Site(arriving.site), move |tx| {
                tx.upload_piece_put(part, &attempt, ordinal, &sealed).map_err(Error::from)
            })
            .await?;
        if !stored {
            return Err(overtaken());
        }
        arriving.pieces = ordinal.saturating_add(1);
        Ok(())
    }

    /// Every piece is there: the upload is received and its token used.
    pub async fn receive_upload(&self, arriving: &Arriving, source: Option<&str>) -> Result<(), Error> {
        if arriving.size == 0 {
            return Err(Error::Invalid("nothing was sent".into()));
        }
        let now = self.now();
        let digest = arriving.digest.clone().finish();
        let target = format!("command:{}", arriving.command);
        let actor = Actor::Device(arriving.enrollment.to_string());
        let details = serde_json::json!({ "size": arriving.size, "sha256": hex(&digest) });
        let entry =
            audit::entry(now, &actor, EventKind::UploadReceived, &target, source, Some(details.clone()))?;
        let event = audit::event(now, EventKind::UploadReceived, &target, &details)?;
        let (site, part, attempt) = (arriving.site, arriving.part, arriving.attempt);
        let (enrollment, pieces, size) =
            (arriving.enrollment, i64::from(arriving.pieces), counted(arriving.size)?);
        let crowded_out = self
            .store
            .write(Scope::Site(site), move |tx| {
                if !is_active(tx, enrollment)?
                    || !tx.upload_receive(part, &attempt, pieces, size, &digest, now)?
                {
                    return Err(overtaken());
                }
                let crowded_out = tx.uploads_keep_newest(enrollment, MOST_OF_ENROLLMENT)?;
                tx.audit_append(&entry)?;
                tx.event_append(&event)?;
                Ok(crowded_out)
            })
            .await?;
        for part in crowded_out {
            if let Err(error) = self.drop_stale_pieces(site, part).await {
                tracing::warn!(cause = %error, "older uploads wait for the sweeper");
            }
        }
        Ok(())
    }

    /// An upload that broke. What came of it is deleted; the token is as good as before.
    pub async fn abandon_upload(&self, arriving: &Arriving) -> Result<(), Error> {
        let (part, attempt) = (arriving.part, arriving.attempt);
        self.store
            .write(Scope::Site(arriving.site), move |tx| {
                tx.upload_abandon(part, &attempt).map_err(Error::from)
            })
            .await?;
        self.drop_stale_pieces(arriving.site, part).await
    }

    /// What a command's device sent. Audited before anybody gets a byte.
    pub async fn stored_upload(
        &self,
        permit: &Permit<may::RevealSecrets>,
        command: CommandId,
    ) -> Result<StoredUpload, Error> {
        let site = permit.site;
        let row = self
            .store
            .read(Scope::Site(site), move |tx| {
                tx.command(command)?.ok_or(Error::NotFound("command"))?;
                tx.upload_of_command(command).map_err(Error::from)
            })
            .await?;
        let stored =
            row.and_then(|row| stored(site, row)).ok_or(Error::NotFound("upload of this command"))?;
        let entry = audit::entry(
            self.now(),
            &permit.actor,
            EventKind::UploadDownloaded,
            &format!("command:{command}"),
            permit.source.as_deref(),
            Some(serde_json::json!({ "size": stored.size, "sha256": hex(&stored.sha256) })),
        )?;
        self.store.write(Scope::Site(site), move |tx| tx.audit_append(&entry).map_err(Error::from)).await?;
        Ok(stored)
    }

    /// The piece of an upload that begins at `offset`, a multiple of [`UPLOAD_PIECE`].
    pub async fn stored_piece(&self, upload: &StoredUpload, offset: u64) -> Result<Vec<u8>, Error> {
        let ordinal = i32::try_from(offset / UPLOAD_PIECE as u64).map_err(|_| Error::NotFound("piece"))?;
        let (part, attempt) = (upload.part, upload.attempt.clone());
        let sealed = self
            .store
            .read(Scope::Site(upload.site), move |tx| {
                tx.upload_piece(part, &attempt, ordinal).map_err(Error::from)
            })
            .await?
            .ok_or(Error::NotFound("piece"))?;
        let (key, attempt) = (self.vault.site(upload.site)?, upload.attempt.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let field = field_of(ordinal);
            key.open(&SealContext { kind: KIND, id: &attempt, field: &field }, &sealed)
        })
        .await
        .map_err(|e| Error::Internal(e.to_string()))??;
        Ok(opened.expose_secret().clone())
    }

    /// Deletes what was kept long enough, and what uploads left behind that never ended.
    pub(crate) async fn sweep_uploads(&self, now: Timestamp) -> Result<(), Error> {
        let (kept, expired) = (now.plus(-self.settings.uploads.keep), now.plus(-GRACE));
        while self
            .store
            .write(Scope::System, move |tx| tx.uploads_expire(kept, expired).map_err(Error::from))
            .await?
            > 0
        {}
        while self.store.write(Scope::System, |tx| tx.upload_pieces_purge().map_err(Error::from)).await? > 0 {
        }
        Ok(())
    }

    async fn drop_stale_pieces(&self, site: SiteId, part: PartId) -> Result<(), Error> {
        while self
            .store
            .write(Scope::Site(site), move |tx| tx.upload_pieces_drop(part).map_err(Error::from))
            .await?
            > 0
        {}
        Ok(())
    }
}

/// What pieces are sealed as.
const KIND: &str = "upload";

/// A piece is sealed for its place: in another one, or of another attempt, it cannot be opened.
fn field_of(ordinal: i32) -> String {
    format!("piece:{ordinal}")
}

fn counted(bytes: u64) -> Result<i64, Error> {
    i64::try_from(bytes).map_err(|_| Error::Invalid("the upload is too large".into()))
}

fn overtaken() -> Error {
    Error::Conflict("the upload is over: it was begun again, received, or the enrollment has ended".into())
}

fn stored(site: SiteId, row: Upload) -> Option<StoredUpload> {
    row.received_at?;
    Some(StoredUpload {
        site,
        part: row.part_id,
        attempt: row.attempt?,
        size: u64::try_from(row.size).ok()?,
        sha256: row.sha256?,
    })
}

/// As administrators see it; none when nothing came, or nothing is kept any more.
pub(crate) fn view(row: Upload) -> Option<UploadView> {
    row.attempt?;
    Some(UploadView { size: row.size, received_at: row.received_at?, sha256: hex(&row.sha256?) })
}
