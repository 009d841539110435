//! PCs that join by Entra ID: keys fetched over TLS, the terms of use in Windows' browser window, the certificate.

use crate::harness::{House, Site};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether::config::{Config, Sources};
use bellwether_certs::ca::TlsCa;
use bellwether_certs::cert::ders_to_pem;
use bellwether_certs::jwt::{public_jwk, sign_rs256};
use bellwether_certs::keys::KeyPair;
use bellwether_sim::{Reply, TokenOptions, WindowsPc, clock};
use bellwether_windows::enrollment::Credential;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const AUDIENCE: &str = "https://mdm.example.org";
const PAGE: &str = "/EnrollmentServer/TermsOfUse";
const APP: &str = "ms-appx-web://Microsoft.AAD.BrokerPlugin/DRS";
const REQUEST_ID: &str = "0190a5d0-0000-4000-8000-00000000000a";

/// Microsoft: signs tokens, and publishes its key over TLS for as long as the test runs.
pub struct Microsoft {
    key: KeyPair,
    port: u16,
    trust: String,
}

impl Microsoft {
    pub fn start() -> Self {
        let key = KeyPair::generate_rsa2048().unwrap();
        let keys = json!({ "keys": [public_jwk("one", &key).unwrap()] }).to_string();
        let now = clock::now_ms();
        let ca = TlsCa::create(now, [1; 16]).unwrap();
        let own = KeyPair::generate_p256().unwrap();
        let spki = own.public_key_der().unwrap();
        let leaf = ca.issue_server(&["127.0.0.1".into()], &spki, [2; 16], now, 30).unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate(&X509::from_der(&leaf).unwrap()).unwrap();
        acceptor.set_private_key(own.pkey()).unwrap();
        let acceptor = acceptor.build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let Ok(mut stream) = acceptor.accept(tcp) else { continue };
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or(0);
                let asked = format!("GET /{TENANT}/keys ");
                let status = if head[..read].starts_with(asked.as_bytes()) { 200 } else { 404 };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}",
                    keys.len()
                );
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown();
            }
        });
        Self { key, port, trust: ders_to_pem(&[ca.cert_der()]) }
    }

    /// What a server must be told to believe its tokens. Files go into a folder.
    pub fn flags(&self, files: &std::path::Path) -> [(&'static str, String); 4] {
        let trust = files.join("trust.pem");
        std::fs::write(&trust, &self.trust).unwrap();
        [
            ("windows.entra.tenants", TENANT.to_owned()),
            ("windows.entra.audiences", AUDIENCE.to_owned()),
            ("windows.entra.keys_url", format!("https://127.0.0.1:{}/{{tenant}}/keys", self.port)),
            ("windows.entra.trust", trust.to_str().unwrap().to_owned()),
        ]
    }

    /// A server that accepts its tokens, with these terms.
    async fn house(&self, terms: &str, required: bool) -> House {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("terms.txt");
        std::fs::write(&path, terms).unwrap();
        let mut flags = self.flags(files.path()).to_vec();
        flags.push(("windows.entra.terms", path.to_str().unwrap().to_owned()));
        flags.push(("windows.entra.terms_required", required.to_string()));
        let flags = flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let layers = Sources { flags, ..Sources::default() }.load().unwrap();
        let entra = Config::from_layers(&layers).unwrap().entra;
        House::with(move |config| config.entra = entra).await
    }

    pub fn token(&self, object_id: u8, upn: &str) -> String {
        let now = clock::now_ms() / 1000;
        let claims = json!({
            "iss": format!("https://sts.windows.net/{TENANT}/"), "aud": AUDIENCE, "tid": TENANT, "scp": "mdm_delegation",
            "upn": upn, "oid": format!("00000000-0000-4000-8000-0000000000{object_id:02}"),
            "nbf": now - 60, "iat": now - 60, "exp": now + 3600, "uti": uuid::Uuid::now_v7().to_string(),
        });
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "one" });
        sign_rs256(&header, &claims, &self.key).unwrap()
    }
}

/// Opens the page as Windows does.
async fn open(house: &House, token: &str, redirect_uri: &str, more: &str) -> Reply {
    let redirect: String = url::form_urlencoded::byte_serialize(redirect_uri.as_bytes()).collect();
    let path = format!("{PAGE}?redirect_uri={redirect}&client-request-id={REQUEST_ID}&api-version=1.0{more}");
    let bearer = format!("Bearer {token}");
    house.raw(Method::GET, &path, &[("authorization", &bearer)], Vec::new()).await
}

