# SPDX-License-Identifier: BSD-3-Clause
"""Gaps all the time, an inspector that dies every second, one that is stopped while the guest goes on: the guest
feels nothing, what arrives gives the final tree, and only what was missed is looked at again."""
import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest

from lib import configs, guestdisk, property, tree
from lib.calls import sync_fs
from lib.endpoint import Endpoint
from lib.service import Service
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

SMALL_RING = ("--ring-size", "64K")
INSPECTOR = "tapwire-inspect"
# (mkfs options, mount options)
CONFIGS = {
    "ordered": ((), ""),
    "journal": ((), "data=journal"),
    "no-checksums": (("-O", "^metadata_csum"), ""),
    "small-journal": (("-b", "1024", "-J", "size=1"), "commit=1"),
    "async-commit": ((), "data=writeback,journal_async_commit"),
    "no-journal": (("-O", "^has_journal"), ""),
}
FAST = ("fast-commit-only", "fast-commit-1k", "fast-commit-wraps")
CONFIGS.update((name, (configs.CONFIGS[name].mkfs[2:], "")) for name in ("fast-commit", *FAST))


def populated(directory, seed, mkfs=(), ops=400, size="1G", kinds=None):
    image = directory / "disk.img"
    guestdisk.make_image(image, size, mkfs)
    with guestdisk.mounted(image, directory / "made") as root:
        mix = Mix(root, seed, kinds)
        mix.ops(ops)
        mix.close()
        sync_fs(root)
    guestdisk.copy_image(image, directory / "base.img")
    return image, mix


def check_end(tapwire, disk, endpoint, service):
    """What arrives in the end is the last sync's tree, and the image's, and every byte that changed is in a
    range. Returns the events."""
    end = disk.syncs[-1]

    def arrived():
        state = tapwire.crawl(disk.base)
        for event in endpoint.events():
            state.apply(event)
        time.sleep(0.2)
        return state.listing() == end.listing
    assert guestdisk.wait_until(arrived, 90), service.said()
    service.stop()
    endpoint.finish()
    events = endpoint.events()
    disk.syncs = [disk.syncs[0], end]
    end.clock_ns = 1 << 62
    state = property.check_events(tapwire, disk, events)
    property.check_content(tapwire, disk, state)
    return events


def resynced(events):
    return [event["data"] for event in events if event["type"] == "org.tapwire.disk.resynced"]


@pytest.mark.parametrize("name", CONFIGS)
def test_gaps_all_the_time(tapwire, memory, seed, name):
    mkfs, options = CONFIGS[name]
    image, mix = populated(memory, seed, mkfs, kinds=configs.FAST if name in FAST else None)
    with Endpoint(memory) as endpoint, Service(tapwire, memory, image, endpoint, *SMALL_RING) as service:
        with guestdisk.GuestDisk(memory, image, socket=service.socket, options=options) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            mix.ops(1200, 400, disk.sync)
            mix.close()
            disk.sync("end")
        events = check_end(tapwire, disk, endpoint, service)
        said = service.said()
    assert len(resynced(events)) > 1, "no gaps: the test tested nothing"
    assert all(event["data"].get("resync") for event in events if "reason" in event["data"]
               and event["type"].endswith(".resynced"))
    assert "crawling: " not in said, said


test_gaps_all_the_time.seeds = [21]


