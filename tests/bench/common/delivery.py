# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks of delivery share: events, the courier's frames of them, and an endpoint."""
import json
import os
import pathlib
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "receiver"))
import link  # noqa: E402

SOURCE = "/xen/bench/guest/xvda"
CHUNK = 500  # events that are sent at once
# An inspector's event ends with it, which the courier looks at; and is so long.
DOMAIN = ', "domain": {"uuid": "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "name": "guest", "id": 7, "vdev": "xvda"}'
MARK = b'"specversion"'  # once in each event


class Sink:
    """An endpoint that counts and does nothing else, so that the sender is what is measured.
    keep: for bodies and events, too."""

    def __init__(self, keep=False):
        sink = self
        self.requests = self.bytes = self.events = 0
        self.bodies = []
        self._expected = None
        self._there = threading.Event()
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with sink._lock:
                    sink._count(body, keep)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _count(self, body, keep):
        self.requests += 1
        self.bytes += len(body)
        if keep:
            self.bodies.append(body)
            self.events += body.count(MARK)
            if self._expected is not None and self.events >= self._expected:
                self._there.set()

    def wait(self, events, seconds):
        """Until so many events have come; only with keep."""
        with self._lock:
            self._expected = events
            if self.events < events:
                self._there.clear()
            else:
                self._there.set()
        if not self._there.wait(seconds):
            raise AssertionError(f"{self.events} of {events} events after {seconds} s")

    def ids(self):
        """Of all events, in the order in which they came; each body is a JSON array."""
        return [event["id"] for body in self.bodies for event in json.loads(body)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def make_bodies(epoch, count):
    """The JSON of events 1 to count."""
    template = link.event(epoch, SOURCE, 1).decode()
    assert template.endswith("}}")
    template = template[:-2] + DOMAIN + "}}"
    head, _, rest = template.partition(f'"{epoch}-1"')
    middle, _, tail = rest.partition('"sequence": "1"')
    return [f'{head}"{epoch}-{n}"{middle}"sequence": "{n}"{tail}'.encode() for n in range(1, count + 1)]


def joined(frames):
    """In chunks, each of which is sent at once."""
    return [b"".join(frames[at:at + CHUNK]) for at in range(0, len(frames), CHUNK)]


def make_chunks(bodies):
    """The courier's frames of these events; made before the clock starts."""
    return joined([link.frame(link.EVENT, body, n, 2) for n, body in enumerate(bodies, 1)])


def pour(lab, epoch, chunks, count):
    """Sends count events as fast as the courier takes them; seconds until the last ACK."""
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
