# SPDX-License-Identifier: BSD-3-Clause
"""Every benchmark of tests/bench runs and gives its figures. What they are is not looked at, but for
the bounds of memory, which do not depend on what else the machine does."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[1] / "bench"

# Benchmark: its arguments for a short run, programs that it cannot do without, figures that it has
# to give.
SHORT = {
    "bounds": (["--quick"], [],
               ["bounds.uncommitted.files_in_order.cpu", "bounds.directory.made.each",
                "bounds.fragments.grown.8000.each"]),
    "capture": (["--rounds", "1", "--seconds", "0.1"], ["fio"], []),
    "courier": (["--events", "2000", "--delay-events", "100", "--rate", "200"], [],
                ["courier.intake", "courier.delivery.1000", "courier.delay.p99"]),
    "crawl": (["--quick"], [],
              ["crawl.20000.view.wall", "crawl.20000.tapwire_crawl.wall",
               "crawl.20000.reading_alone.wall", "crawl.20000.cold.libext2fs_scan.to_view",
               "crawl.20000.libext2fs_scan.cpu", "crawl.20000.bytes_per_inode"]),
    "delay": (["--quick"], [], ["delay.event.median", "delay.change.max", "delay.bare.median"]),
    "domains": (["--quick"], [], ["domains.start.done", "domains.go.after", "domains.tapwired.own"]),
    "driver": (["--quick"], ["valgrind"],
               ["driver.4_KiB.consumer.p99", "driver.64_KiB.no_consumer.p50", "driver.4_KiB.ring.instructions"]),
    "gaps": (["--quick"], ["fio", "gnuplot"],
             ["gaps.driver.paced.drained.p99", "gaps.driver.cpu.large.stopped.max", "gaps.guest.busy.killed.p99.9"]),
    "infer": (["--quick"], [],
              ["infer.metadata.metadata_blocks", "infer.rewrites.metadata_blocks",
               "infer.overwrite.MB", "infer.mix.json.events"]),
    "overhead": (["--quick"], ["fio", "gnuplot"],
                 ["overhead.fio_4_KiB_random.tapwire.ratio", "overhead.untar.again", "overhead.SQLite.tapwire"]),
    "plots": (["--quick"], ["gnuplot"], ["plots.crawl-space.tapwire", "plots.crawl-inodes.find"]),
    "shippers": (["--quick"], [], ["shippers.courier.100.rate", "shippers.courier.1000.rate", "shippers.insert.cpu"]),
    "transaction": (["--quick"], [], ["transaction.1_GiB.cpu", "transaction.64_GiB.events"]),
}

# Figure of a short run: what it must not exceed, in MB.
BOUNDS = {
    "bounds.uncommitted.nothing.peak": 16,
    "bounds.uncommitted.files_in_order.more": 4,
    "bounds.uncommitted.files_and_free_space_shuffled.more": 8,
    "bounds.uncommitted.files_shuffled_4_KiB_each.more": 16,
    "bounds.uncommitted.a_file_shuffled_4_KiB_each.more": 6,
    "bounds.uncommitted.free_space_with_content.more": 80,  # 64 MiB are kept
    "bounds.uncommitted.the_log_with_content.more": 75,  # a log of 64 MiB
    "bounds.uncommitted.no_journal_free_space_like_metadata.more": 80,  # 64 MiB are kept
    "bounds.directory.20000.idle": 14,
    "bounds.directory.20000.more": 4,
    "bounds.directory.made.more": 16,
    "bounds.fragments.overwritten.20000.idle": 13,
    "bounds.fragments.overwritten.20000.more": 4,
    "bounds.fragments.appended_to.20000.more": 4,
    "bounds.fragments.filled_up.20000.more": 4,
    "bounds.fragments.grown.8000.more": 4,
}


def figures(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_runs(build, scratch, mountable, name):
    args, needed, expected = SHORT[name]
    missing = [program for program in needed if not shutil.which(program)]
    if missing:
        pytest.skip("not installed: " + ", ".join(missing))
    done = subprocess.run(["/usr/bin/python3", BENCH / (name + ".py"), *args],
                          env={**os.environ, "TAPWIRE_BUILD": str(build), "TMPDIR": str(scratch)},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    values = {figure.get("name"): figure.get("value") for figure in figures(done.stdout)}
    assert values, done.stdout
    for figure in expected:
        assert values.get(figure, 0) > 0, "%s: %s\n%s" % (figure, values.get(figure), done.stdout)
    for figure, most in BOUNDS.items() if name == "bounds" else ():
        assert values[figure] <= most, "%s: %s MB\n%s" % (figure, values[figure], done.stdout)
    assert not list(scratch.iterdir())


def test_none_is_left_out():
    assert sorted(SHORT) == sorted(path.stem for path in BENCH.glob("*.py"))
