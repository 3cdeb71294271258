# SPDX-License-Identifier: BSD-3-Clause
"""The mirror of a real, unmodified tapdisk: TAPDISK and TAP_CTL are the paths of one that was built
elsewhere. Not a part of `make check`:

    TAPDISK=/path/tapdisk TAP_CTL=/path/tap-ctl /usr/bin/python3 -m pytest -c tests/pytest.ini \\
        tests/tapdisk/test_mirror.py
"""
import functools
import os

import pytest

from lib import guestdisk, mirror
from lib.endpoint import Endpoint
from lib.mirrorcases import *  # noqa: F401,F403
from lib.mirrorcases import populated, sync_fs, wait_for

PROGRAM, TAP_CTL = os.environ.get("TAPDISK"), os.environ.get("TAP_CTL")
pytestmark = [pytest.mark.usefixtures("mountable"),
              pytest.mark.skipif(not (PROGRAM and TAP_CTL), reason="TAPDISK and TAP_CTL name no tapdisk")]


@pytest.fixture
def tapdisk():
    return functools.partial(mirror.Tapdisk, program=PROGRAM, tap_ctl=TAP_CTL)


def test_the_tapdisk_is_found_by_its_image(tapwire, memory, tapdisk):
    image, mix = populated(memory, 20)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as backend:
        backend.target = "auto"
        with mirror.Attached(tapwire, memory, image, endpoint, backend) as service, \
                guestdisk.GuestDisk(memory, image, socket=backend.socket, record=False) as disk:
            mix.root = disk.root.encode()
            mix.ops(50)
            mix.close()
            disk.sync("end")
            wait_for(tapwire, disk, endpoint, service)
        assert not backend.mirrored()


def test_why_an_image_with_holes_is_refused(build, scratch, tapdisk):
    """What tapdisk does when its image is out of space while it has a mirror: it answers the guest without an
    error, and with zeroes. Should this fail one day, docs/compatibility.md has to be changed."""
    nbd = pytest.importorskip("nbd", reason="needs Debian's python3-libnbd")
    from lib.nbdserver import Server
    small, where = scratch / "small.img", scratch / "small"
    guestdisk.make_image(small, "32M", ("-O", "^has_journal"))
    with guestdisk.mounted(small, where):
        image = where / "sparse"
        image.touch()
        os.truncate(image, 64 << 20)
        sink = ["sink=%s" % (scratch / "ring"), "size=64M"]
        with Server(str(build / "nbdkit-tapwire-plugin.so"), scratch, *sink, options=["-o"]) as server, \
                tapdisk(scratch, image) as backend:
            backend.pause()
            backend.disk.unpause("-2", "nbd:" + server.socket)
            guest = nbd.NBD()
            guest.connect_unix(backend.socket)
            for mib in range(48):
                guest.pwrite(b"x" * (1 << 20), mib << 20)
            assert guest.pread(512, 0) == bytes(512)
            assert [img["name"] for img in backend.disk.images()] == [server.socket]
            del guest  # tapdisk answers a farewell, which nobody expects
    sync_fs(scratch)
