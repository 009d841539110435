#!/usr/bin/env python3
"""Judge: an APNs that is not ours, for MDM wake-ups. HTTP/2 over TLS with PyPI `h2`.

It asks for the push certificate in the TLS handshake and refuses every other one, then checks each
request against "Sending notification requests to APNs" and Apple's MDM push format:

    :method POST, :path /3/device/<token in lower-case hex>, apns-push-type mdm, apns-topic,
    apns-priority 10, apns-expiration a unix time in the future, body exactly {"mdm": "<magic>"}

A request that breaks a rule is answered as APNs would (BadPath, BadTopic, InvalidPushType …) and its
complaints are in the log, one JSON object per line. Scripted answers are chosen by the beginning of
the token:

    --answer 00=200 --answer 01=400:BadDeviceToken --answer 02=410:Unregistered
    --answer 03=429:TooManyRequests:7 --answer 04=503:ServiceUnavailable --answer 05=goaway
    --answer 06=429x2:TooManyRequests:1        (twice 429, then 200)
    --answer 07=503::Sun, 06 Nov 2094 08:49:37 GMT   (Retry-After as a date)
    --answer 08=400:@none --answer 09=500:@html --answer 0a=403:@huge   (no body, no JSON, 1 MiB of JSON)
    --answer 0b=silent --answer 0c=close       (no answer ever; the connection is cut)

The first line on standard output is {"port": N}. Stops on SIGTERM, with
--stop-with-stdin also when standard input is closed.
"""

import argparse
import hashlib
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
import uuid

try:
    import h2.config
    import h2.connection
    import h2.errors
    import h2.events
    import h2.exceptions
except ImportError:
    print("apns_standin: PyPI package h2 is not installed", file=sys.stderr)
    sys.exit(2)

PATH = re.compile(r"^/3/device/([0-9a-f]+)$")
REASONS = {200: None, 400: "BadDeviceToken", 403: "Forbidden", 410: "Unregistered",
           413: "PayloadTooLarge", 429: "TooManyRequests", 500: "InternalServerError",
           503: "ServiceUnavailable"}
MAX_BODY = 4096
# Instead of an answer.
DEEDS = {"goaway", "silent", "close"}
# Bodies that are not APNs' JSON object, by their "reason".
BODIES = {"@none": b"", "@html": b"<html><body>Bad Gateway</body></html>",
          "@huge": b'{"filler":"' + b"x" * (1 << 20) + b'","reason":"BadCertificate"}'}


class Script:
    """Answers by token prefix; an entry with a count is used that many times."""

    def __init__(self, entries):
        self.lock = threading.Lock()
        self.entries = []
        for text in entries:
            prefix, _, answer = text.partition("=")
            parts = answer.split(":", 2)
            status, _, count = parts[0].partition("x")
            self.entries.append({
                "prefix": prefix.lower(),
                "status": status if status in DEEDS else int(status),
                "left": int(count) if count else None,
                "reason": parts[1] if len(parts) > 1 and parts[1] else None,
                "retry": parts[2] if len(parts) > 2 else None,
            })
        # The longest prefix wins.
        self.entries.sort(key=lambda e: -len(e["prefix"]))

    def answer(self, token):
        with self.lock:
            for entry in self.entries:
                if token.startswith(entry["prefix"]) and entry["left"] != 0:
                    if entry["left"] is not None:
                        entry["left"] -= 1
                    status = entry["status"]
                    return status, entry["reason"] or REASONS.get(status), entry["retry"]
        return 200, None, None


class Log:
    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8", buffering=1)
        self.lock = threading.Lock()

    def write(self, **fields):
        with self.lock:
            self.file.write(json.dumps({"time": round(time.time(), 3), **fields}) + "\n")


