//! Private keys, public keys and plain signatures.

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Private, Public};
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};
use secrecy::SecretBox;

use crate::asn1::{self, Reader};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::oid;

/// What kind of key, and how strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// RSA with this many bits.
    Rsa {
        /// Bits of the modulus.
        bits: u32,
    },
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// Anything else.
    Other,
}

impl KeyKind {
    /// The rule for device keys: RSA of 2048 to 8192 bits, P-256 or P-384.
    ///
    /// # Errors
    /// [`Error::Key`] for everything else. The upper bound keeps a device from making every one of its
    /// requests expensive to verify.
    pub const fn check(self) -> Result<()> {
        match self {
            Self::Rsa { bits: 2048..=8192 } | Self::P256 | Self::P384 => Ok(()),
            Self::Rsa { .. } => Err(Error::Key { reason: "RSA keys must have 2048 to 8192 bits" }),
            Self::Other => Err(Error::Key { reason: "only RSA, P-256 and P-384 keys are accepted" }),
        }
    }

    fn of<T: openssl::pkey::HasPublic>(key: &PKeyRef<T>) -> Self {
        match key.id() {
            Id::RSA => Self::Rsa { bits: key.bits() },
            Id::EC => match key.ec_key().ok().and_then(|ec| ec.group().curve_name()) {
                Some(Nid::X9_62_PRIME256V1) => Self::P256,
                Some(Nid::SECP384R1) => Self::P384,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// A private key. Cloning shares the key; nothing of it can be printed.
#[derive(Clone)]
pub struct KeyPair {
    pkey: PKey<Private>,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({:?})", self.kind())
    }
}

impl KeyPair {
    /// A new RSA key of 2048 bits. Takes a few hundred milliseconds at worst.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn generate_rsa2048() -> Result<Self> {
        Ok(Self { pkey: PKey::from_rsa(Rsa::generate(2048)?)? })
    }

    /// A new key on NIST P-256.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn generate_p256() -> Result<Self> {
        Self::generate_ec(Nid::X9_62_PRIME256V1)
    }

    /// A new key on NIST P-384.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn generate_p384() -> Result<Self> {
        Self::generate_ec(Nid::SECP384R1)
    }

    fn generate_ec(curve: Nid) -> Result<Self> {
        let group = EcGroup::from_curve_name(curve)?;
        Ok(Self { pkey: PKey::from_ec_key(EcKey::generate(&group)?)? })
    }

    /// Reads an unencrypted PKCS#8 key (RFC 5208).
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is none.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self> {
        let pkey = PKey::private_key_from_pkcs8(der).map_err(|_| Error::malformed("PKCS#8 private key"))?;
        Ok(Self { pkey })
    }

