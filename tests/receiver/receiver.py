#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""An HTTP endpoint that takes tapwire's batches and checks them with code that is not the courier's.

It verifies the Standard Webhooks signature, the batch numbers of each target epoch and the sequences of
each disk epoch; writes every new event as a line of JSON; and can misbehave on request. The exit status is
1 when something was missing or wrong.
"""
import argparse
import base64
import calendar
import collections
import gzip
import hashlib
import hmac
import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT_TYPE = "application/cloudevents-batch+json"
TOLERANCE_S = 300
REQUIRED = ("id", "source", "type", "time", "observedtime", "sequence", "data")


def parse_time(text):
    """Seconds since the epoch of an RFC 3339 time in UTC with up to nine digits of fraction."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z", text)
    if not match:
        raise ValueError(f"no RFC 3339 time in UTC: {text!r}")
    whole = time.strptime(match.group(1), "%Y-%m-%dT%H:%M:%S")
    return calendar.timegm(whole) + float(match.group(2) or 0)


def percentile(ordered, share):
    """The value that this share of an ordered list does not exceed; None of an empty list."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Ledger:
    """What has arrived and what is wrong with it. One lock: requests come in threads."""

    def __init__(self, key, output, echo, any_start, refuse=None, max_bytes=0):
        self.lock = threading.Lock()
        self.key = key
        self.output = output
        self.echo = echo
        self.any_start = any_start
        self.refuse = refuse
        self.max_bytes = max_bytes
        self.requests = self.events = self.duplicates = self.batches = self.redeliveries = 0
        self.bad_signatures = self.connections = 0
        self.missing_batches = self.missing_events = 0
        self.bytes = 0
        self.problems = []
        self.nproblems = 0
        self.seen_ids = set()
        self.last_sequence = {}
        self.last_batch = {}
        self.batch_ids = {}
        self.types = collections.Counter()
        self.delays = []
        self.first_time = self.last_time = None

    def problem(self, text):
        self.nproblems += 1
        if len(self.problems) < 100:
            self.problems.append(text)
        print(f"receiver: {text}", file=sys.stderr, flush=True)

    def check_signature(self, headers, body):
        """Whether the request is from who holds the secret, and recent."""
        msg_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not msg_id or not stamp.isdigit():
            self.problem("request without webhook-id or webhook-timestamp")
            return False
        if abs(time.time() - int(stamp)) > TOLERANCE_S:
            self.problem(f"{msg_id}: webhook-timestamp {stamp} is not of now")
            return False
        if self.key is None:
            return True
        signed = f"{msg_id}.{stamp}.".encode() + body
        want = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        for token in headers.get("webhook-signature", "").split():
            version, _, value = token.partition(",")
            if version == "v1" and hmac.compare_digest(value, want):
                return True
        self.problem(f"{msg_id}: signature does not match")
        return False

    def take(self, headers, body):
        """Checks a request and takes its events. Returns the HTTP status of the answer."""
        with self.lock:
            now = time.time()
            self.requests += 1
            if not self.check_signature(headers, body):
                self.bad_signatures += 1
                return 401
            if headers.get("content-type", "") != CONTENT_TYPE:
                self.problem(f"content-type {headers.get('content-type')!r}")
                return 415
            try:
                events = json.loads(body)
                if not isinstance(events, list) or not events:
                    raise ValueError("no array of events")
                batch_epoch, _, number = headers.get("tapwire-batch", "").rpartition("/")
                number = int(number)
                if not batch_epoch:
                    raise ValueError("no target epoch in tapwire-batch")
            except ValueError as error:
                self.problem(f"bad batch: {error}")
                return 400
            self.bytes += len(body)
            status = self.refuses(body, events)
            if status:
                return status
            previous = int(headers.get("tapwire-previous", "-1"))
            self.take_batch(batch_epoch, number, previous, headers["webhook-id"], [e.get("id") for e in events])
            for event in events:
                self.take_event(event, now)
            self.output_flush()
            return 200

    def refuses(self, body, events):
        """The status that this receiver refuses the batch with, 0: it does not."""
        if self.max_bytes and len(body) > self.max_bytes:
            return 413
        if self.refuse and any(re.search(self.refuse[0], event.get("subject", "")) for event in events):
            return self.refuse[1]
        return 0

    def take_batch(self, epoch, number, previous, msg_id, ids):
        """Batch numbers count up by one, but for those that were refused: each batch names the one that was
        acknowledged before it. What comes again has the same id and the same events."""
        content = (msg_id, len(ids), hash(tuple(ids)))
        known = self.batch_ids.setdefault(epoch, {})
        if number in known:
            self.redeliveries += 1
            if known[number] != content:
                self.problem(f"batch {epoch}/{number} came again with another id or other events")
            return
        known[number] = content
        self.batches += 1
        last = self.last_batch.get(epoch)
        if last is None:
            last = previous if self.any_start else 0
        if previous != last or number <= last:
            self.missing_batches += max(0, previous - last)
            self.problem(f"batch {epoch}/{number} with {previous} before it, after {last}")
        self.last_batch[epoch] = max(last, number)

    def take_event(self, event, now):
        lacking = [name for name in REQUIRED if name not in event]
        if lacking:
            self.problem(f"event {event.get('id')!r} lacks {', '.join(lacking)}")
            return
        if event["id"] in self.seen_ids:
            self.duplicates += 1
            return
        self.seen_ids.add(event["id"])
        self.events += 1
        self.types[event["type"]] += 1
        self.check_sequence(event)
        self.first_time = self.first_time or now
        self.last_time = now
        try:
            delay = now - parse_time(event["observedtime"])
        except ValueError as error:
            self.problem(f"event {event['id']}: {error}")
            delay = 0.0
        self.delays.append(delay)
        if self.output:
            self.output.write(json.dumps({**event, "_received": now}, ensure_ascii=False) + "\n")
        if self.echo:
            kind = event["type"].removeprefix("org.tapwire.")
            clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"
            path = event.get("subject", "")
            old = event["data"].get("old_path")
            arrow = f"  (from {printable(old)})" if old else ""
            print(f"{clock} {delay * 1000:9.1f} ms  {kind:<17} {printable(path)}{arrow}", flush=True)

    def check_sequence(self, event):
        """The id is the disk epoch and the sequence; a sequence counts up by one."""
        sequence = int(event["sequence"])
        epoch, _, number = event["id"].rpartition("-")
        if number != event["sequence"]:
            self.problem(f"event {event['id']} has sequence {event['sequence']}")
        last = self.last_sequence.get(epoch)
        if last is None:
            last = sequence - 1 if self.any_start else 0
        if sequence != last + 1:
            self.missing_events += max(0, sequence - last - 1)
            self.problem(f"event {sequence} of {epoch} after {last}")
        self.last_sequence[epoch] = max(last, sequence)

    def output_flush(self):
        if self.output:
            self.output.flush()

    def summary(self):
        with self.lock:
            ordered = sorted(self.delays)
            spent = (self.last_time or 0) - (self.first_time or 0)
            return {
                "events": self.events,
                "batches": self.batches,
                "requests": self.requests,
                "connections": self.connections,
                "bytes": self.bytes,
                "duplicates": self.duplicates,
                "redeliveries": self.redeliveries,
                "missing": self.missing_events,
                "missing_batches": self.missing_batches,
                "bad_signatures": self.bad_signatures,
                "problems": self.nproblems,
                "problem_texts": self.problems,
                "seconds": spent,
                "delay_median_ms": in_ms(percentile(ordered, 0.5)),
                "delay_p99_ms": in_ms(percentile(ordered, 0.99)),
                "delay_max_ms": in_ms(ordered[-1] if ordered else None),
                "types": dict(self.types),
                "epochs": dict(self.last_sequence),
                "targets": dict(self.last_batch),
            }


def printable(text):
    return "".join(c if c.isprintable() else "?" for c in text or "")


def in_ms(seconds):
    return None if seconds is None else round(seconds * 1000, 3)


def decoded(body, coding):
    """The body without its Content-Encoding."""
    if coding == "gzip":
        return gzip.decompress(body)
    if coding == "zstd":
        return subprocess.run(["zstd", "-dc"], input=body, stdout=subprocess.PIPE, check=True).stdout
    return body


class Faults:
    """How the receiver is to misbehave: at each of the first so many requests, or always."""

    def __init__(self, args):
        self.lock = threading.Lock()
        self.fail_left, self.fail_status = args.fail
        self.left = {name: getattr(args, name) for name in ("hang", "close_early", "reset", "truncate")}
        self.slow = args.slow
        self.status = args.status
        self.retry_after = args.retry_after

    def next(self):
        """The fault of this request: a name and a status, or None."""
        with self.lock:
            for name, left in self.left.items():
                if left:
                    self.left[name] = left - 1
                    return name, 0
            if self.fail_left:
                self.fail_left -= 1
                return "status", self.fail_status
            return ("status", self.status) if self.status else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    server_version = "tapwire-receiver"

    def setup(self):
        super().setup()
        with self.server.ledger.lock:
            self.server.ledger.connections += 1

    def log_message(self, *args):
        pass

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit():
            self.answer(411)
            self.close_connection = True
            return
        fault = self.server.faults.next()
        if fault and fault[0] == "reset":
            self.abort()
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        if self.server.faults.slow:
            self.server.stopping.wait(self.server.faults.slow)
        if fault and fault[0] == "hang":
            self.server.stopping.wait()
            self.close_connection = True
        elif fault and fault[0] == "close_early":
            self.close_connection = True
        elif fault and fault[0] == "truncate":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
            self.close_connection = True
        elif fault:
            self.answer(fault[1])
        else:
            self.answer(self.server.ledger.take(self.headers, decoded(body, self.headers.get("content-encoding"))))

    def answer(self, status):
        self.send_response(status)
        if status >= 400 and self.server.faults.retry_after:
            self.send_header("Retry-After", str(self.server.faults.retry_after))
        if 300 <= status < 400:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def abort(self):
        """Closes so that the peer gets a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.rfile = self.wfile = open(os.devnull, "r+b", buffering=0)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that was killed is no error of the receiver's."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, ValueError)):
            super().handle_error(request, client_address)


