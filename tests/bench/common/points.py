# SPDX-License-Identifier: BSD-3-Clause
"""Capture points and what reads from them, as the benchmarks run them."""
import contextlib
import subprocess
import sys
import time

import measure
from lib import unixsocket

PLUGIN = measure.ROOT / "tapdisk-plugin"
INCLUDE = ("-D_GNU_SOURCE", "-g", "-I", PLUGIN)


def _sources(*names):
    return [PLUGIN / name for name in names]


def compile_ring_bench(directory):
    """The consumer without an inspector, and more: see ring_bench.c."""
    return measure.compile_c("ring_bench", directory, *INCLUDE, *_sources(
        "ring.c", "ring-file.c", "ring-reader.c", "capture.c", "range-lock.c", "trace.c"))


def compile_with_driver(name, directory):
    """A program of tests/bench that calls the tapdisk driver as common/driver_host.h has it."""
    return measure.compile_c(name, directory, *INCLUDE, measure.BENCH / "common" / "driver_host.c", *_sources(
        "block-tapwire.c", "flights.c", "ring.c", "ring-file.c"))


@contextlib.contextmanager
def ended(process):
    """Kills a process in the end; one that is stopped, too."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def nbdkit(socket, plugin, *args):
    """A server that listens on a socket by now. plugin: nbdkit's own name for one, or a path."""
    argv = ["nbdkit", "-f", "-U", socket, plugin, *args]
    with ended(subprocess.Popen(argv, stdin=subprocess.DEVNULL)) as process:
        end = time.monotonic() + 20
        while not unixsocket.listens(socket):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit("%s: does not listen" % " ".join(map(str, argv)))
            time.sleep(0.01)
        yield process


def plugin_path():
    return measure.build() / "nbdkit-tapwire-plugin.so"
