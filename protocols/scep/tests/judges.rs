//! Other people's SCEP clients against a small HTTP server: Debian's `scepclient` (micromdm/scep) and
//! strongSwan's `pki --scep`. Under CI a missing client is a failure, elsewhere a notice.
#![expect(clippy::unwrap_used, reason = "a test program: helpers fail the test they serve")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bellwether_certs::ca::DeviceCa;
use bellwether_certs::cert::{CertInfo, ders_to_pem, pem_to_ders};
use bellwether_certs::hash::random_bytes;
use bellwether_certs::keys::KeyPair;
use bellwether_scep::server::{self, Request, SignedBy, Undecodable};
use bellwether_scep::{CAPS, FailInfo, MessageType, Operation, ca_cert_reply, parse_query};
use secrecy::ExposeSecret as _;

const CHALLENGE: &str = "s3cret-challenge";

/// The smallest site that issues honestly: a fixed challenge, and renewal for what it has issued.
struct Site {
    ca: DeviceCa,
    now_ms: i64,
    issued: Mutex<Vec<Vec<u8>>>,
    log: Mutex<Vec<String>>,
}

impl Site {
    fn answer(&self, method: &str, query: &str, body: Vec<u8>) -> (u16, &'static str, Vec<u8>) {
        match parse_query(query) {
            Ok(Operation::GetCaCaps) => (200, bellwether_scep::CAPS_CONTENT_TYPE, CAPS.into()),
            Ok(Operation::GetCaCert) => {
                (200, bellwether_scep::CA_CERT_CONTENT_TYPE, ca_cert_reply(self.ca.cert_der()))
            }
            Ok(Operation::PkiOperation(message)) => {
                let message = message.unwrap_or(body);
                self.log.lock().unwrap().push(format!("{method} of {} bytes", message.len()));
                match self.operate(&message) {
                    Some(reply) => (200, bellwether_scep::MESSAGE_CONTENT_TYPE, reply),
                    None => (400, "text/plain", Vec::new()),
                }
            }
            Err(error) => (400, "text/plain", error.to_string().into()),
        }
    }

    fn operate(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (cert, key) = (self.ca.cert_der(), self.ca.key());
        let nonce = random_bytes().unwrap();
        let request = match server::decode(message, cert, key) {
            Ok(request) => request,
            Err(Undecodable::WithContext { context, fail_info, reason }) => {
                self.log.lock().unwrap().push(reason);
                return Some(server::failure(&context, fail_info, cert, key, nonce).unwrap());
            }
            Err(other) => {
                self.log.lock().unwrap().push(other.to_string());
                return None;
            }
        };
        self.log.lock().unwrap().push(format!("{request:?}"));
        if !self.authorised(&request) {
            return Some(server::failure(&request.context, FailInfo::BadRequest, cert, key, nonce).unwrap());
        }
        let serial = random_bytes().unwrap();
        let issued =
            self.ca.issue_device(&request.csr.spki_der, "judged-device", serial, self.now_ms).unwrap();
        self.issued.lock().unwrap().push(issued.clone());
        Some(server::success(&request, &issued, cert, key, nonce).unwrap())
    }

    fn authorised(&self, request: &Request) -> bool {
        let ours = self.issued.lock().unwrap().contains(&request.signer.der);
        match (request.message_type, request.signed_by) {
            (MessageType::PkcsReq, SignedBy::RequestKey) => {
                request.csr.challenge_password.as_ref().is_some_and(|c| c.expose_secret() == CHALLENGE)
            }
            (_, SignedBy::Identity) => ours,
            (MessageType::RenewalReq, SignedBy::RequestKey) => false,
        }
    }
}

struct Server {
    site: Arc<Site>,
    url: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(make_ca: impl Fn(i64) -> DeviceCa) -> Self {
        #[expect(clippy::disallowed_methods, reason = "real clients compare dates with the real clock")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now_ms = i64::try_from(now.as_millis()).unwrap();
        let site =
            Arc::new(Site { ca: make_ca(now_ms), now_ms, issued: Mutex::default(), log: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/scep", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (site, stop) = (Arc::clone(&site), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    if let Err(error) = serve(&site, stream.unwrap()) {
                        site.log.lock().unwrap().push(format!("connection: {error}"));
                    }
                }
            }
        });
        Self { site, url, stop, thread: Some(thread) }
    }

    fn explain(&self, output: &Output) -> String {
        format!(
            "{}\n{}\nserver: {:#?}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.site.log.lock().unwrap()
        )
    }

    fn last_issued(&self) -> Vec<u8> {
        self.site.issued.lock().unwrap().last().cloned().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://").trim_end_matches("/scep"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(site: &Site, stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let query = words.next().and_then(|p| p.split_once('?')).map(|(_, q)| q.to_owned()).unwrap_or_default();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if header == "expect: 100-continue" {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, content_type, reply) = site.answer(&method, &query, body);
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reply.len()
    )?;
    stream.write_all(&reply)
}

