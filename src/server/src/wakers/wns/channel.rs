//! Which ChannelURI may be called. It is data from a device, and it gets our access token: a foreign one would be a
//! request forged by the device, and a leak of the token (spec/windows.md 3.12, point 5).

use reqwest::Url;

/// Microsoft's. Names directly or further below it, never the name itself.
const WNS: &str = "*.notify.windows.com";
/// Real ones have two to four hundred bytes.
const LONGEST: usize = 2048;
const HTTPS: &str = "https://";

/// The hosts of the push service.
#[derive(Clone, Debug)]
pub struct Hosts(Vec<Host>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// Lower case.
    name: String,
    /// Names below `name`, and not `name` itself.
    below: bool,
    port: u16,
}

/// Why a ChannelURI is not called. Never contains any of it.
pub type Foreign = &'static str;

impl Hosts {
    /// `name`, `name:port`, `*.name`; nothing: Microsoft's own. The error is the entry that is wrong.
    pub fn new(entries: &[String]) -> Result<Self, String> {
        let parsed = entries.iter().map(|entry| Host::parse(entry).ok_or_else(|| entry.clone()));
        let hosts: Vec<Host> = parsed.collect::<Result<_, _>>()?;
        if hosts.is_empty() {
            return Ok(Self(vec![Host::parse(WNS).ok_or(WNS)?]));
        }
        Ok(Self(hosts))
    }

    /// The URL to call.
    pub fn channel(&self, reported: &[u8]) -> Result<Url, Foreign> {
        if reported.is_empty() {
            return Err("it is empty");
        }
        if reported.len() > LONGEST {
            return Err("it is too long");
        }
        // The parser of URLs forgives much: it drops tabs and line ends, and reads \ as /. What it would repair is refused.
        let text = std::str::from_utf8(reported).map_err(|_| "it is no text")?;
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#') {
            return Err("it contains characters that no such address has");
        }
        let rest = match text.split_at_checked(HTTPS.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(HTTPS) => rest,
            _ => return Err("it does not begin with https://"),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default().to_ascii_lowercase();
        let url = Url::parse(text).map_err(|_| "it is no URL")?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        // Only the plain spelling: no user, no escapes, no 0x7f.1, no port with a zero in front.
        let plain = authority == format!("{host}:{port}") || (authority == host && url.port().is_none());
        if !plain {
            return Err("its host is not spelled plainly");
        }
        if self.0.iter().any(|allowed| allowed.is(host, port)) {
            Ok(url)
        } else {
            Err("its host does not belong to the push service")
        }
    }
}

impl Host {
    fn parse(entry: &str) -> Option<Self> {
        let (below, rest) = match entry.trim().strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, entry.trim()),
        };
        let rest = rest.to_ascii_lowercase();
        let url = Url::parse(&format!("{HTTPS}{rest}/")).ok()?;
        let (name, port) = (url.host_str()?, url.port_or_known_default()?);
        let plain = rest == format!("{name}:{port}") || (rest == name && url.port().is_none());
        let named = url.domain().is_some_and(labels);
        // Everything below "com" is nobody's push service, and nothing is below an address.
        let bounded = if below { named && name.contains('.') } else { named || url.domain().is_none() };
        (plain && bounded).then(|| Self { name: name.to_owned(), below, port })
    }

    fn is(&self, host: &str, port: u16) -> bool {
        let named = if self.below {
            host.strip_suffix(self.name.as_str()).and_then(|left| left.strip_suffix('.')).is_some_and(labels)
        } else {
            host == self.name
        };
        named && port == self.port
    }
}

