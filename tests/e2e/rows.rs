//! Everything that a server has stored, row by row, read behind its back.

use crate::harness::{Database, House, psql, root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Tables with their rows. Bytes are `\x` and hex on both databases.
pub type Tables = BTreeMap<String, Vec<Value>>;

/// Every row of every table, at one moment.
pub fn all(house: &House) -> Tables {
    stored(house.database.as_ref(), &house.config.data_dir)
}

/// The same of a server that is known by its database and its data folder.
pub fn stored(database: Option<&Database>, data_dir: &Path) -> Tables {
    match database {
        Some(database) => of_postgres(&database.admin_url()),
        None => of_sqlite(&data_dir.join("bellwether.db")),
    }
}

/// The rows of a site: those of its tables, itself, and the keys that may do something in it alone.
pub fn of_site(all: &Tables, site: &str) -> Tables {
    let bytes = format!("\\x{}", site.replace('-', ""));
    let mut found = Tables::new();
    for (table, rows) in all {
        let mine = |row: &&Value| match table.as_str() {
            "sites" => row["id"] == bytes,
            "api_keys" => row["grants"].to_string().contains(site),
            _ => row["site_id"] == bytes,
        };
        let mut rows: Vec<Value> = rows.iter().filter(mine).cloned().collect();
        rows.sort_by_key(Value::to_string);
        found.insert(table.clone(), rows);
    }
    found
}

/// What is not the same, in words.
pub fn differences(before: &Tables, after: &Tables) -> Vec<String> {
    let mut said = Vec::new();
    for (table, rows) in after {
        let old = before.get(table).cloned().unwrap_or_default();
        said.extend(rows.iter().filter(|row| !old.contains(row)).map(|row| format!("{table} + {row}")));
        said.extend(old.iter().filter(|row| !rows.contains(row)).map(|row| format!("{table} - {row}")));
    }
    said
}

fn of_sqlite(file: &Path) -> Tables {
    const SCRIPT: &str = "\
import json, sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
c.execute('BEGIN')
out = {}
for (t,) in c.execute(\"select name from sqlite_master where type = 'table' and name not like 'sqlite_%'\").fetchall():
    rows = c.execute('select * from \"' + t + '\"')
    names = [d[0] for d in rows.description]
    out[t] = [dict(zip(names, ['\\\\x' + v.hex() if isinstance(v, bytes) else v for v in r])) for r in rows]
print(json.dumps(out))
";
    let output = Command::new("python3").args(["-c", SCRIPT]).arg(file).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of_postgres(url: &str) -> Tables {
    const TABLES: &str = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') \
                          AND relnamespace = 'public'::regnamespace";
    let names = psql(url, TABLES);
    let parts = names.lines().map(|name| format!("SELECT '{name}', row_to_json(x)::text FROM {name} x"));
    let query = parts.collect::<Vec<_>>().join(" UNION ALL ");
    let mut tables: Tables = names.lines().map(|name| (name.to_owned(), Vec::new())).collect();
    for line in psql(url, &query).lines() {
        let (table, row) = line.split_once('|').unwrap();
        tables.get_mut(table).unwrap().push(serde_json::from_str(row).unwrap());
    }
    tables
}
