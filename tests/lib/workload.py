#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A seeded random mix of file operations on a directory.

    python3 tests/lib/workload.py DIR --seed N --ops N [--sync-every N] [--kinds a,b,...]

The same seed gives the same operations on the same (empty) directory. The mix keeps a model of the
tree, so that it never has to look at the disk to choose.
"""
import argparse
import errno
import fcntl
import mmap
import os
import stat
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib.calls import (COLLAPSE, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_NOATIME, FS_NODUMP, INSERT,
                       KEEP_SIZE, PUNCH_HOLE, RENAME_EXCHANGE, RENAME_WHITEOUT, ZERO, fallocate,
                       link_open_file, renameat2, sync_fs)
from lib.model import MAX_DEPTH, Model

GIB = 1 << 30


class Mix(Model):
    """The random mix. ops(n) does n operations."""

    # kind: weight. A kind is a method _do_KIND; it returns how many operations it made.
    WEIGHTS = {
        "create": 18, "write": 14, "append": 8, "rewrite": 5, "shrink": 4, "grow": 3,
        "allocate": 3, "punch": 4, "zero": 2, "shift": 1, "sparse": 1, "extents": 0.15, "map": 1,
        "rename": 6, "move": 5, "rename_over": 4, "rename_dir_over": 1, "move_dir": 3,
        "exchange": 3, "whiteout": 0.3, "rename_link": 0.3,
        "link": 5, "symlink": 4, "unlink": 10, "mkdir": 5, "rmdir": 3, "rmtree": 0.1, "mknod": 3,
        "chmod": 4, "chown": 3, "utimens": 4, "setxattr": 4, "setxattr_large": 2,
        "removexattr": 2, "chattr": 1,
        "orphan": 2, "tmpfile": 1, "close": 3, "fsync": 2, "crowd": 0.1, "thin": 0.05,
    }

    def __init__(self, root, seed, kinds=None, budget=192 << 20, big_dir=3000):
        super().__init__(root, seed, budget)
        self.big_dir = big_dir
        self.done = 0
        self.open_files = []
        chosen = kinds or list(self.WEIGHTS)
        unknown = set(chosen) - set(self.WEIGHTS)
        if unknown:
            raise ValueError("unknown kinds: %s" % ", ".join(sorted(unknown)))
        self._kinds = list(chosen)
        self._weights = [self.WEIGHTS[kind] for kind in self._kinds]

    def ops(self, count, sync_every=0, on_sync=None):
        """Does operations until count are done; after every sync_every calls on_sync(done)."""
        next_sync = self.done + sync_every if sync_every else None
        end = self.done + count
        while self.done < end:
            kind = self.random.choices(self._kinds, self._weights)[0]
            self.done += getattr(self, "_do_" + kind)() or 0
            if not self.pools["file"].nodes and kind not in ("create", "mkdir"):
                self.done += self._do_create()
            if next_sync is not None and self.done >= next_sync:
                on_sync(self.done)
                next_sync = self.done + sync_every

    def close(self):
        """Closes what is still open."""
        for descriptor, _ in self.open_files:
            os.close(descriptor)
        self.open_files = []

    # --- files and their data ---

    def _do_create(self):
        directory, name = self._new_slot()
        descriptor = os.open(self._join(directory, name), os.O_RDWR | os.O_CREAT | os.O_EXCL,
                             self.random.choice((0o644, 0o600, 0o755)))
        try:
            node = self._add("file", directory, name)
            length = self._length() if self.random.random() < 0.8 else 0
            if length and self._room(length):
                os.write(descriptor, self._bytes(length)[:length])
                self._wrote(node, length, length)
        finally:
            os.close(descriptor)
        return 1

    def _write_at(self, descriptor, node, offset, length):
        if not self._room(length):
            return self._do_unlink()
        os.pwrite(descriptor, self._bytes(length)[:length], offset)
        self._wrote(node, offset + length, length)
        return 1

    def _do_write(self):
        def work(descriptor, node):
            reach = min(node.size, 64 << 20) + self.random.choice((0, 0, 1 << 12, 1 << 20))
            return self._write_at(descriptor, node, self.random.randint(0, reach), self._length())
        return self._with_file(work)

    def _do_append(self):
        return self._with_file(
            lambda descriptor, node: self._write_at(descriptor, node, node.size, self._length())
            if node.size < 64 << 20 else 0)

    def _do_sparse(self):
        return self._with_file(
            lambda descriptor, node: self._write_at(
                descriptor, node, self.random.randint(4 * GIB, 40 * GIB),
                self.random.randint(1, 9000)))

    def _do_rewrite(self):
        node = self._pick("file")
        if node is None:
            return 0
        descriptor = self._open(node, os.O_WRONLY | os.O_TRUNC)
        try:
            self._emptied(node)
            return self._write_at(descriptor, node, 0, self._length())
        finally:
            os.close(descriptor)

    def _emptied(self, node):
        self.used -= node.used
        node.used = node.size = 0

    def _truncate(self, size_of):
        def work(descriptor, node):
            size = size_of(node)
            os.ftruncate(descriptor, size)
            if size == 0:
                self._emptied(node)
            node.size = size
            return 1
        return self._with_file(work)

    def _do_shrink(self):
        return self._truncate(lambda node: self.random.choice(
            (0, node.size // 2, self.random.randint(0, node.size), node.size & ~4095)))

    def _do_grow(self):
        return self._truncate(lambda node: node.size + self.random.choice(
            (1, 4096, self.random.randint(1, 1 << 22))) if node.size < 80 * GIB else node.size)

    def _do_allocate(self):
        def work(descriptor, node):
            offset = self.random.randint(0, min(node.size, 64 << 20) + (1 << 16))
            length = self.random.randint(1, 1 << 18)
            if not self._room(length):
                return self._do_unlink()
            keep = self.random.random() < 0.5
            fallocate(descriptor, KEEP_SIZE if keep else 0, offset, length)
            self._wrote(node, node.size if keep else offset + length, length)
            return 1
        return self._with_file(work)

    def _span(self, node):
        offset = self.random.randint(0, min(node.size, 64 << 20))
        return offset, self.random.randint(1, 1 << 17)

    def _do_punch(self):
        def work(descriptor, node):
            fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, *self._span(node))
            return 1
        return self._with_file(work)

    def _do_zero(self):
        def work(descriptor, node):
            offset, length = self._span(node)
            if not self._room(length):
                return self._do_unlink()
            keep = self.random.random() < 0.5
            fallocate(descriptor, ZERO | (KEEP_SIZE if keep else 0), offset, length)
            self._wrote(node, node.size if keep else offset + length, length)
            return 1
        return self._with_file(work)

    def _do_shift(self):
        """Collapses or inserts a range: content moves and no sector of it is written."""
        def work(descriptor, node):
            blocks = node.size // 4096
            if blocks < 3 or node.size > 64 << 20:
                return 0
            offset = self.random.randint(0, blocks - 2) * 4096
            length = self.random.randint(1, max(1, min(8, blocks - 2 - offset // 4096))) * 4096
            if self.random.random() < 0.5 and offset + length < node.size:
                fallocate(descriptor, COLLAPSE, offset, length)
                node.size -= length
            else:
                fallocate(descriptor, INSERT, offset, length)
                node.size += length
            return 1
        return self._with_file(work)

    def _do_extents(self):
        """Every other block of a file: an extent tree with leaves of its own."""
        def work(descriptor, node):
            count = self.random.randint(50, 500)
            if not self._room(count * 16384):
                return self._do_unlink()
            start = self.random.randint(0, 1000)
            for i in range(count):
                offset = (start + 2 * i) * 4096
                os.pwrite(descriptor, self._bytes(4096)[:4096], offset)
                self._wrote(node, offset + 4096, 4096)
                if i % 100 == 99:
                    os.fdatasync(descriptor)
            return count
        return self._with_file(work)

    def _do_map(self):
        """Writes through a shared mapping."""
        def work(descriptor, node):
            length = min(node.size, 1 << 16)
            if length == 0 or not self._room(length):
                return 0
            with mmap.mmap(descriptor, length) as memory:
                at = self.random.randrange(length)
                memory[at:at + 100] = self._bytes(100)[:len(memory[at:at + 100])]
            self._wrote(node, node.size, 100)
            return 1
        return self._with_file(work)

    def _do_fsync(self):
        def work(descriptor, _node):
            self.random.choice((os.fsync, os.fdatasync))(descriptor)
            return 1
        return self._with_file(work)

    # --- names ---

    def _may_move(self, node, directory):
        if node.kind != "dir":
            return True
        return not self._is_below(directory, node) and \
            self._depth(directory) + self._height(node) < MAX_DEPTH

    def _move(self, node, which, directory, name):
        os.rename(self._path(node, which), self._join(directory, name))
        old_directory, old_name = node.names[which]
        del old_directory.children[old_name]
        node.names[which] = (directory, name)
        directory.children[name] = node
        return 1

    def _do_rename(self):
        node = self._pick_any()
        if node is None:
            return 0
        which = self._which(node)
        return self._move(node, which, node.names[which][0], self._name())

    def _do_move(self):
        node, (directory, name) = self._pick_any(), self._new_slot()
        if node is None or not self._may_move(node, directory):
            return 0
        return self._move(node, self._which(node), directory, name)

    def _do_move_dir(self):
        node, (directory, name) = self._pick("dir"), self._new_slot()
        if node is self.top or not self._may_move(node, directory):
            return 0
        return self._move(node, 0, directory, name)

    def _replace(self, node, victim):
        """Renames node over one of victim's names."""
        which, over = self._which(node), self._which(victim)
        directory, name = victim.names[over]
        source = self._path(node, which)
        os.rename(source, self._join(directory, name))
        self._detach(victim, over)
        old_directory, old_name = node.names[which]
        del old_directory.children[old_name]
        node.names[which] = (directory, name)
        directory.children[name] = node
        return 1

    def _do_rename_over(self):
        node, victim = self._pick("file"), self._pick(self.random.choice(("file", "symlink")))
        if node is None or victim is None or node is victim:
            return 0
        return self._replace(node, victim)

    def _do_rename_dir_over(self):
        node, victim = self._pick("dir"), self._pick("dir")
        if self.top in (node, victim) or node is victim or victim.children:
            return 0
        if not self._may_move(node, victim.names[0][0]):
            return 0
        return self._replace(node, victim)

    def _do_rename_link(self):
        """A rename between two names of one inode does nothing."""
        node = self._pick("file")
        if node is None or len(node.names) < 2:
            return 0
        os.rename(self._path(node, 0), self._path(node, 1))
        return 1

    def _do_exchange(self):
        one, other = self._pick_any(), self._pick_any()
        if one is None or other is None or one is other:
            return 0
        i, j = self._which(one), self._which(other)
        (one_dir, one_name), (other_dir, other_name) = one.names[i], other.names[j]
        if not self._may_move(one, other_dir) or not self._may_move(other, one_dir):
            return 0
        renameat2(self._path(one, i), self._path(other, j), RENAME_EXCHANGE)
        one.names[i], other.names[j] = (other_dir, other_name), (one_dir, one_name)
        one_dir.children[one_name], other_dir.children[other_name] = other, one
        return 1

    def _do_whiteout(self):
        """As overlayfs does it: a rename that leaves a device 0:0 under the old name."""
        node = self._pick("file")
        if node is None:
            return 0
        which = self._which(node)
        directory, name = node.names[which]
        target = self._name()
        renameat2(self._path(node, which), self._join(directory, target), RENAME_WHITEOUT)
        node.names[which] = (directory, target)
        directory.children[target] = node
        self._add("special", directory, name)
        return 1

    def _do_link(self):
        node = self._pick(self.random.choices(("file", "symlink", "special"), (8, 1, 1))[0])
        if node is None or len(node.names) > 20:
            return 0
        directory, name = self._new_slot()
        os.link(self._path(node, self._which(node)), self._join(directory, name),
                follow_symlinks=False)
        self._attach(node, directory, name)
        return 1

    def _do_symlink(self):
        directory, name = self._new_slot()
        length = self.random.choice((5, 30, 59, 60, 61, 200, 1000))
        target = (b"../t%d/" % self.counter * length)[:length]
        if self.random.random() < 0.1:
            target = b"\xff\xfe" + target
        os.symlink(target, self._join(directory, name))
        self._add("symlink", directory, name)
        return 1

    def _do_unlink(self):
        kind = self.random.choices(("file", "symlink", "special"), (8, 1, 1))[0]
        if not self._room(0):  # over the budget: space has to come back
            kind = "file"
        node = self._pick(kind)
        if node is None:
            return 0
        which = self._which(node)
        os.unlink(self._path(node, which))
        self._detach(node, which)
        return 1

    def _do_mkdir(self):
        directory, name = self._new_slot()
        if self._depth(directory) + 1 >= MAX_DEPTH:
            return 0
        os.mkdir(self._join(directory, name), self.random.choice((0o755, 0o700, 0o2775, 0o1777)))
        node = self._add("dir", directory, name)
        if self.big is None:
            self.big = node
        return 1

    def _do_rmdir(self):
        node = self._pick("dir")
        if node is self.top or node.children:
            return 0
        os.rmdir(self._path(node))
        self._detach(node)
        return 1

    def _do_rmtree(self):
        node = self._pick("dir")
        if node is self.top or node is self.big:
            return 0
        return self._remove_tree(node)

    def _remove_tree(self, node):
        count = 1
        for name, child in list(node.children.items()):
            if child.kind == "dir":
                count += self._remove_tree(child)
                continue
            os.unlink(self._join(node, name))
            self._detach(child, child.names.index((node, name)))
            count += 1
        os.rmdir(self._path(node))
        self._detach(node)
        return count

    def _do_mknod(self):
        directory, name = self._new_slot()
        path = self._join(directory, name)
        form = self.random.randrange(4)
        if form == 0:
            os.mkfifo(path)
        elif form == 1:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, self.random.randint(3, 9)))
        elif form == 2:
            # Beyond 8 bits, the number has another place in the inode.
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(self.random.choice((8, 259, 4000)),
                                                            self.random.choice((0, 255, 100000))))
        else:
            os.mknod(path, stat.S_IFSOCK | 0o755)
        self._add("special", directory, name)
        return 1

    def _do_crowd(self):
        """Fills a directory until it has a hash tree, and goes on until its blocks split."""
        if self.big is None:
            return 0
        count = self.random.randint(100, 700)
        if len(self.big.children) + count > self.big_dir:
            return self._do_thin()
        for _ in range(count):
            name = self._name()
            os.close(os.open(self._join(self.big, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            self._add("file", self.big, name)
        return count

    def _do_thin(self):
        """Removes most of what makes the big directory big."""
        if self.big is None:
            return 0
        count = 0
        for name, child in list(self.big.children.items()):
            if child.kind == "dir" or self.random.random() < 0.3:
                continue
            os.unlink(self._join(self.big, name))
            self._detach(child, child.names.index((self.big, name)))
            count += 1
        return count

    # --- attributes ---

    def _any_path(self):
        node = self._pick_any()
        return None if node is None else (node, self._path(node, self._which(node)))

    def _do_chmod(self):
        found = self._any_path()
        if found is None or found[0].kind == "symlink":
            return 0
        os.chmod(found[1], self.random.choice((0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0)))
        return 1

    def _do_chown(self):
        found = self._any_path()
        if found is None:
            return 0
        os.chown(found[1], self.random.choice((0, 1, 1000, 65534, 70000, 4000000000)),
                 self.random.choice((0, 5, 1000, 65536, 3000000000)), follow_symlinks=False)
        return 1

    def _do_utimens(self):
        found = self._any_path()
        if found is None:
            return 0
        # ext4 keeps 34 bits of seconds, from 1901 on.
        seconds = self.random.choice((0, -1, -2, -2**31, -2**31 + 1, 2**31 - 1, 2**31, 2**32 - 1,
                                      2**32, 2**33, 2**34 - 2**31 - 2, 10**9))
        when = seconds * 10**9 + self.random.choice((0, 1, 500000000, 999999999, 123456789))
        os.utime(found[1], ns=(10**18, when), follow_symlinks=False)
        return 1

    def _xattr_target(self):
        node = self._pick("file") if self.random.random() < 0.8 else self._pick("dir")
        return None if node is None or node is self.top else self._path(node)

    def _set_xattr(self, name, length):
        path = self._xattr_target()
        if path is None:
            return 0
        try:
            os.setxattr(path, name, self._bytes(length)[:length])
        except OSError as error:
            # One block for all attributes of a file: whether it is full is the model's blind spot.
            if error.errno != errno.ENOSPC:
                raise
        return 1

    def _do_setxattr(self):
        return self._set_xattr(b"user.s%d" % self.random.randrange(3), self.random.randint(0, 30))

    def _do_setxattr_large(self):
        return self._set_xattr(b"user.l%d" % self.random.randrange(2),
                               self.random.choice((600, 900, 1100, 3000)))

    def _do_removexattr(self):
        path = self._xattr_target()
        if path is None:
            return 0
        names = sorted(os.listxattr(path))
        if not names:
            return 0
        os.removexattr(path, self.random.choice(names))
        return 1

    def _do_chattr(self):
        def work(descriptor, _node):
            buffer = fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8))
            flags = struct.unpack("l", buffer)[0] ^ self.random.choice((FS_NODUMP, FS_NOATIME))
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags))
            return 1
        return self._with_file(work)

    # --- inodes without a name ---

    def _do_orphan(self):
        """Opens a file, unlinks its last name, and keeps on writing."""
        node = self._pick("file")
        if node is None or len(node.names) != 1 or len(self.open_files) > 30:
            return 0
        descriptor = self._open(node)
        os.unlink(self._path(node))
        self._detach(node)
        self.open_files.append((descriptor, False))
        os.pwrite(descriptor, self._bytes(5000)[:5000], self.random.randint(0, 100000))
        return 1

    def _do_tmpfile(self):
        """A file that has no name yet; _do_close may give it one."""
        if len(self.open_files) > 30:
            return 0
        directory = self._path(self._pick("dir"))
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o640)
        self.open_files.append((descriptor, True))
        os.write(descriptor, self._bytes(6000)[:6000])
        return 1

    def _do_close(self):
        if not self.open_files:
            return 0
        at = self.random.randrange(len(self.open_files))
        descriptor, linkable = self.open_files.pop(at)
        try:
            os.pwrite(descriptor, self._bytes(300)[:300], self.random.randint(0, 9000))
            if linkable and self.random.random() < 0.6:
                directory, name = self._new_slot()
                link_open_file(descriptor, self._join(directory, name))
                node = self._add("file", directory, name)
                self._wrote(node, os.fstat(descriptor).st_size, 10000)
        finally:
            os.close(descriptor)
        return 1


def main():
    parser = argparse.ArgumentParser(description="A seeded random mix of file operations.")
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ops", type=int, default=20000)
    parser.add_argument("--sync-every", type=int, default=0)
    parser.add_argument("--kinds", help="of these, comma-separated: " + ", ".join(Mix.WEIGHTS))
    args = parser.parse_args()

    def on_sync(done):
        sync_fs(args.directory)
        print("sync %d %d" % (done, time.time_ns()), flush=True)

    if os.listdir(args.directory) not in ([], ["lost+found"]):
        sys.exit("%s is not empty" % args.directory)
    mix = Mix(args.directory, args.seed, args.kinds.split(",") if args.kinds else None)
    mix.ops(args.ops, args.sync_every, on_sync)
    mix.close()


if __name__ == "__main__":
    main()
