"""Requests for certificates, and the provisioning document that answers them (windows_pc.py)."""

import datetime
import hashlib
import pathlib
import re
import urllib.parse

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from lxml import etree
from windows_wire import SYNCML, Markup, Stop, b64, parse, run, unb64

# --- Requests for certificates ---------------------------------------------------------------------


def der(tag, *content):
    body = b"".join(content)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([len(body)]) if len(body) < 128 else bytes([0x80 | len(size)]) + size) + body


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for number in (40 * first + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.insert(0, 0x80 | number & 0x7F)
        out += bytes(groups)
    return der(0x06, out)


def new_key(bits=2048):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def make_csr(key, cn, device_id, old=False, damaged=False):
    """A PKCS#10 as Windows makes it (section 2.7): the common name is a PrintableString with a `!`, which that
    type forbids; the device's id stands in an extension of Microsoft's. `old` signs with SHA-1."""
    name = der(0x30, der(0x31, der(0x30, oid("2.5.4.3"), der(0x13, cn))))
    extension = der(0x30, oid("1.3.6.1.4.1.311.66.1.0"), der(0x04, device_id.encode()))
    wanted = der(0xA0, der(0x30, oid("1.2.840.113549.1.9.14"), der(0x31, der(0x30, extension))))
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    info = der(0x30, der(0x02, b"\0"), name, public, wanted)
    proof = key.sign(info, padding.PKCS1v15(), hashes.SHA1() if old else hashes.SHA256())
    proof = bytes([proof[0] ^ 1]) + proof[1:] if damaged else proof
    method = der(0x30, oid("1.2.840.113549.1.1.5" if old else "1.2.840.113549.1.1.11"), der(0x05))
    return der(0x30, info, method, der(0x03, b"\0", proof))


def instant(value):
    """A time with its zone, otherwise none that fits anything."""
    try:
        return datetime.datetime.fromisoformat(value).astimezone(datetime.timezone.utc) if value.endswith("Z") else None
    except ValueError:
        return None


def wrapped(data):
    """base64 with the line breaks of Windows."""
    lines = re.findall(".{1,64}", b64(data))
    return Markup("&#xD;\n".join(lines) + "&#xD;\n")


def save(folder, name, key=None, cert=None):
    """PEM files of a key and a certificate, as requests and openssl want them."""
    paths = str(folder / f"{name}.pem"), str(folder / f"{name}.key.pem")
    if key:
        pathlib.Path(paths[1]).write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    if cert:
        pathlib.Path(paths[0]).write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    return paths


def self_signed(folder, name, cn="stranger"):
    paths = save(folder, name)
    code, _, error = run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", paths[1], "-out", paths[0],
                         "-subj", f"/CN={cn}", "-days", 2)
    if code:
        raise Stop(error)
    return paths


def cms(identity, content, folder):
    (folder / "csr.der").write_bytes(content)
    code, out, error = run("openssl", "cms", "-sign", "-nodetach", "-binary", "-md", "sha256", "-outform", "DER",
                           "-in", folder / "csr.der", "-signer", identity[0], "-inkey", identity[1])
    if code:
        raise Stop(f"openssl cms -sign: {error}")
    return out


# --- The provisioning document ---------------------------------------------------------------------

# Section 2.8. What a w7 APPLICATION may say; names are case sensitive. Those without value are flags.
W7 = {"APPID", "PROVIDER-ID", "NAME", "ADDR", "CONNRETRYFREQ", "INITIALBACKOFFTIME", "MAXBACKOFFTIME", "PROTOVER",
      "DEFAULTENCODING", "SSLCLIENTCERTSEARCHCRITERIA", "CRLCHECK", "INIT", "ROLE"}
W7_FLAGS = {"BACKCOMPATRETRYDISABLED", "USEHWDEVID", "USENONCERESYNC"}
AUTH = {"AAUTHLEVEL", "AAUTHTYPE", "AAUTHNAME", "AAUTHSECRET", "AAUTHDATA"}


