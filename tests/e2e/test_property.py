# SPDX-License-Identifier: BSD-3-Clause
"""Events of a trace, applied to the crawl of the base, give what the kernel shows: for the named
workloads and for the random mix."""
import json
import struct

import pytest

from lib import guestdisk, named, property, tree
from lib.calls import sync_fs
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

# A small journal is overwritten many times and forces checkpoints.
LAYOUTS = {
    "default": (),
    "small-blocks": ("-b", "1024", "-J", "size=4"),
}


def populated(scratch, mkfs=(), offset=0, seed=99, ops=1500):
    """An image with files in it, and the mix that made them, which may go on."""
    image = scratch / "disk.img"
    guestdisk.make_image(image, "2G", mkfs, offset=offset)
    with guestdisk.mounted(image, scratch / "made", offset=offset) as root:
        mix = Mix(root, seed)
        mix.ops(ops)
        mix.close()
        sync_fs(root)
    return image, mix


def record(tapwire, scratch, work, mkfs=(), offset=0):
    """Runs work(root, sync) on a disk with files in it; returns the disk, unmounted."""
    image, _ = populated(scratch, mkfs, offset)
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin, offset=offset) as disk:
        disk.sync("start")
        work(disk.root, disk.sync)
        disk.sync("end")
    return disk


@pytest.mark.parametrize("work", [
    pytest.param(work, marks=() if work in (named.links, named.attributes) else pytest.mark.slow)
    for work in named.WORKLOADS], ids=lambda work: work.__name__)
def test_named_workload(tapwire, scratch, work):
    disk = record(tapwire, scratch, work)
    property.check(tapwire, disk)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_mix(tapwire, scratch, seed, layout, request):
    random_mix(tapwire, scratch, seed, LAYOUTS[layout], request.config.getoption("--ops"), request)


test_random_mix.seeds = [1, 2]


def test_short_random_mix(tapwire, scratch, request):
    random_mix(tapwire, scratch, 3, (), 2000, request)


def random_mix(tapwire, scratch, seed, mkfs, ops, request):
    image, mix = populated(scratch, mkfs, seed=seed, ops=ops // 8)
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin) as disk:
        disk.sync("start")
        mix.root = disk.root.encode()
        mix.ops(ops, max(ops // 20, 100), lambda done: disk.sync("operation %d" % done))
        mix.close()
        disk.sync("end")
    try:
        property.check(tapwire, disk)
    except AssertionError as error:
        raise AssertionError(
            "%s\nrepeat: TAPWIRE_KEEP=1 /usr/bin/python3 -m pytest '%s' --seed %d --ops %d" % (
                error, request.node.nodeid, seed, ops)) from None


def test_partition(tapwire, scratch):
    """A volume in a partition, not on the whole disk."""
    disk = record(tapwire, scratch, named.links, offset=1 << 20)
    property.check(tapwire, disk)


def test_reading_is_no_event(tapwire, scratch):
    """Mounting, reading and unmounting changes access times and the superblock, and no file."""
    def work(root, _sync):
        guestdisk.run("tar", "-cf", "/dev/null", "-C", root, ".")
    disk = record(tapwire, scratch, work)
    events = property.check(tapwire, disk)
    assert [event for event in events if event["type"].startswith(tree.PREFIX)] == []


def cut_trace(source, target, after_ns):
    """What was captured after a clock, with record sequences from 1."""
    with open(source, "rb") as trace, open(target, "wb") as out:
        out.write(trace.read(24))
        number = 0
        while header := trace.read(32):
            _, clock, sector, count, flags = struct.unpack("<QQQII", header)
            payload = trace.read(count * 512) if flags & 1 else b""
            if clock > after_ns:
                number += 1
                out.write(struct.pack("<QQQII", number, clock, sector, count, flags) + payload)


def test_journal_not_clean(tapwire, scratch):
    """An image as a crash would leave it: its crawl replays the journal, and a trace goes on
    from there."""
    image, mix = populated(scratch)
    copy, rest = scratch / "crashed.img", scratch / "rest"
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin) as disk:
        mix.root = disk.root.encode()
        mix.ops(1000)
        middle = disk.sync("middle")
        guestdisk.copy_image(image, copy)
        mix.ops(1000)
        mix.close()
        end = disk.sync("end")
    state = tapwire.crawl(copy)
    property.expect_equal(middle.listing, state.listing(), "crawl of the crashed image")
    cut_trace(disk.trace, rest, middle.clock_ns)
    events = tapwire.infer(copy, rest)
    tree.check_sequence(events)
    for event in events:
        state.apply(event)
    property.expect_equal(end.listing, state.listing(), "at the end")


def test_infer_is_repeatable(tapwire, scratch):
    """The same trace gives the same events, byte for byte."""
    disk = record(tapwire, scratch, named.attributes)
    args = ("infer", "--disk", disk.base, "--trace", disk.trace)
    first, second = tapwire.run(*args), tapwire.run(*args)
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert [json.loads(line)["specversion"] for line in first.stdout.splitlines()]
