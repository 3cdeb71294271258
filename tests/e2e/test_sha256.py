# SPDX-License-Identifier: BSD-3-Clause
"""The SHA-256 of files that have been quiet: of what they held at that event, told once, and never of a mixture."""
import contextlib
import ctypes
import hashlib
import os
import random
import shutil
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
SOON = "sha256 = yes\nsha256_quiet = 1s\n"


def settled(endpoint, path=None):
    return [event for event in endpoint.events() if event["type"] == "org.tapwire.file.settled"
            and path in (None, event["subject"])]


def of(endpoint, kind, path):
    return [event for event in endpoint.events() if event["type"] == "org.tapwire.file." + kind
            and event["subject"] == path]


def digest(disk, path):
    with open(disk.root + path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def exchange(one, other):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


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


def await_last(disk, daemon, endpoint, path, times=1, seconds=60):
    assert guestdisk.wait_until(lambda: is_told(disk, endpoint, path, times), seconds), \
        "%s: %r, is %s\n%s" % (path, [event["data"] for event in settled(endpoint, path)], digest(disk, path),
                               daemon.said())


def await_told(disk, daemon, endpoint, path, times=1, seconds=60):
    await_last(disk, daemon, endpoint, path, times, seconds)
    assert len(settled(endpoint, path)) == times


@contextlib.contextmanager
def watched(tapwire, memory, target=ASKS, size="256M", mkfs=(), options="", ring="16M", daemon=None):
    image, path = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, size, mkfs)
    with Endpoint(memory) as endpoint:
        with guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, options=options, record=False,
                                 plugin_args=("ring=%s" % path, "ring-size=%s" % ring)) as disk, \
                Daemon(daemon or tapwire, memory, image, path, endpoint, target=target) as service:
            yield disk, service, endpoint
        if "paths =" not in target:
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
        assert guestdisk.wait_until(
            lambda: daemon.status()["inspector"]["digests_waiting"] == 0, 10), daemon.status()


@pytest.mark.slow
def test_with_its_content_in_the_journal_a_file_is_told_when_it_is_in_its_place(tapwire, memory):
    """Also when that came through the ring before anybody knew that it would count."""
    with watched(tapwire, memory, options="data=journal") as (disk, daemon, endpoint):
        write(disk, "/file", random.Random(1).randbytes(300000))
        await_last(disk, daemon, endpoint, "/file", seconds=120)
    with watched(tapwire, memory, options="data=journal") as (disk, daemon, endpoint):
        assert daemon.signal_inspectors(signal.SIGSTOP) == 1
        try:
            write(disk, "/file", random.Random(1).randbytes(300000))
            disk.sync("written")
            time.sleep(1)
        finally:
            daemon.signal_inspectors(signal.SIGCONT)
        await_last(disk, daemon, endpoint, "/file", seconds=120)


def test_a_file_that_is_written_all_the_time_is_told_when_it_stops(tapwire, memory):
    with watched(tapwire, memory) as (disk, daemon, endpoint):
        write(disk, "/log", b"")
        for number in range(24):
            write(disk, "/log", b"line %d\n" % number, "ab")
            time.sleep(0.25)
        assert not settled(endpoint)
        await_told(disk, daemon, endpoint, "/log")
        assert int(settled(endpoint)[0]["sequence"]) > int(of(endpoint, "modified", "/log")[-1]["sequence"])


