use proptest::prelude::*;

use super::*;

const LIMIT: usize = 10_000;

fn definite(input: &[u8]) -> Vec<u8> {
    to_definite(input, LIMIT).unwrap().into_owned()
}

#[test]
fn indefinite_lengths_and_split_strings_become_definite() {
    assert_eq!(definite(&[0x30, 0x80, 2, 1, 5, 0, 0]), [0x30, 3, 2, 1, 5]);
    let split = [0x24, 0x80, 4, 1, b'a', 0x24, 3, 4, 1, b'b', 4, 0, 0, 0];
    assert_eq!(definite(&split), [4, 2, b'a', b'b']);
    assert_eq!(definite(&[0x24, 0x80, 0, 0]), [4, 0]);
    // Explicitly tagged, indefinite inside definite.
    assert_eq!(definite(&[0xa0, 6, 0x30, 0x80, 5, 0, 0, 0]), [0xa0, 4, 0x30, 2, 5, 0]);
}

#[test]
fn there_and_back_changes_nothing() {
    let ca = crate::ca::DeviceCa::create(1_800_000_000_000, [1; 16]).unwrap();
    let worst = to_indefinite(ca.cert_der()).unwrap();
    assert_ne!(worst, ca.cert_der());
    assert_eq!(definite(&worst), ca.cert_der());
}

#[test]
fn what_need_not_change_does_not() {
    // A length that is not minimal stays: the bytes may be signed.
    let odd = [0x30, 0x81, 3, 2, 1, 5];
    assert!(matches!(to_definite(&odd, LIMIT), Ok(Cow::Borrowed(_))));
    let inside = [&[0xa0, 0x80][..], &odd, &[0, 0]].concat();
    assert_eq!(definite(&inside), [&[0xa0, 6][..], &odd].concat());
    let high_tag = [0xbf, 0x8f, 0x01, 0x80, 5, 0, 0, 0];
    assert_eq!(definite(&high_tag), [0xbf, 0x8f, 0x01, 2, 5, 0]);
}

#[test]
fn what_is_not_ber_is_refused() {
    for bad in [
        &[][..],
        &[0x30],
        &[0x30, 0x80],
        &[0x30, 0x80, 0],
        &[0x30, 2, 5],
        &[0x04, 0x80, 0, 0],
        &[0x30, 0x85, 0, 0, 0, 0, 0],
        &[0x30, 0xff],
        &[0x30, 2, 0, 0],
        &[0, 0],
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        &[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0],
        &[0x24, 3, 2, 1, 5],
    ] {
        assert!(to_definite(bad, LIMIT).is_err(), "{bad:?}");
    }
    assert!(matches!(guard_ber(&[5, 0, 0], LIMIT), Err(Error::TrailingData { .. })));
    assert!(matches!(guard_ber(&[5, 0], 1), Err(Error::TooLarge { .. })));
}

#[test]
fn depth_is_bounded() {
    for nesting in [MAX_DEPTH - 1, MAX_DEPTH, 100_000] {
        let mut deep = [0x30, 0x80].repeat(nesting);
        deep.extend([5, 0]);
        deep.extend([0, 0].repeat(nesting));
        let result = to_definite(&deep, usize::MAX);
        assert_eq!(result.is_ok(), nesting < MAX_DEPTH, "{nesting}");
        assert!(nesting < MAX_DEPTH || matches!(result, Err(Error::TooDeep)));
    }
}

#[test]
fn lengths_and_numbers() {
    for len in [0_usize, 1, 127, 128, 255, 256, 65_535, 65_536] {
        let value = tlv(4, &[&vec![7; len]]);
        assert_eq!(Reader::new(&value).expect(4, "").unwrap().content.len(), len);
    }
    assert_eq!(integer(&[]), [2, 1, 0]);
    assert_eq!(integer(&[0, 0, 1]), [2, 1, 1]);
    assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
    assert_eq!(set_of(vec![vec![5, 0], vec![2, 1, 1]]), [0x31, 5, 2, 1, 1, 5, 0]);
}

#[test]
fn dates_change_their_form_in_2050() {
    let ms_2049 = 2_524_607_999_000;
    assert_eq!(time(ms_2049).unwrap(), *b"\x17\x0d491231235959Z");
    assert_eq!(time(ms_2049 + 1000).unwrap(), *b"\x18\x0f20500101000000Z");
    assert_eq!(time(-1).unwrap(), *b"\x17\x0d691231235959Z");
    assert!(time(i64::MAX).is_err() && time(i64::MIN).is_err());
    let read = |tag, text: &str| parse_time(&Tlv { tag, content: text.as_bytes(), raw: &[] });
    assert_eq!(read(0x18, "20500101000000.5Z"), Some(ms_2049 + 1000));
    assert_eq!(read(0x17, "7001010000Z"), Some(0));
    for bad in ["", "Z", "700101000000", "701301000000Z", "70010100000éZ", "+1010100000Z", "700101006000Z"] {
        assert_eq!(read(0x17, bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn times_come_back(seconds in -631_152_000_i64..253_402_300_799) {
        let encoded = time(seconds * 1000).unwrap();
        let value = Reader::new(&encoded).next("").unwrap();
        prop_assert_eq!(parse_time(&value), Some(seconds * 1000));
    }

    #[test]
    fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(once) = to_definite(&bytes, LIMIT) {
            // The definite form is stable.
            let again = to_definite(&once, LIMIT).unwrap();
            prop_assert_eq!(&again, &once);
        }
        let mut reader = Reader::new(&bytes);
        while !reader.is_empty() && reader.next("").is_ok() {}
    }

    #[test]
    fn ber_like_rubbish_never_panics(
        bytes in proptest::collection::vec(
            prop_oneof![Just(0x30_u8), Just(0x80), Just(0x24), Just(0), Just(4), Just(1), Just(2), Just(0xa0)],
            0..60,
        )
    ) {
        if let Ok(once) = to_definite(&bytes, LIMIT) {
            prop_assert_eq!(&to_definite(&once, LIMIT).unwrap(), &once);
        }
    }
}
