//! SyncML documents: the documented samples with their bugs, both encodings, and hostile input.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::{
    Alert, Command, Data, Error, Format, Group, GroupKind, Header, Item, Location, Message, Meta, Request,
    Verb, wbxml, writer,
};
use proptest::prelude::*;

const FIRST: &[u8] = include_bytes!("../testdata/syncml/first-package.xml");
const BUGS: &[u8] = include_bytes!("../testdata/syncml/unenrollment-bugs.xml");
const INNER: &[u8] = include_bytes!("../testdata/syncml/declared-configuration.xml");

fn read(bytes: &[u8]) -> Result<Message, Error> {
    reader::read(bytes, &Limits::SESSION)
}

#[test]
fn a_native_first_package() {
    let message = read(FIRST).unwrap();
    assert_eq!(message.header.source.uri, "B5B954E81FBCB94EB79BD08BE625F4EE");
    assert!(message.last);
    let [Command::Alert(start), Command::Alert(login), Command::Request(replace)] =
        message.commands.as_slice()
    else {
        panic!("{:?}", message.commands)
    };
    assert_eq!((start.code, start.cmd_id.as_str()), (1201, "2"));
    assert_eq!(login.items[0].meta.kind.as_deref(), Some("com.microsoft/MDM/LoginStatus"));
    assert_eq!(replace.items[1].data, Some(Data::text("Example, Inc.")));
    assert_eq!(read(&writer::write(&message).unwrap()).unwrap(), message);
}

#[test]
fn documented_bugs_are_accepted() {
    let message = read(BUGS).unwrap();
    assert_eq!(message.header.session_id, "5D");
    let Command::Alert(alert) = &message.commands[1] else { panic!("no alert") };
    assert_eq!((alert.code, alert.items[0].meta.format.clone()), (1226, Some(Format::Int)));
    assert_eq!(message.commands[2], Command::Unknown { name: "Frobnicate".into(), cmd_id: "9".into() });
}

#[test]
fn markup_stays_exact_and_prefixes_do_not_matter() {
    let message = read(INNER).unwrap();
    let [Command::Status(status), Command::Results(results), Command::Alert(alert)] =
        message.commands.as_slice()
    else {
        panic!("{:?}", message.commands)
    };
    assert_eq!((status.code, status.original_error.as_deref()), (404, Some("0x86000002")));
    assert_eq!((results.msg_ref, results.items[0].data.clone()), (None, Some(Data::text("10.0 <&>"))));
    let expected = "<DeclaredConfigurations schema=\"1.0\"><DeclaredConfiguration context=\"Device\"  id='X' \
                    state=\"60\"/>\n</DeclaredConfigurations>";
    assert_eq!(alert.items[0].data, Some(Data::Markup(expected.to_owned())));
    assert!(!message.last);
    assert_eq!(read(&writer::write(&message).unwrap()).unwrap(), message);
}

fn sample(data: &str) -> Message {
    let item = Item {
        target: Some(Location::new("./Device/Vendor/MSFT/X/%7B1%7D")),
        meta: Meta { format: Some(Format::Chr), kind: Some("text/plain".into()), ..Meta::default() },
        data: Some(Data::text(data)),
        ..Item::default()
    };
    let mut request = Request::new(Verb::Replace, item);
    request.cmd_id = "3".into();
    let group = Group {
        kind: GroupKind::Atomic,
        cmd_id: "2".into(),
        no_resp: false,
        meta: Meta::default(),
        commands: vec![Command::Request(request)],
    };
    let header = Header {
        ver_dtd: "1.2".into(),
        ver_proto: "DM/1.2".into(),
        session_id: "1".into(),
        msg_id: 7,
        target: Location::new("AB"),
        source: Location::new("https://mdm.example/m"),
        resp_uri: None,
        no_resp: false,
        cred: None,
        meta: Meta { max_msg_size: Some(4096), ..Meta::default() },
    };
    let alert = Command::Alert(Alert { cmd_id: "4".into(), code: 1222, ..Alert::default() });
    Message { header, commands: vec![Command::Group(group), alert], last: true }
}

