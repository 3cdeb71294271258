#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a crawl costs: an ext4 volume with a million files, against tools that walk one, too.

The volume is made by this machine's kernel on a loop device: names of 14 bytes in 1,024
directories, one allocated block a file (--blocks 0: empty files). All programs read the image,
which is in the page cache; find walks the mount with its dentries and inodes in memory, which no
agentless tool has. Rounds are interleaved, figures are medians. Needs root. Takes about three
minutes.
"""
import argparse
import os
import re
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import measure  # noqa: E402
from lib import guestdisk  # noqa: E402

DIRECTORIES = 1024
OURS = "tapwire infer, no trace"
# tapwire crawl tells these of each name, too.
FIND_FORMAT = r"%P\0%y %s %m %U %G %n %T@ %C@ %l\n"


def make_volume(directory, fill, files, blocks):
    """An image with so many files, written by the kernel."""
    image = directory / ("volume-%d" % files)
    size = (files * (blocks * 4096 + 400) + (512 << 20)) * 11 // 10
    guestdisk.run("truncate", "-s", str(size // 4096 * 4096), image)
    guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", "-N",
                  str((files + DIRECTORIES) * 105 // 100 + 8192), image)
    # Nothing here has to survive a crash.
    with guestdisk.mounted(image, directory / "fill", "noinit_itable,noatime,nobarrier") as root:
        guestdisk.run(fill, root, files, min(DIRECTORIES, files // 10), blocks)
    return image


def empty_trace(directory, image):
    trace = directory / "empty-trace"
    trace.write_bytes(struct.pack("<8sIIQ", b"TWTRACE1", 512, 0, os.path.getsize(image)))
    return trace


def crawl_seconds(run):
    return float(re.search(r'"crawl_s":([0-9.]+)', run.stderr).group(1))


def scan_inodes(scan, image):
    return int(guestdisk.run(scan, image).split()[0])


class Bench:
    """The programs, and what they took on each volume."""

    def __init__(self, directory, rounds):
        self.directory = directory
        self.rounds = rounds
        self.figures = measure.Figures("crawl")
        self._run = measure.Runner(directory)
        self._tapwire = measure.build() / "tapwire"
        self._tools = measure.present("e2fsck", "fls")
        self._fill = measure.compile_c("crawl_fill", directory)
        self._scan = measure.compile_c("crawl_scan", directory, "-lext2fs", "-lcom_err")

    def _own(self, image):
        run, trace = self._run, empty_trace(self.directory, image)
        return {
            OURS: lambda: run(self._tapwire, "infer", "--disk", image, "--trace", trace, "--stats"),
            "tapwire crawl": lambda: run(self._tapwire, "crawl", image),
        }

    def _others(self, image, root):
        run = self._run
        tasks = {
            "libext2fs scan": lambda: run(self._scan, image),
            "find -printf, mounted": lambda: run("find", root, "-printf", FIND_FORMAT),
            "e2fsck -fn": lambda: run("e2fsck", "-fn", image),
            "fls -r -m /": lambda: run("fls", "-r", "-m", "/", image),
        }
        return {name: task for name, task in tasks.items()
                if name.split()[0] in ("libext2fs", "find", *self._tools)}

    def volume(self, files, blocks, others=True):
        """Makes a volume and lets all contestants crawl it. Returns the runs by name, and how many
        inodes there were."""
        image = make_volume(self.directory, self._fill, files, blocks)
        inodes = scan_inodes(self._scan, image)
        with guestdisk.mounted(image, self.directory / "mounted", "ro,noload",
                               readonly=True) as root:
            tasks = self._own(image)
            if others:
                tasks.update(self._others(image, root))
            measure.interleaved(1, tasks)  # warms the caches
            results = measure.interleaved(self.rounds, tasks)
        os.unlink(image)
        self._report(files, blocks, inodes, results)
        return results, inodes

    def _report(self, files, blocks, inodes, results):
        ours = results[OURS]
        base = measure.median(run.wall for run in ours)
        rows = [("the view alone (crawl_s)", *times(map(crawl_seconds, ours)), "", "", "")]
        volume = "%d%s" % (files, "" if blocks else "_empty")
        self.figures.add_runs(volume + ".view", map(crawl_seconds, ours), "s")
        for name, runs in results.items():
            wall = measure.median(run.wall for run in runs)
            rss = measure.median(run.rss for run in runs) / 1e6
            rows.append((name, *times(run.wall for run in runs),
                         "%.3f" % measure.median(run.cpu for run in runs),
                         "x%.2f" % (wall / base), "%.1f" % rss))
            key = "%s.%s" % (volume, re.sub(r"[^a-z0-9]+", "_", name).strip("_"))
            self.figures.add_runs(key + ".wall", (run.wall for run in runs), "s")
            self.figures.add_runs(key + ".cpu", (run.cpu for run in runs), "s")
            self.figures.add(key + ".rss", rss, "MB")
        measure.table("%d files of %d blocks, %d inodes" % (files, blocks, inodes),
                      ("", "median s", "min", "max", "cpu s", "to infer", "peak MB"), rows)

    def growth(self, volumes):
        """Whether ten times the files cost ten times as much. volumes: what volume() returned, by
        label, each after a smaller one."""
        rows = []
        first = None
        for label, (results, inodes) in volumes.items():
            seconds = [crawl_seconds(run) / inodes * 1e6 for run in results[OURS]]
            rss = measure.median(run.rss for run in results[OURS])
            self.figures.add_runs(label + ".per_inode", seconds, "us")
            each = ""
            if first:
                # The difference leaves out what a process has anyway.
                each = "%.0f" % ((rss - first[0]) / (inodes - first[1]))
                self.figures.add(label + ".bytes_per_inode", float(each), "B")
            first = first or (rss, inodes)
            rows.append((label, *times(seconds)[:2], each))
        measure.table("the view's growth", ("files", "us an inode", "min", "bytes an inode"), rows)


def times(values):
    values = list(values)
    return tuple("%.3f" % value for value in (measure.median(values), min(values), max(values)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1000000, help="of the largest volume")
    parser.add_argument("--blocks", type=int, default=1, help="of 4 KiB, allocated to each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small volume once, to see it work")
    args = parser.parse_args()
    if args.quick:
        args.files, args.rounds = 20000, 1
    reason = guestdisk.missing()
    if reason:
        sys.exit("crawl: cannot make a volume here: " + reason)
    measure.setup()
    with measure.scratch() as directory:
        bench = Bench(directory, args.rounds)
        volumes = {str(files): bench.volume(files, args.blocks)
                   for files in [args.files // step for step in (100, 10, 1)]}
        if args.blocks:
            volumes["%d_empty" % args.files] = bench.volume(args.files, 0, others=False)
        bench.growth(volumes)
    print()
    bench.figures.print()


if __name__ == "__main__":
    main()
