# SPDX-License-Identifier: BSD-3-Clause
"""Every benchmark of tests/bench runs and gives its figures; what they are is not looked at."""
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
    "capture": (["--rounds", "1", "--seconds", "0.1"], ["fio"], []),
    "courier": (["--events", "2000", "--delay-events", "100", "--rate", "200"], [],
                ["courier.intake", "courier.delivery.1000", "courier.delay.p99"]),
    "crawl": (["--quick"], [],
              ["crawl.20000.view", "crawl.20000.tapwire_crawl.wall",
               "crawl.20000.libext2fs_scan.cpu", "crawl.20000.bytes_per_inode"]),
    "delay": (["--quick"], [], ["delay.event.median", "delay.change.max", "delay.bare.median"]),
    "infer": (["--quick"], [],
              ["infer.metadata.metadata_blocks", "infer.rewrites.metadata_blocks",
               "infer.overwrite.MB", "infer.mix.json.events"]),
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
    assert not list(scratch.iterdir())


def test_none_is_left_out():
    assert sorted(SHORT) == sorted(path.stem for path in BENCH.glob("*.py"))