    /// Reads an unencrypted PEM key: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    /// [`Error::Key`] if it is encrypted, [`Error::Malformed`] if it is no key.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("ENCRYPTED") {
            return Err(Error::Key {
                reason: "the key is encrypted; decrypt it first (openssl pkey -in key.pem -out plain.pem)",
            });
        }
        // The callback is never asked for a pass phrase, and must not fall back to the terminal.
        let pkey = PKey::private_key_from_pem_callback(pem, |_| Ok(0))
            .map_err(|_| Error::malformed("PEM private key"))?;
        Ok(Self { pkey })
    }

    /// The key as unencrypted PKCS#8, for sealing.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn to_pkcs8_der(&self) -> Result<SecretBox<Vec<u8>>> {
        Ok(SecretBox::new(Box::new(self.pkey.private_key_to_pkcs8()?)))
    }

    /// The key as unencrypted PKCS#8 PEM, for libraries that read nothing else.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn to_pkcs8_pem(&self) -> Result<SecretBox<Vec<u8>>> {
        Ok(SecretBox::new(Box::new(self.pkey.private_key_to_pem_pkcs8()?)))
    }

    /// The public key as `SubjectPublicKeyInfo` (RFC 5280 §4.1).
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn public_key_der(&self) -> Result<Vec<u8>> {
        Ok(self.pkey.public_key_to_der()?)
    }

    /// What kind of key this is.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        KeyKind::of(&self.pkey)
    }

    /// OpenSSL's view, for TLS contexts and the like.
    #[must_use]
    pub fn pkey(&self) -> &PKeyRef<Private> {
        &self.pkey
    }

    /// Signs with SHA-256: PKCS#1 v1.5 for RSA, DER-encoded ECDSA for EC.
    ///
    /// # Errors
    /// Only if OpenSSL fails or the key cannot sign.
    pub fn sign_sha256(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.sign(Digest::Sha256, message)
    }

    /// Signs with the given digest: PKCS#1 v1.5 for RSA, DER-encoded ECDSA for EC.
    ///
    /// # Errors
    /// Only if OpenSSL fails or the key cannot sign.
    pub fn sign(&self, digest: Digest, message: &[u8]) -> Result<Vec<u8>> {
        let mut signer = Signer::new(digest.openssl(), &self.pkey)?;
        Ok(signer.sign_oneshot_to_vec(message)?)
    }

    /// The `AlgorithmIdentifier` of a certificate or CRL signature made by this key (SHA-256).
    pub(crate) fn signature_algorithm(&self, digest: Digest) -> Result<Vec<u8>> {
        let null = asn1::tlv(0x05, &[]);
        let rsa = |id| Ok(asn1::seq(&[&asn1::oid(id), &null]));
        let ec = |id| Ok(asn1::seq(&[&asn1::oid(id)]));
        match (self.kind(), digest) {
            (KeyKind::Rsa { .. }, Digest::Sha1) => rsa(oid::RSA_SHA1),
            (KeyKind::Rsa { .. }, Digest::Sha256) => rsa(oid::RSA_SHA256),
            (KeyKind::Rsa { .. }, Digest::Sha384) => rsa(oid::RSA_SHA384),
            (KeyKind::Rsa { .. }, Digest::Sha512) => rsa(oid::RSA_SHA512),
            (KeyKind::P256 | KeyKind::P384, Digest::Sha1) => ec(oid::ECDSA_SHA1),
            (KeyKind::P256 | KeyKind::P384, Digest::Sha256) => ec(oid::ECDSA_SHA256),
            (KeyKind::P256 | KeyKind::P384, Digest::Sha384) => ec(oid::ECDSA_SHA384),
            (KeyKind::P256 | KeyKind::P384, Digest::Sha512) => ec(oid::ECDSA_SHA512),
            (KeyKind::Other, _) => Err(Error::Algorithm { what: "signing key" }),
        }
    }
}

/// A public key ready to verify with.
pub struct PublicKey {
    pkey: PKey<Public>,
    kind: KeyKind,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:?})", self.kind)
    }
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if OpenSSL cannot read it. The strength is not judged here, see [`Self::kind`].
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        const BAD: Error = Error::Malformed { what: "public key" };
        let pkey = match read_spki(der)? {
            Some(pkey) => pkey,
            None => PKey::public_key_from_der(der).map_err(|_| BAD)?,
        };
        let kind = if odd_parameters(der, &pkey) { KeyKind::Other } else { KeyKind::of(&pkey) };
        Ok(Self { pkey, kind })
    }

    /// What kind of key this is; `kind().check()` applies the rule for device keys.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Verifies a PKCS#1 v1.5 or ECDSA signature. Anything that is not a valid signature is `false`.
    #[must_use]
    pub fn verify(&self, digest: Digest, message: &[u8], signature: &[u8]) -> bool {
        // Other kinds (PSS-only keys, Ed25519, DSA) have other rules; nothing here signs with them.
        if self.kind == KeyKind::Other {
            return false;
        }
        Verifier::new(digest.openssl(), &self.pkey)
            .and_then(|mut v| v.verify_oneshot(signature, message))
            .unwrap_or(false)
    }

    /// OpenSSL's view.
    #[must_use]
    pub fn pkey(&self) -> &PKeyRef<Public> {
        &self.pkey
    }
}

