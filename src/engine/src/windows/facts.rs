//! From what a machine answers to facts.
//!
//! Keys are Apple's where the meaning is the same. What is too long, of another form than promised, or not about a
//! node that we ask for is no fact.

use super::raw::percent_decode;
use bellwether_windows::csp::{self, InstalledPackage};
use serde_json::{Map, Value, json};

/// The longest text that becomes a fact, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// The hardware hash is a few kilobytes of base64.
const MAX_HASH_BYTES: usize = 64 * 1024;
/// The longest list.
const MAX_ROWS: usize = 5000;
/// The longest document that is looked into.
const MAX_DOCUMENT_BYTES: usize = 8 * 1024 * 1024;

/// The facts in one item of a `Get`'s results.
pub(crate) fn facts(uri: &str, format: Option<&str>, data: &str) -> Vec<(String, Value)> {
    let path = path(uri);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    // A node's children come as names between slashes; any other answer of such a node is no list.
    let children = || if format.is_none_or(|format| format == "node") { names(data) } else { Vec::new() };
    match path.as_slice() {
        ["enterprisemodernappmanagement", "appmanagement", "appinventoryresults"] => packages(data),
        ["enterprisedesktopappmanagement", "msi"] => {
            let rows = children().into_iter().map(|name| json!({ "identifier": name })).collect();
            vec![("apps.msi".to_owned(), Value::Array(rows))]
        }
        ["rootcatrustedcertificates", "root"] => {
            let rows = children().into_iter().map(|name| json!({ "sha1": name, "store": "root" })).collect();
            vec![("certificates".to_owned(), Value::Array(rows))]
        }
        ["dmclient", "provider", _, rest @ ..] => leaf(ENROLLMENT, &rest.join("/"), data),
        _ => leaf(NODES, &path.join("/"), data),
    }
}

