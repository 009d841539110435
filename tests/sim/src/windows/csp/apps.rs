//! Software: MSI (EnterpriseDesktopAppManagement CSP) and MSIX (EnterpriseModernAppManagement CSP).

use std::collections::BTreeMap;

use bellwether_windows::syncml::Format;
use bellwether_windows::syncml::client::Answer;
use quick_xml::events::{BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion};

use super::super::machine::Package;
use super::tree::{self, Tree, decode};
use super::{Job, State, not_found};

const MSI: &str = "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI";
const MODERN: &str = "./Device/Vendor/MSFT/EnterpriseModernAppManagement";

/// An MSI package on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct MsiJob {
    /// The node of the product, `…/MSI/{id}`.
    pub(in super::super) base: String,
    pub(in super::super) version: String,
    pub(in super::super) urls: Vec<String>,
    /// SHA-256 in hexadecimal.
    pub(in super::super) sha256: String,
}

/// Whether a node is about software, which stays when the enrollment goes.
pub(super) fn is_software(uri: &str) -> bool {
    let key = tree::key(uri);
    [MSI, &[MODERN, "/AppManagement"].concat()].iter().any(|base| key.starts_with(&tree::key(base)))
}

/// `Exec` of `DownloadInstall`. The `Add` of the same node must have come before.
pub(super) fn install_msi(state: &mut State, uri: &str, data: &str) -> Answer {
    if state.tree.node(uri).is_none() {
        return not_found();
    }
    let base = uri.rsplit_once('/').map_or(uri, |(base, _)| base).to_owned();
    let Some(job) = read_msi_job(data, &base) else { return Answer::status(400) };
    state.tree.set(uri, Format::Xml, data);
    set_status(&mut state.tree, &base, 10, 0);
    state.tree.set(&[&base, "/Version"].concat(), Format::Chr, job.version.clone());
    state.jobs.retain(|other| !matches!(other, Job::Msi(other) if other.base == base));
    state.jobs.push(Job::Msi(job));
    Answer::status(202)
}

/// `Exec` of `HostedInstall`.
pub(super) fn install_msix(state: &mut State, uri: &str, data: &str) -> Answer {
    if state.tree.node(uri).is_none() {
        return not_found();
    }
    let mut url = None;
    let sound = walk(data, |element, _| {
        if element.local_name().as_ref() == "Application" {
            url = attribute(element, "PackageUri");
        }
    });
    let (true, Some(url)) = (sound, url) else { return Answer::status(400) };
    let base = uri.rsplit_once('/').map_or(uri, |(base, _)| base).to_owned();
    let family_name = decode(base.rsplit('/').next().unwrap_or_default());
    state.tree.set(uri, Format::Xml, data);
    set_status(&mut state.tree, &base, 1, 0);
    state.jobs.retain(|other| !matches!(other, Job::Msix { base: other, .. } if *other == base));
    state.jobs.push(Job::Msix { family_name, base, url });
    Answer::status(202)
}

/// `Exec` of `RemovePackage`: `<Package Name="…"/>`.
pub(super) fn remove_package(state: &mut State, data: &str) -> Answer {
    let mut name = None;
    walk(data, |element, _| {
        if element.local_name().as_ref() == "Package" {
            name = attribute(element, "Name");
        }
    });
    let Some(name) = name else { return Answer::status(400) };
    if state.tree.remove(&[MODERN, "/AppManagement/nonStore/", &name].concat()) {
        Answer::status(200)
    } else {
        not_found()
    }
}

/// An app that is removed takes the node of its installation with it.
pub(super) fn before_delete(tree: &mut Tree, uri: &str) {
    let store = tree::key(&[MODERN, "/AppManagement/nonStore"].concat());
    if let Some(name) = tree::key(uri).strip_prefix(&store) {
        tree.remove(&[MODERN, "/AppInstallation", name].concat());
    }
}

/// How far the installation below this node got.
pub(in super::super) fn set_status(tree: &mut Tree, base: &str, status: u32, error: u32) {
    tree.set(&[base, "/Status"].concat(), Format::Int, status.to_string());
    tree.set(&[base, "/LastError"].concat(), Format::Int, error.to_string());
}

/// A package arrived: from now on it is in the inventory.
pub(in super::super) fn add_msix(tree: &mut Tree, base: &str, family_name: &str) {
    set_status(tree, base, 3, 0);
    let name = base.rsplit('/').next().unwrap_or(family_name);
    let node = [MODERN, "/AppManagement/nonStore/", name].concat();
    tree.set(&node, Format::Node, "");
    tree.set(&[&node, "/Version"].concat(), Format::Chr, "1.0.0.0");
}

/// MSI packages by product code.
pub(super) fn msis(tree: &Tree) -> BTreeMap<String, Package> {
    packages(tree, MSI)
}