/// Reads RSA and named-curve keys without OpenSSL 3's decoder chain, which takes longer than the signature
/// check itself. `None` for everything else.
///
/// Only the one DER encoding of a key is read. A request's key is copied into the certificate as it stands:
/// parameters or blanks of the requester's own would be certified with it, and one key could pass for many.
fn read_spki(der: &[u8]) -> Result<Option<PKey<Public>>> {
    const WHAT: &str = "public key";
    const BAD: Error = Error::Malformed { what: WHAT };
    let mut outer = Reader::new(der);
    let mut spki = outer.expect(0x30, WHAT)?.reader();
    outer.finish(WHAT)?;
    let mut algorithm = spki.expect(0x30, WHAT)?.reader();
    let id = algorithm.expect(0x06, WHAT)?.content;
    let bits = spki.expect(0x03, WHAT)?.content;
    spki.finish(WHAT)?;
    let key = bits.strip_prefix(&[0]).ok_or(BAD)?;
    match id {
        oid::RSA_ENCRYPTION => {
            let mut outer = Reader::new(key);
            let mut numbers = outer.expect(0x30, WHAT)?.reader();
            outer.finish(WHAT)?;
            let n = unsigned(&numbers.expect(0x02, WHAT)?).ok_or(BAD)?;
            let e = unsigned(&numbers.expect(0x02, WHAT)?).ok_or(BAD)?;
            numbers.finish(WHAT)?;
            let bits = asn1::bits(&asn1::seq(&[&asn1::integer(n), &asn1::integer(e)]));
            // RFC 3279 §2.3.1 wants NULL; some writers leave it out.
            let written = |null: &[u8]| asn1::seq(&[&asn1::seq(&[&asn1::oid(id), null]), &bits]);
            if der != written(&asn1::tlv(0x05, &[])) && der != written(&[]) {
                return Err(BAD);
            }
            let rsa = Rsa::from_public_components(BigNum::from_slice(n)?, BigNum::from_slice(e)?);
            Ok(Some(PKey::from_rsa(rsa.map_err(|_| BAD)?)?))
        }
        oid::EC_PUBLIC_KEY => {
            let name = algorithm.next(WHAT)?.content;
            let curve = match name {
                oid::P256 => Nid::X9_62_PRIME256V1,
                oid::P384 => Nid::SECP384R1,
                _ => return Ok(None),
            };
            if der != asn1::seq(&[&asn1::seq(&[&asn1::oid(id), &asn1::oid(name)]), &asn1::bits(key)]) {
                return Err(BAD);
            }
            let group = EcGroup::from_curve_name(curve)?;
            let mut context = BigNumContext::new()?;
            // Checks that the point lies on the curve. These curves have cofactor 1, so every such point but
            // infinity is a key, and the costly check of its order is not needed (SP 800-56A §5.6.2.3.4).
            let point = EcPoint::from_bytes(&group, key, &mut context).map_err(|_| BAD)?;
            if point.is_infinity(&group) {
                return Err(BAD);
            }
            let key = EcKey::from_public_key(&group, &point).map_err(|_| BAD)?;
            Ok(Some(PKey::from_ec_key(key)?))
        }
        _ => Ok(None),
    }
}

/// A positive INTEGER's digits.
fn unsigned<'a>(value: &asn1::Tlv<'a>) -> Option<&'a [u8]> {
    let negative = value.content.first()? & 0x80 != 0;
    (!negative).then(|| asn1::magnitude(value.content))
}

/// Keys with which a signature proves nothing: RSA exponents that are even, one, or longer than any honest
/// one, and curves that bring their own parameters (CVE-2020-0601).
fn odd_parameters(spki: &[u8], key: &PKeyRef<Public>) -> bool {
    match key.id() {
        Id::RSA => key.rsa().is_ok_and(|rsa| {
            let e = rsa.e();
            !e.is_bit_set(0) || !(2..=64).contains(&e.num_bits())
        }),
        Id::EC => {
            let named = || {
                let mut outer = Reader::new(spki).expect(0x30, "").ok()?.reader();
                let mut algorithm = outer.expect(0x30, "").ok()?.reader();
                algorithm.next("").ok()?;
                Some(algorithm.next("").ok()?.tag == 0x06)
            };
            named() != Some(true)
        }
        _ => false,
    }
}

