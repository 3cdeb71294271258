#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a crawl costs: ext4 volumes with up to a million files, against tools that walk one, too.

The volumes are made by this machine's kernel on a loop device: names of 14 bytes in 1,024
directories, one allocated block a file (--blocks 0: empty files). All programs read the image,
which is in the page cache; find walks the mount with its dentries and inodes in memory, which no
agentless tool has. "reading alone" is the limit: pread() of the bytes that no crawl can do without.
Each program runs twice in a row, and the second time counts: a virtual machine's memory may have to
come from its host first, which takes half as long as a crawl. Then the same with nothing in the page
cache, once. Rounds are interleaved, figures are medians, ratios the medians of each round's. Needs
root. Takes about three minutes; --huge adds ten million files (12 GB of memory and 6 GB of disk,
eight minutes more).
"""
import argparse
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import contestants  # noqa: E402
import measure  # noqa: E402
from contestants import OURS  # noqa: E402
from lib import guestdisk  # noqa: E402

VIEW = "the view alone (crawl_s)"
READ = "reading alone"
HUGE = 10000000


class Bench:
    """What the programs took on each volume."""

    def __init__(self, directory, rounds):
        self.directory = directory
        self.rounds = rounds
        self.figures = measure.Figures("crawl")
        self._programs = contestants.Contestants(directory)

    def volume(self, files, blocks, others=True, cold=False):
        """Makes a volume and lets all contestants crawl it. Returns the runs by name, and how many
        inodes there were."""
        volume = contestants.Volume(self.directory, files, files * blocks * contestants.BLOCK)
        volume.fill(files, blocks)
        programs, image = self._programs, volume.image
        inodes = programs.inodes(image)
        with guestdisk.mounted(image, self.directory / "mounted", "ro,noload",
                               readonly=True) as root:
            tasks = {OURS: programs.infer(image), READ: programs.read(image)}
            if others:
                tasks[contestants.CRAWL] = programs.crawl(image)
                tasks.update(programs.others(image, root))
            results = measure.interleaved(
                self.rounds, {name: second_run(task) for name, task in tasks.items()})
        label = "%d%s" % (files, "" if blocks else "_empty")
        self._report("%d files of %d blocks, %d inodes" % (files, blocks, inodes), label,
                     self._walls(results), results)
        if cold:
            self._cold(image, label)
        volume.remove()
        return results, inodes

    @staticmethod
    def _walls(results):
        """Seconds by name: the programs, and the two that are parts of one."""
        walls = {VIEW: [contestants.crawl_seconds(run) for run in results[OURS]]}
        walls.update({name: [run.wall for run in runs] for name, runs in results.items()})
        walls[READ] = [contestants.read_seconds(run) for run in results[READ]]
        return walls

    def _cpu_rss(self, name, results):
        """Median processor seconds and MB, where they are of the whole."""
        if name == VIEW:
            return measure.median(map(contestants.crawl_cpu, results[OURS])), None
        if name == READ:
            return None, None
        return (measure.median(run.cpu for run in results[name]),
                measure.median(run.rss for run in results[name]) / 1e6)

    def _report(self, title, label, walls, results):
        """Times, and how many times as long as ours each took in the same round."""
        rows = []
        for name, seconds in walls.items():
            key = "%s.%s" % (label, re.sub(r"[^a-z0-9]+", "_", name).strip("_"))
            if name == VIEW:
                key = label + ".view"
            to_view = [s / ours for s, ours in zip(seconds, walls[VIEW])]
            to_ours = [s / ours for s, ours in zip(seconds, walls[OURS])]
            cpu, rss = self._cpu_rss(name, results)
            rows.append((name, *times(seconds), optional("%.3f", cpu),
                         "x%.2f" % measure.median(to_view), "x%.2f" % measure.median(to_ours),
                         optional("%.1f", rss)))
            self.figures.add_runs(key + ".wall", seconds, "s")
            self.figures.add_runs(key + ".to_view", to_view, "ratio")
            self.figures.add_runs(key + ".to_infer", to_ours, "ratio")
            if cpu is not None:
                self.figures.add(key + ".cpu", cpu, "s")
            if rss is not None:
                self.figures.add(key + ".rss", rss, "MB")
        measure.table(title, ("", "median s", "min", "max", "cpu s", "to view", "to infer",
                              "peak MB"), rows)

    def _cold(self, image, label):
        """The same from the disk: nothing of the image is in the page cache."""
        def evicted(task):
            def run():
                contestants.evict(image)
                return task()
            return run
        tasks = {OURS: evicted(self._programs.infer(image)),
                 READ: self._programs.read(image, "-c")}
        tasks.update({name: evicted(task) for name, task in self._programs.others(image).items()})
        results = measure.interleaved(self.rounds, tasks)
        walls = self._walls(results)
        self._report("the same from the disk", label + ".cold", walls, results)
        megabytes = contestants.read_bytes(results[READ][0]) / 1e6
        rows = []
        for name in (VIEW, READ):
            rates = [megabytes / seconds for seconds in walls[name]]
            rows.append((name, "%.1f" % megabytes, "%.0f" % measure.median(rates)))
            self.figures.add_runs("%s.cold.%s.rate" % (label, "view" if name == VIEW else "read"),
                                  rates, "MB/s")
        self.figures.add(label + ".cold.metadata", megabytes, "MB")
        measure.table("the disk's speed", ("", "MB of metadata", "MB/s"), rows)

    def growth(self, volumes):
        """Whether ten times the files cost ten times as much. volumes: what volume() returned, by
        label, each after a smaller one."""
        rows = []
        first = None
        for label, (results, inodes) in volumes.items():
            wall = [contestants.crawl_seconds(run) / inodes * 1e6 for run in results[OURS]]
            cpu = [contestants.crawl_cpu(run) / inodes * 1e6 for run in results[OURS]]
            rss = measure.median(run.rss for run in results[OURS])
            self.figures.add_runs(label + ".per_inode", wall, "us")
            self.figures.add_runs(label + ".cpu_per_inode", cpu, "us")
            each = ""
            if first:
                # The difference leaves out what a process has anyway.
                each = "%.1f" % ((rss - first[0]) / (inodes - first[1]))
                self.figures.add(label + ".bytes_per_inode", float(each), "B")
            first = first or (rss, inodes)
            rows.append((label, *times(wall)[:2], "%.3f" % measure.median(cpu),
                         "%.1f" % (rss / 1e6), each))
        measure.table("the view's growth", ("files", "us an inode", "min", "cpu us", "peak MB",
                                            "bytes an inode"), rows)


def second_run(task):
    def run():
        task()
        return task()
    return run


def optional(form, value):
    return "" if value is None else form % value


def times(values):
    values = list(values)
    return tuple("%.3f" % value for value in (measure.median(values), min(values), max(values)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1000000, help="of the largest volume")
    parser.add_argument("--blocks", type=int, default=1, help="of 4 KiB, allocated to each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--huge", action="store_true", default=measure.full(),
                        help="a volume of ten million files, too")
    parser.add_argument("--quick", action="store_true", help="a small volume once, to see it work")
    args = parser.parse_args()
    if args.quick:
        args.files, args.rounds, args.huge = 20000, 1, False
    reason = guestdisk.missing()
    if reason:
        sys.exit("crawl: cannot make a volume here: " + reason)
    measure.setup()
    with measure.scratch() as directory:
        bench = Bench(directory, args.rounds)
        volumes = {str(files): bench.volume(files, args.blocks, cold=files == args.files)
                   for files in [args.files // step for step in (100, 10, 1)]}
        if args.blocks:
            volumes["%d_empty" % args.files] = bench.volume(args.files, 0, others=False)
        if args.huge:
            volumes[str(HUGE)] = bench.volume(HUGE, args.blocks, others=False)
        bench.growth(volumes)
    print()
    bench.figures.print()


if __name__ == "__main__":
    main()