@pytest.mark.slow
def test_a_file_that_changes_while_it_is_read_is_never_told_as_a_mixture(tapwire, memory):
    """A large one; what changes is near its beginning, and near its end, in turns."""
    rng, size = random.Random(3), 192 << 20
    with watched(tapwire, memory, SOON, size="512M") as (disk, daemon, endpoint):
        data = bytearray(rng.randbytes(1 << 20) * (size >> 20))
        write(disk, "/large", data)
        versions = [hashlib.sha256(data).hexdigest()]
        disk.sync("written")
        for number in range(16):
            time.sleep(0.95 + rng.random() * 0.3)
            at = 4096 * (number % 3) if number % 2 else size - 4096 * (number % 5 + 1)
            data[at:at + 4096] = rng.randbytes(4096)
            with open(disk.root + "/large", "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), data[at:at + 4096], at)
                os.fsync(file.fileno())
            versions.append(hashlib.sha256(data).hexdigest())
        await_last(disk, daemon, endpoint, "/large")
        assert digest(disk, "/large") == versions[-1]
        told = [versions.index(event["data"]["sha256"]) for event in settled(endpoint, "/large")]
        assert told == sorted(set(told)), told
        read = daemon.status()["inspector"]["read_bytes"]
        print("told %r; read %d of %d bytes" % (told, read, size))


def test_other_events_do_not_wait_for_a_large_file(tapwire, memory):
    with watched(tapwire, memory, SOON, size="1G") as (disk, daemon, endpoint):
        write(disk, "/first", b"")  # while the log is empty, all content is wanted
        assert guestdisk.wait_until(lambda: of(endpoint, "created", "/first"), 30)
        write(disk, "/large", random.Random(4).randbytes(64 << 20))
        number, slowest = 0, 0
        while not settled(endpoint, "/large"):
            path, start = "/small%d" % number, time.monotonic()
            write(disk, path, b"x")
            assert guestdisk.wait_until(lambda where=path: of(endpoint, "created", where), 20)
            slowest = max(slowest, time.monotonic() - start)
            number += 1
            assert number < 500
        print("%d events meanwhile, the slowest after %.3f s" % (number, slowest))
        assert number > 10 and slowest < 2
        # It is read from the image: nothing of it has to come through the ring.
        assert daemon.status()["inspector"]["spared_bytes"] > 60 << 20
        assert is_told(disk, endpoint, "/large")


def test_following_comes_first(tapwire, memory):
    """A file's time is over while the inspector is far behind."""
    with watched(tapwire, memory, SOON) as (disk, daemon, endpoint):
        write(disk, "/quiet", b"quiet")
        assert guestdisk.wait_until(lambda: of(endpoint, "created", "/quiet"), 30)
        assert daemon.signal_inspectors(signal.SIGSTOP) == 1
        try:
            for number in range(250):
                write(disk, "/f%d" % number, b"x" * 5000)
            time.sleep(1.5)
        finally:
            daemon.signal_inspectors(signal.SIGCONT)
        await_told(disk, daemon, endpoint, "/quiet")
        assert guestdisk.wait_until(lambda: of(endpoint, "created", "/f249"), 30)
        at = int(settled(endpoint, "/quiet")[0]["sequence"])
        before = [number for number in range(250) if int(of(endpoint, "created", "/f%d" % number)[0]["sequence"]) < at]
        assert len(before) > 200


@pytest.mark.slow
def test_more_files_than_have_a_place_are_all_told(tapwire, memory):
    number = 66000
    with watched(tapwire, memory, ASKS + "batch_events = 2000\n", size="1G", mkfs=("-N", "100000")) as (
            disk, daemon, endpoint):
        for top in range(66):
            os.mkdir(disk.root + "/d%d" % top)
            for name in range(number // 66):
                with open(disk.root + "/d%d/f%d" % (top, name), "wb"):
                    pass
        disk.sync("written")
        late = set()

        def done():
            said = daemon.status()["inspector"]
            late.add(said["digests_late"])
            return daemon.caught_up() and not said["digests_waiting"]
        assert guestdisk.wait_until(done, 200), daemon.status()
        assert guestdisk.wait_until(lambda: len(settled(endpoint)) == number, 60), len(settled(endpoint))
        told = settled(endpoint)
        assert {event["data"]["sha256"] for event in told} == {hashlib.sha256(b"").hexdigest()}
        assert len({event["subject"] for event in told}) == number
        print("at most %d late" % max(late))


def test_what_becomes_of_a_file_that_is_waited_for(tapwire, memory):
    with watched(tapwire, memory, ASKS + "paths = /in/**\n") as (disk, daemon, endpoint):
        for name in ("/in", "/in/sub", "/out"):
            os.mkdir(disk.root + name)
        for name in ("old", "away", "deleted", "truncated", "replaced", "below"):
            write(disk, "/in/" + name, b"content of " + name.encode())
        for name in ("comes", "linked", "stays", "new"):
            write(disk, "/out/" + name, b"content of " + name.encode())
        os.rename(disk.root + "/in/old", disk.root + "/in/renamed")
        os.rename(disk.root + "/in/away", disk.root + "/out/away")
        os.unlink(disk.root + "/in/deleted")
        os.truncate(disk.root + "/in/truncated", 3)
        os.rename(disk.root + "/out/new", disk.root + "/in/replaced")
        os.rename(disk.root + "/in/below", disk.root + "/in/sub/below")
        os.rename(disk.root + "/in/sub", disk.root + "/in/moved")
        disk.sync("done")
        for path in ("/in/renamed", "/in/truncated", "/in/replaced", "/in/moved/below"):
            await_told(disk, daemon, endpoint, path)
        assert settled(endpoint, "/in/truncated")[0]["data"]["size"] == 3
        assert len(settled(endpoint)) == 4
        # What was made elsewhere is new here. What only has another name here is not.
        os.rename(disk.root + "/out/comes", disk.root + "/in/comes")
        os.link(disk.root + "/out/linked", disk.root + "/in/link")
        os.rename(disk.root + "/in/renamed", disk.root + "/in/again")
        os.chmod(disk.root + "/in/truncated", 0o600)
        disk.sync("moved")
        await_told(disk, daemon, endpoint, "/in/comes")
        await_told(disk, daemon, endpoint, "/in/link")
        assert len(settled(endpoint)) == 6
        write(disk, "/out/swaps", b"from elsewhere")
        exchange(disk.root + "/in/again", disk.root + "/out/swaps")
        write(disk, "/out/other", b"from elsewhere, too")
        exchange(disk.root + "/out/other", disk.root + "/in/comes")
        disk.sync("exchanged")
        await_told(disk, daemon, endpoint, "/in/again")
        await_told(disk, daemon, endpoint, "/in/comes", 2)
        assert len(settled(endpoint)) == 8
        # An event is told by the first name; a file has a digest by each that is wanted.
        write(disk, "/out/linked", b"changed")
        os.truncate(disk.root + "/in/truncated", 0)
        disk.sync("changed")
        await_told(disk, daemon, endpoint, "/in/link", 2)
        await_told(disk, daemon, endpoint, "/in/truncated", 2)
        assert len(settled(endpoint)) == 10


@pytest.mark.parametrize("mkfs", ((), ("-O", "inline_data")), ids=["blocks", "inline"])
def test_what_changes_elsewhere_and_comes_back_is_told_as_it_is(tapwire, memory, mkfs):
    """Also what lies in the inode, whose digest is made when its event is told."""
    with watched(tapwire, memory, "sha256 = yes\nsha256_quiet = 4s\npaths = /in/**\n", mkfs=mkfs) as (
            disk, daemon, endpoint):
        for name in ("/in", "/in/sub", "/out"):
            os.mkdir(disk.root + name)
        for name in ("/in/file", "/in/sub/file"):
            write(disk, name, b"one")
            assert guestdisk.wait_until(lambda where=name: of(endpoint, "created", where), 30)
        os.rename(disk.root + "/in/file", disk.root + "/out/file")
        os.rename(disk.root + "/in/sub", disk.root + "/out/sub")
        disk.sync("away")
        for name in ("/out/file", "/out/sub/file"):
            write(disk, name, b"two", "r+b")
        os.rename(disk.root + "/out/file", disk.root + "/in/file")
        os.rename(disk.root + "/out/sub", disk.root + "/in/sub")
        disk.sync("back")
        await_told(disk, daemon, endpoint, "/in/file")
        await_told(disk, daemon, endpoint, "/in/sub/file")


def test_what_is_too_large_is_said(tapwire, memory):
    with watched(tapwire, memory, ASKS + "sha256_max = 1000\n") as (disk, daemon, endpoint):
        write(disk, "/just", b"x" * 1000)
        write(disk, "/more", b"x" * 1001)
        await_told(disk, daemon, endpoint, "/just")
        assert guestdisk.wait_until(lambda: settled(endpoint, "/more"), 30)
        data = settled(endpoint, "/more")[0]["data"]
        assert data["sha256_left_out"] == "too_large" and "sha256" not in data and data["size"] == 1001


@pytest.mark.parametrize("mkfs", ("encrypt", "encrypt,inline_data"))
def test_what_is_encrypted_is_said(tapwire, memory, mkfs):
    with watched(tapwire, memory, mkfs=("-O", mkfs), options="test_dummy_encryption") as (disk, _daemon, endpoint):
        write(disk, "/secret", b"secret")
        assert guestdisk.wait_until(lambda: settled(endpoint), 30)
        (event,) = settled(endpoint)
        assert event["data"]["sha256_left_out"] == "encrypted" and "sha256" not in event["data"]
        assert event["data"]["encrypted"]


@pytest.mark.slow
def test_after_a_gap_what_was_missed_is_told_too(tapwire, memory):
    """A ring that is far too small: nearly all comes by resyncs."""
    rng = random.Random(8)
    with watched(tapwire, memory, ring="64K") as (disk, daemon, endpoint):
        for number in range(60):
            write(disk, "/f%d" % number, rng.randbytes(rng.randrange(300000)))
            if number % 7 == 0:
                write(disk, "/f%d" % rng.randrange(number + 1), rng.randbytes(20000), "r+b")
        disk.sync("written")
        for number in range(60):
            await_last(disk, daemon, endpoint, "/f%d" % number)
        assert daemon.status()["inspector"]["resyncs"] > 0


@pytest.mark.slow
def test_an_inspector_that_is_killed_tells_each_once(tapwire, asan, memory):
    """While files are waited for, while one is read, and while they are told: the numbers go on, each event says the
    same whenever it comes, and none is forgotten."""
    rng, killed = random.Random(9), 0
    with watched(tapwire, memory, SOON, daemon=asan) as (disk, daemon, endpoint):
        for number in range(12):
            for name in range(30):
                write(disk, "/f%d-%d" % (number, name), rng.randbytes(rng.randrange(200000)))
            time.sleep(0.6 + rng.random())
            killed += daemon.kill_inspectors()
        disk.sync("written")
        for number in range(12):
            for name in range(30):
                await_last(disk, daemon, endpoint, "/f%d-%d" % (number, name))
        told = [event["subject"] for event in settled(endpoint)]
        assert len(told) == len(set(told)) == 360 and killed > 5
        assert "Sanitizer" not in daemon.said()
        # What was told is made again at the same place, or this would be a state that is older than what was sent.
        assert daemon.status()["inspector"]["resyncs"] == 0


def test_files_are_waited_for_over_a_restart(tapwire, memory):
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "64M", ("-O", "inline_data"))
    with Endpoint(memory) as endpoint:
        with guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                 plugin_args=("ring=%s" % ring,)) as disk:
            with Daemon(tapwire, memory, image, ring, endpoint, target="sha256 = yes\nsha256_quiet = 1h\n") as daemon:
                write(disk, "/file", b"x" * 5000)
                write(disk, "/inline", b"inline")
                assert guestdisk.wait_until(lambda: of(endpoint, "created", "/inline"), 30)
                daemon.stop()
                assert not settled(endpoint)
                write(disk, "/while", b"nobody looks")
                with Daemon(tapwire, memory, image, ring, endpoint, target=ASKS) as later:
                    for path in ("/file", "/inline", "/while"):
                        await_told(disk, later, endpoint, path)
        endpoint.finish()


