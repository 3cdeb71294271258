# SPDX-License-Identifier: BSD-3-Clause
"""A guest's disk without a guest: this machine's kernel mounts an image whose writes go through a
capture point.

    image <- nbdkit (capture plugin) <- libnbd <- nbdfuse <- loop device <- ext4

Needs root, /dev/fuse and /dev/loop-control.
"""
import contextlib
import os
import shutil
import struct
import subprocess
import time
import uuid
import zlib

from . import tree
from .guard import Guard

QUIET = {"stdin": subprocess.DEVNULL}


def run(*argv, **kwargs):
    """Runs a command to its end; a failure raises with what it said."""
    argv = [os.fspath(arg) if isinstance(arg, os.PathLike) else str(arg) for arg in argv]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **kwargs)
    if done.returncode != 0:
        raise RuntimeError("%s: exit %d: %s" % (" ".join(argv), done.returncode,
                                                done.stdout.decode(errors="replace").strip()))
    return done.stdout.decode(errors="replace").strip()


def missing():
    """Why no disk can be mounted here, or None."""
    if os.geteuid() != 0:
        return "not root"
    for node in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(node):
            return "no " + node
    for program in ("nbdkit", "nbdfuse", "losetup", "mkfs.ext4"):
        if not shutil.which(program):
            return "no " + program
    return None


def make_image(path, size="1G", mkfs=(), fstype="ext4", offset=0, table="mbr"):
    """A sparse image with a fresh file system; with an offset in bytes, in a partition there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    run("truncate", "-s", size, path)
    options = [str(option) for option in mkfs]
    if offset:
        blocks = (os.path.getsize(path) - 2 * offset) // 1024
        run("mke2fs", "-q", "-F", "-t", fstype, "-E", "offset=%d" % offset, *options, path,
            "%dk" % blocks)
        TABLES[table](path, offset)
    else:
        run("mke2fs", "-q", "-F", "-t", fstype, *options, path)


def _write_mbr(path, offset):
    """One Linux partition from offset to the end of the disk."""
    first = offset // 512
    count = os.path.getsize(path) // 512 - first
    entry = b"\0\xfe\xff\xff\x83\xfe\xff\xff" + first.to_bytes(4, "little") \
        + count.to_bytes(4, "little")
    with open(path, "r+b") as image:
        image.seek(440)
        image.write(b"\x57\x49\x52\x45\0\0" + entry + bytes(48) + b"\x55\xaa")


def _write_gpt(path, offset):
    """The same as a GUID partition table (UEFI specification, chapter 5), with its copy at the end."""
    sectors = os.path.getsize(path) // 512
    linux = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
    first, last = offset // 512, (os.path.getsize(path) - offset) // 512 - 1
    entries = (linux + uuid.UUID(int=1).bytes_le + struct.pack("<QQQ", first, last, 0)
               + "root".encode("utf-16-le").ljust(72, b"\0")).ljust(128 * 128, b"\0")

    def header(here, other, at):
        def packed(checksum):
            return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, checksum, 0, here,
                               other, 34, sectors - 34, uuid.UUID(int=2).bytes_le, at, 128, 128,
                               zlib.crc32(entries))
        return packed(zlib.crc32(packed(0))).ljust(512, b"\0")

    with open(path, "r+b") as image:
        image.seek(446)
        image.write(b"\0\0\2\0\xee\xff\xff\xff" + struct.pack("<II", 1, sectors - 1) + bytes(48)
                    + b"\x55\xaa" + header(1, sectors - 1, 2) + entries)
        image.seek((sectors - 33) * 512)
        image.write(entries + header(sectors - 1, 1, sectors - 33))


TABLES = {"mbr": _write_mbr, "gpt": _write_gpt}


def copy_image(source, target):
    """A copy that shares blocks where the host's file system can, and keeps the holes."""
    run("cp", "--reflink=auto", "--sparse=always", source, target)


@contextlib.contextmanager
def mounted(image, where, options="", offset=0, guard=None, readonly=False):
    """Mounts an image (or a file served by nbdfuse) over a loop device."""
    own = guard is None
    guard = guard or Guard()
    os.makedirs(where, exist_ok=True)
    args = ["--offset", str(offset)] if offset else []
    if readonly:
        args.append("-r")
    loop = run("losetup", "-f", "--show", *args, image)
    guard.push("losetup", "-d", loop)
    try:
        guard.push("umount", "-l", where)
        try:
            run("mount", "-t", "ext4", *(["-o", options] if options else []), loop, where)
            try:
                yield where
            finally:
                _unmount(where)
        finally:
            guard.pop()
    finally:
        detach(loop)
        guard.pop()
        if own:
            guard.close()


def _unmount(where):
    for _ in range(200):
        done = subprocess.run(["umount", where], stderr=subprocess.PIPE, **QUIET)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(done.stderr.decode(errors="replace"))


