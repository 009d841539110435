//! The nine check-in messages.

use plist::{Dictionary, Value};

use super::fields::Fields;
use crate::{ChannelIds, Error, Opaque};

/// One check-in message with the channel it claims to come from.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckIn {
    /// Device and channel.
    pub ids: ChannelIds,
    /// What the device says.
    pub message: Message,
    /// Optional fields that were dropped, in words.
    pub problems: Vec<String>,
}

/// A check-in message by its `MessageType`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// `mdm/checkin/authenticate.yaml`: the device wants to enroll. 200 does not mean enrolled yet.
    Authenticate(Authenticate),
    /// `mdm/checkin/tokenupdate.yaml`: how to wake the channel.
    TokenUpdate(TokenUpdate),
    /// `mdm/checkin/checkout.yaml`: the enrollment was removed.
    CheckOut(CheckOut),
    /// `mdm/checkin/userauthenticate.yaml`: a network user logs in to a Mac.
    UserAuthenticate(UserAuthenticate),
    /// `mdm/checkin/setbootstraptoken.yaml`.
    SetBootstrapToken(SetBootstrapToken),
    /// `mdm/checkin/getbootstraptoken.yaml`.
    GetBootstrapToken(GetBootstrapToken),
    /// `mdm/checkin/declarativemanagement.yaml`.
    DeclarativeManagement(DeclarativeManagement),
    /// `mdm/checkin/gettoken.yaml`.
    GetToken(GetToken),
    /// `mdm/checkin/returntoservice.yaml` (iOS 26): may the device erase itself and come back?
    ReturnToService,
}

impl Message {
    /// The `MessageType` of the message.
    #[must_use]
    pub fn message_type(&self) -> &'static str {
        match self {
            Self::Authenticate(_) => "Authenticate",
            Self::TokenUpdate(_) => "TokenUpdate",
            Self::CheckOut(_) => "CheckOut",
            Self::UserAuthenticate(_) => "UserAuthenticate",
            Self::SetBootstrapToken(_) => "SetBootstrapToken",
            Self::GetBootstrapToken(_) => "GetBootstrapToken",
            Self::DeclarativeManagement(_) => "DeclarativeManagement",
            Self::GetToken(_) => "GetToken",
            Self::ReturnToService => "ReturnToService",
        }
    }
}

/// `Authenticate`. A user enrollment tells neither serial number nor UDID; only Macs tell
/// `DeviceName`, `Model` and `ModelName`; access rights can hide the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Authenticate {
    /// The push topic of the profile that the device has.
    pub topic: String,
    /// `OSVersion`, such as `14.2.1`.
    pub os_version: Option<String>,
    /// `BuildVersion`, such as `23C71`.
    pub build_version: Option<String>,
    /// `ProductName`, such as `Mac14,2`.
    pub product_name: Option<String>,
    /// `SerialNumber`.
    pub serial_number: Option<String>,
    /// `Model`.
    pub model: Option<String>,
    /// `ModelName`, such as `MacBook Air`.
    pub model_name: Option<String>,
    /// `DeviceName`.
    pub device_name: Option<String>,
    /// `IMEI`.
    pub imei: Option<String>,
    /// `MEID`.
    pub meid: Option<String>,
}

/// `TokenUpdate`. An absent optional field says nothing: it never erases what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenUpdate {
    /// The push topic.
    pub topic: String,
    /// The push token: opaque bytes, not always 32.
    pub token: Vec<u8>,
    /// The value that a push must carry.
    pub push_magic: Opaque,
    /// Clears the passcode of this device. Only when present and not empty.
    pub unlock_token: Option<Opaque>,
    /// The Setup Assistant waits for `DeviceConfigured`.
    pub awaiting_configuration: Option<bool>,
    /// macOS user channel: the user is not at the console.
    pub not_on_console: Option<bool>,
    /// The user's short name.
    pub user_short_name: Option<String>,
    /// The user's long name.
    pub user_long_name: Option<String>,
}