/// Runs a client; `None` where it is not installed.
fn run(dir: &Path, program: &str, args: &[&str]) -> Option<Output> {
    let mut command = Command::new(program);
    command.current_dir(dir).args(args);
    if program == "pki" {
        // strongSwan fetches through its curl plugin, which Debian packs apart
        // (libstrongswan-extra-plugins); an unpacked copy may be named here.
        if let Some(plugin) = std::env::var_os("STRONGSWAN_CURL_PLUGIN") {
            command.env("LD_PRELOAD", plugin);
        }
    }
    let missing = match command.output() {
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("plugin 'curl': failed to load") => {
            "strongSwan's curl plugin is missing (Debian: libstrongswan-extra-plugins)".to_owned()
        }
        Ok(output) => return Some(output),
        Err(error) => format!("{program} is missing: {error}"),
    };
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {missing}\n"));
    None
}

fn write_key(dir: &Path, name: &str) -> KeyPair {
    let key = KeyPair::generate_rsa2048().unwrap();
    std::fs::write(dir.join(name), key.to_pkcs8_pem().unwrap().expose_secret()).unwrap();
    key
}

/// What Bellwether really uses.
fn device_ca(now_ms: i64) -> DeviceCa {
    DeviceCa::create(now_ms, random_bytes().unwrap()).unwrap()
}

/// Debian's scepclient encrypts with single DES and cannot be told otherwise (micromdm/scep pull requests 252
/// and 253), so it can never enroll here. It still judges the CA certificate, the capabilities and a signed
/// refusal.
#[test]
fn scepclient_understands_a_signed_refusal() {
    let server = Server::start(device_ca);
    let dir = tempfile::tempdir().unwrap();
    let args = ["-server-url", &server.url, "-private-key", "key.pem", "-certificate", "cert.pem"];
    let Some(output) = run(dir.path(), "scepclient", &[&args[..], &["-challenge", CHALLENGE]].concat())
    else {
        return;
    };
    assert!(!output.status.success(), "{}", server.explain(&output));
    assert!(server.site.issued.lock().unwrap().is_empty());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("PKCSReq (19) request failed, failInfo: badAlg (0)"),
        "{}",
        server.explain(&output)
    );
}

#[test]
fn strongswan_fetches_enrolls_and_renews() {
    let server = Server::start(device_ca);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let args = ["--scepca", "--url", &server.url, "--caout", "fetched.der", "--force"];
    let Some(output) = run(path, "pki", &args) else { return };
    assert!(output.status.success(), "{}", server.explain(&output));
    std::fs::write(path.join("ca.pem"), ders_to_pem(&[server.site.ca.cert_der()])).unwrap();

    for (cipher, digest) in [("aes", "sha256"), ("des3", "sha512"), ("aes", "sha384"), ("aes", "sha1")] {
        let enroll = |key: &str, more: &[&str]| {
            let base = ["--scep", "--url", &server.url, "--in", key, "--dn", "CN=ignored, O=ignored"];
            let cas = ["--cacert-enc", "ca.pem", "--cacert-sig", "ca.pem", "--cacert", "ca.pem"];
            let style = ["--cipher", cipher, "--digest", digest, "--outform", "pem"];
            run(path, "pki", &[&base[..], &cas, &style, more].concat()).unwrap()
        };
        let key = write_key(path, "key.pem");
        let output = enroll("key.pem", &["--password", CHALLENGE]);
        assert!(output.status.success(), "{cipher} {digest}: {}", server.explain(&output));
        let cert = pem_to_ders(&output.stdout).unwrap().remove(0);
        assert_eq!(cert, server.last_issued());
        let info = CertInfo::parse(&cert).unwrap();
        assert_eq!(info.spki_der, key.public_key_der().unwrap());
        assert_eq!(info.subject_cn.as_deref(), Some("judged-device"));

        std::fs::write(path.join("old.pem"), &output.stdout).unwrap();
        let new_key = write_key(path, "new.pem");
        let output = enroll("new.pem", &["--cert", "old.pem", "--key", "key.pem"]);
        assert!(output.status.success(), "renewal {cipher} {digest}: {}", server.explain(&output));
        let cert = pem_to_ders(&output.stdout).unwrap().remove(0);
        assert_eq!(CertInfo::parse(&cert).unwrap().spki_der, new_key.public_key_der().unwrap());
        let log = server.site.log.lock().unwrap().join("\n");
        assert!(log.contains("RenewalReq"), "{log}");
    }

    // A wrong challenge is a signed refusal, which the client reports as such.
    write_key(path, "key.pem");
    let count = server.site.issued.lock().unwrap().len();
    let cas = ["--cacert-enc", "ca.pem", "--cacert-sig", "ca.pem", "--password", "wrong"];
    let base = ["--scep", "--url", &server.url, "--in", "key.pem", "--dn", "CN=x"];
    let output = run(path, "pki", &[&base[..], &cas].concat()).unwrap();
    assert!(!output.status.success());
    assert_eq!(server.site.issued.lock().unwrap().len(), count);
    assert!(String::from_utf8_lossy(&output.stderr).contains("badRequest"), "{}", server.explain(&output));
}
