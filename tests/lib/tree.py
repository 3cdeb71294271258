# SPDX-License-Identifier: BSD-3-Clause
"""A volume's tree, three ways: as a mount shows it (find), as `tapwire crawl` prints it, and as
events applied one by one make it. A path is bytes and begins with '/'."""
import base64
import calendar
import json
import os
import re
import subprocess

KINDS = {"f": "file", "d": "dir", "l": "symlink", "p": "fifo", "s": "socket", "c": "char",
         "b": "block"}
FIELDS = ("kind", "inode", "size", "mode", "uid", "gid", "nlink", "mtime", "ctime", "target",
          "rdev")
PREFIX = "org.tapwire.file."


class Violation(AssertionError):
    """An event that cannot be applied, or a stream of events that breaks its promise."""


class Inode:
    """The fields of one inode; names that are hard links share one."""

    __slots__ = ("inode", "generation", "kind", "size", "mode", "uid", "gid", "nlink", "mtime",
                 "ctime", "target", "rdev", "xattrs", "children", "names")

    def __init__(self):
        self.generation = None
        self.target = None
        self.rdev = None
        self.xattrs = frozenset()  # names of extended attributes
        self.children = None  # of a directory: name -> Inode
        self.names = 0

    def key(self):
        return (self.inode, self.generation)

    def fields(self, names=FIELDS):
        return {field: getattr(self, field) for field in names}


# --- what a mount shows ---

