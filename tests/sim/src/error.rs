//! What can go wrong for a simulated device.

/// The one error of this crate: each variant says whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network, TLS, or a URL.
    #[error("{what}: {source}")]
    Http {
        /// What was being done.
        what: &'static str,
        /// Why it failed, with the chain of causes.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with another status than the road needs.
    #[error("{what}: the server answered {status}: {body}")]
    Refused {
        /// What was being done.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, as text.
        body: String,
    },
    /// The server's certificate authority refused, in SCEP's own terms.
    #[error("SCEP: {0}")]
    Scep(String),
    /// The enrollment profile cannot be used.
    #[error("enrollment profile: {0}")]
    Profile(String),
    /// The server sent something that is not a command.
    #[error("command channel: {0}")]
    Channel(String),
    /// The device has not got far enough on the road for that.
    #[error("the device has no {0}")]
    Missing(&'static str),
    /// A property list could not be read or written.
    #[error(transparent)]
    Apple(#[from] bellwether_apple::Error),
    /// An enrollment service for Windows answered with a fault.
    #[error("{what}: {:#010x} {:?}: {}", .fault.client_error(), .fault.subcode, .fault.reason)]
    Fault {
        /// What was being done.
        what: &'static str,
        /// The fault.
        fault: Box<bellwether_windows::enrollment::Fault>,
    },
    /// A Windows machine would not enroll with what the server answered.
    #[error("Windows enrollment: {0}")]
    Enrollment(String),
    /// A message of Windows enrollment could not be read or written.
    #[error("Windows enrollment: {0}")]
    Soap(#[from] bellwether_windows::enrollment::Error),
    /// A SyncML message could not be read or written.
    #[error("session: {0}")]
    SyncMl(#[from] bellwether_windows::syncml::Error),
    /// A key, certificate or signature.
    #[error(transparent)]
    Certs(#[from] bellwether_certs::Error),
    /// The file that keeps a device between runs, or a CA file.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller asked for something that this program does not do.
    #[error("{0}")]
    Usage(String),
}

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The fault, when an enrollment service for Windows answered with one.
    #[must_use]
    pub fn fault(&self) -> Option<&bellwether_windows::enrollment::Fault> {
        match self {
            Self::Fault { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// The HTTP status, when the server answered with one that was not wanted.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}
