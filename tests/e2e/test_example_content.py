# SPDX-License-Identifier: BSD-3-Clause
"""The receivers in examples/ that are given files' content: on a real mount, with a real clamd."""
import base64
import contextlib
import hashlib
import importlib.util
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys

import pytest

from lib import guestdisk
from lib.daemon import Daemon
from lib.guard import Guard
from lib.logs import Logs

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "receiver"))
from tls import free_port  # noqa: E402

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR" + rb"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
RETRY = "retry_min_ms = 10\nretry_max_ms = 100\n"


class Process:
    """A program that may be killed and started again. What it prints goes to files."""

    def __init__(self, directory, name, argv):
        self.argv = [os.fspath(arg) for arg in argv]
        self.out, self.log = directory / (name + ".out"), directory / (name + ".log")
        self._guard = self._proc = None

    def start(self):
        self._guard = Guard()
        with open(self.out, "ab") as out, open(self.log, "ab") as log:
            self._proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        self._guard.push("kill", self._proc.pid)

    def kill(self):
        self._proc.send_signal(signal.SIGKILL)
        self._proc.wait()
        self._guard.pop()
        self._guard.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exc):
        self.kill()


class Example(Process):
    """A receiver of examples/, with the url and the secret that a daemon wants of an endpoint."""

    def __init__(self, directory, name, *args):
        port = free_port()
        self.url = "http://127.0.0.1:%d/" % port
        self.secret = directory / "secret"
        self.secret.write_bytes(b"whsec_" + base64.b64encode(os.urandom(32)) + b"\n")
        self.secret.chmod(0o600)
        super().__init__(directory, name, ["/usr/bin/python3", ROOT / "examples" / name, "--secret-file", self.secret,
                                           "--port", str(port), *args])


def example(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), ROOT / "examples" / (name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- log-follower ---

def tree(top, own=False):
    """The content of each file below a directory, by its path."""
    return {os.path.relpath(os.path.join(where, name), top): pathlib.Path(where, name).read_bytes()
            for where, _, names in os.walk(top) for name in names
            if own or not os.path.relpath(os.path.join(where, name), top).startswith(".")}


def test_log_follower_has_what_the_guest_has(tapwire, memory, mountable):
    image, ring, top = memory / "disk.img", memory / "ring", memory / "logs"
    guestdisk.make_image(image, "64M")
    with Example(memory, "log-follower.py", "--dir", top) as follower, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                plugin_args=("ring=%s" % ring,)) as disk, \
            Daemon(tapwire, memory, image, ring, follower,
                   target=RETRY + "paths = /log/**\ncontent = append") as daemon:
        logs = Logs(disk.root, 11)
        for turn in range(8):
            logs.work(80)
            taken = guestdisk.read_text(top / ".taken")
            with open(disk.root + "/log/turn", "w", encoding="ascii") as file:
                os.fsync(file.fileno())
            assert guestdisk.wait_until(lambda: guestdisk.read_text(top / ".taken") != taken, 60), daemon.said()
            follower.kill()
            if turn == 5:
                os.mkdir(disk.root + "/log/archive")
                os.rename(disk.root + "/log/app.log.copy", disk.root + "/log/archive/app.log.copy")
                disk.sync("before the directory is renamed")
                os.rename(disk.root + "/log/archive", disk.root + "/log/older")
            follower.start()
        logs.close()
        with open(disk.root + "/log/gone", "w", encoding="ascii") as file:
            file.write("what was deleted stays\n")
        disk.sync("written")
        os.unlink(disk.root + "/log/gone")
        disk.sync("deleted")
        real = {"log/" + path: content for path, content in tree(disk.root + "/log").items()}
        assert len(real) >= 5 and "log/older/app.log.copy" in real

        def ours():
            [volume] = (top / "a").iterdir() if (top / "a").exists() else [top / "none"]
            return tree(volume)
        assert guestdisk.wait_until(lambda: ours() == real, 60), (
            sorted(set(real) ^ set(ours())), follower.log.read_text(), daemon.said())
        kept = tree(top / ".inodes", True).values()
        assert b"what was deleted stays\n" in kept and len(kept) > len(real)
        assert not follower.log.read_text()


