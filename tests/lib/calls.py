# SPDX-License-Identifier: BSD-3-Clause
"""System calls that Python's os module has not, or not whole."""
import ctypes
import fcntl
import os
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_GETVERSION = 0x80086601, 0x40086602, 0x80087601
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801c581f, 0x401c5820
FIFREEZE, FITHAW = 0xc0045877, 0xc0045878
FS_SYNC, FS_IMMUTABLE, FS_APPEND, FS_NODUMP, FS_NOATIME = 8, 0x10, 0x20, 0x40, 0x80
FS_JOURNAL_DATA, FS_EXTENT = 0x4000, 0x80000

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


def get_flags(descriptor):
    """What lsattr(1) shows."""
    return struct.unpack("l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8)))[0]


def set_flags(descriptor, flags):
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags))


def set_project(descriptor, project):
    """The project that the quota of a file is counted for."""
    fields = bytearray(fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, bytes(28)))
    struct.pack_into("I", fields, 12, project)
    fcntl.ioctl(descriptor, FS_IOC_FSSETXATTR, bytes(fields))


def generation(descriptor):
    """An inode's generation number."""
    return struct.unpack("I", fcntl.ioctl(descriptor, FS_IOC_GETVERSION, bytes(8))[:4])[0]
