# SPDX-License-Identifier: BSD-3-Clause
"""What files hold, in their events: whoever gets it can rebuild each file byte by byte."""
import os
import random
import re
import time

import pytest

from lib import guestdisk
from lib.contents import Contents
from lib.daemon import Daemon
from lib.endpoint import Endpoint
from lib.logs import Logs

MODES = {
    "ordered": ((), ""),
    "small-blocks": (("-b", "1024"), ""),
    "journal": ((), "data=journal"),
    "writeback": ((), "data=writeback"),
    "inline": (("-O", "inline_data"), ""),
    "fast-commit": (("-O", "fast_commit"), ""),
    "no-journal": (("-O", "^has_journal"), ""),
    "bigalloc": (("-O", "bigalloc", "-C", "16384"), ""),
}


def overwrite(root, rng, operations):
    """Binary files: written anywhere, with holes, punched, cut, renamed over."""
    where = os.path.join(root, "data")
    os.makedirs(where, exist_ok=True)
    for _ in range(operations):
        path = os.path.join(where, "f%d" % rng.randrange(6))
        with open(path, "r+b" if os.path.exists(path) else "w+b", buffering=0) as file:
            chance = rng.random()
            if chance < 0.6:
                file.seek(rng.randrange(200000))
                file.write(rng.randbytes(rng.randrange(1, 20000)))
            elif chance < 0.7:
                file.truncate(rng.randrange(200000))
            elif chance < 0.8:
                os.posix_fallocate(file.fileno(), rng.randrange(100000), 50000)
            elif chance < 0.9:
                guestdisk.run("fallocate", "-p", "-o", str(rng.randrange(25) * 4096), "-l", "12288", path)
            if rng.random() < 0.2:
                os.fsync(file.fileno())
        if chance > 0.97:
            os.replace(path, os.path.join(where, "f%d" % rng.randrange(6)))


LINE = re.compile(rb"^(syslog|app\.log) (\d{8}) ")


def expect_lines(data, told):
    """A log is consecutive lines, whole but for the last one, at every event."""
    before = None
    for line in bytes(data).split(b"\n")[:-1]:
        found = LINE.match(line)
        assert found, "%r in the content of event %s" % (line[:80], told["id"])
        number = int(found[2])
        assert before in (None, number - 1), "line %d after %s, event %s" % (number, before, told["id"])
        before = number


def settled(disk, daemon, endpoint, marker="/marker"):
    """What was written has been followed and has arrived: so has what was written after it. In a resync both come
    together, in any order."""
    with open(disk.root + marker, "w") as file:
        file.write("x")
    disk.sync("marker")

    def has_come():
        return any(event.get("subject") == marker for event in endpoint.events())
    assert guestdisk.wait_until(has_come, 90), daemon.said()
    settled_for(endpoint, 0.5)


def settled_for(endpoint, seconds):
    def idle():
        before = len(endpoint.events())
        time.sleep(seconds)
        return len(endpoint.events()) == before
    assert guestdisk.wait_until(idle, 60)


def rebuilt(endpoint, logs=True):
    contents = Contents()
    for event in endpoint.events():
        file = contents.apply(event)
        path = event.get("subject", "")
        if logs and file and "/log/" in path and not any(file.missing) and "content" in event["data"]:
            expect_lines(file.data, event)
    return contents


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
def test_files_are_rebuilt_byte_by_byte(tapwire, memory, name):
    mkfs, options = MODES[name]
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "256M", mkfs)
    with Endpoint(memory) as endpoint, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, options=options, record=False,
                                plugin_args=("ring=%s" % ring,)) as disk, \
            Daemon(tapwire, memory, image, ring, endpoint, target="content = append") as daemon:
        logs, rng = Logs(disk.root, 3), random.Random(4)
        for _ in range(6):
            logs.work(60)
            overwrite(disk.root, rng, 20)
            if name == "inline":
                for number in range(10):
                    with open(os.path.join(disk.root, "small%d" % number), "w") as file:
                        file.write("x" * rng.randrange(150))
        logs.close()
        disk.sync("end")
        settled(disk, daemon, endpoint)
        if name == "no-journal":  # such a disk is looked at as a whole when it is idle, which it was not
            settled_for(endpoint, 3)
        contents = rebuilt(endpoint, name not in ("writeback", "no-journal"))
        assert contents.check(disk.root) > 8
        assert contents.events > 20 and contents.left_out == 0
        endpoint.finish()


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ("kills", "gaps", "both"))
def test_it_heals(tapwire, asan, memory, trouble):
    """What was missed, or cannot be told any more after a restart, comes with a later event."""
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "256M")
    size = "16M" if trouble == "kills" else "64K"
    with Endpoint(memory) as endpoint, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                plugin_args=("ring=%s" % ring, "ring-size=%s" % size)) as disk, \
            Daemon(asan, memory, image, ring, endpoint, target="content = append") as daemon:
        logs, rng = Logs(disk.root, 5), random.Random(6)
        for _ in range(12):
            logs.work(60)
            overwrite(disk.root, rng, 20)
            if trouble != "gaps":
                daemon.kill_inspectors()
        logs.close()
        disk.sync("end")
        settled(disk, daemon, endpoint)
        contents = rebuilt(endpoint, trouble == "kills")
        assert contents.check(disk.root) > 6
        endpoint.finish()