def judge(headers, body, topic, now):
    """Returns (complaints, status, reason, token): what APNs would say to this request."""
    complaints, refusal = [], None

    def wrong(text, status, reason):
        nonlocal refusal
        complaints.append(text)
        refusal = refusal or (status, reason)

    if headers.get(":method") != "POST":
        wrong(f":method {headers.get(':method')}", 405, "MethodNotAllowed")
    if headers.get(":scheme") != "https":
        wrong(f":scheme {headers.get(':scheme')}", 400, "BadPath")
    match = PATH.match(headers.get(":path", ""))
    token = match.group(1) if match else ""
    if not match:
        wrong(f":path {headers.get(':path')}", 404, "BadPath")
    elif len(token) % 2:
        wrong("the token has an odd number of hex digits", 400, "BadDeviceToken")
    if headers.get("apns-push-type") != "mdm":
        wrong(f"apns-push-type {headers.get('apns-push-type')}", 400, "InvalidPushType")
    if topic and headers.get("apns-topic") != topic:
        wrong(f"apns-topic {headers.get('apns-topic')}", 400, "BadTopic")
    elif not headers.get("apns-topic"):
        wrong("no apns-topic", 400, "MissingTopic")
    if headers.get("apns-priority") != "10":
        wrong(f"apns-priority {headers.get('apns-priority')}", 400, "BadPriority")
    expiration = headers.get("apns-expiration", "")
    if not re.fullmatch(r"[0-9]{10}", expiration) or int(expiration) <= now:
        wrong(f"apns-expiration {expiration!r} is no future unix time", 400, "BadExpirationDate")
    elif int(expiration) > now + 31 * 86400:
        complaints.append(f"apns-expiration {expiration} is more than a month ahead")
    if "apns-id" in headers and not re.fullmatch(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers["apns-id"]
    ):
        wrong("apns-id is no lower-case UUID", 400, "BadMessageId")
    if "authorization" in headers:
        wrong("a provider token beside a certificate", 403, "InvalidProviderToken")
    try:
        payload = json.loads(body)
    except ValueError:
        wrong("the body is no JSON", 400, "PayloadEmpty")
    else:
        if not isinstance(payload, dict) or list(payload) != ["mdm"]:
            wrong("the body is not exactly {\"mdm\": …}", 400, "BadPayload")
        elif not isinstance(payload["mdm"], str) or not payload["mdm"]:
            wrong("the push magic is no text", 400, "BadPayload")
    status, reason = refusal or (200, None)
    return complaints, status, reason, token


