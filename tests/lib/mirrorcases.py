# SPDX-License-Identifier: BSD-3-Clause
"""What holds of a guest that is watched through a mirror, whoever plays the tapdisk: test modules import these
and have a fixture `tapdisk`, a function (directory, image) that makes one."""
import os
import signal
import threading
import time

import pytest

from . import guestdisk, mirror, property, tree
from .calls import sync_fs
from .endpoint import Endpoint
from .workload import Mix

BOUND_MS = 500
MARGIN_S = 5  # for a machine that is busy with other things


def populated(directory, seed, ops=500, size="256M"):
    """An image that may have a mirror, with files in it, and the mix that made them."""
    image = directory / "disk.img"
    guestdisk.make_image(image, size)
    with guestdisk.mounted(image, directory / "made") as root:
        mix = Mix(root, seed)
        mix.ops(ops)
        mix.close()
        sync_fs(root)
    mirror.allocate(image)
    guestdisk.copy_image(image, directory / "base.img")
    return image, mix


def told(tapwire, disk, endpoint):
    """The tree that the events have told of so far."""
    state = tapwire.crawl(disk.base)
    for event in endpoint.events():
        state.apply(event)
    return state


def wait_for(tapwire, disk, endpoint, service, seconds=60):
    """Until what has arrived gives the last sync's tree."""
    listing = disk.syncs[-1].listing

    def arrived():
        time.sleep(0.2)
        return told(tapwire, disk, endpoint).listing() == listing
    if not guestdisk.wait_until(arrived, seconds):
        property.expect_equal(listing, told(tapwire, disk, endpoint).listing(), "at the end\n" + service.said())


def check_end(tapwire, disk, endpoint):
    """What arrived, whole and in order, gives the tree of the image."""
    endpoint.finish()
    events = endpoint.events()
    tree.check_sequence(events)
    state = told(tapwire, disk, endpoint)
    property.expect_equal(disk.syncs[-1].listing, state.listing(), "events at the end")
    property.expect_equal(disk.syncs[-1].listing, tapwire.crawl(disk.image).listing(), "the image at the end")
    property.check_content(tapwire, disk, state)
    return events


def count(events, kind):
    return sum(event["type"] == "org.tapwire." + kind for event in events)


def test_a_running_guest_is_watched(tapwire, memory, tapdisk):
    """Attached to while it is mounted; then every event comes, at every sync, and nothing else."""
    image, mix = populated(memory, 1)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend:
        with guestdisk.GuestDisk(memory, image, socket=disk_backend.socket, record=False) as disk:
            disk.sync("start")
            guestdisk.copy_image(image, disk.base)
            with mirror.Attached(tapwire, memory, image, endpoint, disk_backend) as service:
                assert disk_backend.mirrored()
                mix.root = disk.root.encode()
                mix.ops(600, 200, lambda done: disk.sync("operation %d" % done))
                mix.close()
                disk.sync("end")
                wait_for(tapwire, disk, endpoint, service)
            assert not disk_backend.mirrored()
            os.mkdir(os.path.join(disk.root, "nobody watches"))
            sync_fs(disk.root)
            os.rmdir(os.path.join(disk.root, "nobody watches"))
            sync_fs(disk.root)
            assert disk.sync("after").listing.keys() == disk.syncs[-2].listing.keys()
        events = endpoint.events()
    disk.syncs.pop()
    tree.check_sequence(events)
    assert count(events, "disk.resynced") == 0
    state = tapwire.crawl(disk.base)
    left = events
    for sync in disk.syncs:
        left = property.apply_until(state, left, sync.clock_ns)
        property.expect_equal(sync.listing, state.listing(), "at %s" % sync.label)
    assert not guestdisk.left_below(memory)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_sink_that_fails_costs_a_resync(tapwire, memory, tapdisk, how):
    """In the middle of writes: the guest goes on, and the events lead to the tree."""
    image, mix = populated(memory, 2)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend, \
            mirror.Attached(tapwire, memory, image, endpoint, disk_backend, "--stall", BOUND_MS) as service:
        with guestdisk.GuestDisk(memory, image, socket=disk_backend.socket, record=False) as disk:
            mix.root = disk.root.encode()
            worker = threading.Thread(target=mix.ops, args=(600, 50, lambda _done: sync_fs(disk.root)))
            worker.start()
            try:
                time.sleep(0.3)
                service.hurt(how)
            finally:
                worker.join()
                mix.close()
            disk.sync("end")
            wait_for(tapwire, disk, endpoint, service)
            killed = service.status()["mirror"]["killed"]
        service.stop()
        events = check_end(tapwire, disk, endpoint)
    assert count(events, "disk.resynced") >= 1
    assert [event for event in events if event["data"].get("resync")]
    assert killed == (how == signal.SIGSTOP)


def ends_within(guest, data, offset, seconds):
    """Writes, and says whether that ended in time."""
    import nbd
    deadline = time.monotonic() + seconds
    cookie = guest.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset)
    while not guest.aio_command_completed(cookie):
        if time.monotonic() > deadline:
            return False
        guest.poll(50)
    return True


