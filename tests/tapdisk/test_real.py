# SPDX-License-Identifier: BSD-3-Clause
"""The driver in a real tapdisk: its NBD export is mounted, and the property holds for what tapwired makes of the
ring."""
import contextlib
import filecmp
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time

import pytest

from lib import guestdisk, points, property
from lib.calls import sync_fs
from lib.daemon import Daemon
from lib.endpoint import Endpoint
from lib.guard import Guard
from lib.ringfile import Ring
from lib.workload import Mix

nbd = pytest.importorskip("nbd", reason="needs Debian's python3-libnbd")

pytestmark = pytest.mark.usefixtures("mountable")
SIZE = 64 << 20


def idle(daemon, endpoint):
    def quiet():
        before = len(endpoint.events())
        time.sleep(0.3)
        status = daemon.status()
        return status.get("live") and not status.get("lag_bytes") and len(endpoint.events()) == before
    time.sleep(0.5)
    assert guestdisk.wait_until(quiet, 60), daemon.said()


def check(tapwire, guest, events):
    if any(event["type"] == "org.tapwire.disk.resynced" for event in events):
        guest.syncs = [guest.syncs[0], guest.syncs[-1]]
        guest.syncs[-1].clock_ns = 1 << 62
    property.check_content(tapwire, guest, property.check_events(tapwire, guest, events))


def formatted(image, where, size="512M"):
    guestdisk.make_image(image, size)
    with guestdisk.mounted(image, where) as root:
        mix = Mix(root, 1)
        mix.ops(300)
        mix.close()
        sync_fs(root)
    return mix


@contextlib.contextmanager
def now_and_then(seconds, do):
    """do() again and again, by another process: a thread of this one may wait for the disk, in a page fault, with
    the interpreter's lock. Yields how often, as [0]."""
    ended, count = multiprocessing.Event(), multiprocessing.Array("i", 1)

    def run():
        while not ended.wait(seconds):
            do()
            count[0] += 1
    worker = multiprocessing.Process(target=run, daemon=True)
    worker.start()
    try:
        yield count
    finally:
        ended.set()
        worker.join()
    assert worker.exitcode == 0  # it has printed why not


@contextlib.contextmanager
def paused(disk):
    """Whatever happens, it goes on: a guest that waits for ever cannot be ended."""
    try:
        disk.pause()
        yield
    finally:
        disk.unpause()


# --- a mounted disk ---

def test_it_is_registered(tapdisk, scratch):
    image = scratch / "disk.img"
    guestdisk.run("truncate", "-s", SIZE, image)
    disk = tapdisk.create("aio:%s" % image)
    client = connect(disk)
    client.pwrite(b"x" * 4096, 4096)
    stats = disk.stats()
    assert stats["state"] == "capturing"
    assert (stats["writes"], stats["records"], stats["payload_bytes"]) == (1, 1, 4096)


def test_the_property_over_aio(tapwire, tapdisk, memory):
    image = memory / "disk.img"
    mix = formatted(image, memory / "made")
    disk = tapdisk.create("aio:%s" % image)
    with Endpoint(memory) as endpoint, \
            guestdisk.GuestDisk(memory, image, socket=disk.uri) as guest, \
            Daemon(tapwire, memory, image, disk.ring, endpoint) as daemon:
        guest.sync("start")
        mix.root = guest.root.encode()
        for turn in range(4):
            mix.ops(500)
            guest.sync("turn %d" % turn)
        mix.close()
        guest.sync("end")
        idle(daemon, endpoint)
        stats = disk.stats()
    assert stats["writes"] > 100 and stats["uncaught"] == stats["missed"] == 0
    check(tapwire, guest, endpoint.events())


@contextlib.contextmanager
def followed_vhd(tapwire, memory, disk, size_mib):
    """A new file system on a disk that is a VHD, mounted and followed by tapwired; holds the property at the end.
    The inspector reads the disk where its guest does: a VHD file is no raw image."""
    guard = Guard()
    with contextlib.ExitStack() as stack:
        stack.callback(guard.close)
        served = guestdisk.Served(os.fspath(memory / "nbd"), [disk.uri], guard)
        stack.callback(served.close)
        assert os.path.getsize(served.disk) == size_mib << 20
        guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", served.disk)
        guestdisk.copy_image(served.disk, memory / "base.img")
        guest = guestdisk.GuestDisk(memory, served.disk)  # not entered: a name for what is mounted here
        with Endpoint(memory) as endpoint:
            with guestdisk.mounted(served.disk, guest.root, guard=guard), \
                    Daemon(tapwire, memory, served.disk, disk.ring, endpoint) as daemon:
                guest.sync("start")
                yield guest
                guest.sync("end")
                idle(daemon, endpoint)
            guestdisk.copy_image(served.disk, memory / "final.img")
            guest.image = os.fspath(memory / "final.img")
            check(tapwire, guest, endpoint.events())


