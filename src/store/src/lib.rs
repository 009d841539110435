//! The store: SQLite and PostgreSQL behind one transaction type. The only crate that knows diesel.
//!
//! [`Store::write`] and [`Store::read`] run a closure over a [`Tx`]; every query lives in a method of [`Tx`]. A
//! transaction belongs to one site or to the whole server ([`Scope`]); a method that does not fit the scope answers
//! [`StoreError::WrongScope`].

mod api;
mod error;
pub mod records;
mod store;

pub use api::Tx;
pub use error::StoreError;
pub use store::{PostgresUrl, Scope, Store, StoreConfig};
