#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Scans guests' files without an agent: each file that a guest writes goes to clamd, whole.

    virus-scan.py --secret-file SECRET [--clamd /run/clamav/clamd.ctl] [--state FILE] [--port 8080]

Give the target content = full, content_max = 4MiB and the paths of your choice. One line of JSON for each finding
("infected"), for each file that could not be scanned ("not scanned": it is larger than content_max, or clamd said so)
and for one whose content a later event has ("awaited"). A batch is answered when clamd has answered. "tapwire
redeliver" has files scanned again, by the signatures of today; what was told is not told twice."""
import argparse
import base64
import hashlib
import hmac
import json
import os
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

REMEMBERED = 10000  # so many events are not scanned again when their batch comes again
CHUNK = 1 << 16


def is_genuine(key, headers, body):
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
        return False
    signed = f"{headers.get('webhook-id', '')}.{stamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(wanted, given) for given in headers.get("webhook-signature", "").split())


def whole(data):
    """The bytes of a file, from pieces that are all of it."""
    content = bytearray(data["size"])
    for piece in data["content"]:
        part = piece.get("text", "").encode() or base64.b64decode(piece.get("base64", ""))
        content[piece["offset"]:piece["offset"] + len(part)] = part
    return content


def ask(path, content):
    """What clamd says: stream: OK, stream: NAME FOUND, or something that ends in ERROR."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as clamd:
        clamd.settimeout(600)
        clamd.connect(path)
        try:
            clamd.sendall(b"zINSTREAM\0")
            for at in range(0, len(content), CHUNK):
                part = content[at:at + CHUNK]
                clamd.sendall(struct.pack(">I", len(part)) + part)
            clamd.sendall(bytes(4))
        except BrokenPipeError:
            pass  # it has heard enough, and says why
        while not answer.endswith(b"\0"):
            part = clamd.recv(4096)
            if not part:
                raise ConnectionError("clamd has not answered")
            answer += part
    return answer[:-1].decode(errors="replace")


class Scanner:
    def __init__(self, clamd, state):
        self.clamd = clamd
        self.seen = {}  # batches and events
        self.state = open(state or os.devnull, "a+", encoding="utf-8")
        self.state.seek(0)
        self.told = set(self.state.read().splitlines())

    def tell(self, result, event, **more):
        data, what = event["data"], json.dumps([event["id"], result, more])
        if what in self.told:
            return
        domain = data.get("domain", {}).get("name") or event["source"].split("/")[3]
        known = {name: data[name] for name in ("path_b64", "inode", "generation", "size") if name in data}
        print(json.dumps({"result": result, **more, "domain": domain, "volume": event["source"],
                          "path": event["subject"], **known, "time": event["observedtime"], "event": event["id"]}),
              flush=True)
        self.told.add(what)
        print(what, file=self.state, flush=True)

    def take(self, batch, event):
        if (batch, event["id"]) in self.seen:
            return
        if event["data"].get("kind") == "file" and not event["type"].endswith(".settled"):
            self.look_at(event, event["data"])
        self.seen[batch, event["id"]] = True
        if len(self.seen) > REMEMBERED:
            del self.seen[next(iter(self.seen))]

    def look_at(self, event, data):
        if "content_left_out" in data:
            self.tell("not scanned", event, reason="larger than content_max")
        elif "content_missing" in data:
            self.tell("awaited", event)
        elif "content_whole" in data:
            self.scan(event, whole(data))
        elif "content" in data or "encrypted" in data:
            self.tell("not scanned", event, reason="encrypted" if "encrypted" in data else "not the whole file")

    def scan(self, event, content):
        answer = ask(self.clamd, content).removeprefix("stream: ")
        if answer.endswith(" FOUND"):
            self.tell("infected", event, signature=answer.removesuffix(" FOUND"),
                      sha256=hashlib.sha256(content).hexdigest())
        elif answer != "OK":
            self.tell("not scanned", event, reason=answer)


class Handler(BaseHTTPRequestHandler):
    timeout = 60

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status = 401
        if is_genuine(self.server.key, self.headers, body):
            try:
                for event in json.loads(body):
                    self.server.scanner.take(self.headers["webhook-id"], event)
                status = 204
            except OSError:  # clamd is not there: tapwire tries again
                status = 503
        self.send_response(status)
        self.end_headers()

    def log_message(self, *args):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--clamd", default="/run/clamav/clamd.ctl", help="its socket (default: %(default)s)")
    parser.add_argument("--state", help="remember here what was told, over a restart")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    server = HTTPServer(("127.0.0.1", args.port), Handler)
    with open(args.secret_file, encoding="ascii") as file:
        server.key = base64.b64decode(file.read().strip().removeprefix("whsec_"))
    server.scanner = Scanner(args.clamd, args.state)
    server.serve_forever()


if __name__ == "__main__":
    main()
