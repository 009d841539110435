#!/usr/bin/env python3
"""Judge: a simulated Apple device that shares no code with the server.

Property lists are Python's plistlib, HTTP and TLS are http.client and ssl, certificates and signatures
are the `openssl` command's. The identity is obtained and renewed with strongSwan's `pki --scep`. Debian's
`scepclient` 2.1.0 cannot do that: it encrypts every request with single DES, whatever GetCACaps offers
and without an option, and a server that keeps RFC 8894 section 2.9 refuses single DES. It is asked all
the same: it must read the CA's certificate and understand the signed refusal (badAlg).

The device takes the road of a real one: it opens the invitation page (which must not consume the
invitation), posts for the profile, signed and unsigned, enrolls by SCEP, checks in, and answers
commands. On the way it tries what must be refused.

Everything happens in a temporary folder. A transcript goes to standard output:

    {"ok": true, "checks": [{"name": "page", "ok": true}, …], "commands": [{"type": "DeviceLock", …}]}

What it is doing meanwhile goes to standard error, one line each; `enrolled` is the line to wait for
before commands are queued. The exit code is 0 when every check is ok, 1 when one is not, 2 when the
judge itself cannot work.
"""

import argparse
import base64
import hashlib
import html.parser
import http.client
import http.server
import json
import os
import pathlib
import plistlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

CHECK_IN = "application/x-apple-aspen-mdm-checkin"
REPORT = "application/x-apple-aspen-mdm"
PROFILE = "application/x-apple-aspen-config"
CAPABILITIES = {"com.apple.mdm.per-user-connections", "com.apple.mdm.bootstraptoken", "com.apple.mdm.token"}
DEVICES = {
    "iphone": ("iPhone15,3", "18.1", "22B83",
               "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
               "Version/18.1 Mobile/15E148 Safari/604.1"),
    "ipad": ("iPad14,3", "18.1", "22B83",
             "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
             "Version/18.1 Safari/605.1.15"),
    "mac": ("Mac14,2", "15.1", "24B83",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/18.1 Safari/605.1.15"),
}
BOT = "Mozilla/5.0 (compatible; LinkPreviewBot/1.0)"
# The shapes of Mdm-Signature: what `openssl cms -sign` makes of these options.
SHAPES = {
    "real-device": ["-md", "sha1", "-noattr", "-stream"],
    "sha1-der": ["-md", "sha1", "-noattr"],
    "sha256-attributes": ["-md", "sha256"],
    "sha256-attributes-ber": ["-md", "sha256", "-stream"],
    "sha512-noattr": ["-md", "sha512", "-noattr"],
}


class Stop(Exception):
    """The road ends here: what follows would make no sense."""


class Forms(html.parser.HTMLParser):
    """The forms of a page: action, method, hidden fields and buttons."""

    def __init__(self):
        super().__init__()
        self.forms = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.forms.append({"action": attributes.get("action", ""), "method": attributes.get("method", "get").lower(),
                               "fields": [], "buttons": []})
        elif self.forms and attributes.get("name"):
            pair = (attributes["name"], attributes.get("value") or "")
            if tag == "button" or (tag == "input" and attributes.get("type") == "submit"):
                self.forms[-1]["buttons"].append(pair)
            elif tag == "input":
                self.forms[-1]["fields"].append(pair)


class Transcript:
    def __init__(self):
        self.checks, self.commands = [], []

    def check(self, name, ok, detail=""):
        self.checks.append({"name": name, "ok": bool(ok), **({"detail": str(detail)[:600]} if detail and not ok else {})})
        say(f"{'ok' if ok else 'FAILED':<7}{name}{'' if ok else f': {str(detail)[:300]}'}")
        return bool(ok)

    def need(self, name, ok, detail=""):
        if not self.check(name, ok, detail):
            raise Stop(name)

    @property
    def ok(self):
        return bool(self.checks) and all(check["ok"] for check in self.checks)


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, data=None, env=None):
    result = subprocess.run([str(c) for c in command], input=data, capture_output=True, check=False, env=env, timeout=60)
    return result.returncode, result.stdout, result.stderr.decode(errors="replace").strip()