def test_a_write_waits_no_longer_than_the_bound(tapwire, memory, tapdisk):
    """The one test of a time: the sink is stopped, and a write that comes then ends within the bound."""
    nbd = pytest.importorskip("nbd", reason="needs Debian's python3-libnbd")
    image, _ = populated(memory, 3, ops=20, size="64M")
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend, \
            mirror.Attached(tapwire, memory, image, endpoint, disk_backend, "--stall", BOUND_MS) as service:
        guest = nbd.NBD()
        guest.connect_unix(disk_backend.socket)
        end = image.stat().st_size - 4096
        was = guest.pread(4096, end)
        guest.pwrite(was, end)
        for _ in range(3):
            os.kill(service.pid("nbdkit"), signal.SIGSTOP)
            assert ends_within(guest, was, end, BOUND_MS / 1000 + MARGIN_S)
            sessions = service.status()["mirror"]["sessions"]
            service.wait_live(sessions + 1)
        del guest  # tapdisk answers a farewell, which nobody expects


@pytest.mark.slow
def test_attach_while_the_guest_writes(tapwire, memory, tapdisk):
    """Attached to, left, and attached to again in the middle of writes: exact each time."""
    image, mix = populated(memory, 4)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend:
        with mirror.Attached(tapwire, memory, image, endpoint, disk_backend):
            pass  # the tree that the events of later attachments start from is the base's
        with guestdisk.GuestDisk(memory, image, socket=disk_backend.socket, record=False) as disk:
            mix.root = disk.root.encode()
            worker = threading.Thread(target=mix.ops, args=(1000, 50, lambda _done: sync_fs(disk.root)))
            worker.start()
            try:
                for _ in range(3):
                    with mirror.Attached(tapwire, memory, image, endpoint, disk_backend) as service:
                        service.wait_live()
                        time.sleep(0.2)
            finally:
                worker.join()
                mix.close()
            with mirror.Attached(tapwire, memory, image, endpoint, disk_backend) as service:
                service.wait_live()
                disk.sync("end")
                wait_for(tapwire, disk, endpoint, service)
        check_end(tapwire, disk, endpoint)


@pytest.mark.slow
def test_a_ring_that_runs_over_costs_a_new_session(tapwire, memory, tapdisk):
    image, mix = populated(memory, 5)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend, mirror.Attached(
            tapwire, memory, image, endpoint, disk_backend, "--ring-size", "64K") as service:
        with guestdisk.GuestDisk(memory, image, socket=disk_backend.socket, record=False) as disk:
            mix.root = disk.root.encode()
            with open(os.path.join(disk.root, "large"), "wb") as large:
                large.write(bytes(32 << 20))
            mix.ops(500, 100, lambda _done: sync_fs(disk.root))
            mix.close()
            disk.sync("end")
            wait_for(tapwire, disk, endpoint, service)
            assert service.status()["mirror"]["sessions"] > 1
        service.stop()
        events = check_end(tapwire, disk, endpoint)
    assert count(events, "disk.resynced") >= 1


@pytest.mark.slow
@pytest.mark.parametrize("part", ["tapwire-inspect", "tapwire-courier"])
def test_a_part_that_is_killed_loses_nothing(tapwire, memory, tapdisk, part):
    image, mix = populated(memory, 6)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend, \
            mirror.Attached(tapwire, memory, image, endpoint, disk_backend) as service:
        with guestdisk.GuestDisk(memory, image, socket=disk_backend.socket, record=False) as disk:
            mix.root = disk.root.encode()
            mix.ops(300)
            service.kill(part)
            mix.ops(300)
            mix.close()
            disk.sync("end")
            wait_for(tapwire, disk, endpoint, service)
            assert service.status()["mirror"]["sessions"] == 1
        service.stop()
        assert count(check_end(tapwire, disk, endpoint), "disk.resynced") == 0


@pytest.mark.slow
def test_the_guest_goes_on_when_all_of_tapwire_is_killed(tapwire, memory, tapdisk):
    """And the next start finds out what it missed."""
    image, mix = populated(memory, 7)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend:
        with guestdisk.GuestDisk(memory, image, socket=disk_backend.socket, record=False) as disk:
            mix.root = disk.root.encode()
            with pytest.raises(ZeroDivisionError):  # leaves it with SIGKILL to all of it
                with mirror.Attached(tapwire, memory, image, endpoint, disk_backend):
                    mix.ops(200)
                    raise ZeroDivisionError
            mix.ops(300)
            disk.sync("alone")
            assert not disk_backend.mirrored()
            with mirror.Attached(tapwire, memory, image, endpoint, disk_backend) as service:
                mix.ops(200)
                mix.close()
                disk.sync("end")
                wait_for(tapwire, disk, endpoint, service)
        check_end(tapwire, disk, endpoint)


@pytest.mark.slow
def test_somebody_elses_pause_is_survived(tapwire, memory, tapdisk):
    """A toolstack pauses and goes on, as it does for a snapshot: tapdisk comes back to the mirror by itself."""
    image, mix = populated(memory, 8)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as disk_backend, \
            mirror.Attached(tapwire, memory, image, endpoint, disk_backend) as service:
        with guestdisk.GuestDisk(memory, image, socket=disk_backend.socket, record=False) as disk:
            mix.root = disk.root.encode()
            mix.ops(200)
            disk_backend.pause()
            time.sleep(0.5)
            disk_backend.unpause()
            service.wait_live()
            mix.ops(200)
            mix.close()
            disk.sync("end")
            wait_for(tapwire, disk, endpoint, service)
        service.stop()
        check_end(tapwire, disk, endpoint)
