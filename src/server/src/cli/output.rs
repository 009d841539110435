//! All that the client verbs print. Strings of devices are hostile: control characters never reach a terminal.

use serde_json::Value;
use std::io::Write as _;

/// A line on standard output. A reader that went away is no error of ours.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line on standard error.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// JSON, indented.
pub fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A column: heading, and where in a row's JSON the value stands (`/a/b`).
pub type Column = (&'static str, &'static str);

/// Rows as a table.
pub fn table(rows: &[Value], columns: &[Column]) {
    if rows.is_empty() {
        line("nothing");
        return;
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    for row in rows {
        table.add_row(columns.iter().map(|(_, path)| cell(row.pointer(path))));
    }
    for text in table.lines() {
        line(text.trim_end());
    }
}

/// One object as lines of name and value; nested ones by their path.
pub fn facts(value: &Value) {
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, value) in rows {
        line(&format!("{name:width$}  {value}"));
    }
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let join = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| flatten(&join(&clean(name)), value, rows))
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(&join(&at.to_string()), item, rows));
        }
        other => rows.push((prefix.to_owned(), cell(Some(other)))),
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => clean(text),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(", "),
        Some(other) => clean(&other.to_string()),
    }
}

/// Without escape sequences, line breaks and marks that turn the direction of writing.
pub fn clean(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect()
}

/// A QR code for a terminal.
pub fn qr(text: &str) -> Option<String> {
    fast_qr::QRBuilder::new(text).build().ok().map(|code| code.to_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{9b}d\u{202e}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}");
        let mut rows = Vec::new();
        flatten(
            "",
            &serde_json::json!({ "a": { "b": "x\u{7}" }, "c": [1, 2], "d": [{ "e": null }] }),
            &mut rows,
        );
        let rows: Vec<String> = rows.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(rows, ["a.b=x\u{fffd}", "c=1, 2", "d.0.e=-"]);
    }
}
