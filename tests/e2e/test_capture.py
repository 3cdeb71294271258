# SPDX-License-Identifier: BSD-3-Clause
"""The capture point: nbdkit with the plugin, driven by libnbd. What it captured, replayed onto the
image of before, is the image of now."""
import contextlib
import filecmp
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from lib import trace as traces
from lib.nbdserver import Server
from lib.ringfile import Ring

nbd = pytest.importorskip("nbd", reason="needs Debian's python3-libnbd")

SIZE = 16 << 20


@pytest.fixture
def plugin(build):
    path = build / "nbdkit-tapwire-plugin.so"
    if not path.exists():
        pytest.fail("%s is missing: run make first" % path)
    return str(path)


@pytest.fixture
def disk(scratch):
    """An image with content, and a copy of it."""
    path = scratch / "disk.img"
    path.write_bytes(random.Random(0).randbytes(SIZE))
    shutil.copyfile(path, scratch / "base.img")
    return path


def replayed(scratch, records, size=SIZE):
    """The base image with the records applied; returns its path."""
    target = scratch / "replayed.img"
    shutil.copyfile(scratch / "base.img", target)
    traces.play(records, target)
    os.truncate(target, size)
    return target


def same(a, b):
    return filecmp.cmp(a, b, shallow=False)


def whole(path):
    """All records of a trace, whose numbers must be complete."""
    records = list(traces.read(path))
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    return records


def drain(clients):
    """Waits for all commands in flight."""
    for client in clients:
        while client.aio_in_flight() > 0:
            client.poll(-1)
            with contextlib.suppress(nbd.Error):  # "no commands are in flight"
                while (cookie := client.aio_peek_command_completed()) > 0:
                    assert client.aio_command_completed(cookie)


def random_request(rng, client, size):
    """Issues one request of any kind, aligned or not."""
    unit = rng.choice([1, 512, 4096])
    length = min(rng.choice([1, 3, 17, 100]) * unit, size)
    offset = rng.randrange(0, (size - length) // unit + 1) * unit
    fua = nbd.CMD_FLAG_FUA if rng.random() < 0.1 else 0
    kind = rng.random()
    if kind < 0.6:
        client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(rng.randbytes(length))), offset,
                          flags=fua)
    elif kind < 0.8:
        client.aio_zero(length, offset, flags=fua | rng.choice([0, nbd.CMD_FLAG_NO_HOLE]))
    elif kind < 0.95:
        client.aio_trim(length, offset, flags=fua)
    else:
        client.aio_flush()


def storm(server, seed, requests=1500, size=SIZE):
    """Random requests over four connections, 32 at a time; they may overlap."""
    rng = random.Random(seed)
    clients = [server.connect() for _ in range(4)]
    for number in range(requests):
        random_request(rng, rng.choice(clients), size)
        if number % 32 == 31:
            drain(clients)
    drain(clients)
    for client in clients:
        client.shutdown()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_replayed_trace_gives_the_image(plugin, scratch, disk, number):
    with Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t")) as server:
        storm(server, number)
    records = whole(scratch / "t")
    assert {record.flags & ~traces.PAYLOAD for record in records} >= {
        0, traces.FLUSH, traces.ZEROES, traces.ZEROES | traces.DISCARD}
    assert all(record.payload for record in records if record.flags & traces.PAYLOAD)
    assert not same(disk, scratch / "base.img")
    assert same(replayed(scratch, records), disk)


def test_requests_that_overlap_have_the_images_order(plugin, scratch, disk):
    """Many at once on one place, and then on the next: the image keeps one of them, and the trace
    must say which."""
    with Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t")) as server:
        clients = [server.connect() for _ in range(4)]
        for place in range(400):
            for number in range(32):
                buf = nbd.Buffer.from_bytearray(bytearray([number]) * (place % 4 * 4096 + 1024))
                clients[number % 4].aio_pwrite(buf, place * 32768 + number % 3 * 512)
            drain(clients)
        for client in clients:
            client.shutdown()
    assert same(replayed(scratch, whole(scratch / "t")), disk)


def test_a_disk_that_is_no_multiple_of_a_sector(plugin, scratch, disk):
    size = (1 << 20) + 100
    os.truncate(disk, size)
    shutil.copyfile(disk, scratch / "base.img")
    with Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t")) as server:
        client = server.connect()
        assert client.get_size() == size
        client.pwrite(b"x" * 100, size - 100)
        client.zero(50, size - 50)
        client.shutdown()
        storm(server, 5, requests=300, size=size)
    assert same(replayed(scratch, whole(scratch / "t"), size), disk)


