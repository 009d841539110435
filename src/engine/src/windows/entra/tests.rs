use super::*;
use bellwether_certs::keys::KeyPair;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::Mutex as Lock;
use tokio::sync::Semaphore;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const OURS: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const SISTER: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
const THEIRS: &str = "bbbbbbbb-0000-4000-8000-00000000000b";
const PRIVATE: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
const AUDIENCE: &str = "https://mdm.example.org";
const APPLICATION: &str = "29d9ed98-a469-4536-ade2-f981bc1d605e";
const AUTHORITY: &str = "https://login.microsoftonline.com";

static KEYS: LazyLock<[KeyPair; 3]> =
    LazyLock::new(|| [(); 3].map(|()| KeyPair::generate_rsa2048().unwrap()));

/// Microsoft: what it publishes for each tenant, and how often it was asked.
struct Microsoft {
    published: Lock<HashMap<String, Result<Vec<u8>, String>>>,
    asked: Lock<Vec<String>>,
    /// Answers that may leave.
    open: Semaphore,
}

#[async_trait::async_trait]
impl SigningKeys for Microsoft {
    async fn fetch(&self, tenant: &str) -> Result<Vec<u8>, String> {
        self.asked.lock().unwrap().push(tenant.to_owned());
        self.open.acquire().await.unwrap().forget();
        self.published.lock().unwrap().get(tenant).cloned().unwrap_or_else(|| Err("404".into()))
    }
}

impl Microsoft {
    fn publish(&self, tenant: &str, keys: &[Value]) {
        let document = json!({ "keys": keys }).to_string().into_bytes();
        self.published.lock().unwrap().insert(tenant.to_owned(), Ok(document));
    }

