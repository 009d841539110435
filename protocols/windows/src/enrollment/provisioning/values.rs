//! Values that cannot be wrong once they exist.

use super::super::{Error, Opaque};

/// A DER-encoded certificate with its SHA-1 thumbprint, which names it in the certificate stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    thumbprint: [u8; 20],
}

impl Certificate {
    /// A certificate and the SHA-1 of its DER, computed by the caller.
    ///
    /// # Errors
    /// [`Error::Provisioning`] when the bytes are no DER sequence.
    pub fn new(der: impl Into<Vec<u8>>, thumbprint: [u8; 20]) -> Result<Self, Error> {
        const SEQUENCE: u8 = 0x30;
        let der = der.into();
        if der.first() != Some(&SEQUENCE) {
            return Err(Error::Provisioning("a certificate is not DER"));
        }
        Ok(Self { der, thumbprint })
    }

    /// The DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The SHA-1 thumbprint.
    #[must_use]
    pub fn thumbprint(&self) -> &[u8; 20] {
        &self.thumbprint
    }

    /// The thumbprint as Windows writes it.
    #[must_use]
    pub fn thumbprint_hex(&self) -> String {
        self.thumbprint.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

/// `PROVIDER-ID`: the name of this installation on every machine, for ever. It stands in node addresses, so only
/// ASCII letters, digits and `-_.`, at most 64 of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProviderId(String);

impl ProviderId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadIdentifier { field: "PROVIDER-ID", reason };
        if text.is_empty() || text.len() > 64 {
            return Err(bad("it must have 1 to 64 characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(bad("it has characters other than letters, digits and -_."));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A nonce for `AAUTHDATA`: 8 to 64 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(Opaque);

impl Nonce {
    /// Wraps random bytes.
    ///
    /// # Errors
    /// [`Error::Provisioning`] when there are too few or too many.
    pub fn new(bytes: impl Into<Opaque>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if (8..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(Error::Provisioning("a nonce must have 8 to 64 bytes"))
        }
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

/// A password for `AAUTHSECRET`: 1 to 256 visible ASCII characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Opaque);

impl Secret {
    /// Wraps a password.
    ///
    /// # Errors
    /// [`Error::Provisioning`] when it is empty, too long, or not visible ASCII.
    pub fn new(text: impl Into<Opaque>) -> Result<Self, Error> {
        let text = text.into();
        if (1..=256).contains(&text.len()) && text.expose().iter().all(u8::is_ascii_graphic) {
            Ok(Self(text))
        } else {
            Err(Error::Provisioning("a password must have 1 to 256 visible ASCII characters"))
        }
    }

    /// The password.
    #[must_use]
    pub fn expose_str(&self) -> &str {
        self.0.expose_str().unwrap_or_default()
    }
}

/// The attributes of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectAttribute {
    /// `CN`.
    CommonName,
    /// `O`.
    Organization,
    /// `OU`.
    OrganizationalUnit,
    /// `DC`.
    DomainComponent,
}

impl SubjectAttribute {
    const ALL: [Self; 4] =
        [Self::CommonName, Self::Organization, Self::OrganizationalUnit, Self::DomainComponent];

    fn as_str(self) -> &'static str {
        match self {
            Self::CommonName => "CN",
            Self::Organization => "O",
            Self::OrganizationalUnit => "OU",
            Self::DomainComponent => "DC",
        }
    }
}

/// The subject of an issued certificate, for `SSLCLIENTCERTSEARCHCRITERIA`. The machine compares the whole name:
/// all attributes, in the order in which the certificate encodes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(Vec<(SubjectAttribute, String)>);

impl Subject {
    /// A subject of nothing but a common name.
    ///
    /// # Errors
    /// As [`Subject::new`].
    pub fn common_name(name: &str) -> Result<Self, Error> {
        Self::new(&[(SubjectAttribute::CommonName, name)])
    }

    /// A subject of these attributes in the certificate's order.
    ///
    /// # Errors
    /// [`Error::Provisioning`] for an empty or overlong value (X.520 allows 64 characters), or one that is not
    /// printable ASCII.
    pub fn new(attributes: &[(SubjectAttribute, &str)]) -> Result<Self, Error> {
        if attributes.is_empty() {
            return Err(Error::Provisioning("a subject has no attribute"));
        }
        let sound = |value: &str| {
            (1..=64).contains(&value.len()) && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if !attributes.iter().all(|(_, value)| sound(value)) {
            return Err(Error::Provisioning("a subject must have 1 to 64 printable ASCII characters"));
        }
        Ok(Self(attributes.iter().map(|(attribute, value)| (*attribute, (*value).to_owned())).collect()))
    }

    /// The X.500 string that Windows parses (`CertStrToName`): `CN=a,O="b, c"`.
    #[must_use]
    pub fn to_x500(&self) -> String {
        let mut text = String::new();
        for (attribute, value) in &self.0 {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(attribute.as_str());
            text.push('=');
            let special = |c: char| matches!(c, ',' | '+' | '=' | '"' | '<' | '>' | '#' | ';');
            if value.contains(special) || value.starts_with(' ') || value.ends_with(' ') {
                text.extend(["\"", &value.replace('"', "\"\""), "\""]);
            } else {
                text.push_str(value);
            }
        }
        text
    }

    /// Reads what [`Subject::to_x500`] writes.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Provisioning("the subject of the search criteria is wrong");
        let mut attributes: Vec<(SubjectAttribute, String)> = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) = rest.split_once('=').ok_or_else(wrong)?;
            let attribute = SubjectAttribute::ALL.into_iter().find(|known| known.as_str() == name.trim());
            let (value, after) = x500_value(after).ok_or_else(wrong)?;
            attributes.push((attribute.ok_or_else(wrong)?, value));
            if after.is_empty() {
                let borrowed: Vec<_> =
                    attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
                return Self::new(&borrowed);
            }
            rest = after.strip_prefix(',').ok_or_else(wrong)?;
        }
    }
}

/// One value, quoted or not, and what follows it.
fn x500_value(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        let Some(more) = after.strip_prefix('"') else {
            return Some((value, after));
        };
        value.push('"');
        rest = more;
    }
}

/// One stage of [`Poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// How many times; 0 means without end.
    pub times: u32,
    /// Minutes between; 0 switches the stage off.
    pub minutes: u32,
}

impl Stage {
    /// A stage that does nothing.
    pub const OFF: Self = Self { times: 0, minutes: 0 };

