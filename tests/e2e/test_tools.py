# SPDX-License-Identifier: BSD-3-Clause
"""What e2fsprogs' tools, mkfs and copies of other images do to a watched disk while it is not mounted; then
the guest mounts it again and goes on."""
import os
import subprocess

import pytest

from lib import guestdisk, property, tree
from lib.layout import Watched, uuid_of
from lib.life import Life
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

DISK = "192M"
CHECK = "e2fsck -fy DISK"


class Tool:
    """mkfs: options of the volume before, of this size; commands: one line each, DISK is the disk and OTHER
    an image with another volume; between two of them the guest mounts the disk when between says so."""

    def __init__(self, *commands, mkfs=(), size="128M", between=False):
        self.commands, self.mkfs, self.size, self.between = commands, mkfs, size, between


# Followed write by write: no resync.
FOLLOWED = {
    "rehashed": Tool("e2fsck -fyD DISK"),
    "rehashed-1k": Tool("e2fsck -fyD DISK", mkfs=("-b", "1024")),
    "label": Tool("tune2fs -L other DISK"),
    "checksums-off": Tool(CHECK, "tune2fs -O ^metadata_csum DISK"),
    "checksums-on": Tool(CHECK, "tune2fs -O metadata_csum DISK", mkfs=("-O", "^metadata_csum")),
    "no-hash-trees": Tool(CHECK, "tune2fs -O ^dir_index DISK", CHECK),
    "large-directories": Tool("tune2fs -O large_dir DISK"),
    "orphan-file": Tool("tune2fs -O orphan_file DISK", "tune2fs -O ^orphan_file DISK", between=True),
    "fast-commits": Tool("tune2fs -O fast_commit DISK", "tune2fs -O ^fast_commit DISK", between=True),
    "mount-options": Tool("tune2fs -o journal_data,acl -e remount-ro DISK"),
    "discarded": Tool("e2fsck -fy -E discard DISK"),
    "extents": Tool("tune2fs -O extent DISK", "e2fsck -fyE bmap2extent DISK", mkfs=("-O", "^extent,^64bit")),
}

# Another volume to a follower, or one of which it missed something: told again, and right.
RESYNCED = {
    "journal-removed": Tool("tune2fs -O ^has_journal DISK"),
    "journal-added": Tool("tune2fs -j DISK", mkfs=("-O", "^has_journal")),
    "journal-removed-and-added": Tool("tune2fs -O ^has_journal DISK", "tune2fs -j DISK", between=True),
    "journal-resized": Tool("tune2fs -O ^has_journal DISK", "tune2fs -J size=16 DISK"),
    "grown": Tool(CHECK, "resize2fs DISK 180M"),
    "grown-1k": Tool(CHECK, "resize2fs DISK", mkfs=("-b", "1024", "-O", "^resize_inode")),
    "shrunk": Tool(CHECK, "resize2fs DISK 70M"),
    "shrunk-and-grown": Tool(CHECK, "resize2fs -M DISK", CHECK, "resize2fs DISK 160M"),
    "other-uuid": Tool(CHECK, "tune2fs -U random DISK"),
    "wide-to-narrow": Tool(CHECK, "resize2fs -s DISK"),
    "inode-size": Tool(CHECK, "tune2fs -I 256 DISK", mkfs=("-I", "128", "-O", "^flex_bg")),
    "inode-size-1024": Tool(CHECK, "tune2fs -I 1024 DISK", mkfs=("-I", "256", "-O", "^flex_bg")),
    "checksum-seed": Tool("tune2fs -O metadata_csum_seed DISK"),
    "narrow-to-wide": Tool(CHECK, "resize2fs -b DISK", mkfs=("-O", "^64bit")),
}

# Of these, those that move no file's blocks.
STAYS = ("journal-removed", "journal-added", "journal-resized", "grown", "narrow-to-wide", "checksum-seed")

# Another volume.
REPLACED = {
    "mkfs": Tool("mke2fs -q -F -t ext4 DISK"),
    "mkfs-same-uuid": Tool("mke2fs -q -F -t ext4 -U UUID DISK"),
    "mkfs-1k": Tool("mke2fs -q -F -t ext4 -b 1024 DISK"),
    "mkfs-discards": Tool("mke2fs -q -F -t ext4 -E discard DISK"),
    "mkfs-ext3": Tool("mke2fs -q -F -t ext3 DISK"),
    "mkfs-ext2": Tool("mke2fs -q -F -t ext2 DISK"),
    "copied": Tool("dd if=OTHER of=DISK bs=1M conv=notrunc,fsync status=none"),
    "copied-sparsely": Tool("e2image -rap OTHER DISK"),
    "wiped-and-made-anew": Tool("wipefs -qa DISK", "mke2fs -q -F -t ext4 DISK"),
}


