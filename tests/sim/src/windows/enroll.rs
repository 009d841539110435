//! The road from a user name and a code, a sign-in page or a link to an enrolled PC (MS-MDE2 3).

use bellwether_certs::KeyPair;
use bellwether_certs::cert::{CertInfo, issued_by};
use bellwether_windows::enrollment::address::DISCOVERY_PATH;
use bellwether_windows::enrollment::client::{self, Answer, ReceivedPolicy};
use bellwether_windows::enrollment::provisioning::{Enrollment, KeyStore, Subject, SubjectAttribute};
use bellwether_windows::enrollment::{
    AuthPolicy, Authentication, Context, Credential, DiscoverRequest, DiscoverResponse, EnrollmentType,
    Opaque, Pkcs10,
};
use openssl::nid::Nid;
use openssl::x509::X509;
use reqwest::Method;

use super::csp::DM_PROVIDER;
use super::csr::CsrOptions;
use super::machine::Account;
use super::soap::{SoapReply, one_message};
use super::{WindowsPc, html};
use crate::{Error, Identity, Page, Result, clock};

/// How to ask for the certificate. The default is a well-behaved machine.
#[derive(Debug, Clone, Default)]
pub struct TokenOptions {
    /// This key instead of a new one.
    pub key: Option<KeyPair>,
    /// Sign with SHA-1.
    pub sha1: bool,
    /// Ask for CA:TRUE.
    pub ask_for_ca: bool,
    /// Break the signature of the request.
    pub bad_signature: bool,
    /// Another common name.
    pub common_name: Option<String>,
    /// Items of `AdditionalContext` that replace those of the same name or come in addition; without a value the
    /// item is left out.
    pub context: Vec<(String, Option<String>)>,
}

/// A request for a certificate, to be sent once or more often: sending it again is an exact network retry.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The key that will be certified.
    pub key: KeyPair,
    /// The certificate request.
    pub pkcs10: Pkcs10,
    /// What the machine says about itself.
    pub context: Context,
}

impl WindowsPc {
    /// The GET with which Windows looks whether there is a server.
    ///
    /// # Errors
    /// When the answer is not 200 with an empty body.
    pub async fn probe(&self, discovery_url: &str) -> Result<()> {
        let request = self.http.request(Method::GET, discovery_url).header("user-agent", "ENROLLClient");
        let reply = self.http.send("discovery", request).await?.ok("discovery")?;
        if !reply.body.is_empty() {
            return Err(Error::Enrollment("the answer to GET has a body".to_owned()));
        }
        one_message(&reply).map_err(|problem| Error::Enrollment(format!("the answer to GET: {problem}")))
    }

    /// `Discover`, offering what the builder was told to.
    ///
    /// # Errors
    /// [`Error::Fault`], or when Windows would not take the answer.
    pub async fn discover(&self, discovery_url: &str, username: &str) -> Result<DiscoverResponse> {
        self.discover_with(discovery_url, username, &self.auth_policies).await
    }

    /// `Discover`, offering these policies.
    ///
    /// # Errors
    /// As [`Self::discover`].
    pub async fn discover_with(
        &self,
        discovery_url: &str,
        username: &str,
        policies: &[AuthPolicy],
    ) -> Result<DiscoverResponse> {
        let hardware = self.hardware();
        let request = DiscoverRequest {
            email_address: Some(username.to_owned()),
            request_version: self.request_version,
            device_type: Some("CIMClient_Windows".to_owned()),
            application_version: Some(hardware.os_version),
            os_version: None,
            os_edition: Some(hardware.edition),
            auth_policies: Some(policies.to_vec()),
        };
        let reply = self.soap(discovery_url, client::discover(discovery_url, &request)?).await?;
        let Answer::Discover(response) = reply.good("Discover", client::DISCOVER_ID)? else {
            return Err(Error::Enrollment("Discover: the answer is another message's".to_owned()));
        };
        if !policies.contains(&response.authentication.policy()) {
            return Err(Error::Enrollment(
                "Discover: the server chose a policy that was not offered".to_owned(),
            ));
        }
        if let Some(version) = response.enrollment_version
            && version > self.request_version
        {
            return Err(Error::Enrollment("Discover: the server's version is higher than ours".to_owned()));
        }
        Ok(response)
    }

