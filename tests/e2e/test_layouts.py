# SPDX-License-Identifier: BSD-3-Clause
"""Where volumes are on a disk: logical volumes, logical partitions, several volumes, and all of that changed
while it is watched."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from lib import guestdisk, layout, lvm, property, tree
from lib.guard import Guard
from lib.layout import MIB, QUICK, Watched, partition_table, uuid_of
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def make_image(scratch, size, name="disk.img"):
    image = pathlib.Path(scratch, name)
    guestdisk.run("truncate", "-s", size, image)
    return image


@pytest.fixture
def lvm2():
    reason = lvm.missing()
    if reason:
        pytest.skip("no logical volumes here: " + reason)


class Prepared:
    """An image before it is watched."""

    def __init__(self, scratch, image):
        self.scratch, self.image = scratch, image
        self.guard = Guard()
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.guard.close()

    def group(self, ranges):
        return lvm.Group(self.image, ranges, self.guard)

    def _directory(self):
        self.count += 1
        return os.path.join(self.scratch, "prepared%d" % self.count)

    def fill(self, device, *mkfs, seed=1, ops=150):
        """A file system with some files; its uuid."""
        guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", *mkfs, device)
        with guestdisk.mounted(device, self._directory(), guard=self.guard) as root:
            work(root, seed, ops)
        return uuid_of(device)

    def fill_logical(self, parts, *mkfs, seed=1):
        with lvm.mapped(self.image, parts, self._directory(), self.guard) as device:
            return self.fill(device, *mkfs, seed=seed)

    def fill_partition(self, offset, size, *mkfs, seed=1):
        loop = guestdisk.run("losetup", "-f", "--show", "--offset", offset, "--sizelimit", size, self.image)
        self.guard.push("losetup", "-d", loop)
        try:
            return self.fill(loop, *mkfs, seed=seed)
        finally:
            guestdisk.detach(loop)
            self.guard.pop()


def work(root, seed, ops=300):
    directory = os.path.join(root, "work%d" % seed)
    os.makedirs(directory, exist_ok=True)
    mix = Mix(directory, seed)
    mix.ops(ops)
    mix.close()
    guestdisk.settle(root)


# --- logical volumes ---

TWO = [(MIB, 255 * MIB), (256 * MIB, 255 * MIB)]
TWO_PARTITIONS = "label: gpt\nstart=2048,size=255M\nstart=256MiB,size=255M\n"


def two_volumes(prepared, *mkfs):
    """Two physical volumes on one disk; a linear volume in two segments and a striped one over both. Returns
    {name: (uuid, parts)}."""
    partition_table(prepared.image, TWO_PARTITIONS)
    with prepared.group(TWO) as group:
        group.make("vg0")
        group.create("-L", "64M", "-n", "plain", "vg0")
        group.create("-i", "2", "-I", "64k", "-L", "96M", "-n", "striped", "vg0")
        group.run("lvextend", "-L", "+32M", "vg0/plain")
        parts = {name: group.parts("vg0/" + name) for name in ("plain", "striped")}
    assert len(parts["plain"]) == 2 and len(parts["striped"][0][2]) == 2
    return {name: (prepared.fill_logical(parts[name], *mkfs, seed=seed), parts[name])
            for seed, name in enumerate(parts, 1)}


def test_linear_and_striped_volumes(tapwire, scratch, lvm2):
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
    with Watched(tapwire, scratch, image) as watched:
        for seed, (uuid, parts) in enumerate(volumes.values(), 11):
            with watched.logical(parts) as device, watched.mounted(device) as root:
                work(root, seed, 600)
                watched.expect(uuid, root)
        watched.service.kill("tapwire-inspect")
        uuid, parts = volumes["striped"]
        with watched.logical(parts) as device, watched.mounted(device) as root:
            work(root, 21)
            watched.expect(uuid, root)
        events = watched.stop()
    assert not [event for event in events if event["data"].get("resync")]


def told(events, uuid, resync=None):
    """The events about files of a volume; with resync set, those that are flagged so or not."""
    return [event for event in events if event["type"].startswith(tree.PREFIX) and layout.about(event) == uuid
            and (resync is None or bool(event["data"].get("resync")) == resync)]


@pytest.mark.slow
def test_a_logical_volume_grows_and_shrinks(tapwire, scratch, lvm2):
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
    with Watched(tapwire, scratch, image) as watched:
        for name, (uuid, _) in volumes.items():
            for seed, change in enumerate((("+64M", ""), ("", "100M")), 31):
                with watched.group(TWO) as group:
                    if change[0]:
                        group.run("lvextend", "-L", change[0], "vg0/" + name)
                    parts = group.parts("vg0/" + name)
                with watched.logical(parts) as device:
                    subprocess.run(["e2fsck", "-fy", device], stdout=subprocess.DEVNULL)
                    guestdisk.run("resize2fs", device, *filter(None, change[1:]))
                if change[1]:
                    with watched.group(TWO) as group:
                        group.run("lvreduce", "-f", "-L", change[1], "vg0/" + name)
                        parts = group.parts("vg0/" + name)
                with watched.logical(parts) as device, watched.mounted(device) as root:
                    work(root, seed)
                    watched.expect(uuid, root)
        events = watched.stop()
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]


@pytest.mark.slow
def test_a_logical_volume_comes_and_goes(tapwire, scratch, lvm2):
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
    with Watched(tapwire, scratch, image) as watched:
        with watched.group(TWO) as group:
            group.create("-L", "32M", "-n", "new", "vg0")
            parts = group.parts("vg0/new")
        with watched.logical(parts) as device:
            guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", device)
            uuid = uuid_of(device)
            with watched.mounted(device) as root:
                work(root, 41)
                watched.expect(uuid, root)
        with watched.group(TWO) as group:
            group.run("lvremove", "-f", "vg0/plain")
        watched.expect_event("volume.lost", lambda event: layout.about(event) == volumes["plain"][0])
        uuid, parts = volumes["striped"]
        with watched.logical(parts) as device, watched.mounted(device) as root:
            work(root, 42)
            watched.expect(uuid, root)
        events = watched.stop()
    assert not told(events, volumes["plain"][0])
    assert not told(events, volumes["striped"][0], resync=True)


@pytest.mark.slow
def test_nothing_is_followed_where_a_volume_was(tapwire, scratch, lvm2):
    """All of it has happened when the inspector looks: what is written to extents that were a volume's belongs to the
    volumes that have them now. Both have the same form, so that metadata comes to lie on metadata."""
    form = ("-b", "1024", "-O", "^flex_bg,^metadata_csum,^64bit")
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared, *form)
    with Watched(tapwire, scratch, image) as watched:
        inspector = watched.service.pid("tapwire-inspect")
        os.kill(inspector, signal.SIGSTOP)
        with watched.group(TWO) as group:
            group.run("lvremove", "-f", "vg0/plain")
            group.create("-L", "8M", "-n", "first", "vg0")
            group.create("-L", "48M", "-n", "other", "vg0")
            first, parts = group.parts("vg0/first"), group.parts("vg0/other")
        start = volumes["plain"][1][0][2][0]
        assert (first[0][2][0], parts[0][2][0]) == (start, start + 8 * MIB)
        with watched.logical(parts) as device:
            guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", *form, device)
            uuid = uuid_of(device)
            with watched.mounted(device) as root:
                work(root, 51, 600)
                with watched.logical(first) as small:
                    guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", small)
                os.kill(inspector, signal.SIGCONT)
                watched.expect(uuid, root)
        events = watched.stop()
    assert not told(events, volumes["plain"][0])
    assert [event["data"]["reason"] for event in events if event["type"].endswith(".resynced")] \
        == ["partitions or file systems have changed"]
    lost = [event for event in events if event["type"].endswith((".lost", ".formatted"))]
    assert [(layout.about(event), event["type"][-4:]) for event in lost] == [(volumes["plain"][0], "lost")]


@pytest.mark.slow
def test_a_volume_is_moved(tapwire, scratch, lvm2):
    """What pvmove leaves: the same volume in other extents, of another physical volume."""
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
    uuid, before = volumes["plain"]
    text = scratch / "metadata"
    with Watched(tapwire, scratch, image) as watched:
        with watched.group(TWO) as group:
            group.run("vgcfgbackup", "-f", text, "vg0")
            moved = text.read_text().replace('"pv0", 0\n', '"pv1", 30\n', 1)
            assert moved != text.read_text()
            target = before[0][2][0] + TWO[1][0] - TWO[0][0] + 30 * 4 * MIB
            with open(watched.disk, "r+b") as disk:
                disk.seek(before[0][2][0])
                data = disk.read(before[0][0])
                disk.seek(target)
                disk.write(data)
                disk.flush()
                os.fsync(disk.fileno())
            text.write_text(moved)
            group.run("vgcfgrestore", "-f", text, "vg0")
            parts = group.parts("vg0/plain")
        assert parts[0][2][0] == target
        watched.expect_event("disk.resynced")
        with watched.logical(parts) as device, watched.mounted(device) as root:
            work(root, 61)
            watched.expect(uuid, root)
        events = watched.stop()
    assert not told(events, uuid, resync=True)
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]


# --- partitions ---

LOGICAL = """label: dos
label-id: 0x57495245
start=2048, size=64M, type=83
start=66MiB, type=5
start=67MiB, size=48M, type=83
start=116MiB, size=48M, type=83
"""


def logical_partitions(prepared):
    """Two primary ones, one of them extended, with two logical ones in it. Returns the uuids of 1, 5 and 6."""
    partition_table(prepared.image, LOGICAL)
    return [prepared.fill_partition(start * MIB, size * MIB, seed=seed)
            for seed, (start, size) in enumerate(((1, 64), (67, 48), (116, 48)), 1)]


@pytest.mark.slow
def test_logical_partitions(tapwire, scratch):
    image = make_image(scratch, "256M")
    with Prepared(scratch, image) as prepared:
        uuids = logical_partitions(prepared)
    with Watched(tapwire, scratch, image) as watched:
        for uuid, start, size in zip(uuids, (1, 67, 116), (64, 48, 48)):
            with watched.partition(start * MIB, size * MIB) as device, watched.mounted(device) as root:
                work(root, 100 + start)
                watched.expect(uuid, root)
        events = watched.stop()
    assert sorted(layout.about(event) for event in events if event["type"].endswith("volume.found")) == sorted(uuids)
    assert not [event for event in events if event["data"].get("resync")]


def write_table(watched, before, after):
    """Only the sectors that differ between two tables, and then nothing."""
    images = []
    for script in (before, after):
        images.append(make_image(watched.scratch, "256M", "table.img"))
        partition_table(images[-1], script)
        images[-1] = images[-1].read_bytes()
    with open(watched.disk, "r+b", buffering=0) as disk:
        for at in range(0, len(images[0]), MIB):
            if images[0][at:at + MIB] == images[1][at:at + MIB]:
                continue
            for sector in range(at, at + MIB, 512):
                if images[0][sector:sector + 512] != images[1][sector:sector + 512]:
                    assert sector, "the first sector changed as well"
                    os.pwrite(disk.fileno(), images[1][sector:sector + 512], sector)
        os.fsync(disk.fileno())


def test_a_logical_partition_is_added_and_removed(tapwire, scratch):
    """Only records within the extended partition are written, far from the disk's first sectors."""
    image = make_image(scratch, "256M")
    with Prepared(scratch, image) as prepared:
        uuids = logical_partitions(prepared)
    added = LOGICAL + "start=170MiB, size=40M, type=83\n"
    removed = "".join(line for line in added.splitlines(True) if "116MiB" not in line)
    with Watched(tapwire, scratch, image) as watched:
        write_table(watched, LOGICAL, added)
        with watched.partition(170 * MIB, 40 * MIB) as device:
            guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", device)
            uuid = uuid_of(device)
            with watched.mounted(device) as root:
                work(root, 71)
                watched.expect(uuid, root)
        write_table(watched, added, removed)
        watched.expect_event("volume.lost", lambda event: layout.about(event) == uuids[2])
        with watched.partition(67 * MIB, 48 * MIB) as device, watched.mounted(device) as root:
            work(root, 72)
            watched.expect(uuids[1], root)
        events = watched.stop()
    assert [layout.about(event) for event in events if event["type"].endswith(".lost")] == [uuids[2]]
    assert not told(events, uuids[0]) and not told(events, uuids[2]) and not told(events, uuids[1], resync=True)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_partition_is_moved(tapwire, scratch, label):
    """With its content, as `sfdisk --move-data` does it: the file system is the same one."""
    image = make_image(scratch, "256M")
    script = "label: %s\nstart=1MiB,size=64M\nstart=%%dMiB,size=64M\n" % label
    with Prepared(scratch, image) as prepared:
        partition_table(image, script % 65)
        first = prepared.fill_partition(MIB, 64 * MIB)
        uuid = prepared.fill_partition(65 * MIB, 64 * MIB)
    with Watched(tapwire, scratch, image) as watched:
        with open(watched.disk, "r+b") as disk:
            data = os.pread(disk.fileno(), 64 * MIB, 65 * MIB)
            os.pwrite(disk.fileno(), data, 150 * MIB)
            os.fsync(disk.fileno())
        partition_table(watched.disk, script % 150)
        watched.expect_event("disk.resynced")
        with watched.partition(150 * MIB, 64 * MIB) as device, watched.mounted(device) as root:
            work(root, 81)
            watched.expect(uuid, root)
        events = watched.stop()
    assert not told(events, first) and not told(events, uuid, resync=True)
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]


