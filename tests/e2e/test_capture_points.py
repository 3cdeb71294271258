# SPDX-License-Identifier: BSD-3-Clause
"""The property, through each capture point: the nbdkit plugin and the tapdisk driver in its test host. tapwired
follows the ring, and what arrives at the endpoint gives the tree, whatever befalls the capture."""
import contextlib
import mmap
import os
import random
import re
import shutil
import subprocess
import threading
import time

import pytest

from lib import guestdisk, points, property, tree
from lib.calls import sync_fs
from lib.daemon import Daemon
from lib.endpoint import Endpoint
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    return points.build_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(params=sorted(points.POINTS))
def point(request, tapwire, host):
    return points.POINTS[request.param](tapwire, host)


def populated(image, where, size="512M"):
    guestdisk.make_image(image, size)
    with guestdisk.mounted(image, where) as root:
        mix = Mix(root, 1)
        mix.ops(300)
        mix.close()
        sync_fs(root)
    return mix


@contextlib.contextmanager
def mounted(directory, disk):
    with guestdisk.GuestDisk(directory, disk.image, socket=disk.uri) as mounted_disk:
        mounted_disk.sync("start")
        yield mounted_disk


def settled(daemon, endpoint, resyncs=0):
    """What was captured has been followed and has arrived."""
    def idle():
        before = len(endpoint.events())
        time.sleep(0.3)
        return daemon.caught_up() and len(endpoint.events()) == before
    time.sleep(0.5)
    assert guestdisk.wait_until(idle, 60), daemon.said()


def check(tapwire, disk, events):
    """The property at the end, and at each sync when nothing was missed."""
    if any(event["type"] == "org.tapwire.disk.resynced" for event in events):
        disk.syncs = [disk.syncs[0], disk.syncs[-1]]
        disk.syncs[-1].clock_ns = 1 << 62
    state = property.check_events(tapwire, disk, events)
    property.check_content(tapwire, disk, state)


def work(disk, mix, seconds, each):
    """The mix for a while, with each() about once a second."""
    mix.root = disk.root.encode()
    ended = threading.Event()

    def writer():
        while not ended.is_set():
            mix.ops(50)
    thread = threading.Thread(target=writer)
    thread.start()
    try:
        for _ in range(seconds):
            time.sleep(1)
            each()
    finally:
        ended.set()
        thread.join()
        mix.close()
    disk.sync("end")


# --- gaps all the time ---

def test_a_tiny_ring_and_an_inspector_killed_every_second(tapwire, memory, point, seconds=4):
    image = memory / "disk.img"
    mix = populated(image, memory / "made")
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint(memory))
        disk, = point.serve(stack, memory, [image], "64K")
        guest = stack.enter_context(mounted(memory, disk))
        with Daemon(tapwire, memory, image, disk.ring, endpoint) as daemon:
            kills = []
            work(guest, mix, seconds, lambda: kills.append(daemon.kill_inspectors()))
            settled(daemon, endpoint)
    endpoint_events = endpoint.events()
    assert sum(kills) >= 2  # a service restarts what keeps dying after growing pauses
    assert any(event["type"] == "org.tapwire.disk.resynced" for event in endpoint_events)
    check(tapwire, guest, endpoint_events)
    assert not guestdisk.left_below(memory)


# --- errors ---

def largest_extent(image, name):
    """First and last byte + 1 on the disk of a file's longest extent, and its offset in the file."""
    text = guestdisk.run("debugfs", "-R", "stat /%s" % name, image)
    extents = re.findall(r"\((\d+)(?:-(\d+))?\):(\d+)(?:-\d+)?", text[text.index("EXTENTS"):])
    first, last, start = max(((int(a), int(b or a), int(c)) for a, b, c in extents),
                             key=lambda e: e[1] - e[0])
    return start * 4096, (start + last - first + 1) * 4096, first * 4096


