"""The simulated Windows PC itself (windows_pc.py): its sessions, and what it does with commands."""

import collections
import datetime
import hashlib
import itertools
import os
import re
import urllib.parse
import uuid

from lxml import etree
from windows_certificates import Provisioning, instant, make_csr, save, wrapped
from windows_wire import (
    COMMANDS, MS5, MSFT, NS, PKI, SYNCML, TRUST, WSSE, Markup, Message, Soap, Stop, Unenrolled, Web, alert, b64, describe,
    device_uri, digest, local, meta, misordered, parse, read_catalogue, say, status, text, to_wbxml, unb64, x)

# --- The PC ----------------------------------------------------------------------------------------

MSFT_ROOT = "./Device/Vendor/MSFT"
MAKER, MODEL, VERSION = "Contoso & Söhne", "Tower <1>", "10.0.26200.1"
EXT = "./DevDetail/Ext/Microsoft/"
MSI = MSFT_ROOT + "/EnterpriseDesktopAppManagement/MSI/"
SCEP = MSFT_ROOT + "/ClientCertificateInstall/SCEP/"
# Without these nothing is enrolled (ClientCertificateInstall CSP).
SCEP_NEEDS = {"ServerURL", "Challenge", "EKUMapping", "KeyUsage", "SubjectName", "KeyLength", "HashAlgorithm", "CAThumbprint"}
RENEW = MSFT_ROOT + "/CertificateStore/MY/WSTEP/Renew"
# What a server may write; the rest that exists can only be read.
WRITABLE = re.compile(re.escape(MSFT_ROOT) + r"/(Policy/Config|DMClient/Provider/[^/]+|CertificateStore|RootCATrustedCertificates|"
                      r"EnterpriseDesktopAppManagement/MSI|WiFi/Profile|VPNv2|Firewall/MdmStore|ClientCertificateInstall|"
                      r"Reboot/Schedule|NodeCache|BitLocker|PassportForWork)/.+|./DevDetail/Ext/Microsoft/(DNSComputer|Device)Name")
NOT_FOUND = "0x86000002"
JOB_MODELS = {
    "MsiInstallJob": "Product", "Product": "Download Validation Enforcement", "Download": "ContentURLList",
    "ContentURLList": "ContentURL+", "Validation": "FileHash", "Enforcement": "CommandLine TimeOut RetryCount RetryInterval",
}


