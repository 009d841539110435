//! The tree of nodes: what is set, and what can be read.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_windows::syncml::Format;

/// Nodes with their values, by LocURI. Addresses count without their case, and `./Vendor` is `./Device/Vendor`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// As it was written first, with the whole prefix.
    pub(crate) uri: String,
    pub(crate) format: Format,
    pub(crate) value: String,
}

impl Tree {
    /// The value of a leaf.
    pub(crate) fn value(&self, uri: &str) -> Option<&str> {
        self.node(uri).map(|node| node.value.as_str())
    }

    /// A node that was set, a leaf or not.
    pub(crate) fn node(&self, uri: &str) -> Option<&Node> {
        self.nodes.get(&key(uri))
    }

    /// Whether there is a node, or anything below it.
    pub(crate) fn exists(&self, uri: &str) -> bool {
        self.nodes.contains_key(&key(uri)) || self.below(uri).next().is_some()
    }

    pub(crate) fn set(&mut self, uri: &str, format: Format, value: impl Into<String>) {
        let node = Node { uri: full(uri), format, value: value.into() };
        match self.nodes.get_mut(&key(uri)) {
            Some(old) => *old = Node { uri: std::mem::take(&mut old.uri), ..node },
            None => {
                self.nodes.insert(key(uri), node);
            }
        }
    }

    /// Removes a node and everything below it; whether there was anything.
    pub(crate) fn remove(&mut self, uri: &str) -> bool {
        let before = self.nodes.len();
        let (own, start) = (key(uri), [&key(uri), "/"].concat());
        self.nodes.retain(|key, _| *key != own && !key.starts_with(&start));
        before != self.nodes.len()
    }

    /// Everything below a node.
    pub(crate) fn below(&self, uri: &str) -> impl Iterator<Item = &Node> {
        let start = [&key(uri), "/"].concat();
        let end = start.clone();
        self.nodes.range(start..).take_while(move |(key, _)| key.starts_with(&end)).map(|(_, node)| node)
    }

    /// The names of the nodes right below, as their addresses have them.
    pub(crate) fn children(&self, uri: &str) -> Vec<String> {
        let depth = full(uri).split('/').count();
        let names: BTreeSet<String> =
            self.below(uri).filter_map(|node| node.uri.split('/').nth(depth)).map(str::to_owned).collect();
        names.into_iter().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }
}

/// The address with its whole prefix.
pub(crate) fn full(uri: &str) -> String {
    let uri = uri.split('?').next().unwrap_or_default().trim_end_matches('/');
    let path = uri.strip_prefix("./").unwrap_or(uri);
    let vendor = path.split('/').next().is_some_and(|first| first.eq_ignore_ascii_case("Vendor"));
    if vendor { ["./Device/", path].concat() } else { ["./", path].concat() }
}

/// What makes two addresses the same. An encoded slash stays encoded.
pub(crate) fn key(uri: &str) -> String {
    full(uri)
        .split('/')
        .map(|name| decode(name).replace('/', "%2f"))
        .collect::<Vec<_>>()
        .join("/")
        .to_lowercase()
}

/// One segment without its escapes; as it stands when they are broken.
pub(crate) fn decode(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => {
                let digits = [*high, *low];
                std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_meet() {
        for same in ["./Vendor/MSFT/X/%7Ba%7D", "./device/vendor/MSFT/x/{A}", "Vendor/MSFT/X/{a}?prop=Type"] {
            assert_eq!(key(same), "./device/vendor/msft/x/{a}", "{same}");
        }
        assert_ne!(key("./a/b%2Fc"), key("./a/b/c"));
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("%ff"), "%ff");
    }

    #[test]
    fn nodes_come_and_go() {
        let mut tree = Tree::default();
        tree.set("./Vendor/MSFT/A/%7B1%7D/B", Format::Int, "1");
        tree.set("./Vendor/MSFT/A/2", Format::Node, "");
        tree.set("./Vendor/MSFT/AB/2", Format::Node, "");
        assert_eq!(tree.children("./Device/Vendor/MSFT/A"), ["%7B1%7D", "2"]);
        assert_eq!(tree.value("./Device/Vendor/MSFT/A/{1}/B"), Some("1"));
        assert!(tree.exists("./Vendor/MSFT/A/{1}") && tree.node("./Vendor/MSFT/A/{1}").is_none());
        assert!(tree.remove("./Vendor/MSFT/A") && !tree.remove("./Vendor/MSFT/A"));
        assert!(tree.exists("./Vendor/MSFT/AB/2"));
    }
}
