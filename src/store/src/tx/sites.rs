//! Sites, settings, authorities and people.

use super::{Tx, after, found, limit};
use crate::StoreError;
use crate::backend::{Conn, Run as _};
use crate::cell::{Cell, records, row};
use crate::records::{Authority, Page, Person, Site};
use crate::schema::{authorities, people, server_settings, site_settings, sites};
use bellwether_model::{AuthorityId, PersonId, SiteId, Timestamp};
use diesel::prelude::*;

row!(AuthorityRow: Authority in authorities key (id) {
    id: AuthorityId,
    certificate: Vec<u8>,
    key: Vec<u8>,
    created_at: Timestamp,
    retired_at: Option<Timestamp>,
});

row!(PersonRow: Person in people key (id) {
    id: PersonId,
    account: String,
    name: Option<String>,
    created_at: Timestamp,
    directory_id: Option<String>,
});

type SiteRow = (Vec<u8>, String, Vec<u8>, i64);

fn site_record((id, name, wrapped_key, created_at): SiteRow) -> Result<Site, StoreError> {
    Ok(Site { id: SiteId::cooked(id)?, name, wrapped_key, created_at: Timestamp(created_at) })
}

impl Tx<'_> {
    /// System. A new site.
    pub fn site_insert(&mut self, site: &Site) -> Result<(), StoreError> {
        self.in_system("site_insert", |conn| {
            diesel::insert_into(sites::table)
                .values((
                    sites::id.eq(site.id.raw()),
                    sites::name.eq(&site.name),
                    sites::wrapped_key.eq(&site.wrapped_key),
                    sites::created_at.eq(site.created_at.0),
                ))
                .run(conn)?;
            Ok(())
        })
    }

    /// System. All sites, oldest first.
    pub fn sites(&mut self) -> Result<Vec<Site>, StoreError> {
        self.in_system("sites", |conn| {
            let rows: Vec<SiteRow> = sites::table.order(sites::id).load(conn)?;
            rows.into_iter().map(site_record).collect()
        })
    }

    /// System, or the site itself.
    pub fn site(&mut self, id: SiteId) -> Result<Option<Site>, StoreError> {
        self.in_named_site("site", id, |conn, site| {
            let row: Option<SiteRow> = sites::table.filter(sites::id.eq(site)).first(conn).optional()?;
            row.map(site_record).transpose()
        })
    }

    /// System. A server-wide value.
    pub fn server_setting(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.in_system("server_setting", |conn| {
            let found = server_settings::table.filter(server_settings::key.eq(key));
            Ok(found.select(server_settings::value).first(conn).optional()?)
        })
    }

    /// System. Sets a server-wide value.
    pub fn server_setting_put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        if !self.server_setting_insert_if_absent(key, value)? {
            self.in_system("server_setting_put", |conn| {
                let found = server_settings::table.filter(server_settings::key.eq(key));
                diesel::update(found).set(server_settings::value.eq(value)).run(conn)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// System. Sets a server-wide value that nobody has set; whether it was absent.
    pub fn server_setting_insert_if_absent(&mut self, key: &str, value: &[u8]) -> Result<bool, StoreError> {
        if self.server_setting(key)?.is_some() {
            return Ok(false);
        }
        self.in_system("server_setting_insert_if_absent", |conn| {
            diesel::insert_into(server_settings::table)
                .values((server_settings::key.eq(key), server_settings::value.eq(value)))
                .run(conn)?;
            Ok(true)
        })
    }

    /// Site. A value of the site.
    pub fn site_setting(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.in_site("site_setting", |conn, site| {
            let found = site_settings::table
                .filter(site_settings::site_id.eq(site))
                .filter(site_settings::key.eq(key));
            Ok(found.select(site_settings::value).first(conn).optional()?)
        })
    }

    /// Site. Sets a value of the site.
    pub fn site_setting_put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.in_site("site_setting_put", |conn, site| put_setting(conn, site, key, value))
    }

    /// System, or the same site. A device CA. Its id is unique over the server: it stands in URLs.
    pub fn authority_insert(&mut self, site: SiteId, authority: &Authority) -> Result<(), StoreError> {
        self.in_named_site("authority_insert", site, |conn, site| {
            diesel::insert_into(authorities::table).values(AuthorityRow::of(site, authority)).run(conn)?;
            Ok(())
        })
    }

    /// System. Whose device CA this is.
    pub fn authority_find(&mut self, id: AuthorityId) -> Result<Option<(SiteId, Authority)>, StoreError> {
        self.in_system("authority_find", |conn| {
            let row = authorities::table
                .filter(authorities::id.eq(id.raw()))
                .select(AuthorityRow::as_select())
                .first(conn)
                .optional()?;
            row.map(AuthorityRow::with_site).transpose()
        })
    }

    /// Site. Its device CAs, oldest first.
    pub fn authorities(&mut self) -> Result<Vec<Authority>, StoreError> {
        self.in_site("authorities", |conn, site| {
            let rows: Vec<AuthorityRow> = authorities::table
                .filter(authorities::site_id.eq(site))
                .order((authorities::created_at, authorities::id))
                .select(AuthorityRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. By e-mail or login name, compared in lower case.
    pub fn person_by_account(&mut self, account: &str) -> Result<Option<Person>, StoreError> {
        self.in_site("person_by_account", |conn, site| {
            let row = people::table
                .filter(people::site_id.eq(site))
                .filter(people::account.eq(account.to_lowercase()))
                .select(PersonRow::as_select())
                .first(conn)
                .optional()?;
            row.map(PersonRow::record).transpose()
        })
    }

    /// Site. By the id in a directory.
    pub fn person_by_directory(&mut self, directory_id: &str) -> Result<Option<Person>, StoreError> {
        self.in_site("person_by_directory", |conn, site| {
            let row = people::table
                .filter(people::site_id.eq(site))
                .filter(people::directory_id.eq(directory_id))
                .select(PersonRow::as_select())
                .first(conn)
                .optional()?;
            row.map(PersonRow::record).transpose()
        })
    }

    /// Site. Account (kept in lower case), name and directory id.
    pub fn person_update(&mut self, person: &Person) -> Result<(), StoreError> {
        self.in_site("person_update", |conn, site| {
            let target =
                people::table.filter(people::site_id.eq(site)).filter(people::id.eq(person.id.raw()));
            let rows = diesel::update(target)
                .set((
                    people::account.eq(person.account.to_lowercase()),
                    people::name.eq(&person.name),
                    people::directory_id.eq(&person.directory_id),
                ))
                .run(conn)?;
            found(rows, "person")
        })
    }

    /// Site. The account is kept in lower case.
    pub fn person_insert(&mut self, person: &Person) -> Result<(), StoreError> {
        self.in_site("person_insert", |conn, site| {
            let mut row = PersonRow::of(site, person);
            row.account = row.account.to_lowercase();
            diesel::insert_into(people::table).values(row).run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn person(&mut self, id: PersonId) -> Result<Option<Person>, StoreError> {
        self.in_site("person", |conn, site| {
            let row = people::table
                .filter(people::site_id.eq(site))
                .filter(people::id.eq(id.raw()))
                .select(PersonRow::as_select())
                .first(conn)
                .optional()?;
            row.map(PersonRow::record).transpose()
        })
    }

    /// Site. Oldest first; `after` is the last id of the page before.
    pub fn people(&mut self, page: &Page) -> Result<Vec<Person>, StoreError> {
        self.in_site("people", |conn, site| {
            let rows: Vec<PersonRow> = people::table
                .filter(people::site_id.eq(site))
                .filter(people::id.gt(after(page)))
                .order(people::id)
                .limit(limit(page))
                .select(PersonRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }
}

/// Sets a value of a site.
pub(super) fn put_setting(conn: &mut Conn, site: &[u8], key: &str, value: &[u8]) -> Result<(), StoreError> {
    let found =
        site_settings::table.filter(site_settings::site_id.eq(site)).filter(site_settings::key.eq(key));
    if diesel::update(found).set(site_settings::value.eq(value)).run(conn)? == 0 {
        diesel::insert_into(site_settings::table)
            .values((
                site_settings::site_id.eq(site),
                site_settings::key.eq(key),
                site_settings::value.eq(value),
            ))
            .run(conn)?;
    }
    Ok(())
}
