//! The requests of a machine.

use super::{
    DiscoverRequest, Envelope, Error, Exchange, GetPolicies, RequestSecurityToken, names, soap::Header,
};

/// What a machine asks for. Which endpoint it came to does not matter for reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// MS-MDE2 3.1.4.1.
    Discover(DiscoverRequest),
    /// MS-XCEP 3.1.4.1.1.
    GetPolicies(GetPolicies),
    /// MS-WSTEP 3.1.4.1.
    RequestSecurityToken(RequestSecurityToken),
}

impl Message {
    /// The exchange that this message begins; a reply, a fault too, is written for it.
    #[must_use]
    pub fn exchange(&self) -> Exchange {
        match self {
            Self::Discover(_) => Exchange::Discover,
            Self::GetPolicies(_) => Exchange::GetPolicies,
            Self::RequestSecurityToken(_) => Exchange::RequestSecurityToken,
        }
    }
}

impl Envelope {
    /// Reads the request in the body.
    ///
    /// # Errors
    /// [`Error::UnknownMessage`], [`Error::ActionMismatch`], or what is wrong with the message.
    pub fn message(&self) -> Result<Message, Error> {
        let content = self.content()?;
        // Microsoft's sample for certificates has a context beside the message, and nothing else has company.
        if self.body()?.children().skip(1).any(|other| other.name() != "AdditionalContext") {
            return Err(Error::Repeated { field: "the message in the body" });
        }
        let message = if content.is("Discover", &[names::DISCOVERY]) {
            fits(self.header(), Exchange::Discover)?;
            Message::Discover(DiscoverRequest::decode(&content)?)
        } else if content.is("GetPolicies", &[names::POLICY]) {
            fits(self.header(), Exchange::GetPolicies)?;
            Message::GetPolicies(GetPolicies::decode(&content, &self.body()?)?)
        } else if content.is("RequestSecurityToken", &[names::TRUST]) {
            fits(self.header(), Exchange::RequestSecurityToken)?;
            Message::RequestSecurityToken(RequestSecurityToken::decode(&content)?)
        } else {
            return Err(Error::UnknownMessage);
        };
        Ok(message)
    }
}

fn fits(header: &Header, exchange: Exchange) -> Result<(), Error> {
    match &header.action {
        Some(action) if action.trim_end_matches('/') != exchange.request_action() => {
            Err(Error::ActionMismatch)
        }
        _ => Ok(()),
    }
}