class Pc:
    def __init__(self, options, folder, transcript):
        self.options, self.folder, self.t = options, folder, transcript
        self.web = Web(options.ca)
        self.soap = Soap(self.web, transcript)
        self.device_id, self.hardware_id = uuid.uuid4().hex.upper(), uuid.uuid4().hex.upper() + uuid.uuid4().hex.upper()
        self.name = "PC-" + self.device_id[:8]
        self.sessions, self.nonce, self.nonces, self.alerts = 0, None, [], []
        self.locked = self.rebooted = 0
        self.renew_now, self.jobs, self.added, self.archives = False, {}, set(), []
        self.catalogue = read_catalogue(options.catalogue) if options.catalogue else None
        self.nodes = {
            "./DevInfo/DevId": ("chr", self.device_id), "./DevInfo/Man": ("chr", MAKER), "./DevInfo/Mod": ("chr", MODEL),
            "./DevInfo/DmV": ("chr", "1.3"), "./DevInfo/Lang": ("chr", "en-US"),
            "./DevDetail/SwV": ("chr", VERSION), "./DevDetail/FwV": ("chr", "1.0"), "./DevDetail/HwV": ("chr", "V1"),
            "./DevDetail/OEM": ("chr", MAKER), "./DevDetail/DevTyp": ("chr", MODEL), "./DevDetail/LrgObj": ("bool", "false"),
            "./DevDetail/Ext/WLANMACAddress": ("chr", "020304050607"),
            EXT + "SMBIOSSerialNumber": ("chr", options.serial), EXT + "DeviceName": ("chr", self.name),
            EXT + "DNSComputerName": ("chr", self.name), EXT + "OSPlatform": ("chr", "Windows 11 Pro"),
            EXT + "ProcessorArchitecture": ("int", "9"), EXT + "TotalRAM": ("int", "16384"),
            EXT + "TotalStorage": ("int", "476000"), EXT + "FreeStorage": ("int", "300000"),
            MSFT_ROOT + "/DeviceStatus/OS/Edition": ("int", "48"), MSFT_ROOT + "/DeviceStatus/SecureBootState": ("int", "1"),
            RENEW + "/RenewPeriod": ("int", "60"), RENEW + "/Status": ("int", "0"),
        }

    # --- enrollment -------------------------------------------------------------------------------

    def context(self):
        items = [("DeviceType", "CIMClient_Windows"), ("ApplicationVersion", VERSION), ("OSVersion", VERSION),
                 ("OSEdition", " 48"), ("DeviceName", self.name), ("MAC", "02-03-04-05-06-07"), ("MAC", "02-03-04-05-06-08"),
                 ("EnrollmentType", "Full"), ("DeviceID", self.device_id), ("HWDevID", self.hardware_id), ("Locale", "en-US"),
                 ("TargetedUserLoggedIn", "True"), ("UXInitiated", "true"), ("NotInOobe", "TRUE"), ("RequestVersion", "4.0"),
                 ("Manufacturer", MAKER), ("DeviceModel", MODEL), ("SerialNumber", self.options.serial),
                 ("AttestationStatusHResult", "0x80070057"), ("SomethingNew", "")]
        return x("ac:AdditionalContext", *[x("ac:ContextItem", {"Name": n}, x("ac:Value", v)) for n, v in items])

    def security(self, password=None):
        return x("wsse:Security", {"s:mustUnderstand": 1}, x(
            "wsse:UsernameToken", {"u:Id": "uuid-cc1ccc1f-2fba-4bcf-b063-ffc0cac77917-4"}, x("wsse:Username", self.options.user),
            x("wsse:Password", {"wsse:Type": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0"
                                             "#PasswordText"}, self.options.code if password is None else password)))

    def request(self, kind, value_type, token):
        encoding = {"ValueType": value_type, "EncodingType": WSSE + "#base64binary"}
        return x("wst:RequestSecurityToken", x("wst:TokenType", MS5 + "DeviceEnrollmentToken"),
                 x("wst:RequestType", f"{TRUST}/{kind}"), x("wsse:BinarySecurityToken", encoding, token), self.context())

    def csr(self, key, **more):
        cn = f"{str(uuid.uuid4()).upper()}!{self.device_id}".encode()
        return make_csr(key, cn + (b"\0" if more.get("old") else b""), self.device_id, **more)

    def issue_body(self, csr):
        return self.request("Issue", PKI + "enrollment#PKCS10", wrapped(csr))

    def provisioned(self, name, answer, key, old=None):
        """The document in an answer to a request for a token."""
        token = answer.find(".//wsse:BinarySecurityToken", NS)
        self.t.check(f"{name}: the token's types", token.get("ValueType") == MS5 + "DeviceEnrollmentProvisionDoc"
                     and token.get("EncodingType") == WSSE + "#base64binary", token.attrib)
        self.t.check(f"{name}: TokenType", text(answer, ".//wst:TokenType") == MS5 + "DeviceEnrollmentToken", quiet=True)
        header = answer.getroottree().getroot().find("s:Header/wsse:Security/u:Timestamp", NS)
        created, expires = (text(header, f"u:{n}") for n in ("Created", "Expires")) if header is not None else ("", "")
        times, soon = (instant(created), instant(expires)), datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=5)
        self.t.check(f"{name}: the timestamp's window", None not in times and times[0] <= soon <= times[1], (created, expires), True)
        return Provisioning(self.t, self.folder, name, unb64(token.text) or b"", key, old)

    def adopt(self, doc, key, name):
        self.identity = save(self.folder, name, key, doc.leaf)

    # --- sessions ---------------------------------------------------------------------------------

    def session(self, **options):
        about = {n: options.pop(n) for n in ("identity", "secret", "nonce") if n in options}
        return Session(self, **about).run(**options)

    def manage(self, data, identity):
        url = self.doc.addr + ("&" if "?" in self.doc.addr else "?") + "mode=Maintenance&Platform=WoA"
        kind = SYNCML + self.options.format
        return self.web.attempt("POST", url, data, {
            "Content-Type": kind, "Accept": f"{SYNCML}xml, {SYNCML}wbxml, application/octet-stream", "Accept-Charset": "UTF-8",
            "User-Agent": "MSFT OMA DM Client/1.2.0.1", "Client-Request-Id": "0", "Ms-Cv": "abcdefghijklmnop.0"}, identity)

    def knock(self, identity, source=None, data=None):
        """Package 1, or other bytes, from somebody who should get nothing."""
        session = Session(self)
        session.cred = session.proof() if session.nonce else None
        return self.manage(session.document(self.package_one(), first=2, source=source)[0] if data is None else data, identity)

    def package_one(self):
        about = [x("Item", x("Source", x("LocURI", uri)), x("Data", value)) for uri, (_, value) in self.nodes.items()
                 if uri.startswith("./DevInfo/")]
        return [alert(1201), alert(1224, "com.microsoft/MDM/LoginStatus", "user"), *self.alerts, ("Replace", *about)]

    # --- commands ---------------------------------------------------------------------------------

    def obey(self, command, message):
        """Statuses and results for a command of the server."""
        kind, ref = local(command), text(command, "d:CmdID")
        if kind in ("Atomic", "Sequence"):
            return self.group(command, kind, ref, message)
        replies, items = [], command.findall("d:Item", NS)
        for item in items:
            uri = text(item, "d:Target/d:LocURI")
            form = text(item, "d:Meta/m:Format") or text(command, "d:Meta/m:Format") or "chr"
            code, error, result = self.do(kind, device_uri(uri), form, item.findtext("d:Data", namespaces=NS) or "")
            self.t.commands.append({"type": kind, "uri": uri, "status": code})
            say(f"command {kind} {uri}: {code}")
            replies.append(Reply("Status", message, ref, kind, code, uri if len(items) > 1 else None, error))
            if result:
                replies.append(Reply("Results", message, ref, uri=uri, form=result[0], data=result[1]))
        return replies

    def group(self, command, kind, ref, message):
        kept, done, failed = dict(self.nodes), [], False
        for child in (c for c in command if local(c) in COMMANDS.split("|")):
            name = local(child)
            if failed or kind == "Atomic" and name in ("Get", "Atomic"):
                replies = [Reply("Status", message, text(child, "d:CmdID"), name, 215 if failed else 500)]
            else:
                replies = self.obey(child, message)
            failed = failed or kind == "Atomic" and any(r.kind == "Status" and r.code >= 300 for r in replies)
            done += replies
        if failed:
            self.nodes = kept
            done = [r._replace(code=216) if r.kind == "Status" and r.code < 210 else r for r in done]
        return [Reply("Status", message, ref, kind, 507 if failed else 200), *done]

    def do(self, kind, uri, form, data):
        """(status, original error, (format, data) of a Get)"""
        below = [n for n in self.nodes if n.startswith(uri + "/")]
        exists = uri in self.nodes or bool(below)
        if kind == "Exec":
            return self.execute(uri, data)
        if kind == "Get":
            if "?" in uri:
                return 406, None, None
            if uri in self.nodes and self.nodes[uri][0] != "node":
                return 200, None, self.nodes[uri]
            names = dict.fromkeys(n[len(uri) + 1:].partition("/")[0] for n in below)
            return (200, None, ("node", "/".join(names))) if exists else (404, NOT_FOUND, None)
        if not WRITABLE.fullmatch(uri):
            return (405, None, None) if exists else (404, NOT_FOUND, None)
        if kind == "Delete":
            for node in [uri, *below]:
                self.nodes.pop(node, None)
            return (200, None, None) if exists else (404, NOT_FOUND, None)
        if kind == "Add" and exists and not uri.startswith(MSI):
            return 418, None, None
        self.added.add(uri)
        self.nodes[uri] = (form if data else "node" if uri.startswith(MSI) else form, data)
        return 200, None, None

    def execute(self, uri, data):
        if uri == MSFT_ROOT + "/RemoteLock/Lock":
            self.locked += 1
        elif uri == MSFT_ROOT + "/Reboot/RebootNow":
            self.rebooted += 1
        elif uri == RENEW + "/RenewNow":
            self.renew_now = True
        elif uri in (f"{MSFT_ROOT}/DMClient/Provider/{self.doc.provider}/Unenroll", MSFT_ROOT + "/DMClient/Unenroll"):
            self.t.check("Unenroll names our provider", data in ("", self.doc.provider), data)
            raise Unenrolled
        elif uri.startswith(MSI) and uri.endswith("/DownloadInstall"):
            self.t.check("Add stands before Exec, in the same message", uri in self.added, self.added)
            return (202, None, None) if self.install(uri, data) else (500, "0x80070643", None)
        elif uri == MSFT_ROOT + "/DiagnosticLog/DiagnosticArchive/ArchiveDefinition":
            self.archives.append(data)
        elif match := re.fullmatch(f"({re.escape(SCEP)}[^/]+)/Install/Enroll", uri):
            return self.begin_scep(match[1])
        else:
            return 404, NOT_FOUND, None
        return 200, None, None

    def begin_scep(self, base):
        """Begins: the certificate comes between sessions (windows_scep.py)."""
        there = {n[len(base) + 9:] for n in self.nodes if n.startswith(base + "/Install/")}
        if not self.t.check("all that SCEP needs stands before Enroll", SCEP_NEEDS <= there, there):
            return 500, "0x80070057", None
        self.scep_says(base, 2)
        return 200, None, None

    def scep_says(self, base, number, error=0, cert=None):
        """1 done, 2 pending, 16 failed, 32 unknown."""
        self.nodes.update({base + "/Status": ("int", str(number)), base + "/ErrorCode": ("int", str(error))})
        if cert:
            self.nodes[base + "/CertThumbprint"] = ("chr", hashlib.sha1(cert).hexdigest().upper())

    def install(self, uri, data):
        """EnterpriseDesktopAppManagement (section 4.2): fetches what the job names and compares its hash."""
        check, product = self.t.check, urllib.parse.unquote(uri[len(MSI):].partition("/")[0])
        try:
            job = parse(data.encode())
        except etree.XMLSyntaxError as error:
            return check("the MSI job is XML", False, (error, data[:300]))
        wrong = misordered(job, JOB_MODELS)
        check("the MSI job's elements", job.tag == "MsiInstallJob" and not wrong, wrong)
        check("the MSI job is for the product in the LocURI", product[:1] == "{" and job.get("id", "").upper() == product.upper(),
              (product, job.get("id")))
        check("the MSI job's version", job.find("Product").get("Version") == "1.2.3", data[:300])
        numbers = [text(job, f"Product/Enforcement/{n}") for n in ("TimeOut", "RetryCount", "RetryInterval")]
        check("the MSI job's numbers", all(n.isdigit() for n in numbers), numbers)
        url, wanted = text(job, ".//ContentURL"), text(job, ".//FileHash")
        check("the package is fetched by https", url.startswith("https://"), url)
        answer = self.web.attempt("GET", url, headers={"User-Agent": "Microsoft BITS/7.8"})
        size = len(answer.body)
        encoded = {"transfer-encoding", "content-encoding"} & set(answer.headers)
        check("the package comes, whole", answer.status == 200 and answer.headers.get("content-length") == str(size) and not encoded,
              (answer.status, answer.headers, size))
        good = check("FileHash is the package's SHA-256", re.fullmatch("[0-9A-Fa-f]{64}", wanted)
                     and hashlib.sha256(answer.body).hexdigest() == wanted.lower(), wanted)
        part = self.web.attempt("GET", url, headers={"Range": "bytes=1000-1999", "User-Agent": "Microsoft BITS/7.8"})
        check("a range of it", part.status == 206 and part.body == answer.body[1000:2000]
              and part.headers.get("content-range") == f"bytes 1000-1999/{size}", (part.status, part.headers))
        tail = self.web.attempt("GET", url, headers={"Range": f"bytes={size - 5}-"})
        check("its tail", tail.status == 206 and tail.body == answer.body[-5:], (tail.status, tail.headers))
        beyond = self.web.attempt("GET", url, headers={"Range": f"bytes={size}-"})
        check("a range beyond its end", beyond.status == 416, beyond.status)
        head = self.web.attempt("HEAD", url)
        check("HEAD tells its size, as BITS asks", head.status == 200 and head.headers.get("content-length") == str(size),
              (head.status, head.headers))
        self.jobs[product] = hashlib.sha256(answer.body).hexdigest()
        self.progress(product, 20)
        return good

    def progress(self, product, number):
        node = MSI + urllib.parse.quote(product) + "/"
        self.nodes.update({node + "Status": ("int", str(number)), node + "LastError": ("int", "0")})


