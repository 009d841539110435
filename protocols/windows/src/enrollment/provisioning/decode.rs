//! Reading, with a machine's objections.

use super::super::address::percent_decode;
use super::super::bytes;
use super::super::xml::{Document, Element};
use super::super::{Error, Version};
use super::{
    Account, Certificate, ClientCredential, DmClient, Encoding, Enrollment, KeyStore, Nonce, Poll,
    ProviderId, Provisioning, RenewalSchedule, RenewedIdentity, Retry, Scheme, Secret, ServerCredential,
    Stage, Subject,
};

fn no<T>(reason: &'static str) -> Result<T, Error> {
    Err(Error::Provisioning(reason))
}

/// What the certificate stores receive.
#[derive(Default)]
struct Stores {
    root: Option<Certificate>,
    intermediate: Option<Certificate>,
    identity: Option<(KeyStore, Certificate)>,
    renewal: Option<RenewalSchedule>,
}

pub(super) fn document(document: &Document) -> Result<Provisioning, Error> {
    let root = document.root()?;
    if root.name() != "wap-provisioningdoc" || root.attribute("version") != Some("1.1") {
        return no("it is not version 1.1 of a provisioning document");
    }
    let (mut stores, mut application, mut client) = (Stores::default(), None, None);
    for part in root.children() {
        let place = match kind(&part)? {
            "CertificateStore" => {
                certificate_store(&part, &mut stores)?;
                continue;
            }
            "APPLICATION" => &mut application,
            "DMClient" => &mut client,
            _ => return no("it has a characteristic that enrollment does not allow"),
        };
        if place.replace(part).is_some() {
            return no("a characteristic stands twice");
        }
    }
    let Some((store, identity)) = stores.identity else { return no("it has no identity") };
    let Some(application) = application else { return no("it has no APPLICATION") };
    let provider_id = ProviderId::parse(required(&application, "PROVIDER-ID")?)?;
    if value(&application, "APPID")?.is_none() {
        return Ok(Provisioning::Renewal(RenewedIdentity {
            root: stores.root,
            identity,
            store,
            provider_id,
        }));
    }
    let Some(client) = client else { return no("it has no DMClient") };
    Ok(Provisioning::Enrollment(Box::new(Enrollment {
        root: stores.root,
        intermediate: stores.intermediate,
        identity,
        store,
        renewal: stores.renewal,
        client: dm_client(&client, &provider_id)?,
        account: account(&application, provider_id, store)?,
    })))
}

fn kind<'d>(element: &Element<'d>) -> Result<&'d str, Error> {
    match element.attribute("type") {
        Some(kind) if element.name() == "characteristic" => Ok(kind),
        _ => no("something else stands where a characteristic belongs"),
    }
}

fn characteristics<'d>(element: &Element<'d>) -> impl Iterator<Item = Element<'d>> + use<'d> {
    element.children().filter(|child| child.name() != "parm")
}

fn characteristic<'d>(element: &Element<'d>, name: &str) -> Result<Option<Element<'d>>, Error> {
    let mut found = None;
    for child in characteristics(element) {
        if kind(&child)? == name && found.replace(child).is_some() {
            return no("a characteristic stands twice");
        }
    }
    Ok(found)
}

/// The parm of that name: `None` when it is absent, an empty text when it is a flag.
fn value<'d>(element: &Element<'d>, name: &str) -> Result<Option<&'d str>, Error> {
    let mut parms = element.children().filter(|child| child.name() == "parm");
    let mut found = None;
    while let Some(parm) = parms.find(|parm| parm.attribute("name") == Some(name)) {
        if found.replace(parm.attribute("value").unwrap_or_default()).is_some() {
            return no("a parm stands twice");
        }
    }
    Ok(found)
}

fn required<'d>(element: &Element<'d>, name: &str) -> Result<&'d str, Error> {
    match value(element, name)? {
        Some(value) if !value.is_empty() => Ok(value),
        _ => no("a parm is absent or has no value"),
    }
}

fn number<T: std::str::FromStr>(element: &Element<'_>, name: &str) -> Result<T, Error> {
    required(element, name)?.parse().map_err(|_| Error::Provisioning("a parm is not a number"))
}

