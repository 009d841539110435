//! The store: SQLite and PostgreSQL behind one transaction type. The only crate that knows diesel.

pub mod records;