def read_secret(path):
    with open(path, encoding="ascii") as file:
        text = file.read().strip()
    if not text.startswith("whsec_"):
        sys.exit(f"receiver: {path}: expected whsec_ and base64")
    return base64.b64decode(text.removeprefix("whsec_"), validate=True)


def parse_fail(text):
    count, _, status = text.partition(":")
    return int(count), int(status or 500)


def parse_refuse(text):
    part, _, status = text.rpartition(":")
    return part, int(status)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: any free one)")
    parser.add_argument("--port-file", help="write the port to this file when listening")
    parser.add_argument("--secret-file", help="verify signatures with this whsec_ secret")
    parser.add_argument("--output", help="append each new event to this file as a line of JSON")
    parser.add_argument("--summary", help="write a JSON object to this file at the end")
    parser.add_argument("--print", action="store_true", help="print a line for each event")
    parser.add_argument("--any-start", action="store_true",
                        help="numbers may begin anywhere (a receiver that joins late)")
    parser.add_argument("--fail", type=parse_fail, default=(0, 500), metavar="N:STATUS",
                        help="answer the first N requests with STATUS")
    parser.add_argument("--status", type=int, default=0, help="answer every request with STATUS")
    parser.add_argument("--refuse", type=parse_refuse, metavar="REGEX:STATUS",
                        help="answer batches that have an event whose subject matches REGEX with STATUS")
    parser.add_argument("--max-bytes", type=int, default=0, metavar="N", help="answer longer batches with 413")
    parser.add_argument("--retry-after", help="Retry-After that goes with each failure")
    parser.add_argument("--hang", type=int, default=0, metavar="N", help="never answer the first N requests")
    parser.add_argument("--close-early", type=int, default=0, metavar="N",
                        help="close the first N requests without an answer")
    parser.add_argument("--truncate", type=int, default=0, metavar="N",
                        help="close in the middle of the first N answers")
    parser.add_argument("--reset", type=int, default=0, metavar="N", help="reset the first N connections")
    parser.add_argument("--slow", type=float, default=0, metavar="S", help="answer after S seconds")
    return parser.parse_args()


def write_whole(path, text):
    """So that whoever waits for the file never sees half of it."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


def main():
    args = parse_args()
    key = read_secret(args.secret_file) if args.secret_file else None
    output = open(args.output, "a", encoding="utf-8") if args.output else None
    server = Server(("127.0.0.1", args.port), Handler)
    server.ledger = Ledger(key, output, args.print, args.any_start, args.refuse, args.max_bytes)
    server.faults = Faults(args)
    server.stopping = threading.Event()

    def stop(_signum, _frame):
        server.stopping.set()
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if args.port_file:
        write_whole(args.port_file, f"{server.server_port}\n")
    server.serve_forever(poll_interval=0.1)
    summary = server.ledger.summary()
    if args.summary:
        write_whole(args.summary, json.dumps(summary, indent=1) + "\n")
    if output:
        output.close()
    wrong = summary["problems"] or summary["missing"] or summary["missing_batches"]
    os._exit(1 if wrong else 0)  # threads of open connections are not waited for


if __name__ == "__main__":
    main()
