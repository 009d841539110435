//! The command line as clap reads it.

use super::Failure;
use super::intents::IntentArgs;
use bellwether_model::{CommandState, EnrollmentState, Ownership, PackageKind, Platform};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Bellwether: enroll, command and keep in policy the devices of an organisation.
#[derive(Debug, Parser)]
#[command(name = "bellwether", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; without a verb the server starts.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Configuration of the server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Which server the client verbs speak to.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How answers are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Flags that win over environment and file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Server configuration")]
pub struct ServerArgs {
    /// Configuration file (TOML).
    #[arg(long, global = true, env = "BELLWETHER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Any configuration key, such as `--set public.listen=0.0.0.0:8443`. Not for secrets: other users see flags.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

/// Whom to speak to.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Client")]
pub struct ClientArgs {
    /// The server's public URL; `login` remembers it.
    #[arg(long, global = true, env = "BELLWETHER_URL", value_name = "URL")]
    pub url: Option<String>,
    /// PEM file of a CA to trust; `login` remembers it.
    #[arg(long, global = true, env = "BELLWETHER_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// File with the API key; `login` remembers it. The variable BELLWETHER_KEY holds the key itself.
    #[arg(long, global = true, env = "BELLWETHER_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Site id; without it the default site.
    #[arg(long, global = true, value_name = "ID")]
    pub site: Option<uuid::Uuid>,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For programs: the API's own JSON.
    Json,
    /// For people.
    Table,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the server (also without any verb).
    Serve,
    /// Remember a server and a key for the client verbs.
    Login(Login),
    /// Invite people to enroll.
    #[command(subcommand)]
    Invitation(Invitation),
    /// See devices and end their enrollments.
    #[command(subcommand)]
    Device(Device),
    /// Send and follow commands.
    #[command(subcommand)]
    Command(Command),
    /// Follow actions on many devices.
    #[command(subcommand)]
    Job(Job),
    /// Upload files that devices may install.
    #[command(subcommand)]
    Packages(Packages),
    /// Accounts with which several devices may enroll.
    #[command(subcommand)]
    EnrollmentAccounts(EnrollmentAccounts),
    /// Apple's push certificate.
    #[command(subcommand)]
    Apns(Apns),
    /// Who did what.
    #[command(subcommand)]
    Audit(Audit),
    /// Backups: made beside a running server; tried and looked at without one.
    #[command(subcommand)]
    Backup(Backup),
    /// Bring a backup back, on this machine, with every server stopped.
    Restore(RestoreArgs),
    /// The quarantine after a restore.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// API keys.
    #[command(subcommand)]
    Key(Key),
    /// The server's configuration.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print the OpenAPI document of this version.
    Openapi,
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Backups.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Have the server make a backup.
    Now {
        /// Without a server, on this machine's data. With SQLite the server must be stopped.
        #[arg(long)]
        offline: bool,
    },
    /// List the server's backups.
    List {
        /// Without a server: the folder of this machine's configuration.
        #[arg(long)]
        offline: bool,
    },
    /// Open everything in a backup, bring it into a scratch database and look at it. On this machine; a server may run.
    Verify {
        /// A file; without it the newest.
        #[arg(value_name = "FILE", conflicts_with = "all")]
        file: Option<PathBuf>,
        /// Every file of the folder.
        #[arg(long)]
        all: bool,
    },
    /// The same with the newest one, and write down how it went.
    Drill,
}

/// Bring a backup back.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup: a path, or a name in the folder of backups.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Move what is there aside. Nothing is deleted.
    #[arg(long)]
    pub replace: bool,
    /// Take every API key away: keys that were revoked after the backup are good again in it. The next start makes a
    /// setup token.
    #[arg(long)]
    pub revoke_api_keys: bool,
}

/// The quarantine after a restore.
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// Whether the server is in one, and which commands wait.
    Show,
    /// End it.
    End {
        /// Cancel the commands that wait.
        #[arg(long, conflicts_with = "send_withheld")]
        cancel_withheld: bool,
        /// Send the commands that wait.
        #[arg(long)]
        send_withheld: bool,
    },
}

