//! Sites are walls: nothing that is done under site A changes or reveals a byte of site B. AT-23.
//!
//! What may be called is read from the server's own document and table of routes, and what belongs to B is every row
//! that names it, so that a new route and a new table are in it by themselves.

mod devices;
pub mod furniture;
mod wishes;

use crate::attacks::Noise;
use crate::harness::{House, Site};
use crate::judges::push_certificate;
use crate::needles::{Needles, SHORTEST};
use crate::rows::{self, Tables};
use crate::windows::msi;
use bellwether::routes::{self, Audience};
use bellwether_sim::{Exchange, Http, Record};
use furniture::{Furniture, administrator, another_site, at_rest, furnish};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use wishes::{Pool, invent, operations};

/// How often every operation of the API is called, each time with other ids.
const ROUNDS: usize = 8;
/// Things that devices of A do.
const DEVICE_STEPS: usize = 48;
const TOPIC_A: &str = "com.apple.mgmt.External.aaaaaaaa-6f3b-4f5a-9c61-0d1e2f3a4b5c";
const TOPIC_B: &str = "com.apple.mgmt.External.bbbbbbbb-6f3b-4f5a-9c61-0d1e2f3a4b5c";
/// Tables of a site that nothing writes yet.
const EMPTY: [&str; 1] = ["site_settings"];

/// Two sites of one server, both with everything in them.
struct Street {
    house: House,
    a: Site,
    b: Site,
    at_a: Furniture,
    at_b: Furniture,
    /// What everybody of A says and is told.
    record: Record,
    before: Tables,
    needles: Needles,
}

impl Street {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.engine().default_site().to_string();
        let mut a = administrator(&house, &site, "A").await;
        let b = another_site(&house, "Birch").await;
        let record = Record::default();
        a.http = Http::new(a.ca_pem.as_bytes()).unwrap().recording(record.clone());
        let at_a = furnish(&a, "alder", TOPIC_A).await;
        let mut at_b = furnish(&b, "birch", TOPIC_B).await;
        at_b.mac.idle().await.unwrap();
        let before = at_rest(&house, b.site_id.as_ref().unwrap()).await;
        let own: BTreeSet<String> =
            texts(&rows::of_site(&rows::all(&house), &site)).into_iter().map(|(_, text)| text).collect();
        let mut needles = Needles::new();
        for (place, text) in texts(&before) {
            // What both have says nothing about either: words, models, versions.
            if text.len() >= SHORTEST && !own.contains(&text) {
                needles.add(&place, &bytes_of(&text));
            }
        }
        for (place, secret) in [
            ("invitation link", at_b.invitation.0.rsplit('/').next().unwrap()),
            ("short code", &at_b.invitation.1),
            ("password of the account", &at_b.account.1),
            ("token of the package", at_b.package.rsplit('/').next().unwrap()),
            ("token of the upload", at_b.upload.rsplit('/').next().unwrap()),
            ("key of B", b.key.expose_secret()),
            ("idempotency key", &at_b.idempotency_key),
        ] {
            needles.add(place, secret.as_bytes());
        }
        record.lock().unwrap().clear();
        Self { house, a, b, at_a, at_b, record, before, needles }
    }

    fn site_b(&self) -> &str {
        self.b.site_id.as_ref().unwrap()
    }

    /// What A can know of B and offer wherever something is named: every id and name, and no secret.
    fn pool(&self) -> Pool {
        let (mut theirs, mut their_texts) = (BTreeSet::new(), BTreeSet::new());
        for (place, text) in texts(&self.before) {
            match text.parse::<uuid::Uuid>() {
                Ok(_) => drop(theirs.insert(text)),
                Err(_) if text.len() <= 64 && !place.ends_with("hash") && !text.starts_with("\\x") => {
                    their_texts.insert(text);
                }
                Err(_) => {}
            }
        }
        let own = texts(&rows::of_site(&rows::all(&self.house), self.a.site_id.as_ref().unwrap()));
        let mut mine: Vec<String> = own
            .into_iter()
            .filter(|(_, text)| text.parse::<uuid::Uuid>().is_ok())
            .map(|(_, text)| text)
            .collect();
        for serial in [self.at_a.mac.serial(), self.at_a.phone.serial(), &self.at_a.pc.serial()] {
            mine.extend(std::iter::repeat_n(serial.to_owned(), 20));
        }
        Pool {
            theirs: theirs.into_iter().collect(),
            their_texts: their_texts.into_iter().collect(),
            mine,
            their_site: self.site_b().to_owned(),
            my_site: self.a.site_id.clone().unwrap(),
            their_idempotency_key: self.at_b.idempotency_key.clone(),
            push: push_certificate(TOPIC_B),
        }
    }

    /// Every answer that A got, against what A itself had said before it.
    fn nothing_was_revealed(&self) -> usize {
        let mut said = BTreeSet::new();
        let exchanges: Vec<Exchange> = self.record.lock().unwrap().drain(..).collect();
        for Exchange { called, request, reply } in &exchanges {
            let mut asked = self.needles.names_in(request);
            if called.starts_with("POST") && called.contains("/push/apple") {
                // Inside of the certificate that A brings.
                asked.extend(self.needles.names_in(TOPIC_B.as_bytes()));
            }
            let mut told = reply.body.clone();
            for (name, value) in &reply.headers {
                told.extend_from_slice(format!("\n{name}: {value}").as_bytes());
            }
            let mut found = self.needles.find(&told);
            found.retain(|(name, _)| !asked.contains(name) && !said.contains(name));
            // Which CA a device is to trust is no secret, nor what it has revoked.
            let public = called.contains("/scep/") || called.contains("/crl/");
            found.retain(|(name, _)| !public || !["authorities.certificate"].contains(&name.as_str()));
            assert!(
                found.is_empty(),
                "{called}\n{}\ntold {found:?}:\n{}",
                String::from_utf8_lossy(request),
                String::from_utf8_lossy(&told)
            );
            if reply.status < 300 {
                said.extend(asked);
            }
        }
        exchanges.len()
    }

    async fn nothing_was_changed(&self) {
        let after = at_rest(&self.house, self.site_b()).await;
        let changed = rows::differences(&self.before, &after);
        assert!(changed.is_empty(), "{changed:#?}");
    }
}

