# SPDX-License-Identifier: BSD-3-Clause
"""Journals of every kind, and none, under a real kernel's mount."""
import os
import random

import pytest

from lib import guestdisk, property, tree
from lib.calls import KEEP_SIZE, PUNCH_HOLE, fallocate, sync_fs
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")


def made(scratch, *mkfs, size="256M", fstype="ext4"):
    image = scratch / "disk.img"
    guestdisk.make_image(image, size, mkfs, fstype=fstype)
    return image


# --- fast commits ---

# What only the next full commit says of a directory.
OF_DIRECTORIES = ("size", "nlink", "mtime", "ctime")


def without_directories(listing):
    """A listing in which directories have no times, sizes and links."""
    return {path: fields | dict.fromkeys(OF_DIRECTORIES) if fields["kind"] == "dir" else fields
            for path, fields in listing.items()}


class Fsynced:
    """Files that one process changes and fsyncs, one after the other."""

    def __init__(self, root, seed):
        self.root = root
        self.dice = random.Random(seed)
        self.files, self.made = [], 0
        self.directories = [root]
        self.canary = os.open(os.path.join(root, "canary"), os.O_RDWR | os.O_CREAT)

    def close(self):
        os.close(self.canary)

    def _new(self):
        self.made += 1
        return os.path.join(self.dice.choice(self.directories),
                            "name-%d-%s" % (self.made, "x" * self.dice.randrange(40)))

    def _fsync(self, path):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def _fsync_canary(self):
        os.pwrite(self.canary, b"%d" % self.made, self.made % 9000)
        os.fsync(self.canary)

    def create(self):
        path = self._new()
        with open(path, "wb") as file:
            file.write(self.dice.randbytes(self.dice.randrange(30000)))
        self.files.append(path)
        self._fsync(path)

    def write(self):
        path = self.dice.choice(self.files)
        with open(path, "r+b") as file:
            file.seek(self.dice.randrange(300000))
            file.write(self.dice.randbytes(self.dice.randrange(1, 20000)))
        self._fsync(path)

    def truncate(self):
        path = self.dice.choice(self.files)
        os.truncate(path, self.dice.randrange(60000))
        self._fsync(path)

    def punch(self):
        path = self.dice.choice(self.files)
        descriptor = os.open(path, os.O_RDWR)
        fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, self.dice.randrange(9) * 4096, 4096)
        os.fsync(descriptor)
        os.close(descriptor)

    def chmod(self):
        path = self.dice.choice(self.files)
        os.chmod(path, self.dice.choice((0o600, 0o644, 0o755)))
        self._fsync(path)

    def rename(self):
        path, new = self.files.pop(self.dice.randrange(len(self.files))), self._new()
        os.rename(path, new)
        self.files.append(new)
        self._fsync_canary()

    def replace(self):
        path = self.files.pop(self.dice.randrange(len(self.files)))
        os.rename(path, self.dice.choice(self.files) if self.files else self._new())
        self.files = [name for name in self.files if os.path.exists(name)]
        self._fsync_canary()

    def link(self):
        path, new = self.dice.choice(self.files), self._new()
        os.link(path, new)
        self.files.append(new)
        self._fsync_canary()

    def symlink(self):
        path = self._new()
        os.symlink("to-%d" % self.made, path)
        self._fsync_canary()

    def mkdir(self):
        path = self._new()
        os.mkdir(path)
        self.directories.append(path)
        self._fsync_canary()

    def unlink(self):
        os.unlink(self.files.pop(self.dice.randrange(len(self.files))))
        self._fsync_canary()

    def step(self):
        few = len(self.files) < 8
        kind = "create" if few else self.dice.choice(
            ("create", "create", "write", "write", "truncate", "chmod", "rename", "replace", "link",
             "symlink", "mkdir", "unlink", "unlink", "punch"))
        getattr(self, kind)()
        return kind


def fast_commits(root):
    """How many fast commits the kernel made, and how many of its commits could not be fast."""
    device = os.path.basename(guestdisk.run("findmnt", "-n", "-o", "SOURCE", root))
    with open("/proc/fs/ext4/%s/fc_info" % device, encoding="ascii") as info:
        words = info.read().split()
    return int(words[2])


def check_fsyncs(tapwire, disk, fsyncs):
    """After each fsync, what came of it is told; and at each sync, everything."""
    events = property.check(tapwire, disk)
    state, left = tapwire.crawl(disk.base), events
    for clock, listing, what in fsyncs:
        left = property.apply_until(state, left, clock)
        property.expect_equal(without_directories(listing), without_directories(state.listing()),
                              "after the fsync of " + what)
    return events


