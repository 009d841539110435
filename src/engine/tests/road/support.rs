//! Two parties in memory: an engine on SQLite, and devices with real keys that speak Apple's protocol to it.

use bellwether_apple::checkin::{Authenticate, CheckOut, Message, TokenUpdate};
use bellwether_apple::command::{Delivered, decode_command};
use bellwether_apple::family::Family;
use bellwether_apple::profile::{EnrollmentDetails, decode_enrollment_profile};
use bellwether_apple::{ChannelIds, Opaque, device};
use bellwether_certs::cms::{self, Shape};
use bellwether_certs::keys::KeyPair;
use bellwether_certs::{csr, hash};
use bellwether_engine::{
    AppleReply, AppleRequest, Caller, Clock, Engine, EngineConfig, Error, NewInvitation, StoreConfig,
    UploadRules, may,
};
use bellwether_model::time::DAY;
use bellwether_model::{AuthorityId, DeviceId, Ownership, Platform, Timestamp};
use bellwether_scep::client::{self, Reply, Style, Transaction};
use plist::Dictionary;
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock that tests move.
pub struct TestClock(pub AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

pub struct House {
    pub engine: Arc<Engine>,
    pub clock: Arc<TestClock>,
    pub admin: Caller,
    pub folder: tempfile::TempDir,
}

pub const START: i64 = 1_800_000_000_000;

pub async fn open(folder: &std::path::Path, clock: Arc<TestClock>) -> Result<Arc<Engine>, Error> {
    open_on(StoreConfig::Sqlite { folder: folder.to_owned(), readers: 2 }, folder, clock).await
}

pub async fn open_on(
    store: StoreConfig,
    folder: &std::path::Path,
    clock: Arc<TestClock>,
) -> Result<Arc<Engine>, Error> {
    Engine::open(EngineConfig {
        windows: bellwether_engine::WindowsConfig::default(),
        store,
        uploads: UploadRules { largest: 8 << 20, total: 20 << 20, keep: 30 * DAY },
        data_dir: folder.to_owned(),
        master_key: None,
        public_url: "https://mdm.example.org".into(),
        device_url: "https://devices.example.org".into(),
        organization: "Example & Sons".into(),
        apple_require_client_certificate: false,
        own_tls_ca: true,
        lose_devices: 0,
        clock,
    })
    .await
}

pub async fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreConfig::Sqlite { folder: folder.path().to_owned(), readers: 2 };
    house_on(store, folder).await
}

/// A house on a store of another kind.
pub async fn house_on(store: StoreConfig, folder: tempfile::TempDir) -> House {
    let clock = Arc::new(TestClock(AtomicI64::new(START)));
    let engine = open_on(store, folder.path(), clock.clone()).await.unwrap();
    let token = engine.setup_token().expect("a fresh server mints a setup token");
    let key = engine.redeem_setup_token(token.expose_secret(), "first", None).await.unwrap();
    let admin = engine.caller(key.secret.expose_secret(), None).await.unwrap();
    House { engine, clock, admin, folder }
}

impl House {
    pub fn site(&self) -> bellwether_model::SiteId {
        self.engine.default_site()
    }

    pub fn later(&self, millis: i64) {
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
    }

    pub async fn invite(&self, account: Option<&str>) -> String {
        let permit = self.admin.permit::<may::WriteInvitations>(self.site()).unwrap();
        let made = self.engine.create_invitation(&permit, wish(account)).await.unwrap();
        let link = made.link.expose_secret();
        link.rsplit('/').next().unwrap().to_owned()
    }

    pub async fn devices(&self) -> Vec<bellwether_engine::DeviceView> {
        let permit = self.admin.permit::<may::ReadDevices>(self.site()).unwrap();
        self.engine.devices(&permit, None, None, None, None, 100).await.unwrap().items
    }

    pub async fn device_id(&self, udid: &str) -> DeviceId {
        let permit = self.admin.permit::<may::ReadDevices>(self.site()).unwrap();
        self.engine.find_device(&permit, udid).await.unwrap()
    }

