"""What the simulated Windows PC (windows_pc.py) says and hears: XML, HTTP, SOAP and SyncML, with the rules
that every answer must obey. Section numbers are those of the Windows protocol reference."""

import base64
import collections
import hashlib
import pathlib
import re
import subprocess
import sys
from xml.sax.saxutils import escape, quoteattr

import requests
import urllib3
from lxml import etree

# --- Names of the protocols ------------------------------------------------------------------------

WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
ENROLLMENT = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
TRUST = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"
PKI = "http://schemas.microsoft.com/windows/pki/2009/01/"
NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://www.w3.org/2005/08/addressing",
    "u": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd",
    "wsse": WSSE,
    "wst": TRUST,
    "ac": "http://schemas.xmlsoap.org/ws/2006/12/authorization",
    "disc": ENROLLMENT,
    "xcep": PKI + "enrollmentpolicy",
    "enr": PKI + "enrollment",
    "d": "SYNCML:SYNCML1.2",
    "m": "syncml:metinf",
}
XSI = "http://www.w3.org/2001/XMLSchema-instance"
MSFT = "http://schemas.microsoft.com/MobileDevice/MDM"
SOAP, SYNCML = "application/soap+xml", "application/vnd.syncml.dm+"
# Section 2.1: action of the request, action of the answer, the constant MessageID.
DISCOVER = (ENROLLMENT + "/IDiscoveryService/Discover", ENROLLMENT + "/IDiscoveryService/DiscoverResponse",
            "urn:uuid:748132ec-a575-4329-b01b-6171a9cf8478")
POLICIES = (PKI + "enrollmentpolicy/IPolicy/GetPolicies", PKI + "enrollmentpolicy/IPolicy/GetPoliciesResponse",
            "urn:uuid:72048B64-0F19-448F-8C2E-B4C661860AA0")
TOKEN = (PKI + "enrollment/RST/wstep", PKI + "enrollment/RSTRC/wstep", "urn:uuid:0d5a1441-5891-453b-becf-a2e5f6ea3749")
MS5 = "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/"
INSTALL_ALERT = "Reversed-Domain-Name:com.microsoft.mdm.win32csp_install"
GONE_ALERT = "com.microsoft:mdm.unenrollment.userrequest"

# What may stand in what, and in which order.
COMMANDS = "Add|Atomic|Delete|Exec|Get|Replace|Sequence"
SYNCML_MODELS = {
    "SyncML": "SyncHdr SyncBody",
    "SyncHdr": "VerDTD VerProto SessionID MsgID Target Source RespURI? NoResp? Cred? Meta?",
    "SyncBody": f"({COMMANDS}|Alert|Results|Status)+ Final?",
    "Cred": "Meta? Data", "Chal": "Meta", "Target": "LocURI LocName?", "Source": "LocURI LocName?",
    "Item": "Target? Source? Meta? Data? MoreData?",
    "Add": "CmdID NoResp? Cred? Meta? Item+", "Replace": "CmdID NoResp? Cred? Meta? Item+",
    "Delete": "CmdID NoResp? Archive? SftDel? Cred? Meta? Item+", "Get": "CmdID NoResp? Lang? Cred? Meta? Item+",
    "Exec": "CmdID NoResp? Cred? Meta? Correlator? Item", "Alert": "CmdID NoResp? Cred? Data? Correlator? Item*",
    "Atomic": f"CmdID NoResp? Meta? ({COMMANDS})+", "Sequence": f"CmdID NoResp? Meta? ({COMMANDS})+",
    "Status": "CmdID MsgRef CmdRef Cmd TargetRef* SourceRef* Cred? Chal? Data? Item*",
    "Results": "CmdID MsgRef? CmdRef Meta? TargetRef? SourceRef? Item+",
}
XCEP_MODELS = {
    "GetPoliciesResponse": "response cAs oIDs",
    "response": "policyID policyFriendlyName nextUpdateHours policiesNotChanged policies",
    "policies": "policy+", "policy": "policyOIDReference cAs attributes",
    "attributes": "commonName policySchema certificateValidity permission privateKeyAttributes revision supersededPolicies "
                  "privateKeyFlags subjectNameFlags enrollmentFlags generalFlags hashAlgorithmOIDReference "
                  "rARequirements keyArchivalAttributes extensions",
    "certificateValidity": "validityPeriodSeconds renewalPeriodSeconds", "permission": "enroll autoEnroll",
    "privateKeyAttributes": "minimalKeyLength keySpec keyUsageProperty permissions algorithmOIDReference cryptoProviders",
    "revision": "majorRevision minorRevision", "cryptoProviders": "provider*",
    "oIDs": "oID+", "oID": "value group oIDReferenceID defaultName",
}
WSTEP_MODELS = {
    "RequestSecurityTokenResponseCollection": "RequestSecurityTokenResponse",
    "RequestSecurityTokenResponse": "TokenType DispositionMessage RequestedSecurityToken RequestID",
    "RequestedSecurityToken": "BinarySecurityToken",
}
DISCOVER_MODELS = {
    "DiscoverResponse": "DiscoverResult",
    "DiscoverResult": "AuthPolicy EnrollmentVersion? EnrollmentPolicyServiceUrl? EnrollmentServiceUrl AuthenticationServiceUrl?",
}
FAULT_MODELS = {
    "Fault": "Code Reason Detail?", "Code": "Value Subcode", "Subcode": "Value", "Reason": "Text",
    "Detail": "DeviceEnrollmentServiceError", "DeviceEnrollmentServiceError": "ErrorType? Message TraceId",
}


