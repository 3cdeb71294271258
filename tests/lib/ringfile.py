# SPDX-License-Identifier: BSD-3-Clause
"""A consumer of the ring that knows nothing but docs/ring.md; none of the product's code."""
import fcntl
import mmap
import os
import struct

from . import trace as traces

PAGE, BLOCK_SECTORS, HUGE = 4096, 8, 2 << 20
HEADER = struct.Struct("<QIIQQ16s")
MAGIC = 0x31474e4952575400


def _pages(size):
    return (size + PAGE - 1) // PAGE * PAGE


def _counters(page):
    names = "records payload_bytes gaps missed missed_bytes wakeups spared_bytes".split()
    return dict(zip(names, struct.unpack("<7Q", page)))


def counters(path):
    """The producer's counters of a ring that somebody else consumes."""
    with open(path, "rb") as ring:
        return _counters(os.pread(ring.fileno(), 56, PAGE + 48))


class Ring:
    """One ring, opened as its consumer."""

    def __init__(self, path):
        self._lock = os.open(path + ".cursor", os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(path, "rb") as ring:
            self._ring = mmap.mmap(ring.fileno(), 0, prot=mmap.PROT_READ)
        with open(path + ".cursor", "r+b") as cursor:
            self._cursor = mmap.mmap(cursor.fileno(), PAGE)
        magic, version, _size, self.disk, self.data, self.id = HEADER.unpack_from(self._ring)
        if magic != MAGIC or version not in (1, 2) or self._cursor[:16] != self.id:
            raise ValueError("no ring: %s" % path)
        blocks = (self.disk + 4095) // 4096
        lines = (blocks + 511) // 512
        self._summary = _pages((lines + 63) // 64 * 8)
        self._map = self._summary + _pages(lines * 64)
        self._start = 3 * PAGE + 2 * self._map
        if version >= 2 and self.data >= HUGE:
            self._start = (self._start + HUGE - 1) // HUGE * HUGE
        self._pos = self._u64(self._cursor, 16)

    def close(self):
        self._ring.close()
        self._cursor.close()
        os.close(self._lock)

    @staticmethod
    def _u64(page, at):
        return struct.unpack_from("<Q", page, at)[0]

    def _bytes(self, pos, size):
        at, first = pos % self.data, min(size, self.data - pos % self.data)
        return self._ring[self._start + at:self._start + at + first] \
            + self._ring[self._start:self._start + size - first]

    def stats(self):
        return _counters(self._ring[PAGE + 48:PAGE + 104])

    def next(self):
        """The next record or None."""
        if self._u64(self._ring, PAGE) == self._pos:
            return None
        sequence, clock, first, count, flags = traces.RECORD.unpack(self._bytes(self._pos, 32))
        size = count * 512 if flags & traces.PAYLOAD else 0
        payload = self._bytes(self._pos + 32, size)
        self._pos += 32 + size
        return traces.Record(sequence, clock, first, count, flags, payload)

    def release(self):
        struct.pack_into("<Q", self._cursor, 16, self._pos)

    def dirty(self, gap):
        """The dirty blocks of a gap record that is not released."""
        at = 3 * PAGE + (gap.sector & 1) * self._map + self._summary
        bits = int.from_bytes(self._ring[at:at + self._map - self._summary], "little")
        while bits:
            block = (bits & -bits).bit_length() - 1
            yield block
            bits &= bits - 1

    def follow(self, image, replica):
        """Applies all there is to the replica, re-reading from the image what gaps name, and what was
        written with a content that could not be kept. Returns the records."""
        seen = []
        while (record := self.next()) is not None:
            if record.flags & traces.GAP:
                with open(image, "rb") as source, open(replica, "r+b") as target:
                    for block in self.dirty(record):
                        data = os.pread(source.fileno(), 4096, block * 4096)
                        os.pwrite(target.fileno(), data, block * 4096)
            elif record.count and not record.flags:
                with open(image, "rb") as source, open(replica, "r+b") as target:
                    data = os.pread(source.fileno(), record.count * 512, record.sector * 512)
                    os.pwrite(target.fileno(), data, record.sector * 512)
            else:
                traces.play([record], replica)
            self.release()
            seen.append(record)
        return seen
