#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Memory stays bounded, whatever a guest does: a terabyte written without a commit, millions of
files in one directory, a file in a million pieces.

Memory is the peak RSS of `tapwire infer`, mostly as the difference to one that follows nothing. The
terabyte is synthetic (records whose content was not kept; where content counts, some GiB through a
pipe) on a sparse volume. Directory and file are made by this machine's kernel, and what it changes
in them later is recorded through nbdkit-tapwire. Needs root. Takes about four minutes; --huge, with
ten million files, ten more.
"""
import argparse
import contextlib
import itertools
import json
import os
import random
import re
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import measure  # noqa: E402
from journal import Journal  # noqa: E402
from lib import guestdisk  # noqa: E402
from lib import trace as traces  # noqa: E402
from lib.calls import sync_fs  # noqa: E402

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
BLOCK = 4096
START_NS = 1700000000 * 10**9
HOLDERS = 64  # files that hold the allocated half of the sparse volume
LOG = 64      # MiB of its journal
UNFOLLOWED = 65  # the exit status of what needs another crawl
EXTENT_MAGIC = b"\x0a\xf3"
NOT_A_COMMIT = b"\0not jbd2"

# Files whose blocks count as written, though nobody wrote them.
MKE2FS_CONF = """\
[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	blocksize = 4096
	inode_size = 256
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
	holders = {
		make_hugefiles = 1
		hugefiles_dir = /
		hugefiles_name = file-
		hugefiles_digits = 2
		hugefiles_size = %(size)dM
		num_hugefiles = %(number)d
		zero_hugefiles = false
	}
"""


class Tapwire:
    """Runs `tapwire infer`: what it says, and its memory."""

    def __init__(self, directory):
        self.plugin = measure.build() / "nbdkit-tapwire-plugin.so"
        self._program = measure.build() / "tapwire"
        self._run = measure.Runner(directory)
        self._pipe = directory / "pipe"

    def infer(self, base, trace, allowed=(0,)):
        done = self._run(self._program, "infer", "--disk", base, "--trace", trace, "--stats",
                         allowed=allowed)
        return json.loads(re.search("^{.*}$", done.stderr, re.MULTILINE).group()), done.rss

    def feed(self, base, chunks=()):
        """The same with a trace that comes through a pipe. chunks: records, as bytes. What cannot
        be followed (the disk would be crawled again) may end it."""
        os.mkfifo(self._pipe)

        def write():
            with contextlib.suppress(BrokenPipeError), open(self._pipe, "wb", buffering=0) as out:
                for chunk in itertools.chain([traces.header(os.path.getsize(base))], chunks):
                    left = memoryview(chunk)
                    while left:
                        left = left[out.write(left):]
        writer = threading.Thread(target=write)
        writer.start()
        try:
            return self.infer(base, self._pipe, allowed=(0, UNFOLLOWED))
        finally:
            # Lets go of a writer that nobody has read from.
            os.close(os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK))
            writer.join()
            os.unlink(self._pipe)


def written(places, length, payload=b""):
    """Records of writes of so many bytes at these offsets; without a payload, their content was not
    kept."""
    some = []
    for number, place in enumerate(places, 1):
        some.append(traces.RECORD.pack(number, START_NS + number * 1000, place // traces.SECTOR,
                                       length // traces.SECTOR, traces.PAYLOAD if payload else 0))
        some.append(payload)
        if len(some) >= (32 if payload else 4096):
            yield b"".join(some)
            some = []
    yield b"".join(some)


def pieces(ranges, length):
    """Offsets of whole pieces of byte ranges."""
    return [at for start, end in ranges for at in range(start, end - length + 1, length)]


def shuffled(places):
    places = list(places)
    random.Random(1).shuffle(places)
    return places


class Sparse:
    """A volume of which nothing is on the disk but metadata: half of it allocated, half free.
    journal: whether it has one."""

    def __init__(self, directory, size, journal=True):
        self.image = directory / "sparse.img"
        config = directory / "mke2fs.conf"
        config.write_text(MKE2FS_CONF % {"size": size // 2 // HOLDERS >> 20, "number": HOLDERS})
        guestdisk.run("truncate", "-s", str(size), self.image)
        guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", "-T", "holders", "-m0",
                      *(["-J", "size=%d" % LOG] if journal else ["-O", "^has_journal"]),
                      "-N", "100000", "-E", "lazy_itable_init=1,nodiscard", self.image,
                      env={**os.environ, "MKE2FS_CONFIG": str(config)})
        self.log = sorted(Journal(self.image).blocks) if journal else []

    def allocated(self):
        """Byte ranges of the files."""
        found = []
        for i in range(HOLDERS):
            text = guestdisk.run("debugfs", "-R", "dump_extents -l file-%02d" % i, self.image)
            found += re.findall(r"^ *(\d+)/ *\1 .*?- *\d+ +(\d+) - +(\d+) ", text, re.MULTILINE)
        return [(int(first) * BLOCK, (int(last) + 1) * BLOCK) for _, first, last in found]

    def free(self):
        """Byte ranges that are nobody's."""
        text = guestdisk.run("dumpe2fs", self.image)
        return [(int(first) * BLOCK, (int(last) + 1) * BLOCK)
                for line in re.findall(r"^  Free blocks: (.*)$", text, re.MULTILINE)
                for first, last in re.findall(r"(\d+)-(\d+)", line)]

    def begun(self):
        """Records that begin a log with transaction 1, which nobody commits."""
        with open(self.image, "rb") as image:
            superblock = bytearray(os.pread(image.fileno(), BLOCK, self.log[0] * BLOCK))
        superblock[0x18:0x20] = (1).to_bytes(4, "big") * 2  # s_sequence, s_start
        # It has no checksum before the first mount.
        return written([self.log[0] * BLOCK], BLOCK, bytes(superblock))


class Bounds:
    def __init__(self, directory, args):
        self.figures = measure.Figures("bounds")
        self._directory, self._args = directory, args
        self._tapwire = Tapwire(directory)

    # --- a terabyte without a commit ---

    def uncommitted(self):
        args = self._args
        size = 2 * args.bytes + 8 * GIB
        sparse = Sparse(self._directory, size)
        content = random.Random(1).randbytes(MIB)
        allocated, free = sparse.allocated(), sparse.free()
        large = pieces(allocated, MIB)[:args.bytes // MIB]
        both = shuffled(pieces(allocated, MIB) + pieces(free, MIB))[:args.bytes // MIB]
        small, one = self._small(large), self._small(large[:len(large) // HOLDERS])
        nobodys = pieces(free, MIB)[:args.content // MIB]
        log = itertools.islice(itertools.cycle(sparse.log[1:]), args.content // BLOCK)
        page = NOT_A_COMMIT + content[:BLOCK - len(NOT_A_COMMIT)]
        rows = self._without_commit(sparse.image, {
            "nothing": [],
            "files, in order": written(large, MIB),
            "files and free space, shuffled": written(both, MIB),
            "files, shuffled, 4 KiB each": written(small, BLOCK),
            "a file, shuffled, 4 KiB each": written(one, BLOCK),
            "free space, with content": written(nobodys, MIB, content),
            "the log, with content": itertools.chain(
                sparse.begun(), written((block * BLOCK for block in log), BLOCK, page)),
        })
        sparse = Sparse(self._directory, size, journal=False)
        node = (EXTENT_MAGIC + content[len(EXTENT_MAGIC):BLOCK]) * (MIB // BLOCK)
        rows += self._without_commit(sparse.image, {
            "no journal, nothing": [],
            "no journal, free space, like metadata": written(
                pieces(sparse.free(), MIB)[:args.content // MIB], MIB, node)})
        measure.table("written without a commit: volume of %.2f TiB, journal of %d MiB"
                      % (size / TIB, LOG), ("", "GiB", "records", "events", "cpu s", "peak MB",
                                            "MB more"), rows)

    def _without_commit(self, image, cases):
        """The rows of these cases, by name, the first of which is to write nothing. The image is
        gone then."""
        rows, idle = [], None
        for name, chunks in cases.items():
            stats, rss = self._tapwire.feed(image, chunks)
            idle = idle or rss
            key = "uncommitted." + re.sub("[^A-Za-z0-9]+", "_", name)
            self.figures.add(key + ".peak", rss / 1e6, "MB", bytes=stats["bytes"])
            self._memory(key, rss, idle)
            self.figures.add(key + ".cpu", stats["infer_cpu_s"], "s")
            rows.append((name, "%.1f" % (stats["bytes"] / GIB), stats["records"], stats["events"],
                         "%.2f" % stats["infer_cpu_s"], "%.1f" % (rss / 1e6),
                         "%.1f" % ((rss - idle) / 1e6)))
        os.unlink(image)
        return rows

    def _small(self, places):
        """Blocks of 4 KiB, each in another one of these MiBs than the one before."""
        rnd = random.Random(1)
        return (places[i * 7919 % len(places)] + rnd.randrange(MIB // BLOCK) * BLOCK
                for i in range(self._args.small))

    def _memory(self, key, rss, idle):
        self.figures.add(key + ".more", max(0.001, (rss - idle) / 1e6), "MB")

    # --- what a kernel makes, and then changes ---

    def _recorded(self, image, name, work, offset=0):
        """Records what work(root) does on an image, which it takes. Returns base image and trace."""
        directory = self._directory / name
        directory.mkdir()
        disk = guestdisk.GuestDisk(directory, image, self._tapwire.plugin,
                                   options="noinit_itable,commit=600", offset=offset)
        os.rename(image, disk.base)
        guestdisk.copy_image(disk.base, image)
        with disk:
            work(disk.root)
            sync_fs(disk.root)
        os.unlink(image)
        return disk.base, disk.trace

    def _followed(self, key, label, base, trace, changes):
        """The row of what following these changes cost, and the crawl before."""
        idle = self._tapwire.feed(base)
        stats, rss = self._tapwire.infer(base, trace)
        self.figures.add(key + ".idle", idle[1] / 1e6, "MB")
        self._memory(key, rss, idle[1])
        each = stats["infer_cpu_s"] / changes * 1e6
        self.figures.add(key + ".each", each, "us")
        self.figures.add(key + ".crawl", stats["crawl_cpu_s"], "s", inodes=stats["inodes"],
                         extents=stats["extents"])
        return (label, stats["inodes"], stats["extents"], "%.3f" % stats["crawl_cpu_s"],
                "%.1f" % (idle[1] / 1e6), changes, stats["events"], "%.1f" % each,
                "%.1f" % ((rss - idle[1]) / 1e6))

    HEAD = ("", "inodes", "extents", "crawl cpu s", "idle MB", "changes", "events", "cpu us each",
            "MB more")

    # --- many files in a directory ---

    def directory(self):
        """Changes in directories of a few files and of many, and a directory that is made while
        somebody follows."""
        args = self._args
        fill = measure.compile_c("crawl_fill", self._directory)
        rows = []
        for files in (1000, args.files):
            image = self._directory / "disk.img"
            guestdisk.make_image(image, room(files * 400 + 4 * GIB), (
                "-O", "large_dir", "-N", str(files + args.changes + args.made + 10000),
                "-J", "size=%d" % LOG))
            with guestdisk.mounted(image, self._directory / "fill",
                                   "noinit_itable,nobarrier") as root:
                guestdisk.run(fill, root, files, 1, 0)
            base, trace = self._recorded(image, "directory-%d" % files, self._in_directory)
            row = self._followed("directory.%d" % files, "changes among %d files" % files, base,
                                 trace, args.changes)
            rows.append(row)
            os.unlink(trace)
            if files == 1000:
                os.rename(base, image)
                base, trace = self._recorded(image, "made", self._make_files)
                rows.append(self._followed("directory.made", "%d files made" % args.made, base,
                                           trace, args.made))
                os.unlink(trace)
            os.unlink(base)
        measure.table("one directory", self.HEAD, rows)

    def _in_directory(self, root):
        """A tenth of the changes in a transaction: files made, renamed, deleted."""
        root = os.path.join(root, "directory-0000")
        for number in range(self._args.changes // 3):
            path = os.path.join(root, "new-%07d" % number)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.rename(path, path + "-renamed")
            os.unlink(os.path.join(root, "file-%09d" % (number * 7919 % 1000)) if number < 300
                      else path + "-renamed")
            if number % 10 == 9:
                sync_fs(root)

    def _make_files(self, root):
        os.mkdir(os.path.join(root, "many"))
        for number in range(self._args.made):
            os.close(os.open(os.path.join(root, "many", "file-%09d" % number),
                             os.O_CREAT | os.O_WRONLY))

    # --- a file in many pieces ---

    def fragments(self):
        args = self._args
        rows = []
        kinds = {"overwritten": self._overwrite, "appended to": self._append,
                 "filled up": self._fill_up}
        for extents in (1000, args.extents):
            image = self._directory / "disk.img"
            guestdisk.make_image(image, room(extents * 2048 + GIB), ("-b", "1024", "-J", "size=%d" % LOG))
            with guestdisk.mounted(image, self._directory / "fill",
                                   "noinit_itable,nobarrier") as root:
                fragmented(os.path.join(root, "file"), 0, extents)
            for kind, work in kinds.items():
                copy = self._directory / "copy.img"
                guestdisk.copy_image(image, copy)
                name = "fragments.%s.%d" % (kind.replace(" ", "_"), extents)
                base, trace = self._recorded(copy, name, lambda root, work=work: work(
                    os.path.join(root, "file"), extents))
                rows.append(self._followed(name, "%d extents, %s" % (extents, kind), base, trace,
                                           args.overwrites))
                os.unlink(base)
                os.unlink(trace)
            os.unlink(image)
        for extents in (args.grown // 4, args.grown):
            rows.append(self._growing(extents))
        measure.table("a file in many pieces, a transaction for each change", self.HEAD, rows)

    def _growing(self, extents):
        """A file gets its extents while somebody follows, a transaction every 100."""
        image = self._directory / "disk.img"
        guestdisk.make_image(image, room(extents * 2048 + GIB), ("-b", "1024", "-J", "size=%d" % LOG))

        def grow(root):
            for first in range(0, extents, 100):
                fragmented(os.path.join(root, "file"), first, 100)
                sync_fs(root)
        name = "fragments.grown.%d" % extents
        base, trace = self._recorded(image, name, grow)
        row = self._followed(name, "grown to %d extents" % extents, base, trace, extents // 100)
        os.unlink(base)
        os.unlink(trace)
        return row

    def _writes(self, path, offsets):
        content = random.Random(1).randbytes(1024)
        descriptor = os.open(path, os.O_WRONLY)
        try:
            for offset in offsets:
                os.pwrite(descriptor, content, offset)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _overwrite(self, path, extents):
        """What is there, but was never written: the extents are not what they were."""
        self._writes(path, (i * 7919 % extents * 2048 for i in range(self._args.overwrites)))

    def _fill_up(self, path, extents):
        """The holes between the extents."""
        self._writes(path, (i * 7919 % extents * 2048 + 1024
                            for i in range(self._args.overwrites)))

    def _append(self, path, extents):
        self._writes(path, ((extents + i) * 2048 for i in range(self._args.overwrites)))


def room(size):
    """A multiple of a MiB."""
    return (size + MIB - 1) // MIB * MIB


def fragmented(path, first, count):
    """Allocates every other block of 1 KiB of a part of a file: an extent each."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for i in range(first, first + count):
            os.posix_fallocate(descriptor, i * 2048, 1024)
    finally:
        os.close(descriptor)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bytes", type=int, default=TIB, help="written without a commit")
    parser.add_argument("--small", type=int, default=4000000, help="writes of 4 KiB among them")
    parser.add_argument("--content", type=int, default=4 * GIB,
                        help="bytes written with content, without a commit")
    parser.add_argument("--files", type=int, default=1000000, help="in the one directory")
    parser.add_argument("--huge", action="store_true", default=measure.full(),
                        help="ten million files in it")
    parser.add_argument("--made", type=int, default=200000, help="files made while followed")
    parser.add_argument("--changes", type=int, default=3000, help="in a directory")
    parser.add_argument("--extents", type=int, default=1000000, help="of the one file")
    parser.add_argument("--grown", type=int, default=40000, help="extents made while followed")
    parser.add_argument("--overwrites", type=int, default=100, help="of such a file")
    parser.add_argument("--only", choices=("uncommitted", "directory", "fragments"))
    parser.add_argument("--quick", action="store_true", help="small numbers, to see it work")
    args = parser.parse_args()
    if args.huge:
        args.files = 10000000
    if args.quick:
        args.bytes, args.small, args.content = 64 * GIB, 400000, 256 * MIB
        args.files, args.made, args.changes = 20000, 10000, 300
        args.extents, args.grown, args.overwrites = 20000, 8000, 50
    reason = guestdisk.missing()
    if reason:
        sys.exit("bounds: cannot make a volume here: " + reason)
    measure.setup()
    with measure.scratch() as directory:
        bounds = Bounds(directory, args)
        for part in [args.only] if args.only else ("uncommitted", "directory", "fragments"):
            getattr(bounds, part)()
    print()
    bounds.figures.print()


if __name__ == "__main__":
    main()