@pytest.mark.slow
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_partition_grows_and_shrinks(tapwire, scratch, label):
    image = make_image(scratch, "256M")
    script = "label: %s\nstart=1MiB,size=%%dM\n" % label
    with Prepared(scratch, image) as prepared:
        partition_table(image, script % 64)
        uuid = prepared.fill_partition(MIB, 64 * MIB)
    with Watched(tapwire, scratch, image) as watched:
        partition_table(watched.disk, script % 200)
        with watched.partition(MIB, 200 * MIB) as device:
            subprocess.run(["e2fsck", "-fy", device], stdout=subprocess.DEVNULL)
            guestdisk.run("resize2fs", device)
            with watched.mounted(device) as root:
                work(root, 91, 600)
                watched.expect(uuid, root)
            subprocess.run(["e2fsck", "-fy", device], stdout=subprocess.DEVNULL)
            guestdisk.run("resize2fs", device, "48M")
        partition_table(watched.disk, script % 48)
        with watched.partition(MIB, 48 * MIB) as device, watched.mounted(device) as root:
            work(root, 92)
            watched.expect(uuid, root)
        events = watched.stop()
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]


@pytest.mark.slow
def test_a_volume_is_formatted(tapwire, scratch, lvm2):
    """Over a partition, and over a logical volume; the neighbours go on."""
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
    with Watched(tapwire, scratch, image) as watched:
        with watched.logical(volumes["striped"][1]) as device:
            guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", device)
            uuid = uuid_of(device)
            with watched.mounted(device) as root:
                work(root, 93)
                watched.expect(uuid, root)
        formatted = watched.expect_event("volume.formatted")
        uuid = volumes["plain"][0]
        with watched.logical(volumes["plain"][1]) as device, watched.mounted(device) as root:
            work(root, 94)
            watched.expect(uuid, root)
        events = watched.stop()
    assert layout.about(formatted) not in (uuid, volumes["striped"][0])
    assert not told(events, uuid, resync=True)