/// One or more labels of a host name, lower case.
fn labels(text: &str) -> bool {
    text.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(entries: &[&str]) -> Result<Hosts, String> {
        Hosts::new(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    fn called(reported: &str) -> Result<String, Foreign> {
        hosts(&[]).unwrap().channel(reported.as_bytes()).map(|url| url.to_string())
    }

    #[test]
    fn microsofts_channels_are_called_as_they_were_reported() {
        for good in [
            "https://db5p.notify.windows.com/?token=AwYAAAB%2fQ8nYl%3d%3d",
            "https://wns2-par02p.notify.windows.com/w/?token=BQYAAACO%2bZ",
            "https://a.b.notify.windows.com/",
            "https://xn--nxasmq6b.notify.windows.com/?token=1",
        ] {
            assert_eq!(called(good).as_deref(), Ok(good));
        }
        let same = "https://db5.notify.windows.com/?token=Ab";
        for spelling in [
            "HTTPS://db5.notify.windows.com/?token=Ab",
            "https://DB5.Notify.Windows.COM/?token=Ab",
            "https://db5.notify.windows.com:443/?token=Ab",
            "https://db5.notify.windows.com?token=Ab",
        ] {
            assert_eq!(called(spelling).as_deref(), Ok(same), "{spelling}");
        }
    }

    #[test]
    fn hostile_spellings_are_refused() {
        for hostile in [
            "",
            "x",
            "https://",
            "https:///",
            "https:///db5.notify.windows.com/",
            "https:db5.notify.windows.com/",
            "//db5.notify.windows.com/",
            "db5.notify.windows.com",
            "http://db5.notify.windows.com/",
            "ftp://db5.notify.windows.com/",
            "httpss://db5.notify.windows.com/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            // Not below the name.
            "https://notify.windows.com/",
            "https://.notify.windows.com/",
            "https://..notify.windows.com/",
            "https://a..notify.windows.com/",
            "https://evilnotify.windows.com/",
            "https://evil-notify.windows.com/",
            "https://db5.notify.windows.com.evil.example/",
            "https://db5.notify.windows.comevil/",
            "https://db5.notify.windows.com./",
            "https://db5.notify.windows.co/",
            "https://db5.notify.windows.com.:443/",
            "https://windows.com/",
            "https://-.notify.windows.com/",
            "https://-db5.notify.windows.com/",
            "https://a_b.notify.windows.com/",
            "https://*.notify.windows.com/",
            // The name somewhere else.
            "https://evil.example/db5.notify.windows.com",
            "https://evil.example/?x=https://db5.notify.windows.com/",
            "https://evil.example?.notify.windows.com/",
            "https://evil.example#.notify.windows.com/",
            "https://evil.example/#.notify.windows.com",
            "https://evil.example;.notify.windows.com/",
            "https://evil.example,.notify.windows.com/",
            "https://evil.example&.notify.windows.com/",
            // A user.
            "https://db5.notify.windows.com@evil.example/",
            "https://user@db5.notify.windows.com/",
            "https://user:pw@db5.notify.windows.com/",
            "https://:@db5.notify.windows.com/",
            "https://@db5.notify.windows.com/",
            "https://evil.example:443@db5.notify.windows.com/",
            // What the parser would repair.
            "https://evil.example\\.notify.windows.com/",
            "https:\\\\db5.notify.windows.com/",
            "https://db5.notify.windows.com\\@evil.example/",
            " https://db5.notify.windows.com/",
            "https://db5.notify.windows.com/ ",
            "https://db5.notify.windows.com/?a b",
            "https://db5.notify\t.windows.com/",
            "ht\ntps://db5.notify.windows.com/",
            "https://db5.notify.windows.com/\r\nX-Evil: 1",
            "https://db5.notify.windows.com/\0",
            "https://evil.example\0.notify.windows.com/",
            "https://db5.notify.windows.com/#fragment",
            // Escapes and other alphabets.
            "https://evil.example%2f.notify.windows.com/",
            "https://evil.example%00.notify.windows.com/",
            "https://evil.example%23.notify.windows.com/",
            "https://db5%2enotify.windows.com/",
            "https://%64b5.notify.windows.com/",
            "https://db5.notify.windows\u{3002}com/",
            "https://db5.notify.windows.\u{ff43}om/",
            "https://evil.example\u{2044}.notify.windows.com/",
            "https://db5.not\u{0456}fy.windows.com/",
            "\u{feff}https://db5.notify.windows.com/",
            // Other ports.
            "https://db5.notify.windows.com:/",
            "https://db5.notify.windows.com:80/",
            "https://db5.notify.windows.com:8443/",
            "https://db5.notify.windows.com:0443/",
            "https://db5.notify.windows.com:+443/",
            "https://db5.notify.windows.com:443:443/",
            "https://db5.notify.windows.com:65979/",
            // Addresses.
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://127.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::1].notify.windows.com/",
            "https://localhost/",
        ] {
            assert!(called(hostile).is_err(), "{hostile:?}");
        }
        let long = format!("https://db5.notify.windows.com/?token={}", "a".repeat(LONGEST));
        assert_eq!(called(&long), Err("it is too long"));
        let label = format!("https://{}.notify.windows.com/", "a".repeat(64));
        assert!(called(&label).is_err());
        assert!(hosts(&[]).unwrap().channel(b"https://db5.notify.windows.com/\xff").is_err());
    }

    #[test]
    fn other_hosts_only_as_configured() {
        let of =
            |entries: &[&str], reported: &str| hosts(entries).unwrap().channel(reported.as_bytes()).is_ok();
        let test = ["127.0.0.1:4711", "localhost", "[::1]:4711", "*.push.example.org:8443"];
        for (reported, wanted) in [
            ("https://127.0.0.1:4711/c", true),
            ("https://127.0.0.1/c", false),
            ("https://127.1:4711/c", false),
            ("https://0x7f000001:4711/c", false),
            ("https://127.0.0.2:4711/c", false),
            ("https://localhost/", true),
            ("https://LOCALHOST:443/", true),
            ("https://localhost:4711/", false),
            ("https://x.localhost/", false),
            ("https://[::1]:4711/", true),
            ("https://[0:0:0:0:0:0:0:1]:4711/", false),
            ("https://a.push.example.org:8443/", true),
            ("https://push.example.org:8443/", false),
            ("https://a.push.example.org/", false),
            ("https://db5.notify.windows.com/", false),
        ] {
            assert_eq!(of(&test, reported), wanted, "{reported}");
        }
    }

    #[test]
    fn entries_are_plain_names() {
        for good in
            ["localhost", "LocalHost:8443", " a.example.org ", "*.example.org", "127.0.0.1", "[::1]:1"]
        {
            assert!(hosts(&[good]).is_ok(), "{good}");
        }
        for wrong in [
            "",
            " ",
            "*",
            "*.",
            "*.com",
            "*.*.org",
            "a.*.org",
            "*.127.0.0.1",
            "*.[::1]",
            "https://a.org",
            "a.org/",
            "a/b",
            "u@a.org",
            "a.org:",
            "a.org:x",
            "a.org:0443",
            "a.org:99999",
            "a b",
            "a.org?",
            "a.org#",
            "127.1",
            "ä.org",
            "*.-a.org",
        ] {
            assert_eq!(hosts(&["localhost", wrong]).err().as_deref(), Some(wrong), "{wrong}");
        }
    }
}
