//! Apple push certificates: import behind the topic guard, and their state.

use crate::error::Error;
use crate::permit::{Permit, may};
use crate::ports::PushIdentity;
use crate::views::PushCertView;
use crate::{Engine, audit};
use bellwether_certs::cert::ders_to_pem;
use bellwether_certs::push::PushCert as Imported;
use bellwether_model::{EventKind, SiteId, Timestamp};
use bellwether_store::Scope;
use bellwether_store::records::PushCert;
use secrecy::{ExposeSecret as _, SecretString};

impl Engine {
    /// Imports a push certificate: key, topic and dates are checked. A topic that the enrolled devices do not know is
    /// refused: they would never hear from us again. Whoever wants it nevertheless names how many go dark.
    pub async fn import_push_cert(
        &self,
        permit: &Permit<may::WritePush>,
        certificate_pem: &str,
        key_pem: SecretString,
        confirm_loss: Option<i64>,
    ) -> Result<PushCertView, Error> {
        let now = self.now();
        let imported =
            Imported::import(certificate_pem.as_bytes(), key_pem.expose_secret().as_bytes(), now.0)
                .map_err(|e| Error::Invalid(e.to_string()))?;
        let site = permit.site;
        let topic = imported.topic.clone();
        let mut pems = vec![imported.leaf.der.clone()];
        pems.extend(imported.chain.iter().cloned());
        let key = imported.key.to_pkcs8_der()?;
        let row = PushCert {
            topic: topic.clone(),
            certificate: ders_to_pem(&pems),
            key: self.vault.seal(site, "push-cert", topic.as_bytes(), "key", key.expose_secret())?,
            not_before: Timestamp(imported.leaf.not_before_ms),
            not_after: Timestamp(imported.not_after_ms),
            imported_at: now,
            version: 1,
        };
        let entry = audit::entry(
            now,
            &permit.actor,
            EventKind::PushCertImported,
            &format!("push-cert:{topic}"),
            permit.source.as_deref(),
            Some(serde_json::json!({ "not_after": row.not_after, "confirm_loss": confirm_loss })),
        )?;
        let stored = row.clone();
        let enrollments = self
            .store
            .write(Scope::Site(site), move |tx| {
                let counts = tx.topic_counts()?;
                let lost: i64 = counts.iter().filter(|(t, _)| *t != stored.topic).map(|(_, n)| n).sum();
                let known = tx.push_cert(&stored.topic)?.is_some();
                if lost > 0 && !known && confirm_loss != Some(lost) {
                    let old: Vec<&str> =
                        counts.iter().filter(|(t, _)| *t != stored.topic).map(|(t, _)| t.as_str()).collect();
                    return Err(Error::Conflict(format!(
                        "this certificate's topic is {}, but {lost} enrolled devices know only {}. Renew the \
                         certificate with that topic (same Apple Account, \"Renew\", not \"Create\"). To import this \
                         one anyway and lose them, confirm the number: {lost}.",
                        stored.topic,
                        old.join(", ")
                    )));
                }
                tx.push_cert_put(&stored)?;
                tx.audit_append(&entry)?;
                Ok(counts.iter().find(|(t, _)| *t == stored.topic).map_or(0, |(_, n)| *n))
            })
            .await?;
        self.work.notify_one();
        Ok(view(row, enrollments))
    }

    /// All push certificates of a site.
    pub async fn push_certs(&self, permit: &Permit<may::ReadPush>) -> Result<Vec<PushCertView>, Error> {
        self.store
            .read(Scope::Site(permit.site), |tx| {
                let counts = tx.topic_counts()?;
                let rows = tx.push_certs()?;
                Ok(rows
                    .into_iter()
                    .map(|row| {
                        let n = counts.iter().find(|(t, _)| *t == row.topic).map_or(0, |(_, n)| *n);
                        view(row, n)
                    })
                    .collect())
            })
            .await
    }

    /// The topic that new enrollments get: of the valid certificate that was imported last.
    pub(crate) async fn newest_topic(&self, site: SiteId, now: Timestamp) -> Result<Option<String>, Error> {
        let rows = self.store.read(Scope::Site(site), |tx| tx.push_certs().map_err(Error::from)).await?;
        Ok(rows
            .into_iter()
            .filter(|c| c.not_before <= now && now < c.not_after)
            .max_by_key(|c| c.imported_at)
            .map(|c| c.topic))
    }

    /// A certificate opened for pushing.
    pub(crate) async fn push_identity(
        &self,
        site: SiteId,
        topic: &str,
    ) -> Result<Option<PushIdentity>, Error> {
        let wanted = topic.to_owned();
        let row =
            self.store.read(Scope::Site(site), move |tx| tx.push_cert(&wanted).map_err(Error::from)).await?;
        let Some(row) = row else { return Ok(None) };
        let key = self.vault.open(site, "push-cert", topic.as_bytes(), "key", &row.key)?;
        Ok(Some(PushIdentity {
            topic: row.topic,
            version: row.version,
            certificate_pem: row.certificate,
            key,
        }))
    }
}

fn view(row: PushCert, enrollments: i64) -> PushCertView {
    PushCertView {
        topic: row.topic,
        not_before: row.not_before,
        not_after: row.not_after,
        imported_at: row.imported_at,
        enrollments,
    }
}
