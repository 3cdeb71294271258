# SPDX-License-Identifier: BSD-3-Clause
"""A real tapdisk that has the driver, and its disks."""
import os
import uuid

from lib import tapdisk


class Disk(tapdisk.Disk):
    """A chain. .uri: its NBD export, .ring: the path of its ring."""

    def __init__(self, process, name, chain, top):
        super().__init__(process)
        self._chain, self._top = chain, top
        self.ring = os.path.join(process.rings, name + ".ring")

    @property
    def uri(self):
        return "nbd+unix:///?socket=" + self.socket

    def stats(self):
        """What `tap-ctl stats` says of the driver; None where the first image is no tapwire."""
        first = self.images()[0]["driver"]
        return first["status"] if first["name"] == "tapwire" else None

    def stack(self, *images):
        """What is to be below the driver when it is opened the next time, or goes on."""
        with open(self._chain, "w", encoding="ascii") as file:
            file.write("".join(line + "\n" for line in (self._top, *images)))

    def open(self):
        super().open("x-chain:" + self._chain)


class Tapdisk(tapdisk.Process):
    """Use as a context manager."""

    def __init__(self, program, tap_ctl, directory):
        self._directory = os.fspath(directory)
        self.rings = os.path.join(self._directory, "rings")
        self._disks = []
        super().__init__(program, tap_ctl, directory, TAPWIRE_RING_DIR=self.rings)

    def __exit__(self, *exc):
        for disk in self._disks:
            disk.release()
        super().__exit__(*exc)

    def create(self, *images, spec="", watched=True):
        """A disk with the driver above these images ("aio:/path"). spec: what comes after the ring's name."""
        name = "test-" + uuid.uuid4().hex[:12]
        if watched:
            os.makedirs(self.rings, mode=0o700, exist_ok=True)
        disk = Disk(self, name, os.path.join(self._directory, name), "tapwire:" + name + spec)
        self._disks.append(disk)
        disk.stack(*images)
        disk.open()
        return disk