class Connection(threading.Thread):
    def __init__(self, sock, options, script, log):
        super().__init__(daemon=True)
        self.sock, self.options, self.script, self.log = sock, options, script, log
        self.streams = {}
        self.goaway = False

    def run(self):
        try:
            self.sock.settimeout(10)
            self.sock.do_handshake()
        except (ssl.SSLError, OSError) as error:
            self.log.write(event="tls refused", error=str(error))
            self.sock.close()
            return
        if self.sock.selected_alpn_protocol() != "h2":
            self.log.write(event="tls refused", error="the client did not agree on h2")
            self.sock.close()
            return
        client = hashlib.sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()
        self.log.write(event="connected", tls=self.sock.version(), client=client)
        self.sock.settimeout(self.options.idle_timeout)
        try:
            self.serve()
        except (OSError, ssl.SSLError, h2.exceptions.ProtocolError) as error:
            self.log.write(event="connection failed", error=f"{type(error).__name__}: {error}")
        finally:
            self.log.write(event="closed")
            self.sock.close()

    def serve(self):
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config=config)
        self.h2.initiate_connection()
        self.sock.sendall(self.h2.data_to_send())
        while not self.goaway:
            data = self.sock.recv(65536)
            if not data:
                return
            for event in self.h2.receive_data(data):
                self.handle(event)
            self.sock.sendall(self.h2.data_to_send())

    def handle(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.streams[event.stream_id] = (dict(event.headers), bytearray())
            if event.stream_ended is not None:
                self.answer(event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            entry = self.streams.get(event.stream_id)
            if entry is None:
                return
            entry[1].extend(event.data)
            if len(entry[1]) > MAX_BODY:
                self.streams.pop(event.stream_id)
                self.reply(event.stream_id, 413, "PayloadTooLarge", None)
        elif isinstance(event, h2.events.StreamEnded):
            self.answer(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.streams.pop(event.stream_id, None)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = True

    def answer(self, stream):
        entry = self.streams.pop(stream, None)
        if entry is None:
            return
        headers, body = entry
        complaints, status, reason, token = judge(headers, bytes(body), self.options.topic, time.time())
        retry = None
        if status == 200:
            status, reason, retry = self.script.answer(token)
        try:
            magic = json.loads(bytes(body)).get("mdm")
        except (ValueError, AttributeError):
            magic = None
        self.log.write(event="push", token=token, magic=magic, headers=sorted(headers),
                       body=bytes(body).decode("utf-8", "replace"), path=headers.get(":path"),
                       topic=headers.get("apns-topic"), push_type=headers.get("apns-push-type"),
                       priority=headers.get("apns-priority"), expiration=headers.get("apns-expiration"),
                       ok=not complaints, complaints=complaints, status=status, reason=reason)
        if status == "goaway":
            # As APNs does before it closes: this stream was not processed.
            self.h2.close_connection(error_code=h2.errors.ErrorCodes.NO_ERROR, last_stream_id=max(stream - 2, 0))
            self.goaway = True
            return
        if status == "silent":
            return
        if status == "close":
            raise ConnectionAbortedError("as the script says")
        self.reply(stream, status, reason, retry, headers.get("apns-id"))

    def reply(self, stream, status, reason, retry, apns_id=None):
        headers = [(":status", str(status)), ("apns-id", apns_id or str(uuid.uuid4()).upper())]
        if retry:
            headers.append(("retry-after", str(retry)))
        if reason is None:
            self.h2.send_headers(stream, headers, end_stream=True)
            return
        document = {"reason": reason}
        if status == 410:
            document["timestamp"] = int(time.time() * 1000)
        body = BODIES.get(reason, json.dumps(document).encode())
        headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        self.h2.send_headers(stream, headers, end_stream=not body)
        # What exceeds the windows is not sent: the client is not meant to wait for it.
        room = min(len(body), self.h2.local_flow_control_window(stream))
        while body and room > 0:
            part, body = body[:min(room, self.h2.max_outbound_frame_size)], body[min(room, self.h2.max_outbound_frame_size):]
            room -= len(part)
            self.h2.send_data(stream, part, end_stream=not body)


def tls_context(options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.tls_max == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.cert, options.key)
    context.set_alpn_protocols(["h2"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(options.client_cert)
    # The push certificate itself is the anchor; its issuer need not be known.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cert", required=True, help="the stand-in's TLS certificate (PEM)")
    parser.add_argument("--key", required=True, help="its key (PEM)")
    parser.add_argument("--client-cert", required=True, help="the push certificate, or its CA (PEM)")
    parser.add_argument("--topic", help="the only topic that is accepted")
    parser.add_argument("--log", required=True, help="file that gets one JSON line per event")
    parser.add_argument("--answer", action="append", default=[], metavar="PREFIX=STATUS[xN][:REASON[:RETRY]]")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--idle-timeout", type=float, default=300)
    parser.add_argument("--tls-max", choices=["1.2", "1.3"], default="1.3")
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when standard input is closed")
    options = parser.parse_args()

    context, script, log = tls_context(options), Script(options.answer), Log(options.log)
    listener = socket.create_server((options.host, options.port))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)

    def stop_with_parent():
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            return
        os._exit(0)

    if options.stop_with_stdin:
        threading.Thread(target=stop_with_parent, daemon=True).start()
    while True:
        sock, _ = listener.accept()
        wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        Connection(wrapped, options, script, log).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
