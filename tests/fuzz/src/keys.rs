//! One CA and one device, with the fixed keys of `keys/`.

use std::sync::LazyLock;

use bellwether_certs::KeyPair;
use bellwether_certs::asn1;
use bellwether_certs::ca::DeviceCa;
use bellwether_certs::csr::{self, Wishes};
use secrecy::SecretString;

/// Milliseconds since the Unix epoch; within the validity of the CA.
pub const NOW: i64 = 1_800_000_000_000;
/// What the device's request carries.
pub const CHALLENGE: &str = "s3cret-challenge";

/// The keys and what they signed.
#[derive(Debug)]
pub struct World {
    /// The device CA, RSA.
    pub ca: DeviceCa,
    /// The device's key, RSA.
    pub device: KeyPair,
    /// A throw-away certificate of the device's key.
    pub self_signed: Vec<u8>,
    /// The device's request, with a challenge.
    pub csr: Vec<u8>,
    /// The device's identity, issued by the CA.
    pub identity: Vec<u8>,
    /// Another key, P-256: signing with it is cheap.
    pub p256: KeyPair,
    /// A throw-away certificate of it.
    pub p256_cert: Vec<u8>,
}

/// The one world of all targets.
pub static WORLD: LazyLock<World> = LazyLock::new(|| {
    let read = |pem: &str| KeyPair::from_pem(pem.as_bytes()).expect("a key of ours");
    let device = read(include_str!("../keys/device.pem"));
    let p256 = read(include_str!("../keys/p256.pem"));
    let ca = DeviceCa::load(include_bytes!("../keys/ca.der"), read(include_str!("../keys/ca.pem")))
        .expect("our CA");
    let challenge = SecretString::from(CHALLENGE);
    let spki = device.public_key_der().expect("a public key");
    World {
        self_signed: csr::self_signed(&device, "device", [2; 16], NOW).expect("a certificate"),
        csr: csr::build(&device, "device", Some(&challenge), Wishes::default()).expect("a request"),
        identity: ca.issue_device(&spki, "device", [3; 16], NOW).expect("an identity"),
        p256_cert: csr::self_signed(&p256, "device", [4; 16], NOW).expect("a certificate"),
        ca,
        device,
        p256,
    }
});

/// A request of the P-256 key that verifies, with the given content octets as subject and as attributes, and behind
/// the name of the curve whatever the requester likes.
#[must_use]
pub fn request(subject: &[u8], attributes: &[u8], beside_the_key: &[u8]) -> Vec<u8> {
    const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let key = &WORLD.p256;
    let spki = key.public_key_der().expect("a public key");
    let bits = &spki[spki.len() - 68..];
    let algorithm = asn1::seq(&[&asn1::oid(EC_PUBLIC_KEY), &asn1::oid(P256), beside_the_key]);
    let spki = asn1::seq(&[&algorithm, bits]);
    let info =
        asn1::seq(&[&asn1::integer(&[0]), &asn1::seq(&[subject]), &spki, &asn1::tlv(0xa0, &[attributes])]);
    let signature = key.sign_sha256(&info).expect("a signature");
    asn1::seq(&[&info, &asn1::seq(&[&asn1::oid(ECDSA_SHA256)]), &asn1::bits(&signature)])
}