/// Every text of these rows with its place; ids as people write them, other bytes as `\x…`.
fn texts(tables: &Tables) -> Vec<(String, String)> {
    fn collect(place: &str, value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::String(text) => {
                let bytes = text.strip_prefix("\\x").filter(|hex| hex.len() == 32);
                match bytes.and_then(|hex| uuid::Uuid::parse_str(hex).ok()) {
                    Some(id) => into.push((place.to_owned(), id.to_string())),
                    None => into.push((place.to_owned(), text.clone())),
                }
                // Facts, details and grants are JSON inside of text.
                if let Ok(inner @ (Value::Object(_) | Value::Array(_) | Value::String(_))) =
                    serde_json::from_str(text)
                {
                    collect(place, &inner, into);
                }
            }
            Value::Array(all) => all.iter().for_each(|one| collect(place, one, into)),
            Value::Object(all) => all.values().for_each(|one| collect(place, one, into)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for (table, rows) in tables {
        for row in rows {
            for (column, value) in row.as_object().unwrap() {
                collect(&format!("{table}.{column}"), value, &mut all);
            }
        }
    }
    all
}

/// The bytes that a text of [`texts`] stands for.
fn bytes_of(text: &str) -> Vec<u8> {
    let hex = text.strip_prefix("\\x").map(|hex| {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16))
            .collect::<Result<Vec<u8>, _>>()
    });
    match hex {
        Some(Ok(bytes)) => bytes,
        _ => text.as_bytes().to_vec(),
    }
}