/// A signature algorithm as certificates, requests and CMS name it: key family and digest.
///
/// Returns the family (`true` = RSA) and the digest, `None` for a name that carries no digest
/// (`rsaEncryption`, `id-ecPublicKey`, both legal in CMS).
///
/// # Errors
/// [`Error::Algorithm`] for everything that is not on the list: MD5, DSA, PSS, EdDSA.
pub(crate) fn signature_algorithm(identifier: &[u8]) -> Result<(bool, Option<Digest>)> {
    let id = Reader::new(identifier).expect(0x06, "signature algorithm")?.content;
    Ok(match id {
        oid::RSA_ENCRYPTION => (true, None),
        oid::RSA_SHA1 | oid::OIW_RSA_SHA1 => (true, Some(Digest::Sha1)),
        oid::RSA_SHA256 => (true, Some(Digest::Sha256)),
        oid::RSA_SHA384 => (true, Some(Digest::Sha384)),
        oid::RSA_SHA512 => (true, Some(Digest::Sha512)),
        oid::EC_PUBLIC_KEY => (false, None),
        oid::ECDSA_SHA1 => (false, Some(Digest::Sha1)),
        oid::ECDSA_SHA256 => (false, Some(Digest::Sha256)),
        oid::ECDSA_SHA384 => (false, Some(Digest::Sha384)),
        oid::ECDSA_SHA512 => (false, Some(Digest::Sha512)),
        _ => return Err(Error::Algorithm { what: "signature" }),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn every_pem_form_is_read_and_signs() {
        let rsa = KeyPair::generate_rsa2048().unwrap();
        let ec = KeyPair::generate_p256().unwrap();
        let forms = [
            rsa.pkey().rsa().unwrap().private_key_to_pem().unwrap(),
            rsa.to_pkcs8_pem().unwrap().expose_secret().clone(),
            ec.pkey().ec_key().unwrap().private_key_to_pem().unwrap(),
            ec.pkey().private_key_to_pem_pkcs8().unwrap(),
        ];
        for pem in forms {
            let key = KeyPair::from_pem(&pem).unwrap();
            let public = PublicKey::from_spki(&key.public_key_der().unwrap()).unwrap();
            public.kind().check().unwrap();
            for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
                let sig = key.sign(digest, b"hello").unwrap();
                assert!(public.verify(digest, b"hello", &sig));
                assert!(!public.verify(digest, b"hellp", &sig));
                assert!(!public.verify(digest, b"hello", sig.get(1..).unwrap()));
                assert!(!public.verify(digest, b"hello", b""));
            }
            let again = KeyPair::from_pkcs8_der(key.to_pkcs8_der().unwrap().expose_secret()).unwrap();
            assert_eq!(again.public_key_der().unwrap(), key.public_key_der().unwrap());
        }
    }

    #[test]
    fn weak_and_foreign_keys_are_refused() {
        let weak = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
        assert!(KeyKind::of(&weak).check().is_err());
        let ed = PKey::generate_ed25519().unwrap();
        let ed_public = PublicKey::from_spki(&ed.public_key_to_der().unwrap()).unwrap();
        assert!(ed_public.kind().check().is_err());
        assert!(!ed_public.verify(Digest::Sha256, b"", b""));
        let k1 = EcKey::generate(&EcGroup::from_curve_name(Nid::SECP256K1).unwrap()).unwrap();
        assert_eq!(KeyKind::of(&PKey::from_ec_key(k1).unwrap()), KeyKind::Other);
    }

    #[test]
    fn keys_that_prove_nothing_are_refused() {
        let good = Rsa::generate(2048).unwrap();
        let with = |n: &[u8], e: &[u8]| {
            let key = asn1::seq(&[&asn1::integer(n), &asn1::integer(e)]);
            let algorithm = asn1::seq(&[&asn1::oid(oid::RSA_ENCRYPTION), &asn1::tlv(5, &[])]);
            PublicKey::from_spki(&asn1::seq(&[&algorithm, &asn1::bits(&key)]))
        };
        let n = good.n().to_vec();
        assert!(with(&n, &[1, 0, 1]).unwrap().kind().check().is_ok());
        assert!(with(&n, &[3]).unwrap().kind().check().is_ok());
        for e in [&[][..], &[1], &[2], &[0xff; 9]] {
            assert!(!with(&n, e).is_ok_and(|k| k.kind().check().is_ok()), "{e:?}");
        }
        assert!(!with(&[], &[3]).is_ok_and(|k| k.kind().check().is_ok()));
        // A curve that is P-256 in all but name.
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let mut explicit = group;
        explicit.set_asn1_flag(openssl::ec::Asn1Flag::EXPLICIT_CURVE);
        let key = PKey::from_ec_key(EcKey::generate(&explicit).unwrap()).unwrap();
        let read = PublicKey::from_spki(&key.public_key_to_der().unwrap());
        assert!(!read.is_ok_and(|k| k.kind().check().is_ok()));
        // A point that is not on the curve.
        let mut spki = KeyPair::generate_p256().unwrap().public_key_der().unwrap();
        *spki.last_mut().unwrap() ^= 1;
        assert!(PublicKey::from_spki(&spki).is_err());
        let algorithm = asn1::seq(&[&asn1::oid(oid::EC_PUBLIC_KEY), &asn1::oid(oid::P256)]);
        let infinity = asn1::seq(&[&algorithm, &asn1::bits(&[0])]);
        assert!(PublicKey::from_spki(&infinity).is_err());
        for at in 0..spki.len() {
            assert!(PublicKey::from_spki(&spki[..at]).is_err());
        }
    }

    /// What stands beside a key in its own encoding would be certified with it.
    #[test]
    fn a_key_has_one_encoding() {
        let rsa = Rsa::generate(2048).unwrap();
        let (n, e) = (asn1::integer(&rsa.n().to_vec()), asn1::integer(&[1, 0, 1]));
        let null = asn1::tlv(0x05, &[]);
        let words = asn1::tlv(0x0c, &[b"intranet.example"]);
        let with = |parameters: &[u8], n: &[u8], e: &[u8]| {
            let algorithm = asn1::seq(&[&asn1::oid(oid::RSA_ENCRYPTION), parameters]);
            PublicKey::from_spki(&asn1::seq(&[&algorithm, &asn1::bits(&asn1::seq(&[n, e]))])).is_ok()
        };
        assert!(with(&null, &n, &e));
        assert!(with(&[], &n, &e));
        for parameters in [words.clone(), [null.clone(), words.clone()].concat(), asn1::tlv(0x05, &[b"x"])] {
            assert!(!with(&parameters, &n, &e), "{parameters:x?}");
        }
        assert!(!with(&null, &n, &asn1::tlv(0x02, &[&[0, 1, 0, 1]])), "a number with a blank");
        assert!(!with(&null, &n, &[0x02, 0x81, 3, 1, 0, 1]), "a length longer than it need be");

        let ec = KeyPair::generate_p256().unwrap().public_key_der().unwrap();
        let bits = ec.get(ec.len() - 68..).unwrap();
        let named = [asn1::oid(oid::EC_PUBLIC_KEY), asn1::oid(oid::P256)].concat();
        assert!(PublicKey::from_spki(&asn1::seq(&[&asn1::seq(&[&named]), bits])).is_ok());
        assert!(PublicKey::from_spki(&asn1::seq(&[&asn1::seq(&[&named, &words]), bits])).is_err());
    }

    #[test]
    fn encrypted_keys_say_what_to_do() {
        let rsa = KeyPair::generate_rsa2048().unwrap();
        let cipher = openssl::symm::Cipher::aes_256_cbc();
        for pem in [
            rsa.pkey().private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap(),
            rsa.pkey().rsa().unwrap().private_key_to_pem_passphrase(cipher, b"secret").unwrap(),
        ] {
            assert!(matches!(KeyPair::from_pem(&pem), Err(Error::Key { .. })));
        }
        assert!(KeyPair::from_pem(b"nonsense").is_err());
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        assert_eq!(format!("{:?}", KeyPair::generate_p256().unwrap()), "KeyPair(P256)");
    }
}
