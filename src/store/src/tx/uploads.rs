//! Uploads: who may send one file, the pieces of what came, and when they go.
//!
//! A row has one attempt at a time. Only its pieces count; those of others are left for [`Tx::upload_pieces_drop`] and
//! [`Tx::upload_pieces_purge`], in small transactions.

use super::Tx;
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::{Cell as _, row};
use crate::records::Upload;
use crate::schema::{upload_pieces, uploads};
use bellwether_model::{CommandId, EnrollmentId, PartId, SiteId, Timestamp};
use diesel::prelude::*;

/// Site, part, attempt, ordinal.
type PieceKey = (Vec<u8>, Vec<u8>, Vec<u8>, i32);

/// Pieces that are deleted in one transaction: each has up to 1 MiB.
const DROPPED_PIECES: i64 = 64;

row!(UploadRow: Upload in uploads key (part_id) {
    part_id: PartId,
    command_id: CommandId,
    enrollment_id: EnrollmentId,
    token_hash: Vec<u8>,
    created_at: Timestamp,
    expires_at: Timestamp,
    attempt: Option<Vec<u8>>,
    size: i64,
    sha256: Option<Vec<u8>>,
    received_at: Option<Timestamp>,
});

impl Tx<'_> {
    /// Site. The token's hash is unique over the server.
    pub fn upload_insert(&mut self, upload: &Upload) -> Result<(), StoreError> {
        self.in_site("upload_insert", |conn, site| {
            diesel::insert_into(uploads::table).values(UploadRow::of(site, upload)).run(conn)?;
            Ok(())
        })
    }

    /// Site. What has not come yet may begin until then, if that is later.
    pub fn upload_prolong(&mut self, part: PartId, until: Timestamp) -> Result<(), StoreError> {
        self.in_site("upload_prolong", |conn, site| {
            let target = uploads::table
                .filter(uploads::site_id.eq(site))
                .filter(uploads::part_id.eq(part.raw()))
                .filter(uploads::received_at.is_null())
                .filter(uploads::expires_at.lt(until.0));
            diesel::update(target).set(uploads::expires_at.eq(until.0)).run(conn)?;
            Ok(())
        })
    }

    /// System. Whoever has a token has no site yet.
    pub fn upload_by_hash(&mut self, hash: &[u8]) -> Result<Option<(SiteId, Upload)>, StoreError> {
        self.in_system("upload_by_hash", |conn| {
            let row = uploads::table
                .filter(uploads::token_hash.eq(hash))
                .select(UploadRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(UploadRow::with_site).transpose()
        })
    }

    /// System. Bytes of all that is kept or set aside, the part's own left out.
    pub fn uploads_held(&mut self, except: PartId) -> Result<i64, StoreError> {
        self.in_system("uploads_held", |conn| {
            let sizes: Vec<i64> = uploads::table
                .filter(uploads::attempt.is_not_null())
                .filter(uploads::part_id.ne(except.raw()))
                .select(uploads::size)
                .load(conn)?;
            Ok(sizes.into_iter().fold(0, i64::saturating_add))
        })
    }

    /// A site's. Begins an attempt and sets bytes aside for it; an attempt that runs is over with that. False when the
    /// upload was received or its time is over.
    pub fn upload_begin(
        &mut self,
        site: SiteId,
        part: PartId,
        attempt: &[u8],
        size: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.in_named_site("upload_begin", site, |conn, site| {
            let target = uploads::table
                .filter(uploads::site_id.eq(site))
                .filter(uploads::part_id.eq(part.raw()))
                .filter(uploads::received_at.is_null())
                .filter(uploads::expires_at.gt(now.0));
            let begun = diesel::update(target)
                .set((uploads::attempt.eq(attempt), uploads::size.eq(size)))
                .run(conn)?;
            Ok(begun > 0)
        })
    }

    /// Site. One sealed piece. False when the attempt is not the running one.
    pub fn upload_piece_put(
        &mut self,
        part: PartId,
        attempt: &[u8],
        ordinal: i32,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        self.in_site("upload_piece_put", |conn, site| {
            let running: i64 = uploads::table
                .filter(uploads::site_id.eq(site))
                .filter(uploads::part_id.eq(part.raw()))
                .filter(uploads::attempt.eq(attempt))
                .filter(uploads::received_at.is_null())
                .count()
                .get_result(conn)?;
            if running == 0 {
                return Ok(false);
            }
            diesel::insert_into(upload_pieces::table)
                .values((
                    upload_pieces::site_id.eq(site),
                    upload_pieces::part_id.eq(part.raw()),
                    upload_pieces::attempt.eq(attempt),
                    upload_pieces::ordinal.eq(ordinal),
                    upload_pieces::bytes.eq(bytes),
                ))
                .run(conn)?;
            Ok(true)
        })
    }

    /// Site. The running attempt is whole: the token is used. False when it is not the running one, or when pieces are
    /// missing.
    pub fn upload_receive(
        &mut self,
        part: PartId,
        attempt: &[u8],
        pieces: i64,
        size: i64,
        sha256: &[u8],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.in_site("upload_receive", |conn, site| {
            let stored: i64 = upload_pieces::table
                .filter(upload_pieces::site_id.eq(site))
                .filter(upload_pieces::part_id.eq(part.raw()))
                .filter(upload_pieces::attempt.eq(attempt))
                .count()
                .get_result(conn)?;
            if stored != pieces {
                return Ok(false);
            }
            let target = uploads::table
                .filter(uploads::site_id.eq(site))
                .filter(uploads::part_id.eq(part.raw()))
                .filter(uploads::attempt.eq(attempt))
                .filter(uploads::received_at.is_null());
            let received = diesel::update(target)
                .set((uploads::size.eq(size), uploads::sha256.eq(sha256), uploads::received_at.eq(now.0)))
                .run(conn)?;
            Ok(received > 0)
        })
    }

    /// Site. An attempt that broke: its pieces no longer count.
    pub fn upload_abandon(&mut self, part: PartId, attempt: &[u8]) -> Result<(), StoreError> {
        self.in_site("upload_abandon", |conn, site| {
            let target = uploads::table
                .filter(uploads::site_id.eq(site))
                .filter(uploads::part_id.eq(part.raw()))
                .filter(uploads::attempt.eq(attempt))
                .filter(uploads::received_at.is_null());
            diesel::update(target)
                .set((uploads::attempt.eq(None::<Vec<u8>>), uploads::size.eq(0)))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site. Of what an enrollment sent, only the newest are kept: the parts of the others, whose pieces no longer
    /// count.
    pub fn uploads_keep_newest(
        &mut self,
        enrollment: EnrollmentId,
        most: i64,
    ) -> Result<Vec<PartId>, StoreError> {
        self.in_site("uploads_keep_newest", |conn, site| {
            let older: Vec<Vec<u8>> = uploads::table
                .filter(uploads::site_id.eq(site))
                .filter(uploads::enrollment_id.eq(enrollment.raw()))
                .filter(uploads::received_at.is_not_null())
                .filter(uploads::attempt.is_not_null())
                .order((uploads::received_at.desc(), uploads::part_id.desc()))
                .offset(most)
                .limit(500)
                .select(uploads::part_id)
                .load(conn)?;
            for part in &older {
                let target =
                    uploads::table.filter(uploads::site_id.eq(site)).filter(uploads::part_id.eq(part));
                diesel::update(target)
                    .set((uploads::attempt.eq(None::<Vec<u8>>), uploads::size.eq(0)))
                    .run(conn)?;
            }
            older.into_iter().map(PartId::cooked).collect()
        })
    }

    /// Site. Deletes pieces that do not count; how many, at most 64 in one call.
    pub fn upload_pieces_drop(&mut self, part: PartId) -> Result<i64, StoreError> {
        self.in_site("upload_pieces_drop", |conn, site| {
            let stale: Vec<(Vec<u8>, i32)> = upload_pieces::table
                .filter(upload_pieces::site_id.eq(site))
                .filter(upload_pieces::part_id.eq(part.raw()))
                .filter(diesel::dsl::not(diesel::dsl::exists(owners())))
                .limit(DROPPED_PIECES)
                .select((upload_pieces::attempt, upload_pieces::ordinal))
                .load(conn)?;
            for (attempt, ordinal) in &stale {
                drop_piece(conn, site, &part.raw(), attempt, *ordinal)?;
            }
            Ok(i64::try_from(stale.len()).unwrap_or(i64::MAX))
        })
    }

    /// Site. What a command's device was told to send. A command has one.
    pub fn upload_of_command(&mut self, command: CommandId) -> Result<Option<Upload>, StoreError> {
        self.in_site("upload_of_command", |conn, site| {
            let row = uploads::table
                .filter(uploads::site_id.eq(site))
                .filter(uploads::command_id.eq(command.raw()))
                .order(uploads::part_id)
                .select(UploadRow::as_select())
                .first(conn)
                .optional()?;
            row.map(UploadRow::record).transpose()
        })
    }

    /// Site. One sealed piece.
    pub fn upload_piece(
        &mut self,
        part: PartId,
        attempt: &[u8],
        ordinal: i32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.in_site("upload_piece", |conn, site| {
            Ok(upload_pieces::table
                .filter(upload_pieces::site_id.eq(site))
                .filter(upload_pieces::part_id.eq(part.raw()))
                .filter(upload_pieces::attempt.eq(attempt))
                .filter(upload_pieces::ordinal.eq(ordinal))
                .select(upload_pieces::bytes)
                .get_result(conn)
                .optional()?)
        })
    }

    /// System. Lets go of what was received before `kept`, and of attempts that never ended although their time was over
    /// before `expired`; how many, at most 500. Their pieces no longer count.
    pub fn uploads_expire(&mut self, kept: Timestamp, expired: Timestamp) -> Result<i64, StoreError> {
        self.in_system("uploads_expire", |conn| {
            let over: Vec<(Vec<u8>, Vec<u8>)> = uploads::table
                .filter(uploads::attempt.is_not_null())
                .filter(
                    uploads::received_at
                        .lt(kept.0)
                        .or(uploads::received_at.is_null().and(uploads::expires_at.lt(expired.0)).nullable()),
                )
                .limit(500)
                .select((uploads::site_id, uploads::part_id))
                .load(conn)?;
            for (site, part) in &over {
                let target =
                    uploads::table.filter(uploads::site_id.eq(site)).filter(uploads::part_id.eq(part));
                diesel::update(target)
                    .set((uploads::attempt.eq(None::<Vec<u8>>), uploads::size.eq(0)))
                    .run(conn)?;
            }
            Ok(i64::try_from(over.len()).unwrap_or(i64::MAX))
        })
    }

    /// System. Deletes pieces that do not count, of every site; how many, at most 64 in one call.
    pub fn upload_pieces_purge(&mut self) -> Result<i64, StoreError> {
        self.in_system("upload_pieces_purge", |conn| {
            let stale: Vec<PieceKey> = upload_pieces::table
                .filter(diesel::dsl::not(diesel::dsl::exists(owners())))
                .limit(DROPPED_PIECES)
                .select((
                    upload_pieces::site_id,
                    upload_pieces::part_id,
                    upload_pieces::attempt,
                    upload_pieces::ordinal,
                ))
                .load(conn)?;
            for (site, part, attempt, ordinal) in &stale {
                drop_piece(conn, site, part, attempt, *ordinal)?;
            }
            Ok(i64::try_from(stale.len()).unwrap_or(i64::MAX))
        })
    }
}

/// The upload for which a piece counts.
#[diesel::dsl::auto_type]
fn owners() -> _ {
    uploads::table
        .filter(uploads::site_id.eq(upload_pieces::site_id))
        .filter(uploads::part_id.eq(upload_pieces::part_id))
        .filter(uploads::attempt.eq(upload_pieces::attempt.nullable()))
}

fn drop_piece(
    conn: &mut crate::backend::Conn,
    site: &[u8],
    part: &[u8],
    attempt: &[u8],
    ordinal: i32,
) -> Result<(), StoreError> {
    let target = upload_pieces::table
        .filter(upload_pieces::site_id.eq(site))
        .filter(upload_pieces::part_id.eq(part))
        .filter(upload_pieces::attempt.eq(attempt))
        .filter(upload_pieces::ordinal.eq(ordinal));
    diesel::delete(target).run(conn)?;
    Ok(())
}