def chars(node, *kinds):
    nodes = [node]
    for kind in kinds:
        nodes = [c for n in nodes for c in n.iterchildren("characteristic") if c.get("type") == kind]
    return nodes


def parms(node):
    return {p.get("name"): p.get("value") for p in node.iterchildren("parm")}


class Provisioning:
    """A wap-provisioningdoc, judged by section 2.8 or, when there is an `old` one, as a renewal by 2.10."""

    def __init__(self, t, folder, name, document, key, old=None):
        self.check = lambda what, ok, detail="": t.check(f"{name}: {what}", ok, detail, True)
        self.folder, self.name, self.old, self.t = folder, name, old, t
        root = parse(document)
        tops = [c.get("type") for c in root]
        wanted = {"CertificateStore", "APPLICATION"} | (set() if old else {"DMClient"})
        t.need(f"{name}: a document of the proven parts only", root.tag == "wap-provisioningdoc" and set(tops) == wanted
               and tops.count("APPLICATION") == 1 and root.get("version") == "1.1" and b"<!" not in document, (root.attrib, tops))
        odd = [etree.tostring(n)[:90] for n in root.iterdescendants() if (n.tag, set(n.attrib)) not in (
            ("characteristic", {"type"}), ("parm", {"name"}), ("parm", {"name", "value"}), ("parm", {"name", "value", "datatype"}))]
        self.check("characteristics and parms only", not odd, odd)
        self.certificates(root, key)
        self.judge_leaf(key)
        application = chars(root, "APPLICATION")[0]
        self.w7 = parms(application)
        if old:
            self.check("APPLICATION says PROVIDER-ID only",
                       self.w7 == {"PROVIDER-ID": old.provider} and not chars(application, "APPAUTH"), self.w7)
            self.provider = old.provider
            return
        self.application(application)
        self.dmclient(root)

    def certificates(self, root, key):
        found = {}
        for store in ("Root/System", "CA/System", "My/User"):
            places = chars(root, "CertificateStore", *store.split("/"))
            nodes = [c for place in places for c in place if c.get("type") != "PrivateKeyContainer"]
            found[store] = [x509.load_der_x509_certificate(unb64(parms(c).get("EncodedCertificate")) or b"") for c in nodes]
            prints = [hashlib.sha1(c.public_bytes(serialization.Encoding.DER)).hexdigest().upper() for c in found[store]]
            names = [c.get("type") for c in nodes]
            self.check(f"thumbprints in {store}", prints == names, (prints, names))
        places = {f"{top.get('type')}/{c.get('type')}" for s in chars(root, "CertificateStore") for top in s for c in top}
        allowed = {"Root/System", "CA/System", "My/User"} | (set() if self.old else {"My/WSTEP"})
        self.check("no other stores", places <= allowed, places)
        roots, middle, mine = found["Root/System"], found["CA/System"], found["My/User"]
        self.check("one root, one intermediate at most", len(roots) <= 1 and len(middle) <= 1, found)
        self.t.need(f"{self.name}: a root", roots or self.old, found, True)
        self.t.need(f"{self.name}: one certificate of ours", len(mine) == 1, found, True)
        self.root, self.leaf, self.middle = roots[0] if roots else self.old.root, mine[0], middle
        user = chars(root, "CertificateStore", "My", "User")[0]
        inside = [n for c in user for n in chars(c, "PrivateKeyContainer")]
        self.check("PrivateKeyContainer", inside if self.old else inside or chars(user, "PrivateKeyContainer"))
        if self.old:
            return
        renew = chars(root, "CertificateStore", "My", "WSTEP", "Renew")
        self.check("ROBO renewal", len(renew) == 1, renew)
        said = {p.get("name"): (p.get("value"), p.get("datatype")) for r in renew for p in r}
        self.check("ROBOSupport", said.get("ROBOSupport") == ("true", "boolean"), said)
        for parm, low, high in (("RenewPeriod", 40, 183), ("RetryInterval", 4, 7)):
            value, datatype = said.get(parm, ("", ""))
            self.check(parm, datatype == "integer" and value.isdigit() and low <= int(value) <= high, said)
        self.check("nothing else about renewal", set(said) <= {"ROBOSupport", "RenewPeriod", "RetryInterval", "ServerURL"}, said)

    def judge_leaf(self, key):
        leaf, now = self.leaf, datetime.datetime.now(datetime.timezone.utc)
        chain = [*self.middle, self.root]
        try:
            for child, parent in zip([leaf, *chain], [*chain, self.root]):
                child.verify_directly_issued_by(parent)
            self.check("cryptography verifies the chain", True)
        except (InvalidSignature, ValueError, TypeError) as error:
            self.check("cryptography verifies the chain", False, error)
        files = [save(self.folder, "judged", cert=leaf)[0], save(self.folder, "root", cert=self.root)[0]]
        untrusted = [argument for c in self.middle for argument in ("-untrusted", save(self.folder, "middle", cert=c)[0])]
        code, _, error = run("openssl", "verify", "-purpose", "sslclient", "-CAfile", files[1], *untrusted, files[0])
        self.check("openssl verifies the chain", code == 0, error)
        code, _, _ = run("openssl", "verify", "-purpose", "sslserver", "-CAfile", files[1], *untrusted, files[0])
        self.check("the certificate is no server's", code != 0)
        numbers = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.check("it is for our key", leaf.public_key().public_bytes(*numbers) == key.public_key().public_bytes(*numbers))
        extensions = {e.oid: e.value for e in leaf.extensions}
        eku, usage = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE), extensions.get(ExtensionOID.KEY_USAGE)
        self.check("EKU is clientAuth only", eku is not None and list(eku) == [ExtendedKeyUsageOID.CLIENT_AUTH], eku)
        self.check("key usage has digitalSignature and signs no certificates",
                   usage is not None and usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign, usage)
        basic = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
        self.check("it is no CA", basic is None or not basic.ca, basic)
        self.check("key identifiers", {ExtensionOID.SUBJECT_KEY_IDENTIFIER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER} <= set(extensions))
        self.check("SHA-256", isinstance(leaf.signature_hash_algorithm, hashes.SHA256), leaf.signature_hash_algorithm)
        self.check("a random serial number", leaf.serial_number.bit_length() > 48, leaf.serial_number)
        back, ahead = now - leaf.not_valid_before_utc, leaf.not_valid_after_utc - now
        # Devices with a slow clock exist; months would make renewal wrong (section 2.7).
        self.check("back-dated by an hour at most (and begun)", 0 <= back.total_seconds() <= 3_660, back)
        self.check("it lasts a year or so", 60 < ahead.days <= 366, ahead)
        self.check("its subject is not of the request", "!" not in leaf.subject.rfc4514_string(), leaf.subject)
        # SSLCLIENTCERTSEARCHCRITERIA stays as it was first provisioned.
        self.check("a renewed certificate has the old subject", not self.old or leaf.subject == self.old.leaf.subject, leaf.subject)

    def application(self, node):
        w7, check = self.w7, self.check
        check("APPLICATION: parms are known and upper case", set(w7) <= W7 | W7_FLAGS, sorted(w7))
        check("APPLICATION: flags have no value, the others do", all((w7[n] is None) == (n in W7_FLAGS) for n in w7), w7)
        check("APPLICATION: no datatypes", not node.xpath(".//parm[@datatype]"))
        check("APPID", w7.get("APPID") == "w7", w7)
        self.provider, self.addr = w7.get("PROVIDER-ID") or "", w7.get("ADDR") or ""
        check("PROVIDER-ID", re.fullmatch(r"[!-~]+", self.provider) and "/" not in self.provider, self.provider)
        self.t.need(f"{self.name}: ADDR", re.fullmatch(r"https://[^\s?#]+", self.addr), self.addr, True)
        check("PROTOVER", w7.get("PROTOVER", "1.2") == "1.2", w7)
        check("no ROLE", "ROLE" not in w7)
        check("DEFAULTENCODING", w7.get("DEFAULTENCODING", SYNCML + "xml") in (SYNCML + "xml", SYNCML + "wbxml"), w7)
        numbers = [w7.get(n, "1") for n in ("CONNRETRYFREQ", "INITIALBACKOFFTIME", "MAXBACKOFFTIME")]
        check("retries are numbers", all(n.isdigit() for n in numbers), numbers)
        search = dict(p.partition("=")[::2] for p in (w7.get("SSLCLIENTCERTSEARCHCRITERIA") or "").split("&"))
        names = sorted(urllib.parse.unquote(search.get("Subject", "")).split(","))
        issued = sorted(a.rfc4514_string() for rdn in self.leaf.subject.rdns for a in rdn)
        check("SSLCLIENTCERTSEARCHCRITERIA: the issued subject, encoded",
              names == issued and "=" not in search.get("Subject", "="), (search, issued))
        check("SSLCLIENTCERTSEARCHCRITERIA: the store", search.get("Stores") == "My%5CUser" and len(search) == 2, search)
        auths = [parms(c) for c in chars(node, "APPAUTH")]
        check("APPAUTH: parms are known", all(set(a) <= AUTH for a in auths), [sorted(a) for a in auths])
        self.auth = {a.get("AAUTHLEVEL"): a for a in auths}
        self.t.need(f"{self.name}: APPAUTH for CLIENT and for APPSRV", len(auths) == 2 and set(self.auth) == {"CLIENT", "APPSRV"},
                    list(self.auth), True)
        for level, auth in self.auth.items():
            self.t.need(f"{self.name}: {level} is by DIGEST", auth.get("AAUTHTYPE") == "DIGEST", auth.get("AAUTHTYPE"), True)
            check(f"{level} has a secret", len(auth.get("AAUTHSECRET") or "") >= 16)
            check(f"{level} has a nonce", len(unb64(auth.get("AAUTHDATA")) or b"") >= 8, auth.get("AAUTHDATA"))
        check("APPSRV has a name", self.auth["APPSRV"].get("AAUTHNAME"))
        mine, theirs = self.auth["APPSRV"], self.auth["CLIENT"]
        check("secrets and nonces differ", all(mine.get(n) != theirs.get(n) for n in ("AAUTHSECRET", "AAUTHDATA")))
        self.client_nonce = unb64(theirs.get("AAUTHDATA"))

    def dmclient(self, root):
        check, nodes = self.check, chars(root, "DMClient", "Provider", self.provider)
        names = [c.get("type") for n in chars(root, "DMClient", "Provider") for c in n]
        check("DMClient: the same PROVIDER-ID", names == [self.provider], (names, self.provider))
        self.dm = parms(nodes[0]) if nodes else {}
        kinds = {p.get("datatype") for n in nodes for p in n.iter("parm")}
        check("DMClient: datatypes are said", kinds <= {"string", "integer", "boolean"}, kinds)
        check("DMClient: EntDMID", self.dm.get("EntDMID"), self.dm)
        check("DMClient: no Push", not any(chars(n, "Push") for n in nodes))
        poll = parms(chars(nodes[0], "Poll")[0]) if nodes and chars(nodes[0], "Poll") else {}
        self.poll = poll
        # Number 0 with an interval is endless and ends the stages after it; interval 0 switches a stage off.
        stages = [(poll.get(a), poll.get(b)) for a, b in (("NumberOfFirstRetries", "IntervalForFirstSetOfRetries"),
                  ("NumberOfSecondRetries", "IntervalForSecondSetOfRetries"),
                  ("NumberOfRemainingScheduledRetries", "IntervalForRemainingScheduledRetries"))]
        plain = all((n or "").isdigit() and (i or "").isdigit() for n, i in stages)
        check("Poll: three stages of numbers", plain, poll)
        stages = [(int(n), int(i)) for n, i in stages] if plain else []
        endless = [k for k, (number, interval) in enumerate(stages) if number == 0 and interval]
        check("Poll: the first stage is finite, the last endless", endless == [2], stages)
        check("Poll: the steady state is an hour or slower", stages and 60 <= stages[2][1] <= 1440, stages)
        check("Poll: the fast stages last some hours at most", sum(n * i for n, i in stages[:2]) <= 360, stages)
