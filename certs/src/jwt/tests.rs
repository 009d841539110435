use std::sync::LazyLock;

use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::hash::hmac_sha256;

const NOW: i64 = 1_800_000_000_000;
const ISSUER: &str = "https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/";
const AUDIENCE: &str = "https://mdm.example.org";
const EXPECTED: Expected<'_> =
    Expected { issuers: &[ISSUER], audiences: &[AUDIENCE], now_ms: NOW, leeway_ms: 60_000 };

static KEYS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [KeyPair::generate_rsa2048().unwrap(), KeyPair::generate_rsa2048().unwrap()]);
static SET: LazyLock<KeySet> = LazyLock::new(|| {
    set(&[public_jwk("one", &KEYS[0]).unwrap(), public_jwk("two", &KEYS[1]).unwrap()]).unwrap()
});

fn set(keys: &[Value]) -> Result<KeySet> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn header() -> Value {
    json!({ "typ": "JWT", "alg": "RS256", "kid": "one", "x5t": "one" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "nbf": NOW / 1000 - 300, "iat": NOW / 1000 - 300, "exp": NOW / 1000 + 3600,
        "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47", "oid": "11111111-2222-4333-8444-555555555555",
        "upn": "ada@example.org", "unique_name": "ada@example.org", "name": "Ada", "appid": "29d9ed98",
        "scp": "mdm_delegation openid", "deviceid": "99999999-2222-4333-8444-555555555555", "ver": "1.0",
    })
}

/// The value with members set; null takes one away.
fn with(mut value: Value, changes: Value) -> Value {
    for (name, change) in changes.as_object().unwrap() {
        let members = value.as_object_mut().unwrap();
        members.remove(name);
        if !change.is_null() {
            members.insert(name.clone(), change.clone());
        }
    }
    value
}

fn good() -> String {
    sign_rs256(&header(), &claims(), &KEYS[0]).unwrap()
}

fn judged(token: &str) -> std::result::Result<Claims, Refusal> {
    verify(token.as_bytes(), &SET, &EXPECTED)
}

fn of_header(changes: Value) -> Option<Refusal> {
    judged(&sign_rs256(&with(header(), changes), &claims(), &KEYS[0]).unwrap()).err()
}

fn of_claims(changes: Value) -> Option<Refusal> {
    judged(&sign_rs256(&header(), &with(claims(), changes), &KEYS[0]).unwrap()).err()
}

/// Header and claims as they are written, signed with the right key.
fn of_text(header: &str, claims: &str) -> Option<Refusal> {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(KEYS[0].sign_sha256(signed.as_bytes()).unwrap());
    judged(&format!("{signed}.{signature}")).err()
}

#[test]
fn a_good_token_says_who_it_is_about() {
    let claims = judged(&good()).unwrap();
    assert_eq!(claims.iss(), ISSUER);
    assert_eq!(claims.aud(), [AUDIENCE]);
    assert_eq!((claims.exp_ms(), claims.nbf_ms()), (NOW + 3_600_000, Some(NOW - 300_000)));
    assert_eq!(claims.tid(), Some("72f988bf-86f1-41af-91ab-2d7cd011db47"));
    assert_eq!(claims.oid(), Some("11111111-2222-4333-8444-555555555555"));
    assert_eq!(claims.upn(), Some("ada@example.org"));
    assert_eq!(claims.unique_name(), Some("ada@example.org"));
    assert_eq!(claims.preferred_username(), None);
    assert_eq!(claims.name(), Some("Ada"));
    assert_eq!(claims.deviceid(), Some("99999999-2222-4333-8444-555555555555"));
    assert_eq!(claims.appid(), Some("29d9ed98"));
    assert_eq!(claims.scp().iter().map(String::as_str).collect::<Vec<_>>(), ["mdm_delegation", "openid"]);
    assert_eq!(format!("{claims:?}"), "Claims");
    assert_eq!(unverified_tid(good().as_bytes()).unwrap(), claims.tid().unwrap());
    // The other key, an audience among several, a version 2 client, no `typ`.
    let other = with(header(), json!({ "kid": "two", "typ": null }));
    let many = with(claims_v2(), json!({ "aud": ["x", AUDIENCE] }));
    let claims = judged(&sign_rs256(&other, &many, &KEYS[1]).unwrap()).unwrap();
    assert_eq!((claims.appid(), claims.preferred_username()), (Some("azp"), Some("ada@example.org")));
    assert!(claims.scp().is_empty());
}

