# SPDX-License-Identifier: BSD-3-Clause
"""Power failures made out of a trace: where a kernel's writes may be cut, and what the disk holds
then."""
import os
import random
import re
import shutil
import subprocess

from . import guestdisk, trace, tree
from .guard import Guard

JBD2_MAGIC = b"\xc0\x3b\x39\x98"
TYPES = {1: "descriptor", 2: "commit", 3: "log superblock", 4: "log superblock", 5: "revoke"}
# What a cut may fall on. Of each there are as many cuts as of any other, as far as there are any.
KINDS = (*sorted(set(TYPES.values())), "log", "table", "data", "flush")
TABLES = re.compile(r"(?:Inode table|Block bitmap|Inode bitmap|superblock) at (\d+)(?:-(\d+))?")


class Layout:
    """Which blocks of an image are its journal, and which are tables of the file system."""

    def __init__(self, image):
        said = guestdisk.run("dumpe2fs", image)
        self.blocksize = int(re.search(r"^Block size: +(\d+)", said, re.M)[1])
        self.tables = frozenset(block for first, last in TABLES.findall(said)
                                for block in range(int(first), int(last or first) + 1))
        listed = guestdisk.run("debugfs", "-R", "blocks <8>", image).splitlines()[-1].split()
        self.journal = frozenset(map(int, listed))

    def kind(self, record):
        """One of KINDS: what a record of a trace is about."""
        if record.flags & trace.FLUSH:
            return "flush"
        first = record.sector * trace.SECTOR // self.blocksize
        if first not in self.journal:
            return "table" if first in self.tables else "data"
        at = [record.payload[i:i + 12] for i in range(0, len(record.payload), self.blocksize)]
        types = [int.from_bytes(head[4:8], "big") for head in at if head[:4] == JBD2_MAGIC]
        # A commit in the same record as what it commits counts most.
        for wanted in (2, 4, 3, 5, 1):
            if wanted in types:
                return TYPES[wanted]
        return "log"


class Cut:
    """So many records are on the disk, and of the next one its first sectors. heard: whether the
    part of the torn one was completed as a write of its own, so that it was captured."""

    def __init__(self, length, sectors=0, heard=False, kind=""):
        self.length, self.sectors, self.heard, self.kind = length, sectors, heard, kind
        self.begin = length  # so many records are there for certain

    def __str__(self):
        torn = " and %d sectors of the next, %s" % (
            self.sectors, "captured" if self.heard else "not captured") if self.sectors else ""
        return "after %d records%s (%s)" % (self.length, torn, self.kind)

    def written(self, records):
        """What is on the disk."""
        whole = records[:self.length]
        return whole + [self._torn(records)] if self.sectors else whole

    def captured(self, records):
        """What was heard of it; a second possibility, when the first sector of a commit block or of a fast
        commit, which may be all there is to it, came through in a write that was not completed."""
        heard = [self.written(records) if self.heard else records[:self.length]]
        if self.kind.endswith((" commit", " log")) and self.sectors and not self.heard:
            heard.append(records[:self.length + 1])
        return heard

    def _torn(self, records):
        record = records[self.length]
        return record._replace(count=self.sectors,
                               payload=record.payload[:self.sectors * trace.SECTOR])


class Lost(Cut):
    """A commit came to the disk before a block of the log that lies before it: an asynchronous commit does not
    wait."""

    def __init__(self, length, at, block, layout):
        super().__init__(length, kind="after a commit without block %d of record %d" % (block, at))
        self.begin, self._block, self._per_block = at, block, layout.blocksize // trace.SECTOR

    def written(self, records):
        record = records[self.begin]
        middle, end = self._block * self._per_block, (self._block + 1) * self._per_block
        parts = [record._replace(sector=record.sector + first, count=last - first,
                                 payload=record.payload[first * trace.SECTOR:last * trace.SECTOR])
                 for first, last in ((0, middle), (end, record.count)) if last > first]
        return records[:self.begin] + parts + records[self.begin + 1:self.length]

    def captured(self, records):
        return [self.written(records)]


