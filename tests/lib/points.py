# SPDX-License-Identifier: BSD-3-Clause
"""The capture points: nbdkit's plugin, and the tapdisk driver in the test host (tests/host). What is here
serves images through either, for tests that hold for both."""
import os
import shutil
import signal
import subprocess

from . import guestdisk, unixsocket
from .guard import Guard

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DRIVER = ("block-tapwire.c", "flights.c", "ring.c", "ring-file.c")


def build_host(directory):
    """The test host as an nbdkit plugin."""
    plugin = os.path.join(directory, "host.so")
    host, ours = os.path.join(TESTS, "host"), os.path.join(os.path.dirname(TESTS), "tapdisk-plugin")
    guestdisk.run(
        "cc", "-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-shared", "-fPIC",
        "-fvisibility=hidden", "-I", ours, "-I", host, "-o", plugin,
        *(os.path.join(host, name) for name in sorted(os.listdir(host)) if name.endswith(".c")),
        *(os.path.join(ours, name) for name in DRIVER), "-laio")
    return plugin


class Server:
    """An nbdkit in the foreground. Use as a context manager. .socket"""

    def __init__(self, directory, name, plugin, *params):
        self.socket = os.path.join(directory, name + ".sock")
        self._log = os.path.join(directory, name + ".log")
        self._argv = ["nbdkit", "-f", "-t", "32", "-U", self.socket, os.fspath(plugin), *map(str, params)]

    def __enter__(self):
        self._guard = Guard()
        with open(self._log, "ab") as log:
            self._proc = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._guard.push("kill", self._proc.pid)
        up = guestdisk.wait_until(
            lambda: unixsocket.listens(self.socket) or self._proc.poll() is not None, 20)
        if not up or self._proc.poll() is not None:
            self._end(signal.SIGKILL)
            raise RuntimeError("%s: %s" % (" ".join(self._argv), self.said()))
        return self

    def __exit__(self, kind, *_exc):
        self._end(signal.SIGTERM if kind is None else signal.SIGKILL)

    def kill(self):
        """In the middle of whatever it does."""
        self._proc.kill()
        self._proc.wait()

    def _end(self, how):
        if self._proc.poll() is None:
            self._proc.send_signal(how)
        try:
            self._proc.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._proc.kill()
            self._proc.wait()
            raise
        finally:
            self._guard.pop()
            self._guard.close()
            if os.path.exists(self.socket):
                os.unlink(self.socket)

    def said(self):
        with open(self._log, "rb") as log:
            return log.read()[-4000:].decode(errors="replace")


class Disk:
    """An image behind a capture point. .uri is what serves it, .ring its ring."""

    def __init__(self, uri, ring, image):
        self.uri, self.ring, self.image = uri, ring, os.fspath(image)


class Nbdkit:
    """One server a disk."""

    name = "nbdkit"

    def __init__(self, tapwire, _host):
        self._plugin = tapwire.plugin

    def serve(self, stack, directory, images, ring_size="64M"):
        for number, image in enumerate(images):
            ring = os.path.join(directory, "ring%d" % number)
            server = stack.enter_context(Server(directory, "disk%d" % number, self._plugin,
                                                "file=%s" % image, "ring=" + ring,
                                                "ring-size=" + ring_size))
            yield Disk("nbd+unix:///?socket=" + server.socket, ring, image)


class Tapdisk:
    """One host for all disks, as one tapdisk may have several."""

    name = "tapdisk"

    def __init__(self, _tapwire, host):
        self._host = host

    def serve(self, stack, directory, images, ring_size="64M", params=()):
        rings = os.path.join(directory, "rings")
        names = ["vm%d" % number for number in range(len(images))]
        os.makedirs(rings)
        server = stack.enter_context(Server(
            directory, "host", self._host, "rings=" + rings, *params,
            *("disk=%s,ring-size=%s:%s" % (name, ring_size, image)
              for name, image in zip(names, images))))
        for name, image in zip(names, images):
            yield Disk("nbd+unix:///%s?socket=%s" % (name, server.socket),
                       os.path.join(rings, name + ".ring"), image)


POINTS = {point.name: point for point in (Nbdkit, Tapdisk)}


class Faulty:
    """A file that is an image which goes wrong, to be put below a capture point: .disk. params: faults, as
    tests/host/nbdkit-host.c names them. Use as a context manager."""

    def __init__(self, host, directory, image, *params):
        self._where = os.path.join(directory, "lower")
        self._args = ["--command", "nbdkit", "-s", "--exit-with-parent", host, *params,
                      "disk=:%s" % image]

    def __enter__(self):
        self._guard = Guard()
        self._served = guestdisk.Served(self._where, self._args, self._guard)
        self.disk = self._served.disk
        return self

    def __exit__(self, *_exc):
        self._served.close()
        self._guard.close()
        shutil.rmtree(self._where, ignore_errors=True)
