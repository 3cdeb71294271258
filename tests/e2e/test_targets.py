# SPDX-License-Identifier: BSD-3-Clause
"""What a target may ask for: filters, secrets, TLS with nginx before the receiver, proxies, compression."""
import base64
import json
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "receiver"))
import link  # noqa: E402
from lab import SECRET, Lab, wait_for  # noqa: E402
from tls import Authority, Nginx, pin_of  # noqa: E402


@pytest.fixture
def lab(build, scratch):
    with Lab(build, scratch) as it:
        yield it


@pytest.fixture
def authority(scratch):
    return Authority(scratch)


# --- filters ---

DOMAIN = "0d1e5a9c-0000-4000-8000-00000000000a"
VOLUME = "3f0c9a52-0000-4000-8000-000000000001"
PATHS = ["/etc/passwd", "/etc/ssh/sshd_config", "/etc/mtab", "/usr/bin/env", "/var/log/a.log", "/var/log/b/c.log",
         "/home/me/.ssh/id", "/tmp/\u00e4 b", "/srv/a,b"]


def send(lab, bodies, vdev="xvda", domain=DOMAIN, epoch="epoch-1"):
    """Sends events of one disk, and waits until they are acknowledged."""
    with link.connect(str(lab.socket)) as sock:
        sock.sendall(link.hello(epoch, f"/xen/testhost/{domain}/{vdev}"))
        reader = link.Reader(sock)
        last = reader.read()[2]
        for n, body in enumerate(bodies, 1):
            body.update(id=f"{epoch}-{n}", sequence=str(n), source=f"/xen/testhost/{domain}/{vdev}/{VOLUME}")
            sock.sendall(link.frame(link.EVENT, json.dumps(body).encode(), n, 2))
        while last < len(bodies):
            last = reader.read()[2]


def event(path, **data):
    body = json.loads(link.event("e", "/x", 1, path=path))
    body["data"].update(data)
    return body


def subjects(lab):
    return [e["subject"] for e in lab.received()]


@pytest.mark.parametrize("patterns,wanted", [
    ("/etc/**", PATHS[:3]),
    ("/etc/*", ["/etc/passwd", "/etc/mtab"]),
    ("/etc/**, !/etc/mtab", PATHS[:2]),
    ("!/var/**", [p for p in PATHS if not p.startswith("/var/")]),
    ("/**/*.log", ["/var/log/a.log", "/var/log/b/c.log"]),
    ("/home/*/.ssh/**, /tmp/\u00e4*", ["/home/me/.ssh/id", "/tmp/\u00e4 b"]),
    ("/srv/a\\,b\npaths = /usr/**", ["/usr/bin/env", "/srv/a,b"]),
])
def test_paths(lab, patterns, wanted):
    lab.start_receiver("--any-start")
    lab.configure(paths=patterns)
    lab.start_courier()
    send(lab, [event(path) for path in PATHS])
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert subjects(lab) == wanted
    assert lab.stop_receiver()["missing_batches"] == 0


def test_what_moves_in_or_out_is_wanted_and_raw_names_count(lab):
    lab.start_receiver("--any-start")
    lab.configure(paths="/etc/**, /bad/\udcff*".encode("utf-8", "surrogateescape").decode("latin-1"))
    lab.conf.write_bytes(lab.conf.read_text().encode("latin-1"))
    lab.start_courier()
    send(lab, [event("/tmp/a", old_path="/etc/a"), event("/etc/b", old_path="/tmp/b"),
               event("/tmp/c", old_path="/var/c"), event("/bad/\ufffd2"),
               event("/bad/\ufffd1", path_b64=base64.b64encode(b"/bad/\xff1").decode())])
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert subjects(lab) == ["/tmp/a", "/etc/b", "/bad/\ufffd1"]


@pytest.mark.parametrize("key,pattern,wanted", [
    ("domains", "web*", "ab"), ("domains", "!web1", "bc"), ("domains", DOMAIN[:-1] + "b", "b"),
    ("domains", "web*, !*-0000-*0b", "a"), ("volumes", "xvda", "a"), ("volumes", "xvd[bc]/*", "bc"),
    ("volumes", VOLUME, "abc"), ("volumes", "!xvdc", "ab")])