    /// `GetPolicies`, as it was answered.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn policies(&self, policy_url: &str, credential: &Credential) -> Result<SoapReply> {
        self.soap(policy_url, client::get_policies(policy_url, credential)?).await
    }

    /// Makes a certificate request, with a new key unless one is given.
    ///
    /// # Errors
    /// When OpenSSL fails or the context is too large.
    pub async fn token_request(&self, options: &TokenOptions) -> Result<TokenRequest> {
        let key = match &options.key {
            Some(key) => key.clone(),
            None => self.keys.take().await?,
        };
        let hardware = self.hardware();
        // A random id and the DeviceID, as Windows writes it and no PrintableString may hold it.
        let id: [u8; 16] = bellwether_certs::hash::random_bytes()?;
        let id = uuid::Uuid::from_bytes(id).hyphenated().to_string().to_uppercase();
        let start = id.get(..30).unwrap_or_default();
        let common_name = match &options.common_name {
            Some(name) => name.clone(),
            None => [start, "!", &hardware.device_id].concat(),
        };
        let request = CsrOptions {
            common_name,
            device_id: Some(hardware.device_id),
            ca: options.ask_for_ca,
            sha1: options.sha1,
            bad_signature: options.bad_signature,
            ..CsrOptions::default()
        };
        let pkcs10 = Pkcs10::new(request.build(&key)?)?;
        Ok(TokenRequest { key, pkcs10, context: self.context(&options.context)? })
    }

    fn context(&self, changes: &[(String, Option<String>)]) -> Result<Context> {
        let machine = self.shared.lock();
        let hardware = &machine.hardware;
        let kind = match hardware.enrollment_type {
            EnrollmentType::Full => "Full",
            EnrollmentType::Device => "Device",
        };
        let yes_or_no = |flag: bool| if flag { "True" } else { "False" };
        let edition = hardware.edition.to_string();
        let items = [
            ("UXInitiated", "true"),
            ("HWDevID", &hardware.hw_dev_id),
            ("Locale", "en-US"),
            ("TargetedUserLoggedIn", yes_or_no(machine.state.user_signed_in)),
            ("OSEdition", &edition),
            ("DeviceName", &machine.state.name),
            ("MAC", &hardware.mac),
            ("DeviceID", &hardware.device_id),
            ("EnrollmentType", kind),
            ("DeviceType", "CIMClient_Windows"),
            ("OSVersion", &hardware.os_version),
            ("ApplicationVersion", &hardware.os_version),
            ("NotInOobe", "true"),
            ("RequestVersion", "5.0"),
            ("Manufacturer", &hardware.manufacturer),
            ("DeviceModel", &hardware.model),
            ("SerialNumber", &hardware.serial),
        ];
        let mut context = Context::default();
        for (name, value) in items {
            if !changes.iter().any(|(changed, _)| changed == name) {
                context.add(name, value)?;
            }
        }
        for (name, value) in changes {
            if let Some(value) = value {
                context.add(name, value)?;
            }
        }
        Ok(context)
    }

    /// `RequestSecurityToken`, as it was answered.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn request_token(
        &self,
        enrollment_url: &str,
        credential: &Credential,
        request: &TokenRequest,
    ) -> Result<SoapReply> {
        let TokenRequest { pkcs10, context, .. } = request;
        self.soap(enrollment_url, client::issue(enrollment_url, credential, pkcs10.clone(), context.clone())?)
            .await
    }

    /// Reads the provisioning document of an answer, checks what Windows checks, and uses it from now on.
    ///
    /// # Errors
    /// [`Error::Fault`], or [`Error::Enrollment`] for a document that Windows would refuse.
    pub fn install(&mut self, reply: SoapReply, enrollment_url: &str, key: &KeyPair) -> Result<()> {
        let answer = reply.good("RequestSecurityToken", client::REQUEST_SECURITY_TOKEN_ID)?;
        let Answer::Token(token) = answer else {
            return Err(Error::Enrollment(
                "RequestSecurityToken: the answer is another message's".to_owned(),
            ));
        };
        self.install_document(token.document.expose(), enrollment_url, key)
    }

    pub(super) fn install_document(
        &mut self,
        document: &[u8],
        enrollment_url: &str,
        key: &KeyPair,
    ) -> Result<()> {
        let (account, enrollment) = Account::read(document, enrollment_url)?;
        let kind = self.hardware().enrollment_type;
        check_document(&enrollment, kind, key)?;
        self.managed = None;
        let machine = &mut *self.shared.lock();
        // A second enrollment takes the place of the first; SessionIDs begin anew.
        machine.forget();
        let tree = &mut machine.state.tree;
        let base = [DM_PROVIDER, &account.provider_id].concat();
        let client = &enrollment.client;
        let mut set = |leaf: &str, format, value: &str| tree.set(&[&base, "/", leaf].concat(), format, value);
        use bellwether_windows::syncml::Format::{Bool, Chr, Int};
        set("EntDMID", Chr, &client.ent_dm_id);
        set("HWDevID", Chr, &machine.hardware.hw_dev_id);
        set("EnrollmentType", Chr, if kind == EnrollmentType::Full { "Full" } else { "Device" });
        set("UPN", Chr, client.upn.as_deref().unwrap_or_default());
        set("RequireMessageSigning", Bool, if client.require_message_signing { "true" } else { "false" });
        let names = ["First", "Second", "RemainingScheduled"];
        let sets = ["FirstSetOf", "SecondSetOf", "RemainingScheduled"];
        for ((stage, name), set_of) in client.poll.stages().iter().zip(names).zip(sets) {
            set(&format!("Poll/NumberOf{name}Retries"), Int, &stage.times.to_string());
            set(&format!("Poll/IntervalFor{set_of}Retries"), Int, &stage.minutes.to_string());
        }
        if let Some(period) = account.renew_period_days {
            let renew = "./Device/Vendor/MSFT/CertificateStore/MY/WSTEP/Renew/";
            tree.set(&[renew, "RenewPeriod"].concat(), Int, period.to_string());
            tree.set(&[renew, "ROBOSupport"].concat(), Bool, "true");
        }
        machine.enrollment = Some(account);
        machine.identity =
            Some(Identity { key: key.clone(), cert_der: enrollment.identity.as_der().to_vec() });
        Ok(())
    }

    /// `OnPremise`: probe, `Discover`, `GetPolicies` and `RequestSecurityToken`, the code presented twice.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll(&mut self, discovery_url: &str, username: &str, code: &str) -> Result<()> {
        self.probe(discovery_url).await?;
        let response = self.discover_with(discovery_url, username, &[AuthPolicy::OnPremise]).await?;
        self.enroll_as(&response, &on_premise(username, code)).await
    }

    /// `Federated` through the server's own sign-in page, where the code is typed in.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll_federated(&mut self, discovery_url: &str, username: &str, code: &str) -> Result<()> {
        self.probe(discovery_url).await?;
        let response = self.discover_with(discovery_url, username, &[AuthPolicy::Federated]).await?;
        let Authentication::Federated { service_url } = &response.authentication else {
            return Err(Error::Enrollment("Discover: the server did not choose Federated".to_owned()));
        };
        let token = self.sign_in(service_url, username, code).await?;
        self.enroll_as(&response, &Credential::UserToken(Opaque::from(token))).await
    }

    /// `Federated` through Entra: the token is there already, no sign-in page is opened.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll_jwt(&mut self, discovery_url: &str, username: &str, jwt: &str) -> Result<()> {
        let response = self.discover_with(discovery_url, username, &[AuthPolicy::Federated]).await?;
        self.enroll_as(&response, &Credential::Jwt(Opaque::from(jwt))).await
    }

    /// Opens an invitation link in Edge and follows the `ms-device-enrollment:` link on it, with the last segment of
    /// the invitation link as code. Whichever policy the server chooses is followed.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll_by_link(&mut self, link: &str) -> Result<()> {
        let page = self.open_page(link).await?;
        page.reply.ok("enrollment page")?;
        let (username, server) = deep_link(&page.html)?;
        let url = url::Url::parse(link).map_err(|_| Error::Usage(format!("not a link: {link}")))?;
        let code = url.path_segments().and_then(|mut path| path.rfind(|part| !part.is_empty()));
        let code = code.ok_or_else(|| Error::Usage(format!("no code in the link {link}")))?.to_owned();
        self.probe(&server).await?;
        let response = self.discover(&server, &username).await?;
        let credential = match &response.authentication {
            Authentication::OnPremise => on_premise(&username, &code),
            Authentication::Federated { service_url } => {
                Credential::UserToken(Opaque::from(self.sign_in(service_url, &username, &code).await?))
            }
            Authentication::Certificate => {
                return Err(Error::Enrollment("Discover: the server wants a certificate".to_owned()));
            }
        };
        self.enroll_as(&response, &credential).await
    }

    /// Opens a page in Edge.
    ///
    /// # Errors
    /// When there was no answer; every status is an answer.
    pub async fn open_page(&self, link: &str) -> Result<Page> {
        let request = self
            .http
            .request(Method::GET, link)
            .header("user-agent", self.hardware().edge())
            .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
            .header("accept-language", "en-US");
        let reply = self.http.send("page", request).await?;
        Ok(Page { status: reply.status, html: reply.text(), reply })
    }

    /// The road from `Discover` on: `GetPolicies`, `RequestSecurityToken`, the document.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll_as(&mut self, response: &DiscoverResponse, credential: &Credential) -> Result<()> {
        let mut options = TokenOptions { sha1: true, ..TokenOptions::default() };
        if let Some(url) = &response.policy_url {
            let policy = self.policies(url, credential).await?;
            let Answer::Policy(policy) = policy.good("GetPolicies", client::GET_POLICIES_ID)? else {
                return Err(Error::Enrollment("GetPolicies: the answer is another message's".to_owned()));
            };
            options = self.options(&policy).await?;
        }
        let request = self.token_request(&options).await?;
        let reply = self.request_token(&response.enrollment_url, credential, &request).await?;
        self.install(reply, &response.enrollment_url, &request.key)
    }

    async fn options(&self, policy: &ReceivedPolicy) -> Result<TokenOptions> {
        let bits = policy.minimal_key_length;
        let key = if bits <= 2048 { None } else { Some(long_key(bits).await?) };
        Ok(TokenOptions { key, sha1: !policy.is_sha256(), ..TokenOptions::default() })
    }
}

