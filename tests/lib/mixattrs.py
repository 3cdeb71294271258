# SPDX-License-Identifier: BSD-3-Clause
"""What the random mix does with attributes, with inodes that have no name, and with names that it
shares with other processes."""
import errno
import os
import stat
import struct

from . import calls
from .model import Model

# POSIX ACLs as the kernel takes them: version 2, then entries of tag, permissions, id.
ACL_ENTRY = struct.Struct("<HHI")
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER, NOBODY = 1, 2, 4, 16, 32, 0xffffffff


def acl(user, permissions):
    """Owner all, one user some, the rest nothing."""
    entries = ((USER_OBJ, 7, NOBODY), (USER, permissions, user), (GROUP_OBJ, 5, NOBODY),
               (MASK, 7, NOBODY), (OTHER, 0, NOBODY))
    return struct.pack("<I", 2) + b"".join(ACL_ENTRY.pack(*entry) for entry in entries)


def capability(bits):
    """security.capability, version 2: these bits, permitted and effective."""
    return struct.pack("<IIIII", 0x02000001, bits, 0, 0, 0)


class AttrKinds(Model):
    WEIGHTS = {
        "chmod": 4, "chown": 3, "utimens": 4, "setxattr": 4, "setxattr_large": 2, "acl": 1.5,
        "label": 1, "removexattr": 2, "chattr": 1.5, "project": 0.5,
        "orphan": 2, "tmpfile": 1, "close": 3, "syncfs": 0.2,
    }
    clash = None  # a directory in which processes get into each other's way

    def _any_path(self):
        node = self._pick_any()
        return None if node is None else (node, self._path(node, self._which(node)))

    def _do_chmod(self):
        found = self._any_path()
        if found is None or found[0].kind == "symlink":
            return 0
        self.steps.do("chmod", found[1],
                      self.random.choice((0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0)))
        return 1

    def _do_chown(self):
        found = self._any_path()
        if found is None:
            return 0
        self.steps.do("chown", found[1],
                      self.random.choice((0, 1, 1000, 65534, 70000, 4000000000)),
                      self.random.choice((0, 5, 1000, 65536, 3000000000)))
        return 1

    def _do_utimens(self):
        found = self._any_path()
        if found is None:
            return 0
        # ext4 keeps 34 bits of seconds, from 1901 on.
        seconds = self.random.choice((0, -1, -2, -2**31, -2**31 + 1, 2**31 - 1, 2**31, 2**32 - 1,
                                      2**32, 2**33, 2**34 - 2**31 - 2, 10**9))
        when = seconds * 10**9 + self.random.choice((0, 1, 500000000, 999999999, 123456789))
        self.steps.do("utimens", found[1], 10**18, when)
        return 1

    def _xattr_target(self):
        node = self._pick("file") if self.random.random() < 0.8 else self._pick("dir")
        return None if node is None or node.fixed else self._path(node)

    def _set_xattr(self, how, name, value):
        path = self._xattr_target()
        if path is None:
            return 0
        try:
            self.steps.do(how, path, name, value)
        except OSError as error:
            # One block for all attributes of a file: whether it is full is the model's blind spot.
            if error.errno not in (errno.ENOSPC, errno.EACCES):
                raise
        return 1

    def _do_setxattr(self):
        return self._set_xattr("setxattr", b"user.s%d" % self.random.randrange(3),
                               self._data(self.random.randint(0, 30)))

    def _do_setxattr_large(self):
        return self._set_xattr("setxattr", b"user.l%d" % self.random.randrange(2),
                               self._data(self.random.choice((600, 900, 1100, 3000))))

    def _do_acl(self):
        """EACCES: a default ACL is for directories."""
        name = b"system.posix_acl_" + self.random.choice((b"access", b"access", b"default"))
        value = acl(self.random.choice((1, 1000, 70000)), self.random.randrange(8))
        return self._set_xattr("setxattr_hex", name, value.hex())

    def _do_label(self):
        if self.random.random() < 0.5:
            return self._set_xattr("setxattr_hex", b"security.capability",
                                   capability(1 << self.random.randrange(32)).hex())
        name = self.random.choice((b"security.selinux", b"trusted.overlay.opaque"))
        return self._set_xattr("setxattr", name, self._data(self.random.randint(1, 40)))

    def _do_removexattr(self):
        path = self._xattr_target()
        if path is None:
            return 0
        names = sorted(self.steps.xattrs(path))
        if not names:
            return 0
        self.steps.do("removexattr", path, self.random.choice(names).encode())
        return 1

    def _do_chattr(self):
        """Flags; one of them turns an extent tree into a block map or back, another puts the file's
        data into the journal."""
        flip = self.random.choice((calls.FS_NODUMP, calls.FS_NOATIME, calls.FS_SYNC,
                                   calls.FS_APPEND, calls.FS_IMMUTABLE, calls.FS_JOURNAL_DATA,
                                   calls.FS_EXTENT))

        def work(number, _node):
            self.steps.do("chattr", number, flip)
            if flip in (calls.FS_APPEND, calls.FS_IMMUTABLE):
                self.steps.do("fsync", number)
                self.steps.do("chattr", number, flip)
            return 1
        try:
            return self._with_file(work)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ETXTBSY, errno.EPERM,
                                   errno.EBUSY):
                raise
            return 1

    def _do_project(self):
        def work(number, _node):
            self.steps.do("project", number, self.random.choice((0, 1, 7, 100000)))
            return 1
        return self._with_file(work)

    def _do_syncfs(self):
        self.steps.do("syncfs")
        return 1

    # --- inodes without a name ---

    def _do_orphan(self):
        """Opens a file, unlinks its last name, and keeps on writing."""
        node = self._pick("file")
        if node is None or len(node.names) != 1 or len(self.open_files) > 30:
            return 0
        number = self._open(node)
        self.open_files.append((number, False))
        self._unlink(node, 0)
        self.steps.do("pwrite", number, self.random.randint(0, 100000), self._data(5000))
        return 1

    def _do_tmpfile(self):
        """A file that has no name yet; _do_close may give it one."""
        if len(self.open_files) > 30:
            return 0
        number = self.steps.open(self._path(self._pick("dir")), os.O_TMPFILE | os.O_RDWR, 0o640)
        self.open_files.append((number, True))
        self.steps.do("pwrite", number, 0, self._data(6000))
        return 1

    def _do_close(self):
        if not self.open_files:
            return 0
        at = self.random.randrange(len(self.open_files))
        number, linkable = self.open_files.pop(at)
        try:
            self.steps.do("pwrite", number, self.random.randint(0, 9000), self._data(300))
            if linkable and self.random.random() < 0.6:
                directory, name = self._new_slot()
                self.steps.do("name", number, self._join(directory, name))
                node = self._add("file", directory, name)
                self._wrote(node, self.steps.size(number), 10000)
        finally:
            self.steps.do("close", number)
        return 1

    # --- names that others use as well ---

    def _do_clash(self):
        """Something to a name that another process may create, change or remove at this moment."""
        if self.clash is None:
            return 0
        one, other = (self.clash + b"/c%d" % self.random.randrange(12) for _ in range(2))
        kind = self.random.choices(("write", "unlink", "rename", "exchange", "link", "mkdir", "rmdir", "symlink",
                                    "fifo", "chmod", "truncate"), (8, 4, 4, 2, 3, 2, 3, 1, 1, 1, 2))[0]
        try:
            self._clash(kind, one, other)
        except OSError as error:
            if error.errno in (errno.EIO, errno.EROFS, errno.EUCLEAN):
                raise
        return 1

    def _clash(self, kind, one, other):
        do = self.steps.do
        if kind in ("write", "truncate"):
            flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK
            with self.steps.opened(one, flags, 0o644) as number:
                size = self.random.randint(0, 20000)
                if kind == "write":
                    do("pwrite", number, size, self._data(self.random.randint(1, 9000)))
                else:
                    do("truncate", number, size)
        elif kind == "exchange":
            do("rename2", one, other, calls.RENAME_EXCHANGE)
        elif kind in ("rename", "link"):
            do(kind, one, other)
        elif kind in ("unlink", "rmdir"):
            do(kind, one)
        elif kind in ("mkdir", "chmod"):
            do(kind, one, self.random.choice((0o755, 0o700)))
        elif kind == "symlink":
            do("symlink", b"x" * self.random.choice((7, 70)), one)
        else:
            do("mknod", one, stat.S_IFIFO | 0o600, 0, 0)