/// How a value is read, and the keys of what is in it.
#[derive(Clone, Copy)]
enum Kind {
    Text(&'static str),
    Long(&'static str),
    Int(&'static str),
    Flag(&'static str),
    /// Megabytes as Apple's gigabytes.
    Gigabytes(&'static str),
    Mac(&'static str),
    /// A number with a name: the key of the name.
    Word(&'static str, &'static [(i64, &'static str)]),
    /// The same, and a yes or no: which number is yes, and which are neither.
    State(&'static str, &'static str, &'static [(i64, &'static str)], i64, &'static [i64]),
}

/// The states of Windows Security (DeviceStatus CSP).
const WATCH: &[(i64, &str)] =
    &[(0, "on"), (1, "off"), (2, "not-monitoring"), (3, "snoozed"), (4, "not-applicable")];
const PROCESSORS: &[(i64, &str)] = &[(0, "x86"), (5, "arm"), (9, "x64"), (12, "arm64")];
const SECURE_BOOT: &[(i64, &str)] = &[(0, "not-supported"), (1, "enabled"), (2, "disabled")];

/// Nodes in lower case, without the root.
const NODES: &[(&str, Kind)] = &[
    ("devinfo/man", Kind::Text("manufacturer")),
    ("devinfo/mod", Kind::Text("model")),
    ("devinfo/lang", Kind::Text("os.language")),
    ("devdetail/swv", Kind::Text("os.version")),
    ("devdetail/fwv", Kind::Text("hardware.firmware")),
    ("devdetail/hwv", Kind::Text("hardware.version")),
    ("devdetail/oem", Kind::Text("hardware.oem")),
    ("devdetail/devtyp", Kind::Text("product-name")),
    ("devdetail/ext/microsoft/smbiosserialnumber", Kind::Text("serial-number")),
    ("devdetail/ext/microsoft/devicename", Kind::Text("device.name")),
    ("devdetail/ext/microsoft/dnscomputername", Kind::Text("device.host-name")),
    ("devdetail/ext/microsoft/osplatform", Kind::Text("os.name")),
    ("devdetail/ext/microsoft/processorarchitecture", Kind::Word("hardware.architecture", PROCESSORS)),
    ("devdetail/ext/microsoft/totalram", Kind::Int("hardware.memory-mb")),
    ("devdetail/ext/microsoft/totalstorage", Kind::Gigabytes("storage.capacity-gb")),
    ("devdetail/ext/microsoft/freestorage", Kind::Gigabytes("storage.available-gb")),
    ("devdetail/ext/wlanmacaddress", Kind::Mac("network.wifi-mac")),
    ("devdetail/ext/devicehardwaredata", Kind::Long("autopilot.hardware-hash")),
    ("devicestatus/os/edition", Kind::Text("os.edition")),
    (
        "devicestatus/securebootstate",
        Kind::State("security.secure-boot.level", "security.secure-boot.enabled", SECURE_BOOT, 1, &[]),
    ),
    ("devicestatus/tpm/specificationversion", Kind::Text("security.tpm.version")),
    (
        "devicestatus/antivirus/status",
        Kind::State("security.antivirus.state", "security.antivirus.enabled", WATCH, 0, &[4]),
    ),
    (
        "devicestatus/antivirus/signaturestatus",
        Kind::State(
            "security.antivirus.signatures",
            "security.antivirus.signatures-current",
            &[(0, "old"), (1, "current"), (2, "not-applicable")],
            1,
            &[2],
        ),
    ),
    (
        "devicestatus/firewall/status",
        Kind::State("security.firewall.state", "security.firewall.enabled", WATCH, 0, &[4]),
    ),
    ("devicestatus/uac/status", Kind::Int("security.uac.state")),
    ("devicestatus/compliance/encryptioncompliance", Kind::Flag("security.encryption.compliant")),
    ("devicestatus/domainname", Kind::Text("device.domain")),
    ("bitlocker/status/deviceencryptionstatus", Kind::Int("security.bitlocker.state")),
    ("certificatestore/my/wstep/renew/status", Kind::Int("enrollment.renewal-state")),
];

/// The same below the provider's own node.
const ENROLLMENT: &[(&str, Kind)] = &[
    ("entdmid", Kind::Text("enrollment.entdm-id")),
    ("aaddeviceid", Kind::Text("enrollment.entra-device-id")),
    ("enrollmenttype", Kind::Text("enrollment.type")),
    ("hwdevid", Kind::Text("enrollment.hardware-id")),
    ("push/status", Kind::Int("enrollment.push-state")),
];

/// A LocURI in lower case, without `./`, `Device` and `Vendor/MSFT`.
fn path(uri: &str) -> Vec<String> {
    let mut names: Vec<String> = uri
        .split(['/', '?'])
        .take(16)
        .filter(|name| !name.is_empty() && *name != ".")
        .map(str::to_ascii_lowercase)
        .collect();
    if names.first().is_some_and(|name| name == "device") {
        names.remove(0);
    }
    if names.first().is_some_and(|name| name == "vendor") {
        names.drain(..names.len().min(2));
    }
    names
}

fn leaf(table: &[(&str, Kind)], name: &str, data: &str) -> Vec<(String, Value)> {
    let Some((_, kind)) = table.iter().find(|(node, _)| *node == name) else { return Vec::new() };
    read(*kind, data).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn read(kind: Kind, data: &str) -> Vec<(&'static str, Value)> {
    let text = data.trim();
    let number = || text.parse::<i64>().ok();
    let amount = || text.parse::<u32>().ok();
    match kind {
        Kind::Text(key) => sound(text, MAX_TEXT_BYTES)
            .filter(|text| !text.eq_ignore_ascii_case("not available"))
            .map(|text| (key, Value::from(text)))
            .into_iter()
            .collect(),
        Kind::Long(key) => {
            sound(text, MAX_HASH_BYTES).map(|text| (key, Value::from(text))).into_iter().collect()
        }
        Kind::Int(key) => number().map(|number| (key, Value::from(number))).into_iter().collect(),
        Kind::Flag(key) => flag(text).map(|flag| (key, Value::from(flag))).into_iter().collect(),
        Kind::Gigabytes(key) => {
            amount().map(|megabytes| (key, Value::from(f64::from(megabytes) / 1024.0))).into_iter().collect()
        }
        Kind::Mac(key) => mac(text).map(|mac| (key, Value::from(mac))).into_iter().collect(),
        Kind::Word(key, words) => number().map(|number| (key, word(words, number))).into_iter().collect(),
        Kind::State(key, yes_key, words, yes, neither) => {
            let Some(number) = number() else { return Vec::new() };
            let mut found = vec![(key, word(words, number))];
            if words.iter().any(|(known, _)| *known == number) && !neither.contains(&number) {
                found.push((yes_key, Value::from(number == yes)));
            }
            found
        }
    }
}

/// A number that no table has stays a number, as text: a key's values have one type.
fn word(words: &[(i64, &str)], number: i64) -> Value {
    words
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| Value::from(number.to_string()), |(_, word)| Value::from(*word))
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "True" => Some(true),
        "0" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// With colons, as Apple devices write it.
fn mac(text: &str) -> Option<String> {
    let digits: Vec<char> = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).take(13).collect();
    if digits.len() != 12 || !digits.iter().all(char::is_ascii_hexdigit) {
        return None;
    }
    let pairs: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect::<String>()).collect();
    Some(pairs.join(":").to_ascii_lowercase())
}

/// Names between slashes, each with its escapes undone.
fn names(data: &str) -> Vec<String> {
    if data.len() > MAX_DOCUMENT_BYTES {
        return Vec::new();
    }
    data.split('/').filter_map(|name| sound(&percent_decode(name.trim()), 512)).take(MAX_ROWS).collect()
}

/// In the shape of Apple's list of apps.
fn packages(xml: &str) -> Vec<(String, Value)> {
    if xml.len() > MAX_DOCUMENT_BYTES {
        return Vec::new();
    }
    let rows = csp::installed_packages(xml, MAX_ROWS).into_iter().filter_map(row).collect();
    vec![("apps".to_owned(), Value::Array(rows))]
}

fn row(package: InstalledPackage) -> Option<Value> {
    let mut row = Map::new();
    row.insert("identifier".to_owned(), Value::from(sound(&package.family_name, 512)?));
    let others = [("name", package.name), ("version", package.version), ("publisher", package.publisher)];
    for (key, value) in others {
        if let Some(value) = value.and_then(|value| sound(&value, 512)) {
            row.insert(key.to_owned(), Value::from(value));
        }
    }
    Some(Value::Object(row))
}

/// A database refuses NUL, and a console has no use for other control characters: they go. Nothing left, or too much,
/// is no fact.
fn sound(text: &str, max: usize) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    (!text.is_empty() && text.len() <= max).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(uri: &str, data: &str) -> Vec<(String, Value)> {
        facts(uri, Some("chr"), data)
    }

    #[test]
    fn every_node_that_we_ask_for_gives_a_fact() {
        let asked = csp::DEVICE_INFORMATION.iter().chain(csp::POSTURE).copied();
        for uri in asked.chain(["./DevDetail/Ext/DeviceHardwareData"]) {
            let data = if uri.ends_with("WLANMACAddress") { "0A1B2C3D4E5F" } else { "1" };
            assert!(!one(uri, data).is_empty(), "{uri}");
            assert_eq!(one(&uri.to_uppercase(), data), one(uri, data), "{uri} in capitals");
        }
        for step in csp::enrollment_information("Bellwether").expect("a provider") {
            let uri = &step.commands()[0].uri;
            // The address of the push channel is for the server, not for people.
            assert_eq!(one(uri, "1").is_empty(), uri.ends_with("/ChannelURI"), "{uri}");
        }
    }

    #[test]
    fn values_are_read_as_what_they_are() {
        for (uri, data, expected) in [
            ("./DevDetail/SwV", "10.0.26100.1742", json!({"os.version": "10.0.26100.1742"})),
            (
                "./devdetail/ext/microsoft/smbiosserialnumber",
                " PF\x00123 ",
                json!({"serial-number": "PF123"}),
            ),
            ("./DevDetail/Ext/Microsoft/TotalStorage", "487424", json!({"storage.capacity-gb": 476.0})),
            ("./DevDetail/Ext/Microsoft/TotalRAM", "16384", json!({"hardware.memory-mb": 16384})),
            ("./DevDetail/Ext/Microsoft/ProcessorArchitecture", "9", json!({"hardware.architecture": "x64"})),
            (
                "./DevDetail/Ext/WLANMACAddress",
                "0A-1B-2C-3D-4E-5F",
                json!({"network.wifi-mac": "0a:1b:2c:3d:4e:5f"}),
            ),
            (
                "./Vendor/MSFT/DeviceStatus/Firewall/Status",
                "1",
                json!({"security.firewall.state": "off", "security.firewall.enabled": false}),
            ),
            (
                "./Vendor/MSFT/DeviceStatus/Antivirus/Status",
                "4",
                json!({"security.antivirus.state": "not-applicable"}),
            ),
            ("./Vendor/MSFT/DeviceStatus/Antivirus/Status", "77", json!({"security.antivirus.state": "77"})),
            (
                "./Device/Vendor/MSFT/BitLocker/Status/DeviceEncryptionStatus",
                "0",
                json!({"security.bitlocker.state": 0}),
            ),
            (
                "./Vendor/MSFT/DeviceStatus/Compliance/EncryptionCompliance",
                "true",
                json!({"security.encryption.compliant": true}),
            ),
            (
                "./Device/Vendor/MSFT/DMClient/Provider/Some%20one/AADDeviceID",
                "abc",
                json!({"enrollment.entra-device-id": "abc"}),
            ),
        ] {
            let found: Map<String, Value> = one(uri, data).into_iter().collect();
            assert_eq!(Value::Object(found), expected, "{uri}");
        }
    }

    #[test]
    fn lists_have_apples_shape() {
        let xml = "<AppInventory><Package Name=\"A&amp;B\" PackageFamilyName=\"A_1\" Version=\"1.2\" Publisher=\"CN=X\">\
                   <Users/></Package><Package Name=\"nameless\"/><p:Package xmlns:p=\"x\" PackageFamilyName=\"B_2\"/>";
        let uri = "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppManagement/AppInventoryResults";
        let expected = json!([
            {"identifier": "A_1", "name": "A&B", "version": "1.2", "publisher": "CN=X"},
            {"identifier": "B_2"}
        ]);
        assert_eq!(facts(uri, Some("xml"), xml), [("apps".to_owned(), expected)]);
        let msi = "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI";
        let expected = json!([{"identifier": "{A-1}"}, {"identifier": "{B-2}"}]);
        assert_eq!(facts(msi, Some("node"), "%7BA-1%7D/{B-2}"), [("apps.msi".to_owned(), expected)]);
        let roots = facts("./Device/Vendor/MSFT/RootCATrustedCertificates/Root", Some("node"), "AB/CD");
        assert_eq!(roots[0].1[1], json!({"sha1": "CD", "store": "root"}));
    }

    #[test]
    fn hostile_answers_stay_small() {
        let huge = "x".repeat(MAX_DOCUMENT_BYTES + 1);
        for uri in [
            "./DevDetail/SwV",
            "./DevDetail/Ext/DeviceHardwareData",
            "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppManagement/AppInventoryResults",
            "./Nothing/We/Asked",
            "",
            "./Device/Vendor",
        ] {
            assert_eq!(one(uri, &huge), [], "{uri}");
        }
        let many = "<Package PackageFamilyName=\"a\"/>".repeat(MAX_ROWS + 10);
        let uri = "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppManagement/AppInventoryResults";
        assert_eq!(one(uri, &many)[0].1.as_array().map(Vec::len), Some(MAX_ROWS));
        let bomb = "<!DOCTYPE a [<!ENTITY b \"c\">]><a><Package PackageFamilyName=\"&b;\"/></a>";
        assert_eq!(one(uri, bomb)[0].1, json!([]));
        for (uri, data) in [
            ("./DevDetail/Ext/Microsoft/TotalRAM", "many"),
            ("./DevDetail/Ext/Microsoft/TotalStorage", "-1"),
            ("./DevDetail/Ext/WLANMACAddress", "0A1B2C3D4E5"),
            ("./Vendor/MSFT/DeviceStatus/SecureBootState", "9999999999999999999999"),
            ("./Vendor/MSFT/DeviceStatus/OS/Edition", "Not available"),
            ("./DevDetail/SwV", "\0\0"),
        ] {
            assert_eq!(one(uri, data), [], "{uri}");
        }
    }
}
