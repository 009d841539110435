//! The ASN.1 codec of our own: what the guard passes can be walked to its leaves, definite form is a fixed point, and
//! the form that macOS sends leads back to it.

#![no_main]

use bellwether_certs::asn1::{self, MAX_DEPTH, Reader, Tlv};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 8192;

fuzz_target!(|bytes: &[u8]| {
    let guarded = asn1::guard_ber(bytes, LIMIT);
    let definite = asn1::to_definite(bytes, LIMIT);
    // The transcoder alone refuses an octet string whose pieces are something else.
    assert!(guarded.is_ok() || definite.is_err(), "the transcoder takes what the guard refuses");
    assert!(guarded.is_err() || bytes.len() <= LIMIT);
    let Ok(definite) = definite else { return };
    assert!(definite.len() <= bytes.len(), "definite form is never longer");
    walk(&definite);
    assert_eq!(asn1::to_definite(&definite, LIMIT).expect("definite form").as_ref(), definite.as_ref());

    let Ok(indefinite) = asn1::to_indefinite(&definite) else { panic!("definite form is refused") };
    let back = asn1::to_definite(&indefinite, usize::MAX).expect("our own BER");
    // Lengths may have been written longer than they need be; after one round they are not.
    let again = asn1::to_indefinite(&back).expect("our own form");
    assert_eq!(asn1::to_definite(&again, usize::MAX).expect("our own BER"), back);
});

fn walk(definite: &[u8]) {
    let mut open = vec![(Reader::new(definite), 0)];
    while let Some((mut reader, depth)) = open.pop() {
        assert!(depth <= MAX_DEPTH, "deeper than the limit");
        while !reader.is_empty() {
            let value = reader.next("a guarded value").expect("the guard saw to it");
            assert!(
                value.raw.ends_with(value.content) && reader.clone().finish("").is_ok() == reader.is_empty()
            );
            assert_ne!(value.tag, 0x24, "an octet string is still in pieces");
            time(&value);
            if value.tag & 0x20 != 0 {
                open.push((value.reader(), depth + 1));
            }
        }
    }
}

fn time(value: &Tlv<'_>) {
    let Some(ms) = asn1::parse_time(value) else { return };
    if let Ok(written) = asn1::time(ms) {
        let read = Reader::new(&written).next("a time").ok();
        assert_eq!(read.as_ref().and_then(asn1::parse_time), Some(ms));
    }
}