    fn answer(&self, tenant: &str, answer: Result<&str, &str>) {
        let answer = answer.map(|text| text.as_bytes().to_vec()).map_err(str::to_owned);
        self.published.lock().unwrap().insert(tenant.to_owned(), answer);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// Key 0 is published for both of our tenants, as Microsoft does.
fn world() -> (Arc<Entra>, Arc<Microsoft>) {
    let microsoft = Arc::new(Microsoft {
        published: Lock::default(),
        asked: Lock::default(),
        open: Semaphore::new(Semaphore::MAX_PERMITS),
    });
    microsoft.publish(OURS, &[jwk(0)]);
    microsoft.publish(SISTER, &[jwk(0)]);
    let entra = Entra::new(settings(), microsoft.clone()).unwrap();
    (Arc::new(entra), microsoft)
}

fn settings() -> EntraSettings {
    EntraSettings {
        tenants: vec![OURS.to_uppercase(), SISTER.into()],
        audiences: vec![AUDIENCE.into(), APPLICATION.into()],
        authority: AUTHORITY.into(),
        max_devices_per_person: 15,
        known_people_only: false,
        terms: EntraTerms::default(),
    }
}

fn jwk(which: usize) -> Value {
    let mut jwk = jwt::public_jwk(&format!("key-{which}"), &KEYS[which]).unwrap();
    jwk["issuer"] = json!(format!("{AUTHORITY}/{{tenantid}}/v2.0"));
    jwk
}

fn v1(tenant: &str) -> Value {
    json!({
        "iss": format!("https://sts.windows.net/{tenant}/"), "tid": tenant, "aud": AUDIENCE,
        "nbf": NOW.0 / 1000 - 300, "exp": NOW.0 / 1000 + 3600, "scp": "mdm_delegation", "ver": "1.0",
        "oid": "11111111-2222-4333-8444-55555555555A", "upn": "ada@example.org", "unique_name": "ada", "name": "Ada L.",
    })
}

fn v2(tenant: &str) -> Value {
    json!({
        "iss": format!("{AUTHORITY}/{tenant}/v2.0"), "tid": tenant, "aud": APPLICATION,
        "nbf": NOW.0 / 1000 - 300, "exp": NOW.0 / 1000 + 3600, "scp": "openid mdm_delegation", "ver": "2.0",
        "oid": "11111111-2222-4333-8444-55555555555a", "preferred_username": "ada@example.org",
        "deviceid": "99999999-2222-4333-8444-55555555555B",
    })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn signed(which: usize, claims: &Value) -> Vec<u8> {
    let header = json!({ "typ": "JWT", "alg": "RS256", "kid": format!("key-{which}") });
    jwt::sign_rs256(&header, claims, &KEYS[which]).unwrap().into_bytes()
}

fn digest(claims: &Value) -> [u8; 32] {
    let token = signed(0, claims);
    sha256(token.rsplitn(2, |byte| *byte == b'.').last().unwrap())
}

async fn of(claims: Value) -> Result<EntraUser, EntraRefusal> {
    world().0.verify(&signed(0, &claims), NOW).await
}

#[tokio::test]
async fn both_versions_say_who_enrolls() {
    let mut user = EntraUser {
        tenant: OURS.into(),
        upn: "ada@example.org".into(),
        object_id: "11111111-2222-4333-8444-55555555555a".into(),
        device_id: None,
        name: Some("Ada L.".into()),
        token_digest: digest(&v1(OURS)),
    };
    assert_eq!(of(v1(OURS)).await, Ok(user.clone()));
    user.device_id = Some("99999999-2222-4333-8444-55555555555b".into());
    user.name = None;
    user.tenant = SISTER.into();
    user.token_digest = digest(&v2(SISTER));
    assert_eq!(of(v2(SISTER)).await, Ok(user));
    // What cannot be shown is left out; a device that is not joined yet may say so with nothing.
    let odd = with(with(v1(OURS), "name", json!("a\nb")), "deviceid", json!(""));
    let odd = of(odd).await.unwrap();
    assert_eq!((odd.name, odd.device_id), (None, None));
}

#[tokio::test]
async fn at_18_another_tenants_valid_token_is_refused() {
    let issuer = Err(EntraRefusal::Token(Refusal::Issuer));
    // The same keys sign for everybody.
    assert_eq!(of(v1(THEIRS)).await, Err(EntraRefusal::Tenant));
    assert_eq!(of(v2(THEIRS)).await, Err(EntraRefusal::Tenant));
    assert_eq!(of(v2(PRIVATE)).await, Err(EntraRefusal::Tenant));
    // It claims to be of ours, and its issuer is another: also another one of ours.
    for other in [THEIRS, SISTER, PRIVATE] {
        assert_eq!(of(with(v1(other), "tid", json!(OURS))).await, issuer, "{other}");
        assert_eq!(of(with(v2(other), "tid", json!(OURS))).await, issuer, "{other}");
        assert_eq!(of(with(v1(OURS), "tid", json!(THEIRS))).await, Err(EntraRefusal::Tenant));
    }
    for iss in [
        format!("https://sts.windows.net/{OURS}"),
        format!("https://sts.windows.net/{THEIRS}/{OURS}/"),
        format!("https://sts.windows.net.evil.example/{OURS}/"),
        format!("https://evil.example/{OURS}/v2.0"),
        format!("{AUTHORITY}/{OURS}/v2.0/"),
        format!("{AUTHORITY}/{OURS}/"),
        format!("{AUTHORITY}/common/v2.0"),
        format!("{AUTHORITY}/{{tenantid}}/v2.0"),
    ] {
        assert_eq!(of(with(v1(OURS), "iss", json!(iss))).await, issuer, "{iss}");
    }
    for tid in [json!("common"), json!(""), json!(OURS.to_uppercase()), json!(format!("{OURS} "))] {
        assert_eq!(of(with(v1(OURS), "tid", tid.clone())).await, Err(EntraRefusal::Tenant), "{tid}");
    }
    let malformed = Err(EntraRefusal::Token(Refusal::Claims));
    assert_eq!(of(with(v1(OURS), "tid", json!([OURS]))).await, malformed);
    assert_eq!(of(without(v1(OURS), "tid")).await, malformed);
}

#[tokio::test]
async fn at_18_tokens_of_strangers_cost_no_fetch() {
    let (entra, microsoft) = world();
    for tenant in [THEIRS, PRIVATE, "common", "../evil", ""] {
        assert_eq!(entra.verify(&signed(0, &v1(tenant)), NOW).await, Err(EntraRefusal::Tenant));
    }
    for rubbish in [&b""[..], b"..", b"a.b.c", b"\xff.\xff.\xff", &[b'.'; 20_000]] {
        assert!(matches!(entra.verify(rubbish, NOW).await, Err(EntraRefusal::Token(_))));
    }
    assert_eq!(microsoft.asked(), 0);
}

#[tokio::test]
async fn at_18_an_identity_token_is_no_access_token() {
    assert_eq!(of(without(v1(OURS), "scp")).await, Err(EntraRefusal::Scope));
    for scp in [
        "",
        "openid profile",
        "mdm_delegation2",
        "xmdm_delegation",
        "MDM_DELEGATION",
        "mdm_delegation,openid",
    ] {
        assert_eq!(of(with(v2(OURS), "scp", json!(scp))).await, Err(EntraRefusal::Scope), "{scp}");
    }
    // An application's permission is no person's.
    let application = with(without(v1(OURS), "scp"), "roles", json!(["mdm_delegation"]));
    assert_eq!(of(application).await, Err(EntraRefusal::Scope));
}

#[tokio::test]
async fn at_18_wrong_audience_time_and_algorithm() {
    let token = |refusal| Err(EntraRefusal::Token(refusal));
    let graph = json!("00000003-0000-0000-c000-000000000000");
    assert_eq!(of(with(v1(OURS), "aud", graph)).await, token(Refusal::Audience));
    let (entra, _) = world();
    let good = signed(0, &v1(OURS));
    assert!(entra.verify(&good, NOW.plus(3600 * SECOND)).await.is_ok());
    assert_eq!(entra.verify(&good, NOW.plus(3660 * SECOND)).await, token(Refusal::Expired));
    assert_eq!(entra.verify(&good, NOW.plus(-361 * SECOND)).await, token(Refusal::NotYet));
    let with_header = |header: Value| jwt::sign_rs256(&header, &v1(OURS), &KEYS[0]).unwrap().into_bytes();
    let none = with_header(json!({ "alg": "none", "kid": "key-0" }));
    assert_eq!(entra.verify(&none, NOW).await, token(Refusal::Algorithm));
    let own = with_header(json!({ "alg": "RS256", "kid": "key-0", "jku": "https://evil.example/keys" }));
    assert_eq!(entra.verify(&own, NOW).await, token(Refusal::OwnKey));
    let forged = jwt::sign_rs256(&json!({ "alg": "RS256", "kid": "key-0" }), &v1(OURS), &KEYS[1]).unwrap();
    assert_eq!(entra.verify(forged.as_bytes(), NOW).await, token(Refusal::Signature));
}

#[tokio::test]
async fn at_18_a_token_must_name_a_person() {
    let nobody = without(without(v1(OURS), "upn"), "unique_name");
    assert_eq!(of(nobody.clone()).await, Err(EntraRefusal::User));
    assert!(of(with(nobody, "unique_name", json!("ada"))).await.is_ok_and(|user| user.upn == "ada"));
    for upn in ["a\0b".to_owned(), "a\r\nb".into(), "x".repeat(321)] {
        assert_eq!(of(with(v1(OURS), "upn", json!(upn))).await, Err(EntraRefusal::User));
    }
    assert_eq!(of(without(v1(OURS), "oid")).await, Err(EntraRefusal::User));
    for id in ["x", "11111111222243338444555555555555", "{11111111-2222-4333-8444-555555555555}"] {
        assert_eq!(of(with(v1(OURS), "oid", json!(id))).await, Err(EntraRefusal::User), "{id}");
        assert_eq!(of(with(v1(OURS), "deviceid", json!(id))).await, Err(EntraRefusal::Device), "{id}");
    }
}

#[tokio::test]
async fn at_18_keys_of_private_accounts_sign_for_no_organization() {
    let (entra, microsoft) = world();
    let of_issuer = |which: usize, issuer: Value| with(jwk(which), "issuer", issuer);
    microsoft.publish(
        OURS,
        &[
            of_issuer(0, json!(format!("{AUTHORITY}/{OURS}/v2.0"))),
            of_issuer(1, json!(format!("{AUTHORITY}/{PRIVATE}/v2.0"))),
            of_issuer(2, json!(7)),
        ],
    );
    assert!(entra.verify(&signed(0, &v1(OURS)), NOW).await.is_ok());
    for which in [1, 2] {
        let unknown = Err(EntraRefusal::Token(Refusal::UnknownKey));
        assert_eq!(entra.verify(&signed(which, &v1(OURS)), NOW).await, unknown);
    }
    // A list without any issuers (that of version 1) is one for everybody.
    let (entra, microsoft) = world();
    microsoft.publish(OURS, &[without(jwk(1), "issuer")]);
    assert!(entra.verify(&signed(1, &v1(OURS)), NOW).await.is_ok());
}

#[tokio::test]
async fn keys_are_kept_by_tenant() {
    let (entra, microsoft) = world();
    microsoft.publish(SISTER, &[jwk(1)]);
    for _ in 0..3 {
        assert!(entra.verify(&signed(0, &v1(OURS)), NOW).await.is_ok());
        assert!(entra.verify(&signed(1, &v1(SISTER)), NOW).await.is_ok());
    }
    assert_eq!(*microsoft.asked.lock().unwrap(), [OURS, SISTER]);
    // A key that is published for one tenant is none for the other.
    let unknown = Err(EntraRefusal::Token(Refusal::UnknownKey));
    assert_eq!(entra.verify(&signed(1, &v1(OURS)), NOW).await, unknown);
    assert_eq!(entra.verify(&signed(0, &v1(SISTER)), NOW).await, unknown);
}

#[tokio::test]
async fn a_new_key_is_fetched_once_and_an_old_one_forgotten() {
    let (entra, microsoft) = world();
    let unknown = Err(EntraRefusal::Token(Refusal::UnknownKey));
    let (old, new, never) = (signed(0, &v1(OURS)), signed(1, &v1(OURS)), signed(2, &v1(OURS)));
    assert!(entra.verify(&old, NOW).await.is_ok());
    microsoft.publish(OURS, &[jwk(1)]);
    // Within the minute nobody asks again.
    assert_eq!(entra.verify(&new, NOW.plus(MINUTE - 1)).await, unknown);
    assert_eq!(microsoft.asked(), 1);
    assert!(entra.verify(&new, NOW.plus(MINUTE)).await.is_ok());
    assert_eq!(microsoft.asked(), 2);
    assert_eq!(entra.verify(&old, NOW.plus(MINUTE)).await, unknown);
    // However many unknown keys come.
    for second in 0..60 {
        assert_eq!(entra.verify(&never, NOW.plus(MINUTE + second * SECOND)).await, unknown);
    }
    assert_eq!(microsoft.asked(), 2);
    assert_eq!(entra.verify(&never, NOW.plus(2 * MINUTE)).await, unknown);
    assert_eq!(microsoft.asked(), 3);
    // Other refusals are no reason to ask.
    let bad = signed(1, &with(v1(OURS), "aud", json!("x")));
    assert!(entra.verify(&bad, NOW.plus(10 * MINUTE)).await.is_err());
    assert_eq!(microsoft.asked(), 3);
}

#[tokio::test]
async fn keys_are_fetched_anew_every_day() {
    let (entra, microsoft) = world();
    let claims = with(v1(OURS), "exp", json!(NOW.0 / 1000 + 10 * 86_400));
    let (old, new) = (signed(0, &claims), signed(1, &claims));
    assert!(entra.verify(&old, NOW).await.is_ok());
    microsoft.publish(OURS, &[jwk(1)]);
    assert!(entra.verify(&old, NOW.plus(DAY - 1)).await.is_ok());
    assert_eq!(microsoft.asked(), 1);
    // A key that Microsoft has withdrawn is good for a day at most.
    let unknown = Err(EntraRefusal::Token(Refusal::UnknownKey));
    assert_eq!(entra.verify(&old, NOW.plus(DAY)).await, unknown);
    assert!(entra.verify(&new, NOW.plus(DAY)).await.is_ok());
    assert_eq!(microsoft.asked(), 2);
    // A clock that was ahead is set right: the keys count as old, and are fetched once.
    assert!(entra.verify(&new, NOW).await.is_ok());
    assert!(entra.verify(&new, NOW).await.is_ok());
    assert_eq!(microsoft.asked(), 3);
}

#[tokio::test]
async fn old_keys_stay_while_microsoft_cannot_be_reached() {
    let (entra, microsoft) = world();
    let claims = with(v1(OURS), "exp", json!(NOW.0 / 1000 + 10 * 86_400));
    let good = signed(0, &claims);
    assert!(entra.verify(&good, NOW).await.is_ok());
    let private = json!({ "keys": [with(jwk(0), "issuer", json!(format!("{AUTHORITY}/{PRIVATE}/v2.0")))] });
    let answers =
        [Err("no route to host"), Ok("<html>sign in</html>"), Ok(r#"{"keys":[]}"#), Ok(&private.to_string())];
    for (day, answer) in (1..).zip(answers) {
        microsoft.answer(OURS, answer);
        for second in 0..59 {
            assert!(entra.verify(&good, NOW.plus(day * DAY + second * SECOND)).await.is_ok(), "{answer:?}");
        }
        assert_eq!(microsoft.asked(), 1 + usize::try_from(day).unwrap(), "one try a minute");
    }
    // An unknown key meanwhile is an unknown key, and costs no more tries.
    let unknown = Err(EntraRefusal::Token(Refusal::UnknownKey));
    let new = signed(1, &claims);
    assert_eq!(entra.verify(&new, NOW.plus(4 * DAY + 59 * SECOND)).await, unknown);
    assert_eq!(microsoft.asked(), 5);
    microsoft.publish(OURS, &[jwk(1)]);
    assert!(entra.verify(&new, NOW.plus(4 * DAY + MINUTE)).await.is_ok());
}

#[tokio::test]
async fn without_any_keys_the_refusal_is_the_servers_fault() {
    let (entra, microsoft) = world();
    let good = signed(0, &v1(OURS));
    microsoft.answer(OURS, Err("no route to host"));
    let no_keys = Err(EntraRefusal::NoKeys("no route to host".into()));
    assert_eq!(entra.verify(&good, NOW).await, no_keys);
    microsoft.publish(OURS, &[jwk(0)]);
    assert_eq!(entra.verify(&good, NOW.plus(FIRST_FETCH - 1)).await, no_keys);
    assert_eq!(microsoft.asked(), 1);
    assert!(entra.verify(&good, NOW.plus(FIRST_FETCH)).await.is_ok());
    // The other tenant had no part in it.
    assert!(entra.verify(&signed(0, &v1(SISTER)), NOW).await.is_ok());
}

#[tokio::test]
async fn many_at_once_fetch_once_and_known_keys_wait_for_nobody() {
    let (entra, microsoft) = world();
    microsoft.open.forget_permits(Semaphore::MAX_PERMITS);
    let good = Arc::new(signed(0, &v1(OURS)));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (entra, good) = (Arc::clone(&entra), Arc::clone(&good));
        all.spawn(async move { entra.verify(&good, NOW).await });
    }
    settle().await;
    assert_eq!(microsoft.asked(), 1);
    microsoft.open.add_permits(1);
    assert!(all.join_all().await.iter().all(Result::is_ok));
    assert_eq!(microsoft.asked(), 1);

    // Somebody makes us look for a key that does not exist, and Microsoft is slow.
    let later = NOW.plus(2 * MINUTE);
    let never = signed(2, &v1(OURS));
    let slow = tokio::spawn({
        let entra = Arc::clone(&entra);
        async move { entra.verify(&never, later).await }
    });
    settle().await;
    assert_eq!(microsoft.asked(), 2);
    assert!(entra.verify(&good, later).await.is_ok());
    // So do those whose keys are a day old while somebody else fetches.
    let old = signed(0, &with(v1(OURS), "exp", json!(NOW.0 / 1000 + 10 * 86_400)));
    assert!(entra.verify(&old, NOW.plus(2 * DAY)).await.is_ok());
    microsoft.open.add_permits(1);
    assert_eq!(slow.await.unwrap(), Err(EntraRefusal::Token(Refusal::UnknownKey)));
}

#[tokio::test]
async fn hanging_up_does_not_keep_the_keys_away() {
    let (entra, microsoft) = world();
    microsoft.open.forget_permits(Semaphore::MAX_PERMITS);
    let good = signed(0, &v1(OURS));
    let impatient = tokio::spawn({
        let (entra, good) = (Arc::clone(&entra), good.clone());
        async move { entra.verify(&good, NOW).await }
    });
    settle().await;
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());
    microsoft.open.add_permits(1);
    assert!(entra.verify(&good, NOW).await.is_ok());
    assert_eq!(microsoft.asked(), 1);
}

#[tokio::test]
async fn a_source_that_panics_is_a_failed_fetch() {
    struct Broken;
    #[async_trait::async_trait]
    impl SigningKeys for Broken {
        async fn fetch(&self, _: &str) -> Result<Vec<u8>, String> {
            panic!("a fault of the adapter")
        }
    }
    let entra = Entra::new(settings(), Arc::new(Broken)).unwrap();
    for _ in 0..2 {
        let refused = entra.verify(&signed(0, &v1(OURS)), NOW).await;
        assert!(matches!(refused, Err(EntraRefusal::NoKeys(_))), "{refused:?}");
    }
}

#[test]
fn settings_that_accept_nobody_or_anybody_are_refused() {
    let (_, microsoft) = world();
    let refused = |change: &dyn Fn(&mut EntraSettings)| {
        let mut settings = settings();
        change(&mut settings);
        Entra::new(settings, microsoft.clone()).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|s| s.tenants.clear()));
    assert!(refused(&|s| s.audiences.clear()));
    assert!(refused(&|s| s.audiences.push(String::new())));
    for tenant in ["common", "organizations", "contoso.onmicrosoft.com", "", &OURS.replace('-', ""), "../x"] {
        assert!(refused(&|s| s.tenants.push(tenant.into())), "{tenant}");
    }
    for authority in ["http://login.microsoftonline.com", "login.microsoftonline.com", "https://x/"] {
        assert!(refused(&|s| s.authority = authority.into()), "{authority}");
    }
}

#[test]
fn refusals_say_nothing_of_the_token() {
    let (entra, _) = world();
    assert_eq!(format!("{entra:?}"), format!("Entra {{ tenants: [{OURS:?}, {SISTER:?}], .. }}"));
    assert_eq!(EntraRefusal::Token(Refusal::Expired).to_string(), "the token has expired");
    assert!(EntraRefusal::Scope.to_string().contains("mdm_delegation"));
}

/// Lets the other tasks of this thread run until all of them wait.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
