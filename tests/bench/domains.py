#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hundreds of guests on one host: how long until all their disks are live, or let go, what that
costs, and what they cost when nothing happens.

A real xenstored runs without Xen (tests/lib/xenless.c); the benchmark plays the toolstack, and a
program of the tests has the capture points: a ring a disk, in memory as in /run, to which nobody
writes. Each disk is an image of its own with a small ext4. In turn: the guests are there when
tapwired starts; all go; they come one after the other; most go again; the rest is left alone.
Clocks begin with the start, or the first guest's first change in xenstore. Limits of open files
are as systemd sets them. A receiver takes the events. Takes about three minutes.
"""
import argparse
import collections
import os
import pathlib
import resource
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import contestants  # noqa: E402
import measure  # noqa: E402
from lib import dom0, guestdisk, xenless  # noqa: E402
from lib.endpoint import Endpoint  # noqa: E402
from lib.property import Tapwire  # noqa: E402

VDEVS = ("xvda", "xvdb")
FIRST_DOMID = 5
SOFT_FILES = 1024    # systemd's DefaultLimitNOFILE
PATIENCE = 120       # seconds, for any of the phases
LOOK = 0.02          # seconds between two looks
DISKS = "/local/domain/0/tapwire/disks"
TICKS = os.sysconf("SC_CLK_TCK")
GROUPS = ("tapwired", "inspectors", "courier", "xenstored")


# --- processes ---

def stat(pid):
    text = pathlib.Path("/proc/%d/stat" % pid).read_text(encoding="ascii")
    return text.partition("(")[2].rpartition(")")[0], text.rpartition(")")[2].split()


def children(pid):
    """Process ids by the name's first 15 characters, of those that run."""
    found = collections.defaultdict(list)
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, fields = stat(int(entry))
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found[name].append(int(entry))
    return found


def ended_children(pid):
    """Processor seconds of the children that have ended."""
    return sum(map(int, stat(pid)[1][13:15])) / TICKS


def status_number(path, key):
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def memory(pid, key):
    """VmRSS, VmHWM or RssAnon, in bytes."""
    return status_number(pathlib.Path("/proc/%d/status" % pid), key) * 1024


def proportional(pid):
    """Bytes, where a page that n processes share is a n-th of a page for each."""
    return status_number(pathlib.Path("/proc/%d/smaps_rollup" % pid), "Pss") * 1024


def wakeups(pid):
    """How often its threads have gone to sleep by themselves."""
    return sum(status_number(task / "status", "voluntary_ctxt_switches")
               for task in pathlib.Path("/proc/%d/task" % pid).iterdir())


# --- the host ---

class Host:
    """A dom0, its guests, and what its processes have spent."""

    def __init__(self, machine, template, endpoint):
        self.machine = machine
        self._endpoint = endpoint
        self._template = template
        self._next_domid = FIRST_DOMID
        self._number = 0
        self.guests = []

    def images(self, guests):
        """Makes images for the next guests. Returns a list, a guest's disks each."""
        made = []
        for _ in range(guests):
            paths = [os.path.join(self.machine.images, "%d-%s.img" % (self._number, vdev)) for vdev in VDEVS]
            for path in paths:
                guestdisk.copy_image(self._template, path)
            self._number += 1
            made.append(paths)
        return made

    def come(self, images):
        """One guest after the other, as xl makes them."""
        for paths in images:
            guest = xenless.Domain(self.machine.xen, self._next_domid, "guest-%d" % self._next_domid).create()
            self._next_domid += 1
            for vdev, path in zip(VDEVS, paths):
                self.machine.plug(guest, vdev, path)
            self.guests.append(guest)

    def go(self, count):
        """The first ones, as xl destroys them."""
        for guest in self.guests[:count]:
            self.machine.end(guest)
        del self.guests[:count]

    def disks(self):
        return len(self.guests) * len(VDEVS)

    def wait(self, condition, what):
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                sys.exit("domains: not %s after %d s\n%s" % (what, PATIENCE, self.machine.said()))
            time.sleep(LOOK)

    def wait_live(self):
        """Until xenstore says that all disks are watched."""
        want = str(self.disks()).encode()
        self.wait(lambda: self.machine.xen.store.get(DISKS) in (want, want.decode()), "live")

    def wait_released(self):
        """Until no ring and no inspector is left of the guests that have gone."""
        rings = 2 * self.disks()  # each with a file for its cursor
        self.wait(lambda: len([name for name in os.listdir(self.machine.ring_dir)
                               if name.endswith((".ring", ".cursor"))]) <= rings, "released")
        self.wait(lambda: len(self.pids()["inspectors"]) == self.disks(), "released")
        self.wait_live()

    def check(self, attached):
        """All are live by tapwired's own word, and the receiver has heard of so many attached disks, of other lives,
        too."""
        states = collections.Counter(disk["state"] for disk in self.machine.disks().values())
        if states != {"live": self.disks()}:
            sys.exit("domains: %s\n%s" % (dict(states), self.machine.said()))
        self.wait(lambda: self._heard("disk.attached") == attached, "heard of")

    def _heard(self, event_type):
        return sum(event["type"] == "org.tapwire." + event_type for event in self._endpoint.events())

    def pids(self):
        """By group."""
        tapwired = self.machine.proc
        own = children(tapwired.pid) if tapwired else {}
        return {"tapwired": [tapwired.pid] if tapwired else [],
                "inspectors": own.get("tapwire-inspect", []),
                "courier": own.get("tapwire-courier", []),
                "xenstored": [self.machine.xen.pid()]}

    def spent(self):
        """Processor seconds by group, of the inspectors also of those that have ended."""
        seconds = {group: sum(map(measure.cpu_seconds, pids)) for group, pids in self.pids().items()}
        if self.machine.proc:
            seconds["inspectors"] += ended_children(self.machine.proc.pid)
        return seconds