/// `CheckOut`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOut {
    /// The push topic.
    pub topic: Option<String>,
}

/// `UserAuthenticate`. The first request has no digest, the second answers the challenge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserAuthenticate {
    /// `DigestResponse`, password-equivalent.
    pub digest_response: Option<Opaque>,
}

/// `SetBootstrapToken`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetBootstrapToken {
    /// The token to keep; none means: forget the one you have.
    pub token: Option<Opaque>,
    /// The Setup Assistant waits for `DeviceConfigured`.
    pub awaiting_configuration: Option<bool>,
}

/// `GetBootstrapToken`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GetBootstrapToken {
    /// The Setup Assistant waits for `DeviceConfigured`.
    pub awaiting_configuration: Option<bool>,
}

/// `DeclarativeManagement`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct DeclarativeManagement {
    /// `tokens`, `declaration-items`, `status` or `declaration/…`; see [`Endpoint`].
    pub endpoint: String,
    /// A JSON document, present with `status`.
    pub data: Option<Vec<u8>>,
}

/// An `Endpoint` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The synchronisation tokens.
    Tokens,
    /// The manifest.
    DeclarationItems,
    /// The device reports its status.
    Status,
    /// One declaration.
    Declaration {
        /// `activation`, `configuration`, `asset` or `management`.
        kind: String,
        /// The identifier; it may contain slashes.
        identifier: String,
    },
}

impl DeclarativeManagement {
    /// The endpoint taken apart, or nothing when it is none of Apple's (answer 404).
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self.endpoint.as_str() {
            "tokens" => Some(Endpoint::Tokens),
            "declaration-items" => Some(Endpoint::DeclarationItems),
            "status" => Some(Endpoint::Status),
            other => {
                let (kind, identifier) = other.strip_prefix("declaration/")?.split_once('/')?;
                let known = matches!(kind, "activation" | "configuration" | "asset" | "management");
                (known && !identifier.is_empty()).then(|| Endpoint::Declaration {
                    kind: kind.to_owned(),
                    identifier: identifier.to_owned(),
                })
            }
        }
    }
}

impl std::fmt::Debug for DeclarativeManagement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeclarativeManagement")
            .field("endpoint", &self.endpoint)
            .field("data_bytes", &self.data.as_ref().map(Vec::len))
            .finish()
    }
}

/// `GetToken`. Answer 400 for a service that the server does not know.
#[derive(Clone, PartialEq, Default)]
pub struct GetToken {
    /// `com.apple.maid` or `com.apple.watch.pairing`.
    pub service_type: String,
    /// `TokenParameters`; those of watch pairing contain a `SecurityToken`.
    pub parameters: Option<Dictionary>,
}

impl std::fmt::Debug for GetToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetToken")
            .field("service_type", &self.service_type)
            .field("parameters", &self.parameters.as_ref().map(|p| p.keys().collect::<Vec<_>>()))
            .finish()
    }
}

/// Reads a dictionary that has a `MessageType`.
pub(super) fn decode(message: Dictionary) -> Result<CheckIn, Error> {
    let message_type = match message.get("MessageType") {
        Some(Value::String(name)) => name.clone(),
        _ => return Err(Error::BadField { message: "the message", field: "MessageType" }),
    };
    let ids = ChannelIds::read(&message)?;
    let mut fields = Fields::new(message);
    let message = match message_type.as_str() {
        "Authenticate" => Message::Authenticate(authenticate(&mut fields)?),
        "TokenUpdate" => Message::TokenUpdate(token_update(&mut fields)?),
        "CheckOut" => Message::CheckOut(CheckOut { topic: fields.text("Topic") }),
        "UserAuthenticate" => Message::UserAuthenticate(user_authenticate(&mut fields)?),
        "SetBootstrapToken" => Message::SetBootstrapToken(set_bootstrap_token(&mut fields)?),
        "GetBootstrapToken" => Message::GetBootstrapToken(GetBootstrapToken {
            awaiting_configuration: fields.boolean("AwaitingConfiguration"),
        }),
        "DeclarativeManagement" => Message::DeclarativeManagement(declarative_management(&mut fields)?),
        "GetToken" => Message::GetToken(get_token(&mut fields)?),
        "ReturnToService" => Message::ReturnToService,
        _ => return Err(Error::UnknownMessageType),
    };
    let (_, problems) = fields.finish();
    Ok(CheckIn { ids, message, problems })
}

