//! The configuration service providers of a simulated PC: what it does with one command.

mod apps;
mod certificates;
mod diagnostics;
mod tree;

use std::collections::BTreeMap;

use bellwether_windows::csp::{self as table, NodeCommand, Refusal, Step};
use bellwether_windows::syncml::client::Answer;
use bellwether_windows::syncml::{Data, Format, Request, Verb};

pub(super) use apps::{MsiJob, add_msix, set_status};
pub(super) use certificates::{ScepSettings, add_scep, scep_settings, set_scep_status, thumbprint};
pub(super) use diagnostics::{archive, set_archive_results};
pub(super) use tree::{Tree, key};

use super::machine::{Certificate, Inventory, Machine};
use super::{Hardware, WipeFate};
use crate::Identity;

/// The node is not there: a HRESULT that Windows gives with 404.
const NOT_FOUND: &str = "0x86000002";
/// Where Windows has something to say. Anything else is 404.
const ROOTS: &[&str] = &[
    "Accounts",
    "ActiveSync",
    "AppLocker",
    "AssignedAccess",
    "BitLocker",
    "CMPolicyEnterprise",
    "CertificateStore",
    "ClientCertificateInstall",
    "DMAcc",
    "DMClient",
    "DeclaredConfiguration",
    "Defender",
    "DeviceLock",
    "DeviceManageability",
    "DeviceStatus",
    "DiagnosticLog",
    "EnrollmentStatusTracking",
    "EnterpriseDesktopAppManagement",
    "EnterpriseModernAppManagement",
    "Firewall",
    "HealthAttestation",
    "LAPS",
    "NetworkProxy",
    "Office",
    "PassportForWork",
    "Personalization",
    "Policy",
    "PrinterProvisioning",
    "Reboot",
    "RemoteLock",
    "RemoteWipe",
    "RootCATrustedCertificates",
    "SecureAssessment",
    "SharedPC",
    "Update",
    "VPNv2",
    "WiFi",
    "WindowsLicensing",
];
/// Interior nodes that are there although nothing is in them.
const INTERIORS: &[&str] = &[
    "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI",
    "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppManagement/nonStore",
    "./Device/Vendor/MSFT/WiFi/Profile",
    "./Device/Vendor/MSFT/VPNv2",
    "./Device/Vendor/MSFT/RootCATrustedCertificates/Root",
    "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP",
    "./Device/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall",
    "./Device/Vendor/MSFT/Firewall/MdmStore/FirewallRules",
    "./Device/Vendor/MSFT/Policy/Config",
];
pub(super) const DM_PROVIDER: &str = "./Device/Vendor/MSFT/DMClient/Provider/";

/// What sessions change: copied when an Atomic begins, so that a failure brings it back.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) name: String,
    pub(super) next_name: Option<String>,
    pub(super) user_signed_in: bool,
    /// A PIN or password is set; without one a machine does not lock.
    pub(super) has_pin: bool,
    pub(super) wipe_fate: WipeFate,
    /// The push channel that Windows gets for any package family name.
    pub(super) channel_uri: String,
    pub(super) locks: u32,
    pub(super) reboots: u32,
    pub(super) executed: BTreeMap<String, u32>,
    pub(super) certificates: Vec<Certificate>,
    /// What SCEP brought, with its keys. Not saved: a machine that was read from a file has the certificates only.
    pub(super) scep_identities: Vec<Identity>,
    pub(super) jobs: Vec<Job>,
    /// Requests for diagnostics that were taken, by their ids.
    pub(super) collected: Vec<String>,
    /// What happens once the answer is out.
    pub(super) after: After,
    pub(super) restart_wanted: bool,
    pub(super) renewal_wanted: bool,
}

/// What a command sets off in the session that brought it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum After {
    #[default]
    Nothing,
    /// The answer goes out, then everything is gone.
    Wipe,
    /// Everything is gone before the answer goes out.
    WipeUnanswered,
    /// The session ends at once, without an answer.
    Unenroll,
}