def test_when_the_guest_is_gone_what_is_waited_for_is_told_at_once(tapwire, memory):
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "64M")
    with Endpoint(memory) as endpoint:
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(guestdisk.GuestDisk(
                memory, image, plugin=tapwire.plugin, record=False, plugin_args=("ring=%s" % ring,)))
            daemon = stack.enter_context(Daemon(
                tapwire, memory, image, ring, endpoint, target="sha256 = yes\nsha256_quiet = 1h\n"))
            data = random.Random(2).randbytes(700000)
            write(disk, "/file", data)
            assert guestdisk.wait_until(lambda: of(endpoint, "created", "/file"), 30)
            disk.__exit__(None, None, None)
            stack.pop_all()
            daemon.__exit__(None, None, None)
        (event,) = settled(endpoint)
        assert event["data"]["sha256"] == hashlib.sha256(data).hexdigest()
        kinds = [event["type"].rpartition(".")[2] for event in endpoint.events()]
        assert kinds[-2:] == ["settled", "detached"]
        endpoint.finish()


def test_who_does_not_ask_gets_no_digest(tapwire, memory):
    """Two that ask about other paths, and one that takes everything and does not ask."""
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "64M")
    for name in "bc":
        os.mkdir(memory / name)
    with Endpoint(memory) as plain, Endpoint(memory / "b") as second, \
            Endpoint(memory / "c") as third, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                plugin_args=("ring=%s" % ring,)) as disk, \
            Daemon(tapwire, memory, image, ring, plain, target="".join(
                "[target %s]\nurl = %s\nsecret_file = %s\npaths = %s\nsha256 = yes\nsha256_quiet = %s\n" % (
                    name, other.url, other.secret, paths, quiet)
                for name, other, paths, quiet in (("second", second, "/etc/**", "1s"),
                                                  ("third", third, "/srv/**", "3s")))) as daemon:
        for name in ("/etc", "/srv", "/home"):
            os.mkdir(disk.root + name)
            write(disk, name + "/file", b"a file in " + name.encode())
        await_told(disk, daemon, second, "/etc/file")
        assert not settled(third)
        await_told(disk, daemon, third, "/srv/file")
        assert [event["subject"] for event in settled(second)] == ["/etc/file"]
        assert [event["subject"] for event in settled(third)] == ["/srv/file"]
        assert guestdisk.wait_until(lambda: len(settled(plain)) == 2, 30)
        for event in settled(plain):
            assert not [key for key in event["data"] if key.startswith("sha256")]
        plain.finish()  # it misses no number


def test_a_reload_switches_it_on_and_off(tapwire, memory):
    with watched(tapwire, memory, "content = none\n") as (disk, daemon, endpoint):
        write(disk, "/before", b"before")
        assert guestdisk.wait_until(lambda: of(endpoint, "created", "/before"), 30)
        daemon.reload("content = none\n", SOON)
        write(disk, "/during", b"during")
        await_told(disk, daemon, endpoint, "/during")
        daemon.reload(SOON, "content = none\n")
        # Until the inspector is another one, the old one asks.
        assert guestdisk.wait_until(lambda: daemon.caught_up(), 30)
        write(disk, "/after", b"after")
        assert guestdisk.wait_until(lambda: of(endpoint, "created", "/after"), 30)
        time.sleep(2.5)
        assert all("sha256" not in event["data"] for event in settled(endpoint, "/after"))
        assert not settled(endpoint, "/before")
        daemon.reload("content = none\n", SOON)
        write(disk, "/after", b"after all")
        await_last(disk, daemon, endpoint, "/after")
        assert shutil.which("sha256sum") is None or guestdisk.run(
            "sha256sum", disk.root + "/after").split()[0] == settled(endpoint, "/after")[-1]["data"]["sha256"]
