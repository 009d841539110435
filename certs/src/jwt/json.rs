//! JSON objects in which no name stands twice, at any depth.
//!
//! Readers disagree on which of two equal names counts (RFC 8259 §4), so a token that has them can say one
//! thing here and another elsewhere.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads one JSON object. `None` for everything else, for a name that stands twice, and for more than 128
/// levels (serde_json's limit).
pub(super) fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice::<Strict>(json) {
        Ok(Strict(Value::Object(object))) => Some(object),
        _ => None,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate names")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = br#"{"a":[1,-2,3.5,"x\u0041",true,null,{}],"b":{"c":{"d":18446744073709551615}}}"#;
        let plain: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(Value::Object(object(text).unwrap()), plain);
    }

    #[test]
    fn refuses_names_that_stand_twice() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
        ] {
            assert!(object(text.as_bytes()).is_none(), "{text}");
        }
        assert!(object(br#"{"a":{"b":1},"b":{"a":1}}"#).is_some());
    }

    #[test]
    fn refuses_what_is_no_object() {
        let deep = "{\"a\":".repeat(200) + "1" + &"}".repeat(200);
        let bomb = "[".repeat(16_000);
        for text in ["", "[]", "1", "null", "{}{}", "{\"a\":1,}", "{'a':1}", "\u{feff}{}", &deep, &bomb] {
            assert!(object(text.as_bytes()).is_none(), "{}", text.get(..20).unwrap_or(text));
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none());
        assert!(object(br#"{"a":"\ud800"}"#).is_none());
    }
}
