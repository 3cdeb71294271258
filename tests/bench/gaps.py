#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Whether a guest's write is ever delayed by what happens to the ring or its consumer: histograms of its latency.

Writes of 4 KiB, random, at a fixed rate (one at a time) and with 32 in flight, without capture, with a consumer
that drains the ring, with a ring that nobody drains, with a tiny one whose consumer sleeps again and again (so gaps
open and close all the time), with a consumer that is stopped for the middle third of the writes (SIGSTOP, SIGCONT),
and with one that is killed a third on and started again two thirds on.

"driver": the tapdisk driver in a host that calls it as tapdisk does, above an image in memory; each request from the
call to its return; and once more by the processor time that the driver takes, which other load does not change, for
a small and a large disk. "guest": fio over NBD to nbdkit-tapwire (nbdkit's file plugin without capture), an image in
memory; afterwards everything is read back and compared, and one error ends the benchmark.

Rounds are interleaved, percentiles are medians of the rounds', histograms are of all rounds. Prints tables, then one
JSON line a figure, and draws gaps as PNG and SVG with gnuplot into the directory bench of the build, where the points
are, too. Takes about seven minutes.
"""
import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))

import drawing  # noqa: E402
import measure  # noqa: E402
import points  # noqa: E402
from lib import ringfile  # noqa: E402

BLOCK = 4096
IN_FLIGHT = 32
TINY = "64K"

# ring: whether there is one, and which; reader: which program of ring_bench reads it; hurt: what becomes of it.
Situation = collections.namedtuple("Situation", "label ring reader hurt", defaults=(None, None, None))
SITUATIONS = {
    "without": Situation("without capture"),
    "drained": Situation("ring is drained", "ring", "drain"),
    "full": Situation("ring is full", "tiny"),
    "dozing": Situation("gaps on and on", "tiny", "doze"),
    "stopped": Situation("consumer stopped", "ring", "drain", "stop"),
    "killed": Situation("consumer killed", "ring", "drain", "kill"),
}

# Writes of a run, how many are in flight, how many a second (see gaps_bench.c). gib: of the driver's disk.
Load = collections.namedtuple("Load", "label writes depth rate gib", defaults=(0,))

# counts: rounded latency in ns to number of writes.
Outcome = collections.namedtuple("Outcome", "percentiles counts gaps missed")
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1}

COLOURS = {"without": "#808080", "drained": "#208020", "full": "#2060c0", "dozing": "#e09020", "stopped": "#8030a0",
           "killed": "#c02020"}
SCRIPT = """\
set multiplot layout 3,2
set logscale xy
set yrange [0.001:1000]
set xlabel 'us'
set ylabel 'of 1000 writes'
set grid
set key top right font ',10'
{plots}
unset multiplot
"""


class Consumer:
    """Reads a ring, and is hurt. Nothing, when the situation has none."""

    def __init__(self, program, ring, situation):
        self._argv = [program, situation.reader, ring]
        self._ring = ring
        self._hurt = situation.hurt
        self._process = self._start() if situation.reader else None

    def _start(self):
        return subprocess.Popen(self._argv, stdin=subprocess.DEVNULL)

    def written(self):
        """How many writes the ring has seen."""
        counters = ringfile.counters(self._ring)
        return counters["records"] + counters["missed"]

    def _wait(self, writes, over):
        while not over() and self.written() < writes:
            time.sleep(0.005)

    def watch(self, writes, over):
        """Hurts the consumer when a third of the writes has been seen, and mends it after two. over: whether the
        load has ended."""
        if not self._hurt:
            return
        begun = self.written()
        self._wait(begun + writes // 3, over)
        if self._hurt == "stop":
            self._process.send_signal(signal.SIGSTOP)
        else:
            self.end()
        self._wait(begun + writes * 2 // 3, over)
        if self._hurt == "stop":
            self._process.send_signal(signal.SIGCONT)
        else:
            self._process = self._start()

    def end(self):
        if self._process:
            self._process.kill()
            self._process.wait()


class Bench:
    """What the two kinds of capture point share. size: of the ring."""

    def __init__(self, directory, size):
        self._directory = pathlib.Path(directory)
        self._reader = points.compile_ring_bench(directory)
        self._size = size

    def _ring_size(self, situation):
        return TINY if situation.ring == "tiny" else self._size

    @contextlib.contextmanager
    def _consumer(self, ring, situation):
        consumer = Consumer(self._reader, ring, situation)
        try:
            yield consumer
        finally:
            consumer.end()

    @staticmethod
    def _gaps(ring, situation, load):
        """How many gaps there were, and the share of writes that fell into them."""
        if not situation.ring:
            return 0, 0
        counters = ringfile.counters(ring)
        if situation.reader is None or situation.hurt or situation.ring == "tiny":
            if counters["missed"] == 0:
                sys.exit("gaps: %s: nothing was missed, so nothing was measured" % situation.label)
        return counters["gaps"], counters["missed"] / load.writes


class DriverBench(Bench):
    """The tapdisk driver."""

    def __init__(self, directory, size):
        super().__init__(directory, size)
        self._program = points.compile_with_driver("gaps_bench", directory)
        self._rings = self._directory / "rings"

    def _start(self, spec, writes, load):
        return subprocess.Popen([self._program, spec, str(load.gib), str(writes), str(load.depth), str(load.rate)],
                                env={**os.environ, "TAPWIRE_RING_DIR": str(self._rings)},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def run(self, situation, load):
        self._rings.mkdir(exist_ok=True)
        for path in self._rings.iterdir():
            path.unlink()
        ring = self._rings / "bench.ring"
        spec = "bench,ring-size=%s" % self._ring_size(situation) if situation.ring else "-"
        with points.ended(self._start(spec, load.depth, load)) as first:  # makes the ring
            first.communicate()
        with self._consumer(ring, situation) as consumer, points.ended(self._start(spec, load.writes, load)) as process:
            process.stdout.readline()  # it begins
            consumer.watch(load.writes, lambda: process.poll() is not None)
            text, _ = process.communicate(timeout=120)
            if process.returncode != 0:
                sys.exit("gaps: gaps_bench: exit %d" % process.returncode)
            lines = [list(map(int, line.split())) for line in text.splitlines()]
            return Outcome(lines[0], dict(lines[1:]), *self._gaps(ring, situation, load))


class GuestBench(Bench):
    """fio, on an NBD export."""

    def run(self, situation, load):
        work = self._directory / "work"
        work.mkdir(exist_ok=True)
        for path in work.iterdir():
            path.unlink()
        image, ring, socket = work / "image", work / "ring", work / "nbd.sock"
        with open(image, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, load.writes * BLOCK)
        server = ["file", "file=%s" % image]
        if situation.ring:
            server = [points.plugin_path(), "file=%s" % image, "ring=%s" % ring,
                      "ring-size=%s" % self._ring_size(situation)]
        with points.nbdkit(socket, *server), self._consumer(ring, situation) as consumer, \
                points.ended(self._fio(work, socket, load)) as fio:
            consumer.watch(load.writes, lambda: fio.poll() is not None)
            text, _ = fio.communicate(timeout=120)
            if fio.returncode != 0:
                sys.exit("gaps: %s: fio: exit %d\n%s" % (situation.label, fio.returncode, text))
            outcome = self._outcome(text, load)
            return outcome._replace(**dict(zip(("gaps", "missed"), self._gaps(ring, situation, load))))

    @staticmethod
    def _fio(work, socket, load):
        """Writes each block of the image once, then reads it all back and compares."""
        rate = ["--rate_iops=,%d" % load.rate] if load.rate != "busy" else []
        return subprocess.Popen(
            ["fio", "--name=gaps", "--ioengine=nbd", "--uri=nbd+unix:///?socket=%s" % socket, "--rw=randwrite",
             "--bs=%d" % BLOCK, "--size=%d" % (load.writes * BLOCK), "--iodepth=%d" % load.depth, *rate,
             "--randseed=1", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--lat_percentiles=1",
             "--output-format=json+"],
            cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @staticmethod
    def _outcome(text, load):
        job = json.loads(text[text.index("{"):])["jobs"][0]
        if job["error"] or job["write"]["total_ios"] != load.writes or job["read"]["total_ios"] != load.writes:
            sys.exit("gaps: fio did not write and verify %d blocks\n%s" % (load.writes, text))
        latency = job["write"]["lat_ns"]
        bins = sorted((int(ns), count) for ns, count in latency["bins"].items())
        ends = list(itertools.accumulate(count for _, count in bins))

        def percentile(share):
            return next(ns for (ns, _), end in zip(bins, ends) if end > share * ends[-1])
        counts = collections.Counter()
        for ns, count in bins:
            counts[rounded_down(ns)] += count
        values = [percentile(share) for share in list(PERCENTILES.values())[:-1]]
        return Outcome([*values, latency["max"]], counts, 0, 0)


def rounded_down(ns):
    """To a quarter of a power of two, as gaps_bench.c does it."""
    shift = max(0, ns.bit_length() - 3)
    return ns >> shift << shift


def per_mille(outcomes, key=lambda ns: ns):
    """The histogram of several runs; key: which bucket a latency belongs to."""
    counts = collections.Counter()
    for outcome in outcomes:
        for ns, count in outcome.counts.items():
            counts[key(ns)] += count
    total = sum(counts.values())
    return {bucket: count * 1000 / total for bucket, count in counts.items()}


def in_us(ns):
    return "%.3g" % (ns / 1000) if ns < 1e6 else "%d" % (ns / 1000)


def show(name, load, results, figures):
    """The tables of one load. results: key of a situation to outcomes."""
    rows = []
    for key, outcomes in results.items():
        columns = [[outcome.percentiles[i] for outcome in outcomes] for i in range(len(PERCENTILES))]
        rows.append((SITUATIONS[key].label, *(in_us(measure.median(column)) for column in columns),
                     in_us(min(columns[-1])), in_us(max(columns[-1])),
                     "%d" % measure.median(outcome.gaps for outcome in outcomes),
                     "%.0f" % (100 * measure.median(outcome.missed for outcome in outcomes))))
        for percentile, column in zip(PERCENTILES, columns):
            figures.add_runs("%s.%s.%s" % (name, key, percentile), column, "ns")
    measure.table("%s: latency in us" % load.label,
                  ("", *PERCENTILES, "least max", "greatest", "gaps", "missed %"), rows)
    show_histogram(load, results)


def show_histogram(load, results):
    shares = {key: per_mille(outcomes, lambda ns: max(0, ns.bit_length() - 1)) for key, outcomes in results.items()}
    buckets = sorted({bucket for share in shares.values() for bucket in share})

    def cell(value):
        return "." if not value else "%.1f" % value if value >= 1 else "%.1g" % value
    measure.table("%s: of 1000 writes, how many took so long" % load.label, ("from us", *shares),
                  [(in_us(1 << bucket), *(cell(share.get(bucket, 0)) for share in shares.values()))
                   for bucket in range(buckets[0], buckets[-1] + 1)])


def draw(out, panels):
    """panels: name to load and results."""
    plots = []
    for name, (load, results) in panels.items():
        shares = {key: per_mille(outcomes) for key, outcomes in results.items()}
        seen = {bucket for share in shares.values() for bucket in share}
        buckets = [quarter << shift for shift in range(max(seen).bit_length() - 2) for quarter in range(4, 8)]
        data = out / ("gaps-%s.dat" % name)
        # What there is nothing of lies below the picture.
        data.write_text("# us, of 1000 writes: %s\n" % ", ".join(shares) + "".join(
            "%.4f %s\n" % (bucket / 1000, " ".join("%.6f" % (share.get(bucket) or 1e-6) for share in shares.values()))
            for bucket in buckets if bucket >= min(seen)))
        lines = ", ".join("'%s' using 1:%d with steps linewidth 2 linecolor rgb '%s' title '%s'" % (
            data, column, COLOURS[key], SITUATIONS[key].label) for column, key in enumerate(shares, 2))
        plots.append("set title '%s'\nplot %s" % (load.label, lines))
    drawing.draw(out, "gaps", SCRIPT.format(plots="\n".join(plots)), size=(1600, 1700))


def loads(quick):
    """Name of a load to the kind of its capture point and the load."""
    share = 8 if quick else 1

    def in_flight(rate):
        return IN_FLIGHT if isinstance(rate, str) else 1

    def driver(label, writes, rate, gib):
        return DriverBench, Load("driver, " + label, writes // share, in_flight(rate), rate, gib)

    def guest(label, writes, rate):
        return GuestBench, Load("guest, " + label, writes // share, in_flight(rate), rate)
    return {
        "driver.paced": driver("10000 writes a second", 20000, 10000, 64),
        "driver.busy": driver("32 in flight", 3000000, "busy", 64),
        "driver.cpu": driver("processor time, disk of 64 GiB", 500000, "cpu", 64),
        "driver.cpu.large": driver("processor time, disk of 1 TiB", 1500000, "cpu", 1024),
        "guest.paced": guest("5000 writes a second", 10000, 5000),
        "guest.busy": guest("32 in flight", 131072, "busy"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="directory for the plots, instead of the build's")
    parser.add_argument("--quick", action="store_true",
                        help="one round of little, to see it work; the plots are thrown away")
    args = parser.parse_args()
    measure.setup()
    figures = measure.Figures("gaps")
    os.environ.setdefault("TMPDIR", "/dev/shm")
    panels = {}
    with measure.scratch() as directory:
        present = measure.present("fio", "gnuplot")
        benches = {}
        for name, (kind, load) in loads(args.quick).items():
            if kind is GuestBench and "fio" not in present:
                continue
            # Less than what is written while nobody reads.
            bench = benches.setdefault(kind, kind(directory, "1M" if args.quick else "8M"))
            results = measure.interleaved(1 if args.quick else args.rounds, {
                key: lambda b=bench, s=situation, w=load: b.run(s, w) for key, situation in SITUATIONS.items()})
            show(name, load, results, figures)
            panels[name] = load, results
        if "gnuplot" in present:
            draw(measure.output(args.out or (directory / "plots" if args.quick else None)), panels)
    print()
    figures.print()


if __name__ == "__main__":
    main()
