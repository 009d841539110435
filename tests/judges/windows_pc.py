#!/usr/bin/env python3
"""Judge: a simulated Windows PC that shares no code with the server.

XML is lxml's, HTTP and TLS are `requests`, certificates and signatures are `cryptography` and the `openssl`
command, WBXML is libwbxml's `xml2wbxml` and `wbxml2xml`. Section numbers are those of the Windows protocol
reference (MS-MDE2, MS-XCEP, MS-WSTEP, MS-MDM and the CSP pages).

The PC takes the road of a real one: it probes Discovery, asks for policies, enrolls (the first answer gets
lost), opens management sessions, locks itself, installs a package, renews its certificate and leaves. On the
way it tries what must be refused. Commands are queued through the server's own HTTP API.

Everything happens in a temporary folder. A transcript goes to standard output:

    {"ok": true, "checks": [{"name": "GET probe", "ok": true}, …], "commands": [{"type": "Exec", …}]}

What it is doing meanwhile goes to standard error, one line each (the rules that every message must obey are
written there only when one is broken). The exit code is 0 when every check is ok, 1 when one is not, 2 when
the judge itself cannot work. `--self-test` needs no server: vectors and builders are checked and counted.

Its parts lie beside it: windows_wire.py (XML, HTTP, SOAP, SyncML and their rules), windows_certificates.py
(requests and the provisioning document), windows_machine.py (the PC's sessions and its tree of nodes), windows_scep.py
(a certificate by strongSwan's `pki --scep`).
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
import traceback
import urllib.parse
import uuid
import zipfile

sys.dont_write_bytecode = True
try:
    from lxml import etree
    from windows_certificates import cms, new_key, self_signed, wrapped
    from windows_machine import MSFT_ROOT, MSI, SCEP, Pc, Session
    from windows_scep import Scep
    from windows_wire import (
        DISCOVER, DISCOVER_MODELS, ENROLLMENT, GONE_ALERT, INSTALL_ALERT, NS, PKI, POLICIES, SYNCML_MODELS, TOKEN, WSSE,
        WSTEP_MODELS, XCEP_MODELS, XSI, Markup, Stop, Transcript, Unenrolled, alert, b64, digest, from_wbxml, local, meta,
        misordered, parse, run, say, status, text, to_wbxml, unb64, x)
except ImportError as error:
    print(f"windows_pc: not installed: {error.name}", file=sys.stderr)
    sys.exit(2)

# --- The server's API: all of it that is used here -------------------------------------------------

SEND = "/api/v1/devices/{serial}/commands"
COMMAND = "/api/v1/commands/{id}"
DEVICE = "/api/v1/devices/{serial}"
CERTIFICATES = "/api/v1/devices/{serial}/certificates"
UPLOAD = "/api/v1/commands/{id}/upload"
PACKAGES = "/api/v1/packages"


class Api:
    def __init__(self, pc):
        self.web, self.t, self.serial, self.base = pc.web, pc.t, pc.options.serial, pc.options.api.rstrip("/")
        self.key = pathlib.Path(pc.options.key).read_text().strip()

    def call(self, method, path, body=None, params=None, kind="application/json"):
        data = json.dumps(body).encode() if body is not None and kind == "application/json" else body
        headers = {"Authorization": f"Bearer {self.key}", "Accept-Encoding": "identity", **({"Content-Type": kind} if body is not None else {})}
        answer = self.web.ask(method, self.base + path.format(serial=self.serial), data, headers, params=params)
        try:
            return answer.status, json.loads(answer.body or b"null")
        except ValueError:
            return answer.status, {"body": answer.body[:300]}

    def send(self, intent):
        status_, made = self.call("POST", SEND, {"intent": intent})
        self.t.need(f"{intent['type']} is taken", status_ == 201 and "id" in made, (status_, made))
        return made["id"]

    def until(self, name, path, read, wanted):
        """Looks until the wanted value is there, ten seconds at most."""
        for _ in range(40):
            found = read(self.call("GET", path)[1] or {})
            if found == wanted:
                break
            time.sleep(0.25)
        return self.t.check(name, found == wanted, found)

    def state(self, name, id_, wanted):
        return self.until(f"{name}: {wanted}", COMMAND.replace("{id}", id_), lambda c: c.get("command", {}).get("state"), wanted)

    def enrollment(self, name, wanted):
        return self.until(name, DEVICE, lambda d: (d.get("device", {}).get("enrollment") or {}).get("state"), wanted)


# --- The road --------------------------------------------------------------------------------------

BOMB = (b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%s">' % (i, b"&%c;" % (i - 1) * 10) for i in range(ord("b"), ord("k"))) + b"]>")
HOSTILE = {
    "an entity bomb": BOMB + b"<l>&j;</l>",
    "an external entity": b'<!DOCTYPE l [<!ENTITY e SYSTEM "file:///etc/passwd">]><l>&e;</l>',
    "deep nesting": b"<l>" * 50_000,
    "many attributes": b"<l " + b" ".join(b'a%d=""' % i for i in range(30_000)) + b"/>",
    "garbage": bytes(range(256)) * 8, "nothing": b"",
    "half a message": b'<?xml version="1.0"?><SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr>',
    "UTF-16": '<?xml version="1.0" encoding="UTF-16"?><l/>'.encode("utf-16"),
}


def refused(t, name, answer):
    t.check(f"refused with 401 or 403 and nothing else: {name}", answer.status in (401, 403) and answer.body == b"", answer)


def discover_body(pc, version="9.0", policies=("OnPremise", "Federated"), namespace=ENROLLMENT):
    return x("Discover", {"xmlns": namespace}, x(
        "request", {"xmlns:i": XSI}, x("EmailAddress", pc.options.user), x("RequestVersion", f" {version}\n"),
        x("DeviceType", "CIMClient_Windows"), x("ApplicationVersion", "10.0.26200.1"), x("OSEdition", 48),
        x("AuthPolicies", *[x("AuthPolicy", p) for p in policies])))


def discover(pc):
    t, url = pc.t, pc.options.discovery
    ask = lambda name, **more: pc.soap.good(name, url, DISCOVER, discover_body(pc, **more), DISCOVER_MODELS)[0]
    answer = pc.web.ask("GET", url, headers={"User-Agent": "ENROLLClient"})
    t.need("GET probe", answer.status == 200 and answer.body == b"" and answer.headers.get("content-length") == "0", answer)
    for version in ("1.0", "2.0", "3.0", "4.0", "5.0", "9.0", "10.0"):
        given = text(ask(f"Discover {version}", version=version), "disc:EnrollmentVersion")
        fits = given and 3 <= float(given) <= float(version) if float(version) >= 3 else given == ""
        t.check(f"the version for {version}", fits, given)
    slash = ask("Discover with a slash at the namespace's end", namespace=ENROLLMENT + "/")
    only = ask("Discover offering OnPremise only", policies=["OnPremise"])
    result = ask("Discover")
    said = [(local(c), c.text) for c in result]
    t.check("the slash changes nothing", [(local(c), c.text) for c in slash] == said, said)
    policy = text(result, "disc:AuthPolicy")
    t.check("AuthPolicy is one that we offered", policy in ("OnPremise", "Federated"), policy)
    t.need("AuthPolicy OnPremise when that is all we can", text(only, "disc:AuthPolicy") == "OnPremise", said)
    pc.policy_url, pc.enrollment_url = text(only, "disc:EnrollmentPolicyServiceUrl"), text(only, "disc:EnrollmentServiceUrl")
    t.need("both URLs, by https", all(u.startswith("https://") for u in (pc.policy_url, pc.enrollment_url)), said)
    hosts = {urllib.parse.urlsplit(u).netloc for u in (pc.policy_url, pc.enrollment_url)}
    t.check("both on one host", len(hosts) == 1, hosts)
    answer = pc.soap.post(url, DISCOVER, discover_body(pc, policies=["Certificate"]))
    pc.soap.fault("nothing in common", answer, ["s:Authorization"], "NotSupported", DISCOVER)
    t.check("enrollment asks for no client certificate", not asks_for_certificate(pc, url))


def asks_for_certificate(pc, url):
    """Does this listener send a CertificateRequest? Only then does s_client list the algorithms that the peer wants."""
    parts = urllib.parse.urlsplit(url)
    _, out, _ = run("openssl", "s_client", "-connect", f"{parts.hostname}:{parts.port or 443}", "-servername", parts.hostname,
                    "-CAfile", pc.options.ca, data=b"")
    return b"Requested Signature Algorithms" in out or b"Acceptable client certificate" in out


def policies(pc):
    t = pc.t
    nil = {"xsi:nil": "true", "xmlns:xsi": XSI}
    client = x("client", x("lastUpdate", nil), x("preferredLanguage", nil))
    body = x("GetPolicies", {"xmlns": NS["xcep"]}, client, x("requestFilter", nil))
    for wrong in (pc.options.code + "x", ""):
        answer = pc.soap.post(pc.policy_url, POLICIES, body, pc.security(wrong))
        pc.soap.fault("a wrong password asks for policies", answer, ["s:Authentication"], call=POLICIES)
    answer = pc.soap.post(pc.policy_url, POLICIES, body)
    pc.soap.fault("no password asks for policies", answer, ["s:Authentication", "a:InvalidSecurity"], call=POLICIES)
    result = pc.soap.good("GetPolicies", pc.policy_url, POLICIES, body, XCEP_MODELS, security=pc.security())
    filled = [local(n) for n in result.iter() if n.get(f"{{{XSI}}}nil") == "true" and (len(n) or n.text)]
    t.check("what is nil is empty", not filled, filled)
    attributes = result.find("xcep:response/xcep:policies/xcep:policy/xcep:attributes", NS)
    get = lambda path: text(attributes, "/".join(f"xcep:{p}" for p in path.split("/")))
    length = get("privateKeyAttributes/minimalKeyLength")
    t.check("keys of 2048 bits", length == "2048", length)
    t.check("policySchema 3", get("policySchema") == "3", get("policySchema"))
    t.check("permission to enroll", (get("permission/enroll"), get("permission/autoEnroll")) == ("true", "false"))
    valid, renewal = (int(get(f"certificateValidity/{n}PeriodSeconds") or 0) for n in ("validity", "renewal"))
    t.check("a year, and renewal before its end", 0 < renewal < valid <= 366 * 86400, (valid, renewal))
    oids = {text(o, "xcep:oIDReferenceID"): (text(o, "xcep:value"), text(o, "xcep:group")) for o in result.findall("xcep:oIDs/*", NS)}
    t.check("the hash is SHA-256", oids.get(get("hashAlgorithmOIDReference")) == ("2.16.840.1.101.3.4.2.1", "4"), oids)


def enroll(pc):
    soap, key, again = pc.soap, new_key(), new_key()
    ask = lambda csr, password=None: soap.post(pc.enrollment_url, TOKEN, pc.issue_body(csr), pc.security(password))
    answer = ask(pc.csr(key), pc.options.code + "x")
    soap.fault("a wrong password asks for a certificate", answer, ["s:Authentication"], call=TOKEN)
    soap.fault("a request that its key did not sign", ask(pc.csr(key, damaged=True)), ["s:CertificateRequest"], call=TOKEN)
    soap.fault("a key of 1024 bits", ask(pc.csr(new_key(1024))), ["s:CertificateRequest"], call=TOKEN)
    answer = soap.judge("the answer that gets lost (SHA-1, a NUL)", ask(pc.csr(key, old=True)), TOKEN, WSTEP_MODELS)
    lost = pc.provisioned("the lost document", answer, key)
    answer = soap.judge("the second try, with a new key", ask(pc.csr(again)), TOKEN, WSTEP_MODELS)
    pc.doc = pc.provisioned("the document", answer, again)
    pc.t.check("another serial number", lost.leaf.serial_number != pc.doc.leaf.serial_number)
    pc.t.check("the same root", lost.root == pc.doc.root)
    pc.adopt(pc.doc, again, "first")
    pc.client_nonce = pc.doc.client_nonce
    provider = f"{MSFT_ROOT}/DMClient/Provider/{pc.doc.provider}"
    pc.nodes.update({f"{provider}/{n}": ("chr", v) for n, v in pc.doc.dm.items()})
    pc.nodes.update({f"{provider}/Poll/{n}": ("bool" if v in ("true", "false") else "int", v) for n, v in pc.doc.poll.items()})
    pc.nodes.update({f"{provider}/HWDevID": ("chr", pc.hardware_id), f"{provider}/Push/Status": ("int", "4")})


def first_session(pc, api):
    pc.t.check("management asks for a client certificate", asks_for_certificate(pc, pc.doc.addr))
    session = pc.session()
    pc.t.check("one challenge is enough", session.challenges == 1, session.challenges)
    api.enrollment("the enrollment is active", "active")
    say(f"enrolled {pc.device_id} {pc.options.serial}")
    answer = pc.soap.post(pc.enrollment_url, TOKEN, pc.issue_body(pc.csr(new_key())), pc.security())
    pc.soap.fault("the code is spent once the PC is enrolled", answer, ["s:Authentication", "s:Authorization"], call=TOKEN)
    seen = pc.session().seen
    again = [entry for entry in seen if entry[0] != "Get" and entry in session.seen]
    pc.t.check("the second session repeats nothing", not again, again)
    pc.t.check("the nonce of the last session spares a challenge", pc.session().challenges == 0)


def commands(pc, api):
    t = pc.t
    wish = api.send({"type": "lock"})
    before = pc.locked
    seen = pc.session(drop=True).seen
    t.check("RemoteLock/Lock is the way to lock", ("Exec", MSFT_ROOT + "/RemoteLock/Lock") in seen, seen)
    pc.session()
    t.check("a lock whose answer got lost comes again, once", pc.locked == before + 1, pc.locked)
    api.state("lock", wish, "acknowledged")
    seen = pc.session().seen
    t.check("what was acknowledged is not repeated", pc.locked == before + 1 and not [e for e in seen if e[0] == "Exec"], seen)
    wish = api.send({"type": "restart"})
    pc.session()
    t.check("Reboot/RebootNow", pc.rebooted == 1, pc.rebooted)
    api.state("restart", wish, "acknowledged")
    wish = api.send({"type": "refresh-inventory"})
    seen = pc.session(chunk=True).seen
    t.check("inventory asks with Get", any(k == "Get" for k, _ in seen), seen)
    unknown = {c["uri"] for c in t.commands if c["status"] == 404}
    api.state(f"inventory, though {len(unknown)} nodes are missing", wish, "acknowledged")


def strange_sessions(pc, api):
    t = pc.t
    pc.alerts = [alert(1224, "com.example/Unknown", "?"),
                 alert(1226, "com.example:unknown", "1", "./Vendor/MSFT/Nothing", Format="int", Mark="warning")]
    if pc.options.format == "xml":
        # Data with markup in it, which WBXML cannot say.
        document = x("DeclaredConfiguration", {"context": "Device", "id": "x", "checksum": 1, "state": 60})
        declared = x("DeclaredConfigurations", {"schema": "1.0"}, document)
        pc.alerts.append(alert(1224, "com.microsoft.mdm.declaredconfigurationdocuments", declared))
    pc.session(split=True)
    pc.session(demand=True)
    # A command waits, so that there is something to leak.
    wish, before = api.send({"type": "lock"}), pc.locked
    session = Session(pc, secret="not the secret")
    message = session.open()
    t.check("a wrong secret is 401, twice, and gets nothing",
            (message.code, session.challenges) == ("401", 2) and not message.commands, message.code)
    t.check("the right one is not locked out", pc.session().challenges <= 1 and pc.locked == before + 1, pc.locked)
    api.state("lock", wish, "acknowledged")
    t.check("an old nonce is challenged once", pc.session(nonce=pc.nonces[0]).challenges == 1)


def apps(pc, api):
    t, package, product = pc.t, bytes.fromhex("D0CF11E0A1B11AE1") + os.urandom(300_000), "{" + str(uuid.uuid4()).upper() + "}"
    about = {"name": "tool.msi", "kind": "msi", "product": product, "version": "1.2.3"}
    status_, made = api.call("POST", PACKAGES, package, about, "application/octet-stream")
    t.need("a package is uploaded", status_ in (200, 201) and {"id", "sha256"} <= set(made), (status_, made))
    t.check("its SHA-256", made["sha256"].lower() == hashlib.sha256(package).hexdigest(), made)
    # The code of the alert is 1226 in the protocol reference, 1224 in the CSP's own page, which also writes bare braces.
    quoted = MSI + urllib.parse.quote(product)
    for code, source in (("1226", quoted), ("1224", f"{MSI}{product}/DownloadInstall")):
        wish = api.send({"type": "install-app", "app": {"source": "package", "id": made["id"]}})
        pc.jobs.clear()
        pc.session()
        t.check("the package that was uploaded came", pc.jobs.get(product) == hashlib.sha256(package).hexdigest(), pc.jobs)
        api.state(f"install ({code})", wish, "accepted")
        pc.progress(product, 50)
        pc.session()
        api.state(f"install ({code}), half done", wish, "accepted")
        pc.progress(product, 70)
        pc.alerts = [alert(code, INSTALL_ALERT, "0", source, Format="int", Mark="informational")]
        pc.session()
        api.state(f"install ({code})", wish, "acknowledged")


def certificates(pc, api):
    """ClientCertificateInstall/SCEP (section 4.3): for use elsewhere, and for nothing here."""
    t, base, wish = pc.t, SCEP + "wifi", {"type": "request-certificate", "id": "wifi"}
    first = api.send(wish)
    seen = pc.session().seen
    t.need("Install/Enroll is the last thing that is said", seen[-1] == ("Exec", base + "/Install/Enroll"), seen)
    device = api.call("GET", DEVICE)[1]["device"]["id"]
    pc.scep = Scep(pc, base, device)
    for number in (2, 32):
        pc.scep_says(base, number)
        pc.session()
        api.state(f"request-certificate with status {number}", first, "accepted")
    listed = lambda: [(c["requested"], c["serial"], c["state"]) for c in api.call("GET", CERTIFICATES)[1]["items"]]
    t.check("nothing is issued before it is fetched", listed() == [], listed())
    elsewhere = pc.scep.fetch()
    serial = pc.scep.serial(elsewhere)
    code, der, _ = run("openssl", "x509", "-in", elsewhere[0], "-outform", "DER")
    pc.scep_says(base, 1, cert=der)
    pc.session()
    api.state("request-certificate", first, "acknowledged")
    t.check("the API lists it", listed() == [("wifi", serial, "issued")], listed())
    refused(t, "a certificate for elsewhere, by TLS", pc.knock(elsewhere))
    nothing(t, "a certificate for elsewhere", renew(pc, "elsewhere", elsewhere)[1])
    nothing(t, "it, shown by TLS too,", renew(pc, "elsewhere", elsewhere, tls=elsewhere)[1])
    done, _ = pc.scep.ask(pc.scep.key("renewal"), old=elsewhere)
    t.check("a certificate for elsewhere renews nothing by SCEP", not done)
    # Once more under the same name: what is in use stays. This time the PC fails.
    second = api.send(wish)
    seen = [(kind, uri) for kind, uri in pc.session().seen if uri.startswith(base)]
    t.check("a renewal replaces the settings", {kind for kind, _ in seen} == {"Replace", "Exec"}, seen)
    pc.scep_says(base, 16, -2146877436)
    pc.session()
    api.state("request-certificate that fails", second, "failed")
    error = api.call("GET", COMMAND.replace("{id}", second))[1]["parts"][0]["error"]
    t.check("and says why", error.get("error_code") == "-2146877436", error)


def ended(pc, api):
    """Certificates end with the enrollment."""
    items = api.call("GET", CERTIFICATES)[1]["items"]
    pc.t.check("its certificates are revoked", items and all(c["state"] == "revoked" for c in items), items)
    pc.t.check("and on the CA's list", {c["serial"] for c in items} <= set(pc.scep.revoked()), items)


def renew(pc, name, identity, tls=False, double=False, key=None):
    """Section 2.10. With TLS the certificate is shown where management is, which asks for one."""
    key = key or new_key()
    token = b64(cms(identity, pc.csr(key), pc.folder))
    token = b64(token.encode()) if double else token
    kind = (WSSE if double else PKI + "enrollment") + "#PKCS7"
    url = urllib.parse.urlsplit(pc.enrollment_url)
    url = url._replace(netloc=urllib.parse.urlsplit(pc.doc.addr).netloc).geturl() if tls else pc.enrollment_url
    shown = pc.identity if tls is True else tls or None
    return key, pc.soap.post(url, TOKEN, pc.request("Renew", kind, token), pc.security("") if double else "", shown)


def renewed(pc, name, attempt):
    key, answer = attempt
    return key, pc.provisioned(name, pc.soap.judge(name, answer, TOKEN, WSTEP_MODELS), key, pc.doc)


def nothing(t, who, answer):
    refusal = answer.status in (401, 403) or b"DeviceEnrollmentServiceError" in answer.body
    t.check(f"{who} renews nothing", refusal and b"RequestedSecurityToken" not in answer.body, answer)


def renewal(pc, api):
    t, soap, old = pc.t, pc.soap, pc.identity
    attempt = renew(pc, "early", old)
    if b"NotEligibleToRenew" in attempt[1].body:
        soap.fault("before its time there is no renewal", attempt[1], ["a:InternalServiceFault"], "NotEligibleToRenew", TOKEN)
    else:
        renewed(pc, "a renewal before its time", attempt)
    wish = api.send({"type": "renew-identity"})
    pc.session()
    t.check("Renew/RenewNow", pc.renew_now)
    foreign = self_signed(pc.folder, "foreign")
    soap.fault("a renewal signed by a stranger", renew(pc, "foreign", foreign)[1], ["s:MessageFormat"], call=TOKEN)
    tokens = {"of garbage": b64(os.urandom(600)), "that is no base64": "*** no ***", "of a bare PKCS#10": b64(pc.csr(new_key()))}
    for name, token in tokens.items():
        answer = soap.post(pc.enrollment_url, TOKEN, pc.request("Renew", PKI + "enrollment#PKCS7", token))
        soap.fault(f"a renewal {name}", answer, ["s:MessageFormat"], call=TOKEN)
    nothing(t, "a stranger's TLS certificate", renew(pc, "mixed", old, tls=foreign)[1])
    renewed(pc, "the renewal that gets lost (TLS)", renew(pc, "tls", old, tls=True))
    pc.session()
    t.check("the old certificate works until the new one is seen", True)
    key, doc = renewed(pc, "the renewal (base64 twice, no TLS certificate)", renew(pc, "double", old, double=True))
    pc.session()
    pc.adopt(doc, key, "second")
    pc.session()
    refused(t, "the old certificate once the new one was seen", pc.knock(old))
    nothing(t, "the old certificate", renew(pc, "late", old)[1])
    api.state("renew-identity", wish, "acknowledged")
    pc.session()


def forgeries(pc, api):
    t, wish, before = pc.t, api.send({"type": "lock"}), pc.locked
    refused(t, "no client certificate", pc.knock(None))
    refused(t, "a stranger's certificate", pc.knock(self_signed(pc.folder, "stranger")))
    twin = self_signed(pc.folder, "twin", pc.doc.leaf.subject.rfc4514_string().partition("=")[2])
    refused(t, "another key with our subject", pc.knock(twin))
    answer = pc.knock(pc.identity, source=uuid.uuid4().hex.upper())
    t.check("another PC's DeviceID is refused", answer.status in (400, 401, 403) and b"CmdID" not in answer.body, answer)
    wbxml = {"WBXML of nothing": b"\x03\xa4\x01\x6a\x00", "a long string table": b"\x03\x00\x00\x6a\xff\xff\xff\xff\x7f"}
    for name, data in {**HOSTILE, **wbxml}.items():
        answer = pc.knock(pc.identity, data=data)
        t.check(f"a session of {name} is refused", 400 <= answer.status < 500 and b"CmdID" not in answer.body, answer)
    for url in (pc.options.discovery, pc.policy_url, pc.enrollment_url):
        for name, data in {**HOSTILE, "two megabytes": b" " * (2 << 20)}.items():
            began, answer = time.monotonic(), pc.soap.send(url, data)
            what = f"{name} at {urllib.parse.urlsplit(url).path.rpartition('/')[2]}"
            if answer.status in (200, 500):
                pc.soap.fault(what, answer, ["s:MessageFormat"])
            else:
                cut = name == "two megabytes" and answer.status == 0
                t.check(f"{what} is refused", 400 <= answer.status < 500 or cut, answer)
            t.check(f"{what}: soon", time.monotonic() - began < 5)
    body = BOMB + x("s:Envelope", {"xmlns:s": NS["s"]}, x("s:Body", Markup("&j;"))).encode()
    answer = pc.soap.send(pc.options.discovery, body)
    t.check("an envelope behind a DTD is refused", answer.status >= 400 or b"Fault" in answer.body, answer)
    pc.soap.good("the server lives", pc.options.discovery, DISCOVER, discover_body(pc), DISCOVER_MODELS)
    pc.session()
    t.check("the lock that waited meanwhile comes to us alone", pc.locked == before + 1, pc.locked)
    api.state("lock", wish, "acknowledged")


def diagnostics(pc, api):
    """DiagnosticLog CSP: the archive goes to SasUrl, "the storage server accepts the device's HTTP PUT to this URL"."""
    t = pc.t
    wish = api.send({"type": "collect-diagnostics"})
    pc.session()
    api.state("collect-diagnostics", wish, "acknowledged")
    t.need("diagnostics: ArchiveDefinition came once", len(pc.archives) == 1, pc.archives)
    collection = parse(pc.archives[0].encode())
    url = text(collection, "SasUrl")
    t.check("diagnostics: the collection's id is a GUID", collection.tag == "Collection" and uuid.UUID(text(collection, "ID")), pc.archives)
    t.check("diagnostics: the archive goes to https", url.startswith("https://"), url)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.xml", pc.archives[0])
        archive.writestr("events.evtx", os.urandom(1_500_000))
    sent, kind = packed.getvalue(), {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/zip"}
    for name, where in {"a guess": url[:-1] + ("A" if url[-1] != "A" else "B"), "a shorter one": url[:-1]}.items():
        answer = pc.web.attempt("PUT", where, sent, kind)
        t.check(f"diagnostics: no upload to {name}", answer.status in (0, 404) and (answer.status == 0 or answer.body == b""), answer)
    answer = pc.web.attempt("PUT", url + "?comp=block&blockid=AAAA", sent[:100], kind)
    t.check("diagnostics: a block alone is no file", answer.status == 400 and answer.body == b"", answer)
    # The address is one of a container: the client names its blob in it.
    answer = pc.web.attempt("PUT", f"{url}/DiagLogs-PC-20261125T120000Z.zip", sent, kind)
    t.check("diagnostics: the archive is taken, as Put Blob says it", answer.status == 201 and answer.body == b""
            and answer.headers.get("content-length") == "0", answer)
    answer = pc.web.attempt("PUT", url, b"something else", kind)
    t.check("diagnostics: not a second time", answer.status == 404 and answer.body == b"", answer)
    shown = (api.call("GET", COMMAND.replace("{id}", wish))[1] or {}).get("upload") or {}
    t.check("diagnostics: size and hash are shown", (shown.get("size"), shown.get("sha256")) == (len(sent), hashlib.sha256(sent).hexdigest()), shown)
    answer = pc.web.ask("GET", api.base + UPLOAD.replace("{id}", wish), headers={"Authorization": f"Bearer {api.key}"})
    t.check("diagnostics: an administrator gets the very same bytes", answer.status == 200 and answer.body == sent, (answer.status, answer.headers))
    t.check("diagnostics: as a file, and nothing to look at", answer.headers.get("content-disposition", "").startswith("attachment;")
            and answer.headers.get("x-content-type-options") == "nosniff", answer.headers)


def unenroll(pc, api):
    t = pc.t
    wish = api.send({"type": "unenroll"})
    try:
        pc.session()
        t.check("Exec Unenroll", False, t.commands[-3:])
    except Unenrolled:
        t.check("Exec Unenroll", True)
    pc.alerts = [alert(1226, GONE_ALERT, "1", Format="int")]
    # The page on unenrollment numbers both alerts 2: servers must bear that.
    session = Session(pc)
    message = session.open(ids=[2, 3, 2, 4] if session.nonce else None)
    t.check("the farewell is taken", message.code in ("200", "212") and not message.commands, message.code)
    api.enrollment("the enrollment is over", "ended")
    ended(pc, api)
    say(f"note: the command is {api.call('GET', COMMAND.replace('{id}', wish))[1].get('command', {}).get('state')}")
    for _ in range(20):
        answer = pc.knock(pc.identity)
        if answer.status in (401, 403):
            break
        time.sleep(0.5)
    refused(t, "the certificate of a PC that left", answer)
    nothing(t, "it", renew(pc, "gone", pc.identity)[1])


def road(pc):
    api = Api(pc)
    discover(pc)
    policies(pc)
    enroll(pc)
    first_session(pc, api)
    commands(pc, api)
    strange_sessions(pc, api)
    forgeries(pc, api)
    apps(pc, api)
    certificates(pc, api)
    diagnostics(pc, api)
    renewal(pc, api)
    unenroll(pc, api)


# --- Without a server ------------------------------------------------------------------------------

# The reply of section 3.8, made with libwbxml.
GOLDEN = bytes.fromhex(
    "03a4016a006d6c7103312e3200017203444d2f312e32000165033100015b033200016e5703646576000101675703687474703a2f2f3132372e302e302e313a38"
    "3038302f66756e616d626f6c2f646d0001014e5a000147036236340001530373796e636d6c3a617574682d6d643500010100004f034c783743535a7030694852"
    "65644345627279474a75773d3d000101016b694b033100015c033200014c033000014a0353796e6348647200014f03323132000101120101")


def golden_xml():
    header = x("SyncHdr", x("VerDTD", "1.2"), x("VerProto", "DM/1.2"), x("SessionID", 1), x("MsgID", 2), x("Target", x("LocURI", "dev")),
               x("Source", x("LocURI", "http://127.0.0.1:8080/funambol/dm")),
               x("Cred", meta(Format="b64", Type="syncml:auth-md5"), x("Data", "Lx7CSZp0iHRedCEbryGJuw==")))
    name, *content = status(2, 0, "SyncHdr", 212)
    body = x("SyncBody", x(name, x("CmdID", 1), *content), Markup("<Final/>"))
    return x("SyncML", {"xmlns": NS["d"]}, header, body).encode()


def self_test(pc):
    t, golden = pc.t, golden_xml()
    t.check("the digest's test vector", digest("Bruce2", "OhBehave", b"Nonce") == "Zz6EivR3yeaaENcRN6lpAQ==")
    t.check("models take what is right", misordered(parse(golden), SYNCML_MODELS) == [])
    for wrong in (golden.replace(b"<Final/>", b"<Final/><Final/>"), golden.replace(b"<CmdID>1</CmdID>", b""),
                  re.sub(rb"(<Target>.*</Target>)(<Source>.*</Source>)", rb"\2\1", golden), golden.replace(b"Status>", b"Put>")):
        t.check("models refuse what is wrong", misordered(parse(wrong), SYNCML_MODELS), wrong)
    if shutil.which("xml2wbxml"):
        t.check("xml2wbxml makes the vector of our XML", to_wbxml(golden) == GOLDEN, to_wbxml(golden).hex())
        canonical = lambda xml: etree.tostring(parse(xml), method="c14n")
        t.check("wbxml2xml makes our XML of the vector", canonical(from_wbxml(GOLDEN)) == canonical(golden), from_wbxml(GOLDEN))
    key = new_key()
    identity = self_signed(pc.folder, "self")
    for name, csr, good in (("as Windows makes it", pc.csr(key), True), ("by SHA-1, with a NUL", pc.csr(key, old=True), True),
                            ("of 1024 bits", pc.csr(new_key(1024)), True), ("damaged", pc.csr(key, damaged=True), False)):
        code, _, error = run("openssl", "req", "-inform", "DER", "-noout", "-verify", data=csr)
        t.check(f"openssl judges a request {name}", ("verify OK" in error and code == 0) == good, error)
        code, out, _ = run("openssl", "asn1parse", "-inform", "DER", data=csr)
        odd = re.search(rb"PRINTABLESTRING\s*:[^\n]*!", out) and b":1.3.6.1.4.1.311.66.1.0" in out
        t.check(f"a request {name} has the illegal name and Microsoft's extension", code == 0 and odd, out)
        code, out, error = run("openssl", "cms", "-verify", "-noverify", "-binary", "-inform", "DER", data=cms(identity, csr, pc.folder))
        t.check(f"openssl opens the PKCS#7 around a request {name}", code == 0 and out == csr, error)
        t.check("base64 with line breaks survives XML", unb64(parse(x("t", wrapped(csr))).text) == csr)
    for what, wanted in TREE:
        replies = pc.obey(parse(x("SyncBody", {"xmlns": NS["d"]}, what))[0], "2")
        seen = [r.data if r.kind == "Results" else r.code for r in replies]
        t.check(f"the tree answers as Windows does: {wanted}", seen == wanted, (what, seen))
    t.check("it was locked once", pc.locked == 1, pc.locked)


def command(kind, uri, data=None):
    item = x("Item", x("Target", x("LocURI", uri)), *([meta(Format="int"), x("Data", data)] if data else []))
    return x(kind, x("CmdID", 1), item)


def group(kind, *commands_):
    return x(kind, x("CmdID", 1), *commands_)


POLICY = "./Vendor/MSFT/Policy/Config/Experience/AllowCortana"
# One after the other: a command, and the codes and values of the answers (section 3.5).
TREE = [
    (command("Get", "./DevDetail/SwV"), [200, "10.0.26200.1"]),
    (command("Get", "./DevInfo"), [200, "DevId/Man/Mod/DmV/Lang"]),
    (command("Get", "./Vendor/MSFT/Nothing"), [404]),
    (command("Add", POLICY, "1"), [200]),
    (command("Add", "./Device" + POLICY[1:], "1"), [418]),
    (command("Replace", "./DevDetail/SwV", "1"), [405]),
    (command("Exec", "./Vendor/MSFT/RemoteLock/Lock"), [200]),
    (command("Delete", POLICY), [200]),
    (command("Delete", POLICY), [404]),
    (group("Atomic", command("Add", POLICY, "1"), command("Add", POLICY, "1"), command("Add", POLICY + "2", "1")), [507, 216, 418, 215]),
    (group("Atomic", command("Replace", POLICY, "1"), command("Get", POLICY)), [507, 216, 500]),
    (command("Get", POLICY), [404]),
    (group("Sequence", command("Get", "./No"), command("Replace", POLICY, "1")), [200, 404, 200]),
    (command("Get", POLICY), [200, "1"]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    server = parser.add_argument_group("the server (needed without --self-test)")
    server.add_argument("--discovery", help="https://HOST/EnrollmentServer/Discovery.svc")
    server.add_argument("--user", help="the invited account")
    server.add_argument("--code", help="the invitation's code, given as password")
    server.add_argument("--ca", help="PEM file above the server's TLS certificate")
    server.add_argument("--api", help="where the HTTP API is: https://HOST")
    server.add_argument("--key", help="file with a key of the API")
    parser.add_argument("--serial", default="PY" + uuid.uuid4().hex[:10].upper())
    parser.add_argument("--format", choices=("xml", "wbxml"), default="xml", help="of management messages")
    parser.add_argument("--catalogue", help="file of CSP nodes, `path | format [verbs]`: commands are compared with it")
    parser.add_argument("--self-test", action="store_true", help="check vectors and builders only")
    options = parser.parse_args()

    tools = ["openssl"] + ([] if options.self_test else ["pki"]) + (["xml2wbxml", "wbxml2xml"] if options.format == "wbxml" else [])
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        say(f"windows_pc: not installed: {', '.join(missing)}")
        return 2
    absent = [n for n in ("discovery", "user", "code", "ca", "api", "key") if not getattr(options, n)]
    if absent and not options.self_test:
        parser.error(f"needed: {', '.join('--' + n for n in absent)}")
    transcript = Transcript()
    with tempfile.TemporaryDirectory(prefix="windows-pc-") as folder:
        pc = Pc(options, pathlib.Path(folder), transcript)
        try:
            (self_test if options.self_test else road)(pc)
        except Stop as stop:
            say(f"stopped: {stop}")
            if transcript.ok:
                transcript.check("the road", False, stop)
        except Exception as error:  # whatever an answer that fits no expectation leads to
            say(traceback.format_exc())
            transcript.check("the road", False, f"{type(error).__name__}: {error}")
    json.dump({"ok": transcript.ok, "device_id": pc.device_id, "serial": options.serial,
               "checks": transcript.checks, "commands": transcript.commands}, sys.stdout, indent=1)
    print()
    return 0 if transcript.ok else 1


if __name__ == "__main__":
    sys.exit(main())