def test_the_property_over_vhd(tapwire, tapdisk, memory, vhd_util):
    vhd = memory / "disk.vhd"
    guestdisk.run(vhd_util, "create", "-n", vhd, "-s", 512)
    disk = tapdisk.create("vhd:%s" % vhd)
    with followed_vhd(tapwire, memory, disk, 512) as guest:
        mix = Mix(guest.root, 3)
        for turn in range(3):
            mix.ops(500)
            guest.sync("turn %d" % turn)
        mix.close()
    # A VHD's blocks are allocated while the guest writes; its driver completes requests in parts.
    assert disk.stats()["writes"] > 100


def test_snapshots_under_load(tapwire, tapdisk, memory, vhd_util):
    """As a toolstack takes them: paused, a child of the VHD takes its place, and the guest goes on."""
    guestdisk.run(vhd_util, "create", "-n", memory / "0.vhd", "-s", 512)
    disk = tapdisk.create("vhd:%s" % (memory / "0.vhd"))
    taken = multiprocessing.Array("i", 1)

    def snapshot():
        with paused(disk):
            child = memory / ("%d.vhd" % (taken[0] + 1))
            guestdisk.run(vhd_util, "snapshot", "-n", child, "-p", memory / ("%d.vhd" % taken[0]))
            taken[0] += 1
            disk.stack("vhd:%s" % child)
    with followed_vhd(tapwire, memory, disk, 512) as guest:
        mix = Mix(guest.root, 4)
        with now_and_then(0.7, snapshot):
            end = time.monotonic() + 8
            while time.monotonic() < end:
                mix.ops(50)
                guest.sync("%d snapshots" % taken[0])
        mix.close()
    assert taken[0] > 3
    assert [image["driver"]["name"] for image in disk.images()] == ["tapwire"] + ["vhd"] * (taken[0] + 1)


@pytest.mark.parametrize("ring_size", ["64M", "64K"])
def test_pauses_under_load(tapwire, tapdisk, memory, ring_size):
    image = memory / "disk.img"
    mix = formatted(image, memory / "made")
    disk = tapdisk.create("aio:%s" % image, spec=",ring-size=" + ring_size)

    def pause():
        with paused(disk):
            time.sleep(0.1)
    with Endpoint(memory) as endpoint, \
            guestdisk.GuestDisk(memory, image, socket=disk.uri) as guest, \
            Daemon(tapwire, memory, image, disk.ring, endpoint) as daemon:
        guest.sync("start")
        mix.root = guest.root.encode()
        with now_and_then(0.4, pause) as pauses:
            end = time.monotonic() + 8
            while time.monotonic() < end:
                mix.ops(50)
        mix.close()
        guest.sync("end")
        idle(daemon, endpoint)
    assert pauses[0] > 5
    events = endpoint.events()
    assert any(event["type"] == "org.tapwire.disk.resynced" for event in events) == (ring_size == "64K")
    check(tapwire, guest, events)


# --- single requests ---

def connect(disk):
    client = nbd.NBD()
    client.connect_unix(disk.socket)
    return client


def storm(disk, seed, requests, ended=None, apart=False):
    """Random writes, 32 at a time; they may overlap, unless they are to be apart. ended: an event, before
    which the server may go."""
    rng, client = random.Random(seed), connect(disk)
    try:
        for number in range(requests):
            length = rng.choice((1, 3, 8, 64, 200)) * 512
            offset = rng.randrange((SIZE if rng.random() < 0.5 else 1 << 18) // 512 - 200) * 512
            if apart:
                offset = number * 7 % (SIZE // 102400) * 102400
            client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(rng.randbytes(length))), offset)
            while client.aio_in_flight() >= 32 or (number == requests - 1 and client.aio_in_flight()):
                if client.poll(100) == 0 and ended and ended.is_set():
                    return  # nobody answers any more
                reap(client)
            if ended and ended.is_set():
                return
    except nbd.Error:
        if not ended:
            raise


