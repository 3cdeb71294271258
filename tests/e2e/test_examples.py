# SPDX-License-Identifier: BSD-3-Clause
"""The receivers in examples/: short, and they do what they say."""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(ROOT / "tests" / "receiver"))
import link  # noqa: E402
from lab import PYTHON, Lab, wait_for  # noqa: E402
from tls import free_port  # noqa: E402


@pytest.fixture
def lab(build, scratch):
    with Lab(build, scratch) as it:
        yield it


def start(lab, name, *args):
    """An example at the lab's port; what it prints goes to the file that is returned."""
    lab.port = lab.port or free_port()
    out = lab.dir / f"{name}.out"
    with open(out, "ab") as file:
        lab.receiver = lab.spawn([PYTHON, EXAMPLES / name, "--secret-file", lab.secret, "--port", str(lab.port), *args],
                                 stdout=file, stderr=file)
    return out


def lines(out):
    return out.read_text().splitlines() if out.exists() else []


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_an_example_is_short_and_has_help(path):
    assert len(path.read_text().splitlines()) < 150 and os.access(path, os.X_OK)
    done = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=30, check=True)
    assert "--secret-file" in done.stdout


def test_verify_and_print(lab):
    out = start(lab, "verify-and-print.py", "--state", lab.dir / "taken")
    lab.configure(batch_events=7, retry_max_ms=50)
    lab.start_courier()
    lab.feed(100)
    wait_for(lambda: lab.target()["backlog"] == 0)
    lab.receiver.kill()
    lab.receiver.wait()
    lab.kill_courier()
    start(lab, "verify-and-print.py", "--state", lab.dir / "taken")
    lab.start_courier()
    lab.feed(200)
    wait_for(lambda: lab.target()["backlog"] == 0)
    said = lines(out)
    assert [int(re.search(r"/file-(\d+)$", line).group(1)) for line in said] == list(range(1, 201))
    assert all(" file.modified " in line for line in said)
    lab.secret.write_text("whsec_" + "QUFB" * 8 + "\n")  # the courier has another one from now on
    lab.kill_courier()
    lab.start_courier()
    lab.feed(201)
    wait_for(lambda: lab.target()["last_status"] == 401)
    assert len(lines(out)) == 200


def test_verify_and_print_says_what_is_missing(lab):
    state = lab.dir / "taken"
    out = start(lab, "verify-and-print.py", "--state", state)
    lab.configure(batch_events=5, retry_max_ms=50)
    lab.start_courier()
    lab.feed(20)
    wait_for(lambda: lab.target()["backlog"] == 0)
    [(epoch, last)] = json.loads(state.read_text()).items()
    assert last > 2
    lab.receiver.kill()
    lab.receiver.wait()
    state.write_text(json.dumps({epoch: 2}))  # as if the others had been lost on their way
    start(lab, "verify-and-print.py", "--state", state)
    lab.feed(25)
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert [line for line in lines(out) if line.startswith("!")] == \
        [f"! batches between 2 and {last + 1} of {epoch} are missing"]


# --- file integrity ---

SOURCE = "/xen/testhost/guest/xvda"
FILES = {"etc/passwd": "root:x:0:0", "etc/ssh/sshd_config": "Port 22", "usr/bin/env": "#!", "boot/vmlinuz": "kernel",
         "home/me/notes": "none of its business"}


@pytest.fixture
def baseline(build, scratch):
    """What tapwire crawl says of an image with these files."""
    tree = scratch / "tree"
    for name, content in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
        (tree / name).chmod(0o644)
    image = scratch / "disk.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "8M"], check=True)
    path = scratch / "baseline.ndjson"
    with open(path, "wb") as file:
        subprocess.run([build / "tapwire", "crawl", image], stdout=file, check=True)
    return path


class Guest:
    """Sends events of one disk."""

    def __init__(self, lab):
        self.sock = link.connect(str(lab.socket))
        self.sock.sendall(link.hello("e", SOURCE))
        self.reader = link.Reader(self.sock)
        self.last = self.reader.read()[2]

    def says(self, event_type, path, **data):
        self.last += 1
        number = link.TYPES.index("file." + event_type)
        event = json.loads(link.event("e", SOURCE, self.last, number, path=path))
        event["data"].update(data)
        self.sock.sendall(link.frame(link.EVENT, json.dumps(event).encode(), self.last, number))
        while self.reader.read()[2] < self.last:
            pass