    pub async fn send(
        &self,
        device: DeviceId,
        intent: bellwether_model::Intent,
    ) -> Result<bellwether_engine::CommandView, Error> {
        self.engine
            .send_command(&self.admin, self.site(), device, intent, bellwether_engine::SendOptions::default())
            .await
    }

    pub async fn command(&self, id: bellwether_model::CommandId) -> bellwether_engine::CommandDetail {
        let permit = self.admin.permit::<may::ReadDevices>(self.site()).unwrap();
        self.engine.command(&permit, id).await.unwrap()
    }

    /// What the audit has recorded, by kind.
    pub async fn audited(&self, kind: &str) -> usize {
        self.entries(kind).await.len()
    }

    /// The audit's entries of a kind, newest first.
    pub async fn entries(&self, kind: &str) -> Vec<bellwether_engine::AuditView> {
        self.engine.seal_once().await.unwrap();
        let permit = self.admin.permit::<may::ReadAudit>(self.site()).unwrap();
        let entries = self.engine.audit(&permit, None, 1000).await.unwrap().items;
        entries.into_iter().filter(|e| e.kind == kind).collect()
    }
}

pub fn wish(account: Option<&str>) -> NewInvitation {
    NewInvitation {
        platform: Platform::Apple,
        account: account.map(str::to_owned),
        name: None,
        device_id: None,
        expires_in: None,
        short_code: false,
        test_only: true,
        unsigned: false,
        ownership: Ownership::Company,
    }
}

/// A simulated Apple device.
pub struct Mac {
    pub ids: ChannelIds,
    pub product: &'static str,
    pub key: KeyPair,
    pub cert: Vec<u8>,
    pub topic: String,
    pub shape: Shape,
}

pub fn mac(udid: &str) -> Mac {
    Mac {
        ids: ChannelIds::udid(udid).unwrap(),
        product: "Mac14,2",
        key: KeyPair::generate_rsa2048().unwrap(),
        cert: Vec::new(),
        topic: String::new(),
        shape: Shape::DEVICE,
    }
}

pub async fn profile(house: &House, code: &str) -> EnrollmentDetails {
    let file = house.engine.mint_profile(code, Family::Mac, false, None).await.unwrap();
    let plain = cms::strip_signature(&file.bytes).unwrap();
    decode_enrollment_profile(&plain).unwrap()
}

pub fn authority(details: &EnrollmentDetails) -> AuthorityId {
    details.scep.url.rsplit('/').next().unwrap().parse().unwrap()
}

pub async fn scep(
    house: &House,
    details: &EnrollmentDetails,
    key: &KeyPair,
    wishes: csr::Wishes<'_>,
    cn: Option<&str>,
) -> Reply {
    let cn = cn.unwrap_or(&details.scep.common_name);
    let challenge = SecretString::from(details.scep.challenge.expose_str().unwrap().to_owned());
    let request = csr::build(key, cn, Some(&challenge), wishes).unwrap();
    scep_csr(house, authority(details), key, &request, None).await
}

pub async fn scep_csr(
    house: &House,
    id: AuthorityId,
    key: &KeyPair,
    request: &[u8],
    renewal: Option<(&[u8], &KeyPair)>,
) -> Reply {
    let ca = house.engine.scep_ca_certificate(id).await.unwrap();
    let own = csr::self_signed(key, "device", hash::random_bytes().unwrap(), START).unwrap();
    let spki = key.public_key_der().unwrap();
    let transaction_id = client::transaction_id(&spki);
    let (cert_der, signer) = renewal.unwrap_or((&own, key));
    let transaction = Transaction {
        ca_cert_der: &ca,
        cert_der,
        key: signer,
        id: &transaction_id,
        nonce: hash::random_bytes().unwrap(),
        style: Style::MACOS,
    };
    let message = if renewal.is_some() {
        client::renewal_req(&transaction, request).unwrap()
    } else {
        client::pkcs_req(&transaction, request).unwrap()
    };
    let reply = house.engine.scep_operation(id, message, None).await.unwrap();
    client::parse_cert_rep(&transaction, &reply, &spki).unwrap()
}