@contextlib.contextmanager
def working(mix, root):
    """Works on the disk and syncs, until the block ends."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            mix.ops(100)
            sync_fs(root)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
        mix.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ordered", "small-journal", "no-journal"])
def test_killed_every_second(tapwire, memory, name):
    mkfs, options = CONFIGS[name]
    image, mix = populated(memory, 22, mkfs)
    with Endpoint(memory) as endpoint, Service(tapwire, memory, image, endpoint, *SMALL_RING) as service:
        with guestdisk.GuestDisk(memory, image, socket=service.socket, options=options) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            with working(mix, disk.root):
                for _ in range(5):
                    time.sleep(1)
                    service.kill(INSPECTOR)
            disk.sync("end")
        events = check_end(tapwire, disk, endpoint, service)
    assert resynced(events)


@pytest.mark.parametrize("name", ["ordered", "no-journal"])
def test_stopped_while_the_guest_goes_on(tapwire, memory, name):
    """The span of the resync is the time in which nobody looked."""
    mkfs, options = CONFIGS[name]
    image, mix = populated(memory, 23, mkfs)
    with Endpoint(memory) as endpoint, Service(tapwire, memory, image, endpoint, *SMALL_RING) as service:
        with guestdisk.GuestDisk(memory, image, socket=service.socket, options=options) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            mix.ops(100)
            disk.sync("before")
            inspector = service.pid(INSPECTOR)
            os.kill(inspector, signal.SIGSTOP)
            stopped_ns = time.time_ns()
            mix.ops(500, 100, lambda _: sync_fs(disk.root))
            time.sleep(1)
            started_ns = time.time_ns()
            os.kill(inspector, signal.SIGCONT)
            mix.ops(100)
            mix.close()
            disk.sync("end")
        events = check_end(tapwire, disk, endpoint, service)
    longest = max(resynced(events), key=lambda data: tree.rfc3339(data["to"]) - tree.rfc3339(data["from"]))
    assert tree.rfc3339(longest["to"]) - tree.rfc3339(longest["from"]) > (started_ns - stopped_ns) / 2
    assert longest["bytes"] > 0


@pytest.mark.parametrize("name", ["ordered", "fast-commit"])
def test_a_small_gap_on_a_large_volume_reads_little(tapwire, memory, name):
    image = memory / "disk.img"
    guestdisk.make_image(image, "2G", CONFIGS[name][0])
    with guestdisk.mounted(image, memory / "made") as root:
        for name in range(20):
            os.mkdir("%s/d%d" % (root, name))
            for file in range(1500):
                with open("%s/d%d/file-with-a-name-%d" % (root, name, file), "wb"):
                    pass
    guestdisk.copy_image(image, memory / "base.img")
    with Endpoint(memory) as endpoint, Service(tapwire, memory, image, endpoint, *SMALL_RING) as service:
        with guestdisk.GuestDisk(memory, image, socket=service.socket) as disk:
            disk.sync("start")
            assert guestdisk.wait_until(lambda: service.status().get("read_bytes"), 20)
            crawl = service.status()["read_bytes"]
            inspector = service.pid(INSPECTOR)
            for turn in range(3):
                os.kill(inspector, signal.SIGSTOP)
                # Twice the ring, at least, in transactions: the content of the file may be passed as a range.
                with open("%s/d3/grows" % disk.root, "ab") as file:
                    file.write(b"x" * 300000)
                    for number in range(20):
                        was = "%s/d%d/file-with-a-name-%d" % (disk.root, number, turn)
                        if name == "fast-commit":
                            os.link(was, "%s/d%d/linked-%d" % (disk.root, number, turn))
                            with open(was, "wb") as linked:
                                linked.write(b"x")
                                linked.flush()
                                os.fsync(linked.fileno())
                        else:
                            os.rename(was, "%s/d%d/moved-%d-%d" % (disk.root, (number + 1) % 20, number, turn))
                if name == "ordered":
                    sync_fs(disk.root)
                os.kill(inspector, signal.SIGCONT)
                assert guestdisk.wait_until(lambda: service.status().get("resyncs", 0) > turn, 30), service.said()
            disk.sync("end")
            assert guestdisk.wait_until(lambda: service.status().get("lag_bytes") == 0, 30)
            time.sleep(1.2)  # status.json
            now = service.status()
        check_end(tapwire, disk, endpoint, service)
        said = service.said()
    assert now["resyncs"] >= 3 and "crawling: " not in said, said
    read = now["read_bytes"] - crawl
    assert read < now["resyncs"] * crawl / 10, "%d resyncs read %d bytes, the crawl %d" % (now["resyncs"], read, crawl)


def test_a_guest_that_never_rests_is_kept_up_with(tapwire, memory):
    """Metadata all the time, faster than the ring: the resyncs end, and events go on."""
    image, mix = populated(memory, 24)
    with Endpoint(memory) as endpoint, Service(tapwire, memory, image, endpoint, *SMALL_RING) as service:
        with guestdisk.GuestDisk(memory, image, socket=service.socket) as disk:
            disk.sync("start")
            mix.root = disk.root.encode()
            with working(mix, disk.root):
                for more in (1, 3, 10):
                    assert guestdisk.wait_until(lambda: service.status().get("resyncs", 0) >= more, 60), \
                        service.said()
                    assert guestdisk.wait_until(lambda: len(resynced(endpoint.events())) >= more, 60)
            disk.sync("end")
        check_end(tapwire, disk, endpoint, service)
        said = service.said()
    assert "crawling: " not in said and "waiting" not in said, said


def test_the_guest_feels_nothing(tapwire, memory):
    """What it has written is what it reads, while the ring overflows and the inspector is stopped and killed."""
    image, _ = populated(memory, 25, ops=50)
    with Endpoint(memory) as endpoint, Service(tapwire, memory, image, endpoint, *SMALL_RING) as service:
        with guestdisk.GuestDisk(memory, image, socket=service.socket) as disk:
            disk.sync("start")
            job = subprocess.Popen(
                ["fio", "--name=verify", "--filename=%s/fio" % disk.root, "--size=24M", "--rw=randwrite",
                 "--bsrange=512-64k", "--iodepth=16", "--ioengine=libaio", "--direct=1", "--verify=crc32c",
                 "--verify_backlog=256", "--verify_fatal=1", "--loops=3", "--fsync=64", "--minimal"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=memory)
            hurts = 0
            try:
                while job.poll() is None:
                    inspector = service.pid(INSPECTOR)
                    if inspector and hurts % 3:
                        os.kill(inspector, signal.SIGSTOP)
                        time.sleep(0.3)
                        os.kill(inspector, signal.SIGCONT)
                    elif inspector:
                        service.kill(INSPECTOR)
                    hurts += 1
                    time.sleep(0.3)
            finally:
                job.kill()
                said = job.communicate()[0].decode(errors="replace")
            assert job.returncode == 0, said
            disk.sync("end")
        events = check_end(tapwire, disk, endpoint, service)
    assert hurts > 1 and resynced(events)