/// The seed of a run; `BELLWETHER_TEST_SEED` repeats one.
fn seed() -> u64 {
    let given = std::env::var("BELLWETHER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| bellwether_sim::clock::now_ms().unsigned_abs());
    println!("BELLWETHER_TEST_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn at_23_nothing_done_in_one_site_changes_or_reveals_a_byte_of_another() {
    let mut street = Street::new().await;
    let empty: Vec<&str> = street
        .before
        .iter()
        .filter(|(table, rows)| {
            rows.is_empty()
                && !["idempotency", "rates", "leases", "server_settings", "__diesel_schema_migrations"]
                    .contains(&table.as_str())
        })
        .map(|(table, _)| table.as_str())
        .collect();
    assert_eq!(empty, EMPTY, "B has something in every table");
    assert!(street.needles.len() > 300, "{}", street.needles.len());
    let mut noise = Noise(seed() | 1);
    let pool = street.pool();
    let document = street.a.get("/openapi.json").await;
    let operations = operations(&document);
    assert!(operations.len() >= 38, "{}", operations.len());
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    let mut device_steps = BTreeMap::new();
    for round in 0..ROUNDS {
        for operation in &operations {
            let wish = invent(operation, &document, &pool, &mut noise);
            let mut caller = Site { site_id: None, ..street.a.clone() };
            if noise.below(40) == 0 {
                // What A can see of B's key.
                caller.key = street.b.key.expose_secret()[..9].to_owned().into();
            }
            let headers: Vec<(&str, &str)> =
                wish.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let method: Method = operation.method.parse().unwrap();
            let status = if operation.takes_bytes() {
                let bearer = format!("Bearer {}", caller.key.expose_secret());
                let headers =
                    [("authorization", bearer.as_str()), ("content-type", "application/octet-stream")];
                caller.raw(method, &format!("/api/v1{}", wish.path), &headers, msi(2_000)).await.status
            } else {
                caller.call(method, &wish.path, wish.body, &headers).await.status
            };
            assert!(status < 500, "{} {}: {status}", operation.method, wish.path);
            *statuses.entry(status).or_default() += 1;
        }
        other_routes(&street, &pool, &mut noise).await;
        for _ in 0..DEVICE_STEPS / ROUNDS {
            let step = devices::step(&mut street, &pool, &mut noise).await;
            *device_steps.entry(step).or_insert(0) += 1;
        }
        let _ = round;
    }
    // What A can read at the end, all of it.
    for path in [
        "/audit",
        "/events",
        "/devices",
        "/commands",
        "/jobs",
        "/invitations",
        "/packages",
        "/enrollment-accounts",
    ] {
        let mut next = String::new();
        loop {
            let page = street.a.get(&format!("{path}?limit=500{next}")).await;
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
        }
    }
    println!("API: {statuses:?}\ndevices: {device_steps:?}");
    let good: usize = statuses.iter().filter(|(status, _)| **status < 300).map(|(_, count)| count).sum();
    assert!(good >= ROUNDS * 8 && statuses[&403] >= 5 && statuses[&404] >= ROUNDS * 5, "{statuses:?}");
    let answers = street.nothing_was_revealed();
    assert!(answers > ROUNDS * operations.len(), "{answers}");
    street.nothing_was_changed().await;
    // B works as before.
    street.at_b.mac.poll().await.unwrap();
    street.at_b.pc.session().await.unwrap();
    assert_eq!(street.b.show(&street.at_b.mac).await["device"]["enrollment"]["state"], "active");
}

/// The routes that are no API, from the table, with B's ids in paths, queries, headers and bodies.
async fn other_routes(street: &Street, pool: &Pool, noise: &mut Noise) {
    for entry in
        routes::table().iter().filter(|entry| !matches!(entry.audience, Audience::Key | Audience::Setup))
    {
        let mut path = String::new();
        for part in entry.path.split_inclusive('/') {
            match part.trim_end_matches('/') {
                "{token}" if noise.below(2) == 0 => {
                    path.push_str(street.at_a.package.rsplit('/').next().unwrap())
                }
                name if name.starts_with('{') => {
                    let text = if name == "{ca}" { their_ca(street) } else { pool.text(noise) };
                    path.extend(url::form_urlencoded::byte_serialize(text.as_bytes()));
                }
                name => path.push_str(name),
            }
            if part.ends_with('/') {
                path.push('/');
            }
        }
        let text = pool.text(noise);
        let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let operation = if entry.path.starts_with("/scep") { "GetCACert" } else { "x" };
        let path =
            format!("{path}?operation={operation}&message={encoded}&site={}&code={encoded}", pool.their_site);
        let bearer = format!("Bearer {text}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("client-cert", &encoded),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let sides =
            [(entry.on_public_listener, &street.a.url), (entry.on_device_listener, &street.a.device_url)];
        for (_, base) in sides.iter().filter(|(there, _)| *there) {
            let mut request =
                street.a.http.request(entry.method.as_str().parse().unwrap(), &format!("{base}{path}"));
            for (name, value) in headers {
                if reqwest::header::HeaderValue::from_str(value).is_ok() {
                    request = request.header(name, value);
                }
            }
            let body = format!("code={encoded}&username={encoded}&udid={encoded}");
            let reply = street.a.http.send("route", request.body(body)).await.unwrap();
            // SOAP says everything that is wrong with 500.
            let fault = entry.path.ends_with(".svc") && reply.text().contains("<s:Fault>");
            assert!(reply.status < 500 || fault, "{} {path}: {}", entry.method, reply.text());
        }
    }
}

fn their_ca(street: &Street) -> String {
    id_of(&street.before["authorities"][0]["id"])
}

/// An id as people write it.
fn id_of(stored: &Value) -> String {
    uuid::Uuid::parse_str(stored.as_str().unwrap().strip_prefix("\\x").unwrap()).unwrap().to_string()
}

/// The one thing of B that anybody can write, by knocking at B's own door: its audit says that somebody did.
#[tokio::test(flavor = "multi_thread")]
async fn at_23_a_challenge_of_one_site_buys_nothing_at_anothers_authority() {
    let street = Street::new().await;
    let mut mac = street.a.device(bellwether_sim::Family::Mac).await;
    let link = street.a.invite().await;
    let profile = mac.fetch_profile(&link, &Default::default()).await.unwrap();
    mac.install_enrollment(profile);
    let mut details = mac.enrollment().unwrap().clone();
    let ours = details.scep.url.clone();
    details.scep.url = format!("{}/scep/{}", street.a.url, their_ca(&street));
    assert!(mac.scep_enroll(&details).await.is_err());
    details.scep.url = ours;
    mac.scep_enroll(&details).await.unwrap();
    mac.authenticate().await.unwrap().ok("Authenticate").unwrap();
    // And an identity of A renews nothing there.
    street.nothing_was_revealed();
    let after = at_rest(&street.house, street.site_b()).await;
    let changed = rows::differences(&street.before, &after);
    let refused = |line: &&String| line.starts_with("audit + ") && line.contains("identity.refused");
    let checkpoint = |line: &&String| line.starts_with("audit_checkpoints + ");
    assert_eq!(changed.iter().filter(refused).count(), 1, "{changed:#?}");
    assert!(changed.iter().all(|line| refused(&line) || checkpoint(&line)), "{changed:#?}");
    let entry = street.b.audited("identity.refused", 1).await.remove(0);
    assert_eq!(entry["details"]["reason"], json!("the challenge is unknown"), "{entry:#}");
}