class Stop(Exception):
    """The road ends here: what follows would make no sense."""


class Unenrolled(Exception):
    """The PC was told to leave. It answers nothing (section 3.13)."""


class Transcript:
    def __init__(self):
        self.checks, self.commands = [], []

    def check(self, name, ok, detail="", quiet=False):
        self.checks.append({"name": name, "ok": bool(ok), **({"detail": str(detail)[:600]} if detail and not ok else {})})
        if not ok or not quiet:
            say(f"{'ok' if ok else 'FAILED':<7}{name}{'' if ok else f': {str(detail)[:300]}'}")
        return bool(ok)

    def need(self, name, ok, detail="", quiet=False):
        if not self.check(name, ok, detail, quiet):
            raise Stop(name)

    @property
    def ok(self):
        return bool(self.checks) and all(check["ok"] for check in self.checks)


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, data=None):
    result = subprocess.run([str(c) for c in command], input=data, capture_output=True, check=False, timeout=60)
    return result.returncode, result.stdout, result.stderr.decode(errors="replace").strip()


# --- XML -------------------------------------------------------------------------------------------


class Markup(str):
    """Text that is XML already."""


def x(name, *content):
    """An element. Dictionaries are its attributes, other content is escaped unless it is markup."""
    attributes = "".join(f" {k}={quoteattr(str(v))}" for c in content if isinstance(c, dict) for k, v in c.items())
    inner = "".join(c if isinstance(c, Markup) else escape(str(c)) for c in content if not isinstance(c, dict))
    return Markup(f"<{name}{attributes}>{inner}</{name}>")


def parse(data):
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))


def local(node):
    return etree.QName(node).localname if isinstance(node.tag, str) else ""


def text(node, path):
    return (node.findtext(path, namespaces=NS) or "").strip()


def misordered(root, models):
    """The elements whose children do not fit the model of their name."""
    wrong = []
    for node in root.iter(etree.Element):
        model = models.get(local(node))
        if model is not None:
            names = "".join(local(child) + " " for child in node)
            if not re.fullmatch("".join(re.sub(r"\(?([\w|]+)\)?", r"(?:(?:\1) )", token) for token in model.split()), names):
                wrong.append(f"{local(node)}: {names}")
    return wrong


def b64(data):
    return base64.b64encode(data).decode()


def unb64(value):
    """None when it is not base64."""
    try:
        return base64.b64decode("".join((value or "").split()), validate=True)
    except ValueError:
        return None


# --- HTTP ------------------------------------------------------------------------------------------

Answer = collections.namedtuple("Answer", "status headers body")


class Web:
    """Kept connections, one pool for each client certificate, TLS verified with one CA file, no redirects."""

    def __init__(self, ca):
        self.ca, self.pools = ca, {}

    def ask(self, method, url, body=None, headers=None, identity=None, params=None):
        fresh = identity not in self.pools
        if fresh:
            pool = self.pools[identity] = requests.Session()
            pool.trust_env, pool.verify, pool.cert = False, self.ca, identity
        try:
            # What came over the wire, not what requests makes of a compressed answer.
            response = self.pools[identity].request(method, url, data=body, headers=headers, params=params, timeout=30,
                                                    allow_redirects=False, stream=True)
            content = response.raw.read(decode_content=False)
            return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, content)
        except (requests.ConnectionError, urllib3.exceptions.ProtocolError) as error:
            self.pools.pop(identity).close()
            if fresh or isinstance(error, requests.exceptions.SSLError):
                raise
            # A kept connection that the server had closed meanwhile: once more on a new one.
            return self.ask(method, url, body, headers, identity, params)

    def attempt(self, *arguments, **more):
        """The same; a connection that the server cut off is status 0."""
        try:
            return self.ask(*arguments, **more)
        except (requests.ConnectionError, urllib3.exceptions.ProtocolError) as error:
            return Answer(0, {}, str(error).encode())


