//! The command line.

use std::path::PathBuf;

use bellwether_sim::Family;
use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

/// Simulated Apple devices and Windows PCs with real keys, for a Bellwether server of your own.
#[derive(Debug, Parser)]
#[command(name = "bellwether-sim", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Speak to a host that is not this machine. It must be yours: a device that enrolls stays in its
    /// server's records.
    #[arg(long, global = true)]
    pub i_own_this_server: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Follow an invitation link and enroll.
    Enroll(Enroll),
    /// Call home and answer every command.
    Poll(Poll),
    /// Enroll, then keep calling home: for the tour in the README.
    Tour(Tour),
    /// Renew the identity with the key that is in use.
    Renew(Kept),
    /// Leave: tell the server that a person removed the enrollment profile, or disconnected the PC.
    Checkout(Kept),
    /// Enroll many devices and measure throughput and latency.
    Load(Load),
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An iPhone.
    Iphone,
    /// An iPad.
    Ipad,
    /// A Mac.
    Mac,
    /// A Windows PC.
    Pc,
}

impl Kind {
    /// Apple's family, when it is one.
    pub fn apple(self) -> Option<Family> {
        match self {
            Self::Iphone => Some(Family::Iphone),
            Self::Ipad => Some(Family::Ipad),
            Self::Mac => Some(Family::Mac),
            Self::Pc => None,
        }
    }
}

/// The device to make.
#[derive(Debug, Args)]
pub struct Device {
    /// What kind of device.
    #[arg(long, value_enum, default_value_t = Kind::Mac)]
    pub family: Kind,
    /// Its name.
    #[arg(long)]
    pub name: Option<String>,
    /// Its serial number; invented when not given.
    #[arg(long)]
    pub serial: Option<String>,
    /// Its UDID (Apple); invented when not given.
    #[arg(long)]
    pub udid: Option<String>,
    /// Whether it is supervised (Apple); by default Macs are.
    #[arg(long)]
    pub supervised: Option<bool>,
    /// Its DeviceID (PC), 32 hexadecimal digits; invented when not given.
    #[arg(long)]
    pub device_id: Option<String>,
    /// Its HWDevID (PC), 64 hexadecimal digits; invented when not given.
    #[arg(long)]
    pub hw_dev_id: Option<String>,
    /// The version of its operating system: `18.1`, `10.0.26100.2033`.
    #[arg(long)]
    pub os_version: Option<String>,
    /// The number of its edition (PC): 48 is Pro, 4 is Enterprise, 101 is Home.
    #[arg(long)]
    pub edition: Option<u32>,
    /// Speak WBXML (PC).
    #[arg(long)]
    pub wbxml: bool,
}

/// `enroll`.
#[derive(Debug, Args)]
pub struct Enroll {
    /// The invitation link.
    #[arg(long)]
    pub link: Url,
    /// The certificate that the server's TLS certificate stands under (PEM).
    #[arg(long)]
    pub ca: PathBuf,
    /// The device.
    #[command(flatten)]
    pub device: Device,
    /// Keep the device in this file (mode 0600) for later.
    #[arg(long)]
    pub state: Option<PathBuf>,
}

/// `poll`.
#[derive(Debug, Args)]
pub struct Poll {
    /// The device.
    #[command(flatten)]
    pub kept: Kept,
    /// Do not stop.
    #[arg(long)]
    pub forever: bool,
    /// How long to wait between two calls: `5s`, `500ms`, `1m`.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub every: std::time::Duration,
}

/// `tour`.
#[derive(Debug, Args)]
pub struct Tour {
    /// Link, CA, device and file.
    #[command(flatten)]
    pub enroll: Enroll,
    /// How long to wait between two calls: `5s`, `500ms`, `1m`.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub every: std::time::Duration,
}

/// A device that was kept.
#[derive(Debug, Args)]
pub struct Kept {
    /// The file that `enroll` wrote.
    #[arg(long)]
    pub state: PathBuf,
    /// The certificate that the server's TLS certificate stands under (PEM).
    #[arg(long)]
    pub ca: PathBuf,
}

/// `load`.
#[derive(Debug, Args)]
pub struct Load {
    /// The server: `https://localhost:8443`.
    #[arg(long)]
    pub url: Url,
    /// The certificate that the server's TLS certificate stands under (PEM).
    #[arg(long)]
    pub ca: PathBuf,
    /// An API key that may make invitations and commands.
    #[arg(long, env = "BELLWETHER_API_KEY", hide_env_values = true)]
    pub key: String,
    /// How many devices.
    #[arg(long, default_value_t = 50)]
    pub devices: usize,
    /// For how many seconds.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = LoadMode::Idle)]
    pub mode: LoadMode,
    /// How many devices are busy at the same time.
    #[arg(long, default_value_t = 16)]
    pub clients: usize,
    /// Commands for each device per round, with `--mode commands`.
    #[arg(long, default_value_t = 1)]
    pub commands: usize,
    /// What is commanded, with `--mode commands` and `--mode job`: an intent of the API.
    #[arg(long, default_value = r#"{"type":"refresh-inventory"}"#, value_parser = intent, value_name = "JSON")]
    pub intent: serde_json::Value,
    /// A new connection, with its TLS handshake, for every request of an Apple device.
    #[arg(long)]
    pub new_connections: bool,
    /// How PCs reach the server, with `--mode windows-sessions`.
    #[arg(long, value_enum, default_value_t = Reach::Full)]
    pub connections: Reach,
    /// Have PCs send a third message although the server had no command, with `--mode windows-sessions`.
    #[arg(long)]
    pub acknowledge: bool,
    /// Hand out so many keys again and again instead of one for each device, with `--mode windows-settings` and
    /// `--mode job`.
    #[arg(long)]
    pub shared_keys: Option<usize>,
    /// The server's data folder, to say how much a device takes there, with `--mode windows-settings`.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Keep the devices' RSA keys in this file (mode 0600), so that the next run starts at once.
    #[arg(long)]
    pub key_cache: Option<PathBuf>,
}

/// What `load` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoadMode {
    /// Calls with an empty queue.
    Idle,
    /// Commands queued, fetched and answered.
    Commands,
    /// One command for all devices while they call.
    Job,
    /// Whole sessions of PCs: challenge, credential, answers.
    WindowsSessions,
    /// Settings of all PCs, brought once and looked at once more.
    WindowsSettings,
}

/// How PCs reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reach {
    /// Connections are kept.
    Keep,
    /// A new connection for every session, which resumes the TLS session of the one before.
    Resume,
    /// A new connection for every session, with a full handshake of both sides, as real machines do.
    Full,
}

fn intent(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "a number with a unit, such as 5s".to_owned())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    millis
        .filter(|millis| (50..=86_400_000).contains(millis))
        .map(std::time::Duration::from_millis)
        .ok_or_else(|| "between 50ms and a day, in ms, s or m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert_eq!(duration("5s").unwrap().as_millis(), 5_000);
        assert_eq!(duration("500ms").unwrap().as_millis(), 500);
        assert_eq!(duration("2m").unwrap().as_secs(), 120);
        for bad in ["", "s", "1h", "0s", "99999999999999999999s", "5 s"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