# --- what is not followed ---

def identity(number):
    """Of LVM: 32 letters and digits with dashes."""
    text = "%032d" % number
    return "-".join((text[:6], text[6:10], text[10:14], text[14:18], text[18:22], text[22:26], text[26:]))


def logical_volume(number, name, segment, count, visible=True):
    """The metadata of a logical volume of one segment."""
    return """
    %s { id = "%s" status = ["READ", "WRITE"%s] flags = [] creation_time = 0 creation_host = "test"
        segment_count = 1
        segment1 { start_extent = 0 extent_count = %d %s } }""" % (
            name, identity(number), ', "VISIBLE"' if visible else "", count, segment)


def linear(volume, extent):
    return 'type = "striped" stripe_count = 1 stripes = ["%s", %d]' % (volume, extent)


# The kinds that lvcreate makes with a device mapper only: {the reason's type: [(name, segment, extents, visible)]}.
KINDS = {
    "raid1": [
        ("r", 'type = "raid1" device_count = 2 region_size = 4096 '
              'raids = ["r_rmeta_0", "r_rimage_0", "r_rmeta_1", "r_rimage_1"]', 2, True),
        ("r_rmeta_0", linear("pv0", 40), 1, False), ("r_rimage_0", linear("pv0", 41), 2, False),
        ("r_rmeta_1", linear("pv1", 40), 1, False), ("r_rimage_1", linear("pv1", 41), 2, False)],
    "mirror": [
        ("m", 'type = "mirror" mirror_count = 2 region_size = 1024 mirrors = ["m_mimage_0", 0, "m_mimage_1", 0]',
         2, True),
        ("m_mimage_0", linear("pv0", 45), 2, False), ("m_mimage_1", linear("pv1", 45), 2, False)],
    "thin": [
        ("t", 'type = "thin" thin_pool = "p" transaction_id = 0 device_id = 1', 2, True),
        ("p", 'type = "thin-pool" metadata = "p_tmeta" pool = "p_tdata" transaction_id = 1 chunk_size = 128 '
              'discards = "passdown" zero_new_blocks = 1', 2, True),
        ("p_tmeta", linear("pv1", 48), 1, False), ("p_tdata", linear("pv0", 48), 2, False)],
    "cache": [
        ("c", 'type = "cache" cache_pool = "cp_cpool" origin = "c_corig"', 2, True),
        ("cp_cpool", 'type = "cache-pool" data = "cp_cpool_cdata" metadata = "cp_cpool_cmeta" chunk_size = 128 '
                     'metadata_format = 2 cache_mode = "writethrough" policy = "smq"', 2, False),
        ("c_corig", linear("pv0", 51), 2, False), ("cp_cpool_cdata", linear("pv1", 51), 2, False),
        ("cp_cpool_cmeta", linear("pv1", 54), 1, False)],
    "snapshot": [
        ("s", linear("pv0", 54), 2, True),
        ("snapshot0", 'type = "snapshot" chunk_size = 8 origin = "plain" cow_store = "s"', 32, False)],
}


