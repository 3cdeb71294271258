#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a transaction costs on volumes of 1 GiB to 1 TiB, and on one with many files.

The same work is done on each volume through nbdkit-tapwire under a mounted ext4 (journal of 64 MiB,
sparse images): files of 1 KiB are made, appended to, renamed, changed in mode and deleted, five of
each, and synced. The recording is cut after a certain number of such transactions and after three
times as many. What the longer trace costs more, by instructions (callgrind, below tw_disk_feed())
and by processor time, divided by the transactions that it has more, is the cost of one; the crawl
is not in it. (On a loaded machine the kernel commits now and then in the middle of one: "commits".)
Needs root; without valgrind there are no instructions. Takes about three minutes.
"""
import argparse
import collections
import json
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import measure  # noqa: E402
from journal import Journal  # noqa: E402
from lib import guestdisk  # noqa: E402
from lib import trace as traces  # noqa: E402
from lib.calls import sync_fs  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30
EACH = 5  # files in each transaction, of each kind of change
AGE = 4   # transactions from one change of a file to the next

# label: bytes, files that are there before
VOLUMES = {"1 GiB": (GIB, 0), "32 GiB": (32 * GIB, 0), "256 GiB": (256 * GIB, 0),
           "1 TiB": (1024 * GIB, 0), "32 GiB, 200000 files": (32 * GIB, 200000)}
QUICK = {"1 GiB": (GIB, 0), "64 GiB": (64 * GIB, 0)}

Cut = collections.namedtuple("Cut", "trace transactions commits metadata")
Recording = collections.namedtuple("Recording", "base short long")


def transaction(root, number):
    """One transaction: files are made, and those of earlier ones changed, each once."""
    def path(age, i, suffix=""):
        made = number - age * AGE
        return os.path.join(root, "%d" % (made % 4), "file-%06d-%d%s" % (made, i, suffix))

    for i in range(EACH):
        with open(path(0, i), "wb") as file:
            file.write(b"content!" * 128)
    for age, change in enumerate((
            lambda i: append(path(1, i)),
            lambda i: os.rename(path(2, i), path(2, i, "-renamed")),
            lambda i: os.chmod(path(3, i, "-renamed"), 0o600),
            lambda i: os.unlink(path(4, i, "-renamed"))), 1):
        for i in range(EACH) if number >= age * AGE else ():
            change(i)
    sync_fs(root)


def append(path):
    with open(path, "ab") as file:
        file.write(b"one more line\n")


def work(root, count):
    """All in one directory of the root, where no volume has more room to spread it. Returns when
    each transaction was on the disk, in nanoseconds."""
    root = os.path.join(root, "work")
    for i in range(4):
        os.makedirs(os.path.join(root, "%d" % i))
    sync_fs(root)
    ends = []
    for number in range(count):
        transaction(root, number)
        ends.append(time.time_ns())
    return ends


def cut(path, base, source, ends, transactions):
    """Writes the records of a trace up to the end of so many transactions."""
    journal = Journal(base)
    chosen = [record for record in traces.read(source)
              if record.clock_ns <= ends[transactions - 1]]
    traces.write(path, os.path.getsize(base), chosen)
    return Cut(path, transactions, sum(map(journal.commits, chosen)),
               sum(map(journal.metadata, chosen)))


class Bench:
    def __init__(self, directory, count, rounds):
        build = measure.build()
        self.figures = measure.Figures("transaction")
        self._tapwire, self._plugin = build / "tapwire", build / "nbdkit-tapwire-plugin.so"
        self._directory, self._count, self._rounds = directory, count, rounds
        self._run = measure.Runner(directory)
        self._fill = measure.compile_c("crawl_fill", directory)
        self._counting = measure.present("valgrind")

    def record(self, number, size, files):
        """Does the work on a fresh volume."""
        directory = self._directory / ("volume-%d" % number)
        directory.mkdir()
        image = directory / "disk.img"
        guestdisk.make_image(image, size, ("-m0", "-J", "size=64", "-E", "lazy_itable_init=1"))
        if files:
            with guestdisk.mounted(image, directory / "fill", "noinit_itable,nobarrier") as root:
                guestdisk.run(self._fill, root, files, 256, 1)
        # Neither the lazy initialiser nor a timer interferes.
        disk = guestdisk.GuestDisk(directory, image, self._plugin, options="noinit_itable,commit=600")
        with disk:
            ends = work(disk.root, 3 * self._count)
        os.unlink(image)
        recording = Recording(disk.base, *(
            cut(directory / name, disk.base, disk.trace, ends, count)
            for name, count in (("short", self._count), ("long", 3 * self._count))))
        os.unlink(disk.trace)
        return recording

    def _infer(self, base, trace):
        done = self._run(self._tapwire, "infer", "--disk", base, "--trace", trace, "--stats")
        return json.loads(done.stderr.strip().splitlines()[-1]), done.rss

    def _instructions(self, base, trace):
        said = guestdisk.run("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                             "--toggle-collect=tw_disk_feed", self._tapwire, "infer", "--disk",
                             base, "--trace", trace)
        return int(re.search(r"Collected : ([0-9]+)", said).group(1))

    def measure(self, recordings):
        tasks = {(label, kind): (lambda base=recording.base, part=part:
                                 self._infer(base, part.trace))
                 for label, recording in recordings.items()
                 for kind, part in (("short", recording.short), ("long", recording.long))}
        measure.interleaved(1, tasks)
        results = measure.interleaved(self._rounds, tasks)
        rows = []
        for label, recording in recordings.items():
            rows.append((label, *self._row(label.replace(", ", ".").replace(" ", "_"), recording,
                                           results[label, "short"], results[label, "long"])))
        measure.table("one transaction", ("volume", "commits", "metadata blocks", "events",
                                          "instructions", "an event", "cpu us", "min", "crawl ms",
                                          "peak MB"), rows)

    def _row(self, key, recording, short, long):
        """The figures of one volume. short, long: what _infer() returned, for each round."""
        more = recording.long.transactions - recording.short.transactions
        commits = (recording.long.commits - recording.short.commits) / more
        blocks = (recording.long.metadata - recording.short.metadata) / more
        events = (long[0][0]["events"] - short[0][0]["events"]) / more
        cpu = [(b[0]["infer_cpu_s"] - a[0]["infer_cpu_s"]) / more * 1e6
               for a, b in zip(short, long)]
        crawl = measure.median(run[0]["crawl_s"] for run in long) * 1e3
        rss = measure.median(run[1] for run in long) / 1e6
        self.figures.add(key + ".commits", commits, "commits")
        self.figures.add(key + ".metadata_blocks", blocks, "blocks")
        self.figures.add(key + ".events", events, "events")
        self.figures.add_runs(key + ".cpu", cpu, "us")
        self.figures.add(key + ".crawl", crawl, "ms")
        self.figures.add(key + ".rss", rss, "MB")
        counted = ("", "")
        if self._counting:
            a, b = (self._instructions(recording.base, part.trace)
                    for part in (recording.short, recording.long))
            self.figures.add(key + ".instructions", (b - a) / more, "instructions")
            counted = "%.0f" % ((b - a) / more), "%.0f" % ((b - a) / more / events)
        return ("%.2f" % commits, "%.1f" % blocks, "%.1f" % events, *counted, "%.1f" % measure.median(cpu),
                "%.1f" % min(cpu), "%.1f" % crawl, "%.1f" % rss)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--transactions", type=int, default=200, help="of the shorter trace")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="two volumes once, to see it work")
    args = parser.parse_args()
    if args.quick:
        args.transactions, args.rounds = 30, 1
    reason = guestdisk.missing()
    if reason:
        sys.exit("transaction: cannot record a trace here: " + reason)
    measure.setup()
    with measure.scratch() as directory:
        bench = Bench(directory, args.transactions, args.rounds)
        volumes = QUICK if args.quick else VOLUMES
        bench.measure({label: bench.record(number, *volume)
                       for number, (label, volume) in enumerate(volumes.items())})
    print()
    bench.figures.print()


if __name__ == "__main__":
    main()
