//! Software: MSI (EnterpriseDesktopAppManagement CSP) and MSIX (EnterpriseModernAppManagement CSP).

use super::document::Xml;
use super::{Error, NodeCommand, Step, device, segment, unusable};
use crate::syncml::{Format, Verb};

/// An MSI package to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msi {
    /// The product code, `{GUID}`.
    pub product: String,
    /// `ProductVersion`.
    pub version: String,
    /// Where the machine downloads it.
    pub url: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Arguments of `msiexec`.
    pub arguments: String,
    /// Minutes; 0 is without end.
    pub timeout: u32,
    /// Retries.
    pub retries: u32,
    /// Minutes between them.
    pub interval: u32,
}

/// Installs an MSI: `Add` and `Exec` of one node, in this order in one message.
///
/// # Errors
/// For a product code, an address or a hash of the wrong form.
pub fn install_msi(msi: &Msi) -> Result<Vec<Step>, Error> {
    if !msi.url.starts_with("https://") && !msi.url.starts_with("http://") {
        return Err(unusable("url", "it is not an HTTP address"));
    }
    if msi.sha256.len() != 64 || !msi.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(unusable("sha256", "it is not 64 hexadecimal digits"));
    }
    let uri = [&msi_node(&msi.product)?, "/DownloadInstall"].concat();
    let (timeout, retries, interval) =
        (msi.timeout.to_string(), msi.retries.to_string(), msi.interval.to_string());
    let version = [("Version", msi.version.as_str())];
    let id = [("id", msi.product.as_str())];
    let mut product = Xml::empty("Product", &version);
    product.children = vec![
        Xml::parent("Download", vec![Xml::parent("ContentURLList", vec![Xml::text("ContentURL", &msi.url)])]),
        Xml::parent("Validation", vec![Xml::text("FileHash", &msi.sha256)]),
        Xml::parent(
            "Enforcement",
            vec![
                Xml::text("CommandLine", &msi.arguments),
                Xml::text("TimeOut", &timeout),
                Xml::text("RetryCount", &retries),
                Xml::text("RetryInterval", &interval),
            ],
        ),
    ];
    let mut job = Xml::empty("MsiInstallJob", &id);
    job.children = vec![product];
    let add = NodeCommand { verb: Verb::Add, uri: uri.clone(), format: None, data: None };
    Ok(vec![add.into(), NodeCommand::with(Verb::Exec, uri, Format::Xml, job.write()?).into()])
}

/// Removes an MSI.
///
/// # Errors
/// For a product code of the wrong form.
pub fn uninstall_msi(product: &str) -> Result<Step, Error> {
    Ok(NodeCommand::delete(msi_node(product)?).into())
}

/// Asks how an installation goes: 10 to 70, where 70 is done and 30 and 60 have failed.
///
/// # Errors
/// For a product code of the wrong form.
pub fn msi_status(product: &str) -> Result<Vec<Step>, Error> {
    let node = msi_node(product)?;
    Ok(["/Status", "/LastError"]
        .into_iter()
        .map(|leaf| NodeCommand::get([&node, leaf].concat()).into())
        .collect())
}

fn msi_node(product: &str) -> Result<String, Error> {
    let inner = product.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    if !inner.is_some_and(|inner| inner.len() == 36 && uuid::Uuid::try_parse(inner).is_ok()) {
        return Err(unusable("product", "it is not a {GUID}"));
    }
    Ok([&device("EnterpriseDesktopAppManagement/MSI/"), &segment("product", product)?[..]].concat())
}

/// Installs an MSIX package from an address.
///
/// # Errors
/// For names that cannot stand in a LocURI, or an address that is not HTTP.
pub fn install_msix(family_name: &str, url: &str) -> Result<Vec<Step>, Error> {
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(unusable("url", "it is not an HTTP address"));
    }
    let name = segment("family_name", family_name)?;
    let uri =
        [&device("EnterpriseModernAppManagement/AppInstallation/"), &name[..], "/HostedInstall"].concat();
    let attributes = [("PackageUri", url), ("DeploymentOptions", "0")];
    let data = Xml::empty("Application", &attributes).write()?;
    let add = NodeCommand { verb: Verb::Add, uri: uri.clone(), format: None, data: None };
    Ok(vec![add.into(), NodeCommand::with(Verb::Exec, uri, Format::Xml, data).into()])
}

/// Asks how an installation goes: 0 not installed, 1 installing, 2 failed, 3 installed.
///
/// # Errors
/// For a name that cannot stand in a LocURI.
pub fn msix_status(family_name: &str) -> Result<Step, Error> {
    let name = segment("family_name", family_name)?;
    let uri = [&device("EnterpriseModernAppManagement/AppInstallation/"), &name[..], "/Status"].concat();
    Ok(NodeCommand::get(uri).into())
}

/// Removes an MSIX package.
///
/// # Errors
/// For a name that cannot stand in a LocURI.
pub fn uninstall_msix(family_name: &str) -> Result<Step, Error> {
    let name = segment("family_name", family_name)?;
    let uri = [&device("EnterpriseModernAppManagement/AppManagement/nonStore/"), &name[..]].concat();
    Ok(NodeCommand::delete(uri).into())
}
