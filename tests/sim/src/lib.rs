//! Simulated devices with real keys, as a library and as the `bellwether-sim` binary.
//!
//! A simulated device takes the road that a real one takes. An Apple device opens the invitation link, posts for the
//! enrollment profile, gets its identity by SCEP, checks in, and asks for commands, each message signed in the shape
//! that real devices send. A Windows PC finds the enrollment services, gets its identity from them, and holds OMA-DM
//! sessions over mutual TLS. Nothing is faked: RSA keys, CMS, TLS. What devices tell about themselves is invented but
//! believable, and they behave badly on purpose: an Apple device by its [`Script`], a PC by [`SessionOptions`],
//! answers set by hand, and sessions driven message by message.
//!
//! ```no_run
//! # async fn example() -> Result<(), bellwether_sim::Error> {
//! use bellwether_sim::{AppleDevice, Family, Http, WindowsPc};
//!
//! let http = Http::new(&std::fs::read("ca.pem").unwrap_or_default())?;
//! let mut mac = AppleDevice::builder(Family::Mac, http.clone()).name("Ann's Mac").build()?;
//! mac.enroll("https://localhost:8443/enroll/abcd").await?;
//! for told in mac.poll().await? {
//!     // `told` is a command that the device was given and what it answered.
//!     let _ = (told.request_type, told.reported);
//! }
//!
//! let mut pc = WindowsPc::builder(http).name("PC-1").build()?;
//! pc.enroll_by_link("https://localhost:8443/enroll/efgh").await?;
//! for told in pc.session().await? {
//!     let _ = (told.verb, &told.uri, told.code());
//! }
//! # Ok(())
//! # }
//! ```

pub mod api;
mod apple;
pub mod clock;
mod error;
pub mod files;
mod fleet;
mod http;
mod keys;
pub mod load;
#[cfg(test)]
mod loopback;
mod windows;

pub use apple::{
    AppleDevice, Behaviour, Builder, EnrollOptions, Hardware, Identity, InstalledApp, InstalledProfile,
    Inventory, Page, Profile, ProfileOptions, Rule, ScepAttempt, ScepCipher, ScepOptions, ScepTransport,
    Script, Told, User,
};
pub use bellwether_apple::Family;
pub use bellwether_apple::checkin::{ErrorItem, Status};
pub use bellwether_certs::cms::Shape;
pub use error::{Error, Result};
pub use fleet::{Fleet, FleetOptions};
pub use http::{Exchange, Http, Record, Reply};
pub use keys::KeyPool;
pub use windows::{
    CsrOptions, PcAccount, PcBuilder, PcCertificate, PcHardware, PcInventory, PcPackage, PcSession, PcStep,
    PcTold, RenewOptions, SessionOptions, SoapReply, TokenOptions, TokenRequest, WindowsPc, WipeFate,
};