def detach(loop):
    """Until the loop device is free of its file; it may be another test's by then. Whoever looks at all of the host's
    devices (lsblk, LVM) has it open meanwhile, and on a busy host for long."""
    backing = "/sys/block/%s/loop/backing_file" % os.path.basename(loop)

    def attached():
        try:
            with open(backing, encoding="utf-8") as file:
                return file.read()
        except OSError:  # ENXIO: while it is being detached
            return None
    was = attached()
    run("losetup", "-d", loop)
    for _ in range(1500):
        if attached() != was:
            return
        time.sleep(0.02)
    raise RuntimeError("%s is still attached" % loop)


class Served:
    """A file DIR/disk that is the disk behind an NBD server, by nbdfuse."""

    def __init__(self, directory, args, guard):
        self.directory = directory
        self.disk = os.path.join(directory, "disk")
        self._guard = guard
        os.makedirs(directory, exist_ok=True)
        argv = ["nbdfuse", self.disk, *args]
        self._log = open(directory + ".log", "wb")
        self._proc = subprocess.Popen(argv, stdout=self._log, stderr=subprocess.STDOUT,
                                      start_new_session=True, **QUIET)
        guard.push("kill", self._proc.pid)
        guard.push("umount", "-l", directory)
        for _ in range(500):
            if os.path.exists(self.disk):
                return
            if self._proc.poll() is not None:
                break
            time.sleep(0.02)
        self.close()
        with open(directory + ".log", "rb") as log:
            raise RuntimeError("%s: %s" % (" ".join(argv), log.read().decode(errors="replace")))

    def close(self):
        if self._proc.poll() is None and os.path.ismount(self.directory):
            _unmount(self.directory)
        try:
            self._proc.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._proc.kill()
            self._proc.wait()
        self._log.close()
        self._guard.pop()
        self._guard.pop()


class Sync:
    """What the disk showed when nothing was left to write: a clock and a listing."""

    def __init__(self, clock_ns, listing, label):
        self.clock_ns = clock_ns
        self.listing = listing
        self.label = label


class GuestDisk:
    """A disk that is mounted at .root, with its writes captured.

    directory: scratch space; image: the image to serve, already formatted. Its state before the
    mount is kept as .base. With plugin the image is served by nbdkit and, unless record is
    false, recorded to .trace; with socket (or a URI) an NBD server that someone else runs is used.
    Use as a context manager; afterwards the image is the final state.
    """

    def __init__(self, directory, image, plugin=None, socket=None, options="", offset=0,
                 plugin_args=(), record=True):
        self.directory = os.fspath(directory)
        self.image = os.fspath(image)
        self.base = os.path.join(self.directory, "base.img")
        self.trace = os.path.join(self.directory, "trace")
        self.root = os.path.join(self.directory, "mnt")
        self.syncs = []
        self._plugin = plugin
        self._socket = socket
        self._options = options
        self.offset = offset
        self._plugin_args = [str(arg) for arg in plugin_args]
        if record:
            self._plugin_args.append("record=" + self.trace)
        self._stack = contextlib.ExitStack()
        self.guard = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.guard = guard = Guard()
            stack.callback(guard.close)
            if not os.path.exists(self.base):
                copy_image(self.image, self.base)
            served = Served(os.path.join(self.directory, "nbd"), self._nbdfuse_args(), guard)
            stack.callback(served.close)
            stack.enter_context(mounted(served.disk, self.root, self._options, self.offset, guard))
            self._stack = stack.pop_all()
        return self

    def _nbdfuse_args(self):
        if self._socket and "://" in str(self._socket):
            return [self._socket]
        if self._socket:
            return ["--unix", os.fspath(self._socket)]
        return ["--command", "nbdkit", "-s", "--exit-with-parent", os.fspath(self._plugin),
                "file=" + self.image, *self._plugin_args]

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def sync(self, label=""):
        """Everything to the disk, then remembers the clock and what the mount shows. No writer may
        be running."""
        settle(self.root)
        clock = time.time_ns()
        label = str(label) or "sync %d" % len(self.syncs)
        self.syncs.append(Sync(clock, tree.listing(self.root), label))
        return self.syncs[-1]


def settle(root):
    """Everything that was written is on the disk."""
    run("sync", "-f", root)


def read_text(path):
    """The content of a file; "" when it is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def wait_until(condition, seconds):
    """Whether condition() came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def left_below(directory):
    """Mounts, loop devices and processes that still use a directory, as text lines."""
    directory = os.fspath(directory)
    left = []
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        left += [line.strip() for line in mounts if line.split()[1].startswith(directory)]
    for name in os.listdir("/sys/block"):
        try:
            with open("/sys/block/%s/loop/backing_file" % name, encoding="utf-8") as backing:
                left += [name] if backing.read().startswith(directory) else []
        except OSError:
            continue
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as cmdline:
                words = cmdline.read()
        except OSError:
            continue
        if os.fsencode(directory) in words and int(pid) != os.getpid():
            left.append("%s %s" % (pid, words.replace(b"\0", b" ").decode(errors="replace")))
    return left
