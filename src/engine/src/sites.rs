//! Sites: customers of the server, behind hard walls.

use crate::Engine;
use crate::error::Error;
use crate::vault::new_uuid;
use bellwether_model::{Actor, EventKind, SiteId};
use bellwether_store::Scope;
use bellwether_store::records::Site;

/// The longest name, in characters.
const MAX_NAME: usize = 100;

impl Engine {
    /// Makes a site with a key and a device CA of its own; its audit begins with it. No route calls this: a server has
    /// one site until sites can be administered. Other nodes know the site from their next start on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is empty, longer than 100 characters or not printable.
    pub async fn create_site(&self, name: &str) -> Result<SiteId, Error> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Error::Invalid("a site needs a name of 1 to 100 printable characters".into()));
        }
        let now = self.now();
        let id = SiteId(new_uuid(now)?);
        let row =
            Site { id, name: name.to_owned(), wrapped_key: self.vault.new_site_key(id)?, created_at: now };
        self.vault.add_site(id, &row.wrapped_key)?;
        self.store.write(Scope::System, move |tx| tx.site_insert(&row).map_err(Error::from)).await?;
        self.ensure_device_ca(id, now).await?;
        self.record(
            id,
            Actor::Server("sites".into()),
            EventKind::SettingsChanged,
            &format!("site:{id}"),
            None,
        )
        .await?;
        Ok(id)
    }
}