def add_kinds(group, text):
    """Writes metadata with a volume of each of KINDS."""
    group.run("vgcfgbackup", "-f", text, "vg0")
    volumes = [(identity_and_volume, kind) for kind in KINDS.values() for identity_and_volume in kind]
    more = "".join(logical_volume(number, name, segment, count, visible)
                   for number, ((name, segment, count, visible), _) in enumerate(volumes, 1))
    head, found, tail = text.read_text().partition("logical_volumes {\n")
    assert found
    text.write_text(head + found + more + "\n" + tail)
    group.run("vgcfgrestore", "--force", "-f", text, "vg0")


@pytest.mark.slow
def test_kinds_of_logical_volumes_that_are_not_followed(tapwire, scratch, lvm2):
    """Each is named; the others go on, the origin of a snapshot as well."""
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
        with prepared.group(TWO) as group:
            add_kinds(group, scratch / "metadata")
    with Watched(tapwire, scratch, image) as watched:
        for seed, (uuid, parts) in enumerate(volumes.values(), 11):
            with watched.logical(parts) as device, watched.mounted(device) as root:
                work(root, seed)
                watched.expect(uuid, root)
        reasons = watched.reasons()
        watched.stop()
    for kind in (*KINDS, "thin-pool"):
        assert any("type %s" % kind in reason for reason in reasons), (kind, reasons)
    assert len(reasons) == 2 + 2 + 6  # partitions, volumes that are followed, and those above