fn claims_v2() -> Value {
    with(
        claims(),
        json!({ "appid": null, "azp": "azp", "upn": null, "scp": null, "preferred_username": "ada@example.org" }),
    )
}

#[test]
fn at_18_alg_none() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        assert_eq!(of_header(json!({ "alg": alg })), Some(Refusal::Algorithm), "{alg}");
        // As attackers send it: without a signature.
        let text = URL_SAFE_NO_PAD.encode(with(header(), json!({ "alg": alg })).to_string());
        let body = URL_SAFE_NO_PAD.encode(claims().to_string());
        assert_eq!(judged(&format!("{text}.{body}.")).err(), Some(Refusal::Algorithm), "{alg}");
    }
    for alg in [json!(null), json!(["RS256"]), json!(0), json!("rs256"), json!("RS256 "), json!("RS256\0")] {
        assert_eq!(of_header(json!({ "alg": alg })), Some(Refusal::Algorithm), "{alg}");
    }
    let good = good();
    let unsigned = good.rsplit_once('.').unwrap().0;
    assert_eq!(judged(&format!("{unsigned}.")).err(), Some(Refusal::Signature));
}

#[test]
fn at_18_hs256_with_the_public_key_as_secret() {
    let der = KEYS[0].public_key_der().unwrap();
    let jwk = public_jwk("one", &KEYS[0]).unwrap();
    let pkey = PKey::public_key_from_der(&der).unwrap();
    let rsa = pkey.rsa().unwrap();
    let secrets: [Vec<u8>; 8] = [
        der,
        pkey.public_key_to_pem().unwrap(),
        rsa.public_key_to_pem_pkcs1().unwrap(),
        rsa.public_key_to_der_pkcs1().unwrap(),
        rsa.n().to_vec(),
        jwk["n"].as_str().unwrap().into(),
        jwk.to_string().into_bytes(),
        Vec::new(),
    ];
    for alg in ["HS256", "hs256", "HS512", "RS256"] {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(with(header(), json!({ "alg": alg })).to_string()),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        let wanted = if alg == "RS256" { Refusal::Signature } else { Refusal::Algorithm };
        for secret in &secrets {
            let mac = URL_SAFE_NO_PAD.encode(hmac_sha256(secret, signed.as_bytes()));
            assert_eq!(judged(&format!("{signed}.{mac}")).err(), Some(wanted), "{alg}");
        }
    }
}

#[test]
fn at_18_another_tenants_valid_token() {
    // Tenants share the issuer's keys: the signature is good, and only the claims tell.
    for iss in [
        "https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/",
        ISSUER.trim_end_matches('/'),
        &format!("{ISSUER} "),
        &ISSUER.to_uppercase(),
        &ISSUER.replace("https", "http"),
        "",
    ] {
        assert_eq!(of_claims(json!({ "iss": iss })), Some(Refusal::Issuer), "{iss}");
    }
    assert_eq!(of_claims(json!({ "iss": null })), Some(Refusal::Issuer));
    assert_eq!(of_claims(json!({ "iss": [ISSUER] })), Some(Refusal::Claims));
}

