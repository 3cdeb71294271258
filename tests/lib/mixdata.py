# SPDX-License-Identifier: BSD-3-Clause
"""What the random mix does with files and their data."""
import os

from . import calls
from .model import Model

GIB = 1 << 30
PAGE = 4096
FAR = 64 << 20  # beyond it only sparse files have data


class DataKinds(Model):
    WEIGHTS = {
        "create": 18, "write": 14, "append": 8, "rewrite": 5, "shrink": 4, "grow": 3,
        "direct": 3, "synchronous": 2, "copy": 2, "appended": 2,
        "allocate": 3, "punch": 4, "zero": 2, "shift": 1, "sparse": 1, "extents": 0.15, "map": 1,
        "fsync": 2,
    }

    def _do_create(self):
        directory, name = self._new_slot()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        mode = self.random.choice((0o644, 0o600, 0o755))
        with self.steps.opened(self._join(directory, name), flags, mode) as number:
            node = self._add("file", directory, name)
            length = self._length() if self.random.random() < 0.8 else 0
            if length and self._room(length):
                self.steps.do("pwrite", number, 0, self._data(length))
                self._wrote(node, length, length)
        return 1

    def _write_at(self, number, node, offset, length, how="pwrite"):
        if not self._room(length):
            return self._do_unlink()
        self.steps.do(how, number, offset, self._data(length))
        self._wrote(node, offset + length, length)
        return 1

    def _near(self, node):
        reach = min(node.size, FAR) + self.random.choice((0, 0, 1 << 12, 1 << 20))
        return self.random.randint(0, reach)

    def _do_write(self):
        return self._with_file(lambda number, node: self._write_at(
            number, node, self._near(node), self._length()))

    def _do_synchronous(self):
        return self._with_file(lambda number, node: self._write_at(
            number, node, self._near(node), self._length()),
            os.O_RDWR | self.random.choice((os.O_SYNC, os.O_DSYNC)))

    def _do_direct(self):
        """Around the page cache: in units of blocks, now and then of sectors."""
        def work(number, node):
            unit = 512 if self.random.random() < 0.1 else PAGE
            return self._write_at(number, node, self._near(node) // unit * unit,
                                  (self._length() // unit + 1) * unit, "direct")
        return self._with_file(work, os.O_RDWR | os.O_DIRECT)

    def _do_append(self):
        return self._with_file(
            lambda number, node: self._write_at(number, node, node.size, self._length())
            if node.size < FAR else 0)

    def _do_appended(self):
        """Several writes through an O_APPEND descriptor, as a log is written."""
        def work(number, node):
            if node.size > FAR or not self._room(FAR >> 6):
                return 0
            for _ in range(self.random.randint(1, 5)):
                length = self.random.randint(1, 3000)
                self.steps.do("write", number, self._data(length))
                self._wrote(node, node.size + length, length)
            return 1
        return self._with_file(work, os.O_WRONLY | os.O_APPEND)

    def _do_copy(self):
        """copy_file_range(2)."""
        source = self._pick("file")
        if source is None or source.size == 0:
            return 0

        def work(number, node):
            length = min(self._length(), source.size)
            offset = self.random.randint(0, min(source.size, FAR) - min(length, FAR))
            if node is source or not self._room(length):
                return 0
            at = self._near(node)
            with self.steps.opened(self._path(source), os.O_RDONLY) as origin:
                self.steps.do("copy", origin, number, length, offset, at)
            self._wrote(node, at + length, length)
            return 1
        return self._with_file(work)

    def _do_sparse(self):
        return self._with_file(
            lambda number, node: self._write_at(
                number, node, self.random.randint(4 * GIB, 40 * GIB),
                self.random.randint(1, 9000)))

    def _do_rewrite(self):
        def work(number, node):
            self._emptied(node)
            return self._write_at(number, node, 0, self._length())
        return self._with_file(work, os.O_WRONLY | os.O_TRUNC)

    def _emptied(self, node):
        self.used -= node.used
        node.used = node.size = 0

    def _resize(self, size_of):
        def work(number, node):
            size = size_of(node)
            self.steps.do("truncate", number, size)
            if size == 0:
                self._emptied(node)
            node.size = size
            return 1
        return self._with_file(work)

    def _do_shrink(self):
        return self._resize(lambda node: self.random.choice(
            (0, node.size // 2, self.random.randint(0, node.size), node.size & ~4095)))

    def _do_grow(self):
        return self._resize(lambda node: node.size + self.random.choice(
            (1, 4096, self.random.randint(1, 1 << 22))) if node.size < 80 * GIB else node.size)

    def _do_allocate(self):
        def work(number, node):
            offset = self.random.randint(0, min(node.size, FAR) + (1 << 16))
            length = self.random.randint(1, 1 << 18)
            if not self._room(length):
                return self._do_unlink()
            keep = self.random.random() < 0.5
            self.steps.do("fallocate", number, calls.KEEP_SIZE if keep else 0, offset, length)
            self._wrote(node, node.size if keep else offset + length, length)
            return 1
        return self._with_file(work)

    def _span(self, node):
        offset = self.random.randint(0, min(node.size, FAR))
        return offset, self.random.randint(1, 1 << 17)

    def _do_punch(self):
        def work(number, node):
            self.steps.do("fallocate", number, calls.PUNCH_HOLE | calls.KEEP_SIZE,
                          *self._span(node))
            return 1
        return self._with_file(work)

    def _do_zero(self):
        def work(number, node):
            offset, length = self._span(node)
            if not self._room(length):
                return self._do_unlink()
            keep = self.random.random() < 0.5
            self.steps.do("fallocate", number, calls.ZERO | (calls.KEEP_SIZE if keep else 0),
                          offset, length)
            self._wrote(node, node.size if keep else offset + length, length)
            return 1
        return self._with_file(work)

    def _do_shift(self):
        """Collapses or inserts a range: content moves and no sector of it is written."""
        def work(number, node):
            blocks = node.size // PAGE
            if blocks < 3 or node.size > FAR:
                return 0
            offset = self.random.randint(0, blocks - 2) * PAGE
            length = self.random.randint(1, max(1, min(8, blocks - 2 - offset // PAGE))) * PAGE
            if self.random.random() < 0.5 and offset + length < node.size:
                self.steps.do("fallocate", number, calls.COLLAPSE, offset, length)
                node.size -= length
            else:
                self.steps.do("fallocate", number, calls.INSERT, offset, length)
                node.size += length
            return 1
        return self._with_file(work)

    def _do_extents(self):
        """Every other block of a file: an extent tree with leaves of its own."""
        def work(number, node):
            count = self.random.randint(50, 500)
            if not self._room(count * 16384):
                return self._do_unlink()
            start = self.random.randint(0, 1000)
            for i in range(count):
                offset = (start + 2 * i) * PAGE
                self.steps.do("pwrite", number, offset, self._data(PAGE))
                self._wrote(node, offset + PAGE, PAGE)
                if i % 100 == 99:
                    self.steps.do("fdatasync", number)
            return count
        return self._with_file(work)

    def _do_map(self):
        """Writes through a shared mapping."""
        def work(number, node):
            length = min(node.size, 1 << 16)
            if length == 0 or not self._room(length):
                return 0
            at = self.random.randrange(length)
            self.steps.do("map", number, length, at, self._data(min(100, length - at)))
            self._wrote(node, node.size, 100)
            return 1
        return self._with_file(work)

    def _do_fsync(self):
        def work(number, _node):
            self.steps.do(self.random.choice(("fsync", "fdatasync")), number)
            return 1
        return self._with_file(work)
