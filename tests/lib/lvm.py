# SPDX-License-Identifier: BSD-3-Clause
"""Logical volumes without a device mapper: LVM's own tools write the metadata of physical volumes that lie on a
disk, and what the kernel's mapper would do is done by an nbdkit plugin."""
import contextlib
import json
import os
import shutil
import subprocess

from . import guestdisk

PLUGIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mapped-plugin.c")


def missing():
    """Why there are no logical volumes here, or None."""
    return guestdisk.missing() or (None if shutil.which("lvm") else "no lvm")


class Group:
    """Physical volumes at ranges (offset, bytes) of a disk's file, each over a loop device. Use as a context
    manager; afterwards what was written is in the file."""

    def __init__(self, disk, ranges, guard):
        self.disk = os.fspath(disk)
        self._ranges = ranges
        self._guard = guard
        self._stack = contextlib.ExitStack()
        self.devices = []

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for offset, size in self._ranges:
                loop = guestdisk.run("losetup", "-f", "--show", "--offset", offset, "--sizelimit", size,
                                     self.disk)
                self._guard.push("losetup", "-d", loop)
                stack.callback(self._detach, loop)
                self.devices.append(loop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def _detach(self, loop):
        subprocess.run(["blockdev", "--flushbufs", loop], check=False)
        guestdisk.detach(loop)
        self._guard.pop()

    def add(self, other):
        """Takes another disk's devices to its own; their volumes have no parts here."""
        self.devices += other.devices
        self._ranges = self._ranges + [(1 << 62, size) for _, size in other._ranges]

    def _config(self):
        accept = "".join('"a|^%s$|",' % device for device in self.devices)
        return ('devices { filter=[%s"r|.*|"] use_devicesfile=0 obtain_device_list_from_udev=0 '
                'external_device_info_source="none" md_component_detection=0 multipath_component_detection=0 } '
                'global { activation=0 use_lvmpolld=0 event_activation=0 } '
                'activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 }' % accept)

    def run(self, *argv):
        """An LVM command; what it wrote is on the disk then."""
        done = subprocess.run(["lvm", *map(str, argv), "--config", self._config()], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1", "DM_DISABLE_UDEV": "1"})
        if done.returncode != 0:
            raise RuntimeError("lvm %s: %s" % (" ".join(map(str, argv)), done.stderr.decode()))
        for device in self.devices:
            guestdisk.run("blockdev", "--flushbufs", device)
        return done.stdout.decode()

    def make(self, name, *options):
        """A physical volume of each device, and the group of them."""
        for device in self.devices:
            self.run("pvcreate", "-y", "--norestorefile", *options, device)
        self.run("vgcreate", name, *self.devices)

    def create(self, *options):
        """A logical volume: lvcreate's options."""
        self.run("lvcreate", "-an", "-Zn", "-Wn", "-y", *options)

    def parts(self, volume):
        """Where a volume's bytes are on the disk, as LVM says it: (bytes, stripe, [starts])."""
        starts = {device: offset for device, (offset, _) in zip(self.devices, self._ranges)}
        for pv in json.loads(self.run("pvs", "--reportformat", "json", "--units", "b", "-o",
                                      "pv_name,pe_start"))["report"][0]["pv"]:
            starts[pv["pv_name"]] += int(pv["pe_start"][:-1])
        report = json.loads(self.run(
            "lvs", "--reportformat", "json", "--segments", "--units", "b", "-o",
            "seg_start_pe,seg_size_pe,stripes,stripe_size,devices,vg_extent_size", volume))
        parts = []
        for seg in sorted(report["report"][0]["seg"], key=lambda seg: int(seg["seg_start_pe"])):
            extent, size = int(seg["vg_extent_size"][:-1]), int(seg["seg_size_pe"])
            at = []
            for area in seg["devices"].split(","):
                device, number = area[:-1].split("(")
                at.append(starts[device] + int(number) * extent)
            stripe = int(seg["stripe_size"][:-1]) or size * extent
            parts.append((size * extent, stripe, at))
        return parts


@contextlib.contextmanager
def mapped(disk, parts, directory, guard):
    """A file that is a volume which lies in these parts of a disk's file."""
    directory = os.fspath(directory)
    plugin = directory + ".so"
    os.makedirs(directory, exist_ok=True)
    guestdisk.run("cc", "-shared", "-fPIC", "-O1", "-o", plugin, PLUGIN)
    texts = ["part=%d:%d:%s" % (size, stripe, ",".join(map(str, starts))) for size, stripe, starts in parts]
    served = guestdisk.Served(directory, ["--command", "nbdkit", "-s", "--exit-with-parent", plugin,
                                          "file=" + os.fspath(disk), *texts], guard)
    try:
        yield served.disk
    finally:
        served.close()
