//! Writing, in the order of Microsoft's sample.

use super::super::address::{https_host, percent_encode};
use super::super::bytes;
use super::super::xml::Writing;
use super::super::{Error, Version};
use super::{
    Account, Certificate, DmClient, Enrollment, KeyStore, Nonce, Poll, ProviderId, RenewalSchedule,
    RenewedIdentity,
};

/// The longest text that people see, in bytes.
const MAX_TEXT: usize = 256;

pub(super) fn enrollment(document: &Enrollment) -> Result<Vec<u8>, Error> {
    check(document)?;
    let mut xml = begin();
    if document.root.is_some() || document.intermediate.is_some() {
        characteristic(&mut xml, "CertificateStore");
        for (store, certificate) in [("Root", &document.root), ("CA", &document.intermediate)] {
            if let Some(authority) = certificate {
                characteristic(&mut xml, store);
                characteristic(&mut xml, "System");
                certificate_open(&mut xml, authority);
                xml.close().close().close();
            }
        }
        xml.close();
    }
    characteristic(&mut xml, "CertificateStore");
    characteristic(&mut xml, "My");
    characteristic(&mut xml, document.store.as_str());
    certificate_open(&mut xml, &document.identity);
    xml.close();
    // Beside the certificate here, inside of it in a renewal: so do Microsoft's two samples.
    xml.empty("characteristic", &[("type", "PrivateKeyContainer")]);
    xml.close();
    if let Some(renewal) = &document.renewal {
        schedule(&mut xml, *renewal);
    }
    xml.close().close();
    account(&mut xml, &document.account, document.store)?;
    dm_client(&mut xml, &document.client, &document.account.provider_id);
    xml.close();
    xml.finish()
}

pub(super) fn renewal(document: &RenewedIdentity) -> Result<Vec<u8>, Error> {
    let mut xml = begin();
    characteristic(&mut xml, "CertificateStore");
    if let Some(root) = &document.root {
        characteristic(&mut xml, "Root");
        characteristic(&mut xml, "System");
        certificate_open(&mut xml, root);
        xml.close().close().close();
    }
    characteristic(&mut xml, "My");
    characteristic(&mut xml, document.store.as_str());
    certificate_open(&mut xml, &document.identity);
    xml.empty("characteristic", &[("type", "PrivateKeyContainer")]);
    xml.close().close().close().close();
    characteristic(&mut xml, "APPLICATION");
    parm(&mut xml, "PROVIDER-ID", document.provider_id.as_str());
    xml.close().close();
    xml.finish()
}

fn begin() -> Writing {
    let mut xml = Writing::new();
    xml.open("wap-provisioningdoc", &[("version", "1.1")]);
    xml
}

fn characteristic(xml: &mut Writing, kind: &str) {
    xml.open("characteristic", &[("type", kind)]);
}

fn parm(xml: &mut Writing, name: &str, value: &str) {
    xml.empty("parm", &[("name", name), ("value", value)]);
}

fn typed(xml: &mut Writing, name: &str, value: &str, datatype: &str) {
    xml.empty("parm", &[("name", name), ("value", value), ("datatype", datatype)]);
}

fn number(xml: &mut Writing, name: &str, value: u32) {
    typed(xml, name, &value.to_string(), "integer");
}

fn boolean(xml: &mut Writing, name: &str, value: bool) {
    typed(xml, name, if value { "true" } else { "false" }, "boolean");
}

/// Leaves the certificate's characteristic open.
fn certificate_open(xml: &mut Writing, certificate: &Certificate) {
    characteristic(xml, &certificate.thumbprint_hex());
    parm(xml, "EncodedCertificate", &bytes::encode(certificate.as_der()));
}

fn schedule(xml: &mut Writing, renewal: RenewalSchedule) {
    characteristic(xml, "WSTEP");
    characteristic(xml, "Renew");
    boolean(xml, "ROBOSupport", true);
    number(xml, "RenewPeriod", renewal.period_days.into());
    number(xml, "RetryInterval", renewal.retry_days.into());
    xml.close().close();
}