fn boolean(element: &Element<'_>, name: &str) -> Result<bool, Error> {
    match value(element, name)? {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => no("a parm is neither true nor false"),
    }
}

fn certificate_store(part: &Element<'_>, stores: &mut Stores) -> Result<(), Error> {
    for store in characteristics(part) {
        match kind(&store)? {
            "Root" => authority(&store, &mut stores.root)?,
            "CA" => authority(&store, &mut stores.intermediate)?,
            "My" => my(&store, stores)?,
            _ => return no("it has an unknown certificate store"),
        }
    }
    Ok(())
}

fn authority(store: &Element<'_>, place: &mut Option<Certificate>) -> Result<(), Error> {
    let Some(system) = characteristic(store, "System")? else {
        return no("a certificate of an authority is not for System");
    };
    for entry in characteristics(&system) {
        if place.replace(certificate(&entry)?).is_some() {
            return no("it has more than one root or intermediate certificate");
        }
    }
    Ok(())
}

fn certificate(entry: &Element<'_>) -> Result<Certificate, Error> {
    let name = kind(entry)?;
    let mut thumbprint = [0; 20];
    if name.len() != 40 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return no("a certificate is not named by its thumbprint");
    }
    let mut digits = name.chars().filter_map(|c| c.to_digit(16)).filter_map(|digit| u8::try_from(digit).ok());
    for byte in &mut thumbprint {
        *byte = digits.next().unwrap_or_default() << 4 | digits.next().unwrap_or_default();
    }
    let Some(der) = bytes::decode(required(entry, "EncodedCertificate")?) else {
        return no("a certificate is not Base64");
    };
    Certificate::new(der, thumbprint)
}

fn my(store: &Element<'_>, stores: &mut Stores) -> Result<(), Error> {
    for place in characteristics(store) {
        let key_store = match kind(&place)? {
            "User" => KeyStore::User,
            "System" => KeyStore::System,
            "WSTEP" => {
                stores.renewal = schedule(&place)?;
                continue;
            }
            _ => return no("it has an unknown place for the identity"),
        };
        let (mut identity, mut container) = (None, false);
        for entry in characteristics(&place) {
            if kind(&entry)? == "PrivateKeyContainer" {
                container = true;
                continue;
            }
            container |= characteristic(&entry, "PrivateKeyContainer")?.is_some();
            if identity.replace(certificate(&entry)?).is_some() {
                return no("it has more than one identity");
            }
        }
        let Some(identity) = identity else { return no("it has no identity") };
        if !container {
            return no("the identity has no PrivateKeyContainer");
        }
        if stores.identity.replace((key_store, identity)).is_some() {
            return no("it has more than one identity");
        }
    }
    Ok(())
}

fn schedule(wstep: &Element<'_>) -> Result<Option<RenewalSchedule>, Error> {
    let Some(renew) = characteristic(wstep, "Renew")? else { return Ok(None) };
    if !boolean(&renew, "ROBOSupport")? {
        return Ok(None);
    }
    let schedule = RenewalSchedule {
        period_days: number(&renew, "RenewPeriod")?,
        retry_days: number(&renew, "RetryInterval")?,
    };
    Ok(Some(schedule))
}

