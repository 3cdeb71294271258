#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the courier does in a second, on loopback: events into the spool, events delivered, and the delay of
an event with batch_delay_ms = 0. Prints a table, then one line of JSON for each figure."""
import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "receiver"))
import link  # noqa: E402
from lab import Lab, wait_for  # noqa: E402

SOURCE = "/xen/bench/guest/xvda"
CHUNK = 500  # events that are sent at once


class Sink:
    """An endpoint that counts and does nothing else, so that the courier is what is measured."""

    def __init__(self):
        sink = self
        self.requests = self.bytes = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                sink.bytes += len(self.rfile.read(int(self.headers["content-length"])))
                sink.requests += 1
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def make_chunks(epoch, count):
    """The frames of events 1 to count, in chunks; made before the clock starts."""
    template = link.event(epoch, SOURCE, 1).decode()
    head, _, rest = template.partition(f'"{epoch}-1"')
    middle, _, tail = rest.partition('"sequence": "1"')

    def frame(n):
        return link.frame(link.EVENT, f'{head}"{epoch}-{n}"{middle}"sequence": "{n}"{tail}'.encode(), n, 2)
    return [b"".join(frame(n) for n in range(first, min(first + CHUNK, count + 1)))
            for first in range(1, count + 1, CHUNK)]


def pour(lab, epoch, count):
    """Sends count events as fast as the courier takes them; seconds until the last ACK."""
    chunks = make_chunks(epoch, count)
    with link.connect(os.fspath(lab.socket)) as sock:
        sock.sendall(link.hello(epoch, SOURCE))
        reader = link.Reader(sock)
        assert reader.read()[0] == link.WELCOME
        start = time.perf_counter()

        def send():
            for chunk in chunks:
                sock.sendall(chunk)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        acked = 0
        while acked < count:
            acked = reader.read()[2]
        return time.perf_counter() - start


def measure_intake(lab, count):
    """Into the spool alone: the target refuses."""
    lab.port = 1
    lab.configure(retry_min_ms=60000, retry_max_ms=60000)
    lab.start_courier()
    seconds = pour(lab, "bench-in", count)
    lab.kill_courier()
    return count / seconds


def measure_delivery(lab, count, batch_events):
    """From the inspector to the last 2xx, all at once."""
    sink = Sink()
    lab.port = sink.port
    lab.configure(batch_events=batch_events, batch_bytes="16MiB", batch_delay_ms=10)
    lab.spool = lab.dir / f"spool-{batch_events}.db"
    lab.start_courier()
    seconds = pour(lab, f"bench-{batch_events}", count)
    start = time.perf_counter()
    wait_for(lambda: lab.target()["delivered"] >= count, 60, "the last batch")
    seconds += time.perf_counter() - start
    lab.kill_courier()
    sink.close()
    return count / seconds


def measure_delay(lab, count, rate):
    """From an event's observedtime to its arrival in the receiver, at a gentle rate."""
    lab.port = 0
    lab.spool = lab.dir / "spool-delay.db"
    lab.start_receiver()
    lab.configure(batch_delay_ms=0)
    lab.start_courier()
    lab.feed(count, "--rate", str(rate))
    lab.wait_delivered(count)
    lab.kill_courier()
    return lab.stop_receiver()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=100000, help="of the throughput measurements")
    parser.add_argument("--delay-events", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=200, help="events a second of the delay measurement")
    args = parser.parse_args()
    build = os.environ.get("TAPWIRE_BUILD") or ROOT / "build"
    directory = tempfile.mkdtemp(prefix="tapwire-bench-")
    figures = []
    try:
        with Lab(pathlib.Path(build).resolve(), directory) as lab:
            figures.append(("courier.intake", "events/s", measure_intake(lab, args.events),
                            "into the spool, target down"))
            for batch_events in (100, 1000):
                figures.append((f"courier.delivery.{batch_events}", "events/s",
                                measure_delivery(lab, args.events, batch_events),
                                f"through the spool to 2xx, {batch_events} a batch"))
            summary = measure_delay(lab, args.delay_events, args.rate)
            for name, key in (("p50", "delay_median_ms"), ("p99", "delay_p99_ms"), ("max", "delay_max_ms")):
                figures.append((f"courier.delay.{name}", "ms", summary[key],
                                f"observed to received, {args.rate:g} events/s, batch_delay_ms = 0"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for name, unit, value, meaning in figures:
        print(f"{name:<24} {value:>12.{0 if unit == 'events/s' else 2}f} {unit:<9} {meaning}")
    for name, unit, value, _ in figures:
        print(json.dumps({"name": name, "unit": unit, "value": round(value, 3)}))


if __name__ == "__main__":
    main()