#[test]
fn awkward_text_survives_and_is_escaped() {
    let text = "a<b>&amp; \"q\" 'r' ]]> \r\n\t ü \u{F000} 𝄞";
    let bytes = writer::write(&sample(text)).unwrap();
    assert_eq!(read(&bytes).unwrap(), sample(text));
    let written = String::from_utf8(bytes).unwrap();
    assert!(!written.contains("CDATA") && written.contains("&lt;b&gt;&amp;amp;"));
    assert!(
        written
            .contains("<Format xmlns=\"syncml:metinf\">chr</Format><Type xmlns=\"syncml:metinf\">text/plain")
    );
    assert!(matches!(writer::write(&sample("\u{1}")), Err(Error::NotWritable(_))));
    let mut broken = sample("");
    let Command::Group(group) = &mut broken.commands[0] else { panic!("no group") };
    let Command::Request(request) = &mut group.commands[0] else { panic!("no request") };
    for markup in ["</Data>", "<a>", "<a></b>", "<a/></Data><Data>", "&x;", "<?p?>", "<!DOCTYPE a>"] {
        request.items[0].data = Some(Data::Markup(markup.into()));
        let mut message = sample("");
        message.commands[0] = Command::Request(request.clone());
        assert!(writer::write(&message).is_err(), "{markup}");
    }
}

#[test]
fn at_50_windows_syncml_bombs() {
    let wrap = |body: &str| String::from_utf8(FIRST.to_vec()).unwrap().replace("<Final/>", body);
    let deep = ["<Atomic><CmdID>1</CmdID>".repeat(20_000), "</Atomic>".repeat(20_000)].concat();
    assert_eq!(read(wrap(&deep).as_bytes()), Err(Error::TooDeep { limit: 48 }));
    let wide = "<Alert/>".repeat(200_000);
    assert_eq!(read(wrap(&wide).as_bytes()), Err(Error::TooManyNodes { limit: 100_000 }));
    let inner = ["<Alert><Data>", &"<a/>".repeat(200_000), "</Data></Alert>"].concat();
    assert_eq!(read(wrap(&inner).as_bytes()), Err(Error::TooManyNodes { limit: 100_000 }));
    let inner = ["<Alert><Data>", &"<a>".repeat(20_000), &"</a>".repeat(20_000), "</Data></Alert>"].concat();
    assert_eq!(read(wrap(&inner).as_bytes()), Err(Error::TooDeep { limit: 48 }));
    let attributes: String = (0..1000).map(|n| format!(" a{n}='1'")).collect();
    let many = ["<Alert", &attributes, "/>"].concat();
    assert_eq!(read(wrap(&many).as_bytes()), Err(Error::TooManyAttributes { limit: 16 }));
    let doctype = ["<!DOCTYPE SyncML [<!ENTITY a \"b\">]>", &wrap("")].concat();
    assert_eq!(read(doctype.as_bytes()), Err(Error::Doctype));
    assert_eq!(read(wrap("<Alert><CmdID>&bomb;</CmdID></Alert>").as_bytes()), Err(Error::Entity));
    assert_eq!(read(wrap("<?php x?>").as_bytes()), Err(Error::ProcessingInstruction));
    for control in ["\u{1}", "&#1;", "&#x1F;", "&#xFFFF;"] {
        let text = ["<Alert><CmdID>", control, "</CmdID></Alert>"].concat();
        assert_eq!(
            read(wrap(&text).as_bytes()),
            Err(Error::Xml("it contains a control character")),
            "{control:?}"
        );
    }
    assert_eq!(read(b"\xFF\xFE<\0"), Err(Error::Encoding));
    assert_eq!(read(b" \n"), Err(Error::Empty));
    assert!(matches!(read(&vec![b' '; 17 << 20]), Err(Error::TooLarge { .. })));
    assert!(read(["<a/>", &wrap("")].concat().as_bytes()).is_err());
}

#[test]
fn ten_megabytes_of_results_are_one_message() {
    let text = "x".repeat(10 << 20);
    let message = sample(&text);
    let bytes = writer::write(&message).unwrap();
    assert_eq!(read(&bytes).unwrap(), message);
    assert_eq!(wbxml::read(&wbxml::write(&message).unwrap(), &Limits::SESSION).unwrap(), message);
    assert!(matches!(reader::read(&bytes, &Limits::UNAUTHENTICATED), Err(Error::TooLarge { .. })));
}

/// The vectors lie beside the repository; without them the test has nothing to say.
fn vectors() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/syncml-vectors");
    if folder.is_dir() {
        return Some(folder);
    }
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("SKIPPED: {} is not there\n", folder.display()),
    );
    None
}

/// The vectors' XML has a document type, which no device sends and the reader refuses, and blanks between elements.
fn without_doctype(bytes: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    let begin = text.find("<SyncML").unwrap();
    text.as_bytes().get(begin..).unwrap().to_vec()
}