def judge_http(t, name, answer, kind):
    """Sections 2.1 and 3.1: one piece, its length said, neither chunked nor compressed."""
    content_type = answer.headers.get("content-type", "")
    t.check(f"{name}: Content-Type", content_type.split(";")[0].strip() == kind, content_type, True)
    charset = re.search(r"charset=\"?([\w-]+)", content_type)
    t.check(f"{name}: charset", charset is None or charset[1].lower() == "utf-8", content_type, True)
    t.check(f"{name}: Content-Length", answer.headers.get("content-length") == str(len(answer.body)), answer.headers, True)
    t.check(f"{name}: not chunked", "transfer-encoding" not in answer.headers, answer.headers, True)
    t.check(f"{name}: not compressed", "content-encoding" not in answer.headers, answer.headers, True)


class Soap:
    def __init__(self, web, transcript):
        self.web, self.t = web, transcript

    def post(self, url, call, body, security="", identity=None):
        message = x("s:Envelope", {f"xmlns:{p}": NS[p] for p in ("s", "a", "u", "wsse", "wst", "ac")},
                    x("s:Header", x("a:Action", {"s:mustUnderstand": 1}, call[0]), x("a:MessageID", call[2]),
                      x("a:ReplyTo", x("a:Address", "http://www.w3.org/2005/08/addressing/anonymous")),
                      x("a:To", {"s:mustUnderstand": 1}, url), security), x("s:Body", body))
        return self.send(url, message.encode(), identity)

    def send(self, url, data, identity=None):
        headers = {"Content-Type": f"{SOAP}; charset=utf-8", "User-Agent": "ENROLLClient"}
        return self.web.attempt("POST", url, data, headers, identity)

    def good(self, name, url, call, body, models, **more):
        return self.judge(name, self.post(url, call, body, **more), call, models)

    def judge(self, name, answer, call, models):
        """The single child of the answer's body; every rule for answers is checked."""
        self.t.need(name, answer.status == 200, (answer.status, answer.body[:500]))
        judge_http(self.t, name, answer, SOAP)
        root = self.envelope(name, answer.body, call)
        action = root.find("s:Header/a:Action", NS)
        self.t.check(f"{name}: its action", action is not None and action.text == call[1]
                     and action.get(f"{{{NS['s']}}}mustUnderstand") == "1", answer.body[:600], True)
        result = root.find("s:Body", NS)[0]
        self.t.need(f"{name}: no fault", local(result) != "Fault", answer.body[:900], True)
        wrong = misordered(result, models)
        self.t.check(f"{name}: elements and their order", not wrong, wrong, True)
        return result

    def fault(self, name, answer, subcodes, kind=None, call=None):
        """Section 2.9. The status may be 200 or 500; the client shows both."""
        self.t.check(f"{name}: HTTP status of a fault", answer.status in (200, 500), answer.status, True)
        judge_http(self.t, name, answer, SOAP)
        try:
            root = self.envelope(name, answer.body, call)
        except (Stop, etree.XMLSyntaxError) as error:
            return self.t.check(name, False, (answer.status, answer.body[:300], error))
        fault = root.find("s:Body/s:Fault", NS)
        if fault is None:
            return self.t.check(name, False, answer.body[:600])
        subcode, error = text(fault, "s:Code/s:Subcode/s:Value"), "s:Detail/enr:DeviceEnrollmentServiceError/enr:"
        self.t.check(name, subcode in subcodes, (subcode, text(fault, "s:Reason/s:Text")))
        wrong = misordered(fault, FAULT_MODELS)
        self.t.check(f"{name}: elements and their order", not wrong, wrong, True)
        code = text(fault, "s:Code/s:Value")
        self.t.check(f"{name}: its code", code in ("s:Receiver", "s:Sender"), code, True)
        prefix = subcode.partition(":")[0]
        self.t.check(f"{name}: its prefix is declared", prefix in NS and fault.nsmap.get(prefix) == NS[prefix], fault.nsmap, True)
        self.t.check(f"{name}: a TraceId", text(fault, error + "TraceId"), answer.body[:600], True)
        if kind:
            self.t.check(f"{name}: its type", text(fault, error + "ErrorType") == kind, text(fault, error + "ErrorType"), True)
        return fault

    def envelope(self, name, data, call):
        self.t.check(f"{name}: no DOCTYPE, no CDATA", b"<!" not in data, data[:300], True)
        root = parse(data)
        names = [c.tag for c in root]
        self.t.need(f"{name}: a SOAP 1.2 envelope", root.tag == f"{{{NS['s']}}}Envelope" and len(root) == 2
                    and names == [f"{{{NS['s']}}}Header", f"{{{NS['s']}}}Body"] and len(root[1]) == 1, names, True)
        if call:
            related = text(root, "s:Header/a:RelatesTo")
            self.t.check(f"{name}: RelatesTo is our MessageID", related == call[2], related, True)
        return root


