# SPDX-License-Identifier: BSD-3-Clause
"""A guest with a kernel of its own: User Mode Linux, with the host's files (read-only) as its root, and a
disk's file as its disk. It has what this machine's kernel may lack or forbid: a device mapper, resizing
while mounted."""
import os
import pickle
import shutil
import subprocess

from .guestdisk import read_text

KERNEL = "linux.uml"
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODULES = ("dm-mod", "dm-log", "dm-region-hash", "dm-mirror", "dm-bufio", "dm-snapshot")

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /run; mkdir /run/lock /run/out /run/mnt
for module in %(modules)s; do
    insmod /usr/lib/uml/modules/$(uname -r)/kernel/drivers/md/$module.ko || echo "no $module"
done
mount -t hostfs out /run/out -o %(out)s
/usr/bin/python3 /run/out/guest.py >/run/out/guest.log 2>&1
echo $? >/run/out/status
sync
poweroff -f
"""

# What a guest's program may use.
PRELUDE = """
import os, pickle, subprocess, sys
sys.path.insert(0, %(tests)r)
from lib import tree
from lib.workload import Mix

def run(*argv):
    print(*argv, flush=True)
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

def lvm(*argv):
    run("lvm", *argv, "--config", 'devices { filter=["a|^/dev/ubda|","r|.*|"] use_devicesfile=0 '
        'obtain_device_list_from_udev=0 external_device_info_source="none" types=["ubd", 16] } '
        'global { event_activation=0 use_lvmpolld=0 } '
        'activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=1 } '
        'backup { backup=0 archive=0 }')

def mount(device, where="/run/mnt/volume"):
    os.makedirs(where, exist_ok=True)
    run("mount", device, where)
    return where

def work(root, seed, ops):
    directory = os.path.join(root, "guest%%d" %% seed)
    os.makedirs(directory, exist_ok=True)
    mix = Mix(directory, seed)
    mix.ops(ops)
    mix.close()
    run("sync", "-f", root)

def show(root, name):
    run("sync", "-f", root)
    with open("/run/out/%%s.shown" %% name, "wb") as out:
        pickle.dump(tree.listing(root), out)
"""


def missing():
    """Why no such guest can run here, or None."""
    for program in (KERNEL, "insmod", "lvm"):
        if not shutil.which(program):
            return "no " + program
    return None


def run(disk, directory, program, seconds=300):
    """Runs a program (Python's text, after PRELUDE) in a guest whose /dev/ubda is disk. Returns what it has shown:
    {name: listing}."""
    directory = os.fspath(directory)
    os.makedirs(directory)
    init = os.path.join(directory, "init")
    with open(init, "w", encoding="utf-8") as out:
        out.write(INIT % {"modules": " ".join(MODULES), "out": directory})
    os.chmod(init, 0o755)
    with open(os.path.join(directory, "guest.py"), "w", encoding="utf-8") as out:
        out.write(PRELUDE % {"tests": TESTS} + program)
    with open(os.path.join(directory, "console"), "wb") as console:
        subprocess.run([KERNEL, "mem=256M", "rootfstype=hostfs", "ro", "ubda=" + os.fspath(disk), "init=" + init,
                        "con=null", "con0=null,fd:1", "console=tty0", "quiet"], stdin=subprocess.DEVNULL,
                       stdout=console, stderr=subprocess.STDOUT, timeout=seconds, check=False,
                       env={"PATH": os.environ["PATH"], "HOME": directory})
    return _shown(directory)


def _shown(directory):
    if read_text(os.path.join(directory, "status")).strip() != "0":
        raise AssertionError("in the guest:\n%s\n%s" % (read_text(os.path.join(directory, "console"))[-1500:],
                                                        read_text(os.path.join(directory, "guest.log"))[-4000:]))
    shown = {}
    for name in os.listdir(directory):
        if name.endswith(".shown"):
            with open(os.path.join(directory, name), "rb") as file:
                shown[name[:-6]] = pickle.load(file)
    return shown