fn account(xml: &mut Writing, account: &Account, store: KeyStore) -> Result<(), Error> {
    https_host(&account.address)?;
    characteristic(xml, "APPLICATION");
    parm(xml, "APPID", "w7");
    parm(xml, "PROVIDER-ID", account.provider_id.as_str());
    parm(xml, "NAME", &account.name);
    parm(xml, "ADDR", &account.address);
    parm(xml, "CONNRETRYFREQ", &account.retry.attempts.to_string());
    parm(xml, "INITIALBACKOFFTIME", &account.retry.initial_milliseconds.to_string());
    parm(xml, "MAXBACKOFFTIME", &account.retry.longest_milliseconds.to_string());
    // A flag: it is on by standing here, and has no value (w7 APPLICATION).
    xml.empty("parm", &[("name", "BACKCOMPATRETRYDISABLED")]);
    parm(xml, "DEFAULTENCODING", account.encoding.as_str());
    if let Some(role) = account.role {
        parm(xml, "ROLE", &role.to_string());
    }
    let subject = percent_encode(&account.subject.to_x500());
    let criteria = ["Subject=", &subject, "&Stores=My%5C", store.as_str()].concat();
    parm(xml, "SSLCLIENTCERTSEARCHCRITERIA", &criteria);
    let nonce = |nonce: &Nonce| bytes::encode(nonce.expose());
    characteristic(xml, "APPAUTH");
    parm(xml, "AAUTHLEVEL", "CLIENT");
    parm(xml, "AAUTHTYPE", "DIGEST");
    parm(xml, "AAUTHSECRET", account.server.secret.expose_str());
    parm(xml, "AAUTHDATA", &nonce(&account.server.nonce));
    xml.close();
    characteristic(xml, "APPAUTH");
    parm(xml, "AAUTHLEVEL", "APPSRV");
    parm(xml, "AAUTHTYPE", account.client.scheme.as_str());
    parm(xml, "AAUTHNAME", &account.client.name);
    parm(xml, "AAUTHSECRET", account.client.secret.expose_str());
    parm(xml, "AAUTHDATA", &nonce(&account.client.nonce));
    xml.close().close();
    Ok(())
}

fn dm_client(xml: &mut Writing, client: &DmClient, provider: &ProviderId) {
    characteristic(xml, "DMClient");
    characteristic(xml, "Provider");
    characteristic(xml, provider.as_str());
    let version = client.sync_application_version.map(|version| version.to_string());
    for (name, value) in [
        ("UPN", client.upn.as_deref()),
        ("EntDeviceName", client.ent_device_name.as_deref()),
        ("EntDMID", Some(client.ent_dm_id.as_str())),
        ("SyncApplicationVersion", version.as_deref()),
    ] {
        if let Some(value) = value {
            typed(xml, name, value, "string");
        }
    }
    if client.require_message_signing {
        boolean(xml, "RequireMessageSigning", true);
    }
    poll(xml, &client.poll);
    xml.close().close().close();
}

fn poll(xml: &mut Writing, poll: &Poll) {
    characteristic(xml, "Poll");
    number(xml, "NumberOfFirstRetries", poll.first.times);
    number(xml, "IntervalForFirstSetOfRetries", poll.first.minutes);
    number(xml, "NumberOfSecondRetries", poll.second.times);
    number(xml, "IntervalForSecondSetOfRetries", poll.second.minutes);
    number(xml, "NumberOfRemainingScheduledRetries", poll.remaining.times);
    number(xml, "IntervalForRemainingScheduledRetries", poll.remaining.minutes);
    boolean(xml, "PollOnLogin", poll.on_login);
    boolean(xml, "AllUsersPollOnFirstLogin", poll.all_users_on_first_login);
    xml.close();
}

/// What the types cannot rule out.
fn check(document: &Enrollment) -> Result<(), Error> {
    let no = |reason| Err(Error::Provisioning(reason));
    let (account, client) = (&document.account, &document.client);
    let texts = [Some(&account.name), Some(&account.client.name), Some(&client.ent_dm_id)];
    let optional = [client.upn.as_ref(), client.ent_device_name.as_ref()];
    for text in texts.into_iter().chain(optional).flatten() {
        if text.is_empty() || text.len() > MAX_TEXT || text.trim().len() != text.len() {
            return no("a text is empty, too long, or has white space around it");
        }
        if text.chars().any(char::is_control) {
            return no("a text contains a control character");
        }
    }
    let retry = &account.retry;
    if retry.attempts == 0 || retry.initial_milliseconds > retry.longest_milliseconds {
        return no("the pauses between attempts to connect are wrong");
    }
    if let Some(renewal) = &document.renewal
        && !((1..=1000).contains(&renewal.period_days) && (1..=1000).contains(&renewal.retry_days))
    {
        return no("the days of the renewal schedule are not between 1 and 1000");
    }
    let highest = Version { major: 2, minor: 0 };
    if client.sync_application_version.is_some_and(|version| version > highest) {
        return no("SyncApplicationVersion is above 2.0");
    }
    Ok(())
}