class Web:
    """One kept connection per host, TLS verified with one CA file, no redirects."""

    def __init__(self, ca):
        self.context = ssl.create_default_context(cafile=ca)
        self.connections = {}

    def request(self, method, url, body=None, headers=None):
        parts = urllib.parse.urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        for attempt in (1, 2):
            connection = self.connections.get(parts.netloc)
            fresh = connection is None
            if fresh:
                kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
                arguments = {"context": self.context} if parts.scheme == "https" else {}
                connection = kind(parts.hostname, parts.port, timeout=30, **arguments)
                self.connections[parts.netloc] = connection
            try:
                connection.request(method, target, body=body, headers=headers or {})
                response = connection.getresponse()
                return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
            except (http.client.RemoteDisconnected, ConnectionError):
                # A kept connection that the server had closed meanwhile: once more on a new one.
                connection.close()
                del self.connections[parts.netloc]
                if fresh or attempt == 2:
                    raise


class Relay(http.server.ThreadingHTTPServer):
    """http on the loopback to the server's https: strongSwan's HTTP client knows no CA file."""

    daemon_threads = True

    def __init__(self, url, ca):
        parts = urllib.parse.urlsplit(url)
        upstream = f"{parts.scheme}://{parts.netloc}"
        self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(handler):
                body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                kind = {"Content-Type": handler.headers.get("Content-Type", "application/octet-stream")} if body else {}
                status, headers, answer = Web(ca).request(handler.command, upstream + handler.path, body or None, kind)
                self.seen.append((handler.command, handler.path, body, status))
                handler.send_response(status)
                handler.send_header("Content-Type", headers.get("content-type", ""))
                handler.send_header("Content-Length", str(len(answer)))
                handler.end_headers()
                handler.wfile.write(answer)

            do_GET = do_POST = pass_on

            def log_message(handler, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}{parts.path}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Device:
    def __init__(self, options, folder, transcript):
        self.options, self.folder, self.t = options, folder, transcript
        self.web = Web(options.ca)
        self.product, self.os_version, self.build, self.safari = DEVICES[options.family]
        if options.os_version:
            self.os_version = options.os_version
        self.key, self.cert = folder / "identity.key.pem", folder / "identity.pem"
        self.unlock_token = os.urandom(512)
        self.profiles = {}
        self.name = options.name
        self.locked = 0
        self.erased = False

    # --- the page and the profile -------------------------------------------------------------

    def open_page(self):
        link = self.options.link
        status, _, body = self.web.request("HEAD", link, headers={"User-Agent": BOT})
        self.t.check("a link preview may ask with HEAD", status in (200, 405), status)
        self.web.request("GET", link, headers={"User-Agent": BOT})
        for name in ("page", "page again: GET does not consume"):
            status, headers, body = self.web.request("GET", link, headers={"User-Agent": self.safari, "Accept": "text/html"})
            self.t.need(name, status == 200 and headers.get("content-type", "").startswith("text/html"), (status, headers))
        forms = Forms()
        forms.feed(body.decode())
        forms = [form for form in forms.forms if form["method"] == "post"]
        self.t.need("the page has a form that posts", forms, body.decode()[:500])
        form = forms[0]
        fields = list(form["fields"])
        buttons = [b for f in forms for b in f["buttons"] if b[1] == self.options.family] or form["buttons"][:1]
        if self.options.family == "ipad":
            offered = {value for f in forms for _, value in f["buttons"] + f["fields"]}
            self.t.check("an iPad that claims to be a Mac is offered both", {"mac", "ipad"} <= offered, offered)
        self.post_url = urllib.parse.urljoin(link, form["action"] or link)
        self.t.check("the form posts to the same server",
                     urllib.parse.urlsplit(self.post_url).netloc == urllib.parse.urlsplit(link).netloc, self.post_url)
        self.form = urllib.parse.urlencode(fields + buttons)

    def post_for_profile(self, query=""):
        parts = urllib.parse.urlsplit(self.options.link)
        headers = {"User-Agent": self.safari, "Content-Type": "application/x-www-form-urlencoded",
                   "Origin": f"{parts.scheme}://{parts.netloc}", "Referer": self.options.link}
        url = self.post_url + (("&" if "?" in self.post_url else "?") + query if query else "")
        return self.web.request("POST", url, body=self.form.encode(), headers=headers)

    def fetch_profile(self):
        status, headers, unsigned = self.post_for_profile(self.options.unsigned_query)
        self.t.need("unsigned profile", status == 200 and unsigned[:5] == b"<?xml", (status, unsigned[:100]))
        first = plistlib.loads(unsigned)
        status, headers, signed = self.post_for_profile()
        self.t.need("signed profile", status == 200, (status, signed[:200]))
        self.t.check("its content type", headers.get("content-type", "").split(";")[0] == PROFILE, headers)
        self.t.check("it is not to be kept by caches", "no-store" in headers.get("cache-control", ""), headers)
        self.t.check("it is offered as a file", ".mobileconfig" in headers.get("content-disposition", ""), headers)
        signer = self.folder / "signer.pem"
        code, plist, error = run("openssl", "cms", "-verify", "-noverify", "-binary", "-inform", "DER",
                                 "-signer", signer, data=signed)
        self.t.need("openssl cms verifies the profile's signature", code == 0, error)
        code, _, error = run("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any",
                             "-CAfile", self.options.profile_ca or self.options.ca, data=signed)
        self.t.check("the profile's signer chains to the CA file", code == 0, error)
        damaged = signed.replace(b"com.apple.mdm", b"com.apple.mdN", 1)
        code, _, _ = run("openssl", "cms", "-verify", "-noverify", "-binary", "-inform", "DER", data=damaged)
        self.t.check("a changed profile does not verify", damaged != signed and code != 0)
        self.profile = plistlib.loads(plist)
        (self.folder / "enroll.plist").write_bytes(plist)
        self.read_profile(first)

    def read_profile(self, other):
        check, profile = self.t.check, self.profile
        check("the profile's head", (profile.get("PayloadType"), profile.get("PayloadVersion")) == ("Configuration", 1), profile.keys())
        payloads = profile.get("PayloadContent", [])
        by_type = {p.get("PayloadType"): p for p in payloads}
        self.t.need("it has a SCEP and an MDM payload", {"com.apple.security.scep", "com.apple.mdm"} <= set(by_type), by_type.keys())
        uuids = [profile["PayloadUUID"]] + [p["PayloadUUID"] for p in payloads]
        check("its UUIDs are distinct", len(set(uuids)) == len(uuids), uuids)
        again = [other["PayloadUUID"]] + [p["PayloadUUID"] for p in other["PayloadContent"]]
        check("its UUIDs and identifier are the same each time",
              uuids == again and profile["PayloadIdentifier"] == other["PayloadIdentifier"], (uuids, again))
        if self.options.family == "mac":
            check("PayloadScope is User on a Mac", profile.get("PayloadScope") == "User", profile.get("PayloadScope"))
        self.scep, self.mdm = by_type["com.apple.security.scep"]["PayloadContent"], by_type["com.apple.mdm"]
        check("the MDM payload uses the SCEP identity",
              self.mdm["IdentityCertificateUUID"] == by_type["com.apple.security.scep"]["PayloadUUID"])
        check("all three capabilities", CAPABILITIES <= set(self.mdm.get("ServerCapabilities", [])), self.mdm)
        check("messages are to be signed", self.mdm.get("SignMessage") is True)
        check("access rights are stated", isinstance(self.mdm.get("AccessRights"), int) and self.mdm["AccessRights"] > 0)
        check("the topic is one of MDM", self.mdm.get("Topic", "").startswith("com.apple.mgmt."), self.mdm.get("Topic"))
        check("the server is called by https", self.mdm.get("ServerURL", "").startswith("https://"), self.mdm.get("ServerURL"))
        check("RSA keys of 2048 bits or more", self.scep.get("Keysize", 1024) >= 2048, self.scep.get("Keysize"))
        check("the key stays on the device", self.scep.get("KeyIsExtractable") is False)
        self.cn = next((v for s in self.scep.get("Subject", []) for k, v in s if k == "CN"), "")
        check("the common name is short enough for macOS", 0 < len(self.cn.encode()) <= 46, self.cn)
        self.challenge = self.scep.get("Challenge", "")
        check("the challenge has 128 bits or more", len(self.challenge) >= 22, len(self.challenge))
        old = next(p for p in other["PayloadContent"] if p["PayloadType"] == "com.apple.security.scep")
        self.old_challenge = old["PayloadContent"].get("Challenge", "")
        check("each profile has its own challenge", self.challenge != self.old_challenge)
        self.roots = [p["PayloadContent"] for p in payloads if p["PayloadType"] == "com.apple.security.root"]

    # --- SCEP ---------------------------------------------------------------------------------

    def scepclient(self, folder):
        """Debian's scepclient. It is a Go program: SSL_CERT_FILE is its list of trusted roots, so https needs
        no relay. It keeps csr.pem and self.pem beside the key, hence a folder of its own."""
        folder.mkdir(exist_ok=True)
        env = dict(os.environ, SSL_CERT_FILE=str(pathlib.Path(self.options.ca).resolve()), SSL_CERT_DIR="/nonexistent")
        code, out, error = run("scepclient", "-server-url", self.scep["URL"], "-challenge", self.challenge, "-cn", self.cn,
                               "-private-key", folder / "key.pem", "-certificate", folder / "cert.pem",
                               "-keySize", self.scep.get("Keysize", 2048),
                               "-ca-fingerprint", hashlib.sha256(self.ca_der).hexdigest(), "-organization", "",
                               "-ou", "", "-country", "", "-locality", "", "-province", "", env=env)
        return code, out.decode(errors="replace") + error

    def pki_scep(self, key, cert, challenge=None, old=None, cn=None, san=None, extra=()):
        """strongSwan's SCEP client. `old` is (certificate, key): then it sends a RenewalReq."""
        command = ["pki", "--scep", "--url", self.relay.url, "--in", key, "--dn", f"CN={cn or self.cn}",
                   "--cacert-enc", self.ca_pem, "--cacert-sig", self.ca_pem, "--outform", "pem", *extra]
        if challenge is not None:
            command += ["--password", challenge]
        if san:
            command += ["--san", san]
        if old:
            command += ["--cert", old[0], "--key", old[1]]
        code, out, error = run(*command)
        if code == 0 and b"BEGIN CERTIFICATE" in out:
            cert.write_bytes(out)
            return True, ""
        noise = [line for line in error.splitlines() if "TPM" not in line and "plugin" not in line]
        return False, f"exit code {code}: " + "; ".join(noise)

    def new_key(self, name):
        path = self.folder / name
        code, _, error = run("openssl", "genrsa", "-out", path, max(2048, self.scep.get("Keysize", 2048)))
        if code:
            raise Stop(error)
        return path

    def get_identity(self):
        url = self.scep["URL"]
        joint = "&" if "?" in url else "?"
        status, headers, caps = self.web.request("GET", f"{url}{joint}operation=GetCACaps")
        words = set(caps.decode(errors="replace").split())
        self.t.check("GetCACaps", status == 200 and headers.get("content-type", "").startswith("text/plain")
                     and {"AES", "SHA-256", "POSTPKIOperation", "Renewal"} <= words, (status, words))
        status, headers, ca = self.web.request("GET", f"{url}{joint}operation=GetCACert")
        self.t.need("GetCACert", status == 200 and headers.get("content-type") == "application/x-x509-ca-cert", (status, headers))
        self.ca_der = ca
        code, pem, error = run("openssl", "x509", "-inform", "DER", data=ca)
        self.t.need("openssl reads the CA certificate", code == 0, error)
        self.ca_pem = self.folder / "device-ca.pem"
        self.ca_pem.write_bytes(pem)
        fingerprint = self.scep.get("CAFingerprint")
        if fingerprint is not None:
            algorithm = {16: "md5", 20: "sha1", 32: "sha256", 64: "sha512"}.get(len(fingerprint))
            self.t.check("the CA is the one that the profile names",
                         algorithm and hashlib.new(algorithm, ca).digest() == fingerprint, fingerprint.hex())
        self.relay = Relay(url, self.options.ca)
        code, said = self.scepclient(self.folder / "scepclient")
        self.t.check("scepclient reads the CA and understands the signed refusal of single DES",
                     code != 0 and "badAlg" in said, said)
        refused = self.folder / "refused.pem"
        key = self.new_key("identity.key.pem")
        self.t.check("a wrong challenge is refused", not self.pki_scep(key, refused, "not-the-challenge")[0])
        self.t.check("no challenge is refused", not self.pki_scep(key, refused)[0])
        self.t.check("another common name is refused", not self.pki_scep(key, refused, self.challenge, cn="root")[0])
        self.t.check("a host name in the request is refused",
                     not self.pki_scep(key, refused, self.challenge, san="mdm.example.org")[0])
        self.t.check("the refusals are CertReps over HTTP 200",
                     all(status == 200 for method, path, _, status in self.relay.seen if "PKIOperation" in path), self.relay.seen)
        done, error = self.pki_scep(key, self.cert, self.challenge)
        self.t.need("strongSwan obtains the identity", done, error)
        self.judge_certificate()
        again = self.folder / "again.pem"
        other = self.new_key("again.key.pem")
        self.t.check("a spent challenge is refused to another key", not self.pki_scep(other, again, self.challenge)[0])
        done, error = self.pki_scep(key, again, self.challenge, extra=("--cipher", "des3", "--digest", "sha1"))
        say(f"note: the same key again, by triple DES: {'a certificate' if done else error}")

    def judge_certificate(self):
        code, _, error = run("openssl", "verify", "-CAfile", self.ca_pem, "-purpose", "sslclient", self.cert)
        self.t.check("openssl verifies the identity for clients", code == 0, error)
        code, _, _ = run("openssl", "verify", "-CAfile", self.ca_pem, "-purpose", "sslserver", self.cert)
        self.t.check("the identity is no server's", code != 0)
        _, mine, _ = run("openssl", "pkey", "-in", self.key, "-pubout")
        _, theirs, _ = run("openssl", "x509", "-in", self.cert, "-noout", "-pubkey")
        self.t.check("the certificate is for our key", mine == theirs)
        _, out, _ = run("openssl", "x509", "-in", self.cert, "-noout", "-text")
        text = out.decode(errors="replace")
        self.t.check("the identity is no CA", "CA:TRUE" not in text)
        code, _, _ = run("openssl", "x509", "-in", self.cert, "-noout", "-checkend", 366 * 86400)
        self.t.check("it lasts a year at most", code == 1)

    def renew(self):
        """A RenewalReq, signed with the old key, for a new one."""
        new_key, new_cert = self.new_key("renewed.key.pem"), self.folder / "renewed.pem"
        done, error = self.pki_scep(new_key, new_cert, old=(self.cert, self.key))
        if not self.t.check("strongSwan renews the identity", done, error):
            return
        self.key, self.cert = new_key, new_cert
        self.judge_certificate()
        status = self.session()
        self.t.check("the renewed identity is known", status == 200, status)

    # --- messages -----------------------------------------------------------------------------

    def signature(self, body, shape=None, key=None, cert=None):
        path = self.folder / "body"
        path.write_bytes(body)
        code, der, error = run("openssl", "cms", "-sign", "-binary", *SHAPES[shape or self.options.shape],
                               "-outform", "DER", "-in", path, "-signer", cert or self.cert, "-inkey", key or self.key)
        if code != 0:
            raise Stop(f"openssl cms -sign: {error}")
        return base64.b64encode(der).decode()

    def put(self, message, content_type=REPORT, shape=None, headers=None, sign=True, **identity):
        body = message if isinstance(message, bytes) else plistlib.dumps(message)
        send = {"Content-Type": content_type, "User-Agent": "MDM/1.0", "Accept": "*/*"}
        if sign:
            send["Mdm-Signature"] = self.signature(body, shape, **identity)
        send.update(headers or {})
        url = self.mdm.get("CheckInURL") if content_type == CHECK_IN else None
        return self.web.request("PUT", url or self.mdm["ServerURL"], body=body, headers=send)

    def idle(self, **more):
        return self.put({"Status": "Idle", "UDID": self.options.udid}, **more)

    def check_in(self, kind, **fields):
        message = {"MessageType": kind, "UDID": self.options.udid, "Topic": self.mdm["Topic"], **fields}
        return self.put(message, CHECK_IN)

    def enroll(self):
        mac = {"DeviceName": self.name, "ModelName": "MacBook Air", "Model": self.product} if self.options.family == "mac" else {}
        status, headers, body = self.check_in("Authenticate", OSVersion=self.os_version, BuildVersion=self.build,
                                              ProductName=self.product, SerialNumber=self.options.serial, **mac)
        self.t.need("Authenticate", status == 200, (status, body[:200]))
        self.t.check("its answer is empty", body == b"" and headers.get("content-length") == "0", headers)
        status, _, body = self.check_in("Authenticate", OSVersion=self.os_version, BuildVersion=self.build,
                                        ProductName=self.product, SerialNumber=self.options.serial, **mac)
        self.t.check("Authenticate again, with the same certificate, is a retry", status == 200, status)
        tokens = {"Token": os.urandom(32), "PushMagic": str(uuid.uuid4()).upper(), "AwaitingConfiguration": False}
        if self.options.family != "mac":
            tokens["UnlockToken"] = self.unlock_token
        status, headers, body = self.check_in("TokenUpdate", **tokens)
        self.t.need("TokenUpdate", status == 200, (status, body[:200]))
        self.t.check("its answer is empty, too", body == b"" and headers.get("content-length") == "0", headers)
        status, _, _ = self.check_in("TokenUpdate", **tokens)
        self.t.check("the same TokenUpdate again succeeds", status == 200, status)
        for shape in SHAPES:
            status = self.session(shape=shape)
            self.t.check(f"Idle signed as {shape}", status == 200, status)
        status = self.session(headers={"Content-Type": ""})
        self.t.check("a report without a content type", status == 200, status)

    def bootstrap_token(self):
        if self.options.family != "mac":
            return
        status, _, _ = self.put({"MessageType": "GetBootstrapToken", "UDID": self.options.udid}, CHECK_IN)
        self.t.check("GetBootstrapToken before there is one", status == 200, status)
        token = os.urandom(64)
        status, _, _ = self.put({"MessageType": "SetBootstrapToken", "UDID": self.options.udid, "BootstrapToken": token}, CHECK_IN)
        self.t.check("SetBootstrapToken", status == 200, status)
        status, _, body = self.put({"MessageType": "GetBootstrapToken", "UDID": self.options.udid}, CHECK_IN)
        got = plistlib.loads(body).get("BootstrapToken") if status == 200 and body else None
        self.t.check("GetBootstrapToken returns it", got == token, status)

    def user_channel(self):
        if self.options.family != "mac":
            return
        user = {"UserID": str(uuid.uuid4()).upper(), "UserShortName": "ann", "UserLongName": "Ann"}
        status, _, body = self.put({"MessageType": "TokenUpdate", "UDID": self.options.udid, "Topic": self.mdm["Topic"],
                                    "Token": os.urandom(32), "PushMagic": str(uuid.uuid4()).upper(),
                                    "NotOnConsole": False, **user}, CHECK_IN)
        self.t.check("TokenUpdate of a user", status == 200, (status, body[:200]))
        status, _, body = self.put({"Status": "Idle", "UDID": self.options.udid, **user})
        self.t.check("Idle of a user", status == 200, (status, body[:200]))

    def forgeries(self):
        """What must be refused; never with 401, which would make a real device unenroll."""
        body = plistlib.dumps({"Status": "Idle", "UDID": self.options.udid})
        other_key, other_cert = self.folder / "other.key.pem", self.folder / "other.pem"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", other_key, "-out", other_cert,
            "-subj", "/CN=other", "-days", 2)
        good = self.signature(body)
        xml = {"Content-Type": REPORT}
        bomb = (b'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
                b"<plist><dict><key>Status</key><string>&b;</string></dict></plist>")
        deep = b"<plist>" + b"<array>" * 5000 + b"</array>" * 5000 + b"</plist>"
        cut = base64.b64encode(base64.b64decode(good)[:-40]).decode()
        tries = {
            "an unsigned message": self.put(body, sign=False),
            "a signature of other bytes": self.put(body + b" ", sign=False, headers={"Mdm-Signature": good, **xml}),
            "a signature that is cut off": self.put(body, sign=False, headers={"Mdm-Signature": cut}),
            "a signature that is no base64": self.put(body, sign=False, headers={"Mdm-Signature": "*** no ***"}),
            "a foreign certificate": self.put(body, key=other_key, cert=other_cert),
            "another device's name": self.put({"Status": "Idle", "UDID": self.options.udid + "-X"}),
            "an entity bomb": self.put(bomb),
            "a deeply nested list": self.put(deep),
            # openssl cms does not sign nothing, so the signature is another body's.
            "an empty body": self.put(b"", sign=False, headers={"Mdm-Signature": good, **xml}),
            "no property list": self.put(b"hello"),
            "an unknown message type": self.put({"MessageType": "Nonsense", "UDID": self.options.udid}, CHECK_IN),
            "an unknown status": self.put({"Status": "Nonsense", "UDID": self.options.udid, "CommandUUID": "x"}),
        }
        for name, (status, headers, answer) in tries.items():
            self.t.check(f"refused, and not with 401: {name}", 400 <= status < 500 and status != 401, (status, answer[:200]))
            self.t.check(f"no command leaks: {name}", b"CommandUUID" not in answer, answer[:200])
        status = self.session()
        self.t.check("the device is still enrolled after all that", status == 200, status)

    # --- commands -----------------------------------------------------------------------------

    def answer(self, command):
        kind = command["RequestType"]
        mac = self.options.family == "mac"
        ok = "Acknowledged"
        if kind == "DeviceLock":
            if mac and not re.fullmatch(r"[0-9A-Za-z]{6}", command.get("PIN", "")):
                return "Error", error_chain("a Mac is locked with a PIN of six characters")
            self.locked += 1
            return ok, {}
        if kind == "InstallProfile":
            try:
                data = command["Payload"]
                if data[:1] == b"\x30":
                    code, data, error = run("openssl", "cms", "-verify", "-noverify", "-binary", "-inform", "DER", data=data)
                    if code:
                        raise ValueError(error)
                profile = plistlib.loads(data)
                self.profiles[profile["PayloadIdentifier"]] = profile
            except Exception as error:  # plistlib raises many kinds
                return "Error", error_chain(f"the profile is malformed: {error}")
            return ok, {}
        if kind == "RemoveProfile":
            found = self.profiles.pop(command.get("Identifier"), None)
            return (ok, {}) if found else ("Error", error_chain("the profile is not installed"))
        if kind == "ProfileList":
            keep = ("PayloadIdentifier", "PayloadUUID", "PayloadDisplayName", "PayloadVersion")
            shown = [self.profile, *self.profiles.values()]
            return ok, {"ProfileList": [{**{k: p[k] for k in keep if k in p}, "IsManaged": True} for p in shown]}
        if kind == "DeviceInformation":
            facts = {"UDID": self.options.udid, "SerialNumber": self.options.serial, "DeviceName": self.name,
                     "OSVersion": self.os_version, "BuildVersion": self.build, "ProductName": self.product,
                     "IsSupervised": mac, "BatteryLevel": 0.75, "DeviceCapacity": 128.0}
            return ok, {"QueryResponses": {q: facts[q] for q in command.get("Queries", []) if q in facts}}
        if kind == "SecurityInfo":
            info = {"FDE_Enabled": True, "SystemIntegrityProtectionEnabled": True} if mac else {
                "HardwareEncryptionCaps": 3, "PasscodePresent": True, "PasscodeCompliant": True}
            return ok, {"SecurityInfo": info}
        if kind == "InstalledApplicationList":
            return ok, {"InstalledApplicationList": [
                {"Identifier": "org.example.app", "Name": "Example & Co", "Version": "1.0", "ShortVersion": "1.0"}]}
        if kind == "CertificateList":
            _, der, _ = run("openssl", "x509", "-in", self.cert, "-outform", "DER")
            return ok, {"CertificateList": [{"CommonName": self.cn, "Data": der, "IsIdentity": True}]}
        if kind == "ClearPasscode":
            right = command.get("UnlockToken") == self.unlock_token and not mac
            return (ok, {}) if right else ("Error", error_chain("the unlock token is not ours"))
        if kind == "Settings":
            for item in command.get("Settings", []):
                self.name = item.get("DeviceName", self.name)
            return ok, {"Settings": [{"Item": i.get("Item"), "Status": ok} for i in command.get("Settings", [])]}
        if kind in ("RestartDevice", "ShutDownDevice", "EraseDevice", "DeviceConfigured", "DeclarativeManagement"):
            return ok, {}
        return "CommandFormatError", error_chain(f"{kind} is not a valid request type")

    def session(self, **more):
        """Idle, then every command until there are no more. Returns the first answer's status."""
        status, headers, body = self.idle(**more)
        first = status
        save = pathlib.Path(self.options.save_commands) if self.options.save_commands else None
        while status == 200 and body:
            if save:
                (save / f"{self.options.serial}-{len(self.t.commands):03}.plist").write_bytes(body)
            try:
                command = plistlib.loads(body)
                uuid_, kind = command["CommandUUID"], command["Command"]["RequestType"]
            except Exception as error:
                self.t.check("a command that plistlib reads", False, (error, body[:300]))
                return first
            result, response = self.answer(command["Command"])
            self.t.commands.append({"type": kind, "uuid": uuid_, "status": result})
            say(f"command {kind}: {result}")
            report = {"Status": result, "CommandUUID": uuid_, "UDID": self.options.udid, **response}
            status, headers, body = self.put(report)
            if kind == "EraseDevice":
                say("erased")
                self.erased = True
                return first
        if status != 200 or headers.get("content-length") != "0":
            self.t.check("a session ends with an empty answer", False, (status, headers, body[:200]))
        return first

    def obey(self):
        """Sessions until every wanted command was answered, or the time is up."""
        wanted = [kind for kind in self.options.wait_for.split(",") if kind]
        until = time.monotonic() + self.options.timeout
        while True:
            self.session()
            done = {command["type"] for command in self.t.commands if command["status"] == "Acknowledged"}
            if self.erased or set(wanted) <= done or time.monotonic() > until:
                break
            time.sleep(self.options.every)
        for kind in wanted:
            self.t.check(f"was given {kind} and could do it", kind in done, sorted(done))

    def strange_reports(self):
        status, _, _ = self.put({"Status": "Acknowledged", "UDID": self.options.udid, "CommandUUID": str(uuid.uuid4())})
        self.t.check("a report on an unknown command is accepted", status == 200, status)
        if self.t.commands:
            last = self.t.commands[-1]
            for status_word in (last["status"], "Error"):
                report = {"Status": status_word, "UDID": self.options.udid, "CommandUUID": last["uuid"]}
                status, _, _ = self.put(report)
                self.t.check(f"a second report ({status_word}) on the same command is accepted", status == 200, status)

    def check_out(self):
        status, _, _ = self.check_in("CheckOut")
        self.t.check("CheckOut", status == 200, status)
        status, _, body = self.idle()
        self.t.check("after CheckOut there are no commands, and no 401", status != 401 and b"CommandUUID" not in body, status)