def test_file_integrity(lab, baseline):
    out = start(lab, "file-integrity.py", "--baseline", baseline)
    lab.configure(retry_max_ms=50)
    lab.start_courier()
    guest = Guest(lab)
    same = {"kind": "file", "mode": "0644", "uid": 0, "gid": 0}
    guest.says("modified", "/home/me/notes", **same, size=1)
    guest.says("attributes", "/etc/passwd", **{**same, "mode": "0666"}, size=10)
    guest.says("modified", "/etc/passwd", **{**same, "mode": "0666"}, size=10, ranges=[[0, 10]])
    guest.says("created", "/usr/bin/backdoor", **{**same, "mode": "4755"}, size=99, ranges=[[0, 99]])
    guest.says("deleted", "/usr/bin/env", **same, size=2)
    guest.says("renamed", "/tmp/vmlinuz", **same, size=6, old_path="/boot/vmlinuz")
    guest.says("renamed", "/etc/sshd", **{**same, "kind": "dir", "mode": "0755"}, size=1024, old_path="/etc/ssh")
    guest.says("attributes", "/etc/ssh", **same)
    guest.says("renamed", "/boot/vmlinuz", **same, size=6, old_path="/tmp/vmlinuz")
    wait_for(lambda: lab.target()["backlog"] == 0)
    alerts = [json.loads(line) for line in lines(out)]
    said = [(a["alert"], a["path"], a.get("changed")) for a in alerts]
    assert said == [
        ("changed", "/etc/passwd", ["mode"]),
        ("changed", "/etc/passwd", ["mode", "content"]),
        ("new", "/usr/bin/backdoor", None),
        ("gone", "/usr/bin/env", None),
        ("gone", "/boot/vmlinuz", None),
        ("gone", "/etc/ssh", None),
        ("new", "/etc/sshd", None),
        ("changed", "/etc/ssh", ["kind", "mode", "size"]),
        ("restored", "/boot/vmlinuz", None),
    ]
    assert alerts[0]["was"]["mode"] == "0644" and alerts[0]["is"]["mode"] == "0666"


def test_file_integrity_knows_a_file_by_its_digest(lab, baseline):
    """It is written to, is something else, and then what it was."""
    was = hashlib.sha256(FILES["etc/passwd"].encode()).hexdigest()
    digests = lab.dir / "digests"
    digests.write_text("%s  /etc/passwd\n%s  /boot/vmlinuz\n" % (was, "0" * 64))
    out = start(lab, "file-integrity.py", "--baseline", baseline, "--digests", digests)
    lab.configure(sha256="yes")
    lab.start_courier()
    guest = Guest(lab)
    facts = {"kind": "file", "mode": "0644", "uid": 0, "gid": 0, "size": len(FILES["etc/passwd"])}
    guest.says("settled", "/etc/passwd", **facts, sha256=was)
    guest.says("modified", "/etc/passwd", **facts, ranges=[[0, 10]])
    guest.says("settled", "/etc/passwd", **facts, sha256="1" * 64)
    guest.says("modified", "/etc/passwd", **facts, ranges=[[0, 10]])
    guest.says("settled", "/etc/passwd", **facts, sha256_left_out="too_large")
    guest.says("settled", "/etc/passwd", **facts, sha256=was)
    wait_for(lambda: lab.target()["backlog"] == 0)
    said = [(alert["alert"], alert["path"]) for alert in map(json.loads, lines(out))]
    assert said == [("changed", "/etc/passwd"), ("changed", "/etc/passwd"), ("restored", "/etc/passwd")]


def test_file_integrity_alerts_once_when_a_batch_comes_twice(lab, build, baseline):
    out = start(lab, "file-integrity.py", "--baseline", baseline)
    lab.configure()
    lab.start_courier()
    guest = Guest(lab)
    guest.says("deleted", "/etc/passwd", kind="file")
    wait_for(lambda: lab.target()["backlog"] == 0)
    time.sleep(0.05)
    subprocess.run([build / "tapwire", "redeliver", "--target", "t", "--since", "1h", "--state", lab.dir],
                   check=True)
    wait_for(lambda: lab.target()["delivered"] == 2)
    assert len(lines(out)) == 1