def test_domains_and_volumes(lab, key, pattern, wanted):
    lab.start_receiver("--any-start")
    lab.configure(**{key: pattern})
    lab.start_courier()
    for letter, name in zip("abc", ("web1", "web2", "db")):
        uuid = DOMAIN[:-1] + letter
        send(lab, [event(f"/{letter}", domain={"id": 1, "name": name, "uuid": uuid})], "xvd" + letter, uuid,
             "epoch-" + letter)
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert "".join(subjects(lab)) == "".join("/" + letter for letter in wanted)


# --- another configuration while it runs ---

def reload(lab, times):
    lab.courier.send_signal(signal.SIGHUP)
    wait_for(lambda: lab.said().count("is read again") == times, what="a reload")


def test_a_reload_under_load_loses_nothing(lab):
    """From one place to another, from one lane to four and back, with another batch size: all the time events."""
    lab.start_receiver()
    lab.configure(batch_events=10)
    lab.start_courier()
    feeds = [lab.start_feed(3000, "--rate", "600", "--vdev", f"xvd{c}", epoch=f"disk-{c}") for c in "abc"]
    for times, (lanes, events) in enumerate([(4, 20), (2, 5), (1, 50), (3, 10), (1, 10)], 1):
        wait_for(lambda: lab.count() > times * 200)
        lab.configure(batch_events=events, concurrency=lanes)
        reload(lab, times)
    assert [feed.wait(timeout=60) for feed in feeds] == [0] * 3
    wait_for(lambda: lab.target()["backlog"] == 0)
    summary = lab.stop_receiver()
    assert (summary["missing"], summary["duplicates"], summary["missing_batches"]) == (0, 0, 0), summary
    assert summary["events"] == 9000


def test_a_reload_takes_another_url_and_what_waits_goes_there(lab):
    lab.reserve_port()
    port = lab.port
    lab.configure(url="http://127.0.0.1:1/", retry_min_ms=60000, retry_max_ms=60000)
    lab.start_courier()
    lab.feed(300)
    wait_for(lambda: lab.target()["retries"] > 0)
    lab.port = port
    lab.start_receiver()
    lab.configure()
    reload(lab, 1)
    lab.wait_delivered(300)
    assert lab.stop_receiver()["missing"] == 0


def test_a_reload_adds_and_removes_targets(lab):
    lab.start_receiver("--any-start")
    section = "[target {}]\nurl = http://127.0.0.1:{}/\nsecret_file = %s\nbatch_delay_ms = 0\n" % lab.secret
    lab.configure(text=section.format("a", 1))
    lab.start_courier()
    lab.feed(10)
    lab.configure(text=section.format("a", 1) + section.format("b", lab.port))
    reload(lab, 1)
    lab.feed(20)
    wait_for(lambda: lab.count() == 10)
    assert [t["backlog"] for t in lab.status()["targets"]] == [20, 0]
    lab.configure(text=section.format("b", lab.port))
    reload(lab, 2)
    assert [t["name"] for t in lab.status()["targets"]] == ["b"]
    wait_for(lambda: lab.status()["spool"]["events"] == 0)
    assert "a: no longer configured" in lab.said()
    lab.feed(30)
    lab.wait_delivered(20)


