//! Showing what is secret, on purpose: audited before it is shown.

use crate::commands::RECOVERY_LOCK;
use crate::error::Error;
use crate::permit::{Permit, may};
use crate::views::RevealedSecret;
use crate::{Engine, audit};
use bellwether_model::{CommandId, EventKind, PartId};
use bellwether_store::Scope;
use secrecy::{ExposeSecret as _, SecretString};

impl Engine {
    /// Shows the PIN or password that was made for a command. Audited before it is shown.
    pub async fn reveal_command_secret(
        &self,
        permit: &Permit<may::RevealSecrets>,
        id: CommandId,
    ) -> Result<RevealedSecret, Error> {
        let row = self
            .store
            .read(Scope::Site(permit.site), move |tx| tx.command(id).map_err(Error::from))
            .await?
            .ok_or(Error::NotFound("command"))?;
        let created_at = row.created_at;
        let (stored, _) = self.open_intent(permit.site, &row).await?;
        let (name, value) = match (&stored.pin, &stored.password) {
            (Some(pin), _) => (format!("{}-pin", row.kind), pin.clone()),
            (None, Some(password)) => (RECOVERY_LOCK.to_owned(), password.clone()),
            (None, None) => return Err(Error::NotFound("secret of this command")),
        };
        self.note_reveal(permit, &format!("command:{id}"), &name).await?;
        Ok(RevealedSecret { name, value: SecretString::from(value), stored_at: created_at })
    }

    /// The device's answers to a command's parts, whole. They may hold secrets, so looking is audited.
    pub async fn command_result(
        &self,
        permit: &Permit<may::RevealSecrets>,
        id: CommandId,
    ) -> Result<Vec<(PartId, String)>, Error> {
        let site = permit.site;
        let parts = self
            .store
            .read(Scope::Site(site), move |tx| {
                tx.command(id)?.ok_or(Error::NotFound("command"))?;
                tx.parts(id).map_err(Error::from)
            })
            .await?;
        self.note_reveal(permit, &format!("command:{id}"), "answers").await?;
        let mut answers = Vec::new();
        for part in parts {
            if let Some(sealed) = part.answer {
                let plain = self.vault.open(site, "part", part.id.as_bytes(), "answer", &sealed)?;
                answers.push((part.id, String::from_utf8_lossy(plain.expose_secret()).into_owned()));
            }
        }
        Ok(answers)
    }

    async fn note_reveal(
        &self,
        permit: &Permit<may::RevealSecrets>,
        target: &str,
        what: &str,
    ) -> Result<(), Error> {
        let entry = audit::entry(
            self.now(),
            &permit.actor,
            EventKind::SecretRevealed,
            target,
            permit.source.as_deref(),
            Some(serde_json::json!({ "what": what })),
        )?;
        self.store
            .write(Scope::Site(permit.site), move |tx| tx.audit_append(&entry).map_err(Error::from))
            .await
    }
}
