# SPDX-License-Identifier: BSD-3-Clause
"""Writes of a kernel are missed, here and there, while the disk goes on: what is looked at then is what a crawl finds,
and nothing but the end of a recovery that was missed in part is crawled."""
import os
import random
import re
import subprocess

import pytest

from lib import configs, crash, guestdisk, recover, trace, uml
from lib.life import Life
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FAST = ("fast-commit-only", "fast-commit-1k", "fast-commit-wraps")
RUNS, RESTARTED, GAPS = 12, 3, 60


@pytest.fixture(scope="module")
def gaps(asan):
    program = os.path.join(asan.build, "tests/lib/gaps")
    if not os.path.exists(program):
        guestdisk.run("make", "-C", ROOT, "--no-print-directory", "BUILD=" + asan.build, program)
    return program


def work(life, seed, kinds):
    with life.booted() as root:
        where = os.path.join(root, "work%d" % seed)
        os.mkdir(where)
        mix = Mix(where, seed, kinds, budget=6 << 20, big_dir=150)
        mix.ops(400, 60, lambda _: guestdisk.settle(root))
        mix.close()


def a_life(tapwire, memory, name):
    image = memory / "disk.img"
    guestdisk.make_image(image, "48M", configs.CONFIGS[name].mkfs[2:])
    with guestdisk.mounted(image, memory / "made"):
        pass  # turns the journal's features on
    return Life(tapwire, memory, image)


def run(gaps, life, path, numbers):
    """What it said, and the events."""
    events = os.path.join(life.directory, "events")
    done = subprocess.run([gaps, life.base, path, *map(str, numbers), events], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, "%s: %s" % (numbers, done.stderr.decode(errors="replace"))
    with open(events, "rb") as file:
        return done, file.read()


def look(gaps, life, first=0, last=0):
    """Follows the trace with gaps; returns (how many were mended, what was said of those that were crawled). With a
    restart once in three records the events have to be the same."""
    path, mended, crawled = os.path.join(life.directory, "missed"), 0, []
    with open(path, "wb") as out:
        out.write(trace.header(os.path.getsize(life.image)))
        out.writelines(trace.encode(record._replace(sequence=number))
                       for number, record in enumerate(life.records, 1))
    for seed in range(RUNS):
        done, told = run(gaps, life, path, (seed, GAPS, first, last, 0))
        said = done.stderr.decode(errors="replace")
        if seed < RESTARTED:
            assert run(gaps, life, path, (seed, GAPS, first, last, 3))[1] == told, "seed %d: told otherwise" % seed
        mended += int(re.search(rb"(\d+) mended", done.stdout)[1])
        crawled += re.findall("crawled: (.*)", said)
    return mended, crawled


@pytest.mark.parametrize("name", ["blocks-1k", "journal-1m", *FAST])
def test_missed(tapwire, memory, gaps, seed, name):
    life = a_life(tapwire, memory, name)
    work(life, seed, configs.FAST if name in FAST else None)
    mended, crawled = look(gaps, life)
    assert mended > 2 * RUNS and not crawled, "%d mended, crawled: %s" % (mended, crawled)


test_missed.seeds = [1]


def power_fails(life, rnd):
    """Soon after a fast commit, where a kernel can recover the disk at all."""
    heads = [at for at, record in enumerate(life.recent()) if (record.payload or b"").startswith(b"\x09\0\x08\0")]
    for _ in range(30):
        cut = crash.Cut(min(rnd.choice(heads[len(heads) // 4:]) + rnd.randrange(1, 12), len(life.recent())))
        if recover.recover([life.after(cut)])[0] is not None:
            life.power_fails(cut)
            return
    raise AssertionError("no disk can be mounted")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_recoveries_missed(tapwire, memory, tmp_path, gaps, seed, name):
    """The power fails when fast commits count, and a kernel recovers them."""
    if uml.missing():
        pytest.skip("no kernel to recover fast commits: " + uml.missing())
    life = a_life(tapwire, memory, name)
    work(life, seed, configs.FAST)
    power_fails(life, random.Random(seed))
    first = len(life.records) + 1
    with life.watched() as disk:
        uml.run(disk, os.path.join(tmp_path, "guest"), "run('umount', mount('/dev/ubda'))")
    last = len(life.records)
    work(life, seed + 1, configs.FAST)
    mended, crawled = look(gaps, life, first, last)
    assert mended > 2 * RUNS
    assert set(crawled) <= {"a recovery of fast commits was not seen as a whole"}, crawled


test_recoveries_missed.seeds = [2, 4]
