#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Follows guests' logs without an agent: local files that hold what the guests' files hold, byte for byte.

    log-follower.py --secret-file SECRET --dir DIR [--port 8080]

Give the target content = append and paths = /var/log/**. DIR/<domain>/<vdev>-<volume>/<path> is a link to
DIR/.inodes/<disk>/<inode>-<generation>, which stays when the guest deletes or replaces the file (find DIR/.inodes
-links 1). What was in it before it was followed is zeroes. It may be killed at any time, and stays in DIR."""
import argparse
import base64
import errno
import hashlib
import hmac
import json
import os
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

# What a guest's paths and sizes may cause, or what lies in the way: it would fail again. All else may pass.
HOPELESS = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT, errno.ELOOP, errno.EMLINK,
            errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL}


def is_genuine(key, headers, body):
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
        return False
    signed = f"{headers.get('webhook-id', '')}.{stamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(wanted, given) for given in headers.get("webhook-signature", "").split())


def harmless(name):
    """A name for a directory entry, whatever a guest has called it."""
    name = b"%2E" * len(name) if name in (b".", b"..") else name.replace(b"\0", b"%00").replace(b"/", b"%2F")
    return name if len(name) < 256 else name[:180] + b"-" + hashlib.sha256(name).hexdigest().encode()


class Follower:
    def __init__(self, top):
        self.top = os.path.realpath(os.fsencode(top))
        self.taken = {}  # the last sequence of each epoch
        os.makedirs(self.top + b"/.inodes", exist_ok=True)
        with suppress(FileNotFoundError), open(self.top + b"/.taken", encoding="ascii") as file:
            self.taken = json.load(file)

    def take(self, event):
        epoch, _, number = event["id"].rpartition("-")
        if int(number) <= self.taken.get(epoch, 0) or event["data"].get("kind") not in ("file", "dir"):
            return
        try:
            self.follow(event, event["type"].rpartition(".")[2], event["data"])
        except (OSError, OverflowError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno not in HOPELESS:
                raise
            print(f"! {event['id']}, {event['subject']!r}: {error}", file=sys.stderr, flush=True)
        self.taken[epoch] = int(number)
        with open(self.top + b"/.taken.new", "w", encoding="ascii") as file:
            json.dump(self.taken, file)
        os.rename(self.top + b"/.taken.new", self.top + b"/.taken")

    def place(self, *names):
        """A path below DIR, in a directory that is there."""
        path = b"/".join([self.top, *map(harmless, names)])
        above = os.path.dirname(path)
        if os.path.realpath(above) != above:
            raise OSError(errno.ELOOP, "a symlink lies in the way")
        os.makedirs(above, exist_ok=True)
        return path

    def path(self, event, key, text):
        """Where a path of the guest's is. Beside the domains only our own files begin with a dot."""
        data, (uuid, *volume) = event["data"], event["source"].split("/")[3:]
        raw = base64.b64decode(data[key + "_b64"]) if key + "_b64" in data else text.encode(errors="replace")
        name = data.get("domain", {}).get("name", "")
        return self.place((uuid if name[:1] in (".", "") else name).encode(), "-".join(volume).encode(),
                          *filter(None, (raw.strip(b"/") or b"@").split(b"/")))

    def follow(self, event, what, data):
        is_file, is_gone = data["kind"] == "file", what in ("deleted", "unlinked")
        disk = event["source"].split("/", 3)[3].replace("/", "-")
        file = self.place(b".inodes", disk.encode(), b"%d-%d" % (data["inode"], data["generation"]))
        if is_file and not is_gone:
            self.write(event, file, what, data)
        new = self.path(event, "path", event["subject"])
        old = self.path(event, "old_path", data["old_path"]) if what == "renamed" else new
        swap, moves = self.top + b"/.swap", [(old, new)] * (not is_file)
        if data.get("exchange"):
            moves = [(new, swap)] * (not os.path.exists(swap)) + [(old, new), (swap, old)]
        for there, here in moves:
            with suppress(FileNotFoundError):
                os.rename(there, here)
        if is_file and not is_gone and not (os.path.exists(new) and os.path.samefile(new, file)):
            with suppress(FileNotFoundError):
                os.unlink(new)
            os.link(file, new)
        if is_file and (is_gone or old != new) and os.path.exists(old) and os.path.samefile(old, file):
            os.unlink(old)
        with suppress(OSError):  # directories that have nothing in them any more
            os.removedirs(os.path.dirname(old))

    def write(self, event, file, what, data):
        with open(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as out:
            if what == "created" or data.get("content_whole") and "content_missing" not in data:
                out.truncate(0)
            out.truncate(data["size"])
            for piece in data.get("content", ()):
                out.seek(piece["offset"])
                out.write(piece.get("text", "").encode() or base64.b64decode(piece.get("base64", ""))
                          or bytes(piece.get("zeroes", 0)))
            out.flush()
            os.fsync(out.fileno())
        for name in {"content_left_out", "content_missing"} & set(data):
            print(f"! {event['id']}, {event['subject']!r}: {name} {data[name]}", file=sys.stderr, flush=True)


class Handler(BaseHTTPRequestHandler):
    timeout = 60

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        genuine = is_genuine(self.server.key, self.headers, body)
        for event in json.loads(body) if genuine else ():
            self.server.follower.take(event)  # a failure is no answer: the batch comes again
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *args):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--dir", required=True, help="where the files go")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    server = HTTPServer(("127.0.0.1", args.port), Handler)
    with open(args.secret_file, encoding="ascii") as file:
        server.key = base64.b64decode(file.read().strip().removeprefix("whsec_"))
    server.follower = Follower(args.dir)
    server.serve_forever()


if __name__ == "__main__":
    main()