def populated(directory, name, mkfs, size, seed):
    """An image with a volume of that size, and the mix that filled it."""
    image = directory / name
    guestdisk.run("truncate", "-s", DISK, image)
    guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", *mkfs, image, size)
    with guestdisk.mounted(image, directory / "made") as root:
        mix = mix_on(root, seed, 400)
    return image, mix


def mix_on(root, seed, ops):
    mix = Mix(root, seed, budget=20 << 20, big_dir=400)
    mix.ops(ops)
    mix.close()
    return mix


def run_tool(command, disk, other=None, uuid=None):
    for word, value in (("DISK", disk), ("OTHER", other), ("UUID", uuid)):
        command = command.replace(word, str(value))
    argv = command.split()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # 1 of e2fsck: it has mended something.
    if done.returncode > (argv[0] == "e2fsck"):
        raise RuntimeError("%s: exit %d: %s" % (command, done.returncode, done.stdout.decode(errors="replace")))


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed(tapwire, memory, name):
    tool = FOLLOWED[name]
    image, mix = populated(memory, "disk.img", tool.mkfs, tool.size, 5)
    life = Life(tapwire, memory, image)

    def boot(label):
        with life.booted() as root:
            life.sync(root, "mounted " + label)
            mix.root = os.fsencode(root)
            mix.ops(150, 50, lambda _: life.sync(root))
            mix.close()
            life.sync(root, "worked " + label)
    boot("at first")
    for number, command in enumerate(tool.commands):
        with life.watched() as disk:
            run_tool(command, disk)
        tapwire.follows(image)
        if tool.between or number + 1 == len(tool.commands):
            boot("after " + command)
    life.check()


class Guest:
    """Mounts the disk of a Watched, looks, works, and looks again."""

    def __init__(self, watched, mix):
        self.watched, self.mix = watched, mix

    def boot(self):
        with guestdisk.mounted(self.watched.disk, self.watched.scratch + "/mnt") as root:
            uuid = uuid_of(self.watched.disk)
            self.watched.expect(uuid, root)
            self.mix.root = os.fsencode(root)
            self.mix.ops(150)
            self.mix.close()
            self.watched.expect(uuid, root)


def watch(tapwire, directory, tool, other=None, other_mix=None):
    """Boots, runs the tool's commands, boots; returns the events."""
    image, mix = populated(directory, "disk.img", tool.mkfs, tool.size, 5)
    tapwire.follows(image)
    with Watched(tapwire, directory, image) as watched:
        guest = Guest(watched, mix)
        guest.boot()
        uuid = uuid_of(watched.disk)
        for number, command in enumerate(tool.commands):
            before = len(watched.of_type("disk.resynced"))
            run_tool(command, watched.disk, other, uuid)
            # The resync is over before there is new work, mostly: so that what it tells can be judged.
            guestdisk.wait_until(lambda: len(watched.of_type("disk.resynced")) > before, 3)
            tapwire.follows(image)
            if tool.between and number + 1 < len(tool.commands):
                guest.boot()
        guest.mix = other_mix or guest.mix
        guest.boot()
        events = watched.stop()
    property.expect_equal(tapwire.crawl(image).listing(), watched.listing(uuid_of(image)), "crawl at the end")
    return events


@pytest.mark.slow
@pytest.mark.parametrize("name", RESYNCED)
def test_resynced(tapwire, memory, name):
    events = watch(tapwire, memory, RESYNCED[name])
    # What did not change is not told of.
    files = [event for event in events if event["type"].startswith(tree.PREFIX) and event["data"].get("resync")]
    if name in STAYS:
        assert len({event["data"]["inode"] for event in files}) < 20, files
    assert not [event for event in events if event["type"] == "org.tapwire.volume.lost"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLACED)
def test_replaced(tapwire, memory, name):
    tool = REPLACED[name]
    other, mix = populated(memory, "other.img", ("-b", "2048"), DISK, 6)
    if "OTHER" not in tool.commands[0]:
        mix = Fresh()
    events = watch(tapwire, memory, tool, other, mix)
    # A volume with the uuid of the one before is the same one to whoever knows it by its uuid.
    kinds = [event["type"] for event in events if not event["type"].startswith(tree.PREFIX)]
    # mkfs passes through states in which there is no volume: whoever looks just then loses one and finds one.
    found_anew = "org.tapwire.volume.lost" in kinds and kinds.count("org.tapwire.volume.found") > 1
    assert name == "mkfs-same-uuid" or "org.tapwire.volume.formatted" in kinds or found_anew, kinds


class Fresh:
    """Work on a volume with nothing in it."""
    root = None

    def ops(self, count):
        self._mix = mix_on(self.root, 7, count)

    def close(self):
        pass
