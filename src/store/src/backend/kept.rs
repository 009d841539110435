//! Statements that are prepared once per connection.
//!
//! diesel keeps SELECTs, and prepares every UPDATE, every DELETE over a changed row set and every INSERT of a row with
//! optional columns anew, because their texts could be without number. Ours are written down in this crate, and few:
//! parsing and planning them again took more than half of a writing transaction.

use super::Conn;
use diesel::backend::Backend;
use diesel::internal::derives::multiconnection::AstPassHelper as _;
use diesel::query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId};
use diesel::query_dsl::methods::ExecuteDsl;
use diesel::result::QueryResult;
use diesel::{PgConnection, RunQueryDsl, SqliteConnection};

/// A statement whose prepared form stays with the connection, found by its text.
pub(crate) struct Kept<Q> {
    query: Q,
    text: String,
}

impl<Q: QueryFragment<DB>, DB: Backend> QueryFragment<DB> for Kept<Q> {
    /// The query itself is asked for its values only: for its text it would say "do not keep me".
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(&self.text);
        if out.bind_collector().is_some() || out.debug_binds().is_some() {
            self.query.walk_ast(out)?;
        }
        Ok(())
    }
}

impl<Q> QueryId for Kept<Q> {
    type QueryId = ();
    /// A type may have several texts (a missing value is left out), so the text is the key.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q, C> RunQueryDsl<C> for Kept<Q> {}

/// Runs a statement that changes rows; its prepared form is kept.
pub(crate) trait Run: Sized {
    /// How many rows it met.
    fn run(self, conn: &mut Conn) -> QueryResult<usize>;
}

impl<Q> Run for Q
where
    Q: QueryFragment<diesel::sqlite::Sqlite> + QueryFragment<diesel::pg::Pg>,
    Kept<Q>: ExecuteDsl<SqliteConnection> + ExecuteDsl<PgConnection>,
{
    fn run(self, conn: &mut Conn) -> QueryResult<usize> {
        match conn {
            Conn::Sqlite(conn) => keep(self, &diesel::sqlite::Sqlite)?.execute(conn),
            Conn::Postgres(conn) => keep(self, &diesel::pg::Pg)?.execute(conn),
        }
    }
}

fn keep<Q, DB>(query: Q, backend: &DB) -> QueryResult<Kept<Q>>
where
    Q: QueryFragment<DB>,
    DB: Backend,
    DB::QueryBuilder: Default,
{
    let mut text = DB::QueryBuilder::default();
    query.to_sql(&mut text, backend)?;
    Ok(Kept { query, text: text.finish() })
}

/// A query with a constant LIMIT.
///
/// diesel binds a limit as a value, and SQLite plans a statement anew whenever a bound limit is set, even to the same
/// number: that took half of a poll. Look-ups by a unique key need no limit at all; this is for the others that are
/// run often.
pub(crate) struct Limited<Q, const N: i64>(Q);

/// What can be limited.
pub(crate) trait AtMost: Query + Sized {
    /// The first `N` rows.
    fn at_most<const N: i64>(self) -> Limited<Self, N> {
        Limited(self)
    }
}

impl<Q: Query> AtMost for Q {}

impl<Q: QueryFragment<DB>, DB: Backend, const N: i64> QueryFragment<DB> for Limited<Q, N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(&format!(" LIMIT {N}"));
        Ok(())
    }
}

impl<Q: QueryId, const N: i64> QueryId for Limited<Q, N> {
    type QueryId = Limited<Q::QueryId, N>;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}

impl<Q: Query, const N: i64> Query for Limited<Q, N> {
    type SqlType = Q::SqlType;
}

impl<Q, C, const N: i64> RunQueryDsl<C> for Limited<Q, N> {}
