#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What capture costs: nbdkit's own file plugin against nbdkit-tapwire, driven by fio over NBD.

Each round runs all servers one after the other, so that a slow moment of the machine hits them
alike; the figures are medians, the ratio is the median of each round's ratio to the file plugin.
The last column is the server's processor time for each request, which other load disturbs least.
Then what does not depend on two processes and a socket: writes of one thread to an image in memory,
with and without capture, in turns; the instructions that capture adds to a write (callgrind), the
processor time of a publish, and the bytes copied for a byte captured.
"ring, ranges" is a consumer that wants no content: what bulk data of unwatched files cost.
Prints a table, and one JSON line a figure. Takes about five minutes.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import points  # noqa: E402
from measure import cpu_seconds  # noqa: E402

IMAGE_BYTES = 1 << 30
WORKLOADS = {
    "randwrite 4k qd32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    "write 1M qd4": ["--rw=write", "--bs=1M", "--iodepth=4"],
}
SERVERS = ["file", "tapwire", "ring, consumer", "ring, ranges", "ring, no consumer"]
SIZES = [512, 4096, 8192, 65536, 1 << 20]


def measure(server, image, work, helper, fio_args, seconds):
    """One run: what fio says, and the processor time that the server took for each request."""
    socket = work / "nbd.sock"
    for name in os.listdir(work):
        os.unlink(work / name)
    argv = ["file" if server == "file" else points.plugin_path(), "file=%s" % image]
    if server.startswith("ring"):
        argv += ["ring=%s" % (work / "ring")]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(points.nbdkit(socket, *argv))
        if server in ("ring, consumer", "ring, ranges"):
            ranges = ["ranges"] if server == "ring, ranges" else []
            stack.enter_context(points.ended(subprocess.Popen(
                [helper, "drain", work / "ring", *ranges])))
        start = cpu_seconds(process.pid)  # the ring has been made by then
        done = subprocess.run(
            ["fio", "--name=capture", "--ioengine=nbd", "--uri=nbd+unix:///?socket=%s" % socket,
             "--size=%d" % IMAGE_BYTES, "--time_based", "--runtime=%dms" % (seconds * 1000),
             "--randseed=1", "--output-format=json", *fio_args],
            cwd=work, check=True, capture_output=True, timeout=120)
        text = done.stdout.decode()
        run = json.loads(text[text.index("{"):])["jobs"][0]["write"]
        run["cpu_us"] = (cpu_seconds(process.pid) - start) * 1e6 / run["total_ios"]
        return run


def figures(medium, image, work, helper, rounds, seconds):
    for workload, fio_args in WORKLOADS.items():
        runs = {server: [] for server in SERVERS}
        for number in range(rounds):
            at = number % len(SERVERS)
            order = SERVERS[at:] + SERVERS[:at]
            for server in order:
                runs[server].append(measure(server, image, work, helper, fio_args, seconds))
        for server in SERVERS:
            ratios = [run["iops"] / base["iops"] for run, base in zip(runs[server], runs["file"])]
            yield {
                "bench": "capture", "medium": medium, "workload": workload, "server": server,
                "iops": round(statistics.median(run["iops"] for run in runs[server])),
                "mb_per_s": round(statistics.median(run["bw_bytes"]
                                                    for run in runs[server]) / 1e6, 1),
                "ratio_to_file": round(statistics.median(ratios), 3),
                "ratio_min": round(min(ratios), 3), "ratio_max": round(max(ratios), 3),
                "cpu_us": round(statistics.median(run["cpu_us"] for run in runs[server]), 2),
                "rounds": rounds,
            }


def run_helper(helper, work, *args, before=()):
    """What the helper says, and what the program that it runs under does. Each time a new ring."""
    for path in work.glob("counted*"):
        path.unlink()
    done = subprocess.run([*before, helper, args[0], work / "counted", *map(str, args[1:])],
                          check=True, capture_output=True, timeout=300)
    return done.stdout.decode(), done.stderr.decode()


