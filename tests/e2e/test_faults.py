# SPDX-License-Identifier: BSD-3-Clause
"""Receivers that fail in every way: each event arrives at least once, in order, none is lost or invented, and no target
is disturbed by another."""
import collections
import json
import pathlib
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

HERE = pathlib.Path(__file__).resolve().parent.parent / "receiver"
sys.path.insert(0, str(HERE))
from lab import Lab, wait_for  # noqa: E402


@pytest.fixture
def lab(build, scratch):
    with Lab(build, scratch) as it:
        yield it


class Many:
    """One server for many targets: a path each. answer(path, nth request of the path) gives a status."""

    def __init__(self, answer):
        self.lock = threading.Lock()
        self.requests = collections.Counter()
        self.events = collections.defaultdict(list)
        many = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with many.lock:
                    many.requests[self.path] += 1
                    nth = many.requests[self.path]
                status = answer(self.path, nth)
                if status is None:
                    many.stopping.wait()
                    self.close_connection = True
                    return
                if 200 <= status < 300:
                    with many.lock:
                        many.events[self.path] += [int(event["sequence"]) for event in json.loads(body)]
                self.send_response_only(status)
                if status not in (204, 304):
                    self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, request, client_address):
                pass

        self.stopping = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()

    def configure(self, lab, paths, **keys):
        settings = {"batch_delay_ms": 20, "retry_min_ms": 1, "retry_max_ms": 50, **keys}
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        lab.configure(text="".join(f"[target t{path.strip('/')}]\nurl = http://127.0.0.1:{self.port}{path}\n{lines}"
                                   for path in paths))


def test_every_status_there_is(lab):
    """400 targets, and each gets another first answer."""
    paths = [f"/{status}" for status in range(200, 600)]
    with Many(lambda path, nth: int(path[1:]) if nth == 1 else 200) as many:
        many.configure(lab, paths)
        lab.start_courier()
        lab.feed(20)
        wait_for(lambda: sum(t["backlog"] > 0 for t in lab.status()["targets"]) == 1, 60, "all but one target")
        for target in lab.status()["targets"]:
            path = "/" + target["name"][1:]
            status = int(path[1:])
            got, requests = many.events[path], many.requests[path]
            if status == 410:
                assert target["suspended"] and got == [] and requests == 1
                continue
            assert got == list(range(1, 21)), (status, got)
            assert target["refused"] == target["dropped"] == 0, status
            assert requests <= 2 if status < 400 or status >= 500 else requests <= 4, (status, requests)
            assert (requests == 1) == (status < 300), (status, requests)


@pytest.mark.slow
def test_a_thousand_targets(lab):
    paths = [f"/{n}" for n in range(1000)]
    with Many(lambda path, nth: 503 if hash((path, nth)) % 4 == 0 and nth < 5 else 200) as many:
        many.configure(lab, paths)
        lab.start_courier()
        lab.feed(200)
        wait_for(lambda: sum(map(len, many.events.values())) >= 200 * 1000, 120, "all events at all targets")
        assert all(many.events[path] == list(range(1, 201)) for path in paths)
        wait_for(lambda: all(t["backlog"] == 0 for t in lab.status()["targets"]))


def test_one_dead_target_among_fifty_disturbs_nobody(lab):
    paths = [f"/{n}" for n in range(50)]
    with Many(lambda path, nth: None if path == "/7" else 200) as many:
        many.configure(lab, paths, timeout_ms=60000)
        lab.start_courier()
        lab.feed(2000)
        alive = [path for path in paths if path != "/7"]
        wait_for(lambda: all(len(many.events[path]) == 2000 for path in alive), 60, "the others")
        assert all(many.events[path] == list(range(1, 2001)) for path in alive)
        targets = {t["name"]: t for t in lab.status()["targets"]}
        assert targets["t7"]["backlog"] == 2000
        assert all(t["retries"] == 0 for t in targets.values())


# --- sockets that misbehave ---

