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
        self._guard = Guard()
        self._proc = None

    def start(self):
        with open(self.out, "ab") as out, open(self.log, "ab") as log:
            self._proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        self._guard.push("kill", self._proc.pid)

    def kill(self):
        self._proc.send_signal(signal.SIGKILL)
        self._proc.wait()
        self._guard.pop()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exc):
        self.kill()
        self._guard.close()


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
            Daemon(tapwire, memory, image, ring, follower, target=RETRY + "paths = /log/**\ncontent = append") as daemon:
        logs = Logs(disk.root, 11)
        for turn in range(8):
            logs.work(80)
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