#[test]
fn the_vectors_mean_the_same_in_both_encodings() {
    let Some(folder) = vectors() else { return };
    for name in ["server-reply", "libdmclient-msg2"] {
        let xml = std::fs::read(folder.join(name).with_extension("xml")).unwrap();
        let binary = std::fs::read(folder.join(name).with_extension("wbxml")).unwrap();
        let expected = read(&without_doctype(&xml)).unwrap();
        assert_eq!(wbxml::read(&binary, &Limits::SESSION).unwrap(), expected, "{name}");
        assert_eq!(
            wbxml::read(&wbxml::write(&expected).unwrap(), &Limits::SESSION).unwrap(),
            expected,
            "{name}"
        );
    }
    let reply = std::fs::read(folder.join("server-reply.wbxml")).unwrap();
    assert_eq!(
        wbxml::write(&wbxml::read(&reply, &Limits::SESSION).unwrap()).unwrap(),
        reply,
        "byte for byte"
    );
}

fn judge(program: &str, input: &[u8], name: &str) -> Option<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("bellwether-syncml-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (from, to) = (folder.join("in"), folder.join("out"));
    std::fs::write(&from, input).unwrap();
    let result = match Process::new(program).arg("-o").arg(&to).arg(&from).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {output:?}");
            Some(std::fs::read(&to).unwrap())
        }
        Err(error) if std::env::var_os("CI").is_none() => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: {program}: {error}\n"),
            );
            None
        }
        Err(error) => panic!("{program} is needed: {error}"),
    };
    std::fs::remove_dir_all(&folder).unwrap();
    result
}

#[test]
fn libwbxml_agrees() {
    let messages = [read(FIRST).unwrap(), sample("a <b> & \"c\""), read(BUGS).map(known_only).unwrap()];
    for (index, message) in messages.iter().enumerate() {
        let binary = wbxml::write(message).unwrap();
        if let Some(xml) = judge("wbxml2xml", &binary, &format!("to-xml-{index}")) {
            assert_eq!(&read(&without_doctype(&xml)).unwrap(), message);
        }
        let xml = writer::write(message).unwrap();
        if let Some(binary) = judge("xml2wbxml", &xml, &format!("to-wbxml-{index}")) {
            assert_eq!(&wbxml::read(&binary, &Limits::SESSION).unwrap(), message);
        }
    }
}

fn known_only(mut message: Message) -> Message {
    message.commands.retain(|command| !matches!(command, Command::Unknown { .. }));
    message
}

#[test]
fn wbxml_with_a_string_table() {
    // The public identifier as text in the table, and an element's text as a reference into it.
    let name = b"-//SYNCML//DTD SyncML 1.2//EN\0AB\0";
    let mut bytes = vec![0x02, 0x00, 0x00, 0x6A, u8::try_from(name.len()).unwrap()];
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&wbxml::write(&sample("x")).unwrap()[5..]);
    let at = bytes.windows(4).position(|window| window == [0x03, b'A', b'B', 0]).unwrap();
    bytes.splice(at..at + 4, [0x83, 30]);
    assert_eq!(wbxml::read(&bytes, &Limits::SESSION).unwrap(), sample("x"));
}

