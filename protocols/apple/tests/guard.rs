//! Hostile property lists cost an error and nothing else (AT-10, AT-50).
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use bellwether_apple::Error;
use bellwether_apple::guard::{Limits, parse};
use plist::{Dictionary, Value};
use proptest::prelude::*;

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
"#;

fn guard(bytes: &[u8]) -> Result<Value, Error> {
    let begin = Instant::now();
    let result = parse(bytes, &Limits::default());
    assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());
    if let Ok(value) = &result {
        // Whatever is let in can be written again without a panic.
        let _ = value.to_writer_xml(std::io::sink());
    }
    result
}

fn document(body: &str) -> Result<Value, Error> {
    guard(format!("{HEAD}<plist version=\"1.0\">{body}</plist>").as_bytes())
}

#[test]
fn every_kind_of_value() {
    let value = document(
        "<dict><key>s</key><string>a &lt;&amp;&#65;&#x42;<!-- no --> <![CDATA[<c>]]></string>\
         <key>e</key><string/><key>i</key><integer>-5</integer><key>h</key><integer>0xff</integer>\
         <key>m</key><integer>18446744073709551615</integer><key>r</key><real>1.5</real>\
         <key>t</key><true/><key>f</key><false></false><key>d</key><data>\n\tYWJj\n</data>\
         <key>w</key><date>2026-11-22T02:29:44Z</date><key>a</key><array><dict/><array/></array></dict>",
    )
    .unwrap();
    let keys = value.as_dictionary().unwrap();
    assert_eq!(keys["s"].as_string(), Some("a <&AB <c>"));
    assert_eq!(keys["e"].as_string(), Some(""));
    assert_eq!(keys["i"].as_signed_integer(), Some(-5));
    assert_eq!(keys["h"].as_unsigned_integer(), Some(255));
    assert_eq!(keys["m"].as_unsigned_integer(), Some(u64::MAX));
    assert_eq!(keys["r"].as_real(), Some(1.5));
    assert_eq!(keys["t"].as_boolean(), Some(true));
    assert_eq!(keys["f"].as_boolean(), Some(false));
    assert_eq!(keys["d"].as_data(), Some(&b"abc"[..]));
    assert_eq!(keys["w"].as_date().unwrap().to_xml_format(), "2026-11-22T02:29:44Z");
    assert_eq!(keys["a"].as_array().unwrap().len(), 2);
}

#[test]
fn forms_that_are_fine() {
    for text in [
        "<plist><dict/></plist>",
        "<dict/>",
        "\u{FEFF}<?xml version=\"1.0\" encoding=\"utf-8\" standalone=\"yes\"?><plist><true/></plist>",
        "<!-- hi --><plist version='1.0'><!-- hi --><string>x</string></plist>\n<!-- bye -->\n",
        "<!DOCTYPE plist PUBLIC '-//Apple Computer//DTD PLIST 1.0//EN' \
         'https://www.apple.com/DTDs/PropertyList-1.0.dtd'><plist><dict/></plist>",
    ] {
        assert!(guard(text.as_bytes()).is_ok(), "{text}: {:?}", guard(text.as_bytes()));
    }
}

#[test]
fn empty_bodies() {
    assert_eq!(guard(b""), Err(Error::Empty));
    assert_eq!(guard(b" \r\n\t"), Err(Error::Empty));
}

#[test]
fn malformed_documents() {
    for body in [
        "",
        "<dict>",
        "<dict/><dict/>",
        "<dict></array>",
        "<dict><key>a</key></dict>",
        "<dict><string>a</string></dict>",
        "<dict><key>a</key><key>b</key></dict>",
        "<dict><key>a</key><true/><key>a</key><false/></dict>",
        "<key>a</key>",
        "<array><key>a</key></array>",
        "<string><true/></string>",
        "<true>yes</true>",
        "<integer></integer>",
        "<integer>1e3</integer>",
        "<integer>18446744073709551616</integer>",
        "<integer>-9223372036854775809</integer>",
        "<integer>--1</integer>",
        "<real>one</real>",
        "<date>yesterday</date>",
        "<data>*</data>",
        "text",
        "<set/>",
        "<plist><dict/></plist>",
        "<string>&#0;</string>",
        "<string>&#x1F;</string>",
        "<string>&#xD800;</string>",
        "<string>&#99999999999;</string>",
        "<x:dict/>",
    ] {
        assert!(document(body).is_err(), "{body}");
    }
    assert!(guard(b"not a property list").is_err());
    assert!(guard(b"<plist><dict/></plist><plist/>").is_err());
    assert!(guard(b"<plist><dict/></plist>text").is_err());
    assert!(guard(b"{ a = b; }").is_err());
}