@pytest.mark.slow
def test_full_content_is_never_a_mixture(tapwire, memory):
    """A file whose blocks all say the same number, rewritten all the time."""
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "64M")
    with Endpoint(memory) as endpoint, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                plugin_args=("ring=%s" % ring,)) as disk, \
            Daemon(tapwire, memory, image, ring, endpoint,
                   target="content = full\ncontent_max = 64K\npaths = /in/**") as daemon:
        os.mkdir(disk.root + "/in")
        os.mkdir(disk.root + "/out")
        for number in range(60):
            for name in ("same", "large"):
                with open(os.path.join(disk.root, "out", name), "wb") as file:
                    file.write((b"%07d\n" % number) * (4096 if name == "same" else 16384))
                    os.fsync(file.fileno())
                os.replace(os.path.join(disk.root, "out", name), os.path.join(disk.root, "in", name))
        disk.sync("end")
        settled(disk, daemon, endpoint, "/in/marker")
        whole = 0
        for event in endpoint.events():
            data = event["data"]
            if "content" not in data or event["subject"] == "/in/marker":
                continue
            assert event["subject"].startswith("/in/") and data["content_whole"]
            text = "".join(piece["text"] for piece in data["content"])
            if event["subject"] == "/in/large":
                assert data["content_left_out"] == [[0, 131072]] and not text
                continue
            if "content_missing" in data:
                assert not text and data["content_missing"] == [[0, data["size"]]]
                continue
            assert len(text) == 32768 and len(set(text.split())) == 1
            whole += 1
        assert whole > 30


def test_who_does_not_ask_gets_none(tapwire, memory):
    """Of two targets one wants content, of some paths; the other one gets events as ever."""
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "64M")
    os.mkdir(memory / "b")
    with Endpoint(memory) as plain, Endpoint(memory / "b") as second, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                plugin_args=("ring=%s" % ring,)) as disk, \
            Daemon(tapwire, memory, image, ring, plain,
                   target="[target second]\nurl = %s\nsecret_file = %s\ncontent = changed\n"
                          "paths = /etc/**, !/etc/shadow" % (second.url, second.secret)) as daemon:
        os.mkdir(disk.root + "/etc")
        for name in ("hosts", "shadow", "../else"):
            with open(os.path.join(disk.root, "etc", name), "w") as file:
                file.write("content of %s\n" % name)
        disk.sync("end")
        os.rename(disk.root + "/else", disk.root + "/etc/moved")
        settled(disk, daemon, plain)
        assert guestdisk.wait_until(lambda: any(e.get("subject") == "/etc/moved" for e in second.events()), 60)
        ours = {event["subject"]: event["data"] for event in second.events() if "subject" in event}
        assert ours["/etc/hosts"]["content"] == [{"offset": 0, "text": "content of hosts\n"}]
        assert "/etc/shadow" not in ours and "/else" not in ours
        moved = ours["/etc/moved"]  # new to whoever has not seen it elsewhere
        assert moved["content_whole"] and moved["content"] == [{"offset": 0, "text": "content of ../else\n"}]
        told = {event["subject"]: event["data"] for event in plain.events() if "subject" in event}
        assert {"/etc/hosts", "/etc/shadow", "/else"} <= set(told)
        assert not [data for data in told.values() if "content" in data]
        assert told["/etc/hosts"] == {key: value for key, value in ours["/etc/hosts"].items() if key != "content"}
        plain.finish()


@pytest.mark.parametrize("name", ("ordered", "journal", "inline"))
def test_a_trace_is_read_with_content(tapwire, memory, name):
    """Files that were there before, too: what the trace has not written is the image's."""
    mkfs, options = MODES[name]
    image, top = memory / "disk.img", memory / "top"
    os.mkdir(top)
    (top / "old").write_bytes(random.Random(1).randbytes(50000))
    guestdisk.make_image(image, "64M", (*mkfs, "-d", top))
    with guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, options=options) as disk:
        with open(disk.root + "/old", "r+b") as file:
            os.pwrite(file.fileno(), b"new", 20001)
        logs, rng = Logs(disk.root, 3), random.Random(4)
        logs.work(100)
        overwrite(disk.root, rng, 40)
        logs.close()
        disk.sync("end")
        plain = tapwire.infer(disk.base, disk.trace)
        for mode, most in (("append", "1MiB"), ("full", "4MiB")):
            contents = Contents()
            told = tapwire.infer(disk.base, disk.trace, "--content", mode, "--content-max", most)
            for event in told:
                file = contents.apply(event)
                if mode == "append" and event.get("subject") == "/old" and event["type"].endswith(".modified"):
                    # It is not from its first byte on that this one is told: the rest is known from before.
                    file.data[:] = (top / "old").read_bytes()
                    contents.apply(event)
            assert contents.check(disk.root) > 8
            assert contents.missing == contents.left_out == 0
            for event in told:
                event["data"] = {key: value for key, value in event["data"].items()
                                 if not key.startswith("content")}
            assert told == plain
        tight = tapwire.infer(disk.base, disk.trace, "--content", "full", "--content-max", "100")
        assert [event for event in tight if "content_left_out" in event["data"]]
    done = tapwire.run("infer", "--disk", disk.base, "--trace", disk.trace, "--content", "much")
    assert done.returncode == 64 and "none, append, changed or full" in done.stderr.decode()
    done = tapwire.run("infer", "--disk", disk.base, "--trace", disk.trace, "--content-max", "5MiB")
    assert done.returncode == 64 and "4MiB" in done.stderr.decode()
