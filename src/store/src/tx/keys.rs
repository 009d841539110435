//! API keys: server-wide rows, since a key must be found before its site is known.

use super::Tx;
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::Cell;
use crate::records::ApiKey;
use crate::schema::api_keys;
use bellwether_model::permit::Grants;
use bellwether_model::{ApiKeyId, Timestamp};
use diesel::prelude::*;

type Row = (Vec<u8>, String, String, Vec<u8>, String, i64, String, i64, Option<i64>, Option<i64>);

fn record(row: Row) -> Result<ApiKey, StoreError> {
    let (id, name, prefix, hash, grants, created_at, created_by, expires_at, revoked_at, last_used_at) = row;
    Ok(ApiKey {
        id: ApiKeyId::cooked(id)?,
        name,
        prefix,
        hash,
        grants: Grants::cooked(grants)?,
        created_at: Timestamp(created_at),
        created_by,
        expires_at: Timestamp(expires_at),
        revoked_at: revoked_at.map(Timestamp),
        last_used_at: last_used_at.map(Timestamp),
    })
}

impl Tx<'_> {
    /// System. The hash is unique.
    pub fn api_key_insert(&mut self, key: &ApiKey) -> Result<(), StoreError> {
        self.in_system("api_key_insert", |conn| {
            diesel::insert_into(api_keys::table)
                .values((
                    api_keys::id.eq(key.id.raw()),
                    api_keys::name.eq(&key.name),
                    api_keys::prefix.eq(&key.prefix),
                    api_keys::hash.eq(&key.hash),
                    api_keys::grants.eq(key.grants.raw()),
                    api_keys::created_at.eq(key.created_at.0),
                    api_keys::created_by.eq(&key.created_by),
                    api_keys::expires_at.eq(key.expires_at.0),
                    api_keys::revoked_at.eq(key.revoked_at.raw()),
                    api_keys::last_used_at.eq(key.last_used_at.raw()),
                ))
                .run(conn)?;
            Ok(())
        })
    }

    /// System.
    pub fn api_key_by_hash(&mut self, hash: &[u8]) -> Result<Option<ApiKey>, StoreError> {
        self.in_system("api_key_by_hash", |conn| {
            let row: Option<Row> =
                api_keys::table.filter(api_keys::hash.eq(hash)).get_result(conn).optional()?;
            row.map(record).transpose()
        })
    }

    /// System. All of them, oldest first.
    pub fn api_keys(&mut self) -> Result<Vec<ApiKey>, StoreError> {
        self.in_system("api_keys", |conn| {
            let rows: Vec<Row> = api_keys::table.order(api_keys::id).load(conn)?;
            rows.into_iter().map(record).collect()
        })
    }

    /// System. Whether there was such a key that was not revoked yet.
    pub fn api_key_revoke(&mut self, id: ApiKeyId, at: Timestamp) -> Result<bool, StoreError> {
        self.in_system("api_key_revoke", |conn| {
            let target =
                api_keys::table.filter(api_keys::id.eq(id.raw())).filter(api_keys::revoked_at.is_null());
            Ok(diesel::update(target).set(api_keys::revoked_at.eq(at.0)).run(conn)? == 1)
        })
    }

    /// System. "Last used", batched by the caller; never moves backwards.
    pub fn api_key_touch(&mut self, id: ApiKeyId, at: Timestamp) -> Result<(), StoreError> {
        self.in_system("api_key_touch", |conn| {
            let target = api_keys::table
                .filter(api_keys::id.eq(id.raw()))
                .filter(api_keys::last_used_at.is_null().or(api_keys::last_used_at.lt(at.0)));
            diesel::update(target).set(api_keys::last_used_at.eq(at.0)).run(conn)?;
            Ok(())
        })
    }
}