#[test]
fn at_18_expired() {
    let second = NOW / 1000;
    assert_eq!(of_claims(json!({ "exp": second - 3600 })), Some(Refusal::Expired));
    assert_eq!(of_claims(json!({ "exp": second - 60 })), Some(Refusal::Expired));
    assert_eq!(of_claims(json!({ "exp": second - 59 })), None);
    assert_eq!(of_claims(json!({ "exp": 0 })), Some(Refusal::Expired));
    assert_eq!(of_claims(json!({ "exp": null })), Some(Refusal::NoExpiry));
    assert_eq!(of_claims(json!({ "nbf": second + 61 })), Some(Refusal::NotYet));
    assert_eq!(of_claims(json!({ "nbf": second + 60 })), None);
    assert_eq!(of_claims(json!({ "nbf": null })), None);
    for odd in [
        json!("1900000000"),
        json!(1.9e9),
        json!(-1),
        json!(i64::MAX),
        json!(u64::MAX),
        json!([1]),
        json!(true),
    ] {
        assert_eq!(of_claims(json!({ "exp": odd })), Some(Refusal::Claims), "{odd}");
        assert_eq!(of_claims(json!({ "nbf": odd })), Some(Refusal::Claims), "{odd}");
    }
    // JSON's null is not "absent".
    let null = claims().to_string().replacen(&format!("\"exp\":{}", second + 3600), "\"exp\":null", 1);
    assert_eq!(of_text(&header().to_string(), &null), Some(Refusal::Claims));
    // The ends of time.
    for now_ms in [i64::MIN, i64::MAX] {
        let expected = Expected { now_ms, leeway_ms: i64::MAX, ..EXPECTED };
        let _ = verify(good().as_bytes(), &SET, &expected);
        assert!(verify(good().as_bytes(), &SET, &Expected { leeway_ms: i64::MIN, ..expected }).is_err());
    }
}

#[test]
fn at_18_wrong_audience() {
    for aud in [
        json!("https://other.example.org"),
        json!("https://mdm.example.org/"),
        json!("HTTPS://MDM.EXAMPLE.ORG"),
        json!(""),
        json!([]),
        json!(["https://other.example.org", "00000003-0000-0000-c000-000000000000"]),
    ] {
        assert_eq!(of_claims(json!({ "aud": aud })), Some(Refusal::Audience), "{aud}");
    }
    assert_eq!(of_claims(json!({ "aud": null })), Some(Refusal::Audience));
    for aud in [json!(1), json!({ "0": AUDIENCE }), json!([AUDIENCE, 1]), json!([[AUDIENCE]])] {
        assert_eq!(of_claims(json!({ "aud": aud })), Some(Refusal::Claims), "{aud}");
    }
    let nobody = Expected { audiences: &[], ..EXPECTED };
    assert_eq!(verify(good().as_bytes(), &SET, &nobody).err(), Some(Refusal::Audience));
    let nobody = Expected { issuers: &[], ..EXPECTED };
    assert_eq!(verify(good().as_bytes(), &SET, &nobody).err(), Some(Refusal::Issuer));
}

#[test]
fn at_18_a_key_in_the_header() {
    let mine = KeyPair::generate_rsa2048().unwrap();
    let jwk = public_jwk("one", &mine).unwrap();
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
        ("jku", json!("")),
    ] {
        let header = with(header(), json!({ name: value }));
        let token = sign_rs256(&header, &claims(), &mine).unwrap();
        assert_eq!(judged(&token).err(), Some(Refusal::OwnKey), "{name}");
        // Neither when the signature is good.
        assert_eq!(of_header(json!({ name: value })), Some(Refusal::OwnKey), "{name}");
    }
    // Present with null is present.
    let null = r#"{"alg":"RS256","kid":"one","jwk":null}"#;
    assert_eq!(of_text(null, &claims().to_string()), Some(Refusal::OwnKey));
}

#[test]
fn at_18_extensions_and_other_types() {
    for changes in
        [json!({ "crit": ["exp"] }), json!({ "crit": [] }), json!({ "b64": false, "crit": ["b64"] })]
    {
        assert_eq!(of_header(changes), Some(Refusal::Extension));
    }
    for typ in [json!("JOSE"), json!("logout+jwt"), json!("dpop+jwt"), json!(""), json!(["JWT"])] {
        assert_eq!(of_header(json!({ "typ": typ })), Some(Refusal::Type), "{typ}");
    }
    assert_eq!(of_header(json!({ "typ": "jwt" })), None);
    assert_eq!(of_header(json!({ "typ": "at+JWT" })), None);
}

