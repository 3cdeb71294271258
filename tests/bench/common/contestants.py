# SPDX-License-Identifier: BSD-3-Clause
"""Volumes to crawl, and the programs that crawl them: tapwire, and what else walks an ext4 volume."""
import os
import pathlib
import re
import struct

import measure
from lib import guestdisk

DIRECTORIES = 1024
BLOCK = 4096
OURS = "tapwire infer, no trace"
CRAWL = "tapwire crawl"
SCAN = "libext2fs scan"
FIND = "find -printf, mounted"
FSCK = "e2fsck -fn"
FLS = "fls -r -m /"
# tapwire crawl tells these of each name, too.
FIND_FORMAT = r"%P\0%y %s %m %U %G %n %T@ %C@ %l\n"


class Volume:
    """An image that fill() fills. files: how many it must have room for; data: bytes of theirs."""

    def __init__(self, directory, files, data):
        self._directory = pathlib.Path(directory)
        self.image = self._directory / "volume"
        self._program = measure.compile_c("crawl_fill", directory)
        size = (data + files * 400 + (512 << 20)) * 11 // 10
        guestdisk.run("truncate", "-s", str(size // BLOCK * BLOCK), self.image)
        guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", "-N",
                      str((files + DIRECTORIES) * 105 // 100 + 8192), self.image)

    def fill(self, files, blocks, directory="."):
        """Lets the kernel make files in a directory of the volume: names of 14 bytes, spread over
        up to 1,024 directories, with so many allocated blocks of 4 KiB each."""
        # Nothing here has to survive a crash.
        with guestdisk.mounted(self.image, self._directory / "fill",
                               "noinit_itable,noatime,nobarrier") as root:
            os.makedirs(os.path.join(root, directory), exist_ok=True)
            guestdisk.run(self._program, os.path.join(root, directory), files,
                          max(1, min(DIRECTORIES, files // 10)), blocks)
        guestdisk.run("sync", self.image)

    def used(self):
        """Inodes and bytes in use."""
        text = guestdisk.run("dumpe2fs", "-h", self.image)

        def number(name):
            return int(re.search("^%s: *([0-9]+)" % name, text, re.MULTILINE).group(1))
        return (number("Inode count") - number("Free inodes"),
                (number("Block count") - number("Free blocks")) * number("Block size"))

    def remove(self):
        os.unlink(self.image)


class Contestants:
    """The programs, and functions that run them on an image."""

    def __init__(self, directory):
        self._directory = pathlib.Path(directory)
        self._run = measure.Runner(directory)
        self._tapwire = measure.build() / "tapwire"
        self._tools = measure.present("e2fsck", "fls")
        self._scan = measure.compile_c("crawl_scan", directory, "-lext2fs", "-lcom_err")
        self._read = measure.compile_c("crawl_read", directory, "-lext2fs", "-lcom_err")

    def inodes(self, image):
        """How many the scan finds."""
        return int(guestdisk.run(self._scan, image).split()[0])

    def infer(self, image):
        """The task of a crawl alone: a view is made, and there is no write to follow."""
        trace = self._directory / "empty-trace"

        def run():
            trace.write_bytes(struct.pack("<8sIIQ", b"TWTRACE1", 512, 0, os.path.getsize(image)))
            return self._run(self._tapwire, "infer", "--disk", image, "--trace", trace, "--stats")
        return run

    def crawl(self, image):
        """The same with a line of JSON for each name."""
        return lambda: self._run(self._tapwire, "crawl", image)

    def read(self, image, *options):
        """Nothing but reading: see crawl_read.c."""
        return lambda: self._run(self._read, *options, image)

    def others(self, image, root=None):
        """Name to task, of those that this machine has. root: where the image is mounted."""
        run = self._run
        tasks = {SCAN: lambda: run(self._scan, image)}
        if root:
            tasks[FIND] = lambda: run("find", root, "-printf", FIND_FORMAT)
        if "e2fsck" in self._tools:
            tasks[FSCK] = lambda: run("e2fsck", "-fn", image)
        if "fls" in self._tools:
            tasks[FLS] = lambda: run("fls", "-r", "-m", "/", image)
        return tasks


def crawl_seconds(run):
    """Until the view was there, of a run of infer()."""
    return float(re.search(r'"crawl_s":([0-9.]+)', run.stderr).group(1))


def crawl_cpu(run):
    return float(re.search(r'"crawl_cpu_s":([0-9.]+)', run.stderr).group(1))


def read_seconds(run):
    """Of a run of read(), without what went before."""
    return float(run.stderr.split()[0])


def read_bytes(run):
    return int(run.stderr.split()[2])


def evict(image):
    """Drops an image's pages from the page cache; whatever else is in there stays."""
    descriptor = os.open(image, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