def error_chain(text):
    return {"ErrorChain": [{"ErrorCode": 12001, "ErrorDomain": "MCMDMErrorDomain",
                            "LocalizedDescription": text, "USEnglishDescription": text}]}


def road(device, options):
    device.open_page()
    device.fetch_profile()
    device.get_identity()
    device.enroll()
    say(f"enrolled {options.udid} {options.serial}")
    device.bootstrap_token()
    device.user_channel()
    device.forgeries()
    device.obey()
    if device.erased:
        return
    device.strange_reports()
    if options.renew:
        device.renew()
    if options.check_out:
        device.check_out()
    status, _, _ = device.web.request("GET", options.link, headers={"User-Agent": device.safari})
    device.t.check("the link is spent once the device is enrolled", status == 404, status)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--link", required=True, help="the invitation link")
    parser.add_argument("--ca", required=True, help="PEM file above the server's TLS certificate")
    parser.add_argument("--profile-ca", help="PEM file above the profile's signer, when it is another one")
    parser.add_argument("--family", choices=DEVICES, default="mac")
    parser.add_argument("--udid", default=str(uuid.uuid4()).upper())
    parser.add_argument("--serial", default="PY" + uuid.uuid4().hex[:10].upper())
    parser.add_argument("--name", default="Ann's <Python> & Co")
    parser.add_argument("--os-version")
    parser.add_argument("--shape", choices=SHAPES, default="real-device", help="of Mdm-Signature")
    parser.add_argument("--unsigned-query", default="format=unsigned", help="what asks for an unsigned profile")
    parser.add_argument("--wait-for", default="", metavar="TYPE,TYPE", help="commands that must come")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for them")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two calls")
    parser.add_argument("--save-commands", help="folder that gets every command as a file, for check_plists.py")
    parser.add_argument("--renew", action="store_true", help="renew the identity at the end")
    parser.add_argument("--check-out", action="store_true", help="check out at the end")
    options = parser.parse_args()

    missing = [tool for tool in ("openssl", "scepclient", "pki") if shutil.which(tool) is None]
    if missing:
        say(f"apple_device: not installed: {', '.join(missing)}")
        return 2
    transcript = Transcript()
    with tempfile.TemporaryDirectory(prefix="apple-device-") as folder:
        device = Device(options, pathlib.Path(folder), transcript)
        try:
            road(device, options)
        except Stop as stop:
            say(f"stopped: {stop}")
            if transcript.ok:
                transcript.check("the road", False, stop)
        except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            transcript.check("the road", False, f"{type(error).__name__}: {error}")
    json.dump({"ok": transcript.ok, "udid": options.udid, "serial": options.serial,
               "checks": transcript.checks, "commands": transcript.commands}, sys.stdout, indent=1)
    print()
    return 0 if transcript.ok else 1


if __name__ == "__main__":
    sys.exit(main())
