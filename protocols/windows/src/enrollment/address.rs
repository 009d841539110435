//! Host names, URLs and return addresses of enrollment.

use super::{Error, Opaque};

/// The longest URL, in bytes.
const MAX_URL: usize = 2_048;
/// The label that Windows puts in front of the domain of an e-mail address (MS-MDE2 3.1.4).
pub const DISCOVERY_LABEL: &str = "enterpriseenrollment";
/// The path that Windows asks at that host, first by GET and then by POST.
pub const DISCOVERY_PATH: &str = "/EnrollmentServer/Discovery.svc";

/// `enterpriseenrollment.<domain>` of a user principal name such as `user@contoso.com`.
///
/// # Errors
/// [`Error::Address`] when it has no domain (`contoso\user`), or one that is no DNS name in ASCII; an international
/// domain comes as Punycode.
pub fn discovery_host(upn: &str) -> Result<String, Error> {
    let (user, domain) = upn.trim().rsplit_once('@').ok_or(Error::Address("it has no domain"))?;
    if user.is_empty() {
        return Err(Error::Address("it has no user"));
    }
    let host = [DISCOVERY_LABEL, ".", &domain.to_ascii_lowercase()].concat();
    if !is_dns_name(&host) {
        return Err(Error::Address("its domain is no DNS name"));
    }
    Ok(host)
}

/// The domain that a host serves discovery for: the part after `enterpriseenrollment.`, whatever its case.
#[must_use]
pub fn discovery_domain(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let domain = host.strip_prefix(DISCOVERY_LABEL)?.strip_prefix('.')?;
    is_dns_name(domain).then(|| domain.to_owned())
}

/// The link that opens Windows' own enrollment dialogue: `ms-device-enrollment:?mode=mdm&…`. `access_token` is handed
/// through to the server's sign-in page.
///
/// # Errors
/// [`Error::Address`] when the server's URL is not HTTPS.
pub fn deep_link(username: &str, server_url: &str, access_token: Option<&Opaque>) -> Result<String, Error> {
    https_host(server_url)?;
    let (username, server) = (percent_encode(username), percent_encode(server_url));
    let mut link = ["ms-device-enrollment:?mode=mdm&username=", &username, "&servername=", &server].concat();
    if let Some(token) = access_token {
        let token = token.expose_str().ok_or(Error::Address("a token is not text"))?;
        link.extend(["&accesstoken=", &percent_encode(token)]);
    }
    Ok(link)
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// The host of an HTTPS URL, in lower case and without its port; user information and odd characters are refused.
pub(super) fn https_host(url: &str) -> Result<String, Error> {
    let authority = match url.split_at_checked(8) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https://") => rest,
        _ => return Err(Error::Address("it is not HTTPS")),
    };
    if url.len() > MAX_URL || !url.bytes().all(is_url_byte) {
        return Err(Error::Address("it is no URL"));
    }
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(Error::Address("its port is wrong"));
    }
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = match literal {
        Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_dns_name(host),
    };
    if sound { Ok(host.to_ascii_lowercase()) } else { Err(Error::Address("its host is wrong")) }
}

/// The characters of RFC 3986, without the quotes that HTML could stumble over.
fn is_url_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&()*+,;=%".contains(&byte)
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub(super) fn percent_encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

