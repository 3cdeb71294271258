# SPDX-License-Identifier: BSD-3-Clause
"""Events of a trace, applied to the crawl of the base, give what the kernel shows: for the named
workloads and for the random mix."""
import json
import os
import random
import subprocess

import pytest

from lib import guestdisk, named, property, trace, tree
from lib.calls import sync_fs
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

# A small journal is overwritten many times and forces checkpoints.
LAYOUTS = {
    "default": (),
    "small-blocks": ("-b", "1024", "-J", "size=4"),
}


def populated(scratch, mkfs=(), offset=0, seed=99, ops=1500, kinds=None,
              table="mbr"):
    """An image with files in it, and the mix that made them, which may go on."""
    image = scratch / "disk.img"
    guestdisk.make_image(image, "2G", mkfs, offset=offset, table=table)
    with guestdisk.mounted(image, scratch / "made", offset=offset) as root:
        mix = Mix(root, seed, kinds)
        mix.ops(ops)
        mix.close()
        sync_fs(root)
    return image, mix


def record(tapwire, scratch, work, mkfs=(), offset=0, table="mbr"):
    """Runs work(root, sync) on a disk with files in it; returns the disk, unmounted."""
    image, _ = populated(scratch, mkfs, offset, table=table)
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


# Other layouts and ways to mount that are followed: (mkfs options, mount options, kinds to leave out).
OTHERS = {
    "blocks-2k": (("-b", "2048"), "", ()),
    "no-checksums": (("-O", "^metadata_csum"), "", ()),
    "no-64bit": (("-O", "^64bit"), "", ()),
    "small-inodes": (("-I", "128"), "", ()),
    "no-groups": (("-O", "^flex_bg"), "", ()),
    "no-hash-trees": (("-O", "^dir_index"), "", ()),
    "block-maps": (("-O", "^extent,^64bit"), "", ("allocate", "shift", "zero", "sparse")),
    "no-delayed-allocation": ((), "nodelalloc", ()),
    "writeback": ((), "data=writeback", ()),
    "discard": ((), "discard", ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_layout(tapwire, scratch, name, request):
    mkfs, options, without = OTHERS[name]
    random_mix(tapwire, scratch, 4, mkfs, 5000, request, options,
               [kind for kind in Mix.WEIGHTS if kind not in without])


def test_short_random_mix(tapwire, scratch, request):
    random_mix(tapwire, scratch, 3, (), 2000, request)


def random_mix(tapwire, scratch, seed, mkfs, ops, request, options="", kinds=None):
    image, mix = populated(scratch, mkfs, seed=seed, ops=ops // 8, kinds=kinds)
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin, options=options) as disk:
        disk.sync("start")
        mix.root = disk.root.encode()
        mix.ops(ops, max(ops // 20, 100), lambda done: disk.sync("operation %d" % done))
        mix.close()
        disk.sync("end")
    try:
        property.check(tapwire, disk)
    except AssertionError as error:
        raise AssertionError(
            "%s\nrepeat: TAPWIRE_KEEP=1 /usr/bin/python3 -m pytest 'tests/%s' --seed %d "
            "--ops %d" % (error, request.node.nodeid, seed, ops)) from None


@pytest.mark.parametrize("table", guestdisk.TABLES)
def test_partition(tapwire, scratch, table):
    """A volume in a partition, not on the whole disk."""
    disk = record(tapwire, scratch, named.links, offset=1 << 20, table=table)
    property.check(tapwire, disk)


def test_reading_is_no_event(tapwire, scratch):
    """Mounting, reading and unmounting changes access times and the superblock, and no file."""
    def work(root, _sync):
        guestdisk.run("tar", "-cf", "/dev/null", "-C", root, ".")
    disk = record(tapwire, scratch, work)
    events = property.check(tapwire, disk)
    assert [event for event in events if event["type"].startswith(tree.PREFIX)] == []


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
    trace.write(rest, image.stat().st_size, (
        record for record in trace.read(disk.trace) if record.clock_ns > middle.clock_ns))
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


def short_recording(tapwire, scratch, ops=1500):
    """A recorded random mix with a journal that wraps."""
    image, mix = populated(scratch, LAYOUTS["small-blocks"], seed=21)
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin) as disk:
        disk.sync("start")
        mix.root = disk.root.encode()
        mix.ops(ops, ops // 10, lambda done: disk.sync("operation %d" % done))
        mix.close()
    return disk


def test_a_trace_may_come_through_a_pipe(tapwire, scratch):
    disk = short_recording(tapwire, scratch, 200)
    with open(disk.trace, "rb") as recorded:
        piped = subprocess.run([tapwire.program, "infer", "--disk", disk.base, "--trace", "-"],
                               stdin=recorded, stdout=subprocess.PIPE, timeout=60, check=True)
    assert [json.loads(line) for line in piped.stdout.splitlines()] \
        == tapwire.infer(disk.base, disk.trace)


def test_trace_is_what_was_written(tapwire, scratch):
    """The base with the trace's writes is the final image, byte for byte; sequences count up."""
    disk = short_recording(tapwire, scratch)
    records = list(trace.read(disk.trace))
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    clocks = [record.clock_ns for record in records]
    assert clocks == sorted(clocks)
    copy = scratch / "replayed.img"
    guestdisk.copy_image(disk.base, copy)
    trace.play(records, copy)
    assert os.path.getsize(copy) == os.path.getsize(disk.image)
    assert property.changed_sectors(copy, disk.image) == []


def test_any_prefix(tapwire, scratch):
    """Wherever the power fails, the events so far are what a crawl of that disk shows, and what
    the kernel makes of it."""
    disk = short_recording(tapwire, scratch)
    records = list(trace.read(disk.trace))
    rnd = random.Random(4)
    cut, image = scratch / "prefix", scratch / "prefix.img"
    for length in sorted(rnd.randrange(1, len(records)) for _ in range(12)):
        guestdisk.copy_image(disk.base, image)
        trace.play(records[:length], image)
        trace.write(cut, image.stat().st_size, records[:length])
        state = tapwire.crawl(disk.base)
        for event in tapwire.infer(disk.base, cut):
            state.apply(event)
        where = "after %d of %d records" % (length, len(records))
        property.expect_equal(tapwire.crawl(image).listing(), state.listing(), where)
        with guestdisk.mounted(image, scratch / "crashed") as root:
            assert names(tree.listing(root)) == names(state.listing()), where


def names(listing):
    """What the kernel's recovery leaves alone: it finishes truncations, with a time of its own."""
    return {path: [fields[field] for field in ("kind", "inode", "size", "mode", "nlink", "target")]
            for path, fields in listing.items()}
