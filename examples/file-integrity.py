#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A file-integrity monitor without an agent: alerts on changes under /etc, /usr/bin and /boot against a baseline.

    tapwire crawl disk.img >baseline.ndjson
    file-integrity.py --secret-file SECRET --baseline baseline.ndjson [--watch /etc --watch /srv] [--port 8080]

One line of JSON an alert: what it was, what it is now. A file that comes back to what the baseline says is an alert of
its own ("restored"). Content counts by the ranges that were written; with --digests, the output of sha256sum over the
baseline's files, and sha256 = yes, a file that holds again what it held is restored, too. One guest an instance: give
the target domains = NAME and paths = /etc/**, /usr/bin/**, /boot/** in tapwire.conf."""
import argparse
import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WATCHED = ["/etc", "/usr/bin", "/boot"]
COMPARED = ("kind", "mode", "uid", "gid", "size", "target")


def is_genuine(key, headers, body):
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
        return False
    signed = f"{headers.get('webhook-id', '')}.{stamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(wanted, given) for given in headers.get("webhook-signature", "").split())


def facts(data):
    return {name: data[name] for name in COMPARED if name in data}


class Monitor:
    """What is under the watched directories: as the baseline has it, and as it is now."""

    def __init__(self, watched, baseline, digests=()):
        self.watched = watched
        self.digests = {path: digest for digest, path in (line.rstrip("\n").split("  ", 1) for line in digests)}
        self.baseline = {}
        self.seen = set()
        for line in baseline:
            entry = json.loads(line)
            if self.watches(entry["path"]):
                self.baseline[entry["path"]] = facts(entry)
        self.now = dict(self.baseline)
        self.written = set()  # content that is not the baseline's any more

    def watches(self, path):
        return any(path == top or path.startswith(top.rstrip("/") + "/") for top in self.watched)

    def alert(self, what, path, event, **more):
        print(json.dumps({"alert": what, "path": path, "time": event["observedtime"], "source": event["source"],
                          "event": event["id"], "was": self.baseline.get(path), "is": self.now.get(path), **more}),
              flush=True)

    def settle(self, path, event):
        """Says how a path differs from the baseline now."""
        was, now = self.baseline.get(path), self.now.get(path)
        if now is None and was is not None:
            self.alert("gone", path, event)
        elif was is None and now is not None:
            self.alert("new", path, event)
        elif was == now and path not in self.written:
            self.alert("restored", path, event)
        elif was is not None:
            names = [name for name in COMPARED if was.get(name) != now.get(name)]
            self.alert("changed", path, event, changed=names + ["content"] * (path in self.written))

    def leave(self, path):
        """The path is no longer there, and nothing below it."""
        gone = {p: f for p, f in self.now.items() if p == path or p.startswith(path + "/")}
        for name in gone:
            del self.now[name]
        return gone

    def is_again(self, path, data):
        """Whether a file that was written to holds what the baseline has."""
        again = path in self.written and data.get("sha256", "") == self.digests.get(path)
        self.written -= {path} if again else set()
        return again

    def take(self, event):
        if event["id"] in self.seen or not event["type"].startswith("org.tapwire.file."):
            return
        self.seen.add(event["id"])
        kind, path, data = event["type"].rpartition(".")[2], event["subject"], event["data"]
        old = data.get("old_path")
        if kind == "renamed" and old and not data.get("exchange"):
            for name, known in self.leave(old).items():  # a directory takes what is below it along
                if self.watches(path + name[len(old):]):
                    self.now[path + name[len(old):]] = known
            if self.watches(old):
                self.settle(old, event)
        if not self.watches(path) or kind == "settled" and not self.is_again(path, data):
            return
        if kind in ("deleted", "unlinked"):
            self.leave(path)
        else:
            self.now[path] = facts(data)
            if data.get("ranges") and data["kind"] == "file":
                self.written.add(path)
        self.settle(path, event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status = 401
        if is_genuine(self.server.key, self.headers, body):
            with self.server.lock:
                for event in json.loads(body):
                    self.server.monitor.take(event)
            status = 204
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--baseline", required=True, help="what tapwire crawl printed")
    parser.add_argument("--digests", help="what sha256sum printed of its files, by their paths there")
    parser.add_argument("--watch", action="append",
                        help="a directory; may be repeated (default: %s)" % ", ".join(WATCHED))
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    with open(args.secret_file, encoding="ascii") as file:
        server.key = base64.b64decode(file.read().strip().removeprefix("whsec_"))
    with open(args.baseline, encoding="utf-8") as file, open(args.digests or "/dev/null", encoding="utf-8") as digests:
        server.monitor = Monitor(args.watch or WATCHED, file, digests)
    server.lock = threading.Lock()
    server.serve_forever()


if __name__ == "__main__":
    main()