def in_background(serve):
    """Runs serve() until its listening socket is closed."""
    def run():
        try:
            serve()
        except OSError:
            pass
    threading.Thread(target=run, daemon=True).start()


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            return None
        body += part
    return body


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def in_the_middle_of_the_request(connection):
    connection.recv(50)
    reset(connection)


def in_the_middle_of_the_answer(connection):
    read_request(connection)
    connection.sendall(OK[:20])
    reset(connection)


def in_the_middle_of_the_body(connection):
    read_request(connection)
    connection.sendall(OK[:-1])
    reset(connection)


def garbage(connection):
    read_request(connection)
    connection.sendall(b"\x00\xff" * 500)
    connection.close()


def another_protocol(connection):
    read_request(connection)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    connection.close()


def an_answer_without_end(connection):
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        for _ in range(40000):
            connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
    except OSError:
        pass
    connection.close()


def headers_without_end(connection):
    read_request(connection)
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for n in range(100000):
            connection.sendall(b"X-%d: %s\r\n" % (n, b"y" * 1000))
    except OSError:
        pass
    connection.close()


def only_continue(connection):
    read_request(connection)
    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 10)
    connection.close()


@pytest.mark.parametrize("fault", [in_the_middle_of_the_request, in_the_middle_of_the_answer,
                                   in_the_middle_of_the_body, garbage, another_protocol, an_answer_without_end,
                                   headers_without_end, only_continue])
def test_what_is_no_answer_is_none(lab, fault):
    got = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            for n in range(1000):
                connection, _ = server.accept()
                connection.settimeout(20)
                if n < 3:
                    fault(connection)
                    continue
                with connection:
                    while (body := read_request(connection)) is not None:
                        got.extend(int(event["sequence"]) for event in json.loads(body))
                        connection.sendall(OK)
        in_background(serve)
        lab.port = server.getsockname()[1]
        lab.configure(timeout_ms=5000, batch_delay_ms=20)
        lab.start_courier()
        lab.feed(300)
        wait_for(lambda: lab.target()["backlog"] == 0, 60)
    assert got == list(range(1, 301))
    assert lab.target()["retries"] == 3


def test_an_answer_that_trickles_is_one_in_the_end(lab):
    with socket.create_server(("127.0.0.1", 0)) as server:
        lab.port = server.getsockname()[1]
        lab.configure()
        lab.start_courier()
        lab.feed(1)
        connection, _ = server.accept()
        with connection:
            read_request(connection)
            for byte in OK:
                connection.sendall(bytes([byte]))
                time.sleep(0.005)
            wait_for(lambda: lab.target()["backlog"] == 0)
    assert lab.target()["retries"] == 0


def test_a_receiver_that_closes_after_each_answer_gets_nothing_twice(lab):
    got = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            while True:
                connection, _ = server.accept()
                with connection:
                    body = read_request(connection)
                    if body:
                        got.extend(int(event["sequence"]) for event in json.loads(body))
                        connection.sendall(OK)
        in_background(serve)
        lab.port = server.getsockname()[1]
        lab.configure(batch_events=5)
        lab.start_courier()
        lab.feed(300)
        wait_for(lambda: lab.target()["backlog"] == 0, 60)
    assert got == list(range(1, 301))


def test_a_name_that_is_not_known_yet(lab):
    library = lab.dir / "dns.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, HERE / "dns.c", "-ldl"], check=True)
    switch = lab.dir / "no-dns"
    switch.touch()
    lab.start_receiver()
    lab.configure(url=f"http://receiver.invalid:{lab.port}/hook")
    lab.start_courier(env={"LD_PRELOAD": str(library), "TAPWIRE_NO_DNS": str(switch)})
    lab.feed(100)
    wait_for(lambda: lab.target()["retries"] >= 3)
    assert "resolve" in lab.target()["last_error"]
    switch.unlink()
    lab.wait_delivered(100)
    assert lab.stop_receiver()["missing"] == 0
