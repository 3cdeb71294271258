# SPDX-License-Identifier: BSD-3-Clause
"""The SHA-256 of files that have been quiet: of what they held at that event, told once, and never of a mixture."""
import contextlib
import hashlib
import os
import random
import signal
import time

import pytest

from lib import guestdisk
from lib.daemon import Daemon
from lib.endpoint import Endpoint

MODES = {
    "ordered": ((), ""),
    "small-blocks": (("-b", "1024"), ""),
    "inline": (("-O", "inline_data"), ""),
    "fast-commit": (("-O", "fast_commit"), ""),
    "no-journal": (("-O", "^has_journal"), ""),
    "bigalloc": (("-O", "bigalloc", "-C", "16384"), ""),
}
ASKS = "sha256 = yes\nsha256_quiet = 2s\n"


def settled(endpoint, path=None):
    return [event for event in endpoint.events() if event["type"] == "org.tapwire.file.settled"
            and path in (None, event["subject"])]


def digest(disk, path):
    with open(disk.root + path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def write(disk, path, data, mode="wb"):
    with open(disk.root + path, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def is_told(disk, endpoint, path, times=1):
    """That many events, the last of which is what the mount shows."""
    told = settled(endpoint, path)
    return len(told) >= times and told[-1]["data"].get("sha256") == digest(disk, path) \
        and told[-1]["data"]["size"] == os.path.getsize(disk.root + path)


def await_told(disk, daemon, endpoint, path, times=1, seconds=60):
    assert guestdisk.wait_until(lambda: is_told(disk, endpoint, path, times), seconds), \
        "%s: %r, is %s\n%s" % (path, [event["data"] for event in settled(endpoint, path)], digest(disk, path),
                               daemon.said())
    assert len(settled(endpoint, path)) == times


@contextlib.contextmanager
def watched(tapwire, memory, target=ASKS, size="256M", mkfs=(), options="", ring="16M"):
    image, path = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, size, mkfs)
    with Endpoint(memory) as endpoint, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, options=options, record=False,
                                plugin_args=("ring=%s" % path, "ring-size=%s" % ring)) as disk, \
            Daemon(tapwire, memory, image, path, endpoint, target=target) as daemon:
        yield disk, daemon, endpoint
    endpoint.finish()


@pytest.mark.parametrize("name", MODES)
def test_a_quiet_file_is_told_with_its_digest(tapwire, memory, name):
    mkfs, options = MODES[name]
    rng = random.Random(5)
    with watched(tapwire, memory, mkfs=mkfs, options=options) as (disk, daemon, endpoint):
        write(disk, "/empty", b"")
        write(disk, "/tiny", b"x" * 60)
        write(disk, "/small", rng.randbytes(777))
        write(disk, "/large", rng.randbytes(3000001))
        write(disk, "/linked", b"linked")
        os.link(disk.root + "/linked", disk.root + "/link")
        with open(disk.root + "/holes", "wb") as file:
            file.write(b"begin")
            file.seek(5000000)
            file.write(b"end")
            os.posix_fallocate(file.fileno(), 6000000, 100000)
        os.symlink("tiny", disk.root + "/symlink")
        os.mkdir(disk.root + "/dir")
        end = time.time()
        disk.sync("written")
        for path in ("/empty", "/tiny", "/small", "/large", "/holes", "/linked", "/link"):
            await_told(disk, daemon, endpoint, path)
        for event in settled(endpoint):
            assert event["data"]["kind"] == "file" and "sha256_left_out" not in event["data"]
        write(disk, "/small", b"more", "ab")
        await_told(disk, daemon, endpoint, "/small", 2)
        earliest = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(end + 2))
        assert settled(endpoint, "/small")[-1]["observedtime"] > earliest
        assert len(settled(endpoint)) == 8
