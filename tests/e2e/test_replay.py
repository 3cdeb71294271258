# SPDX-License-Identifier: BSD-3-Clause
"""An inspector that is killed and goes on from its state gives the same events, byte by byte, though the
image has gone on meanwhile and its log holds only the payload that counts."""
import os
import random
import subprocess

import pytest

from lib import guestdisk, trace
from lib.guard import Guard
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAYOUTS = {
    "default": (),
    "small-blocks": ("-b", "1024", "-J", "size=1"),
    "no-checksums": ("-b", "2048", "-O", "^metadata_csum,^64bit"),
    "inline-data": ("-b", "1024", "-J", "size=1", "-O", "inline_data,ea_inode"),
}
# What somebody does while the volume is not mounted; a line of debugfs each, or a program.
OFFLINE = [
    ["e2fsck", "-fyD"],
    ["debugfs", "mkdir made", "write /etc/passwd made/passwd", "symlink made/slow " + "/far" * 20],
    ["debugfs", "rm made/passwd", "mkdir made/sub", "mkdir again", "ln made/sub again/other"],
    ["e2fsck", "-fy"],
]


@pytest.fixture(scope="module")
def replay(asan):
    program = os.path.join(asan.build, "tests/lib/replay")
    if not os.path.exists(program):
        guestdisk.run("make", "-C", ROOT, "--no-print-directory", "BUILD=" + asan.build, program)
    return program


def work(disk, where, seed, ops, guard):
    with guestdisk.mounted(disk, where, guard=guard) as root:
        os.makedirs(os.path.join(root, "work%d" % seed))
        mix = Mix(os.path.join(root, "work%d" % seed), seed)
        mix.ops(ops, 100, lambda label: guestdisk.settle(root))
        mix.close()
        guestdisk.settle(root)
        if seed == 1:
            many_names(root, guestdisk.settle)


def many_names(root, settle):
    """Files with many names lose the first one again and again: which one is told of next?"""
    os.mkdir(os.path.join(root, "names"))
    for file in range(8):
        for name in range(5):
            path = os.path.join(root, "names", "%d.%d" % (file, name))
            if name == 0:
                os.mknod(path)
            else:
                os.link(path[:-1] + "0", path)
    settle(root)
    for name in range(4):
        for file in range(8):
            os.unlink(os.path.join(root, "names", "%d.%d" % (file, name)))
            os.chmod(os.path.join(root, "names", "%d.4" % file), 0o600 + name)
        settle(root)


def tools(disk):
    for program, *commands in OFFLINE:
        if program == "debugfs":
            subprocess.run(["debugfs", "-w", "-f", "-", disk], input="\n".join(commands).encode(), check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:  # 1: it has mended something
            assert subprocess.run([program, *commands, disk], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL).returncode <= 1


class Recorded:
    """An image served by the capture point; what is done to it is in its trace."""

    def __init__(self, tapwire, directory, image):
        self.image, self.trace = os.fspath(image), os.path.join(directory, "trace")
        self.base = os.path.join(directory, "base.img")
        guestdisk.copy_image(self.image, self.base)
        self._guard = Guard()
        self._served = guestdisk.Served(os.path.join(directory, "nbd"), [
            "--command", "nbdkit", "-s", "--exit-with-parent", tapwire.plugin, "file=" + self.image,
            "record=" + self.trace], self._guard)
        self.disk = self._served.disk

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._served.close()
        self._guard.close()


def events(replay, base, later, recorded, every, seed):
    done = subprocess.run([replay, base, later, recorded, str(every), str(seed)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.splitlines(), int(done.stderr.split()[0])


def expect_same(replay, base, later, recorded):
    expected, _ = events(replay, base, later, recorded, 0, 0)
    assert len(expected) > 300
    for seed, every in enumerate((3, 20, 100)):
        actual, restarts = events(replay, base, later, recorded, every, seed)
        assert restarts > 0
        for was, now in zip(expected, actual):
            assert was == now, "about 1 of %d records, seed %d" % (every, seed)
        assert len(expected) == len(actual)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_restarts_change_no_event(tapwire, replay, scratch, layout):
    image = scratch / "disk.img"
    guestdisk.make_image(image, "192M", LAYOUTS[layout])
    with Recorded(tapwire, scratch, image) as recorded:
        guard = Guard()
        work(recorded.disk, scratch / "mnt", 1, 600, guard)
        tools(recorded.disk)
        work(recorded.disk, scratch / "mnt", 2, 200, guard)
        guard.close()
    expect_same(replay, recorded.base, image, recorded.trace)


def test_restarts_around_a_recovery_change_no_event(tapwire, replay, scratch):
    """The guest's power fails at some record, and its kernel recovers the journal."""
    (scratch / "first").mkdir()
    (scratch / "second").mkdir()
    image, later = scratch / "first" / "disk.img", scratch / "second" / "disk.img"
    guestdisk.make_image(image, "192M", ("-b", "4096"))
    guard = Guard()
    with Recorded(tapwire, scratch / "first", image) as first:
        work(first.disk, scratch / "mnt", 3, 800, guard)
    records = list(trace.read(first.trace))
    records = records[:random.Random(3).randrange(len(records) // 2, len(records) - 20)]
    guestdisk.copy_image(first.base, later)
    trace.play(records, later)
    with Recorded(tapwire, scratch / "second", later) as second:
        work(second.disk, scratch / "mnt", 4, 200, guard)
    guard.close()
    whole = scratch / "trace"
    trace.write(whole, os.path.getsize(later), records + list(trace.read(second.trace)))
    expect_same(replay, first.base, later, whole)