/// The reverse; `None` when an escape is broken or the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) =
                (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// Where the sign-in page posts its token: the `appru` of the request for `AuthenticationServiceUrl`.
///
/// Only an application of the machine itself (`ms-app`, `ms-appx-web`, `ms-aad-brokerplugin`) or our own origin:
/// whoever receives that post can enroll in the person's name. The characters are those of a URL without quotes
/// and brackets; a page escapes it all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRu(String);

impl AppRu {
    /// Checks an address. `own_origin` is such as `https://mdm.example` or `https://mdm.example:8443`.
    ///
    /// # Errors
    /// [`Error::Redirect`].
    pub fn parse(text: &str, own_origin: &str) -> Result<Self, Error> {
        const SCHEMES: &[&str] = &["ms-app", "ms-appx-web", "ms-aad-brokerplugin"];
        check_redirect(text)?;
        if is_app(text, SCHEMES) {
            return Ok(Self(text.to_owned()));
        }
        https_host(own_origin).map_err(|_| Error::Redirect("our own origin is wrong"))?;
        match text.split_at_checked(own_origin.len()) {
            Some((origin, rest))
                if origin.eq_ignore_ascii_case(own_origin) && (rest.is_empty() || rest.starts_with('/')) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Error::Redirect("it belongs to somebody else")),
        }
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The `redirect_uri` of a terms-of-use page that Entra opens: only `ms-appx-web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermsRedirect(String);

impl TermsRedirect {
    /// Checks an address.
    ///
    /// # Errors
    /// [`Error::Redirect`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        check_redirect(text)?;
        if is_app(text, &["ms-appx-web"]) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Redirect("it is not ms-appx-web"))
        }
    }

    /// The address, without an answer.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address after the terms were accepted; the blob comes back as `EnrollmentData`.
    #[must_use]
    pub fn accepted(&self, opaque_blob: &[u8]) -> String {
        let blob = percent_encode(&super::bytes::encode(opaque_blob));
        self.with(&["IsAccepted=true&OpaqueBlob=", &blob])
    }

    /// The address after the terms were declined.
    #[must_use]
    pub fn declined(&self) -> String {
        self.with(&["IsAccepted=false"])
    }

    /// The address after an error such as `access_denied`, `invalid_request`, `unauthorized_client` or
    /// `server_error`.
    #[must_use]
    pub fn failed(&self, error: &str, description: &str) -> String {
        let (error, description) = (percent_encode(error), percent_encode(description));
        self.with(&["error=", &error, "&error_description=", &description])
    }

    fn with(&self, query: &[&str]) -> String {
        let separator = if self.0.contains('?') { "&" } else { "?" };
        [self.0.as_str(), separator, &query.concat()].concat()
    }
}

fn check_redirect(text: &str) -> Result<(), Error> {
    if text.len() > MAX_URL {
        return Err(Error::Redirect("it is too long"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?=&%+".contains(&byte)) {
        return Err(Error::Redirect("it has a character that such addresses do not have"));
    }
    Ok(())
}

/// `scheme://name…`, with a name that begins with a letter or digit.
fn is_app(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && rest.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_names() {
        assert_eq!(discovery_host("User@Contoso.COM").unwrap(), "enterpriseenrollment.contoso.com");
        assert_eq!(discovery_host("a@b@contoso.com").unwrap(), "enterpriseenrollment.contoso.com");
        for wrong in
            ["contoso\\user", "user", "@contoso.com", "user@", "u@a..b", "u@-a.b", "u@a b", "u@bücher.de"]
        {
            assert!(discovery_host(wrong).is_err(), "{wrong}");
        }
        let long = ["u@", &"a".repeat(64), ".com"].concat();
        assert!(discovery_host(&long).is_err());
        assert_eq!(discovery_domain("EnterpriseEnrollment.Contoso.com").as_deref(), Some("contoso.com"));
        assert_eq!(discovery_domain("enterpriseenrollment"), None);
        assert_eq!(discovery_domain("enterpriseenrollmentx.contoso.com"), None);
    }

    #[test]
    fn deep_links() {
        let token = Opaque::from("a&b");
        assert_eq!(
            deep_link("user@contoso.com", "https://mdm.example/x", Some(&token)).unwrap(),
            "ms-device-enrollment:?mode=mdm&username=user%40contoso.com\
             &servername=https%3A%2F%2Fmdm.example%2Fx&accesstoken=a%26b"
        );
        assert!(deep_link("user", "javascript:x", None).is_err());
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host) in [
            ("https://mdm.example/x?y=z", "mdm.example"),
            ("HTTPS://MDM.example:8443", "mdm.example"),
            ("https://[::1]:8443/x", "[::1]"),
            ("https://192.0.2.1?x", "192.0.2.1"),
        ] {
            assert_eq!(https_host(url).unwrap(), host);
        }
        for wrong in [
            "",
            "http://mdm.example",
            "https://",
            "https:///x",
            "https://a@mdm.example",
            "https://mdm.example:99999",
            "https://mdm.example/ x",
            "https://mdm.example/\"",
            "https://mdm.example/\0",
            "//mdm.example",
            "https:/\u{e9}/",
        ] {
            assert!(https_host(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn return_addresses() {
        let own = "https://mdm.example:8443";
        for good in [
            "ms-app://windows.immersivecontrolpanel",
            "MS-APP://S-1-15-2-2147483647-1",
            "ms-appx-web://Microsoft.AAD.BrokerPlugin/DRS",
            "ms-aad-brokerplugin://x",
            "https://mdm.example:8443",
            "https://mdm.example:8443/EnrollmentServer/Auth?x=y",
        ] {
            assert_eq!(AppRu::parse(good, own).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "ms-app:",
            "ms-app://",
            "ms-app:///x",
            "ms-app:x",
            "javascript:alert(1)",
            "javascript://x/%0aalert",
            "https://evil.example/",
            "https://mdm.example:8443.evil.example/",
            "https://mdm.example:8443@evil.example",
            "https://mdm.example/",
            "http://mdm.example:8443/",
            "//evil.example",
            "/x",
            "data:text/html,x",
            "ms-app://x\"><script>",
            "ms-app://x y",
            "ms-app://x\r\nSet-Cookie:a",
            "ms-app://x\0",
            "xms-app://x",
            "ms-app://x'",
            "https://evil.example/?u=ms-app://x",
            " ms-app://x",
            "ms-app://x#y",
            "ms-app://x\\y",
        ] {
            assert!(AppRu::parse(bad, own).is_err(), "{bad:?}");
        }
        assert!(AppRu::parse("https://evil.example", "").is_err());
        assert!(AppRu::parse(&["ms-app://", &"x".repeat(3000)].concat(), own).is_err());
    }

    #[test]
    fn terms_of_use() {
        let address = TermsRedirect::parse("ms-appx-web://Microsoft.AAD.BrokerPlugin").unwrap();
        assert_eq!(
            address.accepted(b"\xFB\xFF\x00"),
            "ms-appx-web://Microsoft.AAD.BrokerPlugin?IsAccepted=true&OpaqueBlob=%2B%2F8A"
        );
        assert!(address.declined().ends_with("?IsAccepted=false"));
        assert!(
            address
                .failed("access_denied", "no & no")
                .ends_with("?error=access_denied&error_description=no%20%26%20no")
        );
        let address = TermsRedirect::parse("ms-appx-web://x?a=b").unwrap();
        assert_eq!(address.declined(), "ms-appx-web://x?a=b&IsAccepted=false");
        for bad in ["ms-app://x", "https://evil.example", "ms-appx-web:x", "ms-appx-web://x\"y"] {
            assert!(TermsRedirect::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_encoding_round_trips() {
        for text in ["", "CN=x,O=y", "\"a, b\"", "\u{F000}é%"] {
            assert_eq!(percent_decode(&percent_encode(text)).as_deref(), Some(text));
        }
        assert_eq!(percent_encode("CN=x\\User"), "CN%3Dx%5CUser");
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decode(broken), None);
        }
    }
}
