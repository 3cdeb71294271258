# SPDX-License-Identifier: BSD-3-Clause
"""A disk through several mounts, power failures and tools, every write to it in one trace."""
import contextlib
import json
import os
import time

from . import crash, guestdisk, property, trace, tree
from .guard import Guard


class Life:
    """directory: scratch space, without another Life in it; image: formatted. .image is the disk as it
    is, .base as it was at first, .records what was written in between."""

    def __init__(self, tapwire, directory, image):
        self.directory = os.fspath(directory)
        self.image = os.fspath(image)
        self.base = os.path.join(self.directory, "base.img")
        self.records, self.syncs, self.offset = [], [], 0
        self._tapwire = tapwire
        self._before = os.path.join(self.directory, "before.img")
        self._trace = os.path.join(self.directory, "trace")
        self._kept = 0
        guestdisk.copy_image(self.image, self.base)

    @contextlib.contextmanager
    def watched(self, *plugin_args):
        """The disk as a file, for tools; every write to it is recorded."""
        guestdisk.copy_image(self.image, self._before)
        self._kept = len(self.records)
        guard = Guard()
        try:
            served = guestdisk.Served(os.path.join(self.directory, "nbd"), [
                "--command", "nbdkit", "-s", "--exit-with-parent", self._tapwire.plugin,
                "file=" + self.image, "record=" + self._trace, *map(str, plugin_args)], guard)
            try:
                yield served.disk
            finally:
                served.close()
        finally:
            guard.close()
        self.records += trace.read(self._trace)
        os.unlink(self._trace)

    @contextlib.contextmanager
    def booted(self, options="", plugin_args=()):
        """The disk as a guest has it: mounted."""
        where = os.path.join(self.directory, "mnt")
        with self.watched(*plugin_args) as disk, guestdisk.mounted(disk, where, options):
            yield where

    def sync(self, root, label=""):
        """Everything to the disk, then remembers what the mount shows."""
        guestdisk.settle(root)
        self.syncs.append(guestdisk.Sync(time.time_ns(), tree.listing(root),
                                         label or "sync %d" % len(self.syncs)))

    def recent(self):
        """The records of the last stretch."""
        return self.records[self._kept:]

    def after(self, cut):
        """A copy of the disk as it is after a cut."""
        copy = os.path.join(self.directory, "copy.img")
        guestdisk.copy_image(self._before, copy)
        trace.play(cut.written(self.recent()), copy)
        return copy

    def power_fails(self, cut):
        """Of the last stretch no more reached the disk than the cut says. What was synced after it is
        forgotten."""
        last = self.recent()
        guestdisk.copy_image(self.after(cut), self.image)
        heard = cut.captured(last)[0]
        self.records[self._kept:] = heard
        if cut.length < len(last):
            until = last[cut.length].clock_ns
            self.syncs = [sync for sync in self.syncs if sync.clock_ns < until]

    def shown(self):
        """What a kernel shows of a copy of the disk, recovering it."""
        copy = os.path.join(self.directory, "copy.img")
        guestdisk.copy_image(self.image, copy)
        with guestdisk.mounted(copy, os.path.join(self.directory, "copy.mnt")) as where:
            return tree.listing(where)

    def events(self):
        lines, error = crash.infer(self._tapwire, self.base, os.path.getsize(self.image),
                                   self.records)
        if error:
            raise AssertionError(error)
        return [json.loads(line) for line in lines]

    def told(self):
        """The tree that the events give."""
        state = self._tapwire.crawl(self.base)
        for event in self.events():
            state.apply(event)
        return state.listing()

    def check(self):
        """The property, at each sync and at the end, which must be a sync's. Returns the events."""
        events = self.events()
        state = property.check_events(self._tapwire, self, events)
        property.check_content(self._tapwire, self, state)
        return events