#[test]
fn the_tricks_of_xml() {
    let doctype = |text: &str| guard(format!("{text}<plist><string>a</string></plist>").as_bytes());
    for text in [
        "<!DOCTYPE plist [<!ENTITY a \"b\">]>",
        "<!DOCTYPE plist>",
        "<!DOCTYPE plist SYSTEM \"file:///etc/passwd\">",
        "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://evil.example/x.dtd\">",
        "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\" [<!ENTITY a \"b\">]>",
        "<!DOCTYPE html PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">",
    ] {
        assert_eq!(doctype(text), Err(Error::Doctype), "{text}");
    }
    let apple = HEAD.lines().nth(1).unwrap();
    assert_eq!(doctype(&format!("{apple}{apple}")), Err(Error::Doctype));
    assert_eq!(document("<string>&xxe;</string>"), Err(Error::Entity));
    assert_eq!(document("<?php x?><dict/>"), Err(Error::ProcessingInstruction));
    assert_eq!(doctype("<?xml-stylesheet href='x'?>"), Err(Error::ProcessingInstruction));
    assert!(guard(b"<plist><?xml version=\"1.0\"?><dict/></plist>").is_err());
    assert!(guard(b" <?xml version=\"1.0\"?><plist><dict/></plist>").is_err());
    assert!(guard(b"<?xml version=\"1.1\"?><plist><dict/></plist>").is_err());
    for encoding in ["UTF-16", "UTF-7", "ISO-8859-1", "utf8", ""] {
        let text = format!("<?xml version=\"1.0\" encoding=\"{encoding}\"?><plist><dict/></plist>");
        assert_eq!(guard(text.as_bytes()), Err(Error::Encoding), "{encoding}");
    }
    let utf16: Vec<u8> = "<plist><dict/></plist>".encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert!(guard(&utf16).is_err());
    assert_eq!(guard(b"<plist><string>\xff</string></plist>"), Err(Error::Encoding));
}

#[test]
fn billion_laughs_and_quadratic_blow_up() {
    let mut text = String::from("<!DOCTYPE plist [<!ENTITY l0 \"ha\">");
    for n in 1..20 {
        text += &format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10));
    }
    text += "]><plist><string>&l19;</string></plist>";
    assert_eq!(guard(text.as_bytes()), Err(Error::Doctype));
    let body = format!("<string>{}</string>", "&big;".repeat(100_000));
    assert_eq!(document(&body), Err(Error::Entity));
}

#[test]
fn deep_nesting() {
    for (open, close) in [("<array>", "</array>"), ("<dict><key>a</key>", "</dict>")] {
        let deep = format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(document(&deep), Err(Error::TooDeep { limit: 32 }));
        let unclosed = open.repeat(100_000);
        assert_eq!(document(&unclosed), Err(Error::TooDeep { limit: 32 }));
        let fine = format!("{}<true/>{}", open.repeat(32), close.repeat(32));
        assert!(document(&fine).is_ok());
    }
    assert!(document(&"<string>".repeat(100_000)).is_err());
}

#[test]
fn a_million_attributes() {
    let attributes: String = (0..1_000_000).map(|n| format!(" a{n}='x'")).collect();
    assert_eq!(document(&format!("<dict{attributes}/>")), Err(Error::TooManyAttributes));
    let namespaces: String = (0..100_000).map(|n| format!(" xmlns:a{n}='x'")).collect();
    assert_eq!(document(&format!("<dict{namespaces}/>")), Err(Error::TooManyAttributes));
}

#[test]
fn limits_hold() {
    let small = Limits { max_bytes: 1000, max_depth: 4, max_nodes: 10, max_string: 20, max_attributes: 1 };
    let parse = |text: &str| parse(text.as_bytes(), &small);
    assert_eq!(parse(&" ".repeat(1001)), Err(Error::TooLarge { limit: 1000 }));
    let many = format!("<array>{}</array>", "<true/>".repeat(10));
    assert_eq!(parse(&many), Err(Error::TooManyNodes { limit: 10 }));
    let long = format!("<string>{}</string>", "x".repeat(21));
    assert_eq!(parse(&long), Err(Error::ValueTooLarge { limit: 20 }));
    let pieces = format!("<string>{}</string>", "x<!-- -->".repeat(60));
    assert_eq!(parse(&pieces), Err(Error::ValueTooLarge { limit: 20 }));
    let key = format!("<dict><key>{}</key><true/></dict>", "k".repeat(21));
    assert_eq!(parse(&key), Err(Error::ValueTooLarge { limit: 20 }));
}