/// `wsse:UsernameToken` with the code as password.
pub(super) fn on_premise(username: &str, code: &str) -> Credential {
    Credential::UsernameToken { username: username.to_owned(), password: Opaque::from(code) }
}

async fn long_key(bits: u32) -> Result<KeyPair> {
    let make = move || -> Result<KeyPair> {
        let failed =
            |error: openssl::error::ErrorStack| Error::Usage(format!("a key of {bits} bits: {error}"));
        let rsa = openssl::rsa::Rsa::generate(bits).map_err(failed)?;
        let pkey = openssl::pkey::PKey::from_rsa(rsa).map_err(failed)?;
        Ok(KeyPair::from_pkcs8_der(&pkey.private_key_to_pkcs8().map_err(failed)?)?)
    };
    let worker = tokio::task::spawn_blocking(make).await;
    worker.map_err(|error| Error::Usage(format!("a key worker failed: {error}")))?
}

/// User name and discovery URL of the link that opens Windows' own dialogue.
fn deep_link(page: &str) -> Result<(String, String)> {
    const SCHEME: &str = "ms-device-enrollment:";
    let link = html::links(page).into_iter().find(|link| link.starts_with(SCHEME));
    let link = link.ok_or_else(|| Error::Enrollment(format!("the page has no {SCHEME} link")))?;
    let query = link.split_once('?').map_or("", |(_, query)| query);
    let value = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .ok_or_else(|| Error::Enrollment(format!("the {SCHEME} link has no {name}")))
    };
    if value("mode")? != "mdm" {
        return Err(Error::Enrollment(format!("the {SCHEME} link is not for MDM")));
    }
    let server = value("servername")?;
    let server = if server.contains("://") { server } else { ["https://", &server].concat() };
    let mut url = url::Url::parse(&server)
        .map_err(|_| Error::Enrollment(format!("the {SCHEME} link has no server: {server}")))?;
    if url.path() == "/" {
        url.set_path(DISCOVERY_PATH);
    }
    Ok((value("username")?, url.to_string()))
}

