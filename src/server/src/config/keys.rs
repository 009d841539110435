//! The table of every configuration key. `config show`, the environment, the file and the documentation all read it.

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A file or folder.
    Path,
    /// `host:port` or `address:port`.
    Listen,
    /// An absolute https URL without path.
    HttpsUrl,
    /// true or false.
    Bool,
    /// A whole number that is not negative.
    Number,
    /// One of a few words.
    Words(&'static [&'static str]),
    /// Networks such as `10.0.0.0/8`, separated by commas; in the file a list.
    Networks,
    /// Host names, separated by commas; in the file a list.
    Names,
    /// Texts, separated by commas; in the file a list.
    List,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name, as in the file.
    pub name: &'static str,
    /// What it must look like.
    pub kind: Kind,
    /// Never shown; may be given as a file (`<key>_file`, `…_FILE`).
    pub secret: bool,
    /// Used when nobody says anything; `None`: the feature is off or decided at start.
    pub default: Option<&'static str>,
    /// One line for people.
    pub help: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>, help: &'static str) -> Key {
    Key { name, kind, secret: false, default, help }
}

const fn secret(name: &'static str, help: &'static str) -> Key {
    Key { name, kind: Kind::Text, secret: true, default: None, help }
}

/// Every key, in the order in which `config show` prints them.
pub const KEYS: &[Key] = &[
    key("data_dir", Kind::Path, Some("./data"), "folder for the database, keys and packages"),
    secret("database", "postgres:// URL; without it SQLite in data_dir"),
    secret("master_key", "master key (64 hex digits); without it <data_dir>/master.key, made at first start"),
    key("organization", Kind::Text, Some("Bellwether"), "shown on devices and on the enrollment page"),
    key(
        "public_url",
        Kind::HttpsUrl,
        Some("https://localhost:8443"),
        "how devices and people reach the public listener; permanent",
    ),
    key(
        "device_url",
        Kind::HttpsUrl,
        Some("https://localhost:8444"),
        "how devices reach the device listener; permanent",
    ),
    key(
        "lose_devices",
        Kind::Number,
        Some("0"),
        "confirms a changed public_url or device_url: how many enrolled devices will be lost by it",
    ),
    key(
        "public.listen",
        Kind::Listen,
        Some("127.0.0.1:8443"),
        "address of the public listener; 0.0.0.0:8443 for every interface",
    ),
    key(
        "device.listen",
        Kind::Listen,
        Some("127.0.0.1:8444"),
        "address of the listener that asks for client certificates",
    ),
    key("metrics.listen", Kind::Listen, None, "address of the plain-HTTP metrics listener; off without it"),
    key(
        "tls.certificate",
        Kind::Path,
        None,
        "PEM chain for both listeners; without it one of the server's own TLS CA",
    ),
    key("tls.key", Kind::Path, None, "PEM private key of tls.certificate"),
    key(
        "trusted_proxies",
        Kind::Networks,
        None,
        "networks whose X-Forwarded-For, and device.client_certificate_header if set, are believed; none by default",
    ),
    key(
        "apple.require_client_certificate",
        Kind::Bool,
        Some("false"),
        "Apple devices must present their identity in the TLS handshake",
    ),
    key(
        "device.client_certificate_header",
        Kind::Text,
        None,
        "header in which a trusted proxy hands on the client certificate (RFC 9440), such as Client-Cert; none by default",
    ),
    key(
        "windows.discovery_names",
        Kind::Names,
        None,
        "further names for the certificate of the server's own TLS CA, such as enterpriseenrollment.contoso.com",
    ),
    key(
        "windows.provider_id",
        Kind::Text,
        None,
        "the server's name on Windows machines: at most 64 letters, digits, - _ .; permanent",
    ),
    key(
        "windows.sign_in",
        Kind::Words(&["code", "page"]),
        Some("code"),
        "how a person proves an invitation to Windows: code in the password field, or on the sign-in page",
    ),
    key(
        "apns.endpoint",
        Kind::Text,
        Some("https://api.push.apple.com"),
        "Apple's push service; another only for tests",
    ),
    key(
        "apns.trust",
        Kind::Path,
        None,
        "PEM certificates to trust for apns.endpoint instead of the system's",
    ),
    key(
        "wns.package_sid",
        Kind::Text,
        None,
        "Package SID (ms-app://S-1-15-2-…) of the app that PCs are woken through; without it they call on their schedule",
    ),
    secret("wns.client_secret", "client secret of wns.package_sid"),
    key("wns.package_family_name", Kind::Text, None, "package family name of the same app; PCs are told it"),
    key(
        "wns.token_endpoint",
        Kind::Text,
        Some(crate::wakers::wns::TOKEN_ENDPOINT),
        "where access tokens for the push service come from; another only for tests",
    ),
    key(
        "wns.hosts",
        Kind::Text,
        None,
        "hosts (name, name:port or *.name, separated by commas) that push channels may have instead of \
         *.notify.windows.com; only for tests",
    ),
    key(
        "wns.trust",
        Kind::Path,
        None,
        "PEM certificates to trust for the push service for Windows instead of the system's",
    ),
    key(
        "windows.entra.tenants",
        Kind::List,
        None,
        "ids (GUIDs) of the Entra ID tenants whose users may enroll Windows; none by default",
    ),
    key(
        "windows.entra.audiences",
        Kind::List,
        None,
        "what their tokens must be for: the MDM application's id, and https:// with the server's name",
    ),
    key(
        "windows.entra.authority",
        Kind::HttpsUrl,
        Some("https://login.microsoftonline.com"),
        "who issues the tokens; national clouds have another",
    ),
    key(
        "windows.entra.keys_url",
        Kind::Text,
        None,
        "where the signing keys are, with {tenant} in the place of the id; only for tests",
    ),
    key(
        "windows.entra.trust",
        Kind::Path,
        None,
        "PEM certificates to trust for the signing keys' address instead of the system's",
    ),
    key(
        "windows.entra.max_devices_per_person",
        Kind::Number,
        Some("15"),
        "how many devices a person may have that enrolls PCs by Entra ID",
    ),
    key(
        "windows.entra.known_people_only",
        Kind::Bool,
        Some("false"),
        "only people whom an invitation or an enrollment account has named before may enroll by Entra ID",
    ),
    key(
        "windows.entra.terms",
        Kind::Path,
        None,
        "a text file (UTF-8) that the terms-of-use page of Entra ID shows; it always says who will manage the PC",
    ),
    key(
        "windows.entra.terms_required",
        Kind::Bool,
        Some("false"),
        "no PC enrolls by Entra ID before its person accepted the terms of use",
    ),
    key(
        "audit.witness",
        Kind::Path,
        None,
        "a file that every signed head of the audit is added to; put it where the database's admin cannot write",
    ),
    key(
        "backup.folder",
        Kind::Path,
        None,
        "folder for backups; <data_dir>/backups without it. Another disk is better",
    ),
    key(
        "backup.every_hours",
        Kind::Number,
        Some("24"),
        "hours between two backups; 0: only when somebody asks",
    ),
    key(
        "backup.keep_days",
        Kind::Number,
        Some("90"),
        "days after which a backup is removed: 1 to 3650; the three newest stay",
    ),
    key(
        "uploads.keep_days",
        Kind::Number,
        Some("30"),
        "days after which what a device uploaded is deleted: 1 to 365",
    ),
    key(
        "uploads.total_bytes",
        Kind::Number,
        Some("10737418240"),
        "bytes of all that devices uploaded and still upload; more is refused until something is deleted",
    ),
    key(
        "disk.reserve_bytes",
        Kind::Number,
        Some("33554432"),
        "bytes of data_dir's disk that are kept for administrators, for when it is full; 0: none. SQLite only",
    ),
    key(
        "log.format",
        Kind::Words(&["auto", "json", "text"]),
        Some("auto"),
        "auto: text on a terminal, JSON otherwise",
    ),
    key(
        "log.level",
        Kind::Text,
        Some("info,actix_server=warn"),
        "a level, or directives such as info,bellwether=debug",
    ),
    key("limits.device_body", Kind::Number, Some("20971520"), "bytes of one device message"),
    key("limits.api_body", Kind::Number, Some("10485760"), "bytes of one API request"),
    key(
        "limits.package_body",
        Kind::Number,
        Some("536870912"),
        "bytes of one uploaded package, and of all uploads at the same time",
    ),
    key(
        "limits.upload_body",
        Kind::Number,
        Some("268435456"),
        "bytes of one file that a device uploads (collect-diagnostics)",
    ),
    key("limits.connections", Kind::Number, Some("10000"), "open connections of one listener"),
    key(
        "limits.request_seconds",
        Kind::Number,
        Some("60"),
        "seconds that a client may take to send one body",
    ),
    key(
        "limits.drain_seconds",
        Kind::Number,
        Some("20"),
        "seconds that requests may take to finish at shutdown",
    ),
    key("limits.workers", Kind::Number, Some("0"), "threads of each listener; 0: one for each processor"),
];

/// The key of a name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Key {
    /// `BELLWETHER_PUBLIC__LISTEN` for `public.listen`.
    pub fn env_name(&self) -> String {
        format!("BELLWETHER_{}", self.name.replace('.', "__").to_ascii_uppercase())
    }
}