/// Work between sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    Msi(MsiJob),
    Msix {
        family_name: String,
        base: String,
        url: String,
    },
    /// The node of the certificate, `…/SCEP/{id}`.
    Scep(String),
    /// An archive of diagnostics.
    Archive {
        /// The request's id, of which a machine collects once.
        id: String,
        /// Where it goes.
        url: String,
    },
}

/// An answer that was set by hand.
#[derive(Debug, Clone)]
pub(super) struct Override {
    pub(super) key: String,
    pub(super) verb: Option<Verb>,
    pub(super) times: Option<u32>,
    pub(super) answer: Answer,
}

impl State {
    pub(super) fn new(hardware: &Hardware, name: &str, channel_uri: String) -> Self {
        let mut state = Self {
            tree: Tree::default(),
            name: name.to_owned(),
            next_name: None,
            user_signed_in: true,
            has_pin: true,
            wipe_fate: WipeFate::default(),
            channel_uri,
            locks: 0,
            reboots: 0,
            executed: BTreeMap::new(),
            certificates: Vec::new(),
            scep_identities: Vec::new(),
            jobs: Vec::new(),
            collected: Vec::new(),
            after: After::Nothing,
            restart_wanted: false,
            renewal_wanted: false,
        };
        state.forget(hardware);
        state
    }

    /// Without the enrollment: policies, accounts and certificates are gone, software and name stay.
    pub(super) fn forget(&mut self, hardware: &Hardware) {
        let old = std::mem::take(&mut self.tree);
        for uri in INTERIORS {
            self.tree.set(uri, Format::Node, "");
        }
        for (uri, format, value) in hardware.facts(&self.name) {
            self.tree.set(&uri, format, value);
        }
        for node in old.iter().filter(|node| apps::is_software(&node.uri)) {
            self.tree.set(&node.uri, node.format.clone(), node.value.clone());
        }
        self.certificates.clear();
        self.scep_identities.clear();
        self.jobs.clear();
        self.after = After::Nothing;
        self.renewal_wanted = false;
    }

    /// As it came from the factory; what was counted stays.
    pub(super) fn reset(&mut self, hardware: &Hardware) {
        self.tree = Tree::default();
        self.next_name = None;
        self.restart_wanted = false;
        self.forget(hardware);
    }

    pub(super) fn restart(&mut self, hardware: &Hardware) {
        self.restart_wanted = false;
        if let Some(name) = self.next_name.take() {
            self.name = name;
            for (uri, format, value) in hardware.facts(&self.name) {
                self.tree.set(&uri, format, value);
            }
        }
    }

    pub(super) fn inventory(&self) -> Inventory {
        const POLICIES: [&str; 2] =
            ["./Device/Vendor/MSFT/Policy/Config", "./User/Vendor/MSFT/Policy/Config"];
        let leaves = POLICIES.iter().flat_map(|uri| self.tree.below(uri));
        Inventory {
            name: self.name.clone(),
            next_name: self.next_name.clone(),
            locks: self.locks,
            reboots: self.reboots,
            wipes: 0,
            executed: self.executed.clone(),
            msis: apps::msis(&self.tree),
            msix: apps::msix(&self.tree),
            policies: leaves.map(|node| (node.uri.clone(), node.value.clone())).collect(),
            certificates: self.certificates.clone(),
            channel_uri: self
                .tree
                .below(DM_PROVIDER.trim_end_matches('/'))
                .find(|node| node.uri.ends_with("/Push/ChannelURI"))
                .map(|node| node.value.clone()),
        }
    }
}