@pytest.mark.slow
def test_a_part_on_another_disk(tapwire, scratch, lvm2):
    """A group over two disks, of which one is watched."""
    image, other = make_image(scratch, "256M"), scratch / "other.img"
    guestdisk.run("truncate", "-s", "256M", other)
    with Prepared(scratch, image) as prepared:
        with lvm.Group(image, [(0, 256 * MIB)], prepared.guard) as group, \
                lvm.Group(other, [(0, 256 * MIB)], prepared.guard) as second:
            group.add(second)
            group.make("vg1")
            group.create("-L", "64M", "-n", "here", "vg1", group.devices[0])
            group.create("-L", "64M", "-n", "there", "vg1", group.devices[1])
            group.create("-L", "64M", "-i", "2", "-n", "both", "vg1")
            parts = group.parts("vg1/here")
        uuid = prepared.fill_logical(parts)
    with Watched(tapwire, scratch, image) as watched:
        with watched.logical(parts) as device, watched.mounted(device) as root:
            work(root, 12)
            watched.expect(uuid, root)
        reasons = watched.reasons()
        watched.stop()
    assert sum("on another disk" in reason for reason in reasons) == 2
    assert sum("physical volume of the LVM group vg1" in reason for reason in reasons) == 1


def test_what_is_no_file_system(tapwire, scratch):
    """Swap space, another system's file system, nothing, and an ext4 that cannot be followed: each is told of with its
    reason, and the volume among them is followed."""
    image = make_image(scratch, "256M")
    partition_table(image, "label: gpt\n" + "size=32M\n" * 6)
    with Prepared(scratch, image) as prepared:
        uuid = prepared.fill_partition(MIB, 32 * MIB)
        with lvm.Group(image, [(at * MIB, 32 * MIB) for at in (33, 65, 97, 129)], prepared.guard) as group:
            guestdisk.run("mkswap", group.devices[0])
            guestdisk.run("mkfs.btrfs" if shutil.which("mkfs.btrfs") else "mkfs.minix", group.devices[1])
            guestdisk.run("mke2fs", "-q", "-O", "journal_dev", "-b", "4096", group.devices[2])
            guestdisk.run("mke2fs", "-q", "-t", "ext4", group.devices[3])
            with open(group.devices[3], "r+b") as device:  # a feature that is none
                device.seek(1024 + 96)
                features = device.read(4)
                device.seek(1024 + 96)
                device.write((int.from_bytes(features, "little") | 1 << 31).to_bytes(4, "little"))
            guestdisk.run("blockdev", "--flushbufs", group.devices[3])
    with Watched(tapwire, scratch, image) as watched:
        with watched.partition(MIB, 32 * MIB) as device, watched.mounted(device) as root:
            work(root, 13)
            watched.expect(uuid, root)
        # And swap space that is used is no sign of anything.
        with watched.partition(33 * MIB, 32 * MIB) as device:
            guestdisk.run("mkswap", "-L", "again", device)
        with watched.partition(MIB, 32 * MIB) as device, watched.mounted(device) as root:
            work(root, 14)
            watched.expect(uuid, root)
        found = watched.of_type("volume.found")
        assert not watched.of_type("disk.resynced")
        # Another sign there is told.
        with watched.partition(33 * MIB, 32 * MIB) as device:
            guestdisk.run("wipefs", "-a", device)
            guestdisk.run("mkfs.minix", device)
        watched.expect_event("volume.found", lambda event: event["data"].get("fstype") == "minix"
                             and event["data"]["place"] == "2")
        events = watched.stop()
    reasons = sorted(event["data"].get("reason", "") for event in found)
    assert len(reasons) == 6 and reasons[0] == ""
    for part in ("it is swap space", "no known file system", "type (btrfs|minix) is not followed",
                 "journal of another file system", "not watched: .*feature"):
        assert any(re.search(part, reason) for reason in reasons), (part, reasons)
    assert not told(events, uuid, resync=True)