@contextlib.contextmanager
def storming(disk, seed):
    """A storm in another thread until the server is gone, or its requests stay unanswered."""
    ended = threading.Event()
    thread = threading.Thread(target=storm, args=(disk, seed, 1000000, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def reap(client):
    with contextlib.suppress(nbd.Error):  # "no commands are in flight"
        while (cookie := client.aio_peek_command_completed()) > 0:
            client.aio_command_completed(cookie)


class Storm(threading.Thread):
    """storm(), in another thread; what fails there fails join()."""

    def __init__(self, *args):
        super().__init__()
        self._args, self._error = args, None
        self.start()

    def run(self):
        try:
            storm(*self._args)
        except Exception as error:  # join() asks
            self._error = error

    def join(self, timeout=None):
        super().join(timeout)
        if self._error:
            raise self._error


def prepare(tapdisk, scratch, spec="", watched=True):
    image, replica = scratch / "disk.img", scratch / "replica.img"
    image.write_bytes(random.Random(0).randbytes(SIZE))
    shutil.copyfile(image, replica)
    return tapdisk.create("aio:%s" % image, spec=spec, watched=watched), image, replica


def follow(disk, image, replica, done=lambda: True):
    """Has the replica follow the ring until it is empty, and done; gaps are announced within a moment."""
    ring = Ring(disk.ring)
    end = time.monotonic() + 5
    seen = []
    while time.monotonic() < end:
        records = ring.follow(image, replica)
        seen += records
        if not records and done():
            break
        time.sleep(0.05)
    ring.close()
    return seen


def expect_replica(disk, image, replica):
    """What the ring tells makes the image of the replica."""
    seen = follow(disk, image, replica, lambda: filecmp.cmp(image, replica, shallow=False))
    assert filecmp.cmp(image, replica, shallow=False)
    return seen


@pytest.mark.parametrize("spec", ["", ",ring-size=64K"], ids=["large", "tiny"])
def test_a_storm_leaves_a_replica(tapdisk, memory, spec):
    disk, image, replica = prepare(tapdisk, memory, spec)
    storm(disk, 4, 3000)
    assert expect_replica(disk, image, replica)
    stats = disk.stats()
    assert stats["in_flight"] == stats["refused"] == 0


def test_a_killed_tapdisk_loses_nothing(tapdisk, memory):
    disk, image, replica = prepare(tapdisk, memory, ",ring-size=1M")
    for turn in range(3):
        with storming(disk, turn):
            time.sleep(0.7)
            tapdisk.kill()
        tapdisk.start()
        disk.attach()
        disk.open()
        expect_replica(disk, image, replica)


def test_a_close_under_load_loses_nothing(tapdisk, memory):
    """tapdisk 4.0.8 itself may crash here, with or without the driver: its NBD server counts a completion that comes
    after the close. Then it is as if it were killed."""
    disk, image, replica = prepare(tapdisk, memory)

    def close():
        with contextlib.suppress(RuntimeError):
            disk.close()
    closer = threading.Thread(target=close)
    with storming(disk, 9):
        time.sleep(0.5)
        # A tapdisk whose client does not stop does not come to an end of its requests.
        closer.start()
        time.sleep(0.5)
    closer.join()
    try:
        disk.open()
    except RuntimeError:
        assert not tapdisk.alive()
        tapdisk.kill()
        tapdisk.start()
        disk.attach()
        disk.open()
    expect_replica(disk, image, replica)


def test_several_disks_in_one_tapdisk(tapdisk, memory):
    disks = []
    for number in range(4):
        (memory / str(number)).mkdir()
        disks.append(prepare(tapdisk, memory / str(number)))
    threads = [threading.Thread(target=storm, args=(disk, number, 1000))
               for number, (disk, _, _) in enumerate(disks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for disk, image, replica in disks:
        expect_replica(disk, image, replica)


def test_a_mirror_beside_the_driver(tapdisk, memory):
    """tapdisk puts a mirror's target between a filter and its image; both are to get every write."""
    disk, image, replica = prepare(tapdisk, memory)
    shutil.copyfile(image, memory / "mirror.img")
    with mirror(memory) as server:
        disk.pause()
        disk.unpause("-2", "nbd:" + server.socket)
        # Of writes that overlap, image and mirror may keep different ones.
        storm(disk, 12, 1000, apart=True)
        expect_replica(disk, image, replica)
        assert filecmp.cmp(image, memory / "mirror.img", shallow=False)
        disk.pause()
        disk.unpause("-2", "null")
        storm(disk, 13, 200)
        expect_replica(disk, image, replica)


def test_a_mirror_that_dies_beside_the_driver(tapdisk, memory):
    """tapdisk takes it out of the chain in the middle of requests, and no write fails."""
    disk, image, replica = prepare(tapdisk, memory)
    shutil.copyfile(image, memory / "mirror.img")
    with mirror(memory) as server:
        disk.pause()
        disk.unpause("-2", "nbd:" + server.socket)
        writer = Storm(disk, 14, 4000)
        assert guestdisk.wait_until(lambda: disk.stats()["writes"] > 500, 30)
        server.kill()
        writer.join()
    assert [described["driver"]["name"] for described in disk.images()] == ["tapwire", "aio"]
    expect_replica(disk, image, replica)
    stats = disk.stats()
    assert stats["in_flight"] == stats["failed"] == 0
    assert stats["writes"] >= 4000


@contextlib.contextmanager
def mirror(directory):
    """Old-style: tapdisk's client asks for an export whose name ends in a NUL."""
    with points.Server(os.fspath(directory), "mirror", "file", "-o",
                       "file=%s" % (directory / "mirror.img")) as server:
        yield server


@pytest.mark.parametrize("mirrored", [False, True], ids=["alone", "mirrored"])
def test_a_write_that_fails_is_told_to_the_guest_alone(tapdisk, scratch, mirrored):
    """An image without room. With a mirror tapdisk would swallow the error, but for the driver above the image."""
    small, where, replica = scratch / "small.img", scratch / "small", scratch / "replica.img"
    guestdisk.make_image(small, "32M", ("-O", "^has_journal"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(guestdisk.mounted(small, where))
        image = where / "sparse"
        for path in (image, replica, scratch / "mirror.img"):
            path.touch()
            os.truncate(path, SIZE)
        server = stack.enter_context(mirror(scratch))
        disk = tapdisk.create("aio:%s" % image)
        stack.callback(disk.release)
        if mirrored:
            disk.pause()
            disk.unpause("-2", "nbd:" + server.socket)
        client = connect(disk)
        written = 0
        with pytest.raises(nbd.Error):
            while written < SIZE:
                client.pwrite(b"x" * 65536, written)
                written += 65536
        client.pwrite(b"y" * 4096, 0)  # there it has its blocks
        assert client.pread(4096, 0) == b"y" * 4096
        stats = disk.stats()
        assert (stats["writes"], stats["failed"]) == (written // 65536 + 1, 1)
        for record in follow(disk, image, replica):
            assert record.sector * 512 < written
        with open(image, "rb") as one, open(replica, "rb") as other:
            assert one.read(written) == other.read(written)
        del client


def test_the_counters_tell_what_happened(tapdisk, memory):
    """Nobody reads the ring, which is small; tapdisk is asked for its state (SIGUSR1) meanwhile."""
    disk, image, replica = prepare(tapdisk, memory, ",ring-size=64K")
    writer = Storm(disk, 15, 2000)
    while writer.is_alive():
        os.kill(tapdisk.pid, signal.SIGUSR1)
        stats = disk.stats()
        assert stats["state"] == "capturing" and stats["in_flight"] <= 32
        writer.join(0.05)
    writer.join()
    stats = disk.stats()
    assert stats["writes"] >= 2000
    assert stats["attached"] == 1
    assert stats["gaps"] <= 2  # there are two maps, and nobody who gives one back
    assert stats["failed"] == stats["refused"] == stats["uncaught"] == stats["in_flight"] == 0
    # A write is in the ring or in a map.
    assert stats["records"] + stats["missed"] >= stats["writes"]
    assert stats["unsure"] <= stats["missed"]
    assert expect_replica(disk, image, replica)
    assert disk.images()[1]["hits"][1] * 512 == stats["payload_bytes"] + stats["missed_bytes"]
    assert disk.stats()["gaps"] > stats["gaps"]


def test_without_a_directory_the_guest_is_served_all_the_same(tapdisk, memory):
    """And is captured when there is one, from a gap over all of the disk on."""
    disk, image, replica = prepare(tapdisk, memory, watched=False)
    client = connect(disk)
    client.pwrite(b"x" * 4096, 8192)
    stats = disk.stats()
    assert (stats["state"], stats["uncaught"]) == ("No such file or directory", 1)
    os.kill(tapdisk.pid, signal.SIGUSR1)
    with open(image, "rb") as file:
        assert os.pread(file.fileno(), 4096, 8192) == b"x" * 4096
    os.mkdir(tapdisk.rings, 0o700)
    assert guestdisk.wait_until(lambda: disk.stats()["state"] == "capturing", 30)
    client.pwrite(b"y" * 4096, 16384)
    expect_replica(disk, image, replica)
    assert disk.stats()["uncaught"] == 1


def test_a_disk_that_is_read_only_has_no_ring(tapdisk, memory):
    """tapdisk hands no flag of its own to a chain: its lines say it."""
    image = memory / "disk.img"
    image.write_bytes(random.Random(0).randbytes(SIZE))
    disk = tapdisk.create("aio:%s ro" % image, spec=" ro")
    client = connect(disk)
    assert client.pread(4096, 4096) == image.read_bytes()[4096:8192]
    with pytest.raises(nbd.Error):
        client.pwrite(b"x" * 4096, 4096)
    assert disk.stats() == {"state": "read only", "uncaught": 0}
    assert not os.listdir(tapdisk.rings)