def listing(root):
    """{path: fields} of a mounted volume, by find(1); times in ns."""
    done = subprocess.run(
        ["find", root, "-xdev", "-printf",
         "%P\\0%y\\0%s\\0%m\\0%U\\0%G\\0%n\\0%T@\\0%C@\\0%l\\0%i\\0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    words = done.stdout.split(b"\0")
    found = {}
    for at in range(0, len(words) - 1, 11):
        path, kind, size, mode, uid, gid, nlink, mtime, ctime, target, inode = words[at:at + 11]
        kind = KINDS[kind.decode()]
        rdev = None
        if kind in ("char", "block"):
            device = os.lstat(os.path.join(os.fsencode(root), path)).st_rdev
            rdev = (os.major(device), os.minor(device))
        found[b"/" + path] = {
            "kind": kind, "inode": int(inode), "size": int(size), "mode": int(mode, 8),
            "uid": int(uid), "gid": int(gid), "nlink": int(nlink), "mtime": find_time(mtime),
            "ctime": find_time(ctime), "target": target if kind == "symlink" else None,
            "rdev": rdev}
    return found


def find_time(text):
    """find's %T@: seconds rounded down, a point, nanoseconds and one more digit."""
    seconds, fraction = text.split(b".")
    return int(seconds) * 10**9 + int(fraction[:9])


# --- what tapwire says ---

TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{9})Z\Z")


def rfc3339(text):
    """ns since the epoch; exactly the form that the design promises."""
    match = TIME.match(text)
    if not match:
        raise Violation("no RFC 3339 time in UTC with nanoseconds: %r" % text)
    part = [int(digits) for digits in match.groups()]
    return calendar.timegm((*part[:6], 0, 0, 0)) * 10**9 + part[6]


def raw_bytes(record, name, readable=None):
    """The bytes of a name: NAME_b64 when it is there, else the readable field."""
    if name + "_b64" in record:
        return base64.b64decode(record[name + "_b64"], validate=True)
    text = record.get(name) if readable is None else readable
    return None if text is None else text.encode()


def xattr_names(data, which):
    """The names (bytes) that came or changed ("set"), or that went ("removed")."""
    xattrs = data.get("xattrs", {})
    names = xattrs.get(which, [])
    raw = xattrs.get(which + "_b64")
    if raw is None:
        return [name.encode() for name in names]
    if len(raw) != len(names):
        raise Violation("%d names, %d of them raw" % (len(names), len(raw)))
    return [base64.b64decode(name, validate=True) for name in raw]


def _take_xattrs(inode, data):
    gone = frozenset(xattr_names(data, "removed"))
    if not gone <= inode.xattrs:
        raise Violation("no such attributes: %r" % sorted(gone - inode.xattrs))
    inode.xattrs = inode.xattrs - gone | frozenset(xattr_names(data, "set"))


def _take_fields(inode, data):
    _take_xattrs(inode, data)
    inode.inode = data["inode"]
    inode.generation = data["generation"]
    inode.kind = data["kind"]
    for field in ("size", "uid", "gid", "nlink"):
        setattr(inode, field, data[field])
    inode.mode = int(data["mode"], 8)
    inode.mtime = rfc3339(data["mtime"])
    inode.ctime = rfc3339(data["ctime"])
    if data["kind"] == "symlink":
        inode.target = raw_bytes(data, "target")
    if data["kind"] in ("char", "block"):
        inode.rdev = (data["rdev_major"], data["rdev_minor"])


class Tree:
    """Starts as a crawl, moves by events. Strict: what cannot be applied is a Violation."""

    def __init__(self):
        self.root = None
        self.inodes = {}   # (inode, generation) -> Inode
        self.numbers = {}  # inode number -> key: one generation of a number lives at a time
        self.ranges = {}   # (inode, generation) -> [(offset, length), ...]

    @classmethod
    def from_crawl(cls, lines):
        """lines: NDJSON, parents in any order."""
        tree = cls()
        entries = [json.loads(line) for line in lines if line.strip()]
        paths = sorted((raw_bytes(entry, "path"), number) for number, entry in enumerate(entries))
        for path, number in paths:
            tree._add_crawled(path, entries[number])
        if tree.root is None:
            raise Violation("the crawl has no root")
        return tree

    def _add_crawled(self, path, data):
        inode = self.inodes.get((data["inode"], data["generation"]))
        fresh = inode is None
        if fresh:
            inode = self._new_inode(data)
        if path == b"/":
            self.root = inode
            inode.names = 1
            return
        parent, name = self._slot(path)
        if name in parent.children:
            raise Violation("crawl names %r twice" % path)
        if not fresh and inode.kind == "dir":
            raise Violation("crawl gives the directory %r two names" % path)
        self._attach(parent, name, inode)

    def _new_inode(self, data):
        if data["inode"] in self.numbers:
            raise Violation("inode %d lives already, with generation %d" % (
                data["inode"], self.numbers[data["inode"]][1]))
        inode = Inode()
        _take_fields(inode, data)
        if inode.kind == "dir":
            inode.children = {}
        self.inodes[inode.key()] = inode
        self.numbers[inode.inode] = inode.key()
        return inode

    def lookup(self, path):
        if path[:1] != b"/":
            raise Violation("path %r does not begin with '/'" % path)
        at = self.root
        for name in path.split(b"/")[1:] if path != b"/" else []:
            if at.children is None or name not in at.children:
                return None
            at = at.children[name]
        return at

    def _slot(self, path):
        above, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise Violation("path %r ends in no name" % path)
        parent = self.lookup(above or b"/")
        if parent is None or parent.children is None:
            raise Violation("no directory above %r" % path)
        return parent, name

    def _attach(self, parent, name, inode):
        if name in parent.children:
            raise Violation("the name %r is taken" % name)
        parent.children[name] = inode
        inode.names += 1

    def _detach(self, path):
        parent, name = self._slot(path)
        if name not in parent.children:
            raise Violation("no such path: %r" % path)
        inode = parent.children.pop(name)
        inode.names -= 1
        return inode

    def _forget(self, inode):
        del self.inodes[inode.key()]
        del self.numbers[inode.inode]

    # --- events ---

    def apply(self, event):
        """Applies one CloudEvent; events of volumes and disks change no tree."""
        kind = event["type"]
        if not kind.startswith(PREFIX):
            return
        try:
            self._apply(kind[len(PREFIX):], event)
        except (Violation, KeyError) as error:
            raise Violation("%s: %s\n%s" % (type(error).__name__, error,
                                            json.dumps(event, sort_keys=True))) from None

    def _apply(self, verb, event):
        data = event["data"]
        path = raw_bytes(data, "path", event["subject"])
        old_path = raw_bytes(data, "old_path")
        key = (data["inode"], data["generation"])
        getattr(self, "_on_" + verb)(path, old_path, key, data)
        if "ranges" in data:
            check_ranges(data["ranges"], data["size"])
            self.ranges.setdefault(key, []).extend(map(tuple, data["ranges"]))

    def _known(self, inode, key, path):
        if inode is None:
            raise Violation("no such path: %r" % path)
        if inode.key() != key:
            raise Violation("%r is inode %d generation %d" % (path, *inode.key()))
        return inode

    def _update(self, inode, data):
        if data["kind"] != inode.kind:
            raise Violation("inode %d is a %s" % (inode.inode, inode.kind))
        _take_fields(inode, data)

    def _on_created(self, path, _old_path, key, data):
        if key in self.inodes:
            raise Violation("inode %d exists" % key[0])
        parent, name = self._slot(path)
        self._attach(parent, name, self._new_inode(data))

    def _on_linked(self, path, _old_path, key, data):
        inode = self.inodes.get(key)
        if inode is None:
            raise Violation("no such inode: %d generation %d" % key)
        if inode.kind == "dir":
            raise Violation("a second name for a directory")
        parent, name = self._slot(path)
        self._attach(parent, name, inode)
        self._update(inode, data)

    def _on_renamed(self, path, old_path, key, data):
        if old_path is None:
            raise Violation("renamed without old_path")
        if data.get("exchange"):
            self._exchange(path, old_path)
            moved = self.lookup(path)
        else:
            if self.lookup(path) is not None:
                raise Violation("%r is taken" % path)
            moved = self._detach(old_path)
            parent, name = self._slot(path)
            self._attach(parent, name, moved)
        self._update(self._known(moved, key, path), data)

    def _exchange(self, path, old_path):
        for one, other in ((path, old_path), (old_path, path)):
            if one.startswith(other + b"/"):
                raise Violation("%r lies below %r" % (one, other))
        one, other = self._detach(path), self._detach(old_path)
        self._attach(*self._slot(path), other)
        self._attach(*self._slot(old_path), one)

    def _remove(self, path, key, last):
        inode = self._known(self.lookup(path), key, path)
        if inode.children:
            raise Violation("the directory %r is not empty: %r" % (path, list(inode.children)[:5]))
        if (inode.names == 1) != last:
            raise Violation("%r has %d names" % (path, inode.names))
        return self._detach(path)

    def _on_unlinked(self, path, _old_path, key, data):
        self._update(self._remove(path, key, last=False), data)

    def _on_deleted(self, path, _old_path, key, _data):
        self._forget(self._remove(path, key, last=True))

    def _on_modified(self, path, _old_path, key, data):
        self._update(self._known(self.lookup(path), key, path), data)

    def _on_settled(self, path, _old_path, key, data):
        """It says what there is."""
        inode = self._known(self.lookup(path), key, path)
        if inode.size != data["size"]:
            raise Violation("%d bytes settled, of %d" % (data["size"], inode.size))

    _on_truncated = _on_modified
    _on_attributes = _on_modified

    # --- the tree as a listing ---

    def listing(self, names=FIELDS):
        """{path: fields}, comparable with listing()."""
        found = {b"/": self.root.fields(names)}
        below = [(b"", self.root)]
        while below:
            prefix, directory = below.pop()
            for name, inode in directory.children.items():
                path = prefix + b"/" + name
                found[path] = inode.fields(names)
                if inode.children:
                    below.append((path, inode))
        return found

    def paths(self):
        """{(inode, generation): a path} of all regular files."""
        found = {}
        below = [(b"", self.root)]
        while below:
            prefix, directory = below.pop()
            for name, inode in directory.children.items():
                if inode.kind == "file":
                    found[inode.key()] = prefix + b"/" + name
                elif inode.children:
                    below.append((prefix + b"/" + name, inode))
        return found


def check_ranges(ranges, size=None):
    """Ranges are of positive length, ascending, do not overlap, and end where the file does."""
    end = 0
    for offset, length in ranges:
        if offset < end or length <= 0:
            raise Violation("ranges out of order, empty or overlapping: %r" % ranges)
        end = offset + length
    if size is not None and end > size:
        raise Violation("ranges beyond the end at %d: %r" % (size, ranges))


def diff(expected, actual, limit=20, names=FIELDS):
    """Readable differences of two listings, [] when they are equal."""
    lines = []
    for path in sorted(expected.keys() - actual.keys()):
        lines.append("missing: %r %s" % (path, _brief(expected[path])))
    for path in sorted(actual.keys() - expected.keys()):
        lines.append("too many: %r %s" % (path, _brief(actual[path])))
    for path in sorted(expected.keys() & actual.keys()):
        one, other = expected[path], actual[path]
        wrong = [field for field in names if one[field] != other[field]]
        if wrong:
            lines.append("%r (inode %d): " % (path, one["inode"]) + ", ".join(
                "%s is %s, should be %s" % (field, _value(field, other[field]),
                                            _value(field, one[field])) for field in wrong))
    if len(lines) > limit:
        lines[limit:] = ["... and %d more" % (len(lines) - limit)]
    return lines


def _brief(fields):
    return "(inode %d, %s, size %d)" % (fields["inode"], fields["kind"], fields["size"])


def _value(field, value):
    if field == "mode":
        return "%04o" % value
    if field in ("mtime", "ctime"):
        return "%d.%09d" % divmod(value, 10**9)
    return repr(value)


def check_sequence(events, first=1):
    """Within an epoch the sequence counts up by one, and no id comes twice."""
    seen = set()
    for number, event in enumerate(events, first):
        if event["sequence"] != str(number):
            raise Violation("event %d has sequence %r" % (number, event["sequence"]))
        if event["id"] in seen:
            raise Violation("id %r comes twice" % event["id"])
        seen.add(event["id"])
