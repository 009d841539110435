"""A certificate by SCEP (windows_pc.py): what ClientCertificateInstall says, strongSwan's `pki --scep` does."""

import hashlib
import http.server
import re
import threading
import urllib.parse

from windows_certificates import new_key, save
from windows_wire import Stop, Web, run, unb64

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"


class Relay(http.server.ThreadingHTTPServer):
    """http on the loopback to the server's https: strongSwan's HTTP client knows no CA file."""

    daemon_threads = True

    def __init__(self, url, ca):
        parts = urllib.parse.urlsplit(url)
        upstream, seen = f"{parts.scheme}://{parts.netloc}", []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(handler):
                body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                kind = {"Content-Type": handler.headers.get("Content-Type", "application/octet-stream")} if body else {}
                answer = Web(ca).ask(handler.command, upstream + handler.path, body or None, kind)
                seen.append((handler.path, answer.status))
                handler.send_response(answer.status)
                handler.send_header("Content-Type", answer.headers.get("content-type", ""))
                handler.send_header("Content-Length", str(len(answer.body)))
                handler.end_headers()
                handler.wfile.write(answer.body)

            do_GET = do_POST = pass_on

            def log_message(handler, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.url = seen, f"http://127.0.0.1:{self.server_address[1]}{parts.path}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Scep:
    """One certificate, as the nodes below `base` ask for it."""

    def __init__(self, pc, base, device):
        self.pc, self.t, self.folder = pc, pc.t, pc.folder
        self.install = {uri[len(base) + 9:]: value for uri, (_, value) in pc.nodes.items() if uri.startswith(base + "/Install/")}
        self.url, self.cn = self.install.get("ServerURL", ""), device
        self.challenge = (unb64(self.install.get("Challenge")) or b"").decode(errors="replace")
        self.judge_settings()
        self.ca_pem = self.ca()
        self.relay = Relay(self.url, pc.options.ca)

    def judge_settings(self):
        check, said = self.t.check, self.install
        self.t.need("SCEP: one ServerURL, by https", re.fullmatch(r"https://[^\s;?#]+", self.url), self.url)
        check("SCEP: Challenge is base64 of 128 bits or more", len(self.challenge) >= 22, len(self.challenge))
        check("SCEP: EKUMapping is client authentication", said.get("EKUMapping") == CLIENT_AUTH, said)
        usage = said.get("KeyUsage", "")
        check("SCEP: KeyUsage is decimal and has 0x80 or 0x20", usage.isdigit() and int(usage) & 0xA0, usage)
        check("SCEP: the subject is the device's id, and nothing else", said.get("SubjectName") == f"CN={self.cn}", said)
        check("SCEP: keys of 2048 bits or more", said.get("KeyLength") in ("2048", "4096"), said)
        check("SCEP: keys are in the TPM where there is one", said.get("KeyProtection") in ("1", "2"), said)
        check("SCEP: HashAlgorithm is SHA-2", said.get("HashAlgorithm") == "SHA-2", said)

    def ca(self):
        caps = self.pc.web.ask("GET", self.url + "?operation=GetCACaps")
        words = set(caps.body.decode(errors="replace").split())
        self.t.check("SCEP: GetCACaps", {"AES", "SHA-256", "POSTPKIOperation"} <= words, words)
        answer = self.pc.web.ask("GET", self.url + "?operation=GetCACert")
        self.t.need("SCEP: GetCACert", answer.status == 200, answer)
        print_ = hashlib.sha1(answer.body).hexdigest().upper()
        self.t.check("SCEP: the CA is the one that CAThumbprint names", print_ == self.install.get("CAThumbprint"), print_)
        code, pem, error = run("openssl", "x509", "-inform", "DER", data=answer.body)
        self.t.need("SCEP: openssl reads the CA certificate", code == 0, error)
        (self.folder / "scep-ca.pem").write_bytes(pem)
        return self.folder / "scep-ca.pem"

    def key(self, name):
        return save(self.folder, name, key=new_key())

    def ask(self, identity, challenge=None, cn=None, san=None, old=None):
        """strongSwan's SCEP client for the key of `identity`; whether a certificate came. `old` sends a RenewalReq."""
        command = ["pki", "--scep", "--url", self.relay.url, "--in", identity[1], "--dn", f"CN={cn or self.cn}",
                   "--cacert-enc", self.ca_pem, "--cacert-sig", self.ca_pem, "--outform", "pem"]
        command += ["--password", challenge] if challenge else []
        command += ["--san", san] if san else []
        command += ["--cert", old[0], "--key", old[1]] if old else []
        code, out, error = run(*command)
        if code or b"BEGIN CERTIFICATE" not in out:
            return False, error
        with open(identity[0], "wb") as file:
            file.write(out)
        return True, ""

    def fetch(self):
        """The certificate, as (certificate, key); on the way what must be refused."""
        refused = lambda name, **more: self.t.check(f"SCEP: {name} is refused", not self.ask(self.key("refused"), **more)[0])
        refused("no challenge")
        refused("a wrong challenge", challenge=self.challenge[:-1] + ("A" if self.challenge[-1] != "A" else "B"))
        refused("another subject", challenge=self.challenge, cn="administrator")
        refused("another device's id", challenge=self.challenge, cn="00000000-0000-7000-8000-000000000000")
        refused("a host name", challenge=self.challenge, san="radius.example.org")
        statuses = {status for path, status in self.relay.seen if "PKIOperation" in path}
        self.t.check("SCEP: refusals are CertReps over HTTP 200", statuses == {200}, self.relay.seen)
        identity = self.key("elsewhere")
        done, error = self.ask(identity, challenge=self.challenge)
        self.t.need("SCEP: strongSwan obtains the certificate", done, error)
        serial = self.judge(identity)
        refused("a spent challenge with another key", challenge=self.challenge)
        again = self.folder / "again.pem", identity[1]
        done, error = self.ask(again, challenge=self.challenge)
        self.t.check("SCEP: the same request again gets the same certificate", done and self.serial(again) == serial, error)
        return identity

    @staticmethod
    def serial(identity):
        return run("openssl", "x509", "-in", identity[0], "-noout", "-serial")[1].decode().strip().partition("=")[2].lower()

    def judge(self, identity):
        check, cert = self.t.check, identity[0]
        code, _, error = run("openssl", "verify", "-CAfile", self.ca_pem, "-purpose", "sslclient", cert)
        check("SCEP: openssl verifies the chain, for clients", code == 0, error)
        code, _, _ = run("openssl", "verify", "-CAfile", self.ca_pem, "-purpose", "sslserver", cert)
        check("SCEP: the certificate is no server's", code != 0)
        mine = run("openssl", "pkey", "-in", identity[1], "-pubout")[1]
        check("SCEP: the certificate is for our key", mine == run("openssl", "x509", "-in", cert, "-noout", "-pubkey")[1])
        subject = run("openssl", "x509", "-in", cert, "-noout", "-subject", "-nameopt", "RFC2253")[1].decode().strip()
        check("SCEP: its subject is the device's id", subject == f"subject=CN={self.cn}", subject)
        said = run("openssl", "x509", "-in", cert, "-noout", "-text")[1].decode(errors="replace")
        check("SCEP: it is no CA and has no other names", "CA:TRUE" not in said and "Alternative Name" not in said, said)
        check("SCEP: it lasts a year at most", run("openssl", "x509", "-in", cert, "-noout", "-checkend", 366 * 86400)[0] == 1)
        check("SCEP: it is not on the revocation list", self.serial(identity) not in self.revoked())
        return self.serial(identity)

    def revoked(self):
        """The CA's list, verified: serial numbers."""
        answer = self.pc.web.ask("GET", self.url.replace("/scep/", "/crl/"))
        code, out, error = run("openssl", "crl", "-inform", "DER", "-noout", "-text", "-CAfile", self.ca_pem, data=answer.body)
        if code or "verify OK" not in error:
            raise Stop(f"openssl crl: {error}")
        return [number.lower() for number in re.findall(r"Serial Number: ([0-9A-F]+)", out.decode())]