/// What Windows checks, and what would make it fail later without a word.
fn check_document(enrollment: &Enrollment, kind: EnrollmentType, key: &KeyPair) -> Result<()> {
    let refuse = |reason: &str| Err(Error::Enrollment(format!("the provisioning document: {reason}")));
    let Some(root) = &enrollment.root else { return refuse("it has no root") };
    if enrollment.store != KeyStore::from(kind) {
        return refuse("the identity goes to the wrong store");
    }
    let identity = enrollment.identity.as_der();
    check_identity(identity, key)?;
    let issuer = match &enrollment.intermediate {
        Some(intermediate) if !issued_by(intermediate.as_der(), root.as_der()) => {
            return refuse("the intermediate certificate is not the root's");
        }
        Some(intermediate) => intermediate.as_der(),
        None => root.as_der(),
    };
    if !issued_by(identity, issuer) {
        return refuse("the identity does not chain to the root");
    }
    let thumbprints = [Some(&enrollment.identity), Some(root), enrollment.intermediate.as_ref()];
    for certificate in thumbprints.into_iter().flatten() {
        let digest = bellwether_certs::hash::Digest::Sha1.of(certificate.as_der());
        if digest != certificate.thumbprint() {
            return refuse("a thumbprint is wrong");
        }
    }
    // Without a match Windows presents no certificate at all.
    if subject(identity).as_ref() != Some(&enrollment.account.subject) {
        return refuse("the search criteria are not the subject of the identity");
    }
    Ok(())
}