/// Remember a server and a key.
#[derive(Debug, Args)]
pub struct Login {
    /// The one-time token that a new server printed; `-` reads it from standard input.
    #[arg(long, value_name = "TOKEN", conflicts_with = "key_file")]
    pub setup_token: Option<String>,
    /// Name of the key that the setup token makes.
    #[arg(long, default_value = "first administrator")]
    pub name: String,
}

/// Paging of lists.
#[derive(Debug, Args)]
pub struct Paging {
    /// Rows of a page, at most 500.
    #[arg(long, default_value_t = 50)]
    pub limit: i64,
    /// `next` of the page before.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Invite people.
#[derive(Debug, Subcommand)]
pub enum Invitation {
    /// Make an invitation; prints link, code and QR code.
    Create(InvitationCreate),
    /// List invitations.
    List(Paging),
    /// Take an invitation back.
    Revoke {
        /// Its id.
        id: uuid::Uuid,
    },
}

/// Make an invitation.
#[derive(Debug, Args)]
pub struct InvitationCreate {
    /// For which devices.
    #[arg(long, default_value = "apple")]
    pub platform: Platform,
    /// E-mail address or login name of the person.
    #[arg(long, value_name = "ACCOUNT")]
    pub user: Option<String>,
    /// The person's name.
    #[arg(long)]
    pub name: Option<String>,
    /// Only for this device (id).
    #[arg(long, value_name = "ID")]
    pub device: Option<uuid::Uuid>,
    /// How long it is good, such as 30m, 24h, 7d.
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    pub expires: Option<i64>,
    /// Also make a code to type, good for at most an hour.
    #[arg(long)]
    pub short_code: bool,
    /// Enroll without push: the device can never be woken.
    #[arg(long)]
    pub test_only: bool,
    /// Hand out unsigned profiles.
    #[arg(long)]
    pub unsigned: bool,
    /// Whose device: company, personal, unknown.
    #[arg(long)]
    pub ownership: Option<Ownership>,
}

/// Devices.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// List devices.
    List {
        /// Part of a name, serial number or hardware id.
        #[arg(long)]
        search: Option<String>,
        /// Only of this platform.
        #[arg(long)]
        platform: Option<Platform>,
        /// Only with this state of enrollment.
        #[arg(long)]
        state: Option<EnrollmentState>,
        /// Paging.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a device with everything that is known.
    Show {
        /// Id, serial number or hardware id.
        device: String,
    },
    /// List a device's commands.
    Commands {
        /// Id, serial number or hardware id.
        device: String,
        /// Paging.
        #[command(flatten)]
        paging: Paging,
    },
    /// List the certificates that a device got for use elsewhere.
    Certificates {
        /// Id, serial number or hardware id.
        device: String,
        /// Paging.
        #[command(flatten)]
        paging: Paging,
    },
    /// Let an unproven enrollment in.
    Approve {
        /// Id, serial number or hardware id.
        device: String,
    },
    /// End the enrollment without telling the device; it is refused from now on.
    End {
        /// Id, serial number or hardware id.
        device: String,
        /// For the audit.
        #[arg(long)]
        reason: Option<String>,
        /// Instead of typing the serial number.
        #[arg(long, value_name = "SERIAL")]
        yes: Option<String>,
    },
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send a command.
    Send(Box<Send>),
    /// List commands, newest first.
    List {
        /// Only of this device.
        #[arg(long)]
        device: Option<String>,
        /// Only in this state.
        #[arg(long)]
        state: Option<CommandState>,
        /// Only of this job.
        #[arg(long)]
        job: Option<uuid::Uuid>,
        /// Paging.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a command with its parts.
    Show {
        /// Its id.
        id: uuid::Uuid,
    },
    /// Take back a command that was not handed over yet.
    Cancel {
        /// Its id.
        id: uuid::Uuid,
    },
    /// Queue a finished command again.
    Retry {
        /// Its id.
        id: uuid::Uuid,
    },
    /// Show the PIN that a command made; the look is audited.
    Pin {
        /// Its id.
        id: uuid::Uuid,
    },
    /// Show what the device answered; the look is audited.
    Result {
        /// Its id.
        id: uuid::Uuid,
    },
    /// Fetch what the device uploaded (collect-diagnostics); audited. Nobody looked into the file.
    Download {
        /// Its id.
        id: uuid::Uuid,
        /// The file to make, for its owner only.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Replace a file that is there.
        #[arg(long)]
        force: bool,
    },
}

/// Send a command.
#[derive(Debug, Args)]
pub struct Send {
    /// Id, serial number or hardware id; several with commas make a job.
    pub device: String,
    /// What to do.
    #[command(subcommand)]
    pub intent: IntentArgs,
    /// Wait for the outcome; fails when it is not success.
    #[arg(long, global = true)]
    pub wait: bool,
    /// How long to wait, such as 30s, 5m.
    #[arg(long, global = true, value_parser = seconds, default_value = "10m", value_name = "TIME")]
    pub wait_for: i64,
    /// When nobody wants it any more, such as 24h.
    #[arg(long, global = true, value_parser = seconds, value_name = "TIME")]
    pub expires: Option<i64>,
    /// To a user's channel instead of the device's.
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// Send the same key again after a lost answer, and nothing happens twice.
    #[arg(long, global = true)]
    pub idempotency_key: Option<String>,
    /// For wipe and unenroll, instead of typing it: the serial number (or the number of devices).
    #[arg(long, global = true, value_name = "SERIAL")]
    pub yes: Option<String>,
}

/// Jobs.
#[derive(Debug, Subcommand)]
pub enum Job {
    /// List jobs.
    List(Paging),
    /// Show a job.
    Show {
        /// Its id.
        id: uuid::Uuid,
    },
}

/// Packages.
#[derive(Debug, Subcommand)]
pub enum Packages {
    /// Upload a file.
    Upload {
        /// The file.
        file: PathBuf,
        /// msi or msix.
        #[arg(long)]
        kind: PackageKind,
        /// Product code of an MSI with its braces, package family name of an MSIX.
        #[arg(long)]
        product: String,
        /// Its version, such as 1.2.3.
        #[arg(long)]
        version: String,
        /// A name for people; without it the file's.
        #[arg(long)]
        name: Option<String>,
    },
    /// List packages, newest first.
    List(Paging),
    /// Show a package.
    Show {
        /// Its id.
        id: uuid::Uuid,
    },
    /// Delete a package; no device can fetch it any more.
    Delete {
        /// Its id.
        id: uuid::Uuid,
    },
}

/// Accounts for many devices.
#[derive(Debug, Subcommand)]
pub enum EnrollmentAccounts {
    /// Make an account; its password is shown once.
    Create {
        /// What is typed as the user's name.
        name: String,
        /// For which devices.
        #[arg(long, default_value = "windows")]
        platform: Platform,
        /// Most devices that may enroll, 1 to 10000.
        #[arg(long)]
        cap: i32,
        /// How long it is good, such as 24h, 7d.
        #[arg(long, value_parser = seconds, value_name = "TIME", default_value = "30d")]
        expires: i64,
        /// E-mail address or login name of the person whose devices they will be.
        #[arg(long, value_name = "ACCOUNT")]
        user: Option<String>,
        /// Whose devices: company, personal, unknown.
        #[arg(long)]
        ownership: Option<Ownership>,
    },
    /// List accounts, newest first.
    List(Paging),
    /// Take an account back; devices that enrolled stay.
    Revoke {
        /// Its id.
        id: uuid::Uuid,
    },
}

/// Push certificate.
#[derive(Debug, Subcommand)]
pub enum Apns {
    /// Import a certificate with its key.
    Import {
        /// PEM from Apple.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// PEM private key, not encrypted.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// For another topic only: how many enrolled devices will be lost.
        #[arg(long, value_name = "NUMBER")]
        confirm_loss: Option<i64>,
    },
    /// Show topic, dates and how many devices need it.
    Status,
}

/// Audit.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List sealed entries, newest first.
    List(Paging),
    /// Recompute the chain and check every checkpoint, on the data folder of a stopped server.
    Verify {
        /// Ask the running server instead.
        #[arg(long)]
        online: bool,
    },
}

/// API keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Mint a key; it is shown once.
    Create {
        /// A name for people.
        name: String,
        /// `ACTION@server` or `ACTION@SITE-ID`, such as device:read@server; more than once.
        #[arg(long = "grant", required = true)]
        grants: Vec<String>,
        /// Days until it ends.
        #[arg(long)]
        days: Option<i64>,
    },
    /// List keys.
    List,
    /// Take a key back.
    Revoke {
        /// Its id.
        id: uuid::Uuid,
    },
}

/// Configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every key with its value.
    Show {
        /// Also where the value comes from.
        #[arg(long)]
        origin: bool,
    },
}

impl ServerArgs {
    /// As `key=value`, strongest last. A secret is refused here and not while flags are parsed, because that would
    /// repeat its value, on a terminal or in the log of whatever starts the server.
    pub fn flags(&self) -> Result<Vec<(String, String)>, Failure> {
        if let Some((key, _)) =
            self.set.iter().find(|(key, _)| crate::config::keys::find(key).is_some_and(|key| key.secret))
        {
            return Err(Failure::new(format!(
                "{key} is a secret: give it by file or environment, other users can see flags"
            )));
        }
        let mut flags = self.set.clone();
        if let Some(folder) = &self.data_dir {
            flags.push(("data_dir".to_owned(), folder.display().to_string()));
        }
        Ok(flags)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Seconds of `90s`, `30m`, `24h`, `7d`.
fn seconds(text: &str) -> Result<i64, String> {
    let wrong = || "a number with s, m, h or d is wanted, such as 24h".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    number.checked_mul(factor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("bellwether").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_verb_is_serve_and_usage_errors_are_two() {
        assert!(parse("").unwrap().verb.is_none());
        assert_eq!(parse("nonsense").unwrap_err().exit_code(), 2);
        assert_eq!(parse("command send X fly").unwrap_err().exit_code(), 2);
        assert_eq!(parse("invitation create --expires soon").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn options_stand_before_or_after_the_intent() {
        for line in [
            "command send C02 lock --message hello --wait --output json",
            "command send C02 --wait lock --message hello --output json",
            "--output json command send C02 --wait lock --message hello",
        ] {
            let cli = parse(line).unwrap();
            let Some(Verb::Command(Command::Send(send))) = cli.verb else { panic!("{line}") };
            assert!(send.wait && send.device == "C02" && cli.output == Output::Json, "{line}");
            assert!(matches!(send.intent, IntentArgs::Lock { .. }));
        }
    }

    #[test]
    fn a_package_has_a_version_of_its_own() {
        let line = "packages upload a.msi --kind msi --product {X} --version 1.2.3 --output json";
        let Some(Verb::Packages(Packages::Upload { kind, version, name, .. })) = parse(line).unwrap().verb
        else {
            panic!("{line}")
        };
        assert_eq!((kind, version.as_str(), name), (PackageKind::Msi, "1.2.3", None));
        assert_eq!(parse("packages upload a.exe --kind exe").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "7", "d", "-1h", "1w", "9999999999999999d", "1é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_no_flags() {
        let flags = |line: &str| parse(line).unwrap().server.flags();
        let refused = flags("serve --set database=postgres://u:hunter2@h/d").unwrap_err();
        let said = format!("{refused:?}");
        assert!(said.contains("database is a secret") && !said.contains("hunter2"), "{said}");
        assert_eq!(flags("serve --set public.listen=127.0.0.1:1").unwrap().len(), 1);
    }
}
