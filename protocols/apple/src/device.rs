//! The device's end of the protocol, for simulators and tests: every message that
//! [`crate::checkin::decode`] reads, written as an XML property list.

use plist::{Dictionary, Value};

use crate::checkin::{
    Authenticate, CheckOut, DeclarativeManagement, ErrorItem, GetBootstrapToken, GetToken, Message,
    SetBootstrapToken, Status, TokenUpdate, UserAuthenticate,
};
use crate::xml::{self, Keys};
use crate::{ChannelIds, Error};

/// Writes a check-in message.
///
/// # Errors
/// [`Error::NotWritable`] when a text contains a control character.
pub fn check_in(ids: &ChannelIds, message: &Message) -> Result<Vec<u8>, Error> {
    let mut body = Keys::new().with("MessageType", message.message_type()).done();
    ids.write(&mut body);
    let keys = match message {
        Message::Authenticate(message) => authenticate_keys(message),
        Message::TokenUpdate(message) => token_update_keys(message)?,
        Message::CheckOut(CheckOut { topic }) => Keys::new().maybe("Topic", topic.clone()).done(),
        Message::UserAuthenticate(UserAuthenticate { digest_response }) => {
            let digest = digest_response.as_ref().map(xml::text).transpose()?;
            Keys::new().maybe("DigestResponse", digest).done()
        }
        Message::SetBootstrapToken(SetBootstrapToken { token, awaiting_configuration }) => Keys::new()
            .maybe("BootstrapToken", token.as_ref().map(xml::data))
            .maybe("AwaitingConfiguration", *awaiting_configuration)
            .done(),
        Message::GetBootstrapToken(GetBootstrapToken { awaiting_configuration }) => {
            Keys::new().maybe("AwaitingConfiguration", *awaiting_configuration).done()
        }
        Message::DeclarativeManagement(DeclarativeManagement { endpoint, data }) => {
            Keys::new().with("Endpoint", endpoint.clone()).maybe("Data", data.clone().map(Value::Data)).done()
        }
        Message::GetToken(GetToken { service_type, parameters }) => Keys::new()
            .with("TokenServiceType", service_type.clone())
            .maybe("TokenParameters", parameters.clone())
            .done(),
        Message::ReturnToService => Dictionary::new(),
    };
    for (key, value) in keys {
        body.insert(key, value);
    }
    xml::encode(body)
}

fn authenticate_keys(message: &Authenticate) -> Dictionary {
    Keys::new()
        .with("Topic", message.topic.clone())
        .maybe("OSVersion", message.os_version.clone())
        .maybe("BuildVersion", message.build_version.clone())
        .maybe("ProductName", message.product_name.clone())
        .maybe("SerialNumber", message.serial_number.clone())
        .maybe("Model", message.model.clone())
        .maybe("ModelName", message.model_name.clone())
        .maybe("DeviceName", message.device_name.clone())
        .maybe("IMEI", message.imei.clone())
        .maybe("MEID", message.meid.clone())
        .done()
}

fn token_update_keys(message: &TokenUpdate) -> Result<Dictionary, Error> {
    Ok(Keys::new()
        .with("Topic", message.topic.clone())
        .with("Token", Value::Data(message.token.clone()))
        .with("PushMagic", xml::text(&message.push_magic)?)
        .maybe("UnlockToken", message.unlock_token.as_ref().map(xml::data))
        .maybe("AwaitingConfiguration", message.awaiting_configuration)
        .maybe("NotOnConsole", message.not_on_console)
        .maybe("UserShortName", message.user_short_name.clone())
        .maybe("UserLongName", message.user_long_name.clone())
        .done())
}

/// Writes a report. `response` is the answer's own keys.
///
/// # Errors
/// [`Error::NotWritable`] when a text contains a control character.
pub fn report(
    ids: &ChannelIds,
    status: Status,
    command_uuid: Option<&str>,
    error_chain: &[ErrorItem],
    response: Dictionary,
) -> Result<Vec<u8>, Error> {
    let chain = error_chain.iter().map(|item| {
        let entry = Keys::new()
            .with("ErrorCode", item.code)
            .with("ErrorDomain", item.domain.clone())
            .with("LocalizedDescription", item.localized.clone())
            .maybe("USEnglishDescription", item.us_english.clone());
        Value::Dictionary(entry.done())
    });
    let chain = (!error_chain.is_empty()).then(|| Value::Array(chain.collect()));
    let mut body = response;
    body.insert("Status".to_owned(), Value::String(status.as_str().to_owned()));
    ids.write(&mut body);
    let keys = Keys::new().maybe("CommandUUID", command_uuid).maybe("ErrorChain", chain).done();
    for (key, value) in keys {
        body.insert(key, value);
    }
    xml::encode(body)
}

/// Writes `Idle`: give me a command.
///
/// # Errors
/// As [`report`].
pub fn idle(ids: &ChannelIds) -> Result<Vec<u8>, Error> {
    report(ids, Status::Idle, None, &[], Dictionary::new())
}

/// Writes `Acknowledged` with the answer's keys.
///
/// # Errors
/// As [`report`].
pub fn acknowledged(ids: &ChannelIds, command_uuid: &str, response: Dictionary) -> Result<Vec<u8>, Error> {
    report(ids, Status::Acknowledged, Some(command_uuid), &[], response)
}

/// Writes `Error` with its chain.
///
/// # Errors
/// As [`report`].
pub fn error(ids: &ChannelIds, command_uuid: &str, error_chain: &[ErrorItem]) -> Result<Vec<u8>, Error> {
    report(ids, Status::Error, Some(command_uuid), error_chain, Dictionary::new())
}

/// Writes `CommandFormatError`.
///
/// # Errors
/// As [`report`].
pub fn command_format_error(
    ids: &ChannelIds,
    command_uuid: &str,
    error_chain: &[ErrorItem],
) -> Result<Vec<u8>, Error> {
    report(ids, Status::CommandFormatError, Some(command_uuid), error_chain, Dictionary::new())
}

/// Writes `NotNow`.
///
/// # Errors
/// As [`report`].
pub fn not_now(ids: &ChannelIds, command_uuid: &str) -> Result<Vec<u8>, Error> {
    report(ids, Status::NotNow, Some(command_uuid), &[], Dictionary::new())
}