fn authenticate(fields: &mut Fields) -> Result<Authenticate, Error> {
    Ok(Authenticate {
        topic: fields.essential_text("Authenticate", "Topic")?,
        os_version: fields.text("OSVersion"),
        build_version: fields.text("BuildVersion"),
        product_name: fields.text("ProductName"),
        serial_number: fields.text("SerialNumber"),
        model: fields.text("Model"),
        model_name: fields.text("ModelName"),
        device_name: fields.text("DeviceName"),
        imei: fields.text("IMEI"),
        meid: fields.text("MEID"),
    })
}

fn token_update(fields: &mut Fields) -> Result<TokenUpdate, Error> {
    Ok(TokenUpdate {
        topic: fields.essential_text("TokenUpdate", "Topic")?,
        token: fields.essential_data("TokenUpdate", "Token")?.into_exposed(),
        push_magic: Opaque::from(fields.essential_text("TokenUpdate", "PushMagic")?),
        unlock_token: fields.secret("UnlockToken"),
        awaiting_configuration: fields.boolean("AwaitingConfiguration"),
        not_on_console: fields.boolean("NotOnConsole"),
        user_short_name: fields.text("UserShortName"),
        user_long_name: fields.text("UserLongName"),
    })
}

fn user_authenticate(fields: &mut Fields) -> Result<UserAuthenticate, Error> {
    let digest_response = match fields.take("DigestResponse") {
        None => None,
        Some(Value::String(digest)) if digest.is_empty() => None,
        Some(Value::String(digest)) => Some(Opaque::from(digest)),
        Some(_) => {
            return Err(Error::BadField { message: "UserAuthenticate", field: "DigestResponse" });
        }
    };
    Ok(UserAuthenticate { digest_response })
}

/// A token of the wrong type is an error: taken for an absent one it would erase the stored one.
fn set_bootstrap_token(fields: &mut Fields) -> Result<SetBootstrapToken, Error> {
    let token = match fields.take("BootstrapToken") {
        None => None,
        Some(Value::Data(bytes)) if bytes.is_empty() => None,
        Some(Value::Data(bytes)) => Some(Opaque::from(bytes)),
        Some(_) => {
            return Err(Error::BadField { message: "SetBootstrapToken", field: "BootstrapToken" });
        }
    };
    let awaiting_configuration = fields.boolean("AwaitingConfiguration");
    Ok(SetBootstrapToken { token, awaiting_configuration })
}

fn declarative_management(fields: &mut Fields) -> Result<DeclarativeManagement, Error> {
    let endpoint = fields.essential_text("DeclarativeManagement", "Endpoint")?;
    let data = match fields.take("Data") {
        None => None,
        Some(Value::Data(bytes)) => Some(bytes),
        Some(_) => {
            return Err(Error::BadField { message: "DeclarativeManagement", field: "Data" });
        }
    };
    Ok(DeclarativeManagement { endpoint, data })
}

fn get_token(fields: &mut Fields) -> Result<GetToken, Error> {
    let service_type = fields.essential_text("GetToken", "TokenServiceType")?;
    let parameters = match fields.take("TokenParameters") {
        None => None,
        Some(Value::Dictionary(parameters)) => Some(parameters),
        Some(_) => {
            return Err(Error::BadField { message: "GetToken", field: "TokenParameters" });
        }
    };
    Ok(GetToken { service_type, parameters })
}