# --- how it is told, and restarts ---

@pytest.mark.slow
def test_where_volumes_are_is_told(tapwire, scratch, lvm2):
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
    with Watched(tapwire, scratch, image) as watched:
        guestdisk.wait_until(lambda: len(watched.of_type("volume.found")) == 4, 20)
        found = {event["data"]["place"]: event for event in watched.of_type("volume.found")}

        def told_places():
            status = tapwire.run("status", "--json", "--state", scratch / "state")
            return json.loads(status.stdout)["service"]["disks"][0]["inspector"].get("places")
        assert guestdisk.wait_until(told_places, 10)
        places = {place["place"]: place for place in told_places()}
        table = tapwire.run("status", "--state", scratch / "state").stdout.decode()
        watched.stop()
    assert set(found) == set(places) == {"1", "2", "vg0/plain", "vg0/striped"}
    for name, (uuid, parts) in volumes.items():
        event, place = found["vg0/" + name], places["vg0/" + name]
        assert layout.about(event) == place["uuid"] == uuid
        assert event["data"]["fstype"] == place["fstype"] == "ext4" and "reason" not in event["data"]
        assert place["watched"] is True and place["bytes"] == sum(part[0] for part in parts)
        assert re.search(r"vg0/%s +ext4 +%d +yes" % (name, place["bytes"]), table)
    for name in "12":
        assert "the LVM group vg0" in found[name]["data"]["reason"]
        assert places[name]["watched"] is False and "the LVM group vg0" in places[name]["reason"]


@pytest.mark.slow
def test_metadata_that_goes_around_its_area(tapwire, scratch, lvm2):
    """Every change writes the whole text behind the last one; the area is a ring."""
    image = make_image(scratch, "160M")
    wraps = 0
    with Prepared(scratch, image) as prepared:
        with prepared.group([(0, 160 * MIB)]) as group:
            group.run("pvcreate", "-y", "--metadatasize", "32k", "--dataalignment", "4k", group.devices[0])
            group.run("vgcreate", "vg2", group.devices[0])
            group.create("-L", "64M", "-n", "a", "vg2")
            parts = group.parts("vg2/a")
        uuid = prepared.fill_logical(parts)
    with Watched(tapwire, scratch, image) as watched:
        with watched.group([(0, 160 * MIB)]) as group:
            for turn in range(40):
                group.run("vgchange", "--addtag", "tag%d" % turn, "vg2")
                with open(watched.disk, "rb") as disk:
                    header = os.pread(disk.fileno(), 512, 4096)
                size = int.from_bytes(header[32:40], "little")
                offset, length = (int.from_bytes(header[at:at + 8], "little") for at in (40, 48))
                wraps += offset + length > size
        with watched.logical(parts) as device, watched.mounted(device) as root:
            work(root, 15)
            watched.expect(uuid, root)
        events = watched.stop()
    assert wraps, "no text went around: the test tested nothing"
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted", ".resynced"))]


