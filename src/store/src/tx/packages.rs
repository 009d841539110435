//! Packages: rows, content by its hash, and who may fetch it.

use super::{Tx, before, found, limit};
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::{Cell as _, records, row};
use crate::records::{Package, PackageGrant, Page};
use crate::schema::{package_chunks, package_grants, packages};
use bellwether_model::{EnrollmentId, PackageId, PackageKind, SiteId, Timestamp};
use diesel::prelude::*;

/// Rows of content that one purge looks at: a row has up to 1 MiB.
const PURGED_CHUNKS: i64 = 64;

row!(PackageRow: Package in packages key (id) {
    id: PackageId,
    kind: PackageKind,
    name: String,
    product: String,
    version: String,
    sha256: Vec<u8>,
    size: i64,
    created_at: Timestamp,
    created_by: String,
});

row!(GrantRow: PackageGrant in package_grants key (token_hash) {
    token_hash: Vec<u8>,
    package_id: PackageId,
    enrollment_id: EnrollmentId,
    created_at: Timestamp,
    expires_at: Timestamp,
});

impl Tx<'_> {
    /// Site. Its content must be there already.
    pub fn package_insert(&mut self, package: &Package) -> Result<(), StoreError> {
        self.in_site("package_insert", |conn, site| {
            diesel::insert_into(packages::table).values(PackageRow::of(site, package)).run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn package(&mut self, id: PackageId) -> Result<Option<Package>, StoreError> {
        self.in_site("package", |conn, site| {
            let row = packages::table
                .filter(packages::site_id.eq(site))
                .filter(packages::id.eq(id.raw()))
                .select(PackageRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(PackageRow::record).transpose()
        })
    }

    /// Site. Newest first.
    pub fn packages(&mut self, page: &Page) -> Result<Vec<Package>, StoreError> {
        self.in_site("packages", |conn, site| {
            let rows: Vec<PackageRow> = packages::table
                .filter(packages::site_id.eq(site))
                .filter(packages::id.lt(before(page)))
                .order(packages::id.desc())
                .limit(limit(page))
                .select(PackageRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. The row and its grants. Its content is dropped afterwards, by [`Tx::package_content_drop`].
    pub fn package_delete(&mut self, id: PackageId) -> Result<(), StoreError> {
        self.in_site("package_delete", |conn, site| {
            let grants = package_grants::table
                .filter(package_grants::site_id.eq(site))
                .filter(package_grants::package_id.eq(id.raw()));
            diesel::delete(grants).run(conn)?;
            let target = packages::table.filter(packages::site_id.eq(site)).filter(packages::id.eq(id.raw()));
            let gone = diesel::delete(target).run(conn)?;
            found(gone, "package")
        })
    }

    /// Site. Deletes pieces of a content, unless a package of the site has it. How many, at most 64 in one call: a
    /// piece has up to 1 MiB, and others want to write as well.
    pub fn package_content_drop(&mut self, sha256: &[u8]) -> Result<i64, StoreError> {
        self.in_site("package_content_drop", |conn, site| {
            let owners: i64 = packages::table
                .filter(packages::site_id.eq(site))
                .filter(packages::sha256.eq(sha256))
                .count()
                .get_result(conn)?;
            if owners > 0 {
                return Ok(0);
            }
            let content = || {
                package_chunks::table
                    .filter(package_chunks::site_id.eq(site))
                    .filter(package_chunks::sha256.eq(sha256))
            };
            let some: Vec<i32> = content()
                .order(package_chunks::ordinal)
                .limit(PURGED_CHUNKS)
                .select(package_chunks::ordinal)
                .load(conn)?;
            for ordinal in &some {
                diesel::delete(content().filter(package_chunks::ordinal.eq(ordinal))).run(conn)?;
            }
            Ok(i64::try_from(some.len()).unwrap_or(i64::MAX))
        })
    }

    /// Site. One piece of a content; one that is there already stays, and counts as written now.
    pub fn package_chunk_put(
        &mut self,
        sha256: &[u8],
        ordinal: i32,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.in_site("package_chunk_put", |conn, site| {
            let target = package_chunks::table
                .filter(package_chunks::site_id.eq(site))
                .filter(package_chunks::sha256.eq(sha256))
                .filter(package_chunks::ordinal.eq(ordinal));
            let known = diesel::update(target).set(package_chunks::created_at.eq(now.0)).run(conn)?;
            if known > 0 {
                return Ok(());
            }
            diesel::insert_into(package_chunks::table)
                .values((
                    package_chunks::site_id.eq(site),
                    package_chunks::sha256.eq(sha256),
                    package_chunks::ordinal.eq(ordinal),
                    package_chunks::bytes.eq(bytes),
                    package_chunks::created_at.eq(now.0),
                ))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site. How many pieces of a content are there.
    pub fn package_chunk_count(&mut self, sha256: &[u8]) -> Result<i64, StoreError> {
        self.in_site("package_chunk_count", |conn, site| {
            Ok(package_chunks::table
                .filter(package_chunks::site_id.eq(site))
                .filter(package_chunks::sha256.eq(sha256))
                .count()
                .get_result(conn)?)
        })
    }

    /// Site. One piece of a content.
    pub fn package_chunk(&mut self, sha256: &[u8], ordinal: i32) -> Result<Option<Vec<u8>>, StoreError> {
        self.in_site("package_chunk", |conn, site| {
            Ok(package_chunks::table
                .filter(package_chunks::site_id.eq(site))
                .filter(package_chunks::sha256.eq(sha256))
                .filter(package_chunks::ordinal.eq(ordinal))
                .select(package_chunks::bytes)
                .get_result(conn)
                .optional()?)
        })
    }

    /// Site. The token's hash is unique over the server.
    pub fn package_grant_insert(&mut self, grant: &PackageGrant) -> Result<(), StoreError> {
        self.in_site("package_grant_insert", |conn, site| {
            diesel::insert_into(package_grants::table).values(GrantRow::of(site, grant)).run(conn)?;
            Ok(())
        })
    }

    /// System. Whoever has a token has no site yet.
    pub fn package_grant_by_hash(
        &mut self,
        hash: &[u8],
    ) -> Result<Option<(SiteId, PackageGrant)>, StoreError> {
        self.in_system("package_grant_by_hash", |conn| {
            let row = package_grants::table
                .filter(package_grants::token_hash.eq(hash))
                .select(GrantRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(GrantRow::with_site).transpose()
        })
    }

    /// System. Forgets up to 500 grants whose time was over before; how many.
    pub fn package_grants_purge(&mut self, before: Timestamp) -> Result<i64, StoreError> {
        self.in_system("package_grants_purge", |conn| {
            let old: Vec<Vec<u8>> = package_grants::table
                .filter(package_grants::expires_at.lt(before.0))
                .order(package_grants::expires_at)
                .limit(500)
                .select(package_grants::token_hash)
                .load(conn)?;
            for hash in &old {
                diesel::delete(package_grants::table.filter(package_grants::token_hash.eq(hash)))
                    .run(conn)?;
            }
            Ok(i64::try_from(old.len()).unwrap_or(i64::MAX))
        })
    }

    /// System. Deletes pieces of contents that no package has and that were written before: uploads that never ended.
    /// How many, at most 64 in one call.
    pub fn package_chunks_purge(&mut self, before: Timestamp) -> Result<i64, StoreError> {
        self.in_system("package_chunks_purge", |conn| {
            let owned = diesel::dsl::exists(
                packages::table
                    .filter(packages::site_id.eq(package_chunks::site_id))
                    .filter(packages::sha256.eq(package_chunks::sha256)),
            );
            let old: Vec<(Vec<u8>, Vec<u8>, i32)> = package_chunks::table
                .filter(package_chunks::created_at.lt(before.0))
                .filter(diesel::dsl::not(owned))
                .limit(PURGED_CHUNKS)
                .select((package_chunks::site_id, package_chunks::sha256, package_chunks::ordinal))
                .load(conn)?;
            for (site, sha256, ordinal) in &old {
                let target = package_chunks::table
                    .filter(package_chunks::site_id.eq(site))
                    .filter(package_chunks::sha256.eq(sha256))
                    .filter(package_chunks::ordinal.eq(ordinal));
                diesel::delete(target).run(conn)?;
            }
            Ok(i64::try_from(old.len()).unwrap_or(i64::MAX))
        })
    }
}