#[test]
fn at_18_keys_are_known_by_their_id_only() {
    assert_eq!(of_header(json!({ "kid": "three" })), Some(Refusal::UnknownKey));
    assert_eq!(of_header(json!({ "kid": "ONE" })), Some(Refusal::UnknownKey));
    assert_eq!(of_header(json!({ "kid": null })), Some(Refusal::NoKey));
    assert_eq!(of_header(json!({ "kid": "" })), Some(Refusal::Header));
    assert_eq!(of_header(json!({ "kid": "k".repeat(257) })), Some(Refusal::Header));
    assert_eq!(of_header(json!({ "kid": 1 })), Some(Refusal::Header));
    // A key of the set, but not the one that signed.
    assert_eq!(of_header(json!({ "kid": "two" })), Some(Refusal::Signature));
    let nothing = set(&[]).unwrap();
    assert_eq!(verify(good().as_bytes(), &nothing, &EXPECTED).err(), Some(Refusal::UnknownKey));
}

#[test]
fn one_spelling_only() {
    let good = good();
    let parts: Vec<&str> = good.split('.').collect();
    let (h, c, s) = (parts[0], parts[1], parts[2]);
    for token in [
        String::new(),
        ".".into(),
        format!("{h}.{c}"),
        format!("{good}."),
        format!("{good}.{s}"),
        format!(".{good}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{h}=.{c}.{s}"),
        format!("{good}\n"),
        format!(" {good}"),
        format!("Bearer {good}"),
        format!("{h}.{c}.{}+", s.split_at(s.len() - 1).0),
        format!("{h}.{c}./{}", s.split_at(1).1),
        format!("{h}.{c}.é"),
    ] {
        assert_eq!(judged(&token).err(), Some(Refusal::Shape), "{token}");
    }
    assert_eq!(judged("..").err(), Some(Refusal::Header));
    assert_eq!(signed_part(good.as_bytes()), Ok(format!("{h}.{c}").as_bytes()));
    assert_eq!(signed_part(b"e30.e30"), Err(Refusal::Shape));
    // Claims are not even decoded before the signature is found good; then they have one spelling as well.
    assert_eq!(judged(&format!("{h}.{c}=.{s}")).err(), Some(Refusal::Signature));
    let padded = format!("{h}.{c}=");
    let signature = URL_SAFE_NO_PAD.encode(KEYS[0].sign_sha256(padded.as_bytes()).unwrap());
    assert_eq!(judged(&format!("{padded}.{signature}")).err(), Some(Refusal::Shape));
    // A byte more or less than the key is long.
    for signature in [format!("{s}A"), s[..340].to_owned(), format!("AAAA{s}"), String::new()] {
        assert_eq!(judged(&format!("{h}.{c}.{signature}")).err(), Some(Refusal::Signature), "{signature}");
    }
    // 342 characters hold 2052 bits: the last four must be zero.
    let last = s.as_bytes()[s.len() - 1];
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = digits.iter().position(|d| *d == last).unwrap();
    let same_high_bits = digits.chunks(16).nth(at / 16).unwrap();
    for digit in same_high_bits {
        let token = format!("{}{}", &good[..good.len() - 1], char::from(*digit));
        assert_eq!(judged(&token).is_ok(), *digit == last);
    }
}

