//! Looks for secrets in what a server says, writes and stores: plain, and in the spellings in which things leak.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::{BTreeMap, BTreeSet};

/// Shorter things turn up by chance.
pub const SHORTEST: usize = 8;
const BUCKETS: usize = 1 << 16;
/// Larger things are files of a database, which wraps nothing.
const UNWRAPPED: usize = 4 << 20;

/// What is looked for, each thing under a name.
pub struct Needles {
    names: Vec<String>,
    /// Name, spelling, bytes.
    forms: Vec<(usize, &'static str, Vec<u8>)>,
    known: BTreeMap<Vec<u8>, usize>,
    /// Forms by a hash of their first eight bytes.
    buckets: Vec<Vec<usize>>,
}

/// One thing that was found: its name and its spelling.
pub type Found = (String, &'static str);

impl Needles {
    pub fn new() -> Self {
        let buckets = vec![Vec::new(); BUCKETS];
        Self { names: Vec::new(), forms: Vec::new(), known: BTreeMap::new(), buckets }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The thing under a name, the first of several.
    pub fn thing(&self, name: &str) -> Option<&[u8]> {
        let mut things = self.known.iter().filter(|(_, index)| self.names[**index] == name);
        things.next().map(|(thing, _)| thing.as_slice())
    }

    /// Everything but what has such a name.
    pub fn without(&self, start: &str) -> Self {
        let mut rest = Self::new();
        for (thing, index) in &self.known {
            if !self.names[*index].starts_with(start) {
                rest.add(&self.names[*index], thing);
            }
        }
        rest
    }

    /// Adds a thing in all spellings. The same thing under another name stays under its first one.
    pub fn add(&mut self, name: &str, thing: &[u8]) {
        assert!(thing.len() >= SHORTEST, "{name} is too short to be looked for");
        if self.known.contains_key(thing) {
            return;
        }
        let index = self.names.len();
        self.names.push(name.to_owned());
        self.known.insert(thing.to_vec(), index);
        for (spelling, form) in spellings(thing) {
            if form.len() >= SHORTEST
                && !self.forms.iter().any(|(of, _, other)| *of == index && *other == form)
            {
                self.buckets[bucket(&form)].push(self.forms.len());
                self.forms.push((index, spelling, form));
            }
        }
    }

    /// What of it stands in these bytes, also when they are wrapped into lines, as property lists do with base64.
    pub fn find(&self, hay: &[u8]) -> BTreeSet<Found> {
        let mut found = self.find_as_it_is(hay);
        if hay.len() < UNWRAPPED && hay.contains(&b'\n') {
            let unwrapped: Vec<u8> = hay.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            found.extend(self.find_as_it_is(&unwrapped));
        }
        found
    }

    fn find_as_it_is(&self, hay: &[u8]) -> BTreeSet<Found> {
        let mut found = BTreeSet::new();
        for at in 0..hay.len().saturating_sub(SHORTEST - 1) {
            let here = &self.buckets[bucket(&hay[at..])];
            for form in here {
                let (name, spelling, bytes) = &self.forms[*form];
                if hay[at..].starts_with(bytes) {
                    found.insert((self.names[*name].clone(), *spelling));
                }
            }
        }
        found
    }

    /// The same, the names only.
    pub fn names_in(&self, hay: &[u8]) -> BTreeSet<String> {
        self.find(hay).into_iter().map(|(name, _)| name).collect()
    }
}

fn bucket(bytes: &[u8]) -> usize {
    let first: [u8; SHORTEST] = bytes[..SHORTEST].try_into().unwrap();
    (u64::from_le_bytes(first).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize
}

/// A thing as it may be written. Of base64 the part that is the same wherever in a larger text the thing begins.
fn spellings(thing: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("plain", thing.to_vec())];
    for shift in 0..3 {
        let skip = (3 - shift) % 3;
        let whole = &thing[skip..skip + (thing.len() - skip) / 3 * 3];
        all.push(("base64", STANDARD_NO_PAD.encode(whole).into_bytes()));
        all.push(("base64", URL_SAFE_NO_PAD.encode(whole).into_bytes()));
    }
    let hex: String = thing.iter().map(|byte| format!("{byte:02x}")).collect();
    all.push(("hex", hex.to_uppercase().into_bytes()));
    all.push(("hex", hex.into_bytes()));
    if let Ok(text) = std::str::from_utf8(thing) {
        all.push(("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        all.push(("UTF-16", text.encode_utf16().flat_map(u16::to_be_bytes).collect()));
        all.push(("percent", url::form_urlencoded::byte_serialize(thing).collect::<String>().into_bytes()));
        let json = serde_json::to_string(text).unwrap();
        all.push(("JSON", json.as_bytes()[1..json.len() - 1].to_vec()));
        all.push(("lower case", text.to_lowercase().into_bytes()));
        all.push(("upper case", text.to_uppercase().into_bytes()));
    }
    let percent: String = thing.iter().map(|byte| format!("%{byte:02X}")).collect();
    all.push(("percent", percent.to_lowercase().into_bytes()));
    all.push(("percent", percent.into_bytes()));
    let list: Vec<String> = thing.iter().map(u8::to_string).collect();
    // As Debug and serde_json write bytes.
    all.push(("numbers", list.join(", ").into_bytes()));
    all.push(("numbers", list.join(",").into_bytes()));
    all
}

#[test]
fn a_secret_is_found_in_every_spelling() {
    let secret = b"canary/7f3a+9\xc3\xa9 end";
    let mut needles = Needles::new();
    needles.add("it", secret);
    needles.add("other", b"something else");
    let text = std::str::from_utf8(secret).unwrap();
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut hays = vec![
        secret.to_vec(),
        wide,
        bellwether_certs::hash::hex(secret).into_bytes(),
        url::form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes(),
        format!("{secret:?}").into_bytes(),
        serde_json::to_vec(text).unwrap(),
        STANDARD_NO_PAD.encode(secret).replace("L", "L\n\t").into_bytes(),
    ];
    for before in 0..4 {
        let larger = [&vec![b'x'; before][..], secret, b"and more"].concat();
        hays.push(STANDARD_NO_PAD.encode(&larger).into_bytes());
        hays.push(URL_SAFE_NO_PAD.encode(&larger).into_bytes());
    }
    for hay in hays {
        let around = [b"before ", &hay[..], b" after"].concat();
        assert_eq!(
            needles.names_in(&around),
            BTreeSet::from(["it".to_owned()]),
            "{}",
            String::from_utf8_lossy(&hay)
        );
    }
    assert!(needles.find(b"canary/7f3a+ and nothing of it").is_empty());
    assert!(needles.find(b"short").is_empty());
}