    fn is_off(self) -> bool {
        self.minutes == 0
    }

    fn is_endless(self) -> bool {
        self.times == 0 && self.minutes != 0
    }
}

/// `DMClient/Provider/{ProviderID}/Poll`: when the machine calls by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    pub(super) first: Stage,
    pub(super) second: Stage,
    pub(super) remaining: Stage,
    pub(super) on_login: bool,
    pub(super) all_users_on_first_login: bool,
}

impl Poll {
    /// The longest interval, in minutes: 31 days.
    const MAX_MINUTES: u32 = 31 * 24 * 60;

    /// Every 3 minutes five times, every 15 minutes eight times, then every 8 hours; and at each sign-in.
    pub const AFTER_ENROLLMENT: Self = Self {
        first: Stage { times: 5, minutes: 3 },
        second: Stage { times: 8, minutes: 15 },
        remaining: Stage { times: 0, minutes: 480 },
        on_login: true,
        all_users_on_first_login: true,
    };

    /// Three stages, one after the other.
    ///
    /// # Errors
    /// [`Error::Provisioning`] when the first stage is off or without end, when a stage follows one without end, when
    /// the machine would fall silent for ever, or for intervals above 31 days.
    pub fn new(
        [first, second, remaining]: [Stage; 3],
        on_login: bool,
        all_users_on_first_login: bool,
    ) -> Result<Self, Error> {
        let no = |reason| Err(Error::Provisioning(reason));
        if first.is_off() || first.times == 0 {
            return no("the first polling stage must be on and come to an end");
        }
        if second.is_endless() && !remaining.is_off() {
            return no("a polling stage follows one that has no end");
        }
        if !second.is_endless() && !remaining.is_endless() {
            return no("polling comes to an end");
        }
        if [first, second, remaining].iter().any(|stage| stage.minutes > Self::MAX_MINUTES) {
            return no("a polling interval is longer than 31 days");
        }
        Ok(Self { first, second, remaining, on_login, all_users_on_first_login })
    }

    /// The three stages.
    #[must_use]
    pub fn stages(&self) -> [Stage; 3] {
        [self.first, self.second, self.remaining]
    }

    /// `PollOnLogin` and `AllUsersPollOnFirstLogin`.
    #[must_use]
    pub fn on_login(&self) -> (bool, bool) {
        (self.on_login, self.all_users_on_first_login)
    }
}
