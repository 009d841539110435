//! A simulated Windows PC.

mod builder;
mod csp;
mod csr;
mod enroll;
mod federated;
mod hardware;
mod html;
mod jobs;
mod machine;
mod renew;
mod session;
mod soap;
mod state;

#[cfg(test)]
pub(crate) mod tests;

use bellwether_windows::enrollment::{AuthPolicy, Version};
use bellwether_windows::syncml::client::{Answer, Habits};
use bellwether_windows::syncml::{Alert, Verb};

pub use builder::PcBuilder;
pub use csr::CsrOptions;
pub use enroll::{TokenOptions, TokenRequest};
pub use hardware::Hardware as PcHardware;
pub use machine::{
    Account as PcAccount, Certificate as PcCertificate, Inventory as PcInventory, Package as PcPackage,
};
pub use renew::RenewOptions;
pub(crate) use session::Outgoing;
pub use session::{Session as PcSession, SessionOptions, Step as PcStep, Told as PcTold};
pub use soap::SoapReply;

use crate::{Http, Identity, KeyPool, Result};
use csp::Override;
use hardware::Hardware;
use machine::{Inventory, Shared};
use session::Told;

/// What becomes of a wipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WipeFate {
    /// The machine answers 200, then it is wiped.
    #[default]
    Done,
    /// It is wiped before its answer leaves.
    AnswerLost,
    /// It answers 500, as one without a recovery environment does.
    Fails,
    /// It answers 200 and goes on as if nothing had been.
    OnlySaid,
}

/// One simulated PC. What happens to it in a session is seen at once by everybody who has the machine.
#[derive(Debug)]
pub struct WindowsPc {
    shared: Shared,
    http: Http,
    keys: KeyPool,
    habits: Habits,
    wbxml: bool,
    sign: bool,
    auth_policies: Vec<AuthPolicy>,
    request_version: Version,
    keep_connections: bool,
    hold_jobs: bool,
    /// Connections with the client certificate, when they are kept.
    managed: Option<Http>,
}

impl WindowsPc {
    /// Describes a PC; [`PcBuilder::build`] makes it.
    #[must_use]
    pub fn builder(http: Http) -> PcBuilder {
        PcBuilder::new(http)
    }

    /// What the machine is.
    #[must_use]
    pub fn hardware(&self) -> Hardware {
        self.shared.lock().hardware.clone()
    }

    /// `DeviceID`: the name of the machine in every session.
    #[must_use]
    pub fn device_id(&self) -> String {
        self.shared.lock().hardware.device_id.clone()
    }

    /// The SMBIOS serial number.
    #[must_use]
    pub fn serial(&self) -> String {
        self.shared.lock().hardware.serial.clone()
    }

    /// Claims another `DeviceID` from now on, as a forger would.
    pub fn set_device_id(&mut self, device_id: impl Into<String>) {
        self.shared.lock().hardware.device_id = device_id.into();
    }

