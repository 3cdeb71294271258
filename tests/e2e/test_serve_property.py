# SPDX-License-Identifier: BSD-3-Clause
"""`tapwire serve`: what the kernel writes to a mounted disk arrives at an HTTP endpoint, whoever is
killed meanwhile, and the property holds for what arrived."""
import os
import random
import threading
import time

import pytest

from lib import guestdisk, named, property, tree
from lib.calls import sync_fs
from lib.endpoint import Endpoint
from lib.service import Service
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

PARTS = ("tapwire-inspect", "tapwire-courier")


def populated(scratch, seed, ops=1000, size="1G"):
    image = scratch / "disk.img"
    guestdisk.make_image(image, size)
    with guestdisk.mounted(image, scratch / "made") as root:
        mix = Mix(root, seed)
        mix.ops(ops)
        mix.close()
        sync_fs(root)
    guestdisk.copy_image(image, scratch / "base.img")
    return image, mix


def check_arrived(tapwire, disk, endpoint):
    """Nothing is missing, nothing came twice, and the events give the tree at every sync, or after
    a resync at least the final one. Returns the events."""
    endpoint.finish()
    events = endpoint.events()
    if any(event["type"] == "org.tapwire.disk.resynced" for event in events):
        disk.syncs = [disk.syncs[0], disk.syncs[-1]]
        disk.syncs[-1].clock_ns = 1 << 62
    state = property.check_events(tapwire, disk, events)
    property.check_content(tapwire, disk, state)
    return events


def what(events):
    """Events of files without who and when: what a trace of the same writes must give, too."""
    return [(event["type"], event["subject"],
             {key: value for key, value in event["data"].items() if key != "domain"})
            for event in events if event["type"].startswith(tree.PREFIX)]


def wait_for(tapwire, disk, endpoint, service, seconds=60):
    """Until what has arrived gives the last sync's tree."""
    listing = disk.syncs[-1].listing

    def arrived():
        state = tapwire.crawl(disk.base)
        for event in endpoint.events():
            state.apply(event)
        time.sleep(0.2)
        return state.listing() == listing
    assert guestdisk.wait_until(arrived, seconds), service.said()


def test_arrives_while_mounted(tapwire, scratch):
    image, mix = populated(scratch, 1)
    trace = scratch / "trace"
    with Endpoint(scratch) as endpoint, \
            Service(tapwire, scratch, image, endpoint, "--record", trace) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            mix.ops(2000, 500, lambda done: disk.sync("operation %d" % done))
            mix.close()
            disk.sync("end")
            wait_for(tapwire, disk, endpoint, service)
        service.stop()
        events = check_arrived(tapwire, disk, endpoint)
    assert what(events) == what(tapwire.infer(disk.base, trace))
    assert not guestdisk.left_below(scratch)


@pytest.mark.slow
def test_unpack_archive(tapwire, scratch):
    image, _ = populated(scratch, 2)
    with Endpoint(scratch) as endpoint, Service(tapwire, scratch, image, endpoint) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            named.doc(disk.root, disk.sync)
        service.stop()
        check_arrived(tapwire, disk, endpoint)


def hurt(service, victims, seed, busy, most=40):
    """kill -9 at random moments while busy() says so; returns how often."""
    rnd = random.Random(seed)
    kills = 0
    while busy() and kills < most:
        time.sleep(rnd.uniform(0.02, 0.5))
        service.kill(rnd.choice(victims))
        kills += 1
    return kills


@pytest.mark.slow
@pytest.mark.parametrize("victims", [PARTS[:1], PARTS[1:], PARTS],
                         ids=["inspector", "courier", "both"])
def test_killed_in_the_middle(tapwire, scratch, seed, victims):
    image, mix = populated(scratch, seed)
    with Endpoint(scratch) as endpoint, Service(tapwire, scratch, image, endpoint) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            worker = threading.Thread(target=mix.ops, args=(20000, 1000, disk.sync))
            worker.start()
            try:
                kills = hurt(service, victims, seed, worker.is_alive)
            finally:
                worker.join()
                mix.close()
            disk.sync("end")
        wait_for(tapwire, disk, endpoint, service)
        service.stop()
        check_arrived(tapwire, disk, endpoint)
    assert kills > 3