# --- Sessions --------------------------------------------------------------------------------------


class Session:
    """One management session (section 3.9)."""

    def __init__(self, pc, identity=None, secret=None, nonce=None):
        pc.sessions += 1
        self.pc, self.t, self.identity = pc, pc.t, identity or pc.identity
        self.id = f"{pc.sessions:X}" if pc.doc.dm.get("SyncApplicationVersion", "1.0") >= "2.0" else str(pc.sessions)
        self.auth = dict(pc.doc.auth["APPSRV"], **({"AAUTHSECRET": secret} if secret else {}))
        self.number, self.nonce, self.cred = 0, nonce or pc.nonce, None
        self.asked, self.seen, self.challenges, self.next_nonce = {}, [], 0, None

    def proof(self):
        data = digest(self.auth.get("AAUTHNAME"), self.auth.get("AAUTHSECRET"), self.nonce)
        return x("Cred", meta(Format="b64", Type="syncml:auth-md5"), x("Data", data))

    def document(self, commands, first=1, final=True, ids=None, source=None):
        """The bytes of the next message. `commands` get CmdIDs from `first` on, or the given ones."""
        self.number += 1
        numbered, last = [], []
        for number, (kind, *content) in zip(ids or itertools.count(first), commands):
            last.append((str(self.number), str(number)))
            self.asked[last[-1]] = kind
            numbered.append(x(kind, x("CmdID", number), *content))
        name = x("LocName", self.auth.get("AAUTHNAME")) if self.cred else ""
        header = x("SyncHdr", x("VerDTD", "1.2"), x("VerProto", "DM/1.2"), x("SessionID", self.id), x("MsgID", self.number),
                   x("Target", x("LocURI", self.pc.doc.addr)), x("Source", x("LocURI", source or self.pc.device_id), name),
                   self.cred or "")
        body = x("SyncBody", {"xmlns:msft": MSFT}, *numbered, Markup("<Final/>") if final else "")
        xml = x("SyncML", {"xmlns": NS["d"]}, header, body).encode()
        return (to_wbxml(xml) if self.pc.options.format == "wbxml" else xml), last

    def post(self, commands, **more):
        data, last = self.document(commands, **more)
        message = Message(self, self.pc.manage(data, self.identity), last)
        if message.code in ("200", "212"):
            self.next_nonce = message.nonce or self.next_nonce
            self.pc.nonce = self.next_nonce or self.pc.nonce
        return message

    def open(self, split=False, ids=None):
        """Package 1, and again with a proof when it is asked for."""
        package = self.pc.package_one()
        check = lambda what, ok, detail="": self.t.check(f"session {self.id}: {what}", ok, detail)
        self.cred = self.proof() if self.nonce else None
        first = {"first": 2, "ids": ids}
        if split:
            message = self.post(package[:2], final=False, **first)
            check("without Final there are Status and 1222, and no command", message.alerts == ["1222"]
                  and not message.commands and message.code in ("200", "212"), (message.code, message.alerts))
            package, first = [status(message.number, 0, "SyncHdr", 200), *package[2:]], {}
        message = self.post(package, **first)
        if not self.cred:
            check("without a proof it is challenged", message.code == "407", message.code)
        while message.code in ("401", "407") and self.challenges < 2:
            self.challenges += 1
            check("401 for a wrong proof, 407 for none", message.code == ("401" if self.cred else "407"), message.code)
            check("a challenge, Final and no commands", message.nonce and message.final and not message.commands,
                  etree.tostring(message.root)[:900])
            done = {code for key, code in message.codes.items() if key[1] != "0"}
            check("nothing was processed before the proof", done <= {"401", "407"}, message.codes)
            if self.challenges < 2:
                self.nonce = message.nonce or b""
                self.cred = self.proof()
                message = self.post([status(message.number, 0, "SyncHdr", 200), *package])
        return message

    def run(self, drop=False, chunk=False, demand=False, **more):
        """Opens, obeys until there is nothing more, and leaves. `drop` never answers the first commands, `chunk` sends a
        result in two pieces, `demand` wants the server to prove itself."""
        message = self.open(**more)
        self.t.need(f"session {self.id}: the proof is accepted", message.code in ("200", "212"), message.code, True)
        self.t.check(f"session {self.id}: a nonce for the next one", self.next_nonce, message.codes, True)
        self.pc.nonces.append(self.nonce)
        every_time = message.code == "200"
        if message.code == "212" and self.pc.sessions % 2:
            self.cred = None  # Not needed any more; native clients keep sending it, and so does every other session.
        for _ in range(40):
            if drop and message.commands:
                self.seen = [entry for command in message.commands for entry in describe(command)]
                return self
            self.pc.added = set()
            replies = [reply for command in message.commands for reply in self.obey(command, message.number)]
            if not message.commands and message.final and not demand:
                self.pc.alerts = []
                return self
            if every_time:
                self.nonce = self.pc.nonce
                self.cred = self.proof()
            code, challenge = 200, ""
            if demand:
                demand, code, wanted = False, 407, os.urandom(16)
                self.pc.client_nonce = wanted
                challenge = x("Chal", meta(Type="syncml:auth-md5", Format="b64", NextNonce=b64(wanted)))
            head = status(message.number, 0, "SyncHdr", code, challenge=challenge)
            at = next((i for i, r in enumerate(replies) if chunk and r.kind == "Results" and len(r.data) > 1), None)
            if at is not None:
                chunk, (message, replies) = False, self.chunked(head, replies, at)
                head = status(message.number, 0, "SyncHdr", 200)
            more = [] if message.final else [alert(1222)]
            message = self.post([head, *map(rendered, replies), *more])
            self.judge_proof(message, code == 407)
            self.t.check(f"session {self.id}: still authenticated", message.code in ("200", "212"), message.code, True)
        raise Stop("a session without end")

    def obey(self, command, number):
        self.seen += describe(command)
        return self.pc.obey(command, number)

    def judge_proof(self, message, wanted):
        """The server's own credential, which it must give when it is asked (section 3.3)."""
        right = digest(self.pc.doc.provider, self.pc.doc.auth["CLIENT"].get("AAUTHSECRET"), self.pc.client_nonce)
        if wanted or message.cred is not None:
            self.t.check(f"session {self.id}: the server proves itself", message.cred is not None
                         and text(message.cred, "d:Data") == right and text(message.cred, "d:Meta/m:Type") == "syncml:auth-md5",
                         message.cred is not None and etree.tostring(message.cred))

    def chunked(self, head, replies, at):
        """A result in two pieces (section 3.7). Returns the answer to the first, and what remains to send."""
        result = replies[at]
        half = len(result.data) // 2
        first = rendered(result._replace(data=result.data[:half]), len(result.data.encode()))
        message = self.post([head, *map(rendered, replies[:at]), first], final=False)
        code = message.codes.get((str(self.number), str(at + 2)))
        self.t.check("a chunk of a result is taken: 213, and 1222 for the next", code == "213" and "1222" in message.alerts,
                     (code, message.alerts))
        self.t.check("no commands amid a large object", not message.commands)
        return message, [result._replace(data=result.data[half:]), *replies[at + 1:]]


# A Status or Results that waits to be sent.
Reply = collections.namedtuple("Reply", "kind message ref name code uri error form data", defaults=[None] * 9)


def rendered(reply, size=None):
    """With a size, the first piece of a larger object."""
    if reply.kind == "Status":
        return status(reply.message, reply.ref, reply.name, reply.code, reply.uri, reply.error)
    kind = None if reply.form == "node" else "text/plain"
    item = x("Item", x("Source", x("LocURI", reply.uri)), meta(Format=reply.form, Type=kind, Size=size), x("Data", reply.data),
             Markup("<MoreData/>") if size else "")
    # MsgRef may be missing when it is 1.
    return ("Results", x("MsgRef", reply.message) if reply.message != "1" else "", x("CmdRef", reply.ref), item)