def test_a_reload_of_a_file_with_a_mistake_changes_nothing(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(10)
    lab.conf.write_text("[target t]\nurl = gopher://x/\n")
    lab.courier.send_signal(signal.SIGHUP)
    wait_for(lambda: "going on as before" in lab.said())
    assert f"{lab.conf}:2" in lab.said()
    lab.feed(20)
    lab.wait_delivered(20)


def test_a_reload_leaves_what_is_planned_and_filters_what_comes(lab):
    lab.start_receiver("--any-start")
    lab.configure(url="http://127.0.0.1:1/", paths="/etc/**", retry_min_ms=60000, retry_max_ms=60000, batch_events=1)
    lab.start_courier()
    send(lab, [event(path) for path in PATHS])
    wait_for(lambda: lab.target()["retries"] > 0 and lab.target()["backlog"] == 3)
    lab.configure(paths="/usr/**")
    reload(lab, 1)
    send(lab, [event(path) for path in PATHS], epoch="epoch-2")
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert subjects(lab) == PATHS[:3] + ["/usr/bin/env"]


# --- who sends ---

def captured(lab, **keys):
    """The head of the request that one event makes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        lab.port = server.getsockname()[1]
        lab.configure(**keys)
        lab.start_courier()
        lab.feed(1)
        server.settimeout(20)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            data = b""
            while b"\r\n\r\n" not in data or not data.endswith(b"]"):
                data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode(), body


def private(path, text):
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def test_each_secret_signs(lab):
    new = private(lab.dir / "new", "whsec_" + base64.b64encode(b"n" * 24).decode())
    head, body = captured(lab, secret_file=f"{lab.secret}\nsecret_file = {new}")
    names = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    signatures = names["webhook-signature"].split()
    assert len(signatures) == 2
    signed = f"{names['webhook-id']}.{names['webhook-timestamp']}.".encode() + body
    for secret, signature in zip((SECRET, new.read_text().strip()), signatures):
        key = base64.b64decode(secret.removeprefix("whsec_")).hex()
        made = subprocess.run(["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:" + key, "-binary"],
                              input=signed, capture_output=True, check=True).stdout
        assert signature == "v1," + base64.b64encode(made).decode()


def test_basic_authentication_and_values_from_elsewhere(lab, monkeypatch):
    monkeypatch.setenv("TAPWIRE_TEST_KEY", "from the environment")
    auth = private(lab.dir / "auth", "me:s3cret")
    key = private(lab.dir / "key", "from a file")
    head, _ = captured(lab, basic_auth_file=auth, header="X-A: ${env:TAPWIRE_TEST_KEY}\nheader = X-B: ${file:%s}" % key)
    assert "\r\nAuthorization: Basic " + base64.b64encode(b"me:s3cret").decode() in head
    assert "\r\nX-A: from the environment\r\n" in head and "\r\nX-B: from a file" in head


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_bodies_are_compressed(lab, coding):
    lab.start_receiver()
    lab.configure(compression=coding, batch_delay_ms=100)
    lab.start_courier()
    lab.feed(500)
    lab.wait_delivered(500)
    assert lab.stop_receiver()["missing"] == 0


def test_a_proxy_is_used(lab):
    lab.start_receiver()
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            client, _ = server.accept()
            head = client.recv(65536)
            asked.append(head.decode(errors="replace"))
            with socket.create_connection(("127.0.0.1", lab.port)) as backend:
                backend.sendall(head.replace(b"POST http://target.invalid", b"POST ", 1))
                while True:
                    ready, _, _ = select.select([client, backend], [], [], 20)
                    for one in ready:
                        data = one.recv(65536)
                        if not data:
                            return
                        (backend if one is client else client).sendall(data)
        threading.Thread(target=serve, daemon=True).start()
        auth = private(lab.dir / "auth", "me:s3cret")
        lab.configure(url="http://target.invalid/hook", proxy=f"http://127.0.0.1:{server.getsockname()[1]}",
                      proxy_auth_file=auth)
        lab.start_courier()
        lab.feed(5)
        lab.wait_delivered(5)
    assert "Proxy-Authorization: Basic " + base64.b64encode(b"me:s3cret").decode() in asked[0]


def test_an_interface_is_used(lab):
    lab.start_receiver()
    lab.configure(interface="lo")
    lab.start_courier()
    lab.feed(5)
    lab.wait_delivered(5)
    lab.stop_courier()
    lab.configure(interface="no-such-interface0")
    lab.start_courier()
    lab.feed(6)
    wait_for(lambda: lab.target()["retries"] > 0)
    assert lab.target()["backlog"] == 1


# --- TLS ---

def through_tls(lab, nginx, count=50, **keys):
    lab.configure(url=f"https://127.0.0.1:{nginx.port}/hook", batch_delay_ms=20, **keys)
    lab.start_courier()
    lab.feed(count)
    lab.wait_delivered(count)


@pytest.mark.parametrize("protocol,tls_min", [("TLSv1.2", "1.2"), ("TLSv1.3", "1.2"), ("TLSv1.3", "1.3")])
def test_tls(lab, authority, protocol, tls_min):
    lab.start_receiver()
    with Nginx(lab.dir, lab.port, *authority.issue("server"), more=f"ssl_protocols {protocol};") as nginx:
        through_tls(lab, nginx, ca_file=authority.cert, tls_min=tls_min)
        assert all(line.startswith(f"HTTP/1.1 {protocol} ") for line in nginx.said())
    assert lab.stop_receiver()["missing"] == 0


def refused(lab, nginx, words, **keys):
    lab.configure(url=f"https://127.0.0.1:{nginx.port}/hook", **keys)
    lab.start_courier()
    lab.feed(5)
    wait_for(lambda: lab.target()["retries"] >= 2)
    target = lab.target()
    assert target["backlog"] == 5 and target["delivered"] == 0
    assert re.search(words, target["last_error"]), target["last_error"]
    lab.kill_courier()


def test_an_old_tls_is_refused(lab, authority):
    lab.start_receiver()
    with Nginx(lab.dir, lab.port, *authority.issue("server"), more="ssl_protocols TLSv1.2;") as nginx:
        refused(lab, nginx, "SSL", ca_file=authority.cert, tls_min="1.3")


def test_a_certificate_that_is_not_trusted_expired_or_for_another_name_is_refused(lab, authority):
    lab.start_receiver()
    other = Authority(lab.dir, "other")
    for cert, words in ((other.issue("stranger"), "SSL|certificate"),
                        (authority.issue("another", "DNS:other.invalid"), "SSL|certificate|peer"),
                        (authority.issue("expired", days=-1), "SSL|certificate")):
        with Nginx(lab.dir, lab.port, *cert) as nginx:
            refused(lab, nginx, words, ca_file=authority.cert)
    with Nginx(lab.dir, lab.port, *authority.issue("server")) as nginx:  # and then it is renewed
        through_tls(lab, nginx, ca_file=authority.cert)
    assert lab.stop_receiver()["missing"] == 0


def test_a_client_certificate_is_shown(lab, authority):
    lab.start_receiver()
    cert, key = authority.issue("client", "DNS:client")
    more = f"ssl_client_certificate {authority.cert}; ssl_verify_client on;"
    with Nginx(lab.dir, lab.port, *authority.issue("server"), more=more) as nginx:
        through_tls(lab, nginx, ca_file=authority.cert, client_cert_file=cert, client_key_file=key)
        assert all(" SUCCESS 200" in line for line in nginx.said())
        lab.stop_courier()
        lab.configure(url=f"https://127.0.0.1:{nginx.port}/hook", ca_file=authority.cert)
        lab.start_courier()
        lab.feed(60)
        wait_for(lambda: lab.target()["last_status"] == 400)
        assert lab.target()["backlog"] == 10


def test_a_pinned_key_is_the_only_one(lab, authority):
    lab.start_receiver()
    cert, key = authority.issue("server")
    other, _ = authority.issue("other-server")
    with Nginx(lab.dir, lab.port, cert, key) as nginx:
        refused(lab, nginx, "pinned", ca_file=authority.cert, pinned_key=pin_of(other))
        through_tls(lab, nginx, ca_file=authority.cert, pinned_key=f"{pin_of(other)};{pin_of(cert)}")


@pytest.mark.parametrize("version,listen,seen", [("auto", "ssl http2", "HTTP/2.0"), ("2", "ssl http2", "HTTP/2.0"),
                                                 ("1.1", "ssl http2", "HTTP/1.1"), ("auto", "ssl", "HTTP/1.1")])
def test_http_versions(lab, authority, version, listen, seen):
    lab.start_receiver()
    with Nginx(lab.dir, lab.port, *authority.issue("server"), listen=listen) as nginx:
        through_tls(lab, nginx, ca_file=authority.cert, http_version=version, compression="gzip")
        assert all(line.startswith(seen) and line.endswith(" 200 gzip") for line in nginx.said())
    assert lab.stop_receiver()["missing"] == 0
