# SPDX-License-Identifier: BSD-3-Clause
"""Selective capture: file data that nobody wants passes the ring as ranges, and what turns out to be metadata
after it was written is followed all the same."""
import os
import signal
import time

import pytest

from lib import guestdisk, property
from lib.calls import sync_fs
from lib.endpoint import Endpoint
from lib.service import Service
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

BULK = 48 << 20
SMALL_JOURNAL = ("-J", "size=4")


def image_of(scratch, *mkfs):
    image = scratch / "disk.img"
    guestdisk.make_image(image, "512M", mkfs)
    with guestdisk.mounted(image, scratch / "made") as root:
        sync_fs(root)
    guestdisk.copy_image(image, scratch / "base.img")
    return image


def wait_for_status(service, good):
    assert guestdisk.wait_until(lambda: good(service.status()), 60), service.status()


def write(path, size):
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())


def check(tapwire, disk, endpoint):
    endpoint.finish()
    events = endpoint.events()
    state = property.check_events(tapwire, disk, events)
    property.check_content(tapwire, disk, state)
    return events


def quiet(service):
    """What has been written so far has been read."""
    time.sleep(1.1)  # the status is that old at most
    wait_for_status(service, lambda seen: not seen["lag_bytes"])
    return service.status()


def test_bulk_data_passes_as_ranges(tapwire, scratch):
    image = image_of(scratch)
    with Endpoint(scratch) as endpoint, Service(tapwire, scratch, image, endpoint) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            os.mkdir(os.path.join(disk.root, "the-journal-is-in-use-from-here-on"))
            sync_fs(disk.root)
            before = quiet(service)
            write(os.path.join(disk.root, "bulk"), BULK)
            sync_fs(disk.root)
            after = quiet(service)
            os.makedirs(os.path.join(disk.root, "dir/below"))
            disk.sync("end")
        service.stop()
        events = check(tapwire, disk, endpoint)
    assert after["spared_bytes"] - before["spared_bytes"] >= BULK
    assert after["captured_bytes"] - before["captured_bytes"] < BULK // 16
    assert not after["resyncs"] and not after["gaps"]
    ranges = [event["data"]["ranges"] for event in events
              if event.get("subject") == "/bulk" and "ranges" in event["data"]]
    assert sum(length for some in ranges for _, length in some) >= BULK


def test_all_is_captured_of_a_volume_without_a_journal(tapwire, scratch):
    image = image_of(scratch, "-O", "^has_journal")
    with Endpoint(scratch) as endpoint, Service(tapwire, scratch, image, endpoint) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            write(os.path.join(disk.root, "bulk"), 8 << 20)
            disk.sync("end")
            after = quiet(service)
        service.stop()
        check(tapwire, disk, endpoint)
    assert after["captured_bytes"] >= 8 << 20


def test_what_becomes_metadata_while_nobody_looks(tapwire, scratch):
    """The inspector is stopped while blocks become directories, are checkpointed to their homes, and are freed
    and taken again: the map is out of date for all of that."""
    image = image_of(scratch, *SMALL_JOURNAL)
    with Endpoint(scratch) as endpoint, Service(tapwire, scratch, image, endpoint) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            mix = Mix(disk.root, 3)
            mix.ops(200)
            sync_fs(disk.root)
            before = quiet(service)
            pid = service.pid("tapwire-inspect")
            os.kill(pid, signal.SIGSTOP)
            try:
                for turn in range(4):
                    for number in range(60):
                        os.makedirs(os.path.join(disk.root, "turn%d/%d/below" % (turn, number)))
                    mix.ops(300)
                    sync_fs(disk.root)
                    if turn:
                        for number in range(60):
                            os.removedirs(os.path.join(
                                disk.root, "turn%d/%d/below" % (turn - 1, number)))
            finally:
                os.kill(pid, signal.SIGCONT)
            mix.ops(200)
            mix.close()
            disk.sync("end")
            after = quiet(service)
        service.stop()
        check(tapwire, disk, endpoint)
    assert after["spared_bytes"] > before["spared_bytes"]
    assert not after["resyncs"] and not after["gaps"], service.said()
