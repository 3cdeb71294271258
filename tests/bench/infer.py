#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""How fast writes become events: `tapwire infer` on traces of a real kernel's writes.

Four traces, recorded through nbdkit-tapwire under a mounted ext4: many small files made, renamed
and deleted; one inode of every block of the inode tables changed, again and again; one file
overwritten in bulk; the random mix of the tests. Figures are medians of interleaved runs, the
crawl of the base image left out, once as it is (events as JSON to /dev/null) and once with --count
(no JSON). Rates are by processor seconds. With valgrind, instructions are counted on shorter
traces of the same kinds, with the functions that take most of them. Needs root. Takes about four
minutes.
"""
import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import measure  # noqa: E402
from lib import guestdisk  # noqa: E402
from lib import trace as traces  # noqa: E402
from lib.calls import sync_fs  # noqa: E402
from lib.workload import Mix  # noqa: E402

BLOCK = 4096
JBD2_MAGIC = b"\xc0\x3b\x39\x98"
MIB = 1 << 20
TOP = 12
INODES_A_BLOCK = 16
FILES_A_DIRECTORY = 1024

Trace = collections.namedtuple("Trace", "base path seconds records written journal home")


# --- what the guest does ---

def small_files(root, files):
    """Makes files of 1 KiB in 40 directories, renames each into another one, deletes them all;
    everything reaches the disk every 500 operations, so that little is undone before it is seen."""
    directories = [os.path.join(root, "dir-%02d" % i) for i in range(40)]
    for directory in directories:
        os.mkdir(directory)
    content = os.urandom(1024)
    done = 0

    def step():
        nonlocal done
        done += 1
        if done % 500 == 0:
            sync_fs(root)

    def path(i, turn):
        return os.path.join(directories[(i + turn) % 40], "file-%05d-%d" % (i, turn))
    for i in range(files):
        with open(path(i, 0), "wb") as file:
            file.write(content)
        step()
    for i in range(files):
        os.rename(path(i, 0), path(i, 1))
        step()
    for i in range(files):
        os.unlink(path(i, 1))
        step()
    sync_fs(root)


def overwrite(root, mib, passes):
    """Writes a file over and over again, 1 MiB at a time, synced every 32 MiB."""
    piece = os.urandom(MIB)
    descriptor = os.open(os.path.join(root, "bulk"), os.O_RDWR | os.O_CREAT)
    try:
        for turn in range(passes + 1):
            for i in range(mib):
                os.pwrite(descriptor, piece[turn:] + piece[:turn], i * MIB)
                if i % 32 == 31:
                    os.fsync(descriptor)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mix(root, ops):
    work = Mix(root, seed=1)
    work.ops(ops, ops // 20, lambda done: sync_fs(root))
    work.close()


def numbered(root, number, letter=""):
    directory = os.path.join(root, "dir-%02d" % (number // FILES_A_DIRECTORY))
    return os.path.join(directory, "file-%06d%s" % (number, letter))


def tables(scale):
    """How many files the workload below changes: whole blocks of the inode tables."""
    return max(2048, int(65536 * scale) // FILES_A_DIRECTORY * FILES_A_DIRECTORY)


def fill_tables(root, files):
    for number in range(files):
        if number % FILES_A_DIRECTORY == 0:
            os.mkdir(os.path.dirname(numbered(root, number)))
        with open(numbered(root, number), "wb") as file:
            file.write(b"x" * 100)


def append(path):
    with open(path, "ab") as file:
        file.write(b"y" * 100)


def rewrite_tables(root, files):
    """Changes one inode of every block of the tables in each transaction: the mode, the times,
    the content, the name."""
    changes = (lambda path: os.chmod(path, 0o600), lambda path: os.utime(path, (1, 1)), append,
               lambda path: os.rename(path, path + "-new"))
    for turn in range(INODES_A_BLOCK):
        for number in range(turn, files, INODES_A_BLOCK):
            changes[turn % len(changes)](numbered(root, number))
        sync_fs(root)


Workload = collections.namedtuple("Workload", "work prepare", defaults=(None,))

WORKLOADS = {
    "metadata": Workload(lambda root, scale: small_files(root, int(10000 * scale))),
    "rewrites": Workload(lambda root, scale: rewrite_tables(root, tables(scale)),
                         lambda root, scale: fill_tables(root, tables(scale))),
    "overwrite": Workload(lambda root, scale: overwrite(root, max(8, int(256 * scale)), 4)),
    "mix": Workload(lambda root, scale: mix(root, int(20000 * scale))),
}


# --- recording, and what a trace holds ---

def journal_blocks(image):
    """The blocks of the journal's inode."""
    text = guestdisk.run("debugfs", "-R", "blocks <8>", image)
    return {int(word) for word in text.splitlines()[-1].split()}


