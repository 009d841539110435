//! From a waiting part to the commands that go out, frozen from the first hand-over on.

use super::account::{Account, Going};
use super::applied::Setting;
use super::judge::verbs_by_path;
use super::plan::{Context, Material, PackageInfo, ScepMaterial, plan};
use crate::Engine;
use crate::error::Error;
use crate::scep::{self, CertificateOffer};
use crate::uploads;
use bellwether_model::intent::AppSource;
use bellwether_model::{
    Actor, ChallengeId, ChannelKind, EventKind, Guarantee, Intent, PartId, SiteId, Timestamp,
};
use bellwether_store::records::{Candidate, Challenge, Device, Enrollment, PackageGrant, Sealed, Upload};
use bellwether_store::{Scope, Tx};
use bellwether_windows::csp::Machine;
use bellwether_windows::syncml::{Command, Header, Location, Message, Meta, reader, writer};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

/// A PC that proved itself in this request.
pub(super) struct Pc<'a> {
    pub site: SiteId,
    pub enrollment: &'a Enrollment,
    pub device: &'a Device,
    pub account: &'a Account,
    pub user_signed_in: bool,
}

/// The frozen form of a part: SyncML commands, and what is known about their answer.
#[derive(Serialize, Deserialize)]
struct Wire {
    syncml: String,
    request: String,
    awaits: bool,
    watch: Vec<String>,
    /// The challenge that stands in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    challenge: Option<ChallengeId>,
    /// An address of ours to upload to stands in it.
    #[serde(default)]
    uploads: bool,
}

/// What a part gives the PC leave for.
pub(super) enum Grant {
    /// To fetch a package.
    Package(PackageGrant),
    /// To fetch a certificate.
    Certificate(Box<Challenge>),
    /// The same challenge again, until then.
    Prolonged(ChallengeId, Timestamp),
    /// To send a file.
    Upload(Box<Upload>),
    /// To send the file of this part, until then.
    UploadProlonged(PartId, Timestamp),
}

impl Grant {
    /// In the transaction of the hand-over.
    pub(super) fn give(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        match self {
            Self::Package(grant) => Ok(tx.package_grant_insert(grant)?),
            Self::Certificate(challenge) => Ok(tx.challenge_insert(challenge)?),
            Self::Prolonged(challenge, until) => scep::prolong(tx, *challenge, *until),
            Self::Upload(upload) => Ok(tx.upload_insert(upload)?),
            Self::UploadProlonged(part, until) => Ok(tx.upload_prolong(*part, *until)?),
        }
    }
}

/// A part as it is handed over, frozen or about to be.
struct Made {
    wire: Wire,
    grant: Option<Grant>,
    /// It need not be sent to a PC that has what it sets.
    spares: bool,
}

/// A part with its commands.
pub(super) struct Prepared {
    pub commands: Vec<Command>,
    pub going: Going,
    /// To be frozen with the first hand-over.
    pub sealed: Option<Sealed>,
    /// Given with the hand-over.
    pub grant: Option<Grant>,
    /// It need not be sent to a PC that has what it sets.
    spares: bool,
}

impl Prepared {
    /// What the PC must have for the part not to be sent.
    pub(super) fn unless_set(&self) -> Option<&Setting> {
        self.going.setting.as_ref().filter(|_| self.spares)
    }
}

