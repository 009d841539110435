//! The road from an invitation link to an enrolled device.

use bellwether_apple::profile::{EnrollmentDetails, decode_enrollment_profile};
use bellwether_certs::cms::{self, Signer};
use reqwest::Method;

use super::{AppleDevice, ScepOptions};
use crate::{Error, Reply, Result};

const PROFILE_CONTENT_TYPE: &str = "application/x-apple-aspen-config";

/// A page that a browser was shown.
#[derive(Debug, Clone)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The text.
    pub html: String,
    /// The whole answer, headers included.
    pub reply: Reply,
}

/// How to ask for the profile.
#[derive(Debug, Clone, Default)]
pub struct ProfileOptions {
    /// Fields of the form that is posted, instead of the button's own: the family of the device.
    pub form: Option<Vec<(String, String)>>,
    /// Pairs that are put behind the link as a query.
    pub query: Vec<(String, String)>,
    /// Be content with a profile that nobody signed. Without it an unsigned one is an error.
    pub allow_unsigned: bool,
}

impl ProfileOptions {
    /// Asks for the profile without its signature.
    #[must_use]
    pub fn unsigned() -> Self {
        Self {
            query: vec![("format".to_owned(), "unsigned".to_owned())],
            allow_unsigned: true,
            ..Self::default()
        }
    }
}

/// A profile as it came, and what it says.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The property list, without its signature.
    pub plist: Vec<u8>,
    /// Who signed it, if it was signed. The signature is verified, the chain is not.
    pub signer: Option<Signer>,
    /// What it says.
    pub details: EnrollmentDetails,
}

/// How to take the whole road.
#[derive(Debug, Clone, Default)]
pub struct EnrollOptions {
    /// How to ask for the profile.
    pub profile: ProfileOptions,
    /// How to get the identity.
    pub scep: ScepOptions,
}

impl Profile {
    /// Reads a profile, signed or not; a signature must be right.
    ///
    /// # Errors
    /// When it is no enrollment profile or the signature is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let (plist, signer) = if bytes.first() == Some(&0x30) {
            let (plist, signer) = cms::verify_attached(bytes)?;
            (plist, Some(signer))
        } else {
            (bytes.to_vec(), None)
        };
        let details = decode_enrollment_profile(&plist)?;
        Ok(Self { plist, signer, details })
    }
}

impl AppleDevice {
    /// Opens the invitation link in Safari.
    ///
    /// # Errors
    /// When there was no answer; every status is an answer.
    pub async fn open_page(&self, link: &str) -> Result<Page> {
        let request = self
            .http
            .request(Method::GET, link)
            .header("user-agent", self.hardware.safari())
            .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
            .header("accept-language", "en-GB");
        let reply = self.http.send("enrollment page", request).await?;
        Ok(Page { status: reply.status, html: reply.text(), reply })
    }

    /// Posts to the invitation link, as the button on the page does, and returns the answer as it is.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn post_for_profile(&self, link: &str, options: &ProfileOptions) -> Result<Reply> {
        let mut url = url::Url::parse(link).map_err(|_| Error::Usage(format!("not a link: {link}")))?;
        if !options.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&options.query);
        }
        let origin = url.origin().ascii_serialization();
        let button = vec![("family".to_owned(), super::state::family_word(self.hardware.family).to_owned())];
        let fields = options.form.as_ref().unwrap_or(&button);
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self
            .http
            .request(Method::POST, url.as_str())
            .header("user-agent", self.hardware.safari())
            .header("origin", origin)
            .header("referer", link)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        self.http.send("enrollment profile", request).await
    }

    /// Posts to the invitation link and reads the profile. Nothing is installed yet.
    ///
    /// # Errors
    /// When the server refuses, the content type is wrong, the signature is missing or wrong, or the
    /// profile is none.
    pub async fn fetch_profile(&self, link: &str, options: &ProfileOptions) -> Result<Profile> {
        let reply = self.post_for_profile(link, options).await?.ok("enrollment profile")?;
        let content_type = reply.header("content-type").unwrap_or_default();
        if content_type.split(';').next().unwrap_or_default().trim() != PROFILE_CONTENT_TYPE {
            return Err(Error::Profile(format!("it came as {content_type:?}")));
        }
        let profile = Profile::read(&reply.body)?;
        if profile.signer.is_none() && !options.allow_unsigned {
            return Err(Error::Profile("it is not signed".to_owned()));
        }
        Ok(profile)
    }

    /// Installs the enrollment profile: from now on the device knows its server.
    pub fn install_enrollment(&mut self, profile: Profile) {
        self.enrollment = Some(profile);
    }

    /// The whole road: page, profile, identity, `Authenticate`, `TokenUpdate`.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll(&mut self, link: &str) -> Result<()> {
        self.enroll_with(link, &EnrollOptions::default()).await
    }

    /// The whole road with options.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll_with(&mut self, link: &str, options: &EnrollOptions) -> Result<()> {
        let page = self.open_page(link).await?;
        page.reply.ok("enrollment page")?;
        let profile = self.fetch_profile(link, &options.profile).await?;
        self.enroll_by_profile(profile, &options.scep).await
    }

    /// The road from a profile on: identity, `Authenticate`, `TokenUpdate`.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn enroll_by_profile(&mut self, profile: Profile, options: &ScepOptions) -> Result<()> {
        self.scep_enroll_with(&profile.details, options).await?;
        self.install_enrollment(profile);
        self.authenticate().await?.ok("Authenticate")?;
        self.token_update().await?.ok("TokenUpdate")?;
        Ok(())
    }
}
