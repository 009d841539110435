//! Reading and writing rows of tables that are known by name only.
//!
//! Everything else in this crate goes through `schema.rs`. A backup must not: it holds every table that is there, also
//! one that somebody forgot to think of, and a backup of an older schema is brought back into tables of that schema.
//! Names are quoted by diesel and values are bound.

use super::rows::Value;
use crate::StoreError;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, QueryableByName};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::row::{Field, NamedRow};
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text, Untyped};
use diesel::sqlite::{Sqlite, SqliteType};

/// A row as it is, with the names of its columns.
pub(super) struct AnyRow {
    pub(super) columns: Vec<String>,
    pub(super) values: Vec<Value>,
}

/// How a database gives a value away.
pub(super) trait Dialect: Backend {
    fn value(raw: Self::RawValue<'_>) -> deserialize::Result<Value>;
}

impl Dialect for Sqlite {
    fn value(raw: Self::RawValue<'_>) -> deserialize::Result<Value> {
        Ok(match raw.value_type() {
            None => Value::Null,
            Some(SqliteType::Binary) => Value::Bytes(FromSql::<Binary, Sqlite>::from_sql(raw)?),
            Some(SqliteType::Text) => Value::Text(FromSql::<Text, Sqlite>::from_sql(raw)?),
            Some(SqliteType::SmallInt | SqliteType::Integer | SqliteType::Long) => {
                Value::Int(FromSql::<BigInt, Sqlite>::from_sql(raw)?)
            }
            Some(other) => return Err(format!("a value of a kind that no table has: {other:?}").into()),
        })
    }
}

/// Types' numbers in PostgreSQL's own catalog; they never change.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
}

impl Dialect for Pg {
    fn value(raw: Self::RawValue<'_>) -> deserialize::Result<Value> {
        Ok(match raw.get_oid().get() {
            oid::BOOL => Value::Int(i64::from(<bool as FromSql<Bool, Pg>>::from_sql(raw)?)),
            oid::BYTEA => Value::Bytes(FromSql::<Binary, Pg>::from_sql(raw)?),
            oid::INT8 => Value::Int(FromSql::<BigInt, Pg>::from_sql(raw)?),
            oid::INT2 => Value::Int(i64::from(<i16 as FromSql<SmallInt, Pg>>::from_sql(raw)?)),
            oid::INT4 => Value::Int(i64::from(<i32 as FromSql<Integer, Pg>>::from_sql(raw)?)),
            oid::TEXT => Value::Text(FromSql::<Text, Pg>::from_sql(raw)?),
            other => return Err(format!("a column of type {other}, which no table has").into()),
        })
    }
}

impl<DB: Dialect> QueryableByName<DB> for AnyRow {
    fn build<'a>(row: &impl NamedRow<'a, DB>) -> deserialize::Result<Self> {
        let count = row.field_count();
        let (mut columns, mut values) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for at in 0..count {
            let field = diesel::row::Row::get(row, at).ok_or("a row without its fields")?;
            columns.push(field.field_name().ok_or("a column without a name")?.to_owned());
            values.push(field.value().map_or(Ok(Value::Null), DB::value)?);
        }
        Ok(Self { columns, values })
    }
}

/// Every row of a table.
pub(super) struct Everything<'t>(pub(super) &'t str);

impl<DB: Backend> QueryFragment<DB> for Everything<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("SELECT * FROM ");
        out.push_identifier(self.0)
    }
}
impl QueryId for Everything<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}
impl Query for Everything<'_> {
    type SqlType = Untyped;
}
impl<C> RunQueryDsl<C> for Everything<'_> {}

/// What a column of the table that is written to holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// SQLite keeps what it is given.
    Any,
    /// PostgreSQL: text.
    Text,
    /// PostgreSQL: bytes.
    Bytes,
    /// PostgreSQL: a number of any size.
    Number,
    /// PostgreSQL: true or false.
    Bool,
}

impl Column {
    /// By the name in PostgreSQL's catalog.
    pub(super) fn of(data_type: &str) -> Result<Self, StoreError> {
        Ok(match data_type {
            "text" => Self::Text,
            "bytea" => Self::Bytes,
            "bigint" | "integer" | "smallint" => Self::Number,
            "boolean" => Self::Bool,
            other => {
                return Err(StoreError::Backup(format!(
                    "a column has the type {other}, which is none of ours"
                )));
            }
        })
    }
}

/// One row into a table.
pub(super) struct Insert<'r> {
    pub(super) table: &'r str,
    pub(super) columns: &'r [String],
    pub(super) kinds: &'r [Column],
    pub(super) values: &'r [Value],
}