@pytest.mark.slow
def test_restarts_change_no_event(asan, tapwire, scratch, lvm2):
    """A trace of a striped volume and one in several segments, followed by an inspector that is killed again and
    again."""
    replay = os.path.join(asan.build, "tests/lib/replay")
    if not os.path.exists(replay):
        guestdisk.run("make", "-C", ROOT, "--no-print-directory", "BUILD=" + asan.build, replay)
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
        base, recorded = scratch / "base.img", scratch / "trace"
        guestdisk.copy_image(image, base)
        served = guestdisk.Served(str(scratch / "nbd"), [
            "--command", "nbdkit", "-s", "--exit-with-parent", tapwire.plugin, "file=%s" % image,
            "record=%s" % recorded], prepared.guard)
        shown = {}
        for seed, (uuid, parts) in enumerate(volumes.values(), 11):
            with lvm.mapped(served.disk, parts, scratch / ("lv%d" % seed), prepared.guard) as device, \
                    guestdisk.mounted(device, scratch / "mnt", guard=prepared.guard) as root:
                work(root, seed, 600)
                shown[uuid] = tree.listing(root)
        served.close()
    events = tapwire.infer(base, recorded)
    for uuid, listing in shown.items():
        state = tree.Tree.from_crawl(layout.crawled(tapwire, base)[uuid])
        for event in events:
            if layout.about(event) == uuid:
                state.apply(event)
        assert tree.diff(listing, state.listing()) == []
    outputs = []
    for every, seed in ((0, 0), (5, 1), (40, 2)):
        done = subprocess.run([replay, base, image, recorded, str(every), str(seed)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=200)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
        outputs.append(done.stdout)
    assert len(outputs[0].splitlines()) > 300
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["tapwire-inspect", "tapwire-courier"])
def test_killed_while_the_layout_changes(tapwire, scratch, lvm2, part):
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
    with Watched(tapwire, scratch, image) as watched:
        uuid, parts = volumes["striped"]
        with watched.logical(parts) as device, watched.mounted(device) as root:
            for turn in range(4):
                work(root, 120 + turn, 100)
                with watched.group(TWO) as group:
                    group.create("-L", "8M", "-n", "n%d" % turn, "vg0")
                    watched.service.kill(part)
                    group.run("lvextend", "-L", "+8M", "vg0/plain")
            watched.expect(uuid, root)
        watched.expect_event("volume.found", lambda event: event["data"]["place"] == "vg0/n3")
        events = watched.stop()
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]
    assert not told(events, volumes["plain"][0])


@pytest.mark.slow
def test_a_hybrid_table(tapwire, scratch):
    """A GPT whose protective MBR names a partition, too: as for Linux, the GPT counts."""
    image = make_image(scratch, "128M")
    partition_table(image, "label: gpt\nstart=1MiB,size=60M\n")
    with Prepared(scratch, image) as prepared:
        uuid = prepared.fill_partition(MIB, 60 * MIB)
    with open(image, "r+b") as disk:
        disk.seek(446 + 16)
        disk.write(b"\0\0\2\0\x83\xff\xff\xff" + (70 * 2048).to_bytes(4, "little") + (2048).to_bytes(4, "little"))
    with Watched(tapwire, scratch, image) as watched:
        with watched.partition(MIB, 60 * MIB) as device, watched.mounted(device) as root:
            work(root, 16)
            watched.expect(uuid, root)
        assert [event["data"]["place"] for event in watched.of_type("volume.found")] == ["1"]
        watched.stop()


@pytest.mark.slow
def test_the_first_gpt_is_overwritten(tapwire, scratch):
    """And its copy at the disk's end holds; then that one changes."""
    image = make_image(scratch, "128M")
    script = "label: gpt\nstart=1MiB,size=60M\n"
    partition_table(image, script)
    with Prepared(scratch, image) as prepared:
        uuid = prepared.fill_partition(MIB, 60 * MIB)
    later = scratch / "later.img"
    guestdisk.copy_image(image, later)
    partition_table(later, script + "start=64MiB,size=20M\n")
    with Watched(tapwire, scratch, image) as watched, open(watched.disk, "r+b", buffering=0) as disk:
        os.pwrite(disk.fileno(), bytes(33 * 512), 512)
        os.fsync(disk.fileno())
        with open(later, "rb") as other:
            other.seek(-33 * 512, os.SEEK_END)
            os.pwrite(disk.fileno(), other.read(), 128 * MIB - 33 * 512)
        os.fsync(disk.fileno())
        watched.expect_event("volume.found", lambda event: event["data"]["place"] == "2")
        with watched.partition(MIB, 60 * MIB) as device, watched.mounted(device) as root:
            work(root, 17)
            watched.expect(uuid, root)
        events = watched.stop()
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]


@pytest.mark.slow
def test_partitions_by_parted(tapwire, scratch):
    """Which writes a table in other steps; a volume that stays is never lost meanwhile."""
    image = make_image(scratch, "256M")
    with Prepared(scratch, image) as prepared:
        guestdisk.run(*QUICK, "parted", "-s", image, "mklabel", "msdos", "mkpart", "primary", "1MiB", "65MiB",
                      "mkpart", "extended", "66MiB", "250MiB")
        uuid = prepared.fill_partition(MIB, 64 * MIB)
    with Watched(tapwire, scratch, image) as watched:
        for start in (70, 100, 130):
            guestdisk.run(*QUICK, "parted", "-s", watched.disk, "mkpart", "logical", "%dMiB" % start,
                          "%dMiB" % (start + 24))
            with watched.partition(start * MIB, 24 * MIB) as device:
                guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", device)
                new = uuid_of(device)
                with watched.mounted(device) as root:
                    work(root, start)
                    watched.expect(new, root)
        for number in (6, 6, 5):
            guestdisk.run(*QUICK, "parted", "-s", watched.disk, "rm", number)
        assert guestdisk.wait_until(lambda: len(watched.of_type("volume.lost")) == 3, 20)
        with watched.partition(MIB, 64 * MIB) as device, watched.mounted(device) as root:
            work(root, 18)
            watched.expect(uuid, root)
        events = watched.stop()
    assert uuid not in [layout.about(event) for event in events if event["type"].endswith(".lost")]
    assert not told(events, uuid, resync=True)


