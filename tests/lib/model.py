# SPDX-License-Identifier: BSD-3-Clause
"""The random mix's model of the tree: what is there, and how to choose from it without a look at
the disk."""
import os
import random

from .steps import Steps

MAX_DEPTH = 10


class Node:
    """An inode of the model. names: (directory Node, name) pairs, one for all but hard links."""

    __slots__ = ("kind", "size", "names", "children", "slot", "used", "fixed")

    def __init__(self, kind):
        self.kind = kind
        self.size = 0
        self.used = 0  # bytes that were ever written, an upper bound of what it takes
        self.names = []
        self.children = {} if kind == "dir" else None
        self.slot = -1
        self.fixed = False  # stays where it is: other processes work there too


class Pool:
    """A list of nodes with a random choice and a removal in constant time."""

    def __init__(self):
        self.nodes = []

    def add(self, node):
        node.slot = len(self.nodes)
        self.nodes.append(node)

    def remove(self, node):
        last = self.nodes.pop()
        if last is not node:
            self.nodes[node.slot] = last
            last.slot = node.slot
        node.slot = -1


class Model:
    """The tree as the operations so far have made it. top: the directory itself; big: the directory
    that is filled until it has a hash tree; steps: does the operations. Paths are relative.

    prefix: what all names begin with, so that several models can share a directory; shared: names
    of directories that are there already, and that others use too."""

    def __init__(self, root, seed, budget, prefix=b"", shared=()):
        self.steps = Steps(root)
        self.prefix = prefix
        self.random = random.Random(seed)
        self.budget = budget
        self.used = 0
        self.counter = 0
        self.gone_names = []
        self.pools = {kind: Pool() for kind in ("file", "dir", "symlink", "special")}
        self.top = Node("dir")
        self.top.fixed = True
        self.pools["dir"].add(self.top)
        self.big = None
        for name in shared:
            self._add("dir", self.top, name).fixed = True

    @property
    def root(self):
        return self.steps.root

    @root.setter
    def root(self, path):
        self.steps.root = path

    def _path(self, node, which=0):
        parts = []
        while node is not self.top:
            node, name = node.names[which]
            parts.append(name)
            which = 0
        return b"/".join(reversed(parts))

    def _join(self, directory, name):
        above = self._path(directory)
        return above + b"/" + name if above else name

    def _attach(self, node, directory, name):
        directory.children[name] = node
        node.names.append((directory, name))

    def _detach(self, node, which=0):
        directory, name = node.names.pop(which)
        del directory.children[name]
        if len(self.gone_names) < 64:
            self.gone_names.append((directory, name))
        else:
            self.gone_names[self.random.randrange(64)] = (directory, name)
        if not node.names:
            self._drop(node)

    def _drop(self, node):
        self.used -= node.used
        node.used = 0
        self._pool(node).remove(node)
        if node is self.big:
            self.big = None

    def _pool(self, node):
        return self.pools.get(node.kind, self.pools["special"])

    def _pick(self, kind):
        nodes = self.pools[kind].nodes
        return self.random.choice(nodes) if nodes else None

    def _pick_any(self):
        kind = self.random.choices(("file", "dir", "symlink", "special"), (6, 2, 1, 1))[0]
        node = self._pick(kind)
        return None if node is None or node.fixed else node

    def _which(self, node):
        return self.random.randrange(len(node.names))

    def _depth(self, node):
        depth = 0
        while node is not self.top:
            node = node.names[0][0]
            depth += 1
        return depth

    def _height(self, node):
        below = [child for child in (node.children or {}).values() if child.kind == "dir"]
        return 1 + max(map(self._height, below), default=0)

    def _is_below(self, node, above):
        while node is not self.top:
            if node is above:
                return True
            node = node.names[0][0]
        return above is self.top

    def _name(self):
        """A name that is not in use anywhere below: short, strange or as long as names get."""
        self.counter += 1
        base = self.prefix + b"n%d" % self.counter
        form = self.random.random()
        if form < 0.84:
            return base
        if form < 0.90:
            return base + bytes(self.random.choice((0xff, 0xc3, 0x80, 0xfe, 0xa0))
                                for _ in range(self.random.randint(1, 8)))
        if form < 0.93:
            return base + b"\n" + self.random.choice((b"", b"x", b"\n", b"\t\r\x01\x7f"))
        if form < 0.95:
            return base + self.random.choice(("é€😀", "\ufffd", "'\"\\", "a b ", "\u2028")).encode()
        if form < 0.98:
            return base + bytes(255 - len(base)).replace(b"\0", b"L")
        return base + b"." * self.random.randint(1, 3)

    def _new_slot(self):
        """A directory and a free name in it, now and then one that was just removed."""
        if self.gone_names and self.random.random() < 0.15:
            directory, name = self.random.choice(self.gone_names)
            alive = directory is self.top or directory.names
            if alive and name not in directory.children:
                return directory, name
        return self._pick("dir"), self._name()

    def _data(self, length):
        """Noise, zeroes, or what looks like a journal block, as a step writes it down."""
        form = self.random.random()
        start = self.random.randrange(1 << 20)
        return ("zeroes" if form < 0.04 else "magic" if form < 0.06 else "noise", start, length)

    def _length(self):
        """Mostly small, seldom large."""
        return int(2 ** self.random.uniform(0, 12)) if self.random.random() < 0.7 else \
            int(2 ** self.random.uniform(12, 18))

    def _add(self, kind, directory, name):
        node = Node(kind)
        self._attach(node, directory, name)
        self._pool(node).add(node)
        return node

    def _wrote(self, node, end, length):
        node.size = max(node.size, end)
        # A block more at each end; counted until the file is gone or empty.
        node.used += length + 8192
        self.used += length + 8192

    def _room(self, length):
        return self.used + length < self.budget

    def _open(self, node, flags=os.O_RDWR):
        return self.steps.open(self._path(node, self._which(node)), flags)

    def _with_file(self, work, flags=os.O_RDWR):
        """work(open file, node) on a random regular file."""
        node = self._pick("file")
        if node is None:
            return 0
        number = self._open(node, flags)
        try:
            return work(number, node)
        finally:
            self.steps.do("close", number)