impl Engine {
    /// The commands of a candidate: frozen ones, or planned now. `None`: it can no longer be done (Q11) and was
    /// cancelled with the reason.
    pub(super) async fn prepared(
        &self,
        pc: &Pc<'_>,
        kind: ChannelKind,
        candidate: &Candidate,
    ) -> Result<Option<Prepared>, Error> {
        let made = match &candidate.part.wire {
            Some(wire) => self.frozen(pc.site, candidate, wire).map(|wire| {
                let now = self.now();
                let challenge = wire.challenge.map(|id| Grant::Prolonged(id, now.plus(scep::CHALLENGE_LIFE)));
                let upload = || Grant::UploadProlonged(candidate.part.id, now.plus(uploads::TOKEN_LIFE));
                let again = challenge.or_else(|| wire.uploads.then(upload));
                Made { wire, grant: again, spares: false }
            }),
            None => self.planned(pc, kind, candidate).await,
        };
        let Made { wire, grant, spares } = match made {
            Ok(made) => made,
            Err(Error::CannotDo(reason) | Error::Invalid(reason)) => {
                self.drop_part(pc.site, candidate, &reason).await?;
                return Ok(None);
            }
            // The database may be back for the next request.
            Err(fault @ Error::Store(_)) => return Err(fault),
            Err(fault) => {
                tracing::error!(command = %candidate.command.id, %fault, "a command could not be prepared");
                self.drop_part(pc.site, candidate, "the server could not prepare it; its log says why")
                    .await?;
                return Ok(None);
            }
        };
        let Ok(commands) = commands_of(&wire.syncml) else {
            self.drop_part(pc.site, candidate, "it is not SyncML that a PC can be sent").await?;
            return Ok(None);
        };
        let part = candidate.part.id;
        let sealed = match &candidate.part.wire {
            Some(_) => None,
            None => {
                let plain = zeroize::Zeroizing::new(
                    serde_json::to_vec(&wire).map_err(|e| Error::Internal(e.to_string()))?,
                );
                Some(self.vault.seal(pc.site, "part", part.as_bytes(), "wire", &plain)?)
            }
        };
        let verbs = verbs_by_path(&commands).into_iter().map(|(path, verb, _)| (path, verb)).collect();
        let going = Going {
            channel: candidate.command.channel_id,
            kind: candidate.command.kind.clone(),
            until_silent: candidate.command.guarantee == Guarantee::UntilSilent,
            request: wire.request,
            awaits: wire.awaits,
            verbs,
            statuses: Vec::new(),
            results: Vec::new(),
            setting: Setting::of(&self.vault, &commands),
        };
        Ok(Some(Prepared { commands, going, sealed, grant, spares }))
    }

    /// The nodes that tell how a part that was accepted goes on.
    pub(super) fn watched(&self, site: SiteId, candidate: &bellwether_store::records::Part) -> Vec<String> {
        let Some(wire) = &candidate.wire else { return Vec::new() };
        let opened = self.vault.open(site, "part", candidate.id.as_bytes(), "wire", wire);
        let wire = opened.ok().and_then(|w| serde_json::from_slice::<Wire>(w.expose_secret()).ok());
        wire.map(|wire| wire.watch).unwrap_or_default()
    }

    fn frozen(&self, site: SiteId, candidate: &Candidate, wire: &Sealed) -> Result<Wire, Error> {
        let opened = self.vault.open(site, "part", candidate.part.id.as_bytes(), "wire", wire)?;
        serde_json::from_slice(opened.expose_secret()).map_err(|_| {
            Error::Internal(format!("the frozen bytes of part {} are damaged", candidate.part.id))
        })
    }

    async fn planned(&self, pc: &Pc<'_>, kind: ChannelKind, candidate: &Candidate) -> Result<Made, Error> {
        let (stored, intent) = self.open_intent(pc.site, &candidate.command).await?;
        let (package, package_grant) = self.package_for(pc, &intent).await?;
        let (scep, challenge) = self.certificate_for(pc, &intent).await?;
        let (upload_url, upload) = self.upload_for(pc, candidate, &intent)?;
        let material = Material {
            password: stored.password.clone(),
            package,
            scep,
            upload_url,
            request_id: candidate.part.id.to_string(),
        };
        let cx = Context {
            provider: &pc.account.provider,
            machine: machine(pc.device, pc.account, pc.user_signed_in),
            ownership: pc.device.ownership,
            channel: kind,
            material,
        };
        let plan = plan(&intent, &cx)?;
        let index = usize::try_from(candidate.part.ordinal).unwrap_or(usize::MAX);
        let part = plan
            .parts
            .into_iter()
            .nth(index)
            .ok_or_else(|| Error::Internal("a part that the plan does not have".into()))?;
        let syncml = syncml_of(part.commands)?;
        let wire = Wire {
            syncml,
            request: part.request,
            awaits: part.awaits,
            watch: part.watch,
            challenge: challenge.as_ref().map(|row| row.id),
            uploads: upload.is_some(),
        };
        let grant = challenge.map(|row| Grant::Certificate(Box::new(row)));
        let grant = grant.or(package_grant.map(Grant::Package));
        Ok(Made {
            wire,
            grant: grant.or(upload.map(|row| Grant::Upload(Box::new(row)))),
            spares: matches!(intent, Intent::Configure { force: false, .. }),
        })
    }

    /// What SCEP needs for an intent that asks for a certificate, with a challenge that is made for this PC.
    async fn certificate_for(
        &self,
        pc: &Pc<'_>,
        intent: &Intent,
    ) -> Result<(Option<ScepMaterial>, Option<Challenge>), Error> {
        let Intent::RequestCertificate { id } = intent else { return Ok((None, None)) };
        let offer = self.offer_certificate(pc.site, pc.enrollment, id).await?;
        let CertificateOffer { url, ca_sha1, common_name, renews, secret, challenge } = offer;
        let material = ScepMaterial {
            url,
            challenge: secret.expose_secret().to_owned(),
            subject: ["CN=", &common_name].concat(),
            ca_sha1,
            renews,
        };
        Ok((Some(material), Some(challenge)))
    }

