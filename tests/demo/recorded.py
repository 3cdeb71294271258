# SPDX-License-Identifier: BSD-3-Clause
"""The demo without a kernel: debugfs (libext2fs) makes the scene's changes on a copy of the disk,
and what a guest's kernel would have written for them goes into a trace: file data, then the
metadata as a transaction in the journal, then its checkpoint. `tapwire infer` tells the events and
the courier posts them."""
import json
import os
import struct
import subprocess
import time

import scene
from lib import guestdisk
from receiver import link

BLOCK = 4096
PAYLOAD, FLUSH = 1, 2
EPOCH = "infer"


def debugfs(image, commands, write=True):
    """Runs debugfs commands and returns what they print; one that complains raises."""
    argv = ["debugfs", "-f", "-", image] if not write else ["debugfs", "-w", "-f", "-", image]
    done = subprocess.run(argv, input="\n".join(commands) + "\n", text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    trouble = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if trouble:
        raise RuntimeError("debugfs: " + "; ".join(trouble))
    return done.stdout


class Trace:
    """A trace file; the format is in docs/architecture.md."""

    def __init__(self, path, disk_bytes):
        self.file = open(path, "wb")
        self.file.write(b"TWTRACE1" + struct.pack("<IIQ", 512, 0, disk_bytes))
        self.sequence = 0

    def record(self, sector, sectors, flags, payload=b""):
        self.sequence += 1
        self.file.write(struct.pack("<QQQII", self.sequence, time.time_ns(), sector, sectors,
                                    flags) + payload)

    def write(self, block, data):
        self.record(block * (BLOCK // 512), len(data) // 512, PAYLOAD, data)

    def flush(self):
        self.record(0, 0, FLUSH)

    def close(self):
        self.file.close()


def changed(before, after):
    """The numbers of the blocks in which two images differ."""
    with open(before, "rb") as first, open(after, "rb") as second:
        number = 0
        while True:
            old, new = first.read(BLOCK), second.read(BLOCK)
            if not new:
                return
            if old != new:
                yield number
            number += 1


class Guest:
    """A guest that makes its changes with debugfs and writes them as ext4 would."""

    def __init__(self, directory, base):
        self.disk = os.path.join(directory, "disk.img")
        self.next = os.path.join(directory, "next.img")
        self.before = os.path.join(directory, "before.img")
        self.blocks = os.path.join(directory, "blocks")
        self.trace = Trace(os.path.join(directory, "trace"), os.path.getsize(base))
        guestdisk.copy_image(base, self.disk)

    def block_numbers(self, path):
        return [int(word) for word in debugfs(self.next, ["blocks " + path], False).split()
                if word.isdigit()]

    def step(self, commands, files=(), append=None):
        """commands: for debugfs; files: the regular files whose data is new; append: (path, text)."""
        guestdisk.copy_image(self.disk, self.next)
        debugfs(self.next, commands)
        if append:
            self._append(*append)
        data = {number for path in files for number in self.block_numbers(path)}
        different = list(changed(self.disk, self.next))
        self._write_data([number for number in different if number in data])
        self._commit([number for number in different if number not in data])
        self._checkpoint()

    def _append(self, path, text):
        block = self.block_numbers(path)[0]
        size = len(scene.LOG_LINES)
        with open(self.next, "r+b") as image:
            image.seek(block * BLOCK + size)
            image.write(text.encode())
        debugfs(self.next, ["sif %s size %d" % (path, size + len(text)),
                            "sif %s mtime @%d" % (path, time.time())])

    def _write_data(self, numbers):
        with open(self.next, "rb") as source, open(self.disk, "r+b") as disk:
            for number in numbers:
                source.seek(number * BLOCK)
                data = source.read(BLOCK)
                disk.seek(number * BLOCK)
                disk.write(data)
                self.trace.write(number, data)
        self.trace.flush()

    def _captured(self, commands):
        """What these commands write to the disk goes into the trace."""
        guestdisk.copy_image(self.disk, self.before)
        debugfs(self.disk, commands)
        with open(self.disk, "rb") as disk:
            for number in changed(self.before, self.disk):
                disk.seek(number * BLOCK)
                self.trace.write(number, disk.read(BLOCK))
        self.trace.flush()

    def _commit(self, numbers):
        with open(self.next, "rb") as source, open(self.blocks, "wb") as blocks:
            for number in numbers:
                source.seek(number * BLOCK)
                blocks.write(source.read(BLOCK))
        self._captured(["jo -c", "jw -b %s %s" % (",".join(map(str, numbers)), self.blocks), "jc"])

    def _checkpoint(self):
        self._captured(["jr"])


def act(directory, guest):
    """scene.steps() in debugfs's words."""
    def source(name, text):
        path = os.path.join(directory, "source-" + name.replace("/", "-"))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    motd = source("motd", scene.NEW_MOTD)
    guest.step(["write %s /etc/motd.new" % motd, "rm /etc/motd", "ln /etc/motd.new /etc/motd",
                "unlink /etc/motd.new"], ["/etc/motd"])
    guest.step([], ["/var/log/messages"], append=("/var/log/messages", scene.LOG_MORE))
    folders = sorted({os.path.dirname(name) for name in scene.ARCHIVE})
    guest.step(["mkdir /srv/" + folder for folder in folders] +
               ["write %s /srv/%s" % (source(name, text), name)
                for name, text in scene.ARCHIVE.items()],
               ["/srv/" + name for name in scene.ARCHIVE])
    guest.step(["ln /srv/app /srv/app-1.0", "unlink /srv/app", "symlink /srv/app app-1.0"])
    guest.step(["sif /srv/app-1.0/conf/users mode 0100600",
                "sif /srv/app-1.0/conf/users ctime @%d" % time.time()])
    guest.step(["rm /home/alice/notes", "rm /srv/app"])
    guest.trace.close()


def post(directory, receiver, build, lines):
    """Gives the events to a courier as an inspector would, and lets it deliver them."""
    socket = os.path.join(directory, "courier.sock")
    argv = [os.path.join(build, "tapwire-courier"), "--post", receiver.url(), "--secret-file",
            receiver.secret_file, "--socket", socket, "--spool",
            os.path.join(directory, "spool.db"), "--drain", "10"]
    courier = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        source = "/".join(json.loads(lines[0])["source"].split("/")[:5])
        with link.connect(socket) as sock:
            sock.sendall(link.hello(EPOCH, source))
            reader = link.Reader(sock)
            reader.read()
            for line in lines:
                event = json.loads(line)
                kind = link.TYPES.index(event["type"].removeprefix("org.tapwire."))
                sock.sendall(link.frame(link.EVENT, line, int(event["sequence"]), kind))
                while reader.read()[2] < int(event["sequence"]):
                    pass
    finally:
        courier.terminate()
        courier.wait()


def watched(directory, receiver, build):
    """Makes the trace, tells its events and posts them; returns how many they are."""
    base = os.path.join(directory, "base.img")
    tree = os.path.join(directory, "tree")
    scene.make_tree(tree)
    guestdisk.make_image(base, "64M", ["-b", str(BLOCK), "-d", tree])
    guest = Guest(directory, base)
    act(directory, guest)
    print("trace   %d records of %s, made with debugfs" % (guest.trace.sequence,
                                                           os.path.basename(base)), flush=True)
    argv = [os.path.join(build, "tapwire"), "infer", "--disk", base, "--trace",
            os.path.join(directory, "trace"), "--domain-name", "demo", "--vdev", "xvda"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    lines = done.stdout.splitlines()
    if not lines:
        raise RuntimeError("the trace gave no events")
    post(directory, receiver, build, lines)
    return len(lines)