/// Does one command. Multiple items do not come from our servers; Windows takes them, but `Exec` only one.
pub(super) fn obey(machine: &mut Machine, request: &Request) -> Answer {
    let Some(item) = request.items.first() else { return Answer::status(400) };
    if request.items.len() > 1 {
        if matches!(request.verb, Verb::Exec | Verb::Get) {
            return Answer::status(400);
        }
        let mut single = request.clone();
        for item in &request.items {
            single.items = vec![item.clone()];
            let answer = obey(machine, &single);
            if answer.code >= 300 {
                return answer;
            }
        }
        return Answer::status(200);
    }
    let Some(uri) = item.target.as_ref().map(|target| target.uri.clone()) else { return Answer::status(400) };
    let data = item.data.as_ref().and_then(Data::as_str).map(str::to_owned);
    let format = item.meta.format.clone().or_else(|| request.meta.format.clone());
    if let Some(answer) = overridden(&mut machine.overrides, &uri, request.verb) {
        return answer;
    }
    let command = NodeCommand { verb: request.verb, uri, format, data };
    if let Err(answer) = check(machine, &command) {
        return answer;
    }
    let state = &mut machine.state;
    match command.verb {
        Verb::Get => get(state, &command.uri),
        Verb::Delete => delete(state, &command.uri),
        Verb::Exec => exec(state, &command),
        Verb::Add if state.tree.node(&command.uri).is_some() => Answer::status(418),
        Verb::Add | Verb::Replace => write(state, &command),
    }
}

fn overridden(overrides: &mut [Override], uri: &str, verb: Verb) -> Option<Answer> {
    let key = key(uri);
    let found = overrides.iter_mut().find(|rule| {
        rule.key == key && rule.times != Some(0) && rule.verb.is_none_or(|wanted| wanted == verb)
    })?;
    if let Some(times) = &mut found.times {
        *times -= 1;
    }
    Some(found.answer.clone())
}

fn not_found() -> Answer {
    Answer { original_error: Some(NOT_FOUND.to_owned()), ..Answer::status(404) }
}

/// What Windows refuses before it looks at the node.
fn check(machine: &Machine, command: &NodeCommand) -> Result<(), Answer> {
    let uri = &command.uri;
    let bare = uri.split('?').next().unwrap_or_default();
    if uri.starts_with('/') || bare.split('/').any(|name| name.is_empty() || name == "*") {
        return Err(not_found());
    }
    let full = tree::full(uri);
    let mut names = full.split('/').skip(1);
    let known = match (names.next(), names.next(), names.next(), names.next()) {
        (Some("Device" | "User"), Some("Vendor"), Some("MSFT"), Some(root)) => ROOTS.contains(&root),
        (Some("DevInfo" | "DevDetail" | "SyncML"), ..) => true,
        _ => false,
    };
    if !known {
        return Err(not_found());
    }
    if uri.contains('?') && command.verb == Verb::Get {
        // Properties and lists: an optional feature that this machine lacks.
        return Err(Answer::status(406));
    }
    // The table has each node under one of the two names of the device.
    for spelling in [full.clone(), full.replacen("./Device/", "./", 1)] {
        let step = Step::One(NodeCommand { uri: spelling, ..command.clone() });
        match table::check(&step, &state_machine(machine)) {
            Ok(()) => {}
            Err(Refusal::Build { .. } | Refusal::Edition { .. }) => return Err(not_found()),
            // Windows takes numbers and texts for each other as long as they parse.
            Err(Refusal::Format { .. }) if command.verb != Verb::Exec => return Err(Answer::status(415)),
            Err(Refusal::Format { .. }) => {}
            Err(_) => return Err(Answer::status(405)),
        }
    }
    Ok(())
}

fn state_machine(machine: &Machine) -> table::Machine {
    machine.hardware.machine(machine.state.user_signed_in)
}

fn get(state: &State, uri: &str) -> Answer {
    if tree::key(uri).ends_with("/enterprisemodernappmanagement/appmanagement/appinventoryresults") {
        return Answer::value(Format::Xml, apps::inventory_results(&state.tree));
    }
    match state.tree.node(uri) {
        Some(node) if node.format != Format::Node => Answer::value(node.format.clone(), node.value.clone()),
        None if !state.tree.exists(uri) => not_found(),
        _ => Answer::value(Format::Node, state.tree.children(uri).join("/")),
    }
}

fn delete(state: &mut State, uri: &str) -> Answer {
    apps::before_delete(&mut state.tree, uri);
    certificates::before_delete(state, uri);
    let permanent = INTERIORS.iter().any(|interior| key(interior) == key(uri));
    match (permanent, state.tree.exists(uri)) {
        (true, _) => Answer::status(405),
        (false, false) => not_found(),
        (false, true) => {
            state.tree.remove(uri);
            Answer::status(200)
        }
    }
}

