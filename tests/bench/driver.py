#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the tapdisk driver adds to a guest's write, above an image in memory.

Time: between the call of the driver and the arrival of the request below, and between its completion from below
and its arrival above, at depth 32; reading the clock, which is measured with nothing in between, is in it. Rounds
are interleaved; the figures are medians of each round's percentiles. Instructions: by callgrind, what a run with
the driver executes more than the same run without it, a write. Prints tables, then one JSON line a figure. Takes
half a minute.
"""
import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))

import measure  # noqa: E402
import points  # noqa: E402

DEPTH = 32
SECTORS = {"4 KiB": 8, "64 KiB": 128}


class Bench:
    def __init__(self, directory, writes):
        self._program = points.compile_with_driver("driver_bench", directory)
        self._drain = points.compile_ring_bench(directory)
        self._rings = pathlib.Path(directory) / "rings"
        self._writes = writes

    @contextlib.contextmanager
    def _ring(self, kind):
        """A directory for the ring, and who reads it. Of a ring that nobody reads, all but the beginning is a gap."""
        environment = {**os.environ, "TAPWIRE_RING_DIR": str(self._rings)}
        self._rings.mkdir(exist_ok=True)
        for name in os.listdir(self._rings):
            os.unlink(self._rings / name)
        if kind == "no ring":
            self._rings.rmdir()
        with contextlib.ExitStack() as stack:
            if kind == "consumer":
                self._run(environment, "with", 1000, 8)  # makes the ring
                stack.enter_context(points.ended(subprocess.Popen(
                    [self._drain, "drain", self._rings / "bench.ring"], stdin=subprocess.DEVNULL)))
            yield environment

    def _run(self, environment, how, writes, sectors, *before):
        done = subprocess.run([*before, self._program, how, str(writes), str(DEPTH), str(sectors)],
                              env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=True, timeout=300)
        return done.stdout.decode(), done.stderr.decode()

    def times(self, how, sectors, kind):
        with self._ring(kind) as environment:
            text, _ = self._run(environment, how, self._writes, sectors)
        return [float(word) for word in text.split()]

    def instructions(self, sectors, kind):
        """More with the driver than without it, a write; each run's start is taken off by a shorter run."""
        def count(how, writes):
            with self._ring(kind) as environment:
                _, said = self._run(environment, how, writes, sectors, "valgrind", "--tool=callgrind",
                                    "--callgrind-out-file=/dev/null")
            return int(re.search(r"Collected : (\d+)", said).group(1))
        few, many = 1000, 1000 + (8000 if sectors == 8 else 400)
        extra = [count("with", writes) - count("without", writes) for writes in (few, many)]
        return (extra[1] - extra[0]) / (many - few)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--writes", type=int, default=100000, help="a run (default 100000)")
    parser.add_argument("--quick", action="store_true", help="one round of little, for a test")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.writes = 1, 2000
    measure.setup()
    figures = measure.Figures("driver")
    os.environ.setdefault("TMPDIR", "/dev/shm")
    with measure.scratch() as directory:
        bench = Bench(directory, args.writes)
        for size, sectors in SECTORS.items():
            tasks = {"nothing in between": lambda s=sectors: bench.times("without", s, "no ring")}
            for kind in ("no ring", "consumer", "no consumer"):
                tasks[kind] = lambda s=sectors, k=kind: bench.times("with", s, k)
            rows = []
            for name, runs in measure.interleaved(args.rounds, tasks).items():
                columns = [measure.median(run[i] for run in runs) for i in range(5)]
                rows.append((name, *("%.0f" % value for value in columns)))
                for column, value in zip(("p50", "p99", "p99.9"), columns):
                    figures.add("%s.%s.%s" % (size.replace(" ", "_"), name.replace(" ", "_"), column), value, "ns")
            measure.table("writes of %s, nanoseconds added to each" % size,
                          ("", "p50", "p99", "p99.9", "max", "mean"), rows)
        if measure.present("valgrind"):
            rows = []
            for size, sectors in list(SECTORS.items())[:1 if args.quick else None]:
                values = [bench.instructions(sectors, kind) for kind in ("no ring", "no consumer")]
                rows.append((size, *("%.0f" % value for value in values)))
                for kind, value in zip(("no_ring", "ring"), values):
                    figures.add("%s.%s.instructions" % (size.replace(" ", "_"), kind), value, "instructions")
            measure.table("instructions a write", ("", "no ring", "into the ring"), rows)
    figures.print()


if __name__ == "__main__":
    main()
