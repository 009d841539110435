//! Certificates: trust (RootCATrustedCertificates CSP), SCEP and PFX (ClientCertificateInstall CSP).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Error, NodeCommand, Scope, Step, device, segment, unusable};
use crate::syncml::Format;

/// Trusts a root certificate; `sha1` is the thumbprint of its DER.
///
/// # Errors
/// For a thumbprint that is not 40 hexadecimal digits.
pub fn trust_root(sha1: &str, der: &[u8]) -> Result<Step, Error> {
    let uri =
        device(&["RootCATrustedCertificates/Root/", &thumbprint(sha1)?, "/EncodedCertificate"].concat());
    Ok(NodeCommand::replace(uri, Format::B64, STANDARD.encode(der)).into())
}

/// Stops trusting a root certificate.
///
/// # Errors
/// For a thumbprint that is not 40 hexadecimal digits.
pub fn distrust_root(sha1: &str) -> Result<Step, Error> {
    Ok(NodeCommand::delete(device(&["RootCATrustedCertificates/Root/", &thumbprint(sha1)?].concat())).into())
}

fn thumbprint(sha1: &str) -> Result<String, Error> {
    if sha1.len() != 40 || !sha1.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(unusable("sha1", "it is not 40 hexadecimal digits"));
    }
    Ok(sha1.to_ascii_uppercase())
}

/// A certificate by SCEP.
#[derive(Clone, PartialEq, Eq)]
pub struct Scep {
    /// `UniqueID`; the same again renews.
    pub id: String,
    /// The machine's or the user's store.
    pub scope: Scope,
    /// Addresses of the SCEP server.
    pub urls: Vec<String>,
    /// The challenge in clear; it travels in base64.
    pub challenge: String,
    /// Extended key usages.
    pub eku: Vec<String>,
    /// Key usage bits; 0x80 or 0x20 must be there.
    pub key_usage: u8,
    /// The subject, X.500.
    pub subject: String,
    /// `[type]+[name]` entries: 11 is a UPN.
    pub alternative_names: Vec<(u8, String)>,
    /// 1 TPM, 2 TPM or software, 3 software.
    pub key_protection: u8,
    /// 1024, 2048 or 4096.
    pub key_length: u16,
    /// SHA-1 of the CA, 40 hexadecimal digits.
    pub ca_sha1: String,
    /// The machine has a certificate under this id: it stays until the next one is there.
    pub renews: bool,
}

impl std::fmt::Debug for Scep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scep").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Enrolls by SCEP: the settings in one Atomic, then `Enroll`. What an earlier try left under the same id, which a
/// second `Add` would fail on, goes first; a renewal replaces the settings instead.
///
/// # Errors
/// For settings that the node does not take.
pub fn scep(scep: &Scep) -> Result<Vec<Step>, Error> {
    if scep.key_usage & 0xA0 == 0 {
        return Err(unusable("key_usage", "it lacks digital signature (0x80) and key encipherment (0x20)"));
    }
    if !matches!(scep.key_length, 1024 | 2048 | 4096) || !(1..=4).contains(&scep.key_protection) {
        return Err(unusable("key_length", "the key's length or protection is not one that Windows knows"));
    }
    if scep.urls.is_empty() || scep.eku.is_empty() {
        return Err(unusable("urls", "an address and an extended key usage are needed"));
    }
    let node = scep_node(&scep.id, scep.scope)?;
    let base = [&node, "/Install/"].concat();
    let names: Vec<String> =
        scep.alternative_names.iter().map(|(kind, name)| [&kind.to_string(), "+", name].concat()).collect();
    let set = |leaf: &str, format: Format, value: String| {
        let uri = [&base, leaf].concat();
        if scep.renews {
            NodeCommand::replace(uri, format, value)
        } else {
            NodeCommand::add(uri, format, value)
        }
    };
    let chr = |leaf: &str, value: String| set(leaf, Format::Chr, value);
    let int = |leaf: &str, value: u16| set(leaf, Format::Int, value.to_string());
    let mut settings = vec![
        chr("ServerURL", scep.urls.join(";")),
        chr("Challenge", STANDARD.encode(&scep.challenge)),
        chr("EKUMapping", scep.eku.join("+")),
        int("KeyUsage", scep.key_usage.into()),
        chr("SubjectName", scep.subject.clone()),
        int("KeyProtection", scep.key_protection.into()),
        int("KeyLength", scep.key_length),
        chr("HashAlgorithm", "SHA-2".to_owned()),
        chr("CAThumbprint", thumbprint(&scep.ca_sha1)?),
    ];
    if !names.is_empty() {
        settings.push(chr("SubjectAlternativeNames", names.join(";")));
    }
    let mut steps = vec![Step::Atomic(settings), NodeCommand::exec([&base, "Enroll"].concat()).into()];
    if !scep.renews {
        steps.insert(0, NodeCommand::delete(node).into());
    }
    Ok(steps)
}

/// Asks how an enrollment goes. `Status`: 1 done, 2 pending, 16 failed, 32 unknown; `ErrorCode`, a HRESULT, comes
/// before it.
///
/// # Errors
/// For an id that cannot stand in a LocURI.
pub fn scep_status(id: &str, scope: Scope) -> Result<Vec<Step>, Error> {
    let node = scep_node(id, scope)?;
    Ok(["/ErrorCode", "/Status"].map(|leaf| NodeCommand::get([&node, leaf].concat()).into()).to_vec())
}

fn scep_node(id: &str, scope: Scope) -> Result<String, Error> {
    Ok([scope.prefix(), "ClientCertificateInstall/SCEP/", &segment("id", id)?].concat())
}

/// Asks for the thumbprints of the roots that were installed.
#[must_use]
pub fn trusted_roots() -> Step {
    NodeCommand::get(device("RootCATrustedCertificates/Root")).into()
}

/// Installs a PFX: one Atomic, the blob last because it starts the installation.
///
/// # Errors
/// For an id that cannot stand in a LocURI.
pub fn pfx(id: &str, scope: Scope, blob: &[u8], password: &str) -> Result<Step, Error> {
    let base =
        [scope.prefix(), "ClientCertificateInstall/PFXCertInstall/", &segment("id", id)?, "/"].concat();
    Ok(Step::Atomic(vec![
        NodeCommand::add([&base, "KeyLocation"].concat(), Format::Int, "2"),
        NodeCommand::add([&base, "PFXCertPassword"].concat(), Format::Chr, password),
        NodeCommand::add([&base, "PFXCertPasswordEncryptionType"].concat(), Format::Int, "0"),
        NodeCommand::add([&base, "PFXKeyExportable"].concat(), Format::Bool, "false"),
        // Base64 text, as every binary value in XML; the node's own format is bin.
        NodeCommand::add([&base, "PFXCertBlob"].concat(), Format::Bin, STANDARD.encode(blob)),
    ]))
}
