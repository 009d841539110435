//! One value of an answer as JSON, or nothing when it is not what the schema promises.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plist::Value;
use serde_json::Value as Json;

/// The longest text that becomes a fact, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// The longest data that becomes a fact, in bytes.
const MAX_DATA_BYTES: usize = 64 * 1024;
/// The longest list inside a value.
const MAX_ITEMS: usize = 1000;

/// What the schema says a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
    Int,
    /// A number that is not negative; devices say -1 for "unknown".
    Amount,
    Date,
    Data,
    Texts,
}

pub(super) fn read(value: &Value, kind: Kind) -> Option<Json> {
    match (kind, value) {
        (Kind::Text, Value::String(text)) => sound(text).map(Json::from),
        (Kind::Bool, Value::Boolean(value)) => Some(Json::from(*value)),
        (Kind::Int, Value::Integer(number)) => match number.as_signed() {
            Some(number) => Some(Json::from(number)),
            None => number.as_unsigned().map(Json::from),
        },
        (Kind::Amount, Value::Real(number)) if *number >= 0.0 => {
            serde_json::Number::from_f64(*number).map(Json::Number)
        }
        (Kind::Amount, Value::Integer(number)) => number.as_unsigned().map(Json::from),
        (Kind::Date, Value::Date(date)) if crate::xml::is_sound_date(*date) => {
            Some(Json::from(date.to_xml_format()))
        }
        (Kind::Data, Value::Data(bytes)) if bytes.len() <= MAX_DATA_BYTES => {
            Some(Json::from(STANDARD.encode(bytes)))
        }
        (Kind::Texts, Value::Array(items)) => {
            let texts = items.iter().filter_map(Value::as_string).filter_map(sound);
            Some(Json::Array(texts.take(MAX_ITEMS).map(Json::from).collect()))
        }
        _ => None,
    }
}

/// A database refuses NUL, and a console has no use for other control characters.
fn sound(text: &str) -> Option<&str> {
    let fine =
        text.len() <= MAX_TEXT_BYTES && text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    fine.then_some(text)
}