@pytest.mark.parametrize("layout", ["4k", pytest.param("1k", marks=pytest.mark.slow)])
def test_each_fsync_is_told_at_once(tapwire, scratch, seed, layout):
    image = made(scratch, "-O", "fast_commit", *(("-b", "1024") if layout == "1k" else ()))
    fsyncs = []
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin, options="commit=300") as disk:
        disk.sync("start")
        work = Fsynced(disk.root, seed)
        for i in range(300):
            what = work.step()
            fsyncs.append((guestdisk.time.time_ns(), tree.listing(disk.root), "%d, %s" % (i, what)))
            if i % 100 == 99:
                disk.sync("step %d" % i)
        work.close()
        disk.sync("end")
        fast = fast_commits(disk.root)
    assert fast > 150, "the kernel made %d fast commits only" % fast
    check_fsyncs(tapwire, disk, fsyncs)


test_each_fsync_is_told_at_once.seeds = [1]


# --- no journal ---

NO_JOURNAL = {
    "ext2": ("ext2", (), ""),
    "ext2-1k-128": ("ext2", ("-b", "1024", "-I", "128"), ""),
    "ext4": ("ext4", ("-O", "^has_journal"), ""),
    "ext4-1k": ("ext4", ("-b", "1024", "-O", "^has_journal"), ""),
    "ext4-no-extents": ("ext4", ("-O", "^has_journal,^extent,^64bit"), ""),
    "ext4-inline": ("ext4", ("-O", "^has_journal,inline_data"), ""),
}


@pytest.mark.parametrize("name", [
    name if name == "ext4" else pytest.param(name, marks=pytest.mark.slow) for name in NO_JOURNAL])
def test_without_a_journal(tapwire, scratch, seed, name):
    """At each sync, all is told; and nothing that did not happen ever is."""
    fstype, mkfs, options = NO_JOURNAL[name]
    image = made(scratch, *mkfs, fstype=fstype)
    kinds = [kind for kind in Mix.WEIGHTS if "no-extents" not in name and fstype != "ext2"
             or kind not in ("allocate", "shift", "zero", "sparse")]
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin, options=options) as disk:
        sync_twice(disk, "start")
        mix = Mix(disk.root, seed, kinds)
        mix.ops(2000, 150, lambda done: sync_twice(disk, "operation %d" % done))
        mix.close()
        sync_twice(disk, "end")
    property.check(tapwire, disk)


test_without_a_journal.seeds = [1]


def sync_twice(disk, label):
    """Without a journal, Linux flushes before it writes the metadata of a sync."""
    sync_fs(disk.root)
    disk.sync(label)


# --- journals that are elsewhere ---

def test_an_external_journal_is_named_and_refused(tapwire, scratch):
    image = made(scratch, size="64M")
    guestdisk.run("debugfs", "-w", "-R", "set_super_value journal_inum 0", image)
    done = tapwire.run("crawl", image)
    assert done.returncode != 0
    assert b"journal_dev" in done.stderr


def test_a_journal_that_is_a_file(tapwire, scratch):
    """tune2fs makes it so on a mounted volume; it is a file of the root, and no file's content."""
    image = made(scratch, "-O", "^has_journal")
    with guestdisk.mounted(image, scratch / "made") as root:
        with open(os.path.join(root, "before"), "wb") as file:
            file.write(b"x" * 100000)
        loop = guestdisk.run("findmnt", "-n", "-o", "SOURCE", root)
        guestdisk.run("tune2fs", "-j", loop)
        sync_fs(root)
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin) as disk:
        disk.sync("start")
        assert os.path.exists(os.path.join(disk.root, ".journal"))
        mix = Mix(disk.root, 4)
        mix.ops(400, 100, lambda done: disk.sync("operation %d" % done))
        mix.close()
        disk.sync("end")
    # Its content, which no event tells of, is the journal's.
    events = tapwire.infer(disk.base, disk.trace)
    property.check_events(tapwire, disk, events)
    assert any(event["data"].get("transaction") for event in events)


def test_data_that_went_through_the_log_is_told_once(tapwire, scratch):
    """Its checkpoint changes nothing (data=journal); what is written over it does."""
    image = made(scratch, size="64M")
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin, options="data=journal") as disk:
        path = os.path.join(disk.root, "file")
        with open(path, "wb") as file:
            file.write(b"x" * 100)
        disk.sync("made")
        with open(path, "r+b") as file:
            file.write(b"y" * 50)
        disk.sync("changed")
    events = tapwire.infer(disk.base, disk.trace)
    told = [event["type"].rsplit(".", 1)[1] for event in events if event.get("subject") == "/file"]
    assert told == ["created", "modified"]
    property.check_events(tapwire, disk, events)
