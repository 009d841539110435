//! What a verified token says.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::{Expected, Refusal, json};

/// The claims of a token whose signature, times, issuer and audience were found good. `Debug` shows none.
pub struct Claims {
    iss: String,
    aud: Vec<String>,
    exp_ms: i64,
    nbf_ms: Option<i64>,
    scp: BTreeSet<String>,
    texts: Map<String, Value>,
}

/// Claims that are text where they are present.
const TEXTS: [&str; 9] =
    ["tid", "oid", "upn", "unique_name", "preferred_username", "name", "deviceid", "appid", "azp"];

impl Claims {
    /// The issuer.
    #[must_use]
    pub fn iss(&self) -> &str {
        &self.iss
    }

    /// Whom the token is for: one or several.
    #[must_use]
    pub fn aud(&self) -> &[String] {
        &self.aud
    }

    /// End of validity, milliseconds since the Unix epoch.
    #[must_use]
    pub const fn exp_ms(&self) -> i64 {
        self.exp_ms
    }

    /// Begin of validity, milliseconds since the Unix epoch.
    #[must_use]
    pub const fn nbf_ms(&self) -> Option<i64> {
        self.nbf_ms
    }

    /// The delegated permissions. An identity token and a token of an application have none.
    #[must_use]
    pub const fn scp(&self) -> &BTreeSet<String> {
        &self.scp
    }

    /// The tenant.
    #[must_use]
    pub fn tid(&self) -> Option<&str> {
        self.text("tid")
    }

    /// The user's id in the tenant. It stays when names change.
    #[must_use]
    pub fn oid(&self) -> Option<&str> {
        self.text("oid")
    }

    /// The user principal name.
    #[must_use]
    pub fn upn(&self) -> Option<&str> {
        self.text("upn")
    }

    /// A name for people to read (tokens of version 1).
    #[must_use]
    pub fn unique_name(&self) -> Option<&str> {
        self.text("unique_name")
    }

    /// A name for people to read (tokens of version 2).
    #[must_use]
    pub fn preferred_username(&self) -> Option<&str> {
        self.text("preferred_username")
    }

    /// The user's display name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// The device's id in the tenant.
    #[must_use]
    pub fn deviceid(&self) -> Option<&str> {
        self.text("deviceid")
    }

    /// The client that asked for the token: `appid` (version 1) or `azp` (version 2).
    #[must_use]
    pub fn appid(&self) -> Option<&str> {
        self.text("appid").or_else(|| self.text("azp"))
    }

    pub(super) fn parse(claims: &[u8]) -> Result<Self, Refusal> {
        let mut all = json::object(claims).ok_or(Refusal::Claims)?;
        let iss = match all.get("iss") {
            None => return Err(Refusal::Issuer),
            Some(Value::String(iss)) => iss.clone(),
            Some(_) => return Err(Refusal::Claims),
        };
        let scp = match all.get("scp") {
            None => BTreeSet::new(),
            Some(Value::String(scp)) => {
                scp.split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect()
            }
            Some(_) => return Err(Refusal::Claims),
        };
        let aud = audiences(all.get("aud"))?;
        let exp_ms = date(all.get("exp"))?.ok_or(Refusal::NoExpiry)?;
        let nbf_ms = date(all.get("nbf"))?;
        all.retain(|name, _| TEXTS.contains(&name.as_str()));
        if !all.values().all(Value::is_string) {
            return Err(Refusal::Claims);
        }
        Ok(Self { iss, aud, exp_ms, nbf_ms, scp, texts: all })
    }

    pub(super) fn judge(&self, expected: &Expected<'_>) -> Result<(), Refusal> {
        let leeway = expected.leeway_ms.max(0);
        // RFC 7519 §4.1.4: on or after that time a token must not be accepted.
        if expected.now_ms >= self.exp_ms.saturating_add(leeway) {
            return Err(Refusal::Expired);
        }
        if self.nbf_ms.is_some_and(|nbf| expected.now_ms < nbf.saturating_sub(leeway)) {
            return Err(Refusal::NotYet);
        }
        if !expected.issuers.contains(&self.iss.as_str()) {
            return Err(Refusal::Issuer);
        }
        if !self.aud.iter().any(|aud| expected.audiences.contains(&aud.as_str())) {
            return Err(Refusal::Audience);
        }
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).and_then(Value::as_str)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

/// RFC 7519 §4.1.3: a text or a list of texts.
fn audiences(aud: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(Refusal::Claims);
    match aud {
        None => Err(Refusal::Audience),
        Some(Value::Array(all)) => all.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

/// A NumericDate (RFC 7519 §2) in milliseconds. Whole seconds only: nobody we read issues others.
fn date(value: Option<&Value>) -> Result<Option<i64>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let seconds = value.as_i64().filter(|seconds| *seconds >= 0);
    seconds.and_then(|seconds| seconds.checked_mul(1000)).map(Some).ok_or(Refusal::Claims)
}
