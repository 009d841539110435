//! Messages from the device: written, signed, sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_apple::ChannelIds;
use bellwether_apple::checkin::{
    Authenticate, CHECK_IN_CONTENT_TYPE, CheckOut, ErrorItem, GetBootstrapToken, Message,
    REPORT_CONTENT_TYPE, SetBootstrapToken, Status, TokenUpdate,
};
use bellwether_apple::device;
use bellwether_apple::guard::{self, Limits};
use bellwether_certs::cms;
use plist::{Dictionary, Value};
use reqwest::Method;

use super::{AppleDevice, Sent};
use crate::{Error, Reply, Result};

const USER_AGENT: &str = "MDM/1.0";

impl AppleDevice {
    /// `Authenticate`: the device introduces itself.
    ///
    /// # Errors
    /// When the device has no profile or identity, or there was no answer. A status is an answer.
    pub async fn authenticate(&mut self) -> Result<Reply> {
        let message = Message::Authenticate(self.authenticate_message()?);
        let ids = self.ids()?;
        self.check_in(&ids, &message).await
    }

    /// `TokenUpdate`: the device can be managed from now on.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn token_update(&mut self) -> Result<Reply> {
        let message = Message::TokenUpdate(TokenUpdate {
            topic: self.need_enrollment()?.mdm.topic.clone(),
            token: self.tokens.push.clone(),
            push_magic: self.tokens.magic.as_str().into(),
            unlock_token: (!self.hardware.is_mac()).then(|| self.tokens.unlock.as_slice().into()),
            awaiting_configuration: Some(false),
            ..TokenUpdate::default()
        });
        let ids = self.ids()?;
        self.check_in(&ids, &message).await
    }

    /// `CheckOut`: the profile is being removed. Identity and profile stay, so that a test can try
    /// them; [`Self::wipe_enrollment`] removes them.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn checkout(&mut self) -> Result<Reply> {
        let topic = Some(self.need_enrollment()?.mdm.topic.clone());
        let ids = self.ids()?;
        self.check_in(&ids, &Message::CheckOut(CheckOut { topic })).await
    }

    /// `SetBootstrapToken`; `None` makes the server forget it.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn set_bootstrap_token(&mut self, token: Option<&[u8]>) -> Result<Reply> {
        let message = Message::SetBootstrapToken(SetBootstrapToken {
            token: token.map(Into::into),
            awaiting_configuration: None,
        });
        let ids = self.ids()?;
        let reply = self.check_in(&ids, &message).await?;
        self.tokens.bootstrap = token.map(<[u8]>::to_vec);
        Ok(reply)
    }

    /// `GetBootstrapToken`: the token that the server keeps, if any.
    ///
    /// # Errors
    /// [`Error::Refused`] for every other status than 200, else as [`Self::authenticate`].
    pub async fn get_bootstrap_token(&mut self) -> Result<Option<Vec<u8>>> {
        let message = Message::GetBootstrapToken(GetBootstrapToken { awaiting_configuration: None });
        let ids = self.ids()?;
        let reply = self.check_in(&ids, &message).await?.ok("GetBootstrapToken")?;
        if reply.body.is_empty() {
            return Ok(None);
        }
        let Value::Dictionary(mut answer) = guard::parse(&reply.body, &Limits::default())? else {
            return Err(Error::Channel("the bootstrap token came as no dictionary".to_owned()));
        };
        Ok(match answer.remove("BootstrapToken") {
            Some(Value::Data(token)) if !token.is_empty() => Some(token),
            _ => None,
        })
    }

    /// `Idle`: asks for a command and returns the answer as it is.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn idle(&mut self) -> Result<Reply> {
        let body = device::idle(&self.ids()?)?;
        self.signed_request(body, REPORT_CONTENT_TYPE).await
    }

    /// A report by hand: for an unknown UUID, twice, or a contradicting one.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn report(
        &mut self,
        status: Status,
        command_uuid: &str,
        chain: &[ErrorItem],
        response: Dictionary,
    ) -> Result<Reply> {
        let ids = self.ids()?;
        self.report_on(&ids, status, command_uuid, chain, response).await
    }

    /// Sends the last request again, byte for byte, signature included.
    ///
    /// # Errors
    /// When there was none, or no answer.
    pub async fn replay(&self) -> Result<Reply> {
        let sent = self.last.as_ref().ok_or(Error::Missing("earlier request"))?;
        self.put(&sent.body, &sent.headers).await
    }

    /// Puts any bytes with any headers to the server, signing nothing.
    ///
    /// # Errors
    /// When the device has no profile or there was no answer.
    pub async fn raw_request(&self, body: Vec<u8>, headers: &[(&str, &str)]) -> Result<Reply> {
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.put(&body, &headers).await
    }

    /// Signs a body and puts it to the server: the way of every message.
    ///
    /// # Errors
    /// When the device has no profile or identity, or there was no answer.
    pub async fn signed_request(&mut self, body: Vec<u8>, content_type: &str) -> Result<Reply> {
        let headers = vec![
            ("content-type".to_owned(), content_type.to_owned()),
            ("user-agent".to_owned(), USER_AGENT.to_owned()),
            ("accept".to_owned(), "*/*".to_owned()),
            ("cache-control".to_owned(), "no-cache".to_owned()),
            ("mdm-signature".to_owned(), self.signature(&body)?),
        ];
        let reply = self.put(&body, &headers).await;
        self.last = Some(Sent { body, headers });
        reply
    }

    /// The value of `Mdm-Signature` for a body, in the shape of this device.
    ///
    /// # Errors
    /// When the device has no identity.
    pub fn signature(&self, body: &[u8]) -> Result<String> {
        let identity = self.need_identity()?;
        let signature = cms::sign_detached(body, &identity.cert_der, &identity.key, self.shape)?;
        Ok(STANDARD.encode(signature))
    }

    /// The bytes of `Idle`, which never change.
    ///
    /// # Errors
    /// When the UDID breaks the grammar.
    pub fn idle_body(&self) -> Result<Vec<u8>> {
        Ok(device::idle(&self.ids()?)?)
    }

    /// Sends any check-in message of any channel.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn check_in(&mut self, ids: &ChannelIds, message: &Message) -> Result<Reply> {
        let body = device::check_in(ids, message)?;
        self.signed_request(body, CHECK_IN_CONTENT_TYPE).await
    }

    pub(super) async fn report_on(
        &mut self,
        ids: &ChannelIds,
        status: Status,
        command_uuid: &str,
        chain: &[ErrorItem],
        response: Dictionary,
    ) -> Result<Reply> {
        let body = device::report(ids, status, Some(command_uuid), chain, response)?;
        self.signed_request(body, REPORT_CONTENT_TYPE).await
    }

    pub(super) fn authenticate_message(&self) -> Result<Authenticate> {
        let hardware = &self.hardware;
        let on_mac = |text: &str| hardware.is_mac().then(|| text.to_owned());
        Ok(Authenticate {
            topic: self.need_enrollment()?.mdm.topic.clone(),
            os_version: Some(hardware.os_version.clone()),
            build_version: Some(hardware.build.clone()),
            product_name: Some(hardware.product_name.clone()),
            serial_number: Some(hardware.serial.clone()),
            // Phones and tablets send neither model nor name.
            model: on_mac(&hardware.model),
            model_name: on_mac(&hardware.model_name),
            device_name: on_mac(&self.inventory.name),
            imei: hardware.imei.clone(),
            meid: None,
        })
    }

    async fn put(&self, body: &[u8], headers: &[(String, String)]) -> Result<Reply> {
        let mdm = &self.need_enrollment()?.mdm;
        let is_check_in =
            headers.iter().any(|(name, value)| name == "content-type" && value == CHECK_IN_CONTENT_TYPE);
        let url = mdm.check_in_url.as_ref().filter(|_| is_check_in).unwrap_or(&mdm.server_url);
        let mut request = self.http.request(Method::PUT, url).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.http.send("MDM request", request).await
    }
}