fn account(application: &Element<'_>, provider_id: ProviderId, store: KeyStore) -> Result<Account, Error> {
    if required(application, "APPID")? != "w7" {
        return no("APPID is not w7");
    }
    let (mut server, mut client) = (None, None);
    for auth in characteristics(application) {
        if kind(&auth)? != "APPAUTH" {
            continue;
        }
        let secret = Secret::new(required(&auth, "AAUTHSECRET")?)?;
        let scheme = match required(&auth, "AAUTHTYPE")? {
            "DIGEST" => Scheme::Digest,
            "BASIC" => Scheme::Basic,
            _ => return no("an AAUTHTYPE is unknown"),
        };
        // 0x80180023 on real machines.
        let Some(nonce) = value(&auth, "AAUTHDATA")?.and_then(bytes::decode) else {
            return no("an APPAUTH has no nonce");
        };
        let nonce = Nonce::new(nonce)?;
        let twice = match required(&auth, "AAUTHLEVEL")? {
            "CLIENT" if scheme == Scheme::Digest => {
                server.replace(ServerCredential { secret, nonce }).is_some()
            }
            "APPSRV" => {
                let name = required(&auth, "AAUTHNAME")?.to_owned();
                client.replace(ClientCredential { scheme, name, secret, nonce }).is_some()
            }
            _ => return no("an AAUTHLEVEL is wrong"),
        };
        if twice {
            return no("an AAUTHLEVEL stands twice");
        }
    }
    let (Some(server), Some(client)) = (server, client) else {
        return no("one of the two APPAUTH is absent");
    };
    let address = required(application, "ADDR")?.to_owned();
    super::super::address::https_host(&address)?;
    if value(application, "BACKCOMPATRETRYDISABLED")?.is_none() {
        return no("BACKCOMPATRETRYDISABLED is absent");
    }
    Ok(Account {
        provider_id,
        name: required(application, "NAME")?.to_owned(),
        address,
        retry: Retry {
            attempts: number(application, "CONNRETRYFREQ")?,
            initial_milliseconds: number(application, "INITIALBACKOFFTIME")?,
            longest_milliseconds: number(application, "MAXBACKOFFTIME")?,
        },
        encoding: match required(application, "DEFAULTENCODING")? {
            "application/vnd.syncml.dm+xml" => Encoding::Xml,
            "application/vnd.syncml.dm+wbxml" => Encoding::Wbxml,
            _ => return no("DEFAULTENCODING is unknown"),
        },
        subject: criteria(required(application, "SSLCLIENTCERTSEARCHCRITERIA")?, store)?,
        role: value(application, "ROLE")?.map(|_| number(application, "ROLE")).transpose()?,
        server,
        client,
    })
}

fn criteria(text: &str, store: KeyStore) -> Result<Subject, Error> {
    let parts = text.split_once('&').and_then(|(subject, stores)| {
        let subject = percent_decode(subject.strip_prefix("Subject=")?)?;
        let stores = percent_decode(stores.strip_prefix("Stores=")?)?;
        Some((subject, stores))
    });
    let Some((subject, stores)) = parts else { return no("the search criteria are malformed") };
    if stores.strip_prefix("My\\") != Some(store.as_str()) {
        return no("the search criteria name another store than the identity's");
    }
    Subject::parse(&subject)
}

fn dm_client(part: &Element<'_>, provider_id: &ProviderId) -> Result<DmClient, Error> {
    let provider = match characteristic(part, "Provider")? {
        Some(providers) => characteristic(&providers, provider_id.as_str())?,
        None => None,
    };
    let Some(provider) = provider else { return no("DMClient is for another provider") };
    let text = |name| -> Result<Option<String>, Error> { Ok(value(&provider, name)?.map(str::to_owned)) };
    let Some(polling) = characteristic(&provider, "Poll")? else { return no("it has no polling schedule") };
    let version = match value(&provider, "SyncApplicationVersion")? {
        None => None,
        Some(text) => match Version::parse(text) {
            None => return no("SyncApplicationVersion is wrong"),
            version => version,
        },
    };
    Ok(DmClient {
        ent_dm_id: required(&provider, "EntDMID")?.to_owned(),
        upn: text("UPN")?,
        ent_device_name: text("EntDeviceName")?,
        sync_application_version: version,
        require_message_signing: boolean(&provider, "RequireMessageSigning")?,
        poll: poll(&polling)?,
    })
}

fn poll(polling: &Element<'_>) -> Result<Poll, Error> {
    let stage = |times, minutes| -> Result<Stage, Error> {
        Ok(Stage { times: number(polling, times)?, minutes: number(polling, minutes)? })
    };
    let stages = [
        stage("NumberOfFirstRetries", "IntervalForFirstSetOfRetries")?,
        stage("NumberOfSecondRetries", "IntervalForSecondSetOfRetries")?,
        stage("NumberOfRemainingScheduledRetries", "IntervalForRemainingScheduledRetries")?,
    ];
    Poll::new(stages, boolean(polling, "PollOnLogin")?, boolean(polling, "AllUsersPollOnFirstLogin")?)
}
