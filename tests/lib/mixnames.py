# SPDX-License-Identifier: BSD-3-Clause
"""What the random mix does with names."""
import errno
import os
import stat

from .calls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from .model import MAX_DEPTH, Model


class NameKinds(Model):
    WEIGHTS = {
        "rename": 6, "move": 5, "rename_over": 4, "rename_dir_over": 1, "move_dir": 3,
        "exchange": 3, "whiteout": 0.3, "rename_link": 0.3, "noreplace": 1,
        "link": 5, "symlink": 4, "unlink": 10, "mkdir": 5, "rmdir": 3, "rmtree": 0.1, "mknod": 3,
        "deep": 0.2, "reuse": 0.5, "invert": 0.7, "crowd": 0.1, "thin": 0.05,
    }
    big_dir = 3000  # entries of the directory that is filled

    def _may_move(self, node, directory):
        if node.kind != "dir":
            return True
        return not self._is_below(directory, node) and \
            self._depth(directory) + self._height(node) < MAX_DEPTH

    def _moved(self, node, which, directory, name):
        """The model's part of a rename."""
        old_directory, old_name = node.names[which]
        del old_directory.children[old_name]
        node.names[which] = (directory, name)
        directory.children[name] = node
        return 1

    def _move(self, node, which, directory, name):
        self.steps.do("rename", self._path(node, which), self._join(directory, name))
        return self._moved(node, which, directory, name)

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
        if node.fixed or not self._may_move(node, directory):
            return 0
        return self._move(node, 0, directory, name)

    def _do_invert(self):
        """Turns a directory and one in it inside out; half the time the inner one takes the outer one's name."""
        outer = self._pick("dir")
        inner = [child for child in outer.children.values() if child.kind == "dir"]
        if outer.fixed or not inner:
            return 0
        inner = self.random.choice(inner)
        (above, name), (_, inner_name) = outer.names[0], inner.names[0]
        if self._depth(above) + 2 + self._height(outer) >= MAX_DEPTH or inner_name in above.children:
            return 0
        self._move(inner, 0, above, inner_name)
        self._move(outer, 0, inner, self._name())
        if self.random.random() < 0.5:
            self._move(inner, 0, above, name)
        return 2

    def _do_noreplace(self):
        """To a free name, or in vain to one that is taken."""
        node, other = self._pick_any(), self._pick_any()
        if node is None or other is None:
            return 0
        which = self._which(node)
        if self.random.random() < 0.3:
            try:
                self.steps.do("rename2", self._path(node, which),
                              self._path(other, self._which(other)), RENAME_NOREPLACE)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            return 1
        directory, name = node.names[which][0], self._name()
        self.steps.do("rename2", self._path(node, which), self._join(directory, name),
                      RENAME_NOREPLACE)
        return self._moved(node, which, directory, name)

    def _replace(self, node, victim):
        """Renames node over one of victim's names."""
        which, over = self._which(node), self._which(victim)
        directory, name = victim.names[over]
        self.steps.do("rename", self._path(node, which), self._join(directory, name))
        self._detach(victim, over)
        return self._moved(node, which, directory, name)

    def _do_rename_over(self):
        node, victim = self._pick("file"), self._pick(self.random.choice(("file", "symlink")))
        if node is None or victim is None or node is victim:
            return 0
        return self._replace(node, victim)

    def _do_rename_dir_over(self):
        node, victim = self._pick("dir"), self._pick("dir")
        if node.fixed or victim.fixed or node is victim or victim.children:
            return 0
        if not self._may_move(node, victim.names[0][0]):
            return 0
        return self._replace(node, victim)

    def _do_rename_link(self):
        """A rename between two names of one inode does nothing."""
        node = self._pick("file")
        if node is None or len(node.names) < 2:
            return 0
        self.steps.do("rename", self._path(node, 0), self._path(node, 1))
        return 1

    def _do_exchange(self):
        one, other = self._pick_any(), self._pick_any()
        if one is None or other is None or one is other:
            return 0
        i, j = self._which(one), self._which(other)
        (one_dir, one_name), (other_dir, other_name) = one.names[i], other.names[j]
        if not self._may_move(one, other_dir) or not self._may_move(other, one_dir):
            return 0
        self.steps.do("rename2", self._path(one, i), self._path(other, j), RENAME_EXCHANGE)
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
        self.steps.do("rename2", self._path(node, which), self._join(directory, target),
                      RENAME_WHITEOUT)
        node.names[which] = (directory, target)
        directory.children[target] = node
        self._add("special", directory, name)
        return 1

    def _do_link(self):
        node = self._pick(self.random.choices(("file", "symlink", "special"), (8, 1, 1))[0])
        if node is None or len(node.names) > 20:
            return 0
        directory, name = self._new_slot()
        self.steps.do("link", self._path(node, self._which(node)), self._join(directory, name))
        self._attach(node, directory, name)
        return 1

    def _do_symlink(self):
        directory, name = self._new_slot()
        length = self.random.choice((5, 30, 59, 60, 61, 200, 1000))
        target = (b"../t%d/" % self.counter * length)[:length]
        form = self.random.random()
        if form < 0.1:
            target = b"\xff\xfe" + target
        elif form < 0.2:  # the log escapes a block that begins so
            target = b"\xc0\x3b\x39\x98" + target
        self.steps.do("symlink", target, self._join(directory, name))
        self._add("symlink", directory, name)
        return 1

    def _unlink(self, node, which):
        self.steps.do("unlink", self._path(node, which))
        self._detach(node, which)

    def _do_unlink(self):
        kind = self.random.choices(("file", "symlink", "special"), (8, 1, 1))[0]
        if not self._room(0):  # over the budget: space has to come back
            kind = "file"
        node = self._pick(kind)
        if node is None:
            return 0
        self._unlink(node, self._which(node))
        return 1

    def _mkdir(self, directory, name, mode=0o755):
        self.steps.do("mkdir", self._join(directory, name), mode)
        return self._add("dir", directory, name)

    def _do_mkdir(self):
        directory, name = self._new_slot()
        if self._depth(directory) + 1 >= MAX_DEPTH:
            return 0
        node = self._mkdir(directory, name, self.random.choice((0o755, 0o700, 0o2775, 0o1777)))
        if self.big is None:
            self.big = node
        return 1

    def _do_deep(self):
        """mkdir -p, deeper than directories are moved."""
        directory, (_, name) = self._pick("dir"), self._new_slot()
        name = name[:20]
        if name in directory.children or self._depth(directory) > MAX_DEPTH:
            return 0
        count = self.random.randint(3, 25)
        for _ in range(count):
            directory = self._mkdir(directory, name)
            name = b"d"
        return count

    def _do_rmdir(self):
        node = self._pick("dir")
        if node.fixed or node.children:
            return 0
        self.steps.do("rmdir", self._path(node))
        self._detach(node)
        return 1

    def _do_rmtree(self):
        node = self._pick("dir")
        if node.fixed or node is self.big:
            return 0
        return self._remove_tree(node)

    def _remove_tree(self, node):
        count = 1
        for name, child in list(node.children.items()):
            if child.kind == "dir":
                count += self._remove_tree(child)
                continue
            self._unlink(child, child.names.index((node, name)))
            count += 1
        self.steps.do("rmdir", self._path(node))
        self._detach(node)
        return count

    def _do_mknod(self):
        directory, name = self._new_slot()
        kind, major, minor = self.random.choice((
            (stat.S_IFIFO | 0o644, 0, 0),
            (stat.S_IFCHR | 0o666, 1, self.random.randint(3, 9)),
            # Beyond 8 bits, the number has another place in the inode.
            (stat.S_IFBLK | 0o660, self.random.choice((8, 259, 4000)),
             self.random.choice((0, 255, 100000))),
            (stat.S_IFSOCK | 0o755, 0, 0)))
        self.steps.do("mknod", self._join(directory, name), kind, major, minor)
        self._add("special", directory, name)
        return 1

    def _do_reuse(self):
        """One name and, mostly, one inode number: a file, a directory, a link and a fifo in turn, within one
        transaction."""
        directory, name = self._new_slot()
        path = self._join(directory, name)
        count = self.random.randint(2, 9)
        for _ in range(count):
            form = self.random.randrange(4)
            if form == 0:
                with self.steps.opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as number:
                    self.steps.do("pwrite", number, 0, self._data(self.random.randint(1, 9000)))
            elif form == 1:
                self.steps.do("mkdir", path, 0o755)
            elif form == 2:
                self.steps.do("symlink", b"t" * self.random.choice((9, 99)), path)
            else:
                self.steps.do("mknod", path, stat.S_IFIFO | 0o600, 0, 0)
            self.steps.do("rmdir" if form == 1 else "unlink", path)
        if self.random.random() < 0.5:
            self.steps.do("symlink", b"the last one", path)
            self._add("symlink", directory, name)
        return count

    def _do_crowd(self):
        """Fills a directory until it has a hash tree, and goes on until its blocks split."""
        if self.big is None:
            return 0
        count = self.random.randint(100, 700)
        if len(self.big.children) + count > self.big_dir:
            return self._do_thin()
        for _ in range(count):
            name = self._name()
            with self.steps.opened(self._join(self.big, name),
                                   os.O_CREAT | os.O_EXCL | os.O_WRONLY):
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
            self._unlink(child, child.names.index((self.big, name)))
            count += 1
        return count
