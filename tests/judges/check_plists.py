#!/usr/bin/env python3
"""Judge: does somebody else's plist reader, and Apple's schema, accept what we emit?

Every file given as an argument, and every *.plist / *.mobileconfig / *.xml below every directory
given, must load with Python's plistlib. CMS-signed profiles are opened with `openssl cms` first.
Commands, check-in messages and profiles are then compared with Apple's published schema
(https://github.com/apple/device-management) when its folder is given with --schema.

The result is one JSON document on standard output; the exit code is 1 if any file is refused, 2 if
the judge itself cannot work. Without PyYAML or the schema folder the schema part is skipped with a
notice; with the environment variable CI set that is a failure.

Shares no code with the server.
"""

import argparse
import datetime
import json
import os
import pathlib
import plistlib
import subprocess
import sys

ENDINGS = (".plist", ".mobileconfig", ".xml")

# These stand beside RequestType in every command (Apple, "CommandRequest").
COMMON_COMMAND_KEYS = {"RequestType", "RequestRequiresNetworkTether"}

# Apple's own example profiles carry these although the schema of the payload does not list them.
COMMON_PAYLOAD_KEYS_EXTRA = {"PayloadEnabled", "PayloadScope", "PayloadRemovalDisallowed"}

TYPES = {
    "<string>": str,
    "<boolean>": bool,
    "<integer>": int,
    "<real>": (int, float),
    "<date>": datetime.datetime,
    "<data>": bytes,
    "<array>": list,
    "<dictionary>": dict,
}


class Schema:
    """Apple's YAML files, found by request type, message type or payload type."""

    def __init__(self, folder, yaml):
        self.commands = {}
        self.checkins = {}
        self.profiles = {}
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for kind, table in (
            ("commands", self.commands),
            ("checkin", self.checkins),
            ("profiles", self.profiles),
        ):
            for path in sorted((folder / "mdm" / kind).glob("*.yaml")):
                with path.open("rb") as file:
                    document = yaml.load(file, Loader=loader)
                payload = document.get("payload") or {}
                name = payload.get("payloadtype") or payload.get("requesttype")
                if name:
                    # Some payload types have several files; their keys are put together.
                    table.setdefault(name, []).extend(document.get("payloadkeys") or [])
        if not (self.commands and self.checkins and self.profiles):
            raise ValueError(f"{folder} does not hold mdm/commands, mdm/checkin and mdm/profiles")
        self.common = self.profiles["CommonPayloadKeys"]
        self.top = self.profiles["TopLevel"]


def is_wildcard(key):
    """Apple writes `ANY`, `ANY app identifier` … for a dictionary with free keys."""
    return key.startswith("ANY")


def check_type(value, declared):
    if declared in (None, "<any>"):
        return True
    wanted = TYPES.get(declared)
    if wanted is None:
        return True
    if declared in ("<integer>", "<real>") and isinstance(value, bool):
        return False
    return isinstance(value, wanted)


def check_value(path, value, rule, errors):
    declared = rule.get("type")
    if not check_type(value, declared):
        errors.append(f"{path}: {type(value).__name__} where the schema says {declared}")
        return
    allowed = rule.get("rangelist")
    if allowed and declared != "<array>" and not isinstance(value, (dict, list)) and value not in allowed:
        errors.append(f"{path}: {value!r} is not one of {allowed}")
    bounds = rule.get("range") or {}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "min" in bounds and value < bounds["min"]:
            errors.append(f"{path}: {value} is below {bounds['min']}")
        if "max" in bounds and value > bounds["max"]:
            errors.append(f"{path}: {value} is above {bounds['max']}")
    subkeys = rule.get("subkeys")
    if not subkeys:
        return
    if isinstance(value, dict):
        check_dictionary(path, value, subkeys, errors)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_item(f"{path}[{index}]", item, subkeys, errors)


def check_item(path, item, alternatives, errors):
    """One element of an array. Several subkeys are alternatives (Settings): the best one counts."""
    best = None
    for rule in alternatives:
        found = []
        check_value(path, item, rule, found)
        discriminator = next((k for k in rule.get("subkeys") or [] if k["key"] == "Item"), None)
        if discriminator and isinstance(item, dict) and item.get("Item") in (discriminator.get("rangelist") or []):
            best = found
            break
        if best is None or len(found) < len(best):
            best = found
    errors.extend(best or [])


def check_dictionary(path, value, rules, errors, extra=frozenset()):
    by_key = {}
    for rule in rules:
        by_key.setdefault(rule["key"], []).append(rule)
    wildcard = next((r for key, rs in by_key.items() if is_wildcard(key) for r in rs), None)
    for key, item in value.items():
        if key in by_key:
            best = None
            for rule in by_key[key]:
                found = []
                check_value(f"{path}.{key}", item, rule, found)
                if best is None or len(found) < len(best):
                    best = found
            errors.extend(best)
        elif wildcard is not None:
            check_value(f"{path}.{key}", item, wildcard, errors)
        elif key not in extra:
            errors.append(f"{path}.{key}: the schema has no such key")
    for key, alternatives in by_key.items():
        if is_wildcard(key) or key in value:
            continue
        if all(rule.get("presence") == "required" for rule in alternatives):
            errors.append(f"{path}.{key}: required by the schema and missing")