    /// What is on the machine now.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let machine = self.shared.lock();
        Inventory { wipes: machine.wipes, ..machine.state.inventory() }
    }

    /// The value of a node.
    #[must_use]
    pub fn node(&self, uri: &str) -> Option<String> {
        self.shared.lock().state.tree.value(uri).map(str::to_owned)
    }

    /// Sets a node by hand, as a person at the machine or Windows itself would.
    pub fn set_node(&mut self, uri: &str, format: bellwether_windows::syncml::Format, value: &str) {
        self.shared.lock().state.tree.set(uri, format, value);
    }

    /// Answers every command for this node so from now on, without doing it.
    pub fn answer_with(&mut self, uri: &str, answer: Answer) {
        self.add_override(uri, None, None, answer);
    }

    /// Answers so as often as `times` says, and only this verb when one is given.
    pub fn answer_times(&mut self, uri: &str, verb: Option<Verb>, times: u32, answer: Answer) {
        self.add_override(uri, verb, Some(times), answer);
    }

    /// Forgets every answer that was set by hand.
    pub fn clear_answers(&mut self) {
        self.shared.lock().overrides.clear();
    }

    fn add_override(&mut self, uri: &str, verb: Option<Verb>, times: Option<u32>, answer: Answer) {
        let rule = Override { key: csp::key(uri), verb, times, answer };
        self.shared.lock().overrides.insert(0, rule);
    }

    /// What becomes of the next wipes.
    pub fn set_wipe_fate(&mut self, fate: WipeFate) {
        self.shared.lock().state.wipe_fate = fate;
    }

    /// The enrolled user signs in or out.
    pub fn set_user_signed_in(&mut self, signed_in: bool) {
        self.shared.lock().state.user_signed_in = signed_in;
    }

    /// Whether somebody set a PIN; a machine without one answers 405 to `RemoteLock`.
    pub fn set_pin(&mut self, set: bool) {
        self.shared.lock().state.has_pin = set;
    }

    /// Signs every message (`MDM-Signature`), whether the server asked for it or not.
    pub fn set_sign_messages(&mut self, sign: bool) {
        self.sign = sign;
    }

    /// How the machine differs from the specification, from its next session on.
    pub fn set_habits(&mut self, habits: Habits) {
        self.habits = habits;
    }

    /// Downloads and certificates stay as they are until this is taken back: installations seem to go on.
    pub fn hold_jobs(&mut self, hold: bool) {
        self.hold_jobs = hold;
    }

    /// Brings an alert along in the next session.
    pub fn add_alert(&mut self, alert: Alert) {
        self.shared.lock().alerts.push(alert);
    }

    /// The identity, once an enrollment gave one.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.shared.lock().identity.clone()
    }

    /// The identity before the last renewal.
    #[must_use]
    pub fn old_identity(&self) -> Option<Identity> {
        self.shared.lock().old_identity.clone()
    }

    /// What SCEP brought last, with its key.
    #[must_use]
    pub fn scep_identity(&self) -> Option<Identity> {
        self.shared.lock().state.scep_identities.last().cloned()
    }

    /// Speaks with another identity from now on: another machine's, an expired, a foreign one.
    pub fn set_identity(&mut self, identity: Identity) {
        self.managed = None;
        self.shared.lock().identity = Some(identity);
    }

    /// Goes back to the identity before the last renewal, as a machine that lost the answer would. Calling it again
    /// takes it back.
    pub fn use_old_identity(&mut self) {
        self.managed = None;
        let machine = &mut *self.shared.lock();
        if machine.old_identity.is_some() {
            std::mem::swap(&mut machine.identity, &mut machine.old_identity);
        }
    }

    /// The account of the enrollment.
    #[must_use]
    pub fn account(&self) -> Option<machine::Account> {
        self.shared.lock().enrollment.clone()
    }

    /// Whether the machine believes that it is managed.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        let machine = self.shared.lock();
        machine.enrollment.is_some() && machine.identity.is_some()
    }

    /// Whether `Unenroll` was obeyed and the next session will say so.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.shared.lock().leaving
    }

    /// Every command that the machine was ever given, in order.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.shared.lock().told.clone()
    }

    /// Wipes the machine by hand: everything is forgotten but the hardware and the record of what it was told.
    pub fn wipe(&mut self) {
        self.managed = None;
        self.shared.lock().wipe();
    }

    /// Forgets the enrollment without telling anybody.
    pub fn forget_enrollment(&mut self) {
        self.managed = None;
        self.shared.lock().forget();
    }

    /// Connections without a client certificate.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Closes connections that were kept.
    pub(crate) fn drop_connections(&mut self) {
        self.managed = None;
    }

    /// Connections that present the identity: a new client for every session, as real machines have it, unless they
    /// are to be kept.
    fn managed_http(&mut self) -> Result<Http> {
        if let Some(http) = &self.managed {
            return Ok(http.clone());
        }
        let identity = self.shared.lock().need_identity()?.clone();
        let http = self.http.with_client_certificate(&identity.cert_der, &identity.key)?;
        if self.keep_connections {
            self.managed = Some(http.clone());
        }
        Ok(http)
    }
}