def metadata(record, journal, logged):
    """How many metadata blocks this write puts into the journal, and how many of those it brings
    home. What has jbd2's magic is the journal's own; metadata that begins with it is escaped
    there. logged: digests of what is in the journal."""
    first = record.sector * traces.SECTOR // BLOCK
    count = home = 0
    for i in range(record.count * traces.SECTOR // BLOCK):
        content = record.payload[i * BLOCK:(i + 1) * BLOCK]
        if first + i not in journal:
            home += hash(content) in logged
        elif content[:4] != JBD2_MAGIC:
            logged.add(hash(content))
            count += 1
    return count, home


def examine(base, path, seconds):
    """Counts what a trace holds that took so long to record."""
    journal = journal_blocks(base)
    records = written = payload = home = 0
    logged = set()
    for record in traces.read(path):
        records += 1
        if record.flags & traces.PAYLOAD:
            written += len(record.payload)
            more, came_home = metadata(record, journal, logged)
            payload += more
            home += came_home
    return Trace(base, path, seconds, records, written, payload, home)


def record(directory, plugin, workload, scale):
    """Runs a workload on a fresh disk. Returns its Trace."""
    directory.mkdir()
    image = directory / "disk.img"
    guestdisk.make_image(image, "2G")
    if workload.prepare:
        with guestdisk.mounted(image, directory / "mnt"):
            workload.prepare(directory / "mnt", scale)
    disk = guestdisk.GuestDisk(directory, image, plugin)
    with disk:
        start = time.monotonic()
        workload.work(disk.root, scale)
        sync_fs(disk.root)
        seconds = time.monotonic() - start
    os.unlink(image)
    return examine(disk.base, disk.trace, seconds)


# --- measuring ---

Result = collections.namedtuple("Result", "wall cpu events rss")

# How `tapwire infer` is run, and what is said of it.
WAYS = {"count": "inference alone (--count)", "json": "with the events as JSON"}


def infer(run, tapwire, trace, way):
    count = way == "count"
    done = run(tapwire, "infer", "--disk", trace.base, "--trace", trace.path,
               "--count" if count else "--stats", keep=count)
    stats = json.loads((done.stdout if count else done.stderr).strip().splitlines()[-1])
    return Result(stats["infer_s"], stats["infer_cpu_s"], stats["events"], done.rss)


def read_alone(run, trace):
    """Processor seconds that it takes to read a trace from the page cache, as infer does."""
    return run("dd", "if=" + trace.path, "of=/dev/null", "bs=256k", "status=none").cpu


def report_traces(recorded, results, figures):
    rows = []
    for name, trace in recorded.items():
        rss = measure.median(result.rss for result in results[name, "json"]) / 1e6
        figures.add(name + ".rss", rss, "MB")
        reading = measure.median(results[name, "read"])
        figures.add(name + ".guest", trace.seconds, "s")
        figures.add(name + ".reading", reading, "s")
        rows.append((name, "%.1f" % trace.seconds, trace.records, "%.1f" % (trace.written / 1e6),
                     trace.journal, trace.home, results[name, "json"][0].events, "%.1f" % rss,
                     "%.3f" % reading))
    measure.table("traces", ("", "guest s", "records", "MB", "metadata blocks", "and at home",
                             "events", "peak MB", "to read cpu s"), rows)


def report(recorded, results, way, figures):
    rows = []
    for name, trace in recorded.items():
        runs = results[name, way]
        cpu = [result.cpu for result in runs]
        rates = {"records/s": trace.records, "MB/s": trace.written / 1e6,
                 "metadata blocks/s": trace.journal,
                 "metadata writes/s": trace.journal + trace.home, "events/s": runs[0].events}
        prefix = name + ("" if way == "count" else "." + way)
        figures.add_runs(prefix + ".wall", (result.wall for result in runs), "s")
        for unit, amount in rates.items():
            figures.add_runs("%s.%s" % (prefix, unit.partition("/")[0].replace(" ", "_")),
                             (amount / s for s in cpu), unit)
        rows.append((name, *("%.3f" % s for s in (measure.median(r.wall for r in runs),
                                                  measure.median(cpu), min(cpu), max(cpu))),
                     *("%.0f" % (amount / measure.median(cpu)) for amount in rates.values())))
    measure.table("tapwire infer, " + WAYS[way], ("", "wall s", "cpu s", "min", "max", *rates),
                  rows)


# --- instructions ---

def costs(out, *options):
    """Function to instructions, as callgrind_annotate lists them. A function without a name goes by
    its library's; the same function may be listed several times."""
    listed = guestdisk.run("callgrind_annotate", "--threshold=100", *options, out)
    found = collections.defaultdict(list)
    for count, function in re.findall(r"^ *([0-9,]+) \([ 0-9.]+%\)  \S*?:(\S.*)$", listed,
                                      re.MULTILINE):
        name, _, library = function.partition(" [")
        if name.startswith("0x"):
            name = "(%s)" % os.path.basename(library.rstrip("]"))
        found[name.partition("'")[0]].append(int(count.replace(",", "")))
    return found


def top(shares):
    """The TOP greatest of a function-to-share mapping."""
    return sorted(shares.items(), key=lambda item: -item[1])[:TOP]


def callgrind(directory, tapwire, trace, *options):
    """Counts instructions below tw_disk_feed(), which takes one write each time."""
    out = pathlib.Path(directory) / "callgrind.out"
    guestdisk.run("valgrind", "--tool=callgrind", "--callgrind-out-file=%s" % out,
                  "--toggle-collect=tw_disk_feed", tapwire, "infer", "--disk", trace.base,
                  "--trace", trace.path, *options)
    return out


def profile(directory, tapwire, trace):
    """Instructions of the inference alone: the sum, and shares in percent by function: in itself,
    and (for the project's own) with what it calls. And the sum with JSON."""
    with_json = sum(map(sum, costs(callgrind(directory, tapwire, trace)).values()))
    out = callgrind(directory, tapwire, trace, "--count")
    alone = {name: sum(counts) for name, counts in costs(out).items()}
    total = sum(alone.values())
    below = {name: max(counts) for name, counts in costs(out, "--inclusive=yes").items()
             if name.startswith(("tw_", "ext4_"))}
    return total, with_json, top({name: 100 * count / total for name, count in alone.items()}), \
        top({name: 100 * count / total for name, count in below.items() if count < 0.98 * total})


def report_profile(name, trace, events, result, figures):
    total, with_json, alone, below = result
    figures.add(name + ".instructions", total, "instructions", records=trace.records,
                metadata_blocks=trace.journal, events=events)
    per = {"instructions_an_event": total / events,
           "instructions_a_metadata_block": total / trace.journal,
           "json_instructions_an_event": (with_json - total) / events}
    for what, count in per.items():
        figures.add("%s.%s" % (name, what), count, "instructions")
    measure.table("%s, short: %.1f M instructions, %d for an event, %d for a metadata block; "
                  "%d for an event's JSON" % (name, total / 1e6, *per.values()),
                  ("alone", "%", "with what it calls", "%"),
                  [(function, "%.1f" % share, other, "%.1f" % other_share)
                   for (function, share), (other, other_share) in zip(alone, below)])
    for kind, shares in (("alone", alone), ("below", below)):
        for function, share in shares:
            figures.add("%s.%s" % (name, kind), share, "%", function=function)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short traces once, to see it work")
    args = parser.parse_args()
    scale, short = (0.03, 0.01) if args.quick else (1, 0.1)
    reason = guestdisk.missing()
    if reason:
        sys.exit("infer: cannot record a trace here: " + reason)
    measure.setup()
    build = measure.build()
    tapwire, plugin = build / "tapwire", build / "nbdkit-tapwire-plugin.so"
    figures = measure.Figures("infer")
    counting = measure.present("valgrind")
    with measure.scratch() as directory:
        run = measure.Runner(directory)
        recorded = {name: record(directory / name, plugin, workload, scale)
                    for name, workload in WORKLOADS.items()}
        tasks = {(name, way): (lambda trace=trace, way=way: infer(run, tapwire, trace, way))
                 for name, trace in recorded.items() for way in WAYS}
        tasks.update({(name, "read"): (lambda trace=trace: read_alone(run, trace))
                      for name, trace in recorded.items()})
        measure.interleaved(1, tasks)  # warms the caches
        results = measure.interleaved(1 if args.quick else args.rounds, tasks)
        report_traces(recorded, results, figures)
        for way in WAYS:
            report(recorded, results, way, figures)
        for name, workload in WORKLOADS.items() if counting else ():
            shutil.rmtree(directory / name)
            trace = record(directory / (name + "-short"), plugin, workload, short)
            events = infer(run, tapwire, trace, "count").events
            report_profile(name, trace, events, profile(directory, tapwire, trace), figures)
    print()
    figures.print()


if __name__ == "__main__":
    main()