/// MSIX packages by family name: those on their way, and those that are there.
pub(super) fn msix(tree: &Tree) -> BTreeMap<String, Package> {
    let mut all = packages(tree, &[MODERN, "/AppInstallation"].concat());
    let store = [MODERN, "/AppManagement/nonStore"].concat();
    for name in tree.children(&store) {
        let version = tree.value(&[&store, "/", &name, "/Version"].concat()).unwrap_or_default().to_owned();
        all.insert(decode(&name), Package { version, status: 3, last_error: 0 });
    }
    all
}

fn packages(tree: &Tree, base: &str) -> BTreeMap<String, Package> {
    let package = |name: &String| {
        let leaf = |leaf: &str| tree.value(&[base, "/", name, "/", leaf].concat());
        let number = |name: &str| leaf(name).and_then(|value| value.parse().ok()).unwrap_or_default();
        let version = leaf("Version").unwrap_or_default().to_owned();
        (decode(name), Package { version, status: number("Status"), last_error: number("LastError") })
    };
    tree.children(base).iter().map(package).collect()
}

/// `AppInventoryResults`: one `nonStore` list.
pub(super) fn inventory_results(tree: &Tree) -> String {
    let store = [MODERN, "/AppManagement/nonStore"].concat();
    let mut writer = Writer::new(Vec::new());
    let written = (|| -> std::io::Result<()> {
        writer.write_event(Event::Start(BytesStart::new("Inventory")))?;
        writer.write_event(Event::Start(BytesStart::new("nonStore")))?;
        for name in tree.children(&store) {
            let family = decode(&name);
            let version = tree.value(&[&store, "/", &name, "/Version"].concat()).unwrap_or_default();
            let package = BytesStart::new("Package")
                .with_attributes([("PackageFamilyName", family.as_str()), ("Version", version)]);
            writer.write_event(Event::Empty(package))?;
        }
        writer.write_event(Event::End(BytesStart::new("nonStore").to_end()))?;
        writer.write_event(Event::Text(BytesText::new("")))?;
        writer.write_event(Event::End(BytesStart::new("Inventory").to_end()))
    })();
    written.ok().and_then(|()| String::from_utf8(writer.into_inner()).ok()).unwrap_or_default()
}

/// Reads `MsiInstallJob`, escaped or raw; the product code must be the node's.
fn read_msi_job(data: &str, base: &str) -> Option<MsiJob> {
    let mut job = MsiJob { base: base.to_owned(), ..MsiJob::default() };
    let mut id = None;
    let sound = walk(data, |element, text| match element.local_name().as_ref() {
        "MsiInstallJob" => id = attribute(element, "id"),
        "Product" => job.version = attribute(element, "Version").unwrap_or_default(),
        "ContentURL" => job.urls.push(text.trim().to_owned()),
        "FileHash" => text.trim().clone_into(&mut job.sha256),
        _ => {}
    });
    let node = decode(base.rsplit('/').next().unwrap_or_default());
    let fits = id.is_some_and(|id| id.eq_ignore_ascii_case(&node));
    (sound && fits && !job.urls.is_empty() && !job.sha256.is_empty()).then_some(job)
}

/// The text of the first element of that name.
pub(super) fn text_of(xml: &str, name: &str) -> Option<String> {
    let mut found = None;
    let sound = walk(xml, |element, text| {
        if found.is_none() && element.local_name().as_ref() == name {
            found = Some(text.trim().to_owned());
        }
    });
    found.filter(|_| sound)
}

/// Calls for every element when it ends, with the text in it; whether the document is well-formed.
fn walk(xml: &str, mut each: impl FnMut(&BytesStart<'_>, &str)) -> bool {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<(BytesStart<'static>, String)> = Vec::new();
    let mut any = false;
    loop {
        let text = match reader.read_event() {
            Ok(Event::Start(element)) => {
                open.push((element.into_owned(), String::new()));
                any = true;
                continue;
            }
            Ok(Event::End(_)) => {
                let Some((element, text)) = open.pop() else { return false };
                each(&element, &text);
                continue;
            }
            Ok(Event::Text(text)) => Some(text.xml10_content().into_owned()),
            Ok(Event::GeneralRef(reference)) => match reference.resolve_char_ref() {
                Ok(Some(character)) => Some(character.to_string()),
                _ => quick_xml::escape::resolve_predefined_entity(&reference).map(str::to_owned),
            },
            Ok(Event::Eof) => return any && open.is_empty(),
            Ok(Event::Decl(_) | Event::Comment(_)) => continue,
            Ok(_) | Err(_) => return false,
        };
        match (text, open.last_mut()) {
            (Some(text), Some((_, inside))) => inside.push_str(&text),
            (Some(text), None) if text.trim().is_empty() => {}
            _ => return false,
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found =
        element.attributes().flatten().find(|attribute| attribute.key.local_name().as_ref() == name)?;
    found.normalized_value(XmlVersion::Implicit1_0).ok().map(|value| value.into_owned())
}
