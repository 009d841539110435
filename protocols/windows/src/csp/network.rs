//! Wi-Fi, VPN and firewall (WiFi, VPNv2 and Firewall CSPs).

use super::document::Xml;
use super::{Error, NodeCommand, Scope, Step, device, hex_digits, segment, unusable};
use crate::syncml::Format;

/// A Wi-Fi profile; `xml` is a `WLANProfile` document.
///
/// # Errors
/// For an SSID that is empty or too long.
pub fn wifi(ssid: &str, xml: &str) -> Result<Step, Error> {
    Ok(NodeCommand::replace([&wifi_node(ssid)?, "/WlanXml"].concat(), Format::Chr, xml).into())
}

/// Removes a Wi-Fi profile.
///
/// # Errors
/// For an SSID that is empty or too long.
pub fn remove_wifi(ssid: &str) -> Result<Step, Error> {
    Ok(NodeCommand::delete(wifi_node(ssid)?).into())
}

/// The `WLANProfile` document of a network with a WPA2 passphrase, or of an open one.
///
/// # Errors
/// For an SSID or a passphrase of the wrong length.
pub fn wlan_profile(ssid: &str, passphrase: Option<&str>, hidden: bool) -> Result<String, Error> {
    if ssid.is_empty() || ssid.len() > 32 || ssid.chars().any(char::is_control) {
        return Err(unusable("ssid", "1 to 32 bytes without control characters"));
    }
    if passphrase.is_some_and(|text| !(8..=63).contains(&text.len()) || !text.bytes().all(is_printable)) {
        return Err(unusable("passphrase", "8 to 63 printable ASCII characters"));
    }
    let hex: String = ssid.bytes().flat_map(hex_digits).collect();
    let (authentication, encryption) =
        if passphrase.is_some() { ("WPA2PSK", "AES") } else { ("open", "none") };
    let mut network = vec![Xml::parent("SSID", vec![Xml::text("hex", &hex), Xml::text("name", ssid)])];
    if hidden {
        network.push(Xml::text("nonBroadcast", "true"));
    }
    let mut security = vec![Xml::parent(
        "authEncryption",
        vec![
            Xml::text("authentication", authentication),
            Xml::text("encryption", encryption),
            Xml::text("useOneX", "false"),
        ],
    )];
    security.extend(passphrase.map(|passphrase| {
        Xml::parent(
            "sharedKey",
            vec![
                Xml::text("keyType", "passPhrase"),
                Xml::text("protected", "false"),
                Xml::text("keyMaterial", passphrase),
            ],
        )
    }));
    let mut profile =
        Xml::empty("WLANProfile", &[("xmlns", "http://www.microsoft.com/networking/WLAN/profile/v1")]);
    profile.children = vec![
        Xml::text("name", ssid),
        Xml::parent("SSIDConfig", network),
        Xml::text("connectionType", "ESS"),
        Xml::text("connectionMode", "auto"),
        Xml::parent("MSM", vec![Xml::parent("security", security)]),
    ];
    profile.write()
}

fn is_printable(byte: u8) -> bool {
    (0x20..0x7F).contains(&byte)
}

fn wifi_node(ssid: &str) -> Result<String, Error> {
    if ssid.len() > 32 {
        return Err(unusable("ssid", "it is longer than 32 bytes"));
    }
    Ok(device(&["WiFi/Profile/", &segment("ssid", ssid)?].concat()))
}

/// A VPN profile; `xml` is a `VPNProfile` document.
///
/// # Errors
/// For a name that cannot stand in a LocURI.
pub fn vpn(scope: Scope, name: &str, xml: &str) -> Result<Step, Error> {
    let uri = [scope.prefix(), "VPNv2/", &segment("name", name)?, "/ProfileXML"].concat();
    Ok(NodeCommand::replace(uri, Format::Chr, xml).into())
}

/// Removes a VPN profile.
///
/// # Errors
/// For a name that cannot stand in a LocURI.
pub fn remove_vpn(scope: Scope, name: &str) -> Result<Step, Error> {
    Ok(NodeCommand::delete([scope.prefix(), "VPNv2/", &segment("name", name)?].concat()).into())
}

/// A rule of the Windows firewall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirewallRule {
    /// The rule's id.
    pub id: String,
    /// What people see.
    pub name: String,
    /// A program's path.
    pub program: Option<String>,
    /// IP protocol: 6 TCP, 17 UDP.
    pub protocol: Option<u8>,
    /// `80,443,8000-8010`.
    pub local_ports: Option<String>,
    /// The same for the other end.
    pub remote_ports: Option<String>,
    /// Addresses of the other end.
    pub remote_addresses: Option<String>,
    /// For connections that come in, not those that go out.
    pub inbound: bool,
    /// Allow, not block.
    pub allow: bool,
    /// 1 domain, 2 private, 4 public.
    pub profiles: u8,
}

/// A firewall rule: one Atomic, as the node is marked.
///
/// # Errors
/// For an id with `|` or `/`, ports that are no ports, or a profile mask that has no meaning.
pub fn firewall_rule(rule: &FirewallRule) -> Result<Step, Error> {
    if rule.profiles == 0 || rule.profiles > 7 {
        return Err(unusable("profiles", "1 domain, 2 private, 4 public, or a sum of them"));
    }
    let ports = |ports: &str| {
        !ports.is_empty() && ports.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-'))
    };
    if [&rule.local_ports, &rule.remote_ports].into_iter().flatten().any(|text| !ports(text)) {
        return Err(unusable("ports", "only digits, commas and hyphens"));
    }
    let base = [&firewall_node(&rule.id)?[..], "/"].concat();
    let set =
        |leaf: &str, format: Format, value: &str| NodeCommand::replace([&base, leaf].concat(), format, value);
    let mut commands = vec![set("Name", Format::Chr, &rule.name)];
    let texts = [
        ("App/FilePath", &rule.program),
        ("LocalPortRanges", &rule.local_ports),
        ("RemotePortRanges", &rule.remote_ports),
        ("RemoteAddressRanges", &rule.remote_addresses),
    ];
    // A port means nothing before the protocol is known.
    commands.extend(rule.protocol.map(|number| set("Protocol", Format::Int, &number.to_string())));
    commands
        .extend(texts.into_iter().filter_map(|(leaf, text)| Some(set(leaf, Format::Chr, text.as_ref()?))));
    commands.push(set("Profiles", Format::Int, &rule.profiles.to_string()));
    commands.push(set("Direction", Format::Chr, if rule.inbound { "IN" } else { "OUT" }));
    commands.push(set("Action/Type", Format::Int, if rule.allow { "1" } else { "0" }));
    commands.push(set("Enabled", Format::Bool, "true"));
    Ok(Step::Atomic(commands))
}

/// Removes a rule of the Windows firewall.
///
/// # Errors
/// For an id with `|` or `/`.
pub fn remove_firewall_rule(id: &str) -> Result<Step, Error> {
    Ok(NodeCommand::delete(firewall_node(id)?).into())
}

fn firewall_node(id: &str) -> Result<String, Error> {
    if id.contains(['|', '/']) {
        return Err(unusable("id", "it must not have | or /"));
    }
    Ok(["./Vendor/MSFT/Firewall/MdmStore/FirewallRules/", &segment("id", id)?[..]].concat())
}