/// Builds a binary property list from raw objects, with one byte per offset and reference.
fn binary(objects: &[Vec<u8>], top: u8) -> Vec<u8> {
    let mut bytes = b"bplist00".to_vec();
    let mut offsets = Vec::new();
    for object in objects {
        offsets.push(u16::try_from(bytes.len()).unwrap());
        bytes.extend(object);
    }
    let table = bytes.len() as u64;
    for offset in offsets {
        bytes.extend(offset.to_be_bytes());
    }
    bytes.extend([0; 6]);
    bytes.extend([2, 1]);
    bytes.extend((objects.len() as u64).to_be_bytes());
    bytes.extend(u64::from(top).to_be_bytes());
    bytes.extend(table.to_be_bytes());
    bytes
}

#[test]
fn binary_values() {
    let list = binary(
        &[
            vec![0xa5, 1, 2, 3, 4, 5],
            vec![0x09],
            vec![0x13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfb],
            vec![0x52, b'h', b'i'],
            vec![0x61, 0x26, 0x3a],
            vec![0xd1, 3, 1],
        ],
        0,
    );
    let value = guard(&list).unwrap();
    let items = value.as_array().unwrap();
    assert_eq!(items[1].as_signed_integer(), Some(-5));
    assert_eq!(items[2].as_string(), Some("hi"));
    assert_eq!(items[3].as_string(), Some("\u{263a}"));
    assert_eq!(items[4].as_dictionary().unwrap()["hi"].as_boolean(), Some(true));
}

/// A date after the year 5170 was read from XML and made a whole binary list unreadable.
#[test]
fn a_date_is_sound_in_both_forms_or_in_none() {
    for text in
        ["0001-01-01T00:00:00Z", "4001-01-01T00:00:00Z", "8705-11-20T03:04:05Z", "9999-12-31T23:59:59Z"]
    {
        let value = document(&format!("<date>{text}</date>")).unwrap();
        let mut binary = Vec::new();
        value.to_writer_binary(&mut binary).unwrap();
        assert_eq!(guard(&binary), Ok(value), "{text}");
    }
}

/// The `plist` crate panics when it writes a date that RFC 3339 cannot express.
#[test]
fn dates_that_cannot_be_written() {
    let dated = |seconds: f64| guard(&binary(&[[vec![0x33], seconds.to_be_bytes().to_vec()].concat()], 0));
    for seconds in [0.0, -978_307_200.5, -63_113_904_000.0, 99_999_999_999.0] {
        let date = dated(seconds).unwrap().as_date().unwrap();
        assert!(!date.to_xml_format().is_empty());
    }
    for seconds in [-63_113_904_001.0, -99_999_999_999.0, 1.0e12, f64::MAX, f64::NEG_INFINITY] {
        assert!(dated(seconds).is_err(), "{seconds}");
    }
    for text in [
        "0000-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-23:00",
        "0000-06-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
    ] {
        assert!(document(&format!("<date>{text}</date>")).is_err(), "{text}");
    }
    let early = std::time::UNIX_EPOCH - Duration::from_secs(100_000_000_000);
    let answers = [("LastCloudBackupDate".to_owned(), Value::Date(early.into()))].into_iter().collect();
    let body = [("QueryResponses".to_owned(), Value::Dictionary(answers))].into_iter().collect();
    assert!(bellwether_apple::answer::facts("DeviceInformation", &body).is_empty());
    let command = [("RequestType", Value::from("A")), ("Date", Value::Date(early.into()))];
    let command = command.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let raw = bellwether_apple::command::RawCommand::from_dictionary(command).unwrap();
    assert!(bellwether_apple::command::Command::Raw(raw).encode("u").is_err());
}

#[test]
fn binary_cycles_and_sharing() {
    assert_eq!(guard(&binary(&[vec![0xa1, 0]], 0)), Err(Error::TooDeep { limit: 32 }));
    let two = binary(&[vec![0xa1, 1], vec![0xa2, 0, 0]], 0);
    assert_eq!(guard(&two), Err(Error::TooDeep { limit: 32 }));
    // Each level holds the next one ten times: 10^20 values in 200 bytes.
    let mut objects: Vec<Vec<u8>> = (1..=20).map(|n| [vec![0xaa], vec![n; 10]].concat()).collect();
    objects.push(vec![0x09]);
    assert_eq!(guard(&binary(&objects, 0)), Err(Error::TooManyNodes { limit: 500_000 }));
    // One long string, a thousand times.
    let mut long = vec![0x5f, 0x11, 0x80, 0x00];
    long.extend([b'x'; 0x8000]);
    let mut list = vec![0xaf, 0x11, 0x04, 0x00];
    list.extend([1; 0x400]);
    let bytes = binary(&[list, long], 0);
    let small = Limits { max_bytes: 100_000, ..Limits::default() };
    assert_eq!(parse(&bytes, &small), Err(Error::ValueTooLarge { limit: 100_000 }));
}

