#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""In place of tap-ctl and a tapdisk with the driver, for a machine without blktap: nbdkit and the plugin serve what a
chain's file says. Knows what the hotplug script calls:

    tapctl.py SOCKETS PLUGIN create -a x-chain:FILE|aio:IMAGE | list [-p PID] -t x-chain|aio -f FILE |
        destroy -p PID -m MINOR | free -m MINOR

SOCKETS: the directory of their sockets, nbdPID.MINOR. The real one: tests/xen with BLKTAP_PREFIX."""
import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
MINOR = 0


def alive(pid):
    try:
        return pathlib.Path("/proc/%d/stat" % pid).read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def words_for(plugin, chain):
    """Of nbdkit, for a chain's file."""
    lines = [line.partition(":") for line in pathlib.Path(chain).read_text(encoding="utf-8").splitlines()]
    (driver, _, what), (below, _, image) = lines
    if (driver, below) != ("tapwire", "aio") or " " in what + image or not os.path.exists(image):
        sys.exit("Invalid argument")
    name, _, size = what.partition(",ring-size=")
    return [plugin, "file=" + image, "ring-size=" + size, "ring=%s/%s.ring" % (os.environ["TAPWIRE_RING_DIR"], name)]


def create(sockets, plugin, opened):
    kind, _, path = opened.partition(":")
    words = {"x-chain": lambda: words_for(plugin, path), "aio": lambda: ["file", "file=" + path]}[kind]()
    first, note = sockets / "nbd.new", sockets / "pid"
    done = subprocess.run(["nbdkit", "-U", first, "-P", note, *words], check=False, **QUIET)
    if done.returncode:
        sys.exit("Input/output error")
    while not note.exists() or not note.stat().st_size:  # the child writes it
        time.sleep(0.01)
    pid = int(note.read_text(encoding="ascii"))
    note.unlink()
    first.rename(sockets / ("nbd%d.%d" % (pid, MINOR)))
    (sockets / ("opened%d" % pid)).write_text(opened, encoding="utf-8")
    print("%s/tapdisk-%d" % (sockets, MINOR))


def show(sockets, pid, opened):
    for note in sockets.glob("opened%s" % (pid or "*")):
        number = int(note.name[len("opened"):])
        if alive(number) and note.read_text(encoding="utf-8") == opened:
            print("pid=%d minor=%d state=0 args=%s" % (number, MINOR, opened))


def destroy(sockets, pid):
    os.kill(pid, signal.SIGTERM)
    while alive(pid):
        time.sleep(0.01)
    (sockets / ("opened%d" % pid)).unlink()
    (sockets / ("nbd%d.%d" % (pid, MINOR))).unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sockets", type=pathlib.Path)
    parser.add_argument("plugin")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("create").add_argument("-a", dest="opened", required=True)
    listing, ending, giving = map(commands.add_parser, ("list", "destroy", "free"))
    listing.add_argument("-p", dest="pid", default="")
    listing.add_argument("-t", dest="kind", choices=("x-chain", "aio"), required=True)
    listing.add_argument("-f", dest="path", required=True)
    ending.add_argument("-p", dest="pid", type=int, required=True)
    for parts in ending, giving:
        parts.add_argument("-m", type=int, choices=(MINOR,), required=True)
    args = parser.parse_args()
    if args.command == "create":
        create(args.sockets, args.plugin, args.opened)
    elif args.command == "list":
        show(args.sockets, args.pid, args.kind + ":" + args.path)
    elif args.command == "destroy":
        destroy(args.sockets, args.pid)


main()