static NO_NUMBER: Option<i64> = None;
static NO_TEXT: Option<String> = None;
static NO_BYTES: Option<Vec<u8>> = None;
static NO_BOOL: Option<bool> = None;
static BOOLS: [bool; 2] = [false, true];

impl<DB> QueryFragment<DB> for Insert<'_>
where
    DB: Backend
        + diesel::sql_types::HasSqlType<Bool>
        + diesel::sql_types::HasSqlType<BigInt>
        + diesel::sql_types::HasSqlType<Text>
        + diesel::sql_types::HasSqlType<Binary>,
    i64: diesel::serialize::ToSql<BigInt, DB>,
    String: diesel::serialize::ToSql<Text, DB>,
    Vec<u8>: diesel::serialize::ToSql<Binary, DB>,
    bool: diesel::serialize::ToSql<Bool, DB>,
    Option<i64>: diesel::serialize::ToSql<Nullable<BigInt>, DB>,
    Option<String>: diesel::serialize::ToSql<Nullable<Text>, DB>,
    Option<Vec<u8>>: diesel::serialize::ToSql<Nullable<Binary>, DB>,
    Option<bool>: diesel::serialize::ToSql<Nullable<Bool>, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("INSERT INTO ");
        out.push_identifier(self.table)?;
        for (at, column) in self.columns.iter().enumerate() {
            out.push_sql(if at == 0 { " (" } else { ", " });
            out.push_identifier(column)?;
        }
        for (at, (value, kind)) in self.values.iter().zip(self.kinds).enumerate() {
            out.push_sql(if at == 0 { ") VALUES (" } else { ", " });
            match (value, kind) {
                (Value::Null, Column::Any | Column::Number) => {
                    out.push_bind_param::<Nullable<BigInt>, _>(&NO_NUMBER)?;
                }
                (Value::Null, Column::Text) => out.push_bind_param::<Nullable<Text>, _>(&NO_TEXT)?,
                (Value::Null, Column::Bytes) => out.push_bind_param::<Nullable<Binary>, _>(&NO_BYTES)?,
                (Value::Null, Column::Bool) => out.push_bind_param::<Nullable<Bool>, _>(&NO_BOOL)?,
                (Value::Int(number), Column::Any | Column::Number) => {
                    out.push_bind_param::<BigInt, _>(number)?;
                }
                (Value::Int(number), Column::Bool) => {
                    let [no, yes] = &BOOLS;
                    out.push_bind_param::<Bool, _>(if *number == 0 { no } else { yes })?;
                }
                (Value::Text(text), Column::Any | Column::Text) => out.push_bind_param::<Text, _>(text)?,
                (Value::Bytes(bytes), Column::Any | Column::Bytes) => {
                    out.push_bind_param::<Binary, _>(bytes)?;
                }
                _ => {
                    let why = "a value does not fit the column that it stands in";
                    return Err(diesel::result::Error::QueryBuilderError(why.into()));
                }
            }
        }
        out.push_sql(")");
        Ok(())
    }
}
impl QueryId for Insert<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}
impl<C> RunQueryDsl<C> for Insert<'_> {}

/// What must be done to PostgreSQL's tables around a restore.
pub(super) enum Change<'n> {
    /// A schema for what is moved aside.
    NewSchema(&'n str),
    /// A table goes there.
    Move(&'n str, &'n str),
    /// A foreign key is checked when all rows are there. They point at each other in circles.
    Defer(&'n str, &'n str),
    /// It is checked with each row again.
    Undefer(&'n str, &'n str),
}

impl QueryFragment<Pg> for Change<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        let (table, verb, name, end) = match *self {
            Self::NewSchema(schema) => {
                out.push_sql("CREATE SCHEMA ");
                return out.push_identifier(schema);
            }
            Self::Move(table, schema) => (table, " SET SCHEMA ", schema, ""),
            Self::Defer(table, key) => (table, " ALTER CONSTRAINT ", key, " DEFERRABLE INITIALLY DEFERRED"),
            Self::Undefer(table, key) => (table, " ALTER CONSTRAINT ", key, " NOT DEFERRABLE"),
        };
        out.push_sql("ALTER TABLE ");
        out.push_identifier(table)?;
        out.push_sql(verb);
        out.push_identifier(name)?;
        out.push_sql(end);
        Ok(())
    }
}
impl QueryId for Change<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}
impl<C> RunQueryDsl<C> for Change<'_> {}