#[test]
fn binary_lies() {
    let good = binary(&[vec![0xa1, 1], vec![0x09]], 0);
    assert!(guard(&good).is_ok());
    let end = good.len();
    let with = |at: usize, bytes: &[u8]| {
        let mut list = good.clone();
        list[at..at + bytes.len()].copy_from_slice(bytes);
        guard(&list)
    };
    let huge = u64::MAX.to_be_bytes();
    assert!(with(end - 24, &huge).is_err(), "number of objects");
    assert!(with(end - 24, &(u64::MAX / 2 + 1).to_be_bytes()).is_err(), "overflow of the table");
    assert!(with(end - 16, &huge).is_err(), "top object");
    assert!(with(end - 8, &huge).is_err(), "offset of the table");
    assert!(with(end - 8, &0_u64.to_be_bytes()).is_err(), "table in the header");
    assert!(with(end - 26, &[0]).is_err(), "offset width");
    assert!(with(end - 26, &[255]).is_err(), "offset width");
    assert!(with(end - 25, &[0]).is_err(), "reference width");
    assert!(with(6, b"15").is_err(), "version");
    for object in [
        vec![0x00],
        vec![0x0f],
        vec![0x15],
        vec![0x24],
        vec![0x80, 1],
        vec![0xc1, 0],
        vec![0x4f],
        vec![0x4f, 0x13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x4f, 0x14, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0x6f, 0x13, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0xaf, 0x13, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0xdf, 0x13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x55, b'a'],
        vec![0x51, 0xff],
        vec![0x61, 0xd8, 0x00],
        vec![0xa1, 9],
        vec![0xd1, 0, 0],
        vec![0x33, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0],
        vec![0x33, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
        vec![0x33, 0x7f, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x14, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert!(guard(&binary(std::slice::from_ref(&object), 0)).is_err(), "{object:02x?}");
    }
    assert!(guard(b"bplist00").is_err());
    assert!(guard(&[b"bplist00".as_slice(), &[0; 31]].concat()).is_err());
}

/// Values as devices send them; dates have whole seconds in XML.
fn values() -> impl Strategy<Value = Value> {
    let text = "[\\PC\\n\\t]{0,12}";
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(|n| Value::Integer(n.into())),
        any::<u64>().prop_map(|n| Value::Integer(n.into())),
        (-1.0e9..1.0e9_f64).prop_map(Value::Real),
        text.prop_map(Value::String),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Data),
        (-5_000_000_000_i64..5_000_000_000).prop_map(|seconds| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            let epoch = std::time::UNIX_EPOCH;
            let moment = if seconds < 0 { epoch - distance } else { epoch + distance };
            Value::Date(moment.into())
        }),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::btree_map(text, inner, 0..6)
                .prop_map(|map| Value::Dictionary(map.into_iter().collect::<Dictionary>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_the_plist_crate_writes_reads_the_same(value in values()) {
        let mut xml = Vec::new();
        value.to_writer_xml(&mut xml).unwrap();
        prop_assert_eq!(&guard(&xml).unwrap(), &value);
        let mut binary = Vec::new();
        value.to_writer_binary(&mut binary).unwrap();
        prop_assert_eq!(&guard(&binary).unwrap(), &value);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = guard(&bytes);
        let _ = guard(&[b"bplist00".as_slice(), &bytes].concat());
        let _ = guard(&[b"<plist><dict>".as_slice(), &bytes].concat());
    }

    #[test]
    fn damaged_lists_never_panic(value in values(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<proptest::sample::Index>()) {
        for form in [0, 1] {
            let mut bytes = Vec::new();
            if form == 0 { value.to_writer_xml(&mut bytes).unwrap() } else { value.to_writer_binary(&mut bytes).unwrap() }
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let _ = guard(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = guard(&bytes);
        }
    }

    #[test]
    fn damaged_trailers_never_panic(trailer in proptest::collection::vec(any::<u8>(), 26), body in proptest::collection::vec(any::<u8>(), 1..80)) {
        let list = [b"bplist00".as_slice(), &body, &[0; 6], &trailer].concat();
        let _ = guard(&list);
    }

    #[test]
    fn dates_never_panic(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,12})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])", seconds in any::<u64>()) {
        let _ = document(&format!("<date>{text}</date>"));
        let _ = guard(&binary(&[[vec![0x33], seconds.to_be_bytes().to_vec()].concat()], 0));
    }

    /// Small, plausible trailers reach the object reader more often than random ones.
    #[test]
    fn plausible_trailers_never_panic(body in proptest::collection::vec(any::<u8>(), 1..80), objects in 1_u64..20, top in 0_u64..20, back in 0_usize..40) {
        let table = (8 + body.len()).saturating_sub(back) as u64;
        let mut list = [b"bplist00".as_slice(), &body].concat();
        list.extend([0, 0, 0, 0, 0, 0, 1, 1]);
        list.extend(objects.to_be_bytes());
        list.extend(top.to_be_bytes());
        list.extend(table.to_be_bytes());
        let _ = guard(&list);
    }
}