def lost_blocks(records, layout):
    """For each commit a block of its log that is missing, when no flush lies between them."""
    found, since = [], []
    for at, record in enumerate(records):
        kind = layout.kind(record)
        blocks = record.count * trace.SECTOR // layout.blocksize
        if kind == "flush":
            since = []
        elif kind == "commit":
            # The commit block is the last one of its record.
            missing = since + [(at, block) for block in range(blocks - 1)]
            found += [Lost(at + 1, *missing[(at * 7) % len(missing)], layout)] if missing else []
            since = []
        elif kind in ("descriptor", "log", "revoke"):
            since += [(at, block) for block in range(blocks)]
    return found


def cuts(records, layout, count, seed, asynchronous=False):
    """About count cuts, of every kind the same number: after a record, in the middle of one, and, when commits
    are asynchronous, after one whose log is not whole. count None: all of them."""
    rnd = random.Random(seed)
    found = {}
    for at, record in enumerate(records):
        kind = layout.kind(record)
        found.setdefault(kind, []).append(Cut(at + 1, kind="after " + kind))
        if record.count > 1 and record.flags & trace.PAYLOAD:
            found.setdefault("torn " + kind, []).append(_torn_cut(rnd, at, record, kind, layout))
    if asynchronous:
        found["lost"] = lost_blocks(records, layout)
    chosen = []
    for group in found.values():
        if count is not None and len(group) > -(-count // len(found)):
            group = rnd.sample(group, -(-count // len(found)))
        chosen += group
    return sorted(chosen, key=lambda cut: (cut.begin, cut.length, cut.sectors))


def _torn_cut(rnd, at, record, kind, layout):
    per_block = layout.blocksize // trace.SECTOR
    whole = rnd.random() < 0.5 and record.count > per_block
    sectors = rnd.randrange(1, -(-record.count // per_block)) * per_block if whole \
        else rnd.randrange(1, record.count)
    # What is torn within a block was never completed; at a block's end either may be.
    heard = sectors % per_block == 0 and rnd.random() < 0.5
    return Cut(at, sectors, heard, "in the middle of " + kind)


class Bench:
    """Makes the disks of cuts in ascending order and lets the kernel recover them. One thread each."""

    def __init__(self, directory, base, records):
        self._directory, self._records = os.fspath(directory), records
        os.makedirs(self._directory, exist_ok=True)
        self._rolling = os.path.join(self._directory, "rolling.img")
        self.image = os.path.join(self._directory, "cut.img")
        self._played = 0
        guestdisk.copy_image(base, self._rolling)
        self._guard = Guard()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self._guard.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def make(self, cut):
        """.image is the disk as of the cut."""
        trace.play(self._records[self._played:cut.begin], self._rolling)
        self._played = cut.begin
        guestdisk.copy_image(self._rolling, self.image)
        trace.play(cut.written(self._records)[cut.begin:], self.image)

    def recovered(self):
        """What the kernel shows of .image, which it recovers; None when it refuses to mount it."""
        where = os.path.join(self._directory, "mnt")
        try:
            with guestdisk.mounted(self.image, where, guard=self._guard):
                return tree.listing(where)
        except RuntimeError as error:
            if "mount -t ext4" not in str(error):
                raise
            return None


def comparable(listing, recovered, end_ns):
    """Two listings, without the times of what the recovery itself has changed: it finishes
    truncations that were under way. end_ns: when the last write was recorded."""
    touched = {path for path, fields in recovered.items() if fields["ctime"] > end_ns}

    def without(found):
        return {path: {**fields, "mtime": 0, "ctime": 0} if path in touched else fields
                for path, fields in found.items()}
    return without(listing), without(recovered)


def infer(tapwire, base, size, records):
    """(events' lines, None) of records, or (None, what went wrong)."""
    stream = trace.header(size) + b"".join(
        trace.encode(record._replace(sequence=number)) for number, record in enumerate(records, 1))
    done = subprocess.run([tapwire.program, "infer", "--disk", base, "--trace", "-"], input=stream,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    if done.returncode:
        return None, done.stderr.decode(errors="replace").strip()
    return done.stdout.splitlines(), None
