#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes sync(2) do nothing, for this process and all that it starts: a program under test that syncs the whole
machine would wait for every other disk there is, also for one that never answers.

    python3 tests/lib/nosync.py COMMAND [ARGUMENT...]
"""
import ctypes
import os
import platform
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
RET_ALLOW, RET_ERRNO = 0x7fff0000, 0x00050000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF: absolute word, compare with a constant
# audit architecture and the number of sync(2)
MACHINES = {"x86_64": (0xc000003e, 162), "aarch64": (0xc00000b7, 81)}


def forbid():
    """From now on sync(2) returns at once. Returns whether that could be had."""
    if platform.machine() not in MACHINES:
        return False
    architecture, number = MACHINES[platform.machine()]
    program = b"".join(struct.pack("<HBBI", *instruction) for instruction in (
        (LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 0, 3, architecture),
        (LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, number),
        (RETURN, 0, 0, RET_ERRNO), (RETURN, 0, 0, RET_ALLOW)))
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if os.geteuid() != 0:
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0) == 0


if __name__ == "__main__":
    forbid()
    os.execvp(sys.argv[1], sys.argv[1:])
