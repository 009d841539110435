//! Names and documents that administrators give: LocURIs, policies, ADMX files, Wi-Fi and VPN profiles, addresses of
//! sign-in pages. No name leaves its own segment of a LocURI, and what is built can be written and read.
//!
//! The input is texts with a NUL between them.

#![no_main]

use bellwether_fuzz::syncml::{comes_back, host};
use bellwether_windows::csp::{self, Machine, PolicyValue, Scope, Step};
use bellwether_windows::enrollment::address::{
    AppRu, TermsRedirect, deep_link, discovery_domain, discovery_host,
};
use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::{Command, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split('\0');
    let (a, b, c) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    names(a);
    addresses(a, b);
    for scope in [Scope::Device, Scope::User] {
        steps(csp::policy(scope, a, b, &PolicyValue::Text(c.to_owned())).into_iter(), 6);
        let elements = vec![(b.to_owned(), c.to_owned()), (c.to_owned(), a.to_owned())];
        steps(csp::policy(scope, a, b, &PolicyValue::Enabled(elements)).into_iter(), 6);
        steps(csp::vpn(scope, a, b).into_iter(), 5);
    }
    steps(csp::ingest_admx(a, b, c).into_iter().flatten(), 9);
    steps(csp::wifi(a, b).into_iter(), 6);
    steps(csp::rename(a).into_iter(), 0);
    steps(csp::unenroll(a).into_iter(), 0);
    steps(csp::local_administrator(a, b).into_iter().flatten(), 0);
    if let Ok(profile) = csp::wlan_profile(a, Some(b).filter(|b| !b.is_empty()), !c.is_empty()) {
        let _ = reader::root_name(&profile, &Limits::SESSION).expect("a document of ours");
    }
    if let Ok(document) = csp::diagnostics_collection(a, b) {
        let _ = reader::root_name(&document, &Limits::SESSION).expect("a document of ours");
    }
});

/// A name is one segment, whatever it holds, and comes back from it.
fn names(name: &str) {
    let _ = (csp::find(name), Scope::of(name));
    let Ok(segment) = csp::segment("name", name) else { return };
    assert!(
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b))
    );
    let mut decoded = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(&tail[..2]).expect("two digits");
            decoded.push(u8::from_str_radix(digits, 16).expect("two digits"));
            rest = &tail[2..];
        } else {
            decoded.push(*first);
        }
    }
    assert_eq!(decoded, name.as_bytes());
}

/// Every step can be sent; with `depth`, its LocURI has as many segments as the node, so that no name added one.
fn steps(steps: impl Iterator<Item = Step>, depth: usize) {
    for step in steps {
        for command in step.commands() {
            let segments = command.uri.split('/').count();
            assert!(depth == 0 || segments >= depth, "{}", command.uri);
            assert!(
                !command.uri.split('/').skip(1).any(|s| s.is_empty() || s == "*" || s == ".."),
                "{}",
                command.uri
            );
        }
        let _ = csp::check(&step, &Machine { build: Some((19045, 1)), home: true, user_signed_in: false });
        let mut command = step.to_command();
        number(&mut command);
        comes_back(&Message { commands: vec![command], ..host() });
    }
}

fn number(command: &mut Command) {
    match command {
        Command::Request(request) => request.cmd_id = "2".to_owned(),
        Command::Group(group) => {
            group.cmd_id = "2".to_owned();
            group.commands.iter_mut().for_each(number);
        }
        _ => {}
    }
}

/// Nobody but an application of the machine or our own origin is ever sent a token.
fn addresses(a: &str, b: &str) {
    const OWN: &str = "https://mdm.example";
    if let Ok(address) = AppRu::parse(a, OWN) {
        let lower = address.as_str().to_ascii_lowercase();
        let ours = lower == OWN || lower.starts_with("https://mdm.example/");
        assert!(ours || lower.starts_with("ms-app") || lower.starts_with("ms-aad-brokerplugin"), "{lower}");
        assert!(!lower.contains(['"', '<', '>', '\'', ' ']), "{lower}");
    }
    if let Ok(address) = TermsRedirect::parse(a) {
        assert!(address.as_str().to_ascii_lowercase().starts_with("ms-appx-web"));
        assert!(address.accepted(b.as_bytes()).starts_with(address.as_str()));
        assert!(!address.failed(b, b).contains(['"', '<', '>', '\n']));
    }
    if let Ok(host) = discovery_host(a) {
        assert!(discovery_domain(&host).is_some(), "{host}");
    }
    let _ = deep_link(a, b, None);
}