SOURCE = "/xen/host/3f0c9a52-0000-4000-8000-00000000000a/xvda/vol"
VOLUME = os.path.join("guest", "xvda-vol")


class Events:
    """Events of one disk, as tapwire would send them."""

    def __init__(self):
        self.list = []

    def add(self, what, path, inode, content=None, kind="file", source=SOURCE, name="guest", **data):
        if content is not None:
            data["content"] = [{"offset": data.pop("offset", 0), "text": content}] if content else []
            data.setdefault("size", len(content))
        number = len(self.list) + 1
        self.list.append({"id": "epoch-%d" % number, "source": source, "type": "org.tapwire.file." + what,
                          "subject": path, "sequence": str(number),
                          "data": {"inode": inode, "generation": 7, "kind": kind, "size": 0, "domain": {"name": name},
                                   **data}})


def rotation():
    events = Events()
    events.add("created", "/log", 11, kind="dir")
    events.add("created", "/log/a", 12, "first\n")
    events.add("modified", "/log/a", 12, "second\n", offset=6, size=13)
    events.add("renamed", "/log/a.1", 12, old_path="/log/a", size=13)
    events.add("created", "/log/a", 13, "third\n")
    events.add("deleted", "/log/a.1", 12, size=13)
    events.add("renamed", "/log/a.1", 13, old_path="/log/a", size=6)
    events.add("created", "/log/b", 14, "copied\n" * 3)
    events.add("truncated", "/log/b", 14, size=0)
    events.add("modified", "/log/b", 14, "cut\n")
    events.add("linked", "/log/c", 14, "cut\n", content_whole=True)
    events.add("created", "/log/d/e/x", 20, "", size=0)
    events.add("deleted", "/log/d/e/x", 20)
    events.add("created", "/log/d", 21, "no directory")
    events.add("renamed", "/old", 11, kind="dir", old_path="/log")
    events.add("created", "/log", 15, kind="dir")
    events.add("created", "/log/a", 16, "fourth\n")
    events.add("modified", "/old/b", 14, "more\n", offset=4, size=9)
    events.add("unlinked", "/old/c", 14, size=9)
    events.add("modified", "/log/a", 16, "", size=20, content_missing=[[7, 13]])
    events.add("modified", "/log/a", 16, size=20, content=None)
    events.list[-1]["data"]["content"] = [{"offset": 7, "zeroes": 9}, {"offset": 16, "base64": "/wD/AA=="}]
    return events.list


ROTATED = {"old/a.1": b"third\n", "old/d": b"no directory", "old/b": b"cut\nmore\n",
           "log/a": b"fourth\n" + bytes(9) + b"\xff\0\xff\0"}