test_killed_in_the_middle.seeds = [5]


def test_killed_once(tapwire, scratch):
    """One kill of each, in a minute's worth of nothing much."""
    image, mix = populated(scratch, 6)
    with Endpoint(scratch) as endpoint, Service(tapwire, scratch, image, endpoint) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            for part in PARTS:
                mix.ops(300)
                service.kill(part)
                mix.ops(300)
                disk.sync(part)
            mix.close()
            disk.sync("end")
        wait_for(tapwire, disk, endpoint, service)
        service.stop()
        check_arrived(tapwire, disk, endpoint)


@pytest.mark.parametrize("part", PARTS)
def test_killed_and_stopped_at_once(tapwire, scratch, part):
    """A stop that finds a part dead: what is not delivered by then is delivered by the next
    start."""
    image, mix = populated(scratch, 10)
    with Endpoint(scratch) as endpoint:
        with Service(tapwire, scratch, image, endpoint) as service:
            with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
                disk.sync("start")
                mix.root = disk.root.encode()
                mix.ops(300)
                service.kill(part)
                mix.ops(300)
                mix.close()
                disk.sync("end")
        with Service(tapwire, scratch, image, endpoint) as service:
            wait_for(tapwire, disk, endpoint, service)
        check_arrived(tapwire, disk, endpoint)


@pytest.mark.parametrize("ops", [1500, pytest.param(20000, marks=pytest.mark.slow)])
def test_tiny_ring(tapwire, scratch, ops):
    """The ring overflows: the guest goes on, and the events that mend the view say so."""
    image, mix = populated(scratch, 7)
    with Endpoint(scratch) as endpoint, \
            Service(tapwire, scratch, image, endpoint, "--ring-size", "64K") as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            mix.ops(ops, ops // 5, disk.sync)
            mix.close()
            disk.sync("end")
        service.stop()
        events = check_arrived(tapwire, disk, endpoint)
    assert any(event["data"].get("resync") for event in events), "no gap: the test tested nothing"
    check_spans(events)


def check_spans(events):
    """Each resync sums up a span of time behind the one before, and the bytes that were missed."""
    spans = [event["data"] for event in events if event["type"] == "org.tapwire.disk.resynced"]
    assert spans
    for before, data in zip([None] + spans, spans):
        start, end = tree.rfc3339(data["from"]), tree.rfc3339(data["to"])
        assert start <= end and data["bytes"] > 0 and data["bytes"] % 512 == 0, data
        assert not before or tree.rfc3339(before["to"]) <= start


def test_restart(tapwire, scratch):
    """The service is stopped, the disk changes unwatched, the service starts again: the events
    say what was missed."""
    image, mix = populated(scratch, 8)
    with Endpoint(scratch) as endpoint:
        for turn in range(2):
            with Service(tapwire, scratch, image, endpoint) as service:
                with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
                    if not turn:
                        start = disk.sync("start")
                    mix.root = disk.root.encode()
                    mix.ops(500)
                    mix.close()
                    disk.sync("end of turn %d" % turn)
            if turn:
                break
            with guestdisk.mounted(image, scratch / "unwatched") as root:
                mix.root = os.fsencode(root)
                mix.ops(300)
                mix.close()
                sync_fs(root)
        disk.syncs = [start, disk.syncs[-1]]
        check_arrived(tapwire, disk, endpoint)


def test_refused_for_a_while(tapwire, scratch):
    """An endpoint that answers 503 at first gets everything in the end."""
    image, mix = populated(scratch, 9)
    with Endpoint(scratch, "--fail", "4:503") as endpoint, \
            Service(tapwire, scratch, image, endpoint) as service:
        with guestdisk.GuestDisk(scratch, image, socket=service.socket) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            mix.ops(300, 100, disk.sync)
            mix.close()
            disk.sync("end")
        assert guestdisk.wait_until(endpoint.events, 60), service.said()
        service.stop()
        check_arrived(tapwire, disk, endpoint)
