//! Objects that come in several messages (OMA-TS-DM_Protocol 9, large object handling).

use serde::{Deserialize, Serialize};

use super::super::{Data, Item};
use super::{Bounds, Session};

/// What has come so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Partial {
    key: String,
    size: u64,
    chunks: u32,
    item: Item,
}

/// What became of one item.
pub(super) enum Collected {
    /// It is complete.
    Whole(Box<Item>),
    /// A piece: answer 213.
    Piece,
    /// Answer this code; with the flag, ask for the object again (1225).
    Refused(u16, bool),
}

impl Session {
    /// Takes one item; `key` says to which command and node it belongs.
    pub(super) fn collect(&mut self, key: &str, mut item: Item, bounds: &Bounds) -> Collected {
        if let Some(partial) = self.partial.take() {
            if partial.key == key {
                return self.go_on(partial, item, bounds);
            }
            // The rest of an object is missing, and another one begins.
            self.alert(1225);
        }
        if !item.more {
            return Collected::Whole(Box::new(item));
        }
        let Some(size) = item.meta.size else {
            // The first piece says how large the object is; this is a later one of an object that is not there.
            return Collected::Refused(412, true);
        };
        if size > bounds.max_object as u64 || item.data.as_ref().map_or(0, Data::len) > bounds.max_object {
            return Collected::Refused(413, false);
        }
        item.more = false;
        self.partial = Some(Partial { key: key.to_owned(), size, chunks: 1, item });
        Collected::Piece
    }

    fn go_on(&mut self, mut partial: Partial, item: Item, bounds: &Bounds) -> Collected {
        let more = item.more;
        partial.chunks = partial.chunks.saturating_add(1);
        let length = partial.item.data.as_ref().map_or(0, Data::len);
        let added = item.data.as_ref().map_or(0, Data::len);
        let total = length.saturating_add(added) as u64;
        if partial.chunks > bounds.max_chunks {
            return Collected::Refused(413, false);
        }
        if total > partial.size || (!more && total != partial.size) {
            return Collected::Refused(424, false);
        }
        partial.item.data = join(partial.item.data.take(), item.data);
        if more {
            self.partial = Some(partial);
            return Collected::Piece;
        }
        Collected::Whole(Box::new(partial.item))
    }

    pub(super) fn alert(&mut self, code: u16) {
        if !self.alerts.contains(&code) {
            self.alerts.push(code);
        }
    }
}

fn join(first: Option<Data>, second: Option<Data>) -> Option<Data> {
    Some(match (first, second) {
        (first, None) => return first,
        (None, second) => return second,
        (Some(Data::Text(mut text)), Some(Data::Text(more) | Data::Markup(more))) => {
            text.push_str(&more);
            Data::Text(text)
        }
        (Some(Data::Markup(mut text)), Some(Data::Text(more) | Data::Markup(more))) => {
            text.push_str(&more);
            Data::Markup(text)
        }
        (Some(first), Some(second)) => {
            let mut bytes = bytes(first);
            bytes.extend(self::bytes(second));
            // A character can have been cut in two.
            match String::from_utf8(bytes) {
                Ok(text) => Data::Text(text),
                Err(error) => Data::Binary(error.into_bytes()),
            }
        }
    })
}

fn bytes(data: Data) -> Vec<u8> {
    match data {
        Data::Text(text) | Data::Markup(text) => text.into_bytes(),
        Data::Binary(bytes) => bytes,
    }
}
