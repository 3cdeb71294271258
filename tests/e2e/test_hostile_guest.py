# SPDX-License-Identifier: BSD-3-Clause
"""A guest writes what it likes: damaged metadata gives events, or one line and a status, and never
a crash. Runs the programs built with sanitizers where there are any."""
import os
import random

import pytest

from lib import guestdisk, trace
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

STATUS_OK = (0, 65, 69)


@pytest.fixture(scope="module")
def recording(tapwire, tmp_path_factory):
    """A small disk without checksums, so that damage is not noticed before it is parsed."""
    scratch = tmp_path_factory.mktemp("hostile")
    image = scratch / "disk.img"
    guestdisk.make_image(image, "24M", ("-b", "1024", "-O", "^metadata_csum", "-J", "size=1"))
    with guestdisk.mounted(image, scratch / "made") as root:
        mix = Mix(root, 31, budget=6 << 20, big_dir=400)
        mix.ops(600)
        mix.close()
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin) as disk:
        mix.root = disk.root.encode()
        mix.ops(1500, 300, lambda _done: guestdisk.settle(disk.root))
        mix.close()
    return disk


def survives(asan, *args):
    done = asan.run(*args, timeout=120)
    text = done.stderr.decode(errors="replace")
    report = text[max(text.find("==ERROR"), text.find("runtime error"), 0):][:3000]
    assert done.returncode in STATUS_OK, "exit %d: %s" % (done.returncode, report)
    assert "Sanitizer" not in text and "runtime error" not in text, report


def damage(rnd, data):
    """A few bytes changed, most likely to values at the edges."""
    data = bytearray(data)
    for _ in range(rnd.choice((1, 1, 2, 5, 30))):
        at = rnd.randrange(len(data))
        form = rnd.randrange(4)
        if form == 0:
            data[at] ^= 1 << rnd.randrange(8)
        elif form == 1:
            data[at] = rnd.choice((0, 1, 0x7f, 0x80, 0xff))
        elif form == 2:
            at &= ~3
            data[at:at + 4] = rnd.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f",
                                          rnd.randbytes(4)))
        else:
            other = rnd.randrange(len(data)) & ~7
            data[at & ~7:(at & ~7) + 8] = data[other:other + 8]
    return bytes(data)


def is_metadata(record):
    return record.flags & trace.PAYLOAD and record.count <= 128


@pytest.mark.parametrize("turn", range(12))
def test_damaged_trace(asan, recording, tmp_path, turn):
    rnd = random.Random(turn)
    often = rnd.choice((0.003, 0.03, 0.3))
    records = [record._replace(payload=damage(rnd, record.payload))
               if is_metadata(record) and rnd.random() < often else record
               for record in trace.read(recording.trace)]
    path = tmp_path / "damaged.trace"
    trace.write(path, os.path.getsize(recording.base), records)
    survives(asan, "infer", "--disk", recording.base, "--trace", path)


@pytest.mark.parametrize("turn", range(4))
def test_writes_in_another_order(asan, recording, tmp_path, turn):
    """Writes lost, doubled and swapped: what no honest disk does."""
    rnd = random.Random(turn)
    records = list(trace.read(recording.trace))
    for _ in range(len(records) // 50):
        i, j = rnd.randrange(len(records)), rnd.randrange(len(records))
        form = rnd.randrange(3)
        if form == 0:
            records[i], records[j] = records[j], records[i]
        elif form == 1:
            records[i] = records[j]
        else:
            records[i] = records[i]._replace(sector=records[j].sector) \
                if records[i].count <= records[j].count else records[i]
    path = tmp_path / "shuffled.trace"
    trace.write(path, os.path.getsize(recording.base), records)
    survives(asan, "infer", "--disk", recording.base, "--trace", path)


@pytest.mark.parametrize("turn", range(12))
def test_damaged_image(asan, recording, tmp_path, turn):
    """Damage where the trace once wrote metadata, and at the disk's start."""
    rnd = random.Random(turn)
    places = [record.sector * trace.SECTOR for record in trace.read(recording.trace)
              if is_metadata(record)]
    path = tmp_path / "damaged.img"
    guestdisk.copy_image(recording.image, path)
    with open(path, "r+b") as disk:
        for _ in range(rnd.choice((1, 10, 100))):
            place = rnd.choice(places) if rnd.random() < 0.8 else rnd.randrange(0, 64) * 1024
            data = os.pread(disk.fileno(), 1024, place)
            os.pwrite(disk.fileno(), damage(rnd, data), place)
    survives(asan, "crawl", path)
    survives(asan, "infer", "--disk", path, "--trace", recording.trace)
