# SPDX-License-Identifier: BSD-3-Clause
"""A guest that is watched through the mirror of its tapdisk, which a stand-in plays here: it has each write in
the mirror first and in the image later. tests/tapdisk has the real one."""
import functools
import hashlib
import os
import signal

import pytest

from lib import guestdisk, mirror
from lib.daemon import Daemon
from lib.endpoint import Endpoint
from lib.mirrorcases import *  # noqa: F401,F403
from lib.mirrorcases import check_end, count, populated, sync_fs, wait_for

pytestmark = pytest.mark.usefixtures("mountable")


@pytest.fixture
def tapdisk():
    return functools.partial(mirror.StandIn, lag_ms=2)


@pytest.mark.slow
def test_tapwired_mirrors_the_disks_of_its_file(tapwire, memory, tapdisk):
    """Which need not be served yet when it starts; and it takes the mirror away when it ends."""
    image, mix = populated(memory, 10)
    with Endpoint(memory) as endpoint:
        backend = tapdisk(memory, image)
        (memory / "disk.ring.next.left").touch()  # by a sink that was killed
        daemon = Daemon(tapwire, memory, image, memory / "disk.ring", endpoint,
                        service="tap_ctl = %s" % backend.tap_ctl, disk="tapdisk = auto", wait=False)
        with daemon, backend:
            assert guestdisk.wait_until(lambda: daemon.status().get("live"), 60), daemon.said()
            with guestdisk.GuestDisk(memory, image, socket=backend.socket, record=False) as disk:
                mix.root = disk.root.encode()
                mix.ops(100)
                mix.close()
                disk.sync("end")
                wait_for(tapwire, disk, endpoint, daemon)
            daemon.stop()
            assert not backend.mirrored()
        events = check_end(tapwire, disk, endpoint)
        assert count(events, "disk.detached") == 1
    assert not [name for name in os.listdir(memory) if name.startswith("disk.ring")]


@pytest.mark.slow
def test_the_digest_of_a_file_needs_all_of_it_in_the_mirror(tapwire, memory, tapdisk):
    """The image is not read: it may be behind."""
    image, top = memory / "disk.img", memory / "top"
    os.mkdir(top)
    (top / "old").write_bytes(b"o" * 50000)
    guestdisk.make_image(image, "64M", ("-d", top))
    mirror.allocate(image)
    with Endpoint(memory) as endpoint:
        backend = tapdisk(memory, image)
        daemon = Daemon(tapwire, memory, image, memory / "disk.ring", endpoint, disk="tapdisk = auto", wait=False,
                        service="tap_ctl = %s" % backend.tap_ctl, target="sha256 = yes\nsha256_quiet = 2s\n")
        with daemon, backend:
            assert guestdisk.wait_until(lambda: daemon.status().get("live"), 60), daemon.said()
            with guestdisk.GuestDisk(memory, image, socket=backend.socket, record=False) as disk:
                with open(disk.root + "/old", "r+b") as file:
                    file.write(b"new")
                with open(disk.root + "/new", "wb") as file:
                    file.write(b"n" * 50000)
                disk.sync("written")

                def said():
                    return {event["subject"]: event["data"] for event in endpoint.events()
                            if event["type"] == "org.tapwire.file.settled"}
                assert guestdisk.wait_until(lambda: len(said()) == 2, 30), daemon.said()
                assert said()["/new"]["sha256"] == hashlib.sha256(b"n" * 50000).hexdigest()
                assert said()["/old"]["sha256_left_out"] == "unreadable"
            daemon.stop()
        endpoint.finish()


@pytest.mark.slow
def test_too_many_failures_end_it(tapwire, memory, tapdisk):
    image, _ = populated(memory, 11, ops=20, size="64M")
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as backend, \
            mirror.Attached(tapwire, memory, image, endpoint, backend, "--tries", 2) as service:
        service.hurt(signal.SIGKILL)
        service.kill("nbdkit")
        assert guestdisk.wait_until(
            lambda: service.status()["mirror"]["state"] == "given up", 20), service.said()
        assert service.pid("nbdkit") is None


def test_an_image_with_holes_is_refused(tapwire, memory, tapdisk):
    image = memory / "disk.img"
    guestdisk.make_image(image, "64M")
    with tapdisk(memory, image) as backend:
        done = tapwire.run("attach", image, "--tap-ctl", backend.tap_ctl, "--state", memory / "state")
        assert done.returncode == 69
        assert b"holes" in done.stderr
        assert not backend.mirrored()


def test_no_tapdisk_is_told(tapwire, memory, tapdisk):
    image, _ = populated(memory, 12, ops=20, size="64M")
    other = memory / "other.img"
    guestdisk.copy_image(image, other)
    mirror.allocate(other)
    with tapdisk(memory, other) as backend:
        done = tapwire.run("attach", image, "--tap-ctl", backend.tap_ctl, "--state", memory / "state")
        assert done.returncode == 69
        assert b"no tapdisk serves" in done.stderr


def test_detach_takes_away_what_was_left(tapwire, memory, tapdisk):
    """Also the pause of one who did not come back."""
    image, mix = populated(memory, 13)
    with Endpoint(memory) as endpoint, tapdisk(memory, image) as backend:
        with guestdisk.GuestDisk(memory, image, socket=backend.socket, record=False) as disk:
            with pytest.raises(ZeroDivisionError):
                with mirror.Attached(tapwire, memory, image, endpoint, backend):
                    raise ZeroDivisionError
            backend.pause()
            done = tapwire.run("detach", image, "--tap-ctl", backend.tap_ctl, "--json")
            assert done.returncode == 0 and b'"detached":true' in done.stdout, done
            mix.root = disk.root.encode()
            mix.ops(50)
            mix.close()
            sync_fs(disk.root)
        assert not backend.mirrored()