def test_log_follower_may_be_killed_between_any_two_steps(memory, monkeypatch):
    """Batches that come again, in part or in whole, do no harm."""
    module, events = example("log-follower"), rotation()

    class Killed(BaseException):
        pass
    left = [0]

    def deadly(call):
        def wrapper(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            result = call(*args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return result
        return wrapper
    for name in ("rename", "unlink", "link", "fsync"):
        monkeypatch.setattr(os, name, deadly(getattr(os, name)))
    steps = 0
    while left[0] <= 0:
        steps += 1
        top, left[0] = memory / str(steps), steps
        with contextlib.suppress(Killed):
            follower = module.Follower(top)
            for event in events:
                follower.take(event)
        finished, left[0] = left[0] > 0, 0
        for event in events * 2:
            module.Follower(top).take(event)
        assert tree(top / VOLUME) == ROTATED, steps
        assert sorted(tree(top / ".inodes", True).values()) == sorted([b"first\nsecond\n", b"", *ROTATED.values()])
        if finished:
            break
    assert steps > 60


def test_log_follower_exchanges_names(scratch):
    module, events = example("log-follower"), Events()
    for path, inode in (("/one/x", 12), ("/two/x", 13), ("/y", 14), ("/z", 15)):
        events.add("created", path, inode, path)
    events.add("renamed", "/two", 2, kind="dir", old_path="/one", exchange=True)
    events.add("renamed", "/z", 14, old_path="/y", exchange=True, size=2)
    follower = module.Follower(scratch)
    for event in events.list:
        follower.take(event)
    assert tree(scratch / VOLUME) == {"two/x": b"/one/x", "one/x": b"/two/x", "z": b"/y", "y": b"/z"}


def test_log_follower_believes_what_comes_last(scratch):
    """Of a name, and of a file that comes anew, though what was there before was never told of."""
    module, events = example("log-follower"), Events()
    events.add("created", "/", 11, "no name")
    events.add("created", "/a", 12, "first")
    events.add("created", "/a", 13, "second")
    events.add("created", "/" + "n" * 256, 14, "long")
    events.add("linked", "/b", 12, size=4, content=None, content_whole=True, content_left_out=[[0, 4]])
    events.list[-1]["data"]["content"] = []
    follower = module.Follower(scratch)
    for event in events.list:
        follower.take(event)
    ours = tree(scratch / VOLUME)
    [long] = [name for name in ours if name.startswith("nnn")]
    assert ours == {"@": b"no name", "a": b"second", "b": bytes(4), long: b"long"} and len(long) < 256


def test_log_follower_stays_in_its_directory(scratch, capsys):
    """Whatever a guest, or the host, calls things; whatever lies in the way."""
    module, events = example("log-follower"), Events()
    top, outside = scratch / "in" / "top", scratch / "in" / "outside"
    outside.mkdir(parents=True)
    (outside / "kept").write_text("as it was")
    follower = module.Follower(top)
    (top / VOLUME).mkdir(parents=True)
    (top / VOLUME / "symlink").symlink_to(outside)
    (top / VOLUME / "file").symlink_to(outside / "kept")
    for inode, (path, old) in enumerate((("/symlink/x", "/a"), ("/symlink/kept", "/b"), ("/file", "/file"),
                                         ("/c", "/symlink/kept")), 30):
        events.add("created", path, inode, "hostile")
        events.add("renamed", path, inode, old_path=old, size=7)
        events.add("renamed", path, 3, kind="dir", old_path=old)
        events.add("deleted", path, inode)
    disk = SOURCE.split("/", 3)[3].replace("/", "-")
    (top / ".inodes" / disk).mkdir()
    (top / ".inodes" / disk / "50-7").symlink_to(outside / "kept")
    paths = ["/../../../outside/x", "/..", "/.", "../outside/x", "//../outside/x", "/a/../../../../outside/x", "/", "",
             str(outside / "x"), "/symlink/x", "/symlink/kept", "/file", "/nul\0", "/" + "n" * 256, "/d" * 2000,
             "/" + "x/" * 300 + "y", "/\ud800", "/good"]
    for inode, path in enumerate(paths, 100):
        for what in ("created", "modified", "deleted", "created"):
            events.add(what, path, inode, "hostile")
        events.add("renamed", path, inode, old_path="/../../../outside/kept", size=7)
        events.add("renamed", path, 3, kind="dir", old_path="/../../outside", exchange=True)
        events.add("renamed", "/../../../outside/y", inode, old_path=path, size=7)
        events.add("renamed", "/../../../outside", 3, old_path=path, kind="dir")
    events.add("created", "/raw", 60, "raw", path_b64=base64.b64encode(b"/../../../outside/\xff").decode())
    events.add("created", "/raw", 61, "raw", path_b64=base64.b64encode(b"/\xff\xfe").decode())
    events.add("created", "/planted", 50, "hostile")
    for number, name in enumerate(("..", "../outside", ".inodes", ".taken", "/", "a\0b", "n" * 300)):
        events.add("created", "/x", 70 + number, "hostile", name=name)
        events.add("created", "/x", 80 + number, "hostile", source="/xen/host/%s/../.." % name.replace("/", "%2F"))
    for size in (1 << 62, 1 << 63, (1 << 64) - 1):
        events.add("created", "/huge", 90, "hostile", size=size)
    events.add("created", "/good/again", 91, "fine")
    events.add("created", "/last", 92, "fine")
    for event in events.list:
        follower.take(event)
    assert tree(scratch / "in" / "outside", True) == {"kept": b"as it was"}
    assert sorted(os.listdir(scratch / "in")) == ["outside", "top"]
    assert os.listdir(scratch) == ["in"]
    assert {".inodes", ".taken", "guest"} <= set(os.listdir(top))
    assert "xvda-vol" not in os.listdir(top / ".inodes")
    ours = {os.fsencode(path): content for path, content in tree(top / VOLUME).items()}
    assert ours[b"last"] == b"fine" and ours[b"\xff\xfe"] == b"raw"
    assert ours[b"%2E%2E/%2E%2E/%2E%2E/outside/\xff"] == b"raw"
    assert "lies in the way" in capsys.readouterr().err


def test_log_follower_says_what_is_left_out(scratch, capsys):
    module, events = example("log-follower"), Events()
    events.add("created", "/log", 12, "abc", size=9, content_left_out=[[3, 6]])
    module.Follower(scratch).take(events.list[0])
    assert tree(scratch / VOLUME) == {"log": b"abc" + bytes(6)}
    assert "/log" in (said := capsys.readouterr().err) and "content_left_out [[3, 6]]" in said


# --- virus-scan ---

@pytest.fixture
def clamd(memory):
    """Debian's clamd with signatures of the test's own, not started yet."""
    if not os.path.exists("/usr/sbin/clamd"):
        pytest.skip("no clamd (clamav-daemon)")
    database = memory / "db"
    database.mkdir()
    (database / "own.ndb").write_text("Own.Eicar:0:0:%s\nOwn.Marker:0:*:%s\n" % (
        EICAR.hex(), b"a marker that nobody has by accident".hex()))
    (memory / "clamd.conf").write_text("Foreground yes\nDatabaseDirectory %s\nLocalSocket %s\nUser root\n"
                                       "TemporaryDirectory %s\nStreamMaxLength 300K\n" % (
                                           database, memory / "clamd.sock", memory))
    return Process(memory, "clamd", ["/usr/sbin/clamd", "--config-file", memory / "clamd.conf"])


def answers(path):
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
        sock.connect(os.fspath(path))
        sock.sendall(b"zPING\0")
        return sock.recv(16) == b"PONG\0"
    return False


def target(tapwire, directory):
    """How the daemon's target is."""
    done = tapwire.run("targets", "--json", "--state", directory / "run", timeout=20)
    return json.loads(done.stdout)["targets"][0]


def told(scanner):
    """What the scanner has printed, the last of each path. Nothing is printed twice."""
    lines = guestdisk.read_text(scanner.out).splitlines()
    assert len(lines) == len(set(lines)), lines
    return {line["path"]: line for line in map(json.loads, lines) if line["result"] != "awaited"}


def test_virus_scan_asks_once_for_each_file_of_a_batch(capsys, monkeypatch):
    """A batch that takes longer than tapwire waits comes again, and must come to an end."""
    module, events, asked, down = example("virus-scan"), Events(), [], [ConnectionError("away")]

    def ask(_path, content):
        if content == b"last" and down:
            raise down.pop()
        asked.append(bytes(content))
        return "stream: OK"
    monkeypatch.setattr(module, "ask", ask)
    events.add("created", "/a", 12, "first", content_whole=True)
    events.add("modified", "/a", 12, content=None, size=5, content_whole=True, content_missing=[[0, 5]])
    events.add("modified", "/a", 12, "part", size=5)
    events.add("modified", "/c", 14, encrypted=True)
    events.add("attributes", "/a", 12, size=5)
    events.add("created", "/b", 13, content=None, size=4, content_whole=True)
    for event in events.list:
        event["observedtime"] = "2026-01-01T00:00:00Z"
    events.list[1]["data"]["content"] = []
    events.list[5]["data"]["content"] = [{"offset": 0, "base64": "bGE="}, {"offset": 2, "text": "st"}]
    scanner = module.Scanner("/nowhere", None)
    with pytest.raises(OSError):
        for event in events.list:
            scanner.take("batch 1", event)
    for batch in ("batch 1", "batch 1", "batch 2"):
        for event in events.list:
            scanner.take(batch, event)
    assert asked == [b"first", b"last", b"first", b"last"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["path"], line["result"], line.get("reason")) for line in lines] == [
        ("/a", "awaited", None), ("/a", "not scanned", "not the whole file"), ("/c", "not scanned", "encrypted")]


def test_virus_scan_finds_what_is_infected(tapwire, memory, mountable, clamd):
    image, ring, sock = memory / "disk.img", memory / "ring", memory / "clamd.sock"
    guestdisk.make_image(image, "64M")
    with Example(memory, "virus-scan.py", "--clamd", sock, "--state", memory / "told") as scanner, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                plugin_args=("ring=%s" % ring,)) as disk, \
            Daemon(tapwire, memory, image, ring, scanner,
                   target=RETRY + "content = full\ncontent_max = 500K") as daemon:
        def put(name, content):
            pathlib.Path(disk.root, name).write_bytes(content)
            disk.sync(name)

        def found(*names):
            assert guestdisk.wait_until(lambda: set(told(scanner)) == {"/" + name for name in names}, 60), (
                told(scanner), scanner.log.read_text(), clamd.log.read_text(), daemon.said())
        with clamd:
            assert guestdisk.wait_until(lambda: answers(sock), 60), clamd.log.read_text()
            put("clean", b"nothing to see\n")
            put("eicar", EICAR)
            far = random.Random(7).randbytes(200000) + b"a marker that nobody has by accident" + b"\0" * 50000
            put("far", far)
            put("large", b"x" * 400000)
            put("larger", b"x" * 600000)
            put("clean2", b"nothing to see, either\n")
            put("eicar2", EICAR)
            found("eicar", "far", "large", "larger", "eicar2")
            scanner.kill()
        scanner.start()
        put("later", EICAR)  # while there is no clamd
        put("clean3", b"nothing\n")
        assert guestdisk.wait_until(lambda: target(tapwire, memory)["last_status"] == 503, 60)
        assert "/later" not in told(scanner)
        with clamd:
            found("eicar", "far", "large", "larger", "eicar2", "later")
            assert guestdisk.wait_until(lambda: target(tapwire, memory)["backlog"] == 0, 60)
            delivered = target(tapwire, memory)["delivered"]
            (memory / "db" / "own.ndb").write_text("New.Nothing:0:0:%s\n" % b"nothing to see\n".hex())
            clamd.kill()
            clamd.start()  # with the signatures of today
            done = tapwire.run("redeliver", "--target", "t", "--since", "1h", "--state", memory / "run")
            assert done.returncode == 0, done.stderr
            found("clean", "eicar", "far", "large", "larger", "eicar2", "later")
            assert guestdisk.wait_until(lambda: target(tapwire, memory)["delivered"] == 2 * delivered, 60)
        got = told(scanner)
        for name, content, signature in (("eicar", EICAR, "Own.Eicar"), ("far", far, "Own.Marker"),
                                         ("later", EICAR, "Own.Eicar")):
            line = got["/" + name]
            assert (line["result"], line["sha256"]) == ("infected", hashlib.sha256(content).hexdigest())
            assert line["signature"].startswith(signature) and line["domain"] == "a" and "/xvda/" in line["volume"]
            assert line["inode"] == os.stat(os.path.join(disk.root, name)).st_ino and line["event"]
        assert got["/clean"]["signature"].startswith("New.Nothing")
        for name, reason in (("large", "INSTREAM size limit exceeded"), ("larger", "larger than content_max")):
            assert got["/" + name]["result"] == "not scanned" and reason in got["/" + name]["reason"]