/// An identity must be for our key, for clients, and valid now.
pub(super) fn check_identity(cert_der: &[u8], key: &KeyPair) -> Result<()> {
    let refuse = |reason: &str| Err(Error::Enrollment(format!("the identity {reason}")));
    let info = CertInfo::parse(cert_der)?;
    if info.spki_der != key.public_key_der()? {
        return refuse("is for another key");
    }
    if !info.eku_client_auth || info.is_ca {
        return refuse("is not for clients");
    }
    if !info.is_valid_at(clock::now_ms()) {
        return refuse("is not valid now");
    }
    Ok(())
}

fn subject(cert_der: &[u8]) -> Option<Subject> {
    let cert = X509::from_der(cert_der).ok()?;
    let mut attributes = Vec::new();
    for entry in cert.subject_name().entries() {
        let attribute = match entry.object().nid() {
            Nid::COMMONNAME => SubjectAttribute::CommonName,
            Nid::ORGANIZATIONNAME => SubjectAttribute::Organization,
            Nid::ORGANIZATIONALUNITNAME => SubjectAttribute::OrganizationalUnit,
            Nid::DOMAINCOMPONENT => SubjectAttribute::DomainComponent,
            _ => return None,
        };
        attributes.push((attribute, entry.data().to_string().ok()?));
    }
    let attributes: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, value.as_str())).collect();
    Subject::new(&attributes).ok()
}
