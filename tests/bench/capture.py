#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What capture costs: nbdkit's own file plugin against nbdkit-tapwire, driven by fio over NBD.

Each round runs all servers one after the other, so that a slow moment of the machine hits them
alike; the figures are medians, the ratio is the median of each round's ratio to the file plugin.
The last column is the server's processor time for each request, which other load disturbs least.
Prints a table, and one JSON line a figure. Takes about two minutes.
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
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE_BYTES = 1 << 30
WORKLOADS = {
    "randwrite 4k qd32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    "write 1M qd4": ["--rw=write", "--bs=1M", "--iodepth=4"],
}
SERVERS = ["file", "tapwire", "ring, consumer", "ring, no consumer"]


def plugin_path():
    build = pathlib.Path(os.environ.get("TAPWIRE_BUILD") or ROOT / "build")
    path = build / "nbdkit-tapwire-plugin.so"
    if not path.exists():
        sys.exit("capture: %s is missing: run make first" % path)
    return path.resolve()


def compile_helper(directory):
    helper = directory / "ring_bench"
    sources = [ROOT / "tests/bench/ring_bench.c",
               *(ROOT / "tapdisk-plugin" / name
                 for name in ("ring.c", "ring-file.c", "ring-reader.c"))]
    subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu17", "-O2", "-g", "-D_GNU_SOURCE",
                    "-I", ROOT / "tapdisk-plugin", "-o", helper, *sources], check=True)
    return helper


@contextlib.contextmanager
def ended(process):
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(path, process):
    for _ in range(1000):
        if os.path.exists(path):
            return
        if process.poll() is not None:
            sys.exit("capture: %s ended" % process.args[0])
        time.sleep(0.01)
    sys.exit("capture: %s does not come" % path)


def measure(server, image, work, helper, fio_args, seconds):
    """One run: what fio says, and the processor time that the server took for each request."""
    socket = work / "nbd.sock"
    for name in os.listdir(work):
        os.unlink(work / name)
    argv = ["nbdkit", "-f", "-U", socket]
    if server == "file":
        argv += ["file", "file=%s" % image]
    else:
        argv += [plugin_path(), "file=%s" % image]
    if server.startswith("ring"):
        argv += ["ring=%s" % (work / "ring")]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(ended(subprocess.Popen(argv, stdin=subprocess.DEVNULL)))
        wait_for(socket, process)
        if server == "ring, consumer":
            stack.enter_context(ended(subprocess.Popen([helper, "drain", work / "ring"])))
        done = subprocess.run(
            ["fio", "--name=capture", "--ioengine=nbd", "--uri=nbd+unix:///?socket=%s" % socket,
             "--size=%d" % IMAGE_BYTES, "--time_based", "--runtime=%dms" % (seconds * 1000),
             "--randseed=1", "--output-format=json", *fio_args],
            cwd=work, check=True, capture_output=True, timeout=120)
        text = done.stdout.decode()
        run = json.loads(text[text.index("{"):])["jobs"][0]["write"]
        run["cpu_us"] = cpu_seconds(process.pid) * 1e6 / run["total_ios"]
        return run


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(medium, image, work, helper, rounds, seconds):
    for workload, fio_args in WORKLOADS.items():
        runs = {server: [] for server in SERVERS}
        for number in range(rounds):
            order = SERVERS[number % 4:] + SERVERS[:number % 4]
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


def instructions(helper, work):
    """Instructions of one publish of 4 KiB, by callgrind; None without valgrind."""
    if not shutil.which("valgrind"):
        return None
    count = 20000
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
         "--toggle-collect=tw_ring_publish", helper, "publish", work / "ring", str(count)],
        check=True, capture_output=True, timeout=120)
    collected = re.search(r"Collected : (\d+)", done.stderr.decode())
    return {"bench": "capture", "workload": "publish 4k", "server": "ring",
            "instructions": round(int(collected.group(1)) / count)}


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
        helper = compile_helper(memory)
        work = memory / "work"
        work.mkdir()
        for medium, place in (("tmpfs", memory), ("disk", directory(args.disk))):
            image = place / "disk.img"
            with open(image, "wb") as out:
                os.posix_fallocate(out.fileno(), 0, IMAGE_BYTES)
            for figure in figures(medium, image, work, helper, args.rounds, args.seconds):
                lines.append(figure)
                show(figure)
            os.unlink(image)
        counted = instructions(helper, work)
        if counted:
            lines.append(counted)
            print("one publish of 4 KiB: %d instructions" % counted["instructions"])
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