Phase = collections.namedtuple("Phase", "done after cpu")


def timed(host, work, until):
    """Does the toolstack's work, then waits. Seconds until it was done: from the beginning, and after
    the toolstack's last change; processor seconds by group."""
    before = host.spent()
    start = time.monotonic()
    work()
    told = time.monotonic()
    until()
    end = time.monotonic()
    after = host.spent()
    return Phase(end - start, end - told, {group: after[group] - before[group] for group in GROUPS})


def start(host):
    """The guests are there already. tapwired and its children begin with nothing spent."""
    return timed(host, host.machine.start, host.wait_live)


# --- what is measured ---

def crawl_cpu(directory, image):
    """Processor seconds that reading one image takes, and nothing else."""
    task = contestants.Contestants(directory).infer(image)
    task()
    return measure.median(contestants.crawl_cpu(task()) for _ in range(20))


def measure_memory(host, figures):
    pids = host.pids()
    rows = []
    for group in GROUPS[:3]:
        row = [len(pids[group])]
        for key, unit, read in (("peak", "VmHWM", memory), ("rss", "VmRSS", memory), ("own", "RssAnon", memory)):
            row.append(sum(read(pid, unit) for pid in pids[group]) / 1e6)
            figures.add("%s.%s" % (group, key), row[-1], "MB")
        row.append(sum(map(proportional, pids[group])) / 1e6)
        figures.add(group + ".pss", row[-1], "MB")
        rows.append((group, row[0], *("%.1f" % value for value in row[1:])))
    measure.table("memory with %d disks, MB" % host.disks(),
                  ("", "processes", "peak RSS", "RSS", "of it their own", "shares divided"), rows)


def measure_idle(host, seconds, figures):
    """What runs while nothing happens."""
    pids = host.pids()

    def count():
        return {group: (sum(map(measure.cpu_seconds, pids[group])), sum(map(wakeups, pids[group]))) for group in GROUPS}
    before = count()
    time.sleep(seconds)
    after = count()
    rows = []
    for group in GROUPS:
        cpu, woken = (b - a for a, b in zip(before[group], after[group]))
        rows.append((group, len(pids[group]), "%.1f" % (cpu * 1e3), woken, "%.4f" % (100 * cpu / seconds)))
        figures.add("idle.%s.cpu" % group, cpu * 1e3, "ms", seconds=seconds)
        figures.add("idle.%s.wakeups" % group, woken, "", seconds=seconds)
    measure.table("idle: %d guests with %d disks, %d s" % (len(host.guests), host.disks(), seconds),
                  ("", "processes", "cpu ms", "wake-ups", "% of a core"), rows)


def report(guests, phases, crawls, figures):
    rows = []
    for key, (label, phase) in phases.items():
        ours = sum(phase.cpu[group] for group in GROUPS[:3])
        crawl = crawls if key != "go" else 0
        rows.append((label, "%.2f" % phase.done, "%.2f" % phase.after, "%.2f" % ours,
                     *("%.2f" % phase.cpu[group] for group in GROUPS), "%.2f" % crawl))
        for name, value in (("done", phase.done), ("after", phase.after), ("cpu", ours)):
            figures.add("%s.%s" % (key, name), value, "s")
        for group in GROUPS:
            figures.add("%s.%s.cpu" % (key, group), phase.cpu[group], "s")
    figures.add("crawls.cpu", crawls, "s")
    measure.table("%d guests with %d disks each, seconds" % (guests, len(VDEVS)),
                  ("", "done", "after the last", "cpu", *GROUPS, "crawls"), rows)


def run(host, args, crawls, figures):
    images = host.images(args.guests)
    host.come(images)
    phases = {"start": ("there when tapwired starts, until live", start(host))}
    host.check(host.disks())
    measure_memory(host, figures)
    phases["go"] = ("all go, until released", timed(host, lambda: host.go(args.guests), host.wait_released))
    phases["come"] = ("come one by one, until live", timed(host, lambda: host.come(images), host.wait_live))
    host.check(2 * host.disks())
    report(args.guests, phases, crawls, figures)
    host.go(args.guests - args.idle_guests)
    host.wait_released()
    host.check(2 * args.guests * len(VDEVS))
    time.sleep(args.settle)
    measure_idle(host, args.seconds, figures)
    host.go(args.idle_guests)
    host.wait_released()
    figures.add("tapwired.peak_of_all", memory(host.machine.proc.pid, "VmHWM") / 1e6, "MB")
    host.machine.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--guests", type=int, default=500, help="with two disks each")
    parser.add_argument("--idle-guests", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60, help="to look at the idle ones")
    parser.add_argument("--settle", type=int, default=10, help="seconds, before that")
    parser.add_argument("--quick", action="store_true", help="few guests, to see it work")
    args = parser.parse_args()
    if args.quick:
        args.guests, args.idle_guests, args.seconds, args.settle = 20, 10, 5, 6
    reason = xenless.missing()
    if reason:
        sys.exit("domains: cannot run xenstored here: " + reason)
    measure.setup()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_FILES, hard))
    figures = measure.Figures("domains")
    in_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with measure.scratch() as directory, measure.scratch(in_memory) as rings:
        template = directory / "template.img"
        guestdisk.make_image(template, "4M")
        crawls = crawl_cpu(directory, template) * args.guests * len(VDEVS)
        with Endpoint(directory) as endpoint:
            machine = dom0.Dom0(Tapwire(measure.build()), directory, endpoint)
            machine.ring_dir = str(rings)
            with machine:
                run(Host(machine, template, endpoint), args, crawls, figures)
            endpoint.finish()
    print()
    figures.print()


if __name__ == "__main__":
    main()
