# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks share: runs that are measured, figures that are printed."""
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parents[1]
ROOT = BENCH.parents[1]
sys.path.insert(0, str(ROOT / "tests"))

Run = collections.namedtuple("Run", "wall cpu rss stdout stderr")


def setup():
    """The environment that a benchmark runs in; SIGTERM undoes mounts as Ctrl-C does."""
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["LC_ALL"] = "C.UTF-8"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("load %.2f %.2f %.2f" % os.getloadavg())


def build():
    """The directory that make built into: TAPWIRE_BUILD, or build/."""
    directory = pathlib.Path(os.environ.get("TAPWIRE_BUILD") or ROOT / "build").resolve()
    if not (directory / "tapwire").exists():
        sys.exit("%s/tapwire is missing: run make first" % directory)
    return directory


def output(directory=None):
    """Where generated files go: bench/ in the build, unless another directory is given."""
    directory = pathlib.Path(directory) if directory else build() / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def full():
    """Whether everything is to be measured at its full size, however long that takes."""
    return bool(os.environ.get("TAPWIRE_BENCH_FULL"))


def present(*programs):
    """The programs that this machine has; names the others."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        print("left out, not installed: " + ", ".join(missing))
    return [program for program in programs if program not in missing]


def compile_c(name, directory, *libraries):
    """Builds tests/bench/NAME.c into a directory."""
    program = pathlib.Path(directory) / os.path.basename(name)
    subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu17", "-O2", "-Wall", "-Wextra", "-o",
                    program, BENCH / (name + ".c"), *libraries], check=True)
    return program


@contextlib.contextmanager
def scratch(parent=None):
    """A directory on a file system with room; TMPDIR says where, unless parent does. It is gone
    afterwards, unless TAPWIRE_KEEP=1 keeps it."""
    parent = parent or os.environ.get("TMPDIR", "/var/tmp")
    directory = tempfile.mkdtemp(prefix="tapwire-bench-", dir=parent)
    try:
        yield pathlib.Path(directory)
    finally:
        if os.environ.get("TAPWIRE_KEEP"):
            print("kept:", directory)
        else:
            shutil.rmtree(directory, ignore_errors=True)


class Runner:
    """Runs commands and says what they took. directory: for the program that counts."""

    def __init__(self, directory):
        self._spent = compile_c("common/spent", directory)
        self._result = pathlib.Path(directory) / "spent.result"

    def __call__(self, *argv, keep=False, allowed=(0,)):
        """Runs a command to its end; its output is thrown away unless it is to be kept. Wall and
        processor seconds, the peak RSS in bytes, and what it said. allowed: exit statuses."""
        done = subprocess.run([self._spent, self._result, *argv], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE if keep else subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
        said = done.stderr.decode(errors="replace")
        if done.returncode not in allowed:
            sys.exit("%s: exit %d\n%s" % (" ".join(map(str, argv)), done.returncode, said))
        wall, cpu, rss = self._result.read_text().split()
        return Run(float(wall), float(cpu), int(rss) * 1024, (done.stdout or b"").decode(), said)


def interleaved(rounds, tasks):
    """Runs each task once a round, beginning with another one each time, so that a slow moment of
    the machine hits all alike. tasks: name to function. Returns name to list of results."""
    results = {name: [] for name in tasks}
    names = list(tasks)
    for number in range(rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            results[name].append(tasks[name]())
    return results


def cpu_seconds(pid):
    """The processor time of a process that runs, all its threads, by a clock finer than the ticks of /proc."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def median(values):
    return statistics.median(list(values))


def percentile(ordered, share):
    """The value that this share of an ordered list does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Figures:
    """One JSON line each, all at the end: the tables come first."""

    def __init__(self, bench):
        self._bench = bench
        self._lines = []

    def add(self, name, value, unit, **more):
        value = round(value) if abs(value) >= 1000 else float("%.4g" % value)
        self._lines.append({"name": "%s.%s" % (self._bench, name), "unit": unit, "value": value,
                            **more})

    def add_runs(self, name, values, unit):
        """The median of several runs, with its extremes."""
        values = list(values)
        self.add(name, median(values), unit, min=float("%.4g" % min(values)),
                 max=float("%.4g" % max(values)), runs=len(values))

    def print(self):
        for line in self._lines:
            print(json.dumps(line))


def table(title, head, rows):
    """The first column is text, the others are numbers, already formatted."""
    lines = [head, *rows]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(head))]
    print("\n" + title)
    for line in lines:
        print("  " + "  ".join(str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))))
    sys.stdout.flush()
