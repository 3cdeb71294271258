#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""In place of nbd-client, for a kernel without its devices: what becomes the device is a symlink to a loop device over
nbdfuse. Knows what the hotplug script calls:

    nbdclient.py -c DEVICE | -d DEVICE | -unix SOCKET DEVICE -b 512
"""
import os
import subprocess
import sys
import time

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}


def wait(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def connect(socket, device):
    where = device + ".fuse"
    os.makedirs(where, exist_ok=True)
    subprocess.Popen(["nbdfuse", where + "/disk", "nbd+unix:///?socket=" + socket], start_new_session=True, **QUIET)
    if not wait(lambda: os.path.exists(where + "/disk")):
        return 1
    readonly = [] if os.stat(where + "/disk").st_mode & 0o200 else ["-r"]
    loop = subprocess.run(["losetup", "-f", "--show", *readonly, where + "/disk"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    os.unlink(device)
    os.symlink(loop, device)
    return 0


def disconnect(device):
    loop = os.readlink(device)
    subprocess.run(["losetup", "-d", loop], check=True, **QUIET)
    os.unlink(device)
    with open(device, "w", encoding="ascii"):
        pass
    wait(lambda: subprocess.run(["umount", device + ".fuse"], check=False, **QUIET).returncode == 0)
    return 0


def main(words):
    if words[0] == "-c":
        return 0 if os.path.islink(words[1]) else 1
    if words[0] == "-d":
        return disconnect(words[1])
    assert words[0] == "-unix" and words[3:] == ["-b", "512"], words
    return connect(words[1], words[2])


sys.exit(main(sys.argv[1:]))
