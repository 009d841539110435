//! AT-37 below the edge: who may send us a file, once, until when, and who gets to see it.

use crate::pc::Pc;
use crate::support::{House, house};
use bellwether_certs::hash::{hex, sha256};
use bellwether_engine::{Arriving, Error, Opening, UPLOAD_PIECE, may};
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{CommandId, CommandState, DeviceId, Intent};
use bellwether_windows::syncml::client::Answer;
use bellwether_windows::syncml::{Request, writer};

const MARK: &[u8] = b"what stands in the event log";

/// Tells a PC to collect diagnostics; the command, and the token of the address that it was told.
async fn told(house: &House, pc: &mut Pc, id: DeviceId) -> (CommandId, String) {
    let command = house.send(id, Intent::CollectDiagnostics { upload_url: None }).await.unwrap();
    let token = token_of(house, pc, 200).await;
    (command.id, token)
}

async fn token_of(house: &House, pc: &mut Pc, status: u16) -> String {
    let mut token = None;
    pc.session_with(house, "user", Vec::new(), &mut |request| {
        let item = request.items.first()?;
        let definition = item.uri()?.ends_with("/DiagnosticArchive/ArchiveDefinition");
        let data = item.data.as_ref().and_then(|data| data.as_str()).filter(|_| definition)?;
        let url = data.split("<SasUrl>").nth(1)?.split('<').next()?;
        token = Some(url.strip_prefix("https://mdm.example.org/uploads/").unwrap().to_owned());
        Some(Answer::status(status))
    })
    .await;
    token.expect("it was told an address of ours")
}

fn file(length: usize) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.extend((MARK.len()..length).map(|n| (n / 251) as u8 ^ (n as u8)));
    bytes
}

async fn open(house: &House, token: &str, announced: Option<u64>) -> Option<Box<Arriving>> {
    match house.engine.open_upload(token, None, announced).await.unwrap() {
        Opening::Open(arriving) => Some(arriving),
        _ => None,
    }
}

async fn send(house: &House, arriving: &mut Arriving, bytes: &[u8]) -> Result<(), Error> {
    for piece in bytes.chunks(UPLOAD_PIECE) {
        house.engine.upload_piece(arriving, piece.to_vec()).await?;
    }
    Ok(())
}

/// A whole upload; whether it was received.
async fn put(house: &House, token: &str, bytes: &[u8]) -> bool {
    let Some(mut arriving) = open(house, token, Some(bytes.len() as u64)).await else { return false };
    send(house, &mut arriving, bytes).await.unwrap();
    house.engine.receive_upload(&arriving, Some("192.0.2.1")).await.is_ok()
}