# --- SyncML ----------------------------------------------------------------------------------------


def digest(user, password, nonce):
    """syncml:auth-md5 (section 3.3)."""
    secret = b64(hashlib.md5(f"{user}:{password}".encode()).digest())
    return b64(hashlib.md5(secret.encode() + b":" + nonce).digest())


def meta(**parts):
    return x("Meta", *[x(n, {"xmlns": NS["m"]}, v) for n, v in parts.items() if v is not None])


def alert(code, kind=None, data="", source=None, **more):
    """A command is the name of an element and what follows its CmdID."""
    item = [x("Item", x("Source", x("LocURI", source)) if source else "", meta(Type=kind, **more), x("Data", data))] if kind else []
    return ("Alert", x("Data", code), *item)


def status(message, ref, name, code, target=None, error=None, challenge=""):
    return ("Status", x("MsgRef", message), x("CmdRef", ref), x("Cmd", name), x("TargetRef", target) if target else "", challenge,
            x("Data", {"msft:originalerror": error} if error else {}, code))


def to_wbxml(xml):
    code, out, error = run("xml2wbxml", "-k", "-n", "-o", "-", "-", data=xml)
    if code:
        raise Stop(f"xml2wbxml: {error}")
    return out


def from_wbxml(data):
    code, out, error = run("wbxml2xml", "-k", "-m", "0", "-o", "-", "-", data=data)
    if code:
        raise Stop(f"wbxml2xml: {error}")
    return re.sub(rb"<!DOCTYPE[^>]*>", b"", out, count=1)


