# SPDX-License-Identifier: BSD-3-Clause
"""Whether a server listens on a Unix socket, asked of the kernel: the file is there a moment before,
and a connection would be a client."""
import os

_ACCEPTS = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix (Linux, net/unix/af_unix.c)


def listens(path):
    """path: as the server was told it."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
        next(table)
        for line in table:
            fields = line.rstrip("\n").split(maxsplit=7)
            if len(fields) == 8 and fields[7] == os.fspath(path) and int(fields[3], 16) & _ACCEPTS:
                return True
    return False
