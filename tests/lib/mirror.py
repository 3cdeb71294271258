# SPDX-License-Identifier: BSD-3-Clause
"""A tapdisk with a mirror: a stand-in for machines without one, and the real one; and `tapwire attach`."""
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import time

from . import guestdisk, tapdisk, unixsocket
from .guard import Guard
from .service import Service

PLUGIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mirror-plugin.c")
# Speaks with the plugin in place of tap-ctl.
TOOL = """#!/usr/bin/python3
import re, socket, sys
words = sys.argv[1:]
line = " ".join(words[:1] + [word for word in words[1:] if word == "-2" or word.startswith(("nbd:", "null"))])
with socket.socket(socket.AF_UNIX) as control:
    try:
        control.connect(%r)
    except OSError:
        sys.exit(0 if words[0] == "list" else 1)
    control.sendall(line.encode() + b"\\n")
    said = control.makefile().readline().strip()
print(said)
sys.exit(said == "error")
"""


def allocate(image):
    """Without holes: what a mirror may be put to."""
    with open(image, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.path.getsize(image))


class StandIn:
    """tests/lib/mirror-plugin.c. Use as a context manager. .socket: what the guest's disk is; .tap_ctl: the
    program; .target: PID:MINOR."""

    def __init__(self, directory, image, lag_ms=0):
        directory = os.fspath(directory)
        self.socket = os.path.join(directory, "tapdisk.sock")
        self.tap_ctl = os.path.join(directory, "tap-ctl")
        self._control = os.path.join(directory, "tapdisk.control")
        self._plugin = os.path.join(directory, "mirror-plugin.so")
        self._argv = ["nbdkit", "-f", "-U", self.socket, self._plugin, "image=%s" % image,
                      "control=%s" % self._control, "lag=%d" % lag_ms]
        self._log = os.path.join(directory, "tapdisk.log")

    def __enter__(self):
        guestdisk.run("cc", "-shared", "-fPIC", "-O1", "-o", self._plugin, PLUGIN)
        with open(self.tap_ctl, "w", encoding="utf-8") as tool:
            tool.write(TOOL % self._control)
        os.chmod(self.tap_ctl, stat.S_IRWXU)
        self._guard = Guard()
        for path in (self.socket, self._control):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with open(self._log, "ab") as log:
            self._proc = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._guard.push("kill", self._proc.pid)
        assert guestdisk.wait_until(lambda: unixsocket.listens(self.socket), 20), self._log
        self.target = "%d:0" % self._proc.pid
        return self

    def __exit__(self, *_exc):
        self._proc.kill()
        self._proc.wait()
        self._guard.pop()
        self._guard.close()

    def ask(self, line):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(self._control)
            control.sendall(line.encode() + b"\n")
            return control.makefile().readline().strip()

    def mirrored(self):
        return self.ask("stats").split()[0] == "1"

    def pause(self):
        assert self.ask("pause") == "ok"

    def unpause(self):
        assert self.ask("unpause") == "ok"


class Tapdisk:
    """The real one, built elsewhere: program and tap_ctl are paths. As StandIn."""

    def __init__(self, directory, image, program, tap_ctl):
        self.tap_ctl = tap_ctl
        self._image = os.fspath(image)
        self._process = tapdisk.Process(program, tap_ctl, directory)
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._process)
            self.disk = tapdisk.Disk(self._process)
            stack.callback(self.disk.release)
            self.disk.open("aio:" + self._image)
            self._stack = stack.pop_all()
        self.socket = self.disk.socket
        self.target = "%d:%d" % (self._process.pid, self.disk.minor)
        return self

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def mirrored(self):
        return len(self.disk.images()) == 2

    def pause(self):
        self.disk.pause()

    def unpause(self):
        self.disk.unpause()


class Attached(Service):
    """`tapwire attach` to a tapdisk; as Service. disk: the words that name it, if not the image and the tapdisk."""

    def __init__(self, tapwire, directory, image, endpoint, backend, *args, disk=None):
        super().__init__(tapwire, directory, image, endpoint)
        self._tapwire = tapwire
        self._state = os.path.join(self.directory, "state")
        disk = disk or [os.fspath(image), "--tapdisk", backend.target]
        self._argv = [tapwire.program, "attach", *disk, "--tap-ctl", backend.tap_ctl, "--post", endpoint.url,
                      "--secret-file", endpoint.secret, "--state", self._state, "--linger", "120", *map(str, args)]

    def status(self):
        """Of the disk; {} while nobody answers."""
        done = self._tapwire.run("status", "--json", "--state", self._state, timeout=20)
        try:
            return json.loads(done.stdout)["service"]["disks"][0]
        except (ValueError, LookupError, TypeError):
            return {}

    def wait_live(self, sessions=1, seconds=60):
        """Until so many sessions have begun and the last one is followed."""
        def live():
            status = self.status()
            return status.get("live") and status["mirror"]["sessions"] >= sessions and \
                status["inspector"].get("state") == "live"
        assert guestdisk.wait_until(live, seconds), "%r\n%s" % (self.status(), self.said())

    def hurt(self, how):
        """A signal to the sink, and until another one has taken its place."""
        sessions = self.status()["mirror"]["sessions"]
        os.kill(self.pid("nbdkit"), how)
        start = time.monotonic()
        self.wait_live(sessions + 1)
        return time.monotonic() - start