@pytest.mark.slow
def test_a_table_that_is_gone_for_a_moment(tapwire, scratch):
    """Whoever changes it may write it anew from nothing: a volume that is there again was never lost."""
    image = make_image(scratch, "128M")
    partition_table(image, "label: dos\nstart=1MiB,size=60M\nstart=64MiB,size=60M\n")
    with Prepared(scratch, image) as prepared:
        uuid = prepared.fill_partition(MIB, 60 * MIB)
        prepared.fill_partition(64 * MIB, 60 * MIB)
    with Watched(tapwire, scratch, image) as watched:
        with open(watched.disk, "r+b", buffering=0) as disk:
            table = os.pread(disk.fileno(), 512, 0)
            os.pwrite(disk.fileno(), bytes(512), 0)
            os.fsync(disk.fileno())
            os.pwrite(disk.fileno(), bytes(512), 1024)  # another record: now it is looked at
            os.fsync(disk.fileno())
            time.sleep(0.45)
            os.pwrite(disk.fileno(), table, 0)
            os.fsync(disk.fileno())
        with watched.partition(MIB, 60 * MIB) as device, watched.mounted(device) as root:
            work(root, 19)
            watched.expect(uuid, root)
        events = watched.stop()
    assert [event["type"] for event in events if event["type"].startswith("org.tapwire.disk.resync")]
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]


@pytest.mark.slow
def test_what_changes_at_the_end_is_told(tapwire, scratch):
    image = make_image(scratch, "128M")
    partition_table(image, "label: dos\nstart=1MiB,size=60M\n")
    with Prepared(scratch, image) as prepared:
        prepared.fill_partition(MIB, 60 * MIB)
    later = scratch / "later.img"
    guestdisk.copy_image(image, later)
    partition_table(later, "label: dos\nstart=1MiB,size=60M\nstart=64MiB,size=60M\n")
    with Watched(tapwire, scratch, image) as watched:
        inspector = watched.service.pid("tapwire-inspect")
        os.kill(inspector, signal.SIGSTOP)
        with open(watched.disk, "r+b", buffering=0) as disk, open(later, "rb") as other:
            os.pwrite(disk.fileno(), other.read(512), 0)
        watched.close_disk()
        threading.Timer(1, os.kill, (inspector, signal.SIGCONT)).start()
        events = watched.stop()
    assert [event["data"]["place"] for event in events if event["type"].endswith(".found")] == ["1", "2"]


@pytest.mark.slow
def test_writes_that_were_missed_in_stripes(tapwire, scratch, lvm2):
    """The ring has no room; what changed in place is told by ranges of the volume, though they lie on the disk in
    pieces."""
    image = make_image(scratch, "520M")
    with Prepared(scratch, image) as prepared:
        volumes = two_volumes(prepared)
        uuid, parts = volumes["striped"]
        with lvm.mapped(image, parts, scratch / "big", prepared.guard) as device, \
                guestdisk.mounted(device, scratch / "mnt", guard=prepared.guard) as root:
            with open(os.path.join(root, "big"), "wb") as file:
                file.write(os.urandom(24 * MIB))
            guestdisk.settle(root)
    with Watched(tapwire, scratch, image, "--ring-size", "64K") as watched:
        with watched.logical(parts) as device, watched.mounted(device) as root:
            path = os.path.join(root, "big")
            with open(path, "r+b") as file:
                inode = os.fstat(file.fileno()).st_ino
                for at in range(0, 24 * MIB, 300000):
                    os.pwrite(file.fileno(), b"changed" * 12000, at)
                os.fsync(file.fileno())
            watched.expect(uuid, root)
            changed = changed_ranges(watched, parts, path)
        events = watched.stop()
    ranges = [pair for event in told(events, uuid) if event["data"]["inode"] == inode
              for pair in event["data"].get("ranges", [])]
    assert told(events, uuid, resync=True), "no gap: the test tested nothing"
    assert changed and property.uncovered(changed, ranges) == []


def changed_ranges(watched, parts, path):
    with lvm.mapped(watched.base, parts, watched.base + ".lv", watched.guard) as device, \
            guestdisk.mounted(device, watched.base + ".mnt", "ro", guard=watched.guard, readonly=True) as old:
        return property.changed_sectors(os.path.join(old, os.path.basename(path)), path)
