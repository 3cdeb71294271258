# SPDX-License-Identifier: BSD-3-Clause
"""File operations that can be written down: each is done on a directory and logged as one JSON list,
and a list of them is done again by play().

A step is [name, argument...]: paths are relative to the directory, open files are numbers, data is
[form, start, length] (see data()).
"""
import contextlib
import errno
import json
import mmap
import os
import random
import stat
import time

from . import calls

NOISE = random.Random(0).randbytes(1 << 20)
# A file system that answers so is broken; every other error is one that a program has to expect.
BROKEN = (errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ENOMEM)
ENDLESS = 1 << 62


def data(form, start, length):
    """Zeroes, what looks like a journal block, or noise."""
    if form == "zeroes":
        return bytes(length)
    if form == "magic":
        return ((b"\xc0\x3b\x39\x98" + bytes(508)) * (length // 512 + 1))[:length]
    piece = NOISE[start:start + length]
    while len(piece) < length:
        piece += NOISE[:length - len(piece)]
    return piece


class Steps:
    """Does steps below .root. log: a text file that they are written to, or None. With spans, .spans
    collects what may have changed in each file: {(inode, generation): [(start, end), ...]}; and .allocated what
    has been allocated without being written: the kernel may fill all of it with zeroes when a part is written."""

    def __init__(self, root, log=None, spans=False):
        self.root = os.fsencode(root)
        self.log = log
        self.spans = {} if spans else None
        self.allocated = {}
        self._files = {}
        self._next = 1

    def _path(self, path):
        return self.root + b"/" + path if path else self.root

    def do(self, name, *args):
        """One step; returns what it returns. Raises OSError."""
        if self.log:
            self.log.write(json.dumps([time.time_ns(), name, *map(_text, args)]) + "\n")
        return getattr(self, "_" + name)(*args)

    # --- open files ---

    def open(self, path, flags=os.O_RDWR, mode=0o644):
        """Opens a file and returns its number."""
        number = self._next
        self._next += 1
        self.do("open", number, path, flags, mode)
        return number

    @contextlib.contextmanager
    def opened(self, path, flags=os.O_RDWR, mode=0o644):
        number = self.open(path, flags, mode)
        try:
            yield number
        finally:
            self.do("close", number)

    def size(self, number):
        return os.fstat(self._files[number][0]).st_size

    def close_all(self):
        for number in list(self._files):
            self.do("close", number)

    def _open(self, number, path, flags, mode):
        before = 0
        if flags & os.O_TRUNC and self.spans is not None:
            with contextlib.suppress(OSError):
                before = os.lstat(self._path(path)).st_size
        descriptor = os.open(self._path(path), flags | os.O_NOFOLLOW, mode)
        if number in self._files:  # played without the step that closed it
            self._close(number)
        self._files[number] = (descriptor, self._key(descriptor))
        if flags & os.O_NONBLOCK:  # others write it too: where it ends when a write comes is not known
            before = ENDLESS
        if before:
            self._span(number, 0, before)

    def _key(self, descriptor):
        if self.spans is None:
            return None
        found = os.fstat(descriptor)
        return (found.st_ino, calls.generation(descriptor)) if stat.S_ISREG(found.st_mode) else None

    def _close(self, number):
        os.close(self._files.pop(number)[0])

    def _descriptor(self, number):
        if number not in self._files:
            raise OSError(errno.EBADF, "no such open file")
        return self._files[number][0]

    # --- data ---

    def _span(self, number, start, end):
        """[start, end) may change, and what lies between a file's end and there when it grows."""
        descriptor, key = self._files.get(number, (None, None))
        if key is None:
            return
        size = os.fstat(descriptor).st_size
        spans = self.spans.setdefault(key, [])
        spans.append((start, end))
        if end > size:
            spans.append((size, end))

    def _pwrite(self, number, offset, noise):
        self._span(number, offset, offset + noise[2])
        os.pwrite(self._descriptor(number), data(*noise), offset)

    def _write(self, number, noise):
        """At the file's end, or at what an O_APPEND finds there: others may append too."""
        descriptor = self._descriptor(number)
        self._span(number, os.fstat(descriptor).st_size, os.fstat(descriptor).st_size + 1)
        os.write(descriptor, data(*noise))
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        self._span(number, end - noise[2], end)

    def _direct(self, number, offset, noise):
        """A write from an aligned buffer, for O_DIRECT."""
        self._span(number, offset, offset + noise[2])
        descriptor = self._descriptor(number)
        with mmap.mmap(-1, max(noise[2], 1)) as buffer:
            buffer[:noise[2]] = data(*noise)
            with memoryview(buffer) as view:
                os.pwrite(descriptor, view[:noise[2]], offset)

    def _map(self, number, length, at, noise):
        """Writes through a shared mapping of the file's first length bytes."""
        descriptor = self._descriptor(number)
        if os.fstat(descriptor).st_size < length:
            raise OSError(errno.EINVAL, "the file has become shorter")
        self._span(number, at, at + noise[2])
        with mmap.mmap(descriptor, length) as memory:
            memory[at:at + noise[2]] = data(*noise)[:length - at]

    def _truncate(self, number, size):
        descriptor = self._descriptor(number)
        self._span(number, *sorted((size, os.fstat(descriptor).st_size)))
        self._span(number, size, size + 1)
        os.ftruncate(descriptor, size)

    def _fallocate(self, number, mode, offset, length):
        shifts = mode & (calls.COLLAPSE | calls.INSERT)
        self._span(number, offset, ENDLESS if shifts else offset + length)
        if not mode & (calls.COLLAPSE | calls.INSERT | calls.PUNCH_HOLE):
            key = self._files.get(number, (None, None))[1]
            self.allocated.setdefault(key, []).append((offset, offset + length))
        calls.fallocate(self._descriptor(number), mode, offset, length)

    def _copy(self, source, target, length, source_offset, target_offset):
        self._span(target, target_offset, target_offset + length)
        os.copy_file_range(self._descriptor(source), self._descriptor(target), length,
                           source_offset, target_offset)

    def _fsync(self, number):
        os.fsync(self._descriptor(number))

    def _fdatasync(self, number):
        os.fdatasync(self._descriptor(number))

    def _chattr(self, number, flip):
        descriptor = self._descriptor(number)
        calls.set_flags(descriptor, calls.get_flags(descriptor) ^ flip)

    def _project(self, number, project):
        calls.set_project(self._descriptor(number), project)

    def _name(self, number, path):
        calls.link_open_file(self._descriptor(number), self._path(path))

    # --- names ---

    def _rename(self, old, new):
        os.rename(self._path(old), self._path(new))

    def _rename2(self, old, new, flags):
        calls.renameat2(self._path(old), self._path(new), flags)

    def _link(self, old, new):
        os.link(self._path(old), self._path(new), follow_symlinks=False)

    def _symlink(self, target, path):
        os.symlink(target, self._path(path))

    def _unlink(self, path):
        os.unlink(self._path(path))

    def _mkdir(self, path, mode):
        os.mkdir(self._path(path), mode)

    def _rmdir(self, path):
        os.rmdir(self._path(path))

    def _mknod(self, path, mode, major, minor):
        os.mknod(self._path(path), mode, os.makedev(major, minor))

    # --- attributes ---

    def _chmod(self, path, mode):
        os.chmod(self._path(path), mode)

    def _chown(self, path, uid, gid):
        os.chown(self._path(path), uid, gid, follow_symlinks=False)

    def _utimens(self, path, atime, mtime):
        os.utime(self._path(path), ns=(atime, mtime), follow_symlinks=False)

    def _setxattr(self, path, name, noise):
        os.setxattr(self._path(path), name, data(*noise), follow_symlinks=False)

    def _setxattr_hex(self, path, name, value):
        os.setxattr(self._path(path), name, bytes.fromhex(value), follow_symlinks=False)

    def _removexattr(self, path, name):
        os.removexattr(self._path(path), name, follow_symlinks=False)

    def xattrs(self, path):
        return os.listxattr(self._path(path), follow_symlinks=False)

    # --- the whole file system ---

    def _syncfs(self):
        calls.sync_fs(self.root)


def _text(value):
    return os.fsdecode(value) if isinstance(value, bytes) else value


def _bytes(value):
    return os.fsencode(value) if isinstance(value, str) else value


TEXT = {"setxattr_hex": (2,)}  # arguments of a step that are text and no path


def play(steps, listed):
    """Does a list of steps; those that cannot be done are left out (others before them may have
    been). Returns how many were done."""
    done = 0
    for name, *args in listed:
        text = TEXT.get(name, ())
        args = [arg if at in text else _bytes(arg) for at, arg in enumerate(args)]
        try:
            steps.do(name, *args)
            done += 1
        except OSError as error:
            if error.errno in BROKEN:
                raise
        except KeyError:  # close of a file that could not be opened
            continue
    return done
