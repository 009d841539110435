//! Profiles and certificates: installed, listed, removed. The enrollment profile sent again is a
//! renewal: new identity, `Authenticate`, `TokenUpdate`, and only then the answer.

use bellwether_apple::profile::{ProfileSummary, inspect};
use bellwether_certs::cert::CertInfo;
use bellwether_certs::cms;
use plist::{Dictionary, Value};

use super::answers::{Answer, dictionary, text};
use super::{AppleDevice, InstalledProfile, Profile, ScepOptions};
use crate::Result;

const MALFORMED: i64 = 1000;

impl AppleDevice {
    pub(super) async fn install_profile(
        &mut self,
        user: Option<&str>,
        command: &Dictionary,
    ) -> Result<Answer> {
        let Some(payload) = command.get("Payload").and_then(Value::as_data) else {
            return Ok(malformed("The command has no profile."));
        };
        let signed = payload.first() == Some(&0x30);
        let plist = if signed {
            match cms::verify_attached(payload) {
                Ok((plist, _)) => plist,
                Err(error) => return Ok(malformed(format!("The signature is wrong: {error}"))),
            }
        } else {
            payload.to_vec()
        };
        let summary = match inspect(&plist) {
            Ok(summary) => summary,
            Err(error) => return Ok(malformed(format!("The profile is malformed: {error}"))),
        };
        if summary.payload_type != "Configuration" {
            return Ok(malformed("The profile is no configuration profile."));
        }
        if summary.payloads.iter().any(|payload| payload.payload_type == "com.apple.mdm") {
            return self.renew_by_profile(payload).await;
        }
        let profile = installed(&summary, signed, user);
        self.inventory.profiles.insert(profile.identifier.clone(), profile);
        Ok(Answer::default())
    }

    /// The enrollment profile again (`com.apple.mdm.yaml`: topic and URLs may not change). When it
    /// fails, the old identity goes on working.
    async fn renew_by_profile(&mut self, payload: &[u8]) -> Result<Answer> {
        let fresh = match Profile::read(payload) {
            Ok(profile) => profile,
            Err(error) => return Ok(malformed(format!("The enrollment profile is malformed: {error}"))),
        };
        let current = self.need_enrollment()?;
        let (old, new) = (&current.mdm, &fresh.details.mdm);
        if current.summary.identifier != fresh.details.summary.identifier {
            return Ok(Answer::mdm_error(12009, "The device is managed already."));
        }
        if (&old.topic, &old.server_url, &old.check_in_url)
            != (&new.topic, &new.server_url, &new.check_in_url)
        {
            return Ok(Answer::mdm_error(12015, "Topic and URLs of the server cannot change."));
        }
        let (old_identity, old_enrollment) = (self.identity.clone(), self.enrollment.clone());
        let renewed = match self.scep_enroll_with(&fresh.details, &ScepOptions::default()).await {
            Err(error) => Err(error),
            Ok(()) => {
                self.enrollment = Some(fresh);
                match self.authenticate().await.and_then(|reply| reply.ok("Authenticate")) {
                    Ok(_) => self.token_update().await.and_then(|reply| reply.ok("TokenUpdate")),
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = renewed {
            self.enrollment = old_enrollment;
            if let Some(identity) = old_identity {
                self.set_identity(identity)?;
            }
            return Ok(Answer::mdm_error(12001, format!("The enrollment could not be renewed: {error}")));
        }
        Ok(Answer::default())
    }

    pub(super) fn remove_profile(&mut self, identifier: &str) -> Answer {
        if self.inventory.profiles.remove(identifier).is_some() {
            return Answer::default();
        }
        Answer::error(
            MALFORMED + 8,
            "MCProfileErrorDomain",
            format!("The profile “{identifier}” is not installed."),
        )
    }

    pub(super) fn profile_list(&self, user: Option<&str>) -> Answer {
        let mut list: Vec<Value> = Vec::new();
        // The enrollment profile shows on the device channel.
        if let (None, Some(enrollment)) = (user, &self.enrollment) {
            let profile = installed(&enrollment.details.summary, enrollment.signer.is_some(), None);
            list.push(entry(&profile, false));
        }
        let mine = self.inventory.profiles.values().filter(|profile| profile.user.as_deref() == user);
        list.extend(mine.map(|profile| entry(profile, true)));
        Answer::with(dictionary([("ProfileList", Value::Array(list))]))
    }

    pub(super) fn certificate_list(&self) -> Answer {
        let identity = self.identity.iter().map(|identity| (identity.cert_der.as_slice(), true));
        let roots =
            self.enrollment().into_iter().flat_map(|e| &e.roots).map(|root| (root.der.as_slice(), false));
        let list = identity.chain(roots).map(|(der, is_identity)| {
            let name = CertInfo::parse(der).ok().and_then(|info| info.subject_cn).unwrap_or_default();
            Value::Dictionary(dictionary([
                ("CommonName", text(name)),
                ("Data", Value::Data(der.to_vec())),
                ("IsIdentity", Value::Boolean(is_identity)),
            ]))
        });
        Answer::with(dictionary([("CertificateList", Value::Array(list.collect()))]))
    }
}

fn malformed(why: impl Into<String>) -> Answer {
    Answer::error(MALFORMED, "MCProfileErrorDomain", why)
}

fn installed(summary: &ProfileSummary, signed: bool, user: Option<&str>) -> InstalledProfile {
    let payloads = summary.payloads.iter();
    InstalledProfile {
        identifier: summary.identifier.clone(),
        uuid: summary.uuid.clone(),
        display_name: summary.display_name.clone().unwrap_or_default(),
        version: summary.version.unwrap_or(1),
        payloads: payloads
            .map(|payload| (payload.payload_type.clone(), payload.identifier.clone(), payload.uuid.clone()))
            .collect(),
        signed,
        user: user.map(str::to_owned),
    }
}

fn entry(profile: &InstalledProfile, managed: bool) -> Value {
    let payloads = profile.payloads.iter().map(|(kind, identifier, uuid)| {
        Value::Dictionary(dictionary([
            ("PayloadType", text(kind)),
            ("PayloadIdentifier", text(identifier)),
            ("PayloadUUID", text(uuid)),
            ("PayloadVersion", Value::Integer(1.into())),
        ]))
    });
    Value::Dictionary(dictionary([
        ("PayloadIdentifier", text(&profile.identifier)),
        ("PayloadUUID", text(&profile.uuid)),
        ("PayloadDisplayName", text(&profile.display_name)),
        ("PayloadVersion", Value::Integer(profile.version.into())),
        ("PayloadContent", Value::Array(payloads.collect())),
        ("HasRemovalPasscode", Value::Boolean(false)),
        ("IsEncrypted", Value::Boolean(false)),
        ("IsManaged", Value::Boolean(managed)),
        ("PayloadRemovalDisallowed", Value::Boolean(false)),
    ]))
}
