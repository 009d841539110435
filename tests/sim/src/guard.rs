//! Only this machine, unless told otherwise.

use bellwether_sim::{Error, Result};
use url::{Host, Url};

/// Refuses every host but this machine's own.
///
/// # Errors
/// [`Error::Usage`] with the way out in words.
pub fn check(url: &Url, owned: bool) -> Result<()> {
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    };
    if loopback || owned {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} is not this machine. Simulated devices stay in the records of the server that they enroll with; if \
         it is yours, add --i-own-this-server",
        url.host_str().unwrap_or("the link's host")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine() {
        for fine in
            ["https://localhost:8443/x", "https://127.0.0.1/", "https://[::1]/", "https://a.localhost/"]
        {
            check(&Url::parse(fine).unwrap(), false).unwrap();
        }
        for foreign in ["https://mdm.example.org/", "https://192.168.1.1/", "https://localhost.example.org/"]
        {
            let url = Url::parse(foreign).unwrap();
            assert!(check(&url, false).is_err(), "{foreign}");
            check(&url, true).unwrap();
        }
    }
}
