//! Property lists: what a value costs, and equality that the wire can keep.

use std::time::{Duration, SystemTime};

use bellwether_apple::guard::Limits;
use plist::Value;

/// What a value costs, counted without recursion.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cost {
    /// Nested arrays and dictionaries.
    pub depth: usize,
    /// Values and keys.
    pub nodes: usize,
    /// The longest string, key or data.
    pub longest: usize,
    /// All strings, keys and data together.
    pub bytes: usize,
}

impl Cost {
    /// Counts a value.
    #[must_use]
    pub fn of(root: &Value) -> Self {
        let mut cost = Self::default();
        let mut open = vec![(root, 0)];
        while let Some((value, depth)) = open.pop() {
            cost.nodes += 1;
            match value {
                Value::Array(items) => {
                    cost.depth = cost.depth.max(depth + 1);
                    open.extend(items.iter().map(|item| (item, depth + 1)));
                }
                Value::Dictionary(entries) => {
                    cost.depth = cost.depth.max(depth + 1);
                    for (key, item) in entries {
                        cost.nodes += 1;
                        cost.text(key.len());
                        open.push((item, depth + 1));
                    }
                }
                Value::String(text) => cost.text(text.len()),
                Value::Data(bytes) => cost.text(bytes.len()),
                _ => {}
            }
        }
        cost
    }

    fn text(&mut self, length: usize) {
        self.longest = self.longest.max(length);
        self.bytes += length;
    }

    /// Fails when the value costs more than the limits allow.
    pub fn assert_within(&self, limits: &Limits) {
        assert!(self.depth <= limits.max_depth, "{self:?} is deeper than {limits:?}");
        assert!(self.nodes <= limits.max_nodes, "{self:?} has more nodes than {limits:?}");
        assert!(self.longest <= limits.max_string, "{self:?} has a longer text than {limits:?}");
        assert!(self.bytes <= limits.max_bytes, "{self:?} unfolds beyond {limits:?}");
    }
}

/// Whether two values are the same, NaN included. Dates may differ by a millisecond: binary lists keep them as `f64`.
#[must_use]
pub fn same(left: &Value, right: &Value) -> bool {
    let mut open = vec![(left, right)];
    while let Some(pair) = open.pop() {
        let equal = match pair {
            (Value::Array(a), Value::Array(b)) => {
                open.extend(a.iter().zip(b));
                a.len() == b.len()
            }
            (Value::Dictionary(a), Value::Dictionary(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, value)| match b.get(key) {
                        Some(other) => {
                            open.push((value, other));
                            true
                        }
                        None => false,
                    })
            }
            (Value::Real(a), Value::Real(b)) => a == b || a.is_nan() && b.is_nan(),
            (Value::Date(a), Value::Date(b)) => close((*a).into(), (*b).into()),
            (a, b) => a == b,
        };
        if !equal {
            return false;
        }
    }
    true
}

fn close(a: SystemTime, b: SystemTime) -> bool {
    a.duration_since(b).or_else(|_| b.duration_since(a)).is_ok_and(|apart| apart <= Duration::from_millis(1))
}

/// Whether XML can carry the value and bring it back unchanged: XML knows no UIDs and no control characters, turns a
/// carriage return into a line feed, and writes numbers and dates with a precision of its own.
#[must_use]
pub fn survives_xml(root: &Value) -> bool {
    let plain = |text: &str| {
        !text.chars().any(|c| (c < ' ' && c != '\n' && c != '\t') || matches!(c, '\u{FFFE}' | '\u{FFFF}'))
    };
    let mut open = vec![root];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Dictionary(entries) => {
                for (key, item) in entries {
                    if !plain(key) {
                        return false;
                    }
                    open.push(item);
                }
            }
            Value::String(text) if !plain(text) => return false,
            Value::Uid(_) | Value::Real(_) | Value::Date(_) => return false,
            _ => {}
        }
    }
    true
}