def test_what_is_read_is_what_was_written(plugin, scratch, disk):
    with Server(plugin, scratch, disk) as server:  # file= may be left out; neither ring nor trace
        client = server.connect()
        base = (scratch / "base.img").read_bytes()
        assert client.pread(5000, 1234) == base[1234:6234]
        client.pwrite(b"hello", 1235, flags=nbd.CMD_FLAG_FUA)
        assert client.pread(7, 1234) == base[1234:1235] + b"hello" + base[1240:1241]
        client.zero(1000, 3)
        assert client.pread(1000, 3) == bytes(1000)
        for ask in "flush", "fua", "zero", "trim", "multi_conn", "fast_zero":
            assert getattr(client, "can_" + ask)(), ask
        assert client.get_block_size(nbd.SIZE_MINIMUM) == 1
        assert client.get_block_size(nbd.SIZE_PREFERRED) == 4096
        client.shutdown()
    assert set(os.listdir(scratch)) == {"base.img", "disk.img", "nbdkit.log", "nbd.sock"}


def test_a_write_that_failed_is_not_captured(plugin, scratch, disk):
    """The image cannot be written beyond its half."""
    half = SIZE // 2
    with Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t"),
                file_limit=half) as server:
        client = server.connect()
        client.pwrite(b"a" * 4096, 8192)
        with pytest.raises(nbd.Error):
            client.pwrite(b"b" * 4096, half + 4096)
        with pytest.raises(nbd.Error):
            client.pwrite(b"b" * 10, half + 1)
        client.pwrite(b"c" * 4096, 16384)
        client.shutdown()
    records = whole(scratch / "t")
    assert [(record.sector, record.payload[:1]) for record in records] == [(16, b"a"), (32, b"c")]
    assert same(replayed(scratch, records), disk)


def test_a_trace_whose_disk_is_full_fails_no_guest(plugin, scratch, disk):
    os.truncate(disk, 2 << 20)
    shutil.copyfile(disk, scratch / "base.img")
    with Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t"),
                file_limit=6 << 20) as server:
        client = server.connect()
        for number in range(2000):
            client.pwrite(bytes([number % 256]) * 4096, number % 512 * 4096)
        client.flush()
        client.shutdown()
    log = server.log.read_text()
    assert log.count("the trace ends here") == 1, log
    assert len(whole(scratch / "t")) > 500  # whole records, up to where there was room
    assert disk.read_bytes() == b"".join(bytes([n % 256]) * 4096 for n in [
        *range(1536, 2000), *range(1488, 1536)])


def test_a_killed_server_loses_nothing_from_before_the_last_flush(plugin, scratch, disk):
    server = Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t"))
    client = server.connect()
    for number in range(50):
        client.pwrite(bytes([number]) * 512, number * 512)
    client.flush()
    client.pwrite(b"z" * 512, 100 * 512, flags=nbd.CMD_FLAG_FUA)
    server.stop(signal.SIGKILL)
    records = whole(scratch / "t")
    assert len(records) == 52 and records[50].flags == traces.FLUSH
    with Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t"),
                "record-append=true") as server:
        client = server.connect()
        client.pwrite(b"y" * 512, 0)
        client.shutdown()
    records = whole(scratch / "t")
    assert len(records) == 53
    assert same(replayed(scratch, records), disk)


def test_the_guest_goes_on_without_a_consumer(plugin, scratch, disk):
    ring_path = str(scratch / "ring")
    with Server(plugin, scratch, "file=%s" % disk, "ring=%s" % ring_path,
                "ring-size=64K") as server:
        client = server.connect()
        for number in range(1000):
            client.pwrite(bytes([number % 256]) * 4096, number * 4096)
        client.shutdown()
        ring = Ring(ring_path)
        assert ring.stats()["missed"] > 900
        ring.close()


def test_a_quiet_guests_gap_is_announced_without_another_write(plugin, scratch, disk):
    ring_path = str(scratch / "ring")
    replica = scratch / "replica.img"
    shutil.copyfile(disk, replica)
    with Server(plugin, scratch, "file=%s" % disk, "ring=%s" % ring_path,
                "ring-size=64K") as server:
        client = server.connect()
        for number in range(100):
            client.pwrite(bytes([number % 256]) * 4096, number * 4096)
        ring = Ring(ring_path)
        seen, deadline = [], time.monotonic() + 10
        while not any(record.flags & traces.GAP for record in seen):
            assert time.monotonic() < deadline, "no gap record came"
            seen += ring.follow(disk, replica)
            time.sleep(0.005)
        assert same(replica, disk)
        ring.close()
        client.shutdown()


def test_ring_and_trace_have_the_same_stream(plugin, scratch, disk):
    ring_path = str(scratch / "ring")
    with Server(plugin, scratch, "file=%s" % disk, "ring=%s" % ring_path, "ring-size=64M",
                "record=%s" % (scratch / "t")) as server:
        storm(server, 7, requests=600)
    ring = Ring(ring_path)
    assert ring.disk == SIZE
    seen = []
    while (record := ring.next()) is not None:
        seen.append(record)
    ring.close()
    written = whole(scratch / "t")
    assert [record[2:] for record in seen] == [record[2:] for record in written]


