//! Users of a Mac, each with a channel of their own.

use bellwether_apple::ChannelIds;
use bellwether_apple::checkin::{Message, TokenUpdate};
use bellwether_certs::hash::random_bytes;
use uuid::Uuid;

use super::{AppleDevice, Told};
use crate::{Reply, Result};

/// A local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `UserID`: the GUID of the account. The same person can have the same one on several Macs.
    pub id: String,
    /// `UserShortName`.
    pub short_name: String,
    /// `UserLongName`.
    pub long_name: String,
    /// The push token of the channel.
    pub push_token: Vec<u8>,
    /// The push magic of the channel.
    pub push_magic: String,
}

impl User {
    /// A user with a random GUID and token.
    ///
    /// # Errors
    /// When no random bytes can be had.
    pub fn invent(short_name: &str) -> Result<Self> {
        let upper = |noise| Uuid::from_bytes(noise).hyphenated().to_string().to_uppercase();
        let token: [u8; 32] = random_bytes()?;
        Ok(Self {
            id: upper(random_bytes()?),
            short_name: short_name.to_owned(),
            long_name: short_name.to_owned(),
            push_token: token.to_vec(),
            push_magic: upper(random_bytes()?),
        })
    }
}

impl AppleDevice {
    /// `TokenUpdate` of a user: opens the user channel.
    ///
    /// # Errors
    /// When the device is not enrolled or there was no answer.
    pub async fn user_token_update(&mut self, user: &User) -> Result<Reply> {
        let topic = self.need_enrollment()?.mdm.topic.clone();
        let message = Message::TokenUpdate(TokenUpdate {
            topic,
            token: user.push_token.clone(),
            push_magic: user.push_magic.as_str().into(),
            not_on_console: Some(false),
            user_short_name: Some(user.short_name.clone()),
            user_long_name: Some(user.long_name.clone()),
            ..TokenUpdate::default()
        });
        let ids = self.user_ids(user)?;
        self.check_in(&ids, &message).await
    }

    /// One `Idle` on the user channel, then every command until there are no more.
    ///
    /// # Errors
    /// As [`AppleDevice::poll`].
    pub async fn user_poll(&mut self, user: &User) -> Result<Vec<Told>> {
        let ids = self.user_ids(user)?;
        self.poll_channel(&ids).await
    }

    /// The identifiers of the user's channel.
    ///
    /// # Errors
    /// When the user's id breaks the grammar.
    pub fn user_ids(&self, user: &User) -> Result<ChannelIds> {
        Ok(self.ids()?.with_user(&user.id)?)
    }
}
