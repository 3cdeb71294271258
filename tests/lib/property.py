# SPDX-License-Identifier: BSD-3-Clause
"""The property: the events of a trace, applied in order to the crawl of the base image, give the
tree of the final image, and at every sync in between the tree that the mount showed."""
import json
import os
import subprocess

from . import guestdisk
from . import tree

CHUNK = 1 << 20
SECTOR = 512


class Tapwire:
    """The built programs."""

    def __init__(self, build):
        self.build = os.fspath(build)
        self.program = os.path.join(self.build, "tapwire")
        self.plugin = os.path.join(self.build, "nbdkit-tapwire-plugin.so")

    def run(self, *args, timeout=300, **kwargs):
        """Runs `tapwire ARGS` and returns what subprocess.run returns, with bytes."""
        argv = [self.program, *(os.fspath(arg) for arg in args)]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout, **kwargs)

    def _lines(self, *args):
        done = self.run(*args)
        if done.returncode != 0:
            raise AssertionError("tapwire %s: exit %d: %s" % (
                " ".join(map(str, args)), done.returncode, done.stderr.decode(errors="replace")))
        return done.stdout.splitlines()

    def follows(self, image):
        """Fails when the volume is refused by name: every feature that the tests make is followed."""
        done = self.run("crawl", image)
        assert done.returncode != os.EX_UNAVAILABLE, done.stderr.decode(errors="replace").strip()

    def crawl(self, image):
        return tree.Tree.from_crawl(self._lines("crawl", image))

    def infer(self, base, trace, *options):
        """The events of a trace, as the CloudEvents that a target would get."""
        return [json.loads(line) for line in self._lines("infer", "--disk", base, "--trace", trace, *options)]


def expect_equal(expected, actual, what):
    lines = tree.diff(expected, actual)
    if lines:
        raise AssertionError("%s:\n  %s" % (what, "\n  ".join(lines)))


def apply_until(state, events, clock_ns):
    """Applies the leading events that were observed up to a clock; returns those that are left."""
    taken = 0
    while taken < len(events) and tree.rfc3339(events[taken]["observedtime"]) <= clock_ns:
        state.apply(events[taken])
        taken += 1
    return events[taken:]


def check_events(tapwire, disk, events):
    """Replays events over the base's crawl and compares at each sync and with the final image.

    Returns the tree. disk: a GuestDisk that has been left; its first sync is the state before any
    work."""
    tree.check_sequence(events)
    state = tapwire.crawl(disk.base)
    left = events
    for sync in disk.syncs:
        left = apply_until(state, left, sync.clock_ns)
        expect_equal(sync.listing, state.listing(), "at %s" % sync.label)
    for event in left:
        state.apply(event)
    final = tapwire.crawl(disk.image).listing()
    expect_equal(disk.syncs[-1].listing, final, "crawl of the final image, against find")
    expect_equal(final, state.listing(), "events at the end, against the crawl of the final image")
    return state


def check_crawl(tapwire, disk):
    """The crawl of the base is what find showed before any work."""
    expect_equal(disk.syncs[0].listing, tapwire.crawl(disk.base).listing(),
                 "crawl of the base, against find")


def check(tapwire, disk):
    """The whole property of a recorded disk. Returns the events."""
    check_crawl(tapwire, disk)
    events = tapwire.infer(disk.base, disk.trace)
    state = check_events(tapwire, disk, events)
    check_content(tapwire, disk, state)
    return events


# --- ranges ---

def check_content(tapwire, disk, state):
    """Every changed sector of a regular file lies in the ranges of its events: against the base for
    a file that was there, against zeroes for a new one."""
    before = tapwire.crawl(disk.base).paths()
    after = state.paths()
    with guestdisk.mounted(disk.base, disk.directory + "/base.mnt", "ro", disk.offset,
                           readonly=True) as old_root, \
            guestdisk.mounted(disk.image, disk.directory + "/final.mnt", "ro", disk.offset,
                              readonly=True) as new_root:
        wrong = []
        for key in after:
            old = os.fsencode(old_root) + before[key] if key in before else None
            new = os.fsencode(new_root) + after[key]
            bare = uncovered(changed_sectors(old, new), state.ranges.get(key, []))
            if bare:
                wrong.append("%r (inode %d, %s the base): changed but in no range: %s" % (
                    after[key], key[0], "in" if old else "not in", brief_ranges(bare)))
        if wrong:
            raise AssertionError("\n".join(wrong[:20]))


def brief_ranges(ranges):
    text = ", ".join("[%d,%d]" % (start, end - start) for start, end in ranges[:8])
    return text + (", and %d more" % (len(ranges) - 8) if len(ranges) > 8 else "")


def data_segments(descriptor, size):
    """[start, end) of what is not a hole."""
    segments, at = [], 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        segments.append((start, at))
    return segments


def join(ranges):
    """Sorted, overlapping or adjacent ones made one."""
    joined = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def changed_sectors(old, new):
    """[start, end) of what differs, within each sector from its first to its last byte.
    Beyond its end a file is zeroes, and what the new one has lost at its end does not count.
    old None: zeroes."""
    new_fd = os.open(new, os.O_RDONLY)
    old_fd = os.open(old, os.O_RDONLY) if old else None
    try:
        size = os.fstat(new_fd).st_size
        spans = data_segments(new_fd, size)
        if old_fd is not None:
            spans += data_segments(old_fd, min(os.fstat(old_fd).st_size, size))
        changed = []
        for start, end in join(spans):
            for at in range(start, end, CHUNK):
                changed += _changed_chunk(old_fd, new_fd, at, min(CHUNK, end - at))
        return join(changed)
    finally:
        os.close(new_fd)
        if old_fd is not None:
            os.close(old_fd)


def _changed_chunk(old_fd, new_fd, at, length):
    new = os.pread(new_fd, length, at)
    old = os.pread(old_fd, len(new), at) if old_fd is not None else b""
    old = old.ljust(len(new), b"\0")
    if new == old:
        return []
    return [_differing(old, new, at, i) for i in range(0, len(new), SECTOR)
            if new[i:i + SECTOR] != old[i:i + SECTOR]]


def _differing(old, new, at, i):
    """From the first to the last byte that differs in a sector: the file may have ended in it."""
    bytes_differ = [k for k in range(i, min(i + SECTOR, len(new))) if new[k] != old[k]]
    return at + bytes_differ[0], at + bytes_differ[-1] + 1


def uncovered(changed, ranges):
    """What of [start, end) pairs no [offset, length] pair covers, by bytes."""
    cover = join((offset, offset + length) for offset, length in ranges)
    bare, i = [], 0
    for start, end in changed:
        while start < end:
            while i < len(cover) and cover[i][1] <= start:
                i += 1
            if i == len(cover) or cover[i][0] >= end:
                bare.append((start, end))
                break
            if cover[i][0] > start:
                bare.append((start, cover[i][0]))
            start = cover[i][1]
    return join(bare)