#[test]
fn nothing_is_said_twice() {
    let (header, claims) = (header().to_string(), claims().to_string());
    assert_eq!(of_text(&header, &claims), None);
    let twice = |text: &str, more: &str| text.replacen('{', &format!("{{{more},"), 1);
    assert_eq!(of_text(&twice(&header, r#""alg":"RS256""#), &claims), Some(Refusal::Header));
    assert_eq!(of_text(&twice(&header, r#""k\u0069d":"one""#), &claims), Some(Refusal::Header));
    for more in [r#""aud":"https://mdm.example.org""#, r#""tid":"x""#, r#""x":{"y":1,"y":1}"#] {
        assert_eq!(of_text(&header, &twice(&claims, more)), Some(Refusal::Claims), "{more}");
    }
    for other in ["", "null", "[]", "\"x\"", "{", "{}x", "\u{feff}{}"] {
        assert_eq!(of_text(other, &claims), Some(Refusal::Header), "{other}");
        assert_eq!(of_text(&header, other), Some(Refusal::Claims), "{other}");
    }
    assert_eq!(of_text(&header, "{}"), Some(Refusal::Issuer));
    for name in
        ["tid", "oid", "upn", "unique_name", "preferred_username", "name", "deviceid", "appid", "azp", "scp"]
    {
        assert_eq!(of_claims(json!({ name: 1 })), Some(Refusal::Claims), "{name}");
        assert_eq!(of_claims(json!({ name: ["mdm_delegation"] })), Some(Refusal::Claims), "{name}");
    }
}

#[test]
fn large_tokens_are_not_read() {
    let padding = |length: usize| with(claims(), json!({ "pad": "x".repeat(length) }));
    let token = |length| sign_rs256(&header(), &padding(length), &KEYS[0]).unwrap();
    assert!(judged(&token(8000)).is_ok());
    assert_eq!(judged(&token(13_000)).err(), Some(Refusal::TooLarge));
    assert_eq!(unverified_tid(token(13_000).as_bytes()).err(), Some(Refusal::TooLarge));
    assert_eq!(judged(&".".repeat(MAX_TOKEN)).err(), Some(Refusal::Shape));
}

#[test]
fn key_sets_take_what_can_verify_rs256() {
    let jwk = public_jwk("one", &KEYS[0]).unwrap();
    let count = |key: &Value| set(std::slice::from_ref(key)).unwrap().len();
    assert_eq!(count(&jwk), 1);
    for changes in [
        json!({ "use": null }),
        json!({ "alg": "RS256" }),
        json!({ "key_ops": ["verify"] }),
        json!({ "x5c": ["MIIC"], "x5t": "one", "issuer": "https://x/{tenantid}/v2.0" }),
        json!({ "n": URL_SAFE_NO_PAD.encode([&[0][..], &n(&jwk)].concat()) }),
        json!({ "e": "Aw" }),
    ] {
        assert_eq!(count(&with(jwk.clone(), changes.clone())), 1, "{changes}");
    }
    let weak = Rsa::generate(2040).unwrap();
    for changes in [
        json!({ "kty": "EC" }),
        json!({ "kty": "oct", "k": "c2VjcmV0" }),
        json!({ "kty": "rsa" }),
        json!({ "use": "enc" }),
        json!({ "use": ["sig"] }),
        json!({ "alg": "RS512" }),
        json!({ "alg": "PS256" }),
        json!({ "key_ops": ["sign"] }),
        json!({ "key_ops": "verify" }),
        json!({ "kid": null }),
        json!({ "kid": "" }),
        json!({ "kid": 7 }),
        json!({ "kid": "k".repeat(257) }),
        json!({ "n": null }),
        json!({ "n": "" }),
        json!({ "n": 1 }),
        json!({ "n": format!("{}=", jwk["n"].as_str().unwrap()) }),
        json!({ "n": URL_SAFE_NO_PAD.encode(weak.n().to_vec()) }),
        json!({ "n": URL_SAFE_NO_PAD.encode([0xff; 1025]) }),
        json!({ "n": URL_SAFE_NO_PAD.encode([0; 256]) }),
        json!({ "e": null }),
        json!({ "e": "" }),
        json!({ "e": "AQ" }),
        json!({ "e": "Ag" }),
        json!({ "e": URL_SAFE_NO_PAD.encode([0xff; 9]) }),
    ] {
        assert_eq!(count(&with(jwk.clone(), changes.clone())), 0, "{changes}");
    }
    // Strangers in the list take nothing from the others.
    let mixed = set(&[json!(null), json!("x"), json!({}), jwk.clone(), json!({ "kty": "EC", "kid": "one" })])
        .unwrap();
    assert_eq!(mixed.len(), 1);
    assert!(verify(good().as_bytes(), &mixed, &EXPECTED).is_ok());
    assert_eq!(format!("{mixed:?}"), "KeySet(1 keys)");
}

#[test]
fn key_sets_are_bounded_and_unambiguous() {
    let jwk = |kid: &str| public_jwk(kid, &KEYS[0]).unwrap();
    let many = |count: usize| (0..count).map(|n| jwk(&n.to_string())).collect::<Vec<_>>();
    assert_eq!(set(&many(64)).unwrap().len(), 64);
    assert!(matches!(set(&many(65)), Err(Error::TooLarge { .. })));
    assert!(matches!(set(&[jwk("a"), jwk("a")]), Err(Error::Malformed { .. })));
    assert!(matches!(KeySet::parse(&vec![b' '; 1024 * 1024 + 1]), Err(Error::TooLarge { .. })));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
        assert!(matches!(KeySet::parse(text.as_bytes()), Err(Error::Malformed { .. })), "{text}");
    }
    assert!(KeySet::parse(br#"{"keys":[]}"#).unwrap().is_empty());
}

#[test]
fn keys_of_other_issuers_can_be_left_out() {
    let key =
        |kid: &str, issuer: Value| with(public_jwk(kid, &KEYS[0]).unwrap(), json!({ "issuer": issuer }));
    let mut keys = set(&[
        key("none", json!(null)),
        key("ours", json!("a")),
        key("theirs", json!("b")),
        key("odd", json!(1)),
    ])
    .unwrap();
    assert_eq!(keys.len(), 4);
    keys.retain_issuers(|issuer| matches!(issuer, None | Some("a")));
    assert!(keys.get("none").is_some() && keys.get("ours").is_some());
    assert!(keys.get("theirs").is_none() && keys.get("odd").is_none());
}

#[test]
fn only_rsa_keys_sign() {
    let ec = KeyPair::generate_p256().unwrap();
    assert!(matches!(sign_rs256(&header(), &claims(), &ec), Err(Error::Key { .. })));
    assert!(matches!(public_jwk("one", &ec), Err(Error::Key { .. })));
}

fn n(jwk: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn at_18_a_changed_token_never_verifies(
        at in any::<prop::sample::Index>(),
        to in prop_oneof![any::<u8>(), prop::sample::select(&b"ABCDwxyz0189-_.="[..])],
        cut in any::<prop::sample::Index>(),
        remove in 0_usize..4,
        splice in proptest::collection::vec(prop::sample::select(&b"ABCDwxyz0189-_."[..]), 0..4),
    ) {
        static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| good().into_bytes());
        let mut one = GOOD.clone();
        let at = at.index(one.len());
        one[at] = to;
        let cut = cut.index(GOOD.len());
        let mut two = GOOD.clone();
        two.splice(cut..(cut + remove).min(GOOD.len()), splice);
        for token in [&one, &two, &GOOD[..cut].to_vec()] {
            if *token != *GOOD {
                prop_assert!(verify(token, &SET, &EXPECTED).is_err());
            }
        }
    }

    #[test]
    fn at_18_parts_of_two_tokens_never_make_a_third(swap in 1_usize..7) {
        static PAIR: LazyLock<[String; 2]> = LazyLock::new(|| {
            let other = with(claims(), json!({ "upn": "eve@example.org" }));
            [good(), sign_rs256(&with(header(), json!({ "kid": "two" })), &other, &KEYS[1]).unwrap()]
        });
        let parts = PAIR.each_ref().map(|token| token.split('.').collect::<Vec<_>>());
        let mixed: Vec<&str> = (0..3).map(|part| parts[swap >> part & 1][part]).collect();
        prop_assert!(judged(&mixed.join(".")).is_err());
    }

    #[test]
    fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), json in "[{}\\[\\]\",:a-z0-9\\\\]{0,60}") {
        prop_assert!(verify(&bytes, &SET, &EXPECTED).is_err());
        let _ = (unverified_tid(&bytes), KeySet::parse(&bytes), KeySet::parse(json.as_bytes()));
        let text = URL_SAFE_NO_PAD.encode(&json);
        let token = format!("{text}.{text}.{text}");
        prop_assert!(judged(&token).is_err());
        let _ = unverified_tid(token.as_bytes());
    }
}
