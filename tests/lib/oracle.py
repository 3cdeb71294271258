#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The oracle: several processes work on a mounted disk whose writes are captured; at each sync point the
file system is frozen, and what the events and a crawl say is held against three other readers.

    /usr/bin/python3 tests/lib/oracle.py [--config NAME]... [--seed N] [--ops N] [--procs N]
        [--syncs N] [--minutes M] [--keep]

With --minutes it goes on with the next seed until the time is over. A failure is reduced with
shrink.py.
"""
import argparse
import contextlib
import fcntl
import heapq
import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib import calls, guestdisk, property, readers, trace, tree
from lib.configs import CONFIGS
from lib.steps import Steps, play
from lib.workload import Mix

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLASH = b"clash"
SHARED = (b"shared-1", b"shared-2")
UNSUPPORTED = 69
# From so many ranges on the product joins them over what lies between.
JOINED = 1000


class Refused(Exception):
    """The product says that it does not follow this file system."""


class Broken(Exception):
    """The readers do not agree with each other: nothing is known about the product."""


def ext2read(build):
    """The reader that uses libext2fs, built when it is missing."""
    program = os.path.join(build, "tests/lib/ext2read")
    source = os.path.join(ROOT, "tests/lib/ext2read.c")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        guestdisk.run("make", "-C", ROOT, "--no-print-directory", "BUILD=" + os.fspath(build),
                      program)
    return program


# --- images ---

def make(config, image, scratch):
    """An empty file system, mounted once; an aged one has had its tune2fs options."""
    guestdisk.run("truncate", "-s", config.size, image)
    guestdisk.run("mke2fs", "-q", "-F", *config.mkfs, image)
    if config.aged:
        with guestdisk.mounted(image, scratch / "aged") as root:
            _age(root)
        guestdisk.run("tune2fs", *config.aged, image)


def _age(root):
    """Leaves free space in small pieces only."""
    names = []
    with contextlib.suppress(OSError):  # until it is full
        for number in range(100000):
            names.append("%s/%d" % (root, number))
            with open(names[-1], "wb") as file:
                file.write(b"x" * 9000)
    for name in names[::2] + names[1:len(names) // 4 * 2:2]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def refuse(tapwire, image):
    """Raises Refused when the product says that it does not follow the image."""
    done = tapwire.run("crawl", image)
    if done.returncode == UNSUPPORTED:
        raise Refused(done.stderr.decode(errors="replace").strip().rpartition(": ")[2])


# --- the recording ---

class Sync:
    """What a frozen disk showed."""

    def __init__(self, label, clock_ns, mount, image):
        self.label = label
        self.clock_ns = clock_ns
        self.mount = mount
        self.image = image


class Run:
    """One recording: its disk, what it showed at each sync point, its steps (a process's number before
    each), and what each file's writers may have changed."""

    def __init__(self, name, scratch):
        self.name = name
        self.config = CONFIGS[name]
        self.scratch = scratch
        self.image = scratch / "disk.img"
        self.disk = None
        self.syncs = []
        self.steps = []
        self.spans = {}

    def freeze(self, label):
        """Takes a sync point; whoever writes meanwhile waits."""
        root = self.disk.root
        image = self.scratch / ("sync-%d.img" % len(self.syncs))
        self.disk.guard.push("fsfreeze", "-u", root)
        descriptor = os.open(root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, calls.FIFREEZE, 0)
            try:
                clock = time.time_ns()
                seen = readers.mount(root)
                guestdisk.copy_image(self.image, image)
            finally:
                fcntl.ioctl(descriptor, calls.FITHAW, 0)
        finally:
            os.close(descriptor)
            self.disk.guard.pop()
        self.syncs.append(Sync(label, clock, seen, image))

    def add_spans(self, spans):
        for key, found in spans.items():
            self.spans.setdefault(key, []).extend(found)

    @contextlib.contextmanager
    def captured(self, tapwire):
        refuse(tapwire, self.image)
        with guestdisk.GuestDisk(self.scratch, self.image, plugin=tapwire.plugin,
                                 options=self.config.options) as disk:
            self.disk = disk
            yield disk.root


