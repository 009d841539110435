//! Certificates: trust (RootCATrustedCertificates CSP), SCEP and PFX (ClientCertificateInstall CSP).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::hash::{Digest, hex};
use bellwether_windows::syncml::Format;
use bellwether_windows::syncml::client::Answer;
use openssl::pkcs12::Pkcs12;

use super::super::machine::Certificate;
use super::tree::{self, Tree, decode};
use super::{Job, State, not_found};
use crate::Identity;

/// What the `Install` node of a SCEP certificate says.
#[derive(Debug, Clone)]
pub(in super::super) struct ScepSettings {
    pub(in super::super) urls: Vec<String>,
    pub(in super::super) challenge: String,
    /// `CN` of the subject.
    pub(in super::super) common_name: String,
    pub(in super::super) eku: Vec<String>,
    /// `[type]+[name]` pairs.
    pub(in super::super) names: Vec<(u8, String)>,
    /// SHA-1 of the CA, in hexadecimal.
    pub(in super::super) ca_thumbprint: String,
}

/// Reads what was set below `…/SCEP/{id}`; the name of what is wrong or absent otherwise.
pub(in super::super) fn scep_settings(tree: &Tree, base: &str) -> Result<ScepSettings, &'static str> {
    let leaf = |name: &'static str| tree.value(&[base, "/Install/", name].concat()).ok_or(name);
    let challenge = STANDARD.decode(leaf("Challenge")?).map_err(|_| "Challenge")?;
    let usage: u16 = leaf("KeyUsage")?.parse().map_err(|_| "KeyUsage")?;
    if usage & 0xA0 == 0 {
        return Err("KeyUsage");
    }
    if !matches!(leaf("KeyLength")?, "1024" | "2048" | "4096") {
        return Err("KeyLength");
    }
    let names = leaf("SubjectAlternativeNames").unwrap_or_default();
    let names = names.split(';').filter(|pair| !pair.is_empty()).map(|pair| {
        let (kind, name) = pair.split_once('+').ok_or("SubjectAlternativeNames")?;
        let kind = kind.parse().map_err(|_| "SubjectAlternativeNames")?;
        Ok::<(u8, String), &'static str>((kind, name.to_owned()))
    });
    let subject = leaf("SubjectName")?;
    let common_name =
        subject.split(',').find_map(|part| part.trim().strip_prefix("CN=")).ok_or("SubjectName")?;
    Ok(ScepSettings {
        urls: leaf("ServerURL")?.split(';').map(str::to_owned).collect(),
        challenge: String::from_utf8(challenge).map_err(|_| "Challenge")?,
        common_name: common_name.trim_matches('"').to_owned(),
        eku: leaf("EKUMapping")?.split('+').map(str::to_owned).collect(),
        names: names.collect::<Result<_, _>>()?,
        ca_thumbprint: leaf("CAThumbprint")?.to_owned(),
    })
}

/// `Exec` of `Install/Enroll`: the certificate comes between sessions.
pub(super) fn enroll(state: &mut State, uri: &str) -> Answer {
    let base = uri.get(..uri.len().saturating_sub("/Install/Enroll".len())).unwrap_or_default().to_owned();
    if !state.tree.exists(&base) {
        return not_found();
    }
    if scep_settings(&state.tree, &base).is_err() {
        return Answer::status(500);
    }
    set_scep_status(&mut state.tree, &base, 2, 0);
    state.jobs.retain(|job| *job != Job::Scep(base.clone()));
    state.jobs.push(Job::Scep(base));
    Answer::status(200)
}

/// 1 done, 2 pending, 16 failed.
pub(in super::super) fn set_scep_status(tree: &mut Tree, base: &str, status: u32, error: u32) {
    tree.set(&[base, "/Status"].concat(), Format::Int, status.to_string());
    tree.set(&[base, "/ErrorCode"].concat(), Format::Int, error.to_string());
}

/// The certificate of a SCEP node arrived.
pub(in super::super) fn add_scep(state: &mut State, base: &str, url: &str, identity: Identity) {
    set_scep_status(&mut state.tree, base, 1, 0);
    let thumbprint = thumbprint(&identity.cert_der);
    state.tree.set(&[base, "/CertThumbprint"].concat(), Format::Chr, thumbprint);
    state.tree.set(&[base, "/RespondentServerUrl"].concat(), Format::Chr, url);
    put(state, "SCEP", base, identity.cert_der.clone());
    state.scep_identities.push(identity);
}

/// A certificate that is not what its node says is refused; `None` lets the value be written.
pub(super) fn before_write(state: &mut State, uri: &str, value: &str) -> Option<Answer> {
    let key = tree::key(uri);
    if let Some(node) = key.strip_suffix("/encodedcertificate") {
        let der = STANDARD.decode(value.split_ascii_whitespace().collect::<String>()).ok();
        let named = node.rsplit('/').next().unwrap_or_default();
        return match der {
            Some(der) if thumbprint(&der).eq_ignore_ascii_case(named) => {
                let kind = if node.contains("/root/") { "Root" } else { "CA" };
                let base = uri.rsplit_once('/').map_or(uri, |(base, _)| base).to_owned();
                put(state, kind, &base, der);
                None
            }
            _ => Some(Answer::status(500)),
        };
    }
    if key.contains("/clientcertificateinstall/pfxcertinstall/") && key.ends_with("/pfxcertblob") {
        return pfx(state, uri, value);
    }
    None
}

/// The blob starts the installation, so everything else must be there.
fn pfx(state: &mut State, uri: &str, value: &str) -> Option<Answer> {
    let base = uri.rsplit_once('/').map_or(uri, |(base, _)| base).to_owned();
    let password = state.tree.value(&[&base, "/PFXCertPassword"].concat()).unwrap_or_default().to_owned();
    let cert = STANDARD
        .decode(value.split_ascii_whitespace().collect::<String>())
        .ok()
        .and_then(|blob| Pkcs12::from_der(&blob).ok())
        .and_then(|store| store.parse2(&password).ok())
        .and_then(|parsed| parsed.pkey.and(parsed.cert))
        .and_then(|cert| cert.to_der().ok());
    if let Some(der) = cert {
        state.tree.set(&[&base, "/Thumbprint"].concat(), Format::Chr, thumbprint(&der));
        state.tree.set(&[&base, "/Status"].concat(), Format::Int, "0");
        put(state, "PFX", &base, der);
        return None;
    }
    Some(Answer { original_error: Some("0x80070056".to_owned()), ..Answer::status(500) })
}

/// A certificate goes with its node.
pub(super) fn before_delete(state: &mut State, uri: &str) {
    let id = decode(uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
    let key = tree::key(uri);
    let kind = match () {
        () if key.contains("/rootcatrustedcertificates/") => ["Root", "CA"],
        () if key.contains("/clientcertificateinstall/") => ["SCEP", "PFX"],
        () => return,
    };
    state.certificates.retain(|cert| cert.id != id || !kind.contains(&cert.kind));
}

fn put(state: &mut State, kind: &'static str, base: &str, cert_der: Vec<u8>) {
    let id = decode(base.rsplit('/').next().unwrap_or_default());
    state.certificates.retain(|cert| (cert.kind, &cert.id) != (kind, &id));
    state.certificates.push(Certificate { kind, id, cert_der });
}

/// SHA-1 in capital hexadecimal digits, as Windows names certificates.
pub(in super::super) fn thumbprint(der: &[u8]) -> String {
    hex(&Digest::Sha1.of(der)).to_uppercase()
}
