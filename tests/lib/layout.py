# SPDX-License-Identifier: BSD-3-Clause
"""A disk with several volumes, watched: its file, which goes through the capture point, and the trees of its
volumes as the events tell them."""
import contextlib
import json
import os
import subprocess
import time

from . import guestdisk
from . import lvm
from . import tree
from .endpoint import Endpoint
from .guard import Guard
from .service import Service

MIB = 1 << 20
# Partitioning tools end with a sync of the whole machine, which may be busy, or stuck, with something else.
QUICK = ("eatmydata",)


def about(event):
    """The uuid of the volume that an event is about, "" for the disk or a volume without one."""
    parts = event["source"].split("/")
    return parts[5] if len(parts) > 5 else ""


def crawled(tapwire, image):
    """{uuid: lines} of a crawl; nothing when no volume can be followed."""
    done = tapwire.run("crawl", image)
    volumes = {}
    for line in done.stdout.splitlines():
        volumes.setdefault(json.loads(line)["volume"], []).append(line)
    return volumes


def found_tree(events):
    """The tree of a volume that was not there before: its root is the first that is told of."""
    for event in events:
        if event["type"].startswith(tree.PREFIX) and event["subject"] == "/":
            return tree.Tree.from_crawl([json.dumps({**event["data"], "path": "/"}).encode()])
    return None


class Watched:
    """A service that watches an image, which is .disk below it. Use as a context manager."""

    def __init__(self, tapwire, scratch, image, *args):
        self.tapwire = tapwire
        self.scratch = os.fspath(scratch)
        self.image = os.fspath(image)
        self.base = os.path.join(self.scratch, "base.img")
        self._args = args
        self._stack = contextlib.ExitStack()
        self._base = None
        self._served = None
        self._count = 0

    def __enter__(self):
        guestdisk.copy_image(self.image, self.base)
        self._base = crawled(self.tapwire, self.base)
        with contextlib.ExitStack() as stack:
            self.guard = Guard()
            stack.callback(self.guard.close)
            self.endpoint = stack.enter_context(Endpoint(self.scratch))
            self.service = stack.enter_context(
                Service(self.tapwire, self.scratch, self.image, self.endpoint, *self._args))
            self._served = guestdisk.Served(os.path.join(self.scratch, "nbd"), ["--unix", self.service.socket],
                                            self.guard)
            stack.callback(self.close_disk)
            self.disk = self._served.disk
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def close_disk(self):
        """The guest is gone, the service goes on."""
        served, self._served = self._served, None
        if served:
            served.close()

    def _directory(self, what):
        self._count += 1
        return os.path.join(self.scratch, "%s%d" % (what, self._count))

    @contextlib.contextmanager
    def partition(self, offset, size=0):
        """A partition as a device."""
        limit = ["--sizelimit", size] if size else []
        loop = guestdisk.run("losetup", "-f", "--show", "--offset", offset, *limit, self.disk)
        self.guard.push("losetup", "-d", loop)
        try:
            yield loop
        finally:
            guestdisk.run("blockdev", "--flushbufs", loop)
            guestdisk.detach(loop)
            self.guard.pop()

    @contextlib.contextmanager
    def logical(self, parts):
        """A logical volume as a file."""
        with lvm.mapped(self.disk, parts, self._directory("lv"), self.guard) as device:
            yield device

    @contextlib.contextmanager
    def mounted(self, device):
        """A loop device is mounted itself: another one over it would write through this one's cache, in pages."""
        where = self._directory("mnt")
        if not device.startswith("/dev/loop"):
            with guestdisk.mounted(device, where, guard=self.guard) as root:
                yield root
            return
        os.makedirs(where)
        self.guard.push("umount", "-l", where)
        guestdisk.run("mount", "-t", "ext4", device, where)
        try:
            yield where
        finally:
            guestdisk.run("umount", where)
            self.guard.pop()

    def group(self, ranges):
        return lvm.Group(self.disk, ranges, self.guard)

    # --- what has arrived ---

    def of_type(self, kind):
        return [event for event in self.endpoint.events() if event["type"] == "org.tapwire." + kind]

    def reasons(self, kind="volume.found"):
        return [event["data"].get("reason", "") for event in self.of_type(kind)]

    def listing(self, uuid):
        """The tree of a volume as the events give it, or None."""
        events = [event for event in self.endpoint.events() if about(event) == uuid]
        if uuid in self._base:
            state = tree.Tree.from_crawl(self._base[uuid])
        else:
            state = found_tree(events)
            if state is None:
                return None
        for event in events:
            state.apply(event)
        return state.listing()

    def expect(self, uuid, root, seconds=30):
        """The events of a volume come to what its mount shows."""
        guestdisk.settle(root)
        shown = tree.listing(root)
        if guestdisk.wait_until(lambda: self._soon(lambda: self.listing(uuid) == shown), seconds):
            return
        got = self.listing(uuid)
        lines = tree.diff(shown, got) if got is not None else ["the volume was not found"]
        raise AssertionError("\n  ".join(["against find:", *lines, self.service.said()]))

    def expect_event(self, kind, test=lambda event: True, seconds=30):
        """Until an event of that kind has come; returns it."""
        def came():
            return self._soon(lambda: any(map(test, self.of_type(kind))))
        assert guestdisk.wait_until(came, seconds), "%s\n%s" % (self.service.said(), self.of_type(kind))
        return next(event for event in self.of_type(kind) if test(event))

    @staticmethod
    def _soon(condition):
        time.sleep(0.1)
        return condition()

    def stop(self):
        """The service ends, and the receiver has found nothing wrong."""
        self.service.stop()
        self.endpoint.finish()
        events = self.endpoint.events()
        tree.check_sequence(events)
        return events


def uuid_of(device):
    return guestdisk.run("blkid", "-p", "-s", "UUID", "-o", "value", device)


def partition_table(path, script):
    """sfdisk's input, one partition a line."""
    options = ["-q", "--no-reread", "--no-tell-kernel", "-w", "never", "-W", "never"]
    done = subprocess.run([*QUICK, "sfdisk", *options, path],
                          input=script.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise RuntimeError("sfdisk: " + done.stdout.decode())