def test_a_replica_survives_kills_of_the_server(plugin, scratch, disk):
    """kill -9 with requests in flight, restart, over and over, with a ring that is too small."""
    ring_path = str(scratch / "ring")
    replica = scratch / "replica.img"
    shutil.copyfile(disk, replica)
    rng = random.Random(9)
    kinds = set()
    for _ in range(12):
        server = Server(plugin, scratch, "file=%s" % disk, "ring=%s" % ring_path, "ring-size=256K")
        clients = [server.connect() for _ in range(2)]
        ring = Ring(ring_path)
        for number in range(100):
            random_request(rng, clients[number % 2], SIZE)
            if number % 20 == 19:
                kinds |= {record.flags for record in ring.follow(disk, replica)}
        server.stop(signal.SIGKILL)  # up to 100 requests are under way
        ring.close()
    with Server(plugin, scratch, "file=%s" % disk, "ring=%s" % ring_path, "ring-size=256K"):
        ring = Ring(ring_path)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            kinds |= {record.flags for record in ring.follow(disk, replica)}
            time.sleep(0.02)
        ring.close()
    assert traces.GAP in kinds
    assert same(replica, disk)


@pytest.mark.parametrize("params, words", [
    (["file={disk}", "ring={dir}/no/such/ring"], ["ring={dir}/no/such/ring", "No such file"]),
    (["file={disk}", "ring={dir}/base.img"], ["ring={dir}/base.img", "no ring"]),
    (["file={disk}", "record={dir}/base.img"], ["record={dir}/base.img", "no trace"]),
    (["file={disk}", "record=/dev/full"], ["record=/dev/full", "No space"]),
    (["file={dir}/none.img"], ["none.img", "No such file"]),
    (["file={dir}"], ["{dir}"]),
    (["file={disk}", "rign={dir}/ring"], ["rign", "ring-size"]),
    (["file={disk}", "ring={dir}/ring", "ring-size=lots"], ["lots"]),
    (["ring={dir}/ring"], ["file=IMAGE"]),
])
def test_what_cannot_work_does_not_start(plugin, scratch, disk, params, words):
    names = {"disk": disk, "dir": scratch}
    server = Server(plugin, scratch, *[param.format(**names) for param in params])
    try:
        assert server.process.wait(timeout=10) != 0
    finally:
        server.stop()
    log = server.log.read_text()
    for word in words:
        assert word.format(**names) in log, log
    assert same(disk, scratch / "base.img")


def test_a_ring_has_one_capture_point(plugin, scratch, disk):
    ring = "ring=%s" % (scratch / "ring")
    with Server(plugin, scratch, "file=%s" % disk, ring):
        second = scratch / "second"
        second.mkdir()
        other = Server(plugin, second, "file=%s" % disk, ring)
        assert other.process.wait(timeout=10) != 0
        assert "another capture point" in other.log.read_text()
        other.stop()


def test_a_read_only_server_writes_nothing(plugin, scratch, disk):
    with Server(plugin, scratch, "file=%s" % disk, "record=%s" % (scratch / "t"),
                options=["-r"]) as server:
        client = server.connect()
        assert client.is_read_only()
        with pytest.raises(nbd.Error):
            client.pwrite(b"x" * 512, 0)
        client.shutdown()
    assert whole(scratch / "t") == []
    assert same(disk, scratch / "base.img")


def test_on_standard_input_and_in_the_background(plugin, scratch, disk):
    client = nbd.NBD()
    client.connect_command(["nbdkit", "-s", "--exit-with-parent", plugin, "file=%s" % disk,
                            "record=%s" % (scratch / "t")])
    client.pwrite(b"x" * 512, 0)
    client.shutdown()
    del client
    pidfile = scratch / "pid"
    subprocess.run(["nbdkit", "-P", pidfile, "-U", scratch / "s", plugin, "file=disk.img",
                    "ring=ring", "record=t", "record-append=true"],
                   check=True, cwd=scratch, timeout=20)
    pid = int(pidfile.read_text())
    try:
        client = nbd.NBD()
        client.connect_unix(str(scratch / "s"))
        client.pwrite(b"y" * 512, 512)
        client.shutdown()
    finally:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while os.path.exists("/proc/%d" % pid) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [record.payload[:1] for record in whole(scratch / "t")] == [b"x", b"y"]


def test_help_and_dump_name_every_parameter(plugin):
    text = subprocess.run(["nbdkit", plugin, "--help"], check=True, capture_output=True,
                          timeout=20).stdout.decode()
    for parameter in ("file=", "ring=", "ring-size=", "record=", "record-append="):
        assert parameter in text
    text = subprocess.run(["nbdkit", "--dump-plugin", plugin], check=True, capture_output=True,
                          timeout=20).stdout.decode()
    assert "thread_model=parallel" in text and "tapwire_ring_default_bytes=" in text