class Message:
    """A message of the server, judged by section 3."""

    def __init__(self, session, answer, last):
        pc, t = session.pc, session.t
        name = f"session {session.id}, message {session.number}"
        self.check = check = lambda rule, ok, detail="": t.check(f"{name}: {rule}", ok, detail, True)
        t.need(f"{name}: HTTP 200", answer.status == 200, (answer.status, answer.body[:200]), True)
        judge_http(t, name, answer, SYNCML + pc.options.format)
        wire = from_wbxml(answer.body) if pc.options.format == "wbxml" else answer.body
        # wbxml2xml itself writes CDATA around data that looks like markup.
        check("no DOCTYPE, no CDATA", pc.options.format == "wbxml" or b"<!" not in wire, wire[:300])
        check("256 KiB at most", len(answer.body) <= 1 << 18, len(answer.body))
        root = parse(wire)
        self.root, header, body = root, root.find("d:SyncHdr", NS), root.find("d:SyncBody", NS)
        t.need(f"{name}: a SyncML 1.2 message", root.tag == f"{{{NS['d']}}}SyncML" and header is not None and body is not None
               and len(body), wire[:300], True)
        wrong = misordered(root, SYNCML_MODELS)
        check("elements and their order", not wrong, wrong)
        places = [(n.tag, n.getparent().tag) for n in root.iterdescendants(etree.Element)
                  if etree.QName(n).namespace != NS["m" if local(n.getparent()) == "Meta" else "d"]]
        check("namespaces, syncml:metinf on each child of Meta", not places, places)
        check("Data is text", not root.xpath("//d:Data/*", namespaces=NS))
        said = [text(header, f"d:{n}") for n in ("VerDTD", "VerProto", "SessionID", "MsgID", "Target/d:LocURI", "Source/d:LocURI")]
        check("header", said == ["1.2", "DM/1.2", session.id, str(session.number), pc.device_id, pc.doc.addr], said)
        ids = [n.text for n in root.iter(f"{{{NS['d']}}}CmdID")]
        check("CmdIDs are unique", len(set(ids)) == len(ids) and all(i and i != "0" for i in ids), ids)
        self.number, self.final = text(header, "d:MsgID"), local(body[-1]) == "Final"
        self.statuses = body.findall("d:Status", NS)
        self.alerts = [text(n, "d:Data") for n in body.findall("d:Alert", NS)]
        check("alerts that a server sends", set(self.alerts) <= {"1222", "1223"}, self.alerts)
        check("no Results", body.find("d:Results", NS) is None)
        self.commands = [n for n in body if local(n) in COMMANDS.split("|")]
        check("60 commands at most", len(self.commands) <= 60, len(self.commands))
        self.cred = header.find("d:Cred", NS)
        self.judge_statuses(session, last, name)
        for command in self.commands:
            self.judge_command(command, pc)

    def judge_statuses(self, session, last, name):
        keys = [tuple(text(s, f"d:{n}") for n in ("MsgRef", "CmdRef", "Cmd")) for s in self.statuses]
        self.check("SyncHdr is answered first and once", keys[:1] == [(str(session.number), "0", "SyncHdr")]
                   and [k[2] for k in keys].count("SyncHdr") == 1, keys)
        session.t.need(f"{name}: a status", self.statuses, etree.tostring(self.root)[:300], True)
        strange = [k for k in keys[1:] if session.asked.get(k[:2]) != k[2]]
        self.check("MsgRef, CmdRef and Cmd are of what we sent", not strange, strange)
        self.codes = {k[:2]: text(s, "d:Data") for k, s in zip(keys, self.statuses)}
        self.code = text(self.statuses[0], "d:Data")
        if self.code in ("200", "212"):
            open_ = [k for k in last if session.asked[k] in ("Alert", "Replace") and self.codes.get(k) != "200"]
            self.check("each Alert and Replace is answered with 200", not open_, (open_, self.codes))
        challenge = self.statuses[0].find("d:Chal/d:Meta", NS)
        self.nonce = None if challenge is None else unb64(text(challenge, "m:NextNonce"))
        if challenge is not None:
            self.check("a challenge for MD5 with a nonce of 16 bytes", text(challenge, "m:Type") == "syncml:auth-md5"
                       and text(challenge, "m:Format") == "b64" and len(self.nonce or b"") >= 16, etree.tostring(challenge))

    def judge_command(self, command, pc):
        kind = local(command)
        for child in command if kind in ("Atomic", "Sequence") else ():
            if local(child) in COMMANDS.split("|"):
                self.check("nothing in an Atomic that Windows refuses", kind != "Atomic" or local(child) not in ("Get", "Atomic"))
                self.judge_command(child, pc)
        for item in command.findall("d:Item", NS):
            uri, form = text(item, "d:Target/d:LocURI"), text(item, "d:Meta/m:Format")
            self.check(f"{kind} {uri}: a LocURI", re.fullmatch(r"\./[!-~]+", uri) and "//" not in uri[2:] and not uri.endswith("/")
                       and "{" not in uri and " " not in uri, uri)
            self.check(f"{kind} {uri}: format", form in ("", "chr", "int", "bool", "b64", "bin", "null", "xml", "node", "float", "date",
                                                         "time"), form)
            data = item.find("d:Data", NS)
            self.check(f"{kind} {uri}: data where it belongs", data is None or not data.text or kind in ("Add", "Replace", "Exec"))
            self.check(f"{kind} {uri}: data has a format and is in one piece", (data is None or not data.text or form)
                       and item.find("d:MoreData", NS) is None)
            if pc.catalogue:
                self.check(f"{kind} {uri}: the catalogue has it", *judge_node(pc.catalogue, kind, uri, form if data is not None else ""))


def read_catalogue(path):
    """Lines `path | format [verbs]` of the printed DDF, as (pattern, format, verbs)."""
    nodes = []
    for line in pathlib.Path(path).read_text().splitlines():
        if match := re.match(r"(\./\S+) \| (\w+) \[([\w,]*)\]", line):
            pattern = "[^/]+".join(re.escape(p) for p in re.split(r"\{[^/]*\}", device_uri(match[1])))
            nodes.append((pattern, match[2], match[3].split(",")))
    return nodes


def judge_node(catalogue, kind, uri, form):
    uri = device_uri(uri.partition("?")[0])
    found = [(f, verbs) for pattern, f, verbs in catalogue if re.fullmatch(pattern, uri)]
    if not found:
        csp = "/".join(uri.split("/")[:5])
        return not any(p.startswith(re.escape(csp) + "/") for p, _, _ in catalogue), "no such node"
    # Unenroll is a null node that takes the provider's id (section 3.13).
    fits = [f for f, verbs in found if kind in verbs and (kind in ("Get", "Delete") or form in ("", f) or uri.endswith("/Unenroll"))]
    return bool(fits), (kind, form, found)


def describe(command):
    """(name, LocURI) of each item, those of the inner commands too."""
    return [(local(item.getparent()), device_uri(text(item, "d:Target/d:LocURI"))) for item in command.iter(f"{{{NS['d']}}}Item")]


def device_uri(uri):
    return re.sub(r"^\./Vendor/", "./Device/Vendor/", uri)
