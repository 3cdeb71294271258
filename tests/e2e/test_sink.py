# SPDX-License-Identifier: BSD-3-Clause
"""The sink: what tapdisk's write mirror sends to it is in its ring, and it is known from outside
whether it gets on. A client plays tapdisk: the old-style handshake, one connection, whole sectors."""
import contextlib
import errno
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

from lib import guestdisk, trace as traces, unixsocket
from lib.nbdserver import Server
from lib.ringfile import Ring

nbd = pytest.importorskip("nbd", reason="needs Debian's python3-libnbd")

SIZE = 16 << 20


def sink(plugin, directory, *params, options=("-o",)):
    return Server(plugin, directory, "sink=%s" % (directory / "ring"), "size=%d" % SIZE, *params,
                  options=options)


def progress(directory):
    """What the sink shows of itself."""
    names = "magic beats begun finished sessions closed writes written reads refused".split()
    with open(directory / "ring.progress", "rb") as page:
        return dict(zip(names, struct.unpack_from("<10Q", page.read())))


@pytest.fixture
def plugin(build):
    return str(build / "nbdkit-tapwire-plugin.so")


@contextlib.contextmanager
def ring(directory):
    reader = Ring(str(directory / "ring"))
    try:
        yield reader
    finally:
        reader.close()


