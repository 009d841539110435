//! What devices send to `/apple/mdm`: check-in messages, declarative management and command reports. Whoever a message
//! claims to come from has a sound name, what was read comes back equal from the device's own writer, and facts are
//! read from any answer without harm.

#![no_main]

use bellwether_apple::checkin::{self, Inbound, Message};
use bellwether_apple::guard::{self, Limits};
use bellwether_apple::{ChannelIds, answer, device, support};
use bellwether_fuzz::plists::survives_xml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let types =
        [None, Some(checkin::CHECK_IN_CONTENT_TYPE), Some("application/x-apple-aspen-mdm; charset=UTF-8")];
    let read = types.map(|t| checkin::decode_with(bytes, t, &Limits::UNAUTHENTICATED));
    for inbound in read.iter().flatten() {
        assert_sound(inbound.ids());
        // The header decides only between two readings that the body allows both.
        assert!(
            read.iter().flatten().all(|other| other.ids() == inbound.ids()),
            "the header names another device"
        );
    }
    let [plain, check_in, report] = read;
    if let Ok(plain) = &plain {
        assert!(
            check_in.as_ref() == Ok(plain) || report.as_ref() == Ok(plain),
            "no header reads what neither does"
        );
    }
    let Ok(value) = guard::parse(bytes, &Limits::UNAUTHENTICATED) else {
        assert!(plain.is_err());
        return;
    };
    let writable = survives_xml(&value);
    for inbound in [check_in, report].into_iter().flatten() {
        comes_back(&inbound, writable);
        extract(&inbound);
    }
});

fn assert_sound(ids: &ChannelIds) {
    for id in [Some(ids.device.as_str()), ids.user_key()].into_iter().flatten() {
        assert!(
            (1..=256).contains(&id.len()) && !id.chars().any(char::is_control) && id.trim() == id,
            "{id:?}"
        );
    }
}

/// Reads what the device's writer makes of a message.
fn comes_back(inbound: &Inbound, writable: bool) {
    let written = match inbound {
        Inbound::CheckIn(message) => device::check_in(&message.ids, &message.message),
        Inbound::Report(report) => {
            let uuid = report.command_uuid.as_deref();
            device::report(&report.ids, report.status, uuid, &report.error_chain, report.body.clone())
        }
    };
    let Ok(written) = written else {
        assert!(!writable, "the writer refuses what XML can carry");
        return;
    };
    if !writable {
        return;
    }
    // An answer may have a `MessageType` of its own; the header says that it is a report all the same.
    let content_type = match inbound {
        Inbound::CheckIn(_) => checkin::CHECK_IN_CONTENT_TYPE,
        Inbound::Report(_) => checkin::REPORT_CONTENT_TYPE,
    };
    match (inbound, checkin::decode(&written, Some(content_type)).expect("our own message")) {
        (Inbound::CheckIn(sent), Inbound::CheckIn(back)) => {
            assert_eq!((&sent.ids, &sent.message), (&back.ids, &back.message));
            assert!(back.problems.is_empty(), "{:?}", back.problems);
        }
        (Inbound::Report(sent), Inbound::Report(back)) => {
            assert_eq!(
                (&sent.ids, sent.status, &sent.command_uuid),
                (&back.ids, back.status, &back.command_uuid)
            );
            assert_eq!(sent.error_chain, back.error_chain);
            assert_eq!(sent.body, back.body);
        }
        (sent, back) => panic!("{sent:?} came back as {back:?}"),
    }
}

/// Everything that is read out of a message later.
fn extract(inbound: &Inbound) {
    match inbound {
        Inbound::CheckIn(message) => match &message.message {
            Message::Authenticate(message) => assert_facts(answer::authenticate_facts(message)),
            Message::DeclarativeManagement(message) => {
                let _ = message.endpoint();
            }
            _ => {}
        },
        Inbound::Report(report) => {
            for request_type in support::request_types() {
                assert_facts(answer::facts(request_type, &report.body));
                assert!(
                    answer::secrets(request_type, &report.body).iter().all(|secret| !secret.value.is_empty())
                );
            }
            let _ = answer::to_xml(&report.body);
        }
    }
}

fn assert_facts(facts: Vec<answer::Fact>) {
    let mut keys: Vec<&str> = facts.iter().map(|fact| fact.key.as_str()).collect();
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "a fact twice: {keys:?}");
    assert!(facts.iter().all(|fact| !fact.key.is_empty() && !fact.value.is_null()), "{facts:?}");
}
