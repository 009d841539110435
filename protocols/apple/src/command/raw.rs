//! Commands that an administrator wrote as a property list.

use plist::{Dictionary, Value};

use crate::Error;
use crate::guard::{self, Limits};

/// A command of any type. `Debug` shows the request type only.
#[derive(Clone, PartialEq)]
pub struct RawCommand {
    request_type: String,
    dictionary: Dictionary,
}

impl RawCommand {
    /// Reads a property list, XML or binary: either the inner dictionary with its `RequestType`, or
    /// a whole `{CommandUUID, Command {…}}` whose UUID is dropped (the server makes its own).
    ///
    /// # Errors
    /// When the guard refuses it, or there is no usable `RequestType`.
    pub fn from_plist(bytes: &[u8]) -> Result<Self, Error> {
        let Value::Dictionary(mut outer) = guard::parse(bytes, &Limits::default())? else {
            return Err(Error::NotADictionary);
        };
        if outer.contains_key("RequestType") {
            return Self::from_dictionary(outer);
        }
        match outer.remove("Command") {
            Some(Value::Dictionary(command)) => Self::from_dictionary(command),
            Some(_) => Err(Error::BadField { message: "the command", field: "Command" }),
            None => Err(Error::MissingField { message: "the command", field: "RequestType" }),
        }
    }

    /// Takes an inner dictionary.
    ///
    /// # Errors
    /// When there is no usable `RequestType`.
    pub fn from_dictionary(dictionary: Dictionary) -> Result<Self, Error> {
        let Some(Value::String(request_type)) = dictionary.get("RequestType") else {
            return Err(Error::MissingField { message: "the command", field: "RequestType" });
        };
        let sound =
            (1..=64).contains(&request_type.len()) && request_type.bytes().all(|b| b.is_ascii_alphanumeric());
        if !sound {
            return Err(Error::BadField { message: "the command", field: "RequestType" });
        }
        Ok(Self { request_type: request_type.clone(), dictionary })
    }

    /// `RequestType`.
    #[must_use]
    pub fn request_type(&self) -> &str {
        &self.request_type
    }

    /// The inner dictionary, `RequestType` included.
    #[must_use]
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }
}

impl std::fmt::Debug for RawCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawCommand({})", self.request_type)
    }
}