def record(tapwire, name, seed, scratch, ops=600, procs=3, syncs=3):
    """Fills an image, then lets several processes work on it at once. Returns the Run."""
    run = Run(name, scratch)
    make(run.config, run.image, scratch)
    refuse(tapwire, run.image)
    kinds = run.config.kinds
    mixes = [Mix(scratch / "made", seed * 100 + number, kinds, (24 << 20) // procs, 1200,
                 b"p%d" % number, SHARED, None if kinds else CLASH) for number in range(procs)]
    logs = [scratch / ("steps-%d" % number) for number in range(procs)]
    with guestdisk.mounted(run.image, scratch / "made", run.config.options) as root:
        with open(logs[0], "w", encoding="utf-8") as log:
            first = Steps(root, log)
            for name_ in (CLASH, *SHARED):
                first.do("mkdir", name_, 0o755)
        for mix, path in zip(mixes, logs):
            with open(path, "a", encoding="utf-8") as log:
                mix.steps.log, mix.steps.spans = log, {}
                mix.ops(ops // 8 // procs)
                mix.close()
                mix.steps.log = None
            run.add_spans(mix.steps.allocated)
    started = time.time_ns()
    with run.captured(tapwire) as root:
        run.freeze("start")
        Workers(run, root, mixes, logs).work(ops // procs, syncs)
        run.freeze("end")
    run.steps = merged(logs, [(started, "base"), *((sync.clock_ns, "sync") for sync in run.syncs)])
    return run


def merged(logs, marks):
    """The steps of all processes in the order of their time: [process, name, argument...]."""
    def lines(number, path):
        with open(path, encoding="utf-8") as log:
            for line in log:
                clock, *step = json.loads(line)
                yield clock, [number, *step]
    streams = [lines(number, path) for number, path in enumerate(logs)]
    streams.append((clock, [0, what]) for clock, what in sorted(marks))
    return [step for _, step in heapq.merge(*streams, key=lambda item: item[0])]


class Workers:
    """One process a mix. Each counts what it has done in memory that all share."""

    def __init__(self, run, root, mixes, logs):
        self.run = run
        self.root = root
        self.mixes = mixes
        self.logs = logs
        self.counts = mmap.mmap(-1, 8 * len(mixes))

    def work(self, ops, syncs):
        pids = []
        for number, mix in enumerate(self.mixes):
            pid = os.fork()
            if pid == 0:
                self._child(number, mix, ops)
            self.run.disk.guard.push("kill", pid)
            pids.append(pid)
        waiting = set(pids)
        try:
            self._watch(waiting, ops * len(pids), syncs)
        finally:
            for pid in waiting:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            for _ in pids:
                self.run.disk.guard.pop()
        self._collect(len(pids))

    def _watch(self, waiting, total, syncs):
        for turn in range(1, syncs):
            while waiting and self._done() < total * turn // syncs:
                self._reap(waiting)
                time.sleep(0.002)
            if waiting:
                self.run.freeze("about operation %d" % self._done())
        while waiting:
            self._reap(waiting)
            time.sleep(0.002)

    def _done(self):
        return sum(struct.unpack("%dq" % len(self.mixes), self.counts[:]))

    def _reap(self, waiting):
        for pid in list(waiting):
            if os.waitpid(pid, os.WNOHANG)[0]:
                waiting.discard(pid)

    def _child(self, number, mix, ops):
        status = 1
        try:
            calls.LIBC.prctl(1, 9)  # PR_SET_PDEATHSIG
            mix.root = os.fsencode(self.root)
            mix.steps.spans = {}
            with open(self.logs[number], "a", encoding="utf-8") as log:
                mix.steps.log = log
                start = mix.done
                while mix.done - start < ops:
                    mix.ops(10)
                    self.counts[8 * number:8 * number + 8] = struct.pack("q", mix.done - start)
                mix.close()
            with open(str(self.logs[number]) + ".spans", "w", encoding="utf-8") as out:
                json.dump([[*key, spans] for key, spans in mix.steps.spans.items()], out)
            status = 0
        except BaseException:  # pylint: disable=broad-except
            with open(str(self.logs[number]) + ".error", "w", encoding="utf-8") as out:
                traceback.print_exc(file=out)
        finally:
            os._exit(status)

    def _collect(self, count):
        for number in range(count):
            path = str(self.logs[number])
            if os.path.exists(path + ".error"):
                with open(path + ".error", encoding="utf-8") as text:
                    raise RuntimeError("process %d of the workload:\n%s" % (number, text.read()))
            with open(path + ".spans", encoding="utf-8") as spans:
                self.run.add_spans({(inode, generation): [tuple(span) for span in found]
                                    for inode, generation, found in json.load(spans)})


def replay(tapwire, name, steps, scratch):
    """Does a list of steps, as record() kept them, one after another. Returns the Run."""
    run = Run(name, scratch)
    run.steps = steps
    make(run.config, run.image, scratch)
    base = next((at for at, step in enumerate(steps) if step[1] == "base"), 0)
    with guestdisk.mounted(run.image, scratch / "made", run.config.options) as root:
        _play(root, steps[:base], run, before=True)
    with run.captured(tapwire) as root:
        _play(root, steps[base:], run)
        run.freeze("end")
    return run


def _play(root, steps, run, before=False):
    """Each process of the recording keeps its own open files. before: nothing is captured yet."""
    hands = {}
    for number, name, *args in steps:
        if name == "sync" and not before:
            run.freeze("sync %d" % len(run.syncs))
        if name in ("sync", "base"):
            continue
        hand = hands.setdefault(number, Steps(root, spans=True))
        play(hand, [[name, *args]])
    for hand in hands.values():
        hand.close_all()
        run.add_spans(hand.allocated if before else hand.spans)


# --- the checks ---

def expect(lines, what):
    if lines:
        raise AssertionError("%s:\n  %s" % (what, "\n  ".join(lines[:20])))


def agree(lines, what):
    if lines:
        raise Broken("%s:\n  %s" % (what, "\n  ".join(lines[:20])))


def fixture(name, error, steps):
    """A failure as JSON, one step a line."""
    found = " ".join(str(error).split("\n")[:2])[:300]
    lines = ",\n".join("  " + json.dumps(step) for step in steps)
    return json.dumps({"config": name, "found": found})[:-1] + ', "steps": [\n' + lines + "\n]}\n"


class Check:
    """Holds the events and the crawls of a Run against the readers. With thorough=False only the mount
    is asked, and libext2fs for what changed."""

    def __init__(self, tapwire, run, thorough=True):
        self.tapwire = tapwire
        self.run = run
        self.opaque = "test_dummy_encryption" in run.config.options
        self.thorough = thorough or self.opaque
        # Without a journal, what was written so far need not hang together.
        self.journal = has_journal(run.disk.base)
        self.cuts = 2 if thorough and self.journal else 0
        if run.config.kinds:
            self.cuts *= 5
        self.reader = ext2read(tapwire.build)
        self.told = {}

    def all(self):
        """Returns the events. Raises AssertionError for the product, Broken for anything else; then the
        steps are kept beside the images, for shrink.py."""
        try:
            return self._all()
        except AssertionError as error:
            with open(self.run.scratch / "steps.json", "w", encoding="utf-8") as file:
                file.write(fixture(self.run.name, error, self.run.steps))
            raise

    def _all(self):
        run = self.run
        events = self.tapwire.infer(run.disk.base, run.disk.trace)
        tree.check_sequence(events)
        with ThreadPoolExecutor(2) as pool:
            truths = list(pool.map(self._truth, run.syncs))
        state = self.tapwire.crawl(run.disk.base)
        left, before = events, run.disk.base
        for sync, truth in zip(run.syncs, truths):
            left = property.apply_until(state, left, sync.clock_ns)
            expect(readers.differences(truth, state.listing(readers.FIELDS), blind=self._blind()),
                   "events, at %s" % sync.label)
            self._xattrs(state, truth, "events, at %s" % sync.label)
            self._ranges(state, before, sync)
            before = sync.image
        for event in left:
            state.apply(event)
        last = readers.differences(truths[-1], state.listing(readers.FIELDS), blind=self._blind())
        expect(last, "events after the last sync")
        self._bounds(state)
        for number in range(self.cuts):
            self._cut(random.Random(number))
        return events

    def _blind(self):
        return () if self.thorough else ("generation",)

    def _truth(self, sync):
        """What all readers say; a crawl has to say it too."""
        truth = sync.mount
        crawl = self.tapwire.crawl(sync.image)
        if self.thorough:
            truth = self._read(sync)
        expect(readers.differences(truth, crawl.listing(readers.FIELDS), blind=self._blind()),
               "crawl, at %s" % sync.label)
        self._xattrs(crawl, truth, "crawl, at %s" % sync.label)
        return truth

    def _read(self, sync):
        fsck = subprocess.run(["e2fsck", "-fy", sync.image], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if fsck.returncode > 1:
            raise Broken("e2fsck at %s: %s" % (sync.label, fsck.stdout.decode(errors="replace")))
        truth = readers.libext2fs(self.reader, sync.image)
        names = (*readers.FIELDS, "xattrs")
        if self.opaque:
            agree(readers.differences(readers.nameless(sync.mount), readers.nameless(truth), names, ("generation",)),
                  "libext2fs against the mount, at %s" % sync.label)
            return truth
        agree(readers.differences(sync.mount, truth, names, ("generation",)),
              "libext2fs against the mount, at %s" % sync.label)
        agree(readers.differences(truth, readers.debugfs(sync.image), blind=("target",)),
              "debugfs against libext2fs, at %s" % sync.label)
        return truth

    def _xattrs(self, state, truth, what):
        """The names of extended attributes."""
        wrong = []
        for path, fields in truth.items():
            names = sorted(os.fsdecode(name) for name in state.lookup(path).xattrs)
            if names != fields["xattrs"]:
                wrong.append("%r: %s, should be %s" % (path, names, fields["xattrs"]))
        expect(wrong, "names of attributes, " + what)

    def _ranges(self, state, before, sync):
        """What changed since the last sync point lies in the ranges of the events since then."""
        changed = readers.changes(self.reader, before, sync.image)
        paths = {key: path for key, path in state.paths().items()}
        wrong = []
        for key, spans in changed.items():
            bare = property.uncovered(spans, state.ranges.get(key, []))
            if bare and key in paths:
                wrong.append("%r (inode %d) changed but in no range: %s" % (
                    paths[key], key[0], property.brief_ranges(bare)))
        expect(wrong, "ranges, at %s" % sync.label)
        for key, ranges in state.ranges.items():
            self.told.setdefault(key, []).extend(ranges)
        state.ranges.clear()

    def _bounds(self, state):
        """Nothing is told as written but the pages and blocks that somebody may have written. Without a journal, a
        file that is being deleted may be seen when half of its mapping is gone."""
        wrong = []
        for key, ranges in self.told.items():
            if len(ranges) >= JOINED or not (self.journal or key in state.inodes):
                continue
            spans = property.join(round_out(start, end) for start, end in self.run.spans.get(key, ()))
            told = property.join((start, start + length) for start, length in ranges)
            more = property.uncovered(told, [(start, end - start) for start, end in spans])
            if more:
                wrong.append("inode %d generation %d: told but not written: %s" % (
                    *key, property.brief_ranges(more)))
        expect(wrong, "ranges of the whole run")


    def _cut(self, rnd):
        """Wherever the power fails: a crawl, which reads the log, and the events so far say the same."""
        disk = self.run.disk
        start = self.run.syncs[0].clock_ns
        records = list(trace.read(disk.trace))
        first = next((at for at, record in enumerate(records) if record.clock_ns > start), 0)
        length = rnd.randrange(first, len(records))
        image, prefix = self.run.scratch / "cut.img", self.run.scratch / "cut.trace"
        guestdisk.copy_image(disk.base, image)
        trace.play(records[:length], image)
        trace.write(prefix, os.path.getsize(image), records[:length])
        state = self.tapwire.crawl(disk.base)
        for event in self.tapwire.infer(disk.base, prefix):
            state.apply(event)
        expect(readers.differences(self.tapwire.crawl(image).listing(readers.FIELDS),
                                   state.listing(readers.FIELDS)),
               "events against a crawl, after %d of %d records" % (length, len(records)))


def has_journal(image):
    return "has_journal" in guestdisk.run("dumpe2fs", "-h", image).split()


def round_out(start, end, unit=4096):
    return start // unit * unit, -(-end // unit) * unit


# --- as a program ---

def one(tapwire, name, seed, args):
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="tapwire-test-"))
    try:
        run = record(tapwire, name, seed, scratch, args.ops, args.procs, args.syncs)
        events = Check(tapwire, run).all()
        print("ok %s seed %d: %d steps, %d events, %d syncs" % (
            name, seed, len(run.steps), len(events), len(run.syncs)), flush=True)
        return True
    except Refused as error:
        print("refused %s: %s" % (name, error), flush=True)
        return True
    except (AssertionError, Broken, RuntimeError, OSError) as error:
        print("FAILED %s seed %d: %s: %s" % (name, seed, type(error).__name__, error), flush=True)
        if args.keep:
            print("kept: %s" % scratch, flush=True)
        return False
    finally:
        if not args.keep:
            shutil.rmtree(scratch, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description="Events and crawls against three readers.")
    parser.add_argument("--config", action="append", choices=CONFIGS, metavar="NAME",
                        help="of these: " + ", ".join(CONFIGS))
    parser.add_argument("--build", default=os.environ.get("TAPWIRE_BUILD") or ROOT + "/build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ops", type=int, default=600)
    parser.add_argument("--procs", type=int, default=3)
    parser.add_argument("--syncs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--keep", action="store_true", help="keep images and traces of failures")
    args = parser.parse_args()
    tapwire = property.Tapwire(os.path.abspath(args.build))
    end = time.monotonic() + args.minutes * 60
    seed, fine = args.seed, True
    while True:
        for name in args.config or CONFIGS:
            fine &= one(tapwire, name, seed, args)
        seed += 1
        if time.monotonic() >= end:
            break
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