/// Presses a button of the page: no token goes along.
async fn press(house: &House, page: &str, answer: &str, headers: &[(&str, &str)]) -> Reply {
    let ticket = page.split("name=\"ticket\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = [("ticket", ticket), ("answer", answer)];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend(headers);
    house.raw(Method::POST, PAGE, &all, body.into_bytes()).await
}

/// The query of a redirect to the application.
#[track_caller]
fn sent_away(reply: &Reply) -> BTreeMap<String, String> {
    assert_eq!(reply.status, 302, "{}", reply.text());
    assert_eq!(reply.header("client-request-id"), Some(REQUEST_ID));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let location = reply.header("location").unwrap();
    let (app, query) = location.split_once('?').unwrap();
    assert_eq!(app, APP);
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

impl Site {
    /// Asks for a certificate with a token, and what the terms-of-use page gave.
    pub async fn join(
        &self,
        pc: &mut WindowsPc,
        token: &str,
        blob: Option<&str>,
    ) -> bellwether_sim::Result<()> {
        let url = format!("{}/EnrollmentServer/Enrollment.svc", self.url);
        let credential = Credential::Jwt(token.into());
        let context = blob.map(|blob| ("EnrollmentData".to_owned(), Some(blob.to_owned())));
        let options = TokenOptions { context: context.into_iter().collect(), ..TokenOptions::default() };
        let request = pc.token_request(&options).await?;
        let reply = pc.request_token(&url, &credential, &request).await?;
        pc.install(reply, &url, &request.key)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_joins_after_its_person_accepted_the_terms() {
    let microsoft = Microsoft::start();
    let house = microsoft.house("Be kind.\n\n<b>Lock</b> your screen.", true).await;
    let token = microsoft.token(1, "Ann@Example.org");
    let mut pc = house.pc_builder().await.build().unwrap();
    let refused = house.join(&mut pc, &token, None).await.unwrap_err();
    assert!(format!("{refused:?}").contains("InvalidEnrollmentData"), "{refused:?}");
    let page = open(&house, &token, APP, "&mode=azureadjoin").await;
    assert_eq!((page.status, page.header("client-request-id")), (200, Some(REQUEST_ID)));
    let html = page.text();
    assert!(html.contains("Be kind.") && !html.contains("<b>"), "{html}");
    assert!(!html.contains("decline") && html.contains("will manage this computer"), "{html}");
    let query = sent_away(&press(&house, &html, "accept", &[("origin", &house.url)]).await);
    assert_eq!(query["IsAccepted"], "true");
    STANDARD.decode(&query["OpaqueBlob"]).unwrap();
    house.join(&mut pc, &token, Some(&query["OpaqueBlob"])).await.unwrap();
    pc.session().await.unwrap();
    let shown = house.show_pc(&pc).await;
    assert_eq!(shown["device"]["enrollment"]["account"], "ann@example.org");
    assert_eq!(house.audited("terms.accepted", 1).await[0]["details"]["client_request_id"], REQUEST_ID);
    // The token was for this PC.
    let mut second = house.pc_builder().await.build().unwrap();
    let used = house.join(&mut second, &token, Some(&query["OpaqueBlob"])).await.unwrap_err();
    assert!(format!("{used:?}").contains("Authentication"), "{used:?}");
    let other =
        house.join(&mut second, &microsoft.token(2, "bob@example.org"), Some(&query["OpaqueBlob"])).await;
    assert!(other.is_err(), "accepted by somebody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_account_may_decline() {
    let microsoft = Microsoft::start();
    let house = microsoft.house("Be kind.", false).await;
    let token = microsoft.token(1, "ann@example.org");
    let html = open(&house, &token, APP, "").await.text();
    assert!(html.contains("value=\"decline\""), "{html}");
    let query = sent_away(&press(&house, &html, "decline", &[]).await);
    assert_eq!(query, BTreeMap::from([("IsAccepted".to_owned(), "false".to_owned())]));
    house.audited("terms.declined", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_18_the_terms_page_is_for_a_token_and_leads_to_windows_alone() {
    let microsoft = Microsoft::start();
    let house = microsoft.house("Be kind.", true).await;
    let token = microsoft.token(1, "ann@example.org");
    let stranger = Microsoft { key: KeyPair::generate_rsa2048().unwrap(), port: 0, trust: String::new() };
    for (bad, error) in
        [(stranger.token(1, "ann@example.org"), "unauthorized_client"), (String::new(), "invalid_request")]
    {
        let query = sent_away(&open(&house, &bad, APP, "").await);
        assert_eq!(query["error"], error);
        assert!(query.contains_key("error_description") && query.len() == 2, "{query:?}");
    }
    let old = open(&house, &token, APP, "").await;
    let versions = format!("{PAGE}?redirect_uri={APP}&client-request-id={REQUEST_ID}&api-version=2.0");
    let query = sent_away(&house.raw(Method::GET, &versions, &[], Vec::new()).await);
    assert_eq!(query["error"], "invalid_request");
    for hostile in [
        "",
        "https://evil.example/",
        "//evil.example",
        "javascript:alert(1)",
        "ms-app://windows.immersivecontrolpanel",
        "ms-appx-web://x\r\nSet-Cookie: a=b",
        "ms-appx-web://x\nLocation: https://evil.example",
        "ms-appx-web://x\"><script>",
        "ms-appx-web://x#IsAccepted=true",
        "https://evil.example/?ms-appx-web://x",
    ] {
        for token in [&token, &String::new()] {
            let reply = open(&house, token, hostile, "").await;
            assert_eq!((reply.status, reply.header("location")), (400, None), "{hostile}");
            assert!(!reply.text().contains("evil") && !reply.text().contains("<script"), "{hostile}");
        }
    }
    // The form is ours, and its ticket too.
    let html = old.text();
    assert_eq!(press(&house, &html, "accept", &[("origin", "https://evil.example")]).await.status, 403);
    assert_eq!(press(&house, &html, "maybe", &[]).await.status, 400);
    let forged = html.replace("name=\"ticket\" value=\"", "name=\"ticket\" value=\"A");
    let refused = press(&house, &forged, "accept", &[]).await;
    assert_eq!((refused.status, refused.header("location")), (400, None));
    assert_eq!(house.get("/audit?limit=500").await.to_string().matches("terms.accepted").count(), 0);
}
