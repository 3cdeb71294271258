#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""How much slower a guest's programs are under tapwire: benchmarks on an ext4 that is mounted from an NBD export, with
nbdkit's file plugin and with `tapwire serve` (ring, inspector, courier, and a receiver of the events).

All run on this machine's processors, the inspector too. Images are in memory, so nothing hides behind a disk's time.
"Again" is a second disk of the file plugin: what differs from it is noise. The three are mounted side by side, each
benchmark runs on one after the other, beginning with another one each round, after a round that does not count; its
time ends when everything is on the disk, and the next one begins when the inspector has read all there is. Ratios are
of the runs of one round. Processor seconds are those of nbdkit, and of inspector and courier.

bonnie++, fio (4 KiB random and 1 MiB in order), untar of a generated source tree, and transactions of TPC-B's kind on
SQLite. Draws the relative run times as overhead.png and overhead.svg with gnuplot into the directory bench of the
build, where they are as .dat, too. Needs root. Takes about seven minutes.
"""
import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))

import drawing  # noqa: E402
import measure  # noqa: E402
import points  # noqa: E402
from lib import guestdisk  # noqa: E402
from lib.calls import sync_fs  # noqa: E402
from lib.endpoint import Endpoint  # noqa: E402
from lib.property import Tapwire  # noqa: E402
from lib.service import Service  # noqa: E402

DISK = "1536M"
WITHOUT, AGAIN, WITH = "without", "again", "tapwire"
BONNIE_SLEEPS = 3  # seconds, before it seeks
PARTS = ("tapwire-inspect", "tapwire-courier")
SCRIPT = """\
set title 'Run time with tapwire, relative to that without'
set style data histogram
set style histogram errorbars gap 2 linewidth 1.5
set style fill solid 0.8 border -1
set boxwidth 0.9
set yrange [0:*]
set grid ytics
set ytics 0.2
set key outside top center horizontal
set bars 0.6
set arrow from graph 0, first 1 to graph 1, first 1 nohead linewidth 2 dashtype 2 front
plot '{data}' using 2:3:4:xticlabels(1) title 'without, once more' linecolor rgb '#a0a0a0', \\
     '' using 5:6:7 title 'with tapwire' linecolor rgb '#c02020'
"""


# --- the disks ---

class Plain:
    """A disk behind nbdkit's file plugin."""

    def __init__(self, directory, image, _tapwire):
        self._directory, self._image = directory, image

    @contextlib.contextmanager
    def mounted(self):
        """Where it is mounted."""
        socket = self._directory / "nbd.sock"
        with points.nbdkit(socket, "file", "file=%s" % self._image) as server, \
                guestdisk.GuestDisk(self._directory, self._image, socket=socket) as disk:
            self._server = server.pid
            yield disk.root

    def cpu(self):
        """Processor seconds so far: the server's, and of what follows it."""
        return measure.cpu_seconds(self._server), 0

    def rest(self):
        """Returns when nothing goes on."""

    def summary(self):
        """What became of the writes, as text."""
        return None


class Followed(Plain):
    """A disk behind `tapwire serve`."""

    def __init__(self, directory, image, tapwire):
        super().__init__(directory, image, tapwire)
        self._tapwire = tapwire

    @contextlib.contextmanager
    def mounted(self):
        with Endpoint(self._directory) as endpoint, \
                Service(self._tapwire, self._directory, self._image, endpoint) as self._service:
            with guestdisk.GuestDisk(self._directory, self._image, socket=self._service.socket) as disk:
                self._server = self._service.pid("nbdkit")
                self._parts = [self._service.pid(part) for part in PARTS]
                yield disk.root
            self.rest()
            self._status = self._service.status()
            self._service.stop()
            self._received = endpoint.finish()

    def cpu(self):
        return measure.cpu_seconds(self._server), sum(map(measure.cpu_seconds, self._parts))

    def rest(self):
        time.sleep(1.1)  # the status is that old at most
        if not guestdisk.wait_until(lambda: self._service.status().get("lag_bytes") == 0, 60):
            sys.exit("overhead: the inspector does not catch up\n" + self._service.said())

    def summary(self):
        events = self._status["events"]
        if not events:
            sys.exit("overhead: no event came of all this: nothing was measured")
        return "%d events, %d gaps, %.1f MB with content, %.1f MB as ranges" % (
            events, self._status["gaps"], self._status["captured_bytes"] / 1e6, self._status["spared_bytes"] / 1e6)