def test_a_write_that_failed_is_in_no_event(tapwire, memory, point, host):
    """Each 50th write to a file's blocks fails in the image below. The guest is told; the events name the blocks
    of those that succeeded, all of them and no others."""
    image = memory / "disk.img"
    mix = populated(image, memory / "made")
    with guestdisk.mounted(image, memory / "made") as root:
        with open(root / "victim", "wb") as victim:
            victim.write(bytes(16 << 20))
        sync_fs(root)
    start, end, offset = largest_extent(image, "victim")
    blocks = list(range(0, end - start, 4096))
    random.Random(2).shuffle(blocks)
    blocks, failed = blocks[:1000], []
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint(memory))
        lower = stack.enter_context(points.Faulty(
            host, memory, image, "error-every=50", "error-from=%d" % (start // 512),
            "error-to=%d" % (end // 512)))
        disk, = point.serve(stack, memory, [lower.disk])
        disk.image = image
        guest = stack.enter_context(mounted(memory, disk))
        with Daemon(tapwire, memory, image, disk.ring, endpoint) as daemon:
            descriptor = os.open(guest.root + "/victim", os.O_RDWR | os.O_DIRECT)
            buf = mmap.mmap(-1, 4096)
            for number, block in enumerate(blocks):
                buf[:] = bytes([number % 255 + 1]) * 4096
                try:
                    os.pwrite(descriptor, buf, offset + block)
                except OSError:
                    failed.append(block)
            os.close(descriptor)
            mix.root = guest.root.encode()
            mix.ops(300)
            mix.close()
            guest.sync("end")
            settled(daemon, endpoint)
    events = endpoint.events()
    assert 10 <= len(failed) <= 30
    told = [r for event in events if event.get("subject") == "/victim" for r in event["data"].get("ranges", ())]
    assert property.join((at, at + length) for at, length in told) == property.join(
        (offset + block, offset + block + 4096) for block in blocks if block not in failed)
    assert not any(event["type"] == "org.tapwire.disk.resynced" for event in events)
    check(tapwire, guest, events)


# --- many disks ---

@pytest.mark.slow
def test_eight_disks_at_once(tapwire, memory, point):
    number = 8
    images = [memory / ("disk%d.img" % n) for n in range(number)]
    first = populated(images[0], memory / "made", "128M")
    for image in images[1:]:
        guestdisk.copy_image(images[0], image)
    guests, mixes = [], []
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint(memory))
        disks = list(point.serve(stack, memory, images, "256K"))
        for n, disk in enumerate(disks):
            (memory / str(n)).mkdir()
            guests.append(stack.enter_context(mounted(memory / str(n), disk)))
            mixes.append(Mix(guests[-1].root, 100 + n, budget=8 << 20, prefix=b"n%d" % n))
        with Daemon(tapwire, memory, images[0], disks[0].ring, endpoint,
                    [(disk.image, disk.ring) for disk in disks[1:]]) as daemon:
            threads = [threading.Thread(target=mix.ops, args=(300,)) for mix in mixes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for mix, guest in zip(mixes, guests):
                mix.close()
                guest.sync("end")
            settled(daemon, endpoint)
    first.close()
    events = endpoint.events()
    for n, guest in enumerate(guests):
        own = [event for event in events if "/xvd%s" % chr(ord("a") + n) in event["source"]]
        check(tapwire, guest, own)


# --- the guest's own view ---

@pytest.mark.slow
def test_what_a_guest_reads_is_what_it_wrote(tapwire, memory, point):
    """fio checks each block that it wrote, while the inspector is killed, and stopped with a ring that is too
    small."""
    image = memory / "disk.img"
    populated(image, memory / "made").close()
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint(memory))
        disk, = point.serve(stack, memory, [image], "64K")
        guest = stack.enter_context(mounted(memory, disk))
        with Daemon(tapwire, memory, image, disk.ring, endpoint) as daemon:
            fio = subprocess.Popen(
                ["fio", "--name=view", "--filename=" + guest.root + "/fio", "--size=48M", "--rw=randwrite",
                 "--bsrange=4k-64k", "--ioengine=libaio", "--direct=1", "--iodepth=32", "--verify=crc32c",
                 "--verify_backlog=256", "--verify_fatal=1", "--randseed=5", "--rate=,12M"],  # for four seconds
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=memory)
            kills = 0
            while fio.poll() is None and kills < 100:
                kills += daemon.kill_inspectors()
                time.sleep(0.3)
            said = fio.communicate()[0].decode(errors="replace")
            assert fio.returncode == 0, said
            with open(guest.root + "/marker", "w", encoding="ascii") as marker:
                marker.write("x")
            guest.sync("end")
            # An inspector that was killed begins after a pause, and what it said last is not of now.
            assert guestdisk.wait_until(
                lambda: any(event.get("subject") == "/marker" for event in endpoint.events()), 90), daemon.said()
            settled(daemon, endpoint)
    assert kills > 2, said
    check(tapwire, guest, endpoint.events())


# --- tapdisk's own ---

def test_a_host_that_retries_splits_reorders_and_pauses(tapwire, memory, host):
    image = memory / "disk.img"
    mix = populated(image, memory / "made")
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint(memory))
        disk, = points.Tapdisk(tapwire, host).serve(
            stack, memory, [image], "16M",
            ("busy-every=31", "again-every=101", "split=24", "shuffle=6", "pause-every=500"))
        guest = stack.enter_context(mounted(memory, disk))
        with Daemon(tapwire, memory, image, disk.ring, endpoint) as daemon:
            work(guest, mix, 4, lambda: None)
            settled(daemon, endpoint)
    check(tapwire, guest, endpoint.events())


def test_the_object_for_tapdisk_has_one_symbol(build, scratch):
    """What `make driver` links is to live in somebody else's program."""
    root = os.path.dirname(points.TESTS)
    guestdisk.run("make", "-s", "-C", root, "BUILD=%s" % (scratch / "b"), "driver")
    assert shutil.which("nm")
    lines = guestdisk.run("nm", "-g", "--defined-only", scratch / "b/driver/block-tapwire.o").split("\n")
    assert [line.split()[1:] for line in lines] == [["D", "tapdisk_tapwire"]]