def test_what_is_written_is_in_the_ring(plugin, scratch):
    """The records, applied to the image of before, give the primary."""
    primary, replica = scratch / "disk.img", scratch / "replica.img"
    primary.write_bytes(random.Random(0).randbytes(SIZE))
    shutil.copyfile(primary, replica)
    rng = random.Random(1)
    with sink(plugin, scratch) as server, open(primary, "r+b") as image:
        client = server.connect()
        assert client.get_size() == SIZE
        with ring(scratch) as reader:
            for number in range(400):
                count = rng.choice([1, 2, 8, 64, 500]) * 512
                at = rng.randrange(0, (SIZE - count) // 512) * 512
                data = rng.randbytes(count)
                client.pwrite(data, at)
                os.pwrite(image.fileno(), data, at)
                if number % 50 == 49:
                    reader.follow(str(primary), str(replica))
            reader.follow(str(primary), str(replica))
            assert reader.stats()["records"] == 400
        client.shutdown()
    assert primary.read_bytes() == replica.read_bytes()


def test_reads_are_refused_and_counted(plugin, scratch):
    with sink(plugin, scratch) as server:
        client = server.connect()
        for _ in range(3):
            with pytest.raises(nbd.Error) as refused:
                client.pread(512, 0)
            assert refused.value.errnum == errno.EIO
        client.pwrite(bytes(512), 0)  # it goes on
        client.shutdown()
        assert progress(scratch)["reads"] == 3


def test_other_requests(plugin, scratch):
    """A flush is a flush; zeroes are zeroes; what was trimmed nobody knows; half a sector is refused.
    (With the old-style handshake nbdkit itself takes nothing but reads and writes.)"""
    with sink(plugin, scratch, options=()) as server:
        client = server.connect()
        client.flush()
        client.zero(8192, 4096)
        client.trim(8192, 65536)
        with pytest.raises(nbd.Error) as refused:
            client.pwrite(bytes(100), 50)
        assert refused.value.errnum == errno.EINVAL
        with ring(scratch) as reader:
            seen = list(iter(reader.next, None))
        client.shutdown()
        assert progress(scratch)["refused"] == 1
    assert [(record.flags, record.sector, record.count) for record in seen] == [
        (traces.FLUSH, 0, 0), (traces.ZEROES, 8, 16), (traces.DISCARD, 128, 16)]


def test_a_full_ring_keeps_nobody_waiting(plugin, scratch):
    """Nobody reads; what there is no room for is in the dirty map."""
    with sink(plugin, scratch, "ring-size=64K") as server:
        client = server.connect()
        for block in range(200):
            client.pwrite(bytes([block]) * 4096, block * 4096)
        with ring(scratch) as reader:
            assert reader.stats()["missed"] > 150
        client.shutdown()


def test_each_connection_has_a_ring_of_its_own(plugin, scratch):
    """What happens between two connections nobody sees: the consumer must not take them for one."""
    with sink(plugin, scratch) as server:
        assert not (scratch / "ring").exists()
        client = server.connect()
        client.pwrite(b"a" * 512, 0)
        with ring(scratch) as first:
            client.shutdown()
            assert guestdisk.wait_until(lambda: progress(scratch)["closed"] == 1, 10)
            client = server.connect()
            client.pwrite(b"b" * 512, 0)
            with open(scratch / "ring", "rb") as file:
                assert file.read(48)[32:] != first.id
            assert first.next().payload == b"a" * 512  # it can be read to its end
            assert first.next() is None
        with ring(scratch) as second:
            record = second.next()
            assert (record.sequence, record.payload) == (1, b"b" * 512)
        client.shutdown()


def test_one_connection_at_a_time(plugin, scratch):
    with sink(plugin, scratch) as server:
        client = server.connect()
        with pytest.raises(nbd.Error):
            server.connect()
        client.pwrite(bytes(512), 0)
        client.shutdown()
        assert progress(scratch)["sessions"] == 1


def test_killed_and_started_again(plugin, scratch):
    with sink(plugin, scratch) as server:
        client = server.connect()
        client.pwrite(b"x" * 512, 0)
        with open(scratch / "ring", "rb") as file:
            first = file.read(48)[32:]
        server.stop(signal.SIGKILL)
        with pytest.raises(nbd.Error):
            client.pwrite(bytes(512), 0)
    with sink(plugin, scratch) as server:
        client = server.connect()
        with open(scratch / "ring", "rb") as file:
            assert file.read(48)[32:] != first
        client.pwrite(bytes(512), 0)
        client.shutdown()


def test_a_ring_that_is_none_or_is_in_use_is_left_alone(plugin, scratch):
    (scratch / "ring").write_bytes(b"a disk" * 1000)
    with sink(plugin, scratch) as server:
        assert server.process.wait(timeout=10) == 1
        assert b"no ring" in server.log.read_bytes()
    assert (scratch / "ring").read_bytes() == b"a disk" * 1000
    os.unlink(scratch / "ring")
    with sink(plugin, scratch) as server:
        client = server.connect()
        second = subprocess.run(
            ["nbdkit", "-f", "-o", "-U", str(scratch / "other"), plugin,
             "sink=%s" % (scratch / "ring"), "size=%d" % SIZE],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        assert second.returncode == 1
        assert b"another capture point" in second.stderr
        client.pwrite(bytes(512), 0)
        client.shutdown()


def test_the_heart_beats_without_work_and_not_when_stopped(plugin, scratch):
    def beats():
        return progress(scratch)["beats"]
    with sink(plugin, scratch) as server:
        first = beats()
        assert guestdisk.wait_until(lambda: beats() > first + 2, 10)
        server.process.send_signal(signal.SIGSTOP)
        try:
            assert guestdisk.wait_until(lambda: stopped(server.process.pid), 10)
            last = beats()
            time.sleep(0.3)
            assert beats() == last
        finally:
            server.process.send_signal(signal.SIGCONT)


def stopped(pid):
    with open("/proc/%d/stat" % pid, encoding="utf-8") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


def test_dies_with_its_parent(plugin, scratch):
    """A sink without its watchdog is one that nobody could kill."""
    script = ("import subprocess, sys, time\n"
              "sink = subprocess.Popen(sys.argv[1:])\nprint(sink.pid, flush=True)\ntime.sleep(60)\n")
    parent = subprocess.Popen(
        [sys.executable, "-c", script, "nbdkit", "-f", "-o", "-U", str(scratch / "sock"), plugin,
         "sink=%s" % (scratch / "ring"), "size=%d" % SIZE], stdout=subprocess.PIPE)
    try:
        pid = int(parent.stdout.readline())
        client = nbd.NBD()
        assert guestdisk.wait_until(lambda: unixsocket.listens(scratch / "sock"), 10)
        client.connect_unix(str(scratch / "sock"))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert guestdisk.wait_until(lambda: not os.path.exists("/proc/%d" % pid), 10)


@pytest.mark.parametrize("params, said", [
    (["sink=r"], b"size=SIZE is missing"),
    (["sink=r", "size=1000"], b"no whole number of sectors"),
    (["sink=r", "size=1M", "file=x"], b"goes with"),
    (["file=x", "size=1M"], b"goes with sink="),
])
def test_parameters(plugin, scratch, params, said):
    done = subprocess.run(["nbdkit", "-f", "-o", "-U", str(scratch / "s"), plugin, *params],
                          cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert done.returncode == 1
    assert said in done.stderr