def instructions(helper, work, what, size, ranges):
    """Instructions of one write, by callgrind: in the ring, or in all that the plugin adds."""
    functions = {"publish": ["tw_ring_publish"],
                 "request": ["capture_begin", "capture_publish", "capture_end"]}[what]
    count = 2000
    _, said = run_helper(
        helper, work, what, count, size, *(["ranges"] if ranges else []),
        before=["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                *("--toggle-collect=" + function for function in functions)])
    return round(int(re.search(r"Collected : (\d+)", said).group(1)) / count)


def of_a_write(helper, work):
    """What one write costs, for each size: rows of a table, and figures."""
    for size in SIZES:
        for ranges in (False, True):
            tail = ["ranges"] if ranges else []
            copied, _ = run_helper(helper, work, "request", 64, size, *tail)
            times = [float(run_helper(helper, work, "speed", size, *tail)[0]) for _ in range(5)]
            figure = {"bench": "capture", "workload": "write %d" % size,
                      "server": "range" if ranges else "content", "cpu_ns": min(times),
                      "copied_per_byte": int(copied) / (64 * size)}
            if shutil.which("valgrind"):
                for what in ("publish", "request"):
                    figure["instructions_" + what] = instructions(
                        helper, work, what, size, ranges)
            yield figure


def to_an_image(helper, work, image):
    """A thread's writes to an image: medians, in ns, of turns of a few hundred writes."""
    for size in SIZES[1:]:
        plain, content, ranges = map(
            float, run_helper(helper, work, "image", image, size)[0].split())
        for server, took in (("content", content), ("range", ranges)):
            yield {"bench": "capture", "workload": "image %d" % size, "server": server,
                   "plain_ns": plain, "cpu_ns": took, "ratio": round(plain / took, 3)}


def show_image(lines):
    print("\nWrites to an image in memory      ns alone   with capture   added   ratio")
    for line in lines:
        print("  %-16s %-10s %12.0f %14.0f %7.0f %7.2f" % (
            line["workload"], line["server"], line["plain_ns"], line["cpu_ns"],
            line["cpu_ns"] - line["plain_ns"], line["ratio"]))


def show_writes(lines):
    print("\nOne write                   instructions of a publish, with locks;   ns of a publish;  "
          "bytes copied a byte")
    for line in lines:
        print("  %-16s %-10s %10s %10s %14.1f %12.2f" % (
            line["workload"], line["server"], line.get("instructions_publish", "-"),
            line.get("instructions_request", "-"), line["cpu_ns"], line["copied_per_byte"]))


def show(figure):
    print("%-6s %-18s %-18s %9d IO/s %9.1f MB/s   x%.2f (%.2f to %.2f) %8.1f us" % (
        figure["medium"], figure["workload"], figure["server"], figure["iops"], figure["mb_per_s"],
        figure["ratio_to_file"], figure["ratio_min"], figure["ratio_max"],
        figure["cpu_us"]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run (default 1)")
    parser.add_argument("--disk", default="/var/tmp", help="a directory that is not in memory")
    args = parser.parse_args()
    for program in ("fio", "nbdkit"):
        if not shutil.which(program):
            sys.exit("capture: %s is missing (apt-get install %s)" % (program, program))
    lines = []
    with contextlib.ExitStack() as stack:
        def directory(parent):
            return pathlib.Path(stack.enter_context(
                tempfile.TemporaryDirectory(prefix="tapwire-bench-", dir=parent)))
        memory = directory("/dev/shm")
        helper = points.compile_ring_bench(memory)
        work = memory / "work"
        work.mkdir()
        for medium, place in (("tmpfs", memory), ("disk", directory(args.disk))):
            image = place / "disk.img"
            with open(image, "wb") as out:
                os.posix_fallocate(out.fileno(), 0, IMAGE_BYTES)
            for figure in figures(medium, image, work, helper, args.rounds, args.seconds):
                lines.append(figure)
                show(figure)
            if medium == "tmpfs":
                writes = list(to_an_image(helper, work, image))
                show_image(writes)
                lines += writes
            os.unlink(image)
        writes = list(of_a_write(helper, work))
        show_writes(writes)
        lines += writes
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
