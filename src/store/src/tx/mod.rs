//! An open transaction. Its methods are grouped by what they are about, one file each.

mod audit;
mod certificates;
mod channels;
mod devices;
mod identities;
mod invitations;
mod jobs;
mod keys;
mod misc;
mod packages;
mod push;
pub(crate) mod quarantine;
mod queue;
mod sites;
mod states;
mod uploads;
mod wakes;

use crate::backend::Conn;
use crate::records::Page;
use crate::{Scope, StoreError};
use bellwether_model::SiteId;

/// An open transaction. Methods say which scope they need; each filters by the scope's site.
pub struct Tx<'c> {
    conn: &'c mut Conn,
    scope: Scope,
    /// The first error that the database gave: from then on nothing of this transaction can be kept.
    broken: Option<StoreError>,
}

impl<'c> Tx<'c> {
    pub(crate) fn new(conn: &'c mut Conn, scope: Scope) -> Self {
        Self { conn, scope, broken: None }
    }

    pub(crate) fn into_broken(self) -> Option<StoreError> {
        self.broken
    }

    /// Whose rows this transaction sees.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// For methods of a site.
    fn in_site<T>(
        &mut self,
        method: &'static str,
        work: impl FnOnce(&mut Conn, &[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Scope::Site(site) = self.scope else { return Err(StoreError::WrongScope(method)) };
        self.run(|conn| work(conn, site.as_bytes()))
    }

    /// For methods that name their site: the same one, or any under System.
    fn in_named_site<T>(
        &mut self,
        method: &'static str,
        site: SiteId,
        work: impl FnOnce(&mut Conn, &[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.scope != Scope::System && self.scope != Scope::Site(site) {
            return Err(StoreError::WrongScope(method));
        }
        self.run(|conn| work(conn, site.as_bytes()))
    }

    /// For methods of the whole server.
    fn in_system<T>(
        &mut self,
        method: &'static str,
        work: impl FnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.scope != Scope::System {
            return Err(StoreError::WrongScope(method));
        }
        self.run(work)
    }

    /// For server-wide tables that belong into a site's transaction.
    fn run<T>(&mut self, work: impl FnOnce(&mut Conn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(broken) = &self.broken {
            // SQLite may already be outside of any transaction here: one more statement would stand on its own.
            return Err(broken.clone());
        }
        let outcome = work(self.conn);
        if let Err(why) = &outcome
            && !matches!(why, StoreError::NotFound(_) | StoreError::Misuse(_) | StoreError::Corrupt(_))
        {
            self.broken = Some(why.clone());
        }
        outcome
    }
}

/// The row after which a page starts; ids sort as their bytes.
fn after(page: &Page) -> Vec<u8> {
    page.after.clone().unwrap_or_default()
}

/// The row before which a page of the newest first starts.
fn before(page: &Page) -> Vec<u8> {
    page.after.clone().unwrap_or_else(|| vec![0xff; 17])
}

/// A page is never unbounded.
fn limit(page: &Page) -> i64 {
    page.limit.clamp(1, 1_000)
}

/// An update or delete that must have met a row.
fn found(rows: usize, what: &'static str) -> Result<(), StoreError> {
    if rows == 0 { Err(StoreError::NotFound(what)) } else { Ok(()) }
}

#[cfg(test)]
mod plans;