# --- the benchmarks ---

def quietly(*argv, **kwargs):
    return subprocess.run([str(arg) for arg in argv], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=240, **kwargs).stdout


def timed(work, root):
    """Seconds until the work is on the disk."""
    start = time.perf_counter()
    work()
    sync_fs(root)
    return time.perf_counter() - start


class Benchmarks:
    """Each takes a directory on a disk, and returns seconds. share: 1, or a fraction of the work."""

    def __init__(self, directory, share):
        self._share = share
        self._tar = directory / "tree.tar"
        self._make_tar(int(8000 * share))
        self._random = random.Random(2)

    def all(self):
        """Name to function, of those that this machine can run."""
        present = measure.present("bonnie++", "fio")
        found = {"bonnie++": self.bonnie} if "bonnie++" in present else {}
        if "fio" in present:
            found["fio, 4 KiB random"] = lambda root: self.fio(root, 192, "randwrite", "4k", 16)
            found["fio, 1 MiB in order"] = lambda root: self.fio(root, 768, "write", "1M", 4)
        return {**found, "untar": self.untar, "SQLite": self.sqlite}

    def _make_tar(self, files):
        """Something like a source tree: most files are small, some are not."""
        source = random.Random(1)
        text = source.randbytes(1 << 19).hex().encode()
        with tarfile.open(self._tar, "w") as tar:
            for number in range(files):
                size = min(len(text), int(source.lognormvariate(8.6, 1.3)))
                entry = tarfile.TarInfo("tree/dir-%03d/sub-%d/source-%05d.c" % (number % 97, number % 7, number))
                entry.size = size
                at = source.randrange(len(text) - size + 1)
                tar.addfile(entry, io.BytesIO(text[at:at + size]))

    def bonnie(self, root):
        megabytes = max(16, int(384 * self._share))
        return timed(lambda: quietly(
            "bonnie++", "-q", "-f", "-u", "root", "-d", root, "-m", "guest", "-x", 1, "-s", megabytes, "-r",
            megabytes // 2, "-n", "%d:8192:0:16" % max(1, int(8 * self._share))), root) - BONNIE_SLEEPS

    def fio(self, root, megabytes, kind, size, depth):
        """The time of the writes and of the sync, without fio's own start."""
        total = int(megabytes * self._share) << 20
        with open(os.path.join(root, "fio"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, total)
        sync_fs(root)
        text = quietly("fio", "--name=overhead", "--filename=" + os.path.join(root, "fio"), "--rw=" + kind,
                       "--bs=" + size, "--size=%d" % total, "--ioengine=libaio", "--direct=1",
                       "--iodepth=%d" % depth, "--randseed=1", "--output-format=json", cwd=root)
        took = json.loads(text[text.index("{"):])["jobs"][0]["write"]["runtime"] / 1000
        return took + timed(lambda: None, root)

    def untar(self, root):
        return timed(lambda: quietly("tar", "-x", "-f", self._tar, "-C", root), root)

    def sqlite(self, root):
        accounts = 10000
        base = sqlite3.connect(os.path.join(root, "bank.db"), isolation_level=None)
        base.executescript("""
            PRAGMA synchronous = FULL;
            CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);
            CREATE TABLE teller(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);
            CREATE TABLE branch(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);
            CREATE TABLE history(teller INTEGER, branch INTEGER, account INTEGER, delta INTEGER, filler TEXT);
            BEGIN""")
        for table, count in (("account", accounts), ("teller", 10), ("branch", 1)):
            base.executemany("INSERT INTO %s VALUES(?, 0, ?)" % table, ((i, "x" * 84) for i in range(count)))
        base.execute("COMMIT")
        sync_fs(root)

        def transactions():
            for _ in range(int(1000 * self._share)):
                account, teller, delta = self._random.randrange(accounts), self._random.randrange(10), 7
                base.execute("BEGIN")
                base.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (delta, account))
                base.execute("SELECT balance FROM account WHERE id = ?", (account,)).fetchone()
                base.execute("UPDATE teller SET balance = balance + ? WHERE id = ?", (delta, teller))
                base.execute("UPDATE branch SET balance = balance + ? WHERE id = 0", (delta,))
                base.execute("INSERT INTO history VALUES(?, 0, ?, ?, ?)", (teller, account, delta, "x" * 22))
                base.execute("COMMIT")
        try:
            return timed(transactions, root)
        finally:
            base.close()


def run(benchmark, disk, root):
    """Seconds that it took, and processor seconds of the server and of what follows it."""
    directory = os.path.join(root, "work")
    os.mkdir(directory)
    sync_fs(root)
    disk.rest()
    before = disk.cpu()
    seconds = benchmark(directory)
    disk.rest()
    after = disk.cpu()
    shutil.rmtree(directory)
    sync_fs(root)
    return seconds, after[0] - before[0], after[1] - before[1]


# --- what is shown ---

def show(results, figures):
    """results: benchmark to disk to runs. Returns the points of the chart."""
    rows, points_ = [], []
    for name, disks in results.items():
        seconds = {disk: [run[0] for run in runs] for disk, runs in disks.items()}
        ratios = {disk: [took / base for took, base in zip(seconds[disk], seconds[WITHOUT])] for disk in (AGAIN, WITH)}
        cpu = {disk: [measure.median(run[part] for run in disks[disk]) for part in (1, 2)] for disk in disks}
        key = name.replace(", ", "_").replace(" ", "_")
        for disk in disks:
            figures.add_runs("%s.%s" % (key, disk), seconds[disk], "s")
        for disk, values in ratios.items():
            figures.add_runs("%s.%s.ratio" % (key, disk), values, "x")
        figures.add("%s.without.server_cpu" % key, cpu[WITHOUT][0], "s")
        figures.add("%s.tapwire.server_cpu" % key, cpu[WITH][0], "s")
        figures.add("%s.tapwire.service_cpu" % key, cpu[WITH][1], "s")
        rows.append((name, *("%.2f" % measure.median(seconds[disk]) for disk in disks),
                     *("x%.2f (%.2f to %.2f)" % spread(ratios[disk]) for disk in (AGAIN, WITH)),
                     "%.2f" % cpu[WITHOUT][0], "%.2f" % cpu[WITH][0], "%.2f" % cpu[WITH][1]))
        points_.append((name, *spread(ratios[AGAIN]), *spread(ratios[WITH])))
    measure.table("run times in s, and processor seconds",
                  ("", *next(iter(results.values())), "again / without", "tapwire / without", "nbdkit", "with tapwire",
                   "inspector, courier"), rows)
    return points_


def spread(values):
    return measure.median(values), min(values), max(values)


def draw(out, rows):
    data = out / "overhead.dat"
    data.write_text("# benchmark, relative run time: median, least, greatest without, and with tapwire\n" + "".join(
        "\"%s\" %s\n" % (name, " ".join("%.4f" % value for value in values)) for name, *values in rows))
    drawing.draw(out, "overhead", SCRIPT.format(data=data), size=(1300, 640))


def mounted(stack, directory, images):
    """Disk to its object and where it is mounted."""
    tapwire = Tapwire(measure.build())
    found = {}
    for name, kind in ((WITHOUT, Plain), (AGAIN, Plain), (WITH, Followed)):
        place, image = directory / name, images / (name + ".img")
        place.mkdir()
        guestdisk.make_image(image, DISK)
        # A first write to a page of a tmpfs costs more than all the rest of it.
        with open(image, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(image))
        disk = kind(place, image, tapwire)
        found[name] = disk, stack.enter_context(disk.mounted())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="directory for the plot, instead of the build's")
    parser.add_argument("--quick", action="store_true", help="one round of little, to see it work")
    args = parser.parse_args()
    reason = guestdisk.missing()
    if reason:
        sys.exit("overhead: cannot mount a disk here: " + reason)
    measure.setup()
    figures = measure.Figures("overhead")
    with measure.scratch() as directory, measure.scratch("/dev/shm") as images:
        benchmarks = Benchmarks(directory, 1 / 24 if args.quick else 1)
        with contextlib.ExitStack() as stack:
            disks = mounted(stack, directory, images)
            results = {}
            for name, benchmark in benchmarks.all().items():
                tasks = {disk: lambda b=benchmark, d=disk: run(b, *disks[d]) for disk in disks}
                if not args.quick:
                    measure.interleaved(1, tasks)  # warms the caches
                results[name] = measure.interleaved(1 if args.quick else args.rounds, tasks)
        rows = show(results, figures)
        print("\n" + disks[WITH][0].summary())
        if measure.present("gnuplot"):
            draw(measure.output(args.out or (directory if args.quick else None)), rows)
    print()
    figures.print()


if __name__ == "__main__":
    main()
