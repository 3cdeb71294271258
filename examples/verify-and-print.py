#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A receiver to start from: verifies each batch, notices what is missing or comes twice, prints the events.

    verify-and-print.py --secret-file /etc/tapwire/siem.secret [--port 8080] [--state FILE]

Answers 2xx only when a batch is dealt with: tapwire keeps it until then, and sends it again.
Needs nothing but Python's standard library."""
import argparse
import base64
import gzip
import hashlib
import hmac
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300  # an older request may be a recording that somebody plays back


def read_secrets(path):
    """Lines of whsec_ and base64: several of them while a secret is exchanged for another."""
    with open(path, encoding="ascii") as file:
        return [base64.b64decode(line.strip().removeprefix("whsec_"), validate=True) for line in file if line.strip()]


def is_genuine(secrets, headers, body):
    """Standard Webhooks: HMAC-SHA256 over id.timestamp.body, in one of the signatures."""
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > TOLERANCE_S:
        return False
    signed = f"{headers.get('webhook-id', '')}.{stamp}.".encode() + body
    given = [word.partition(",")[2] for word in headers.get("webhook-signature", "").split() if word.startswith("v1,")]
    wanted = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in secrets]
    return any(hmac.compare_digest(a, b) for a in given for b in wanted)


class Ledger:
    """The number of the batch that was taken last, for each epoch. Kept in a file, if there is one."""

    def __init__(self, path):
        self.path = path
        self.last = {}
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.last = json.load(file)

    def is_known(self, epoch, number):
        return number <= self.last.get(epoch, 0)

    def take(self, epoch, number, previous):
        """Notes a batch. Says what must have been lost between it and the one before."""
        last = self.last.get(epoch)
        if last is not None and previous != last:
            print(f"! batches between {last} and {number} of {epoch} are missing", file=sys.stderr, flush=True)
        self.last[epoch] = number
        if self.path:
            with open(self.path + ".new", "w", encoding="utf-8") as file:
                json.dump(self.last, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(self.path + ".new", self.path)


def printable(text):
    """A guest chooses the names of its files: none of them is a command to this terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def show(event):
    """What is done with an event: put your own here."""
    data = event["data"]
    old = f" (was {printable(data['old_path'])})" if data.get("old_path") else ""
    domain = data.get("domain", {}).get("name") or event["source"].split("/")[3]
    kind = event["type"].removeprefix("org.tapwire.")
    print(f"{event['observedtime']} {domain} {kind} {printable(event.get('subject', ''))}{old}", flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that the connection stays open

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.answer(self.take(body))

    def take(self, body):
        server = self.server
        if not is_genuine(server.secrets, self.headers, body):
            return 401
        epoch, _, number = self.headers["tapwire-batch"].partition("/")
        previous = int(self.headers["tapwire-previous"])
        with server.lock:
            if not server.ledger.is_known(epoch, int(number)):
                for event in json.loads(body):
                    show(event)
                server.ledger.take(epoch, int(number), previous)
        return 204

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--secret-file", required=True, help="as tapwire's secret_file")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--state", help="remember here what was taken, over a restart")
    args = parser.parse_args()
    server = ThreadingHTTPServer((args.address, args.port), Handler)
    server.secrets = read_secrets(args.secret_file)
    server.ledger = Ledger(args.state)
    server.lock = threading.Lock()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
