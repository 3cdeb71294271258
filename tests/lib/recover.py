# SPDX-License-Identifier: BSD-3-Clause
"""Recovery by a kernel of one's own (User Mode Linux), for disks that this machine's kernel must not recover:
Linux 6.18 was seen to hit a BUG in ext4_split_extent_at when it replays fast commits, and whatever needs all
file systems, sync(2) for one, hangs from then on. So does Linux 6.1; there it is only the guest that goes."""
import os
import pickle
import re
import shutil
import tempfile

from . import uml

PROGRAM = """
run("insmod", "/usr/lib/uml/modules/%%s/kernel/drivers/block/loop.ko" %% os.uname().release)
for at, image in list(enumerate(%(images)r))[%(first)d:]:
    where = "/run/disk%%d" %% at
    os.mkdir(where)
    run("mount", "-t", "hostfs", "none", where, "-o", os.path.dirname(image))
    print("disk", at, flush=True)
    try:
        run("mount", "-t", "ext4", "-o", "loop", where + "/" + os.path.basename(image), "/run/mnt")
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            raise
        continue
    show("/run/mnt", str(at))
    run("umount", "/run/mnt")
"""


def recover(images, most=8):
    """Mounts images one after the other, which recovers them in place. Returns for each what was shown, or None
    where the kernel refused or broke down; it may break down so many times."""
    images = list(map(os.fspath, images))
    directory = tempfile.mkdtemp(prefix="tapwire-test-")
    shown, first = {}, 0
    try:
        for boot in range(most + 1):
            out = os.path.join(directory, "guest%d" % boot)
            try:
                shown.update(uml.run("/dev/null", out, PROGRAM % {"images": images, "first": first}))
                break
            except AssertionError:
                first = _broke_down(out, shown)
                if first is None or boot == most:
                    raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return [shown.get(str(at)) for at in range(len(images))]


def _broke_down(out, shown):
    """Takes what was shown before the guest's kernel broke down. Returns the number of the disk after the one that
    it broke down on, None when that is not what happened."""
    with open(os.path.join(out, "console"), encoding="utf-8", errors="replace") as console:
        said = console.read()
    with open(os.path.join(out, "guest.log"), encoding="utf-8", errors="replace") as log:
        disks = re.findall(r"^disk (\d+)$", log.read(), re.M)
    if "Kernel panic" not in said or not disks:
        return None
    for name in os.listdir(out):
        if name.endswith(".shown"):
            with open(os.path.join(out, name), "rb") as file:
                shown[name[:-6]] = pickle.load(file)
    return int(disks[-1]) + 1