fn write(state: &mut State, command: &NodeCommand) -> Answer {
    let NodeCommand { uri, format, data, .. } = command;
    let format = format.clone().unwrap_or(if data.is_some() { Format::Chr } else { Format::Node });
    let value = data.clone().unwrap_or_default();
    match format {
        Format::Int if value.trim().parse::<i64>().is_err() => return Answer::status(415),
        Format::Bool if !matches!(&*value.to_ascii_lowercase(), "true" | "false" | "0" | "1") => {
            return Answer::status(415);
        }
        _ => {}
    }
    let known = key(uri);
    if known.starts_with("./devdetail/ext/microsoft/") {
        // Only a restart makes a new name the machine's.
        state.next_name = Some(value);
        return Answer::status(200);
    }
    if let Some(answer) = certificates::before_write(state, uri, &value) {
        return answer;
    }
    state.tree.set(uri, format, value);
    if known.starts_with("./device/vendor/msft/dmclient/provider/") && known.ends_with("/push/pfn") {
        let base = uri.get(..uri.len() - "/PFN".len()).unwrap_or_default();
        let channel = state.channel_uri.clone();
        state.tree.set(&[base, "/ChannelURI"].concat(), Format::Chr, channel);
        state.tree.set(&[base, "/Status"].concat(), Format::Int, "0");
    }
    Answer::status(200)
}

fn exec(state: &mut State, command: &NodeCommand) -> Answer {
    let uri = &command.uri;
    let known = key(uri);
    let data = command.data.as_deref().unwrap_or_default();
    let names: Vec<&str> = known.split('/').collect();
    let answer = match names.get(4..).unwrap_or_default() {
        ["remotewipe", "automaticredeployment", "doautomaticredeployment"] | ["remotewipe", _] => wipe(state),
        ["remotelock", "lock"] if !state.has_pin => Answer::status(405),
        ["remotelock", "lock"] => {
            state.locks += 1;
            Answer::status(200)
        }
        ["reboot", "rebootnow"] | ["defender", "offlinescan"] => {
            state.reboots += 1;
            state.restart_wanted = true;
            Answer::status(200)
        }
        ["dmclient", "unenroll"] | ["dmclient", "provider", _, "unenroll"] => {
            state.after = After::Unenroll;
            Answer::status(200)
        }
        ["certificatestore", "my", "wstep", "renew", "renewnow"] => {
            state.renewal_wanted = true;
            Answer::status(200)
        }
        ["enterprisedesktopappmanagement", "msi", _, "downloadinstall"] => {
            apps::install_msi(state, uri, data)
        }
        ["enterprisemodernappmanagement", "appinstallation", _, "hostedinstall"] => {
            apps::install_msix(state, uri, data)
        }
        ["enterprisemodernappmanagement", "appmanagement", "removepackage"] => {
            apps::remove_package(state, data)
        }
        ["clientcertificateinstall", "scep", _, "install", "enroll"] => certificates::enroll(state, uri),
        ["diagnosticlog", "diagnosticarchive", "archivedefinition"] => diagnostics::collect(state, data),
        // These take a while, or somebody else answers them.
        ["bitlocker", "rotaterecoverypasswords"] | ["laps", "actions", "resetpassword"] => {
            Answer::status(202)
        }
        ["defender", "scan" | "updatesignature"] | ["healthattestation", "triggerattestation"] => {
            Answer::status(200)
        }
        _ if state.tree.exists(uri) => Answer::status(405),
        _ => not_found(),
    };
    if answer.code < 300 {
        *state.executed.entry(uri.clone()).or_default() += 1;
    }
    answer
}

fn wipe(state: &mut State) -> Answer {
    match state.wipe_fate {
        WipeFate::Done => state.after = After::Wipe,
        WipeFate::AnswerLost => state.after = After::WipeUnanswered,
        // What a machine without a recovery environment answers.
        WipeFate::Fails => return Answer::status(500),
        WipeFate::OnlySaid => {}
    }
    Answer::status(200)
}