#[test]
fn at_50_windows_wbxml_bombs() {
    const MOST: usize = 16 * 1024 * 1024;
    let bomb = |table: &[u8], body: &[u8]| {
        let mut bytes = vec![0x03, 0xA4, 0x01, 0x6A];
        bytes.extend([14, 7, 0].map(|shift| {
            let seven = u8::try_from(table.len() >> shift & 0x7F).unwrap();
            if shift == 0 { seven } else { seven | 0x80 }
        }));
        wbxml::read(&[&bytes[..], table, body].concat(), &Limits::SESSION)
    };
    assert_eq!(bomb(b"", &[0x48; 100_000]), Err(Error::TooDeep { limit: 48 }));
    let wide = [vec![0x6D, 0x6B], vec![0x06; 200_000]].concat();
    assert_eq!(bomb(b"", &wide), Err(Error::TooManyNodes { limit: 100_000 }));
    let attributes = [vec![0xED], vec![0x05; 10_000], vec![0x01]].concat();
    assert_eq!(bomb(b"", &attributes), Err(Error::TooManyAttributes { limit: 16 }));
    assert_eq!(bomb(b"", &vec![0; MOST]), Err(Error::TooLarge { limit: MOST }));
    // A megabyte in the table, named forty times: as a text, and as an element's name.
    let table = [vec![b'x'; 1 << 20], vec![0]].concat();
    let texts = [vec![0x6D, 0x4F], [0x83, 0].repeat(40), vec![0x01, 0x01]].concat();
    assert_eq!(bomb(&table, &texts), Err(Error::TooLarge { limit: MOST }));
    let names = [vec![0x6D], [0x04, 0].repeat(40), vec![0x01]].concat();
    assert_eq!(bomb(&table, &names), Err(Error::TooLarge { limit: MOST }));
    // Lengths and places that are none.
    for (body, what) in [
        (&[0x6D, 0xC3, 0x8F, 0xFF, 0xFF, 0xFF, 0x7F][..], "it ends too early"),
        (&[0x6D, 0xC3, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], "a number is too large"),
        (&[0x6D, 0x80 | 0x03, 0x8F, 0xFF, 0xFF, 0xFF, 0x7F], "a reference leaves the string table"),
        (&[0x6D, 0x02, 0x83, 0xB0, 0x00], "an entity is no character"),
        (&[0x6D, 0x03, b'a'], "a string never ends"),
        (&[0x01], "an element ends that never began"),
        (&[0x2D, 0x2D], "there is something after the root element"),
        (&[], "it ends too early"),
    ] {
        assert_eq!(bomb(b"", body), Err(Error::Wbxml(what)), "{body:x?}");
    }
}

/// What an answer repeats of a message must be something that can be written: a command's name and its `CmdID`.
#[test]
fn names_that_are_none_are_refused() {
    let named = |name: &str| {
        let xml = String::from_utf8(writer::write(&sample("x")).unwrap()).unwrap();
        let unknown = format!("<{name}><CmdID>9</CmdID></{name}><Final");
        read(xml.replace("<Final", &unknown).as_bytes())
    };
    for name in ["Search", "x:Search", "Sübsearch", "_a.b-1"] {
        assert!(named(name).is_ok(), "{name}");
    }
    for name in ["Fin\u{1f}al", "Ite<", "-a", "1", "a&b", "p\u{1}:Search", "a\u{fffe}"] {
        assert!(named(name).is_err(), "{name:?}");
    }
    // The same as a literal of the string table, and in the text of an element.
    let good = wbxml::write(&sample("x")).unwrap();
    let with_table = |name: &[u8]| {
        let table = [name, &[0]].concat();
        let bytes = [&good[..4], &[u8::try_from(table.len()).unwrap()], &table, &good[5..]].concat();
        let end = bytes.len() - 3;
        wbxml::read(&[&bytes[..end], &[0x04, 0], &bytes[end..]].concat(), &Limits::SESSION)
    };
    assert!(with_table(b"Search").is_ok());
    assert_eq!(with_table(b"Fin\x1fal"), Err(Error::Wbxml("an element has a name that is none")));
    let at = good.windows(4).position(|window| window == [0x03, b'A', b'B', 0]).unwrap();
    let mut control = good;
    control[at + 1] = 1;
    let refused = Err(Error::Wbxml("a text contains a control character"));
    assert_eq!(wbxml::read(&control, &Limits::SESSION), refused);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        let _ = wbxml::read(&bytes, &Limits::SESSION);
        let _ = wbxml::read(&[&[3, 0xA4, 1, 0x6A, 0, 0x6D, 0x6C][..], &bytes].concat(), &Limits::SESSION);
    }

    #[test]
    fn mutations_are_survived(index in 0..3_usize, cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..12)) {
        let xml = [FIRST, BUGS, INNER][index];
        for mut bytes in [xml.to_vec(), wbxml::write(&sample("abc")).unwrap()] {
            for (at, value, kind) in &cuts {
                if bytes.is_empty() { break; }
                let at = at.index(bytes.len());
                match kind { 0 => bytes[at] = *value, 1 => { bytes.remove(at); } _ => bytes.insert(at, *value) }
            }
            for message in [read(&bytes), wbxml::read(&bytes, &Limits::SESSION)].into_iter().flatten() {
                let _ = wbxml::write(&message);
                let _ = writer::write(&message);
            }
        }
    }

    #[test]
    fn any_text_round_trips(text in "\\PC{0,200}[\r\n\t]{0,3}") {
        let message = sample(&text);
        prop_assert_eq!(read(&writer::write(&message).unwrap()).unwrap(), message.clone());
        prop_assert_eq!(wbxml::read(&wbxml::write(&message).unwrap(), &Limits::SESSION).unwrap(), message);
    }
}
