#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""How long a change takes from the guest's disk to an HTTP endpoint, through `tapwire serve`.

This machine's kernel mounts the disk that it serves, makes one small change after the other, each
synced and followed by a short pause, and the receiver of the tests (a Python program that verifies
each signature) notes when an event has arrived; --post is a target with batch_delay_ms = 0. The
delay begins when the write that completed the change, the journal's commit block, was captured. For
comparison a bare client posts the same events: what remains is tapwire's. One synced append to a
file beside the spool is timed, too. Needs root. Takes about a minute.
"""
import argparse
import base64
import collections
import hashlib
import hmac
import http.client
import itertools
import json
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import measure  # noqa: E402
from lib import guestdisk, tree  # noqa: E402
from lib.endpoint import Endpoint  # noqa: E402
from lib.property import Tapwire  # noqa: E402
from lib.service import Service  # noqa: E402

FILES = 10
WARM_UP = 20  # changes; the first POST also connects


# --- what the guest does ---

def synced(path, work=lambda descriptor: None, flags=os.O_RDONLY):
    descriptor = os.open(path, flags, 0o644)
    try:
        work(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def changes(root):
    """An endless round of functions, each of which makes one change and syncs it."""
    def path(i, suffix=""):
        return os.path.join(root, "file-%02d%s" % (i, suffix))

    def rename(i):
        os.rename(path(i), path(i, ".renamed"))
        synced(root)

    def unlink(i):
        os.unlink(path(i, ".renamed"))
        synced(root)
    kinds = [
        lambda i: synced(path(i), lambda fd: os.write(fd, bytes(2000)), os.O_CREAT | os.O_WRONLY),
        lambda i: synced(path(i), lambda fd: os.write(fd, b"line\n"), os.O_WRONLY | os.O_APPEND),
        lambda i: synced(path(i), lambda fd: os.fchmod(fd, 0o600)),
        rename,
        unlink,
    ]
    for kind, i in itertools.cycle(itertools.product(kinds, range(FILES))):
        yield lambda kind=kind, i=i: kind(i)


def work(root, count):
    """Makes changes. Returns when each was begun and when its fsync came back, in nanoseconds."""
    pause = random.Random(1)
    spans = []
    for change in itertools.islice(changes(root), count):
        time.sleep(pause.uniform(0.01, 0.03))
        start = time.time_ns()
        change()
        spans.append((start, time.time_ns()))
    return spans


# --- what arrived ---

def commits(events, spans):
    """The events of each change: a list of (span, events), in order. Changes without one fail."""
    found = collections.defaultdict(list)
    for event in events:
        observed = tree.rfc3339(event["observedtime"])
        for number, (start, end) in enumerate(spans):
            if start <= observed <= end:
                found[number].append((observed, event["_received"] * 1e9, event))
                break
    missing = len(spans) - len(found)
    if missing:
        sys.exit("delay: %d of %d changes gave no event" % (missing, len(spans)))
    return [(spans[number], found[number]) for number in sorted(found)]


def in_ms(values):
    """Nanoseconds as milliseconds: median, p90, p99, greatest."""
    ordered = sorted(values)
    return [round(value / 1e6, 3) for value in (
        measure.median(ordered), measure.percentile(ordered, 0.9),
        measure.percentile(ordered, 0.99), ordered[-1])]


def rows_of(arrived):
    """Label, key and values of each row."""
    every = [entry for _, entries in arrived for entry in entries]
    yield "captured to received, each event", "event", [r - o for o, r, _ in every]
    yield ("captured to received, a change's last event", "change",
           [max(r - o for o, r, _ in entries) for _, entries in arrived])
    yield ("fsync returned to received, last event", "after_fsync",
           [max(r for _, r, _ in entries) - end for (_, end), entries in arrived])
    yield "the guest's fsync", "fsync", [end - start for (start, end), _ in arrived]


# --- the bare client ---

def post(connection, path, key, number, body):
    msg_id, stamp = "msg-%d" % number, str(int(time.time()))
    mac = hmac.new(key, ("%s.%s." % (msg_id, stamp)).encode() + body, hashlib.sha256).digest()
    connection.request("POST", path, body, {
        "Content-Type": "application/cloudevents-batch+json", "webhook-id": msg_id,
        "webhook-timestamp": stamp, "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        "Tapwire-Batch": "bare/%d" % number, "Tapwire-Previous": str(number - 1)})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        sys.exit("delay: the receiver answered %d to the bare client" % answer.status)


def bare(directory, events):
    """Posts events one by one, each with the time of now, to a receiver of its own; the delays in
    nanoseconds."""
    directory.mkdir()
    with Endpoint(directory) as endpoint:
        with open(endpoint.secret, encoding="ascii") as secret:
            key = base64.b64decode(secret.read().strip().removeprefix("whsec_"))
        host, path = endpoint.url.removeprefix("http://").split("/", 1)
        connection = http.client.HTTPConnection(host, timeout=10)
        for number, event in enumerate(events, 1):
            time.sleep(0.02)
            now = time.time_ns()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
            event = {**event, "sequence": str(number), "id": "bare-%d" % number,
                     "observedtime": "%s.%09dZ" % (stamp, now % 10**9)}
            post(connection, "/" + path, key, number, json.dumps([event]).encode())
        connection.close()
        endpoint.finish()
        return [event["_received"] * 1e9 - tree.rfc3339(event["observedtime"])
                for event in endpoint.events()]


def synced_appends(directory, count):
    """What a write to the host's disk costs that survives a crash, in nanoseconds each."""
    descriptor = os.open(directory / "append", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    spans = []
    for _ in range(count):
        time.sleep(0.01)
        start = time.perf_counter_ns()
        os.write(descriptor, bytes(1000))
        os.fdatasync(descriptor)
        spans.append(time.perf_counter_ns() - start)
    os.close(descriptor)
    return spans


def measure_delay(directory, programs, count):
    """Events as the receiver took them, and when the changes were made."""
    image = directory / "disk.img"
    guestdisk.make_image(image, "1G")
    with Endpoint(directory) as endpoint, \
            Service(programs, directory, image, endpoint) as service:
        with guestdisk.GuestDisk(directory, image, socket=service.socket) as disk:
            guestdisk.settle(disk.root)
            time.sleep(1)
            try:
                spans = work(disk.root, count + WARM_UP)
            except OSError as error:
                sys.exit("delay: %s\n%s" % (error, service.said()))
        service.stop()
        endpoint.finish()
        return endpoint.events(), spans


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="few changes, to see it work")
    args = parser.parse_args()
    if args.quick:
        args.changes = 60
    reason = guestdisk.missing()
    if reason:
        sys.exit("delay: cannot mount a disk here: " + reason)
    measure.setup()
    figures = measure.Figures("delay")
    with measure.scratch() as directory:
        events, spans = measure_delay(directory, Tapwire(measure.build()), args.changes)
        arrived = commits(events, spans)[WARM_UP:]
        bare_delays = bare(directory / "bare", [entries[-1][2] for _, entries in arrived[:200]])
        appends = synced_appends(directory, 200)
    rows = [*rows_of(arrived), ("a bare client's POST to received", "bare", bare_delays[1:]),
            ("a synced append on the host", "append", appends)]
    lines = []
    for label, key, values in rows:
        numbers = in_ms(values)
        lines.append((label, len(values), *("%.2f" % number for number in numbers)))
        for name, number in zip(("median", "p90", "p99", "max"), numbers):
            figures.add("%s.%s" % (key, name), number, "ms", count=len(values))
    measure.table("delay in ms, %d changes" % args.changes,
                  ("", "count", "median", "p90", "p99", "max"), lines)
    print()
    figures.print()


if __name__ == "__main__":
    main()