async fn fetch(house: &House, command: CommandId) -> Option<Vec<u8>> {
    let permit = house.admin.permit::<may::RevealSecrets>(house.site()).unwrap();
    let stored = match house.engine.stored_upload(&permit, command).await {
        Ok(stored) => stored,
        Err(Error::NotFound(_)) => return None,
        Err(other) => panic!("{other}"),
    };
    let mut all = Vec::new();
    while (all.len() as u64) < stored.size {
        let piece = house.engine.stored_piece(&stored, all.len() as u64).await.unwrap();
        assert!(piece.len() <= UPLOAD_PIECE, "never the whole file in memory");
        all.extend(piece);
    }
    assert_eq!(sha256(&all).to_vec(), stored.sha256);
    Some(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnostics_come_in_pieces_sealed_and_come_back_whole() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    for length in [MARK.len(), UPLOAD_PIECE, UPLOAD_PIECE + 1, 3 * UPLOAD_PIECE + 77] {
        let (command, token) = told(&house, &mut pc, id).await;
        assert_eq!(house.state(command).await, CommandState::Acknowledged, "nothing waits for the file");
        assert_eq!(house.command(command).await.upload, None);
        assert!(fetch(&house, command).await.is_none());
        let bytes = file(length);
        assert!(put(&house, &token, &bytes).await);
        assert!(fetch(&house, command).await.unwrap() == bytes, "{length}");
        let shown = house.command(command).await.upload.unwrap();
        assert_eq!((shown.size, shown.sha256), (length as i64, hex(&sha256(&bytes))));
    }
    assert_eq!(house.audited("upload.received").await, 4);
    assert_eq!(house.audited("upload.downloaded").await, 4, "who got nothing is not in it");
    for entry in std::fs::read_dir(house.folder.path()).unwrap() {
        let stored = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!stored.windows(MARK.len()).any(|window| window == MARK), "it lies sealed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_37_windows_an_upload_token_is_for_one_pc_one_file_and_a_day() {
    let house = house().await;
    let (mut mine, id) = house.enrolled_pc("P1").await;
    let (mut other, other_id) = house.enrolled_pc("P2").await;
    let (command, token) = told(&house, &mut mine, id).await;
    assert_eq!(token.len(), 32, "192 random bits");
    let neighbour = if token.ends_with('A') { 'B' } else { 'A' };
    for guess in [
        String::new(),
        command.to_string(),
        token[..31].to_owned(),
        format!("{token}="),
        format!("{}{neighbour}", &token[..31]),
        "\u{e9}".repeat(16),
        "x".repeat(10_000),
    ] {
        assert!(open(&house, &guess, None).await.is_none(), "{guess}");
    }
    // With another PC's certificate, or with none that is known.
    for certificate in [other.cert.as_slice(), b"no certificate at all"] {
        let opening = house.engine.open_upload(&token, Some(certificate), Some(1)).await.unwrap();
        assert!(matches!(opening, Opening::Refused));
    }
    let own = house.engine.open_upload(&token, Some(&mine.cert), Some(1)).await.unwrap();
    assert!(matches!(own, Opening::Open(_)));
    // Once: what is there stays, whatever is sent afterwards, and the other PC's own token opens its own command only.
    assert!(put(&house, &token, &file(1_000)).await);
    assert!(!put(&house, &token, &file(2_000)).await, "used");
    let (others, others_token) = told(&house, &mut other, other_id).await;
    assert!(put(&house, &others_token, &file(3_000)).await);
    assert_eq!(fetch(&house, command).await.unwrap().len(), 1_000);
    assert_eq!(fetch(&house, others).await.unwrap().len(), 3_000);
    // A day, and not longer than the enrollment.
    let (_, late) = told(&house, &mut mine, id).await;
    house.later(DAY - 1);
    assert!(open(&house, &late, Some(1)).await.is_some());
    house.later(1);
    assert!(open(&house, &late, Some(1)).await.is_none(), "expired");
    let (_, left) = told(&house, &mut mine, id).await;
    let mut begun = open(&house, &left, None).await.unwrap();
    send(&house, &mut begun, &file(10)).await.unwrap();
    let write = house.admin.permit::<may::WriteDevices>(house.site()).unwrap();
    let device = house.devices().await.into_iter().find(|device| device.id == id).unwrap();
    house.engine.end_enrollment(&write, device.enrollment.unwrap().id, "").await.unwrap();
    assert!(house.engine.receive_upload(&begun, None).await.is_err(), "the enrollment has ended");
    assert!(open(&house, &left, Some(1)).await.is_none(), "the enrollment has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_is_tried_again_and_leaves_nothing() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let (command, token) = told(&house, &mut pc, id).await;
    let mut first = open(&house, &token, None).await.unwrap();
    send(&house, &mut first, &file(2 * UPLOAD_PIECE)).await.unwrap();
    // The connection hangs; the PC begins again, and the first can neither go on nor end.
    let mut second = open(&house, &token, None).await.unwrap();
    assert!(matches!(send(&house, &mut first, &file(10)).await, Err(Error::Conflict(_))));
    assert!(matches!(house.engine.receive_upload(&first, None).await, Err(Error::Conflict(_))));
    house.engine.abandon_upload(&first).await.unwrap();
    // Nothing, and more than was said, is not received.
    assert!(matches!(house.engine.receive_upload(&second, None).await, Err(Error::Invalid(_))));
    send(&house, &mut second, &file(UPLOAD_PIECE)).await.unwrap();
    house.engine.abandon_upload(&second).await.unwrap();
    assert!(house.engine.receive_upload(&second, None).await.is_err(), "given up");
    let mut third = open(&house, &token, Some(10)).await.unwrap();
    assert!(matches!(send(&house, &mut third, &file(100)).await, Err(Error::Invalid(_))));
    assert!(fetch(&house, command).await.is_none());
    assert!(put(&house, &token, &file(1_000)).await);
    assert_eq!(fetch(&house, command).await.unwrap(), file(1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_51_windows_uploads_have_bounds_before_they_are_read() {
    let house = house().await;
    let mut tokens = Vec::new();
    for name in ["P1", "P2", "P3"] {
        let (mut pc, id) = house.enrolled_pc(name).await;
        tokens.push(told(&house, &mut pc, id).await.1);
    }
    let most = 8 << 20;
    let opening = |token: usize, announced| house.engine.open_upload(&tokens[token], None, announced);
    assert!(matches!(opening(0, Some(most + 1)).await.unwrap(), Opening::TooLarge));
    // Who says nothing gets as much set aside as may come; begun again it is not set aside twice.
    for _ in 0..3 {
        assert!(matches!(opening(0, None).await.unwrap(), Opening::Open(_)));
    }
    let Opening::Open(second) = opening(1, Some(most)).await.unwrap() else { panic!("there was room") };
    assert!(matches!(opening(2, Some(most)).await.unwrap(), Opening::Full));
    assert!(matches!(opening(2, Some(1_000)).await.unwrap(), Opening::Open(_)), "a small one fits");
    house.engine.abandon_upload(&second).await.unwrap();
    assert!(matches!(opening(2, Some(most)).await.unwrap(), Opening::Open(_)), "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_goes_after_its_days_and_half_uploads_with_their_token() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let (kept, token) = told(&house, &mut pc, id).await;
    assert!(put(&house, &token, &file(1_000)).await);
    let (_, half) = told(&house, &mut pc, id).await;
    let mut begun = open(&house, &half, None).await.unwrap();
    send(&house, &mut begun, &file(10)).await.unwrap();
    house.later(DAY + HOUR - 1);
    house.engine.housekeep_once().await.unwrap();
    send(&house, &mut begun, &file(10)).await.expect("it may still run");
    house.later(2);
    house.engine.housekeep_once().await.unwrap();
    assert!(matches!(send(&house, &mut begun, &file(10)).await, Err(Error::Conflict(_))));
    assert!(fetch(&house, kept).await.is_some());
    house.later(29 * DAY);
    house.engine.housekeep_once().await.unwrap();
    assert!(fetch(&house, kept).await.is_none());
    assert_eq!(house.command(kept).await.upload, None);
    assert!(!put(&house, &token, &file(1_000)).await, "used is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrollment_keeps_its_ten_newest_uploads() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let mut commands = Vec::new();
    for _ in 0..11 {
        let (command, token) = told(&house, &mut pc, id).await;
        assert!(put(&house, &token, &file(100)).await);
        commands.push(command);
        house.later(1);
    }
    assert!(fetch(&house, commands[0]).await.is_none());
    assert!(fetch(&house, commands[1]).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_gives_the_same_address_another_day() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let command = house.send(id, Intent::CollectDiagnostics { upload_url: None }).await.unwrap();
    // Told, and the answer never came.
    let mut client = pc.client();
    let mut obey = |_: &Request| Answer::status(200);
    let mut next = client.open(false, "user", Vec::new());
    let first = loop {
        let reply = pc.send(&house, &next).await.1.unwrap();
        let said = String::from_utf8(writer::write(&reply).unwrap()).unwrap();
        if let Some(rest) = said.split("/uploads/").nth(1) {
            break rest[..32].to_owned();
        }
        next = client.answer(&reply, &mut obey).expect("it is told before the session ends");
    };
    pc.identity = Some(client.identity.clone());
    house.later(2 * DAY);
    assert!(open(&house, &first, Some(1)).await.is_none(), "over");
    assert_eq!(token_of(&house, &mut pc, 200).await, first);
    assert!(put(&house, &first, &file(100)).await);
    assert!(fetch(&house, command.id).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_the_admins_own_stays_as_it_is() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let url = "https://store.example.org/container?sig=x".to_owned();
    let command = house.send(id, Intent::CollectDiagnostics { upload_url: Some(url.clone()) }).await.unwrap();
    let mut seen = String::new();
    pc.session_with(&house, "user", Vec::new(), &mut |request| {
        let data = request.items.first()?.data.as_ref()?.as_str()?.to_owned();
        seen.push_str(&data);
        None
    })
    .await;
    assert!(seen.contains(&url) && !seen.contains("/uploads/"), "{seen}");
    assert!(fetch(&house, command.id).await.is_none());
}