    /// The package of an intent with an address that is made for this PC.
    async fn package_for(
        &self,
        pc: &Pc<'_>,
        intent: &Intent,
    ) -> Result<(Option<PackageInfo>, Option<PackageGrant>), Error> {
        let Intent::InstallApp { app: AppSource::Package { id, .. } } = intent else {
            return Ok((None, None));
        };
        let package = self
            .package_info(pc.site, *id)
            .await?
            .ok_or_else(|| Error::CannotDo("the package was deleted".into()))?;
        let (token, grant) = self.mint_package_token(*id, pc.enrollment.id, self.now())?;
        let info = PackageInfo {
            kind: package.kind,
            product: package.product.clone(),
            version: package.version.clone(),
            sha256: bellwether_certs::hash::hex(&package.sha256),
            url: format!("{}/packages/{}", self.settings.public_url, token.expose_secret()),
        };
        Ok((Some(info), Some(grant)))
    }

    /// Where an intent's diagnostics go, when it names no place: an address that is made for this PC.
    fn upload_for(
        &self,
        pc: &Pc<'_>,
        candidate: &Candidate,
        intent: &Intent,
    ) -> Result<(Option<String>, Option<Upload>), Error> {
        let Intent::CollectDiagnostics { upload_url: None } = intent else { return Ok((None, None)) };
        let part = (candidate.part.id, candidate.command.id);
        let (token, row) = self.mint_upload_token(part, pc.enrollment.id, self.now())?;
        let url = format!("{}/uploads/{}", self.settings.public_url, token.expose_secret());
        Ok((Some(url), Some(row)))
    }

    pub(super) async fn drop_part(
        &self,
        site: SiteId,
        candidate: &Candidate,
        reason: &str,
    ) -> Result<(), Error> {
        let (id, now) = (candidate.command.id, self.now());
        let entry = crate::audit::entry(
            now,
            &Actor::Server("dispatch".into()),
            EventKind::CommandCancelled,
            &format!("command:{id}"),
            None,
            Some(serde_json::json!({ "kind": candidate.command.kind, "reason": reason })),
        )?;
        let reason = reason.to_owned();
        self.store
            .write(Scope::Site(site), move |tx| {
                tx.command_give_up(id, now, &reason)?;
                tx.audit_append(&entry).map_err(Error::from)
            })
            .await
    }
}

/// What is known about the machine, for the table of nodes.
pub(super) fn machine(device: &Device, account: &Account, user_signed_in: bool) -> Machine {
    let edition = account.claims.os_edition;
    Machine {
        build: device.os_version.as_deref().and_then(build),
        // Core, Core N, Core Single Language, Core Country Specific.
        home: edition.is_some_and(|edition| matches!(edition, 98..=101)),
        user_signed_in,
    }
}

/// Build and revision of `10.0.22621.1480`.
pub(crate) fn build(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').skip(2).map(str::parse::<u32>);
    let build = numbers.next()?.ok()?;
    Some((build, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

/// Commands as a SyncML document, numbered: the session numbers them anew.
fn syncml_of(mut commands: Vec<Command>) -> Result<String, Error> {
    let mut next = 0;
    commands.iter_mut().for_each(|command| number(command, &mut next));
    let header = Header {
        ver_dtd: "1.2".into(),
        ver_proto: "DM/1.2".into(),
        session_id: "0".into(),
        msg_id: 1,
        target: Location::new("device"),
        source: Location::new("server"),
        resp_uri: None,
        no_resp: false,
        cred: None,
        meta: Meta::default(),
    };
    let bytes = writer::write(&Message { header, commands, last: true })
        .map_err(|e| Error::Invalid(format!("this cannot be sent: {e}")))?;
    String::from_utf8(bytes).map_err(|_| Error::Internal("SyncML that is no text".into()))
}

fn number(command: &mut Command, next: &mut u32) {
    *next += 1;
    let id = next.to_string();
    match command {
        Command::Request(request) => request.cmd_id = id,
        Command::Group(group) => {
            group.cmd_id = id;
            group.commands.iter_mut().for_each(|inner| number(inner, next));
        }
        _ => {}
    }
}

fn commands_of(syncml: &str) -> Result<Vec<Command>, Error> {
    let message = reader::read(syncml.as_bytes(), &reader::Limits::SESSION)
        .map_err(|e| Error::Internal(format!("frozen SyncML: {e}")))?;
    Ok(message.commands)
}
