# SPDX-License-Identifier: BSD-3-Clause
"""System calls that Python's os module has not, or not whole."""
import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
RENAME_EXCHANGE, RENAME_WHITEOUT = 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_NODUMP, FS_NOATIME = 0x40, 0x80

LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
LIBC.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p,
                           ctypes.c_uint]


def check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fallocate(descriptor, mode, offset, length):
    """fallocate(2) with its modes."""
    check(LIBC.fallocate(descriptor, mode, offset, length))


def renameat2(old, new, flags):
    """renameat2(2) on two paths."""
    check(LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def link_open_file(descriptor, path):
    """Gives an O_TMPFILE file its first name."""
    source = b"/proc/self/fd/%d" % descriptor
    check(LIBC.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW))


def sync_fs(path):
    """syncfs(2) on the file system of a path."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        check(LIBC.syncfs(descriptor))
    finally:
        os.close(descriptor)
