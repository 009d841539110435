//! The store: SQLite and PostgreSQL behind one transaction type. The only crate that knows diesel.
//!
//! [`Store::write`] and [`Store::read`] run a closure over a [`Tx`]; every query lives in a method of [`Tx`]. A
//! transaction belongs to one site or to the whole server ([`Scope`]); a method that does not fit the scope answers
//! [`StoreError::WrongScope`].

mod backend;
pub mod backup;
mod cell;
mod error;
pub mod records;
mod schema;
mod store;
mod tx;

pub use error::StoreError;
pub use store::{PostgresUrl, Scope, Store, StoreConfig};
pub use tx::Tx;
