//! What the databases say about themselves.

use diesel::sql_types::{BigInt, Bool, Text};

diesel::table! {
    sqlite_schema (name) {
        name -> Text,
        #[sql_name = "type"]
        kind -> Text,
    }
}

diesel::table! {
    __diesel_schema_migrations (version) {
        version -> Text,
    }
}

diesel::table! {
    pg_tables (tablename) {
        schemaname -> Text,
        tablename -> Text,
    }
}

diesel::table! {
    pg_stat_activity (pid) {
        pid -> Integer,
        datname -> Nullable<Text>,
        usename -> Nullable<Text>,
    }
}

diesel::table! {
    information_schema.columns (table_name, column_name) {
        table_schema -> Text,
        table_name -> Text,
        column_name -> Text,
        data_type -> Text,
    }
}

diesel::table! {
    information_schema.table_constraints (table_name, constraint_name) {
        table_schema -> Text,
        table_name -> Text,
        constraint_name -> Text,
        constraint_type -> Text,
    }
}

diesel::define_sql_function!(fn current_schema() -> Text);
diesel::define_sql_function!(fn current_database() -> Text);
diesel::define_sql_function!(fn pg_database_size(name: Text) -> BigInt);
diesel::define_sql_function!(fn pg_backend_pid() -> Integer);
diesel::define_sql_function!(fn pg_try_advisory_xact_lock(key: BigInt) -> Bool);
diesel::define_sql_function!(fn set_config(name: Text, value: Text, is_local: Bool) -> Text);