impl Mac {
    /// Profile, SCEP: everything before the first check-in.
    pub async fn identity(&mut self, house: &House, code: &str) {
        let details = profile(house, code).await;
        match scep(house, &details, &self.key, csr::Wishes::default(), None).await {
            Reply::Success(der) => self.cert = der,
            other => panic!("no certificate: {other:?}"),
        }
        self.topic = details.mdm.topic.clone();
    }

    pub async fn enroll(&mut self, house: &House, code: &str) {
        self.identity(house, code).await;
        assert_eq!(self.authenticate(house).await.status, 200);
        assert_eq!(self.token_update(house).await.status, 200);
    }

    pub async fn authenticate(&self, house: &House) -> AppleReply {
        let message = Authenticate {
            topic: self.topic.clone(),
            os_version: Some("15.1".into()),
            build_version: Some("24B83".into()),
            product_name: Some(self.product.into()),
            serial_number: Some(format!("SER{}", self.ids.device.as_str())),
            ..Authenticate::default()
        };
        self.check_in(house, &Message::Authenticate(message)).await
    }

    pub async fn token_update(&self, house: &House) -> AppleReply {
        let message = TokenUpdate {
            topic: self.topic.clone(),
            token: b"token-of-any-length".to_vec(),
            push_magic: Opaque::from("magic"),
            unlock_token: Some(Opaque::from("unlock")),
            ..TokenUpdate::default()
        };
        self.check_in(house, &Message::TokenUpdate(message)).await
    }

    pub async fn check_out(&self, house: &House) -> AppleReply {
        self.check_in(house, &Message::CheckOut(CheckOut { topic: Some(self.topic.clone()) })).await
    }

    pub async fn check_in(&self, house: &House, message: &Message) -> AppleReply {
        self.put(house, device::check_in(&self.ids, message).unwrap()).await
    }

    pub async fn put(&self, house: &House, body: Vec<u8>) -> AppleReply {
        let signature = cms::sign_detached(&body, &self.cert, &self.key, self.shape).unwrap();
        put(house, body, Some(signature)).await
    }

    /// Idle; the command that came back.
    pub async fn idle(&self, house: &House) -> Option<Delivered> {
        command(self.put(house, device::idle(&self.ids).unwrap()).await)
    }

    pub async fn ack(&self, house: &House, uuid: &str, answer: Dictionary) -> Option<Delivered> {
        command(self.put(house, device::acknowledged(&self.ids, uuid, answer).unwrap()).await)
    }

    pub async fn not_now(&self, house: &House, uuid: &str) -> Option<Delivered> {
        command(self.put(house, device::not_now(&self.ids, uuid).unwrap()).await)
    }

    pub async fn fail(&self, house: &House, uuid: &str) -> Option<Delivered> {
        let chain = [bellwether_apple::checkin::ErrorItem {
            code: 12021,
            domain: "MCMDMErrorDomain".into(),
            localized: "Unknown command".into(),
            us_english: None,
        }];
        command(self.put(house, device::error(&self.ids, uuid, &chain).unwrap()).await)
    }

    /// Acknowledges everything that waits; the request types in order.
    pub async fn drain(&self, house: &House) -> Vec<String> {
        let mut seen = Vec::new();
        let mut next = self.idle(house).await;
        while let Some(delivered) = next {
            seen.push(delivered.request_type.clone());
            next = self.ack(house, &delivered.command_uuid, Dictionary::new()).await;
        }
        seen
    }
}

pub async fn put(house: &House, body: Vec<u8>, signature: Option<Vec<u8>>) -> AppleReply {
    use base64::Engine as _;
    let header = signature.map(|s| base64::engine::general_purpose::STANDARD.encode(s));
    house
        .engine
        .apple_request(AppleRequest {
            signature: header.map(SecretString::from),
            tls_certificate: None,
            body,
            content_type: None,
            source: Some("127.0.0.1".into()),
        })
        .await
}

pub fn command(reply: AppleReply) -> Option<Delivered> {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    (!reply.body.is_empty()).then(|| decode_command(&reply.body).unwrap())
}