def check_profile(document, schema, errors):
    if schema is not None:
        rules = [dict(r) for r in schema.top]
        for rule in rules:
            # The payloads are checked one by one below.
            if rule["key"] == "PayloadContent":
                rule.pop("subkeys", None)
        check_dictionary("profile", document, rules, errors)
    payloads = document.get("PayloadContent")
    if not isinstance(payloads, list):
        errors.append("profile.PayloadContent: not an array")
        return
    uuids = [document.get("PayloadUUID")]
    for index, payload in enumerate(payloads):
        path = f"profile.PayloadContent[{index}]"
        if not isinstance(payload, dict) or not isinstance(payload.get("PayloadType"), str):
            errors.append(f"{path}: no payload")
            continue
        uuids.append(payload.get("PayloadUUID"))
        if schema is None:
            continue
        kind = payload["PayloadType"]
        rules = schema.profiles.get(kind)
        if rules is None:
            errors.append(f"{path}: Apple's schema has no payload type {kind!r}")
            continue
        check_dictionary(f"{path}<{kind}>", payload, schema.common + rules, errors, COMMON_PAYLOAD_KEYS_EXTRA)
    if len(set(uuids)) != len(uuids):
        errors.append("profile: a PayloadUUID is used twice")


def check_document(document, schema):
    """Returns what it is and a list of complaints."""
    errors = []
    if not isinstance(document, dict):
        return "other", ["the root is not a dictionary"]
    if isinstance(document.get("Command"), dict):
        command = document["Command"]
        kind = command.get("RequestType")
        if not isinstance(document.get("CommandUUID"), str) or not document["CommandUUID"]:
            errors.append("CommandUUID: missing or not a string")
        unknown = set(document) - {"Command", "CommandUUID"}
        if unknown:
            errors.append(f"keys beside Command and CommandUUID: {sorted(unknown)}")
        if not isinstance(kind, str):
            errors.append("Command.RequestType: missing or not a string")
        elif schema is not None:
            rules = schema.commands.get(kind)
            if rules is None:
                errors.append(f"Apple's schema has no command {kind!r}")
            else:
                check_dictionary(kind, command, rules, errors, COMMON_COMMAND_KEYS)
        if kind == "InstallProfile" and isinstance(command.get("Payload"), bytes):
            try:
                inner = load(command["Payload"])
            except ValueError as error:
                errors.append(f"InstallProfile.Payload: {error}")
            else:
                check_profile(inner, schema, errors)
        return f"command {kind}", errors
    if isinstance(document.get("MessageType"), str):
        kind = document["MessageType"]
        if schema is not None:
            rules = schema.checkins.get(kind)
            if rules is None:
                errors.append(f"Apple's schema has no check-in message {kind!r}")
            else:
                # Which channel it is about is said with keys that only some schema files list.
                ids = {"MessageType", "UDID", "EnrollmentID", "UserID", "EnrollmentUserID", "UserShortName"}
                check_dictionary(kind, document, rules, errors, ids)
        return f"check-in {kind}", errors
    if document.get("PayloadType") == "Configuration":
        check_profile(document, schema, errors)
        return "profile", errors
    return "other", errors


def load(data):
    """plistlib, after taking off an attached CMS signature."""
    if data[:1] == b"\x30":
        result = subprocess.run(
            ["openssl", "cms", "-verify", "-noverify", "-binary", "-inform", "DER"],
            input=data,
            capture_output=True,
            check=False,
        )
        if result.returncode != 0:
            raise ValueError(f"openssl cms: {result.stderr.decode(errors='replace').strip()}")
        data = result.stdout
    try:
        return plistlib.loads(data)
    except Exception as error:
        raise ValueError(f"plistlib: {type(error).__name__}: {error}") from error


def files_of(arguments):
    for argument in arguments:
        path = pathlib.Path(argument)
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in ENDINGS)
        else:
            yield path


def load_schema(folder, notices):
    if folder is None or not folder.is_dir():
        notices.append("Apple's schema folder is not there (--schema): only plistlib was asked")
        return None
    try:
        import yaml
    except ImportError:
        notices.append("PyYAML is not installed: only plistlib was asked")
        return None
    return Schema(folder, yaml)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", help="files or directories; none: one path per line from stdin")
    parser.add_argument("--schema", type=pathlib.Path, help="a checkout of apple/device-management")
    options = parser.parse_args()

    notices = []
    schema = load_schema(options.schema, notices)
    paths = options.paths or [line.strip() for line in sys.stdin if line.strip()]
    checks = []
    for path in files_of(paths):
        try:
            kind, errors = check_document(load(path.read_bytes()), schema)
        except (OSError, ValueError) as error:
            kind, errors = "unreadable", [str(error)]
        checks.append({"name": str(path), "kind": kind, "ok": not errors, "errors": errors})
    for notice in notices:
        print(f"notice: {notice}", file=sys.stderr)
    if not checks:
        print("check_plists: nothing to check", file=sys.stderr)
        return 2
    ok = all(check["ok"] for check in checks)
    json.dump({"ok": ok, "schema": schema is not None, "notices": notices, "checks": checks}, sys.stdout, indent=1)
    print()
    if not ok:
        return 1
    return 2 if notices and os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
