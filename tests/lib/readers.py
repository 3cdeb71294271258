# SPDX-License-Identifier: BSD-3-Clause
"""Three readers of a volume that share no code with the product: the kernel's mount, libext2fs (by
ext2read.c), and debugfs. Each gives {path: fields} with the fields of tree.FIELDS, the generation
and the names of extended attributes; None where a reader cannot see a field."""
import os
import re
import stat
import subprocess

from . import calls, tree

FIELDS = (*tree.FIELDS, "generation")
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
         stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


# --- the mount ---

def mount(root):
    """What system calls show of a mounted volume."""
    root = os.fsencode(root)
    found = {b"/": _stat(root)}
    below = [b""]
    while below:
        path = below.pop()
        with os.scandir(root + path) as entries:
            for entry in entries:
                name = path + b"/" + entry.name
                found[name] = _stat(root + name)
                if found[name]["kind"] == "dir":
                    below.append(name)
    return found


def _stat(path):
    seen = os.lstat(path)
    kind = KINDS[stat.S_IFMT(seen.st_mode)]
    fields = {
        "kind": kind, "inode": seen.st_ino, "size": seen.st_size,
        "mode": stat.S_IMODE(seen.st_mode), "uid": seen.st_uid, "gid": seen.st_gid,
        "nlink": seen.st_nlink, "mtime": seen.st_mtime_ns, "ctime": seen.st_ctime_ns,
        "target": None, "rdev": None, "generation": None,
        "xattrs": sorted(os.listxattr(path, follow_symlinks=False))}
    if kind == "symlink":
        fields["target"] = os.readlink(path)
    elif kind in ("char", "block"):
        fields["rdev"] = (os.major(seen.st_rdev), os.minor(seen.st_rdev))
    elif kind in ("file", "dir"):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
        try:
            fields["generation"] = calls.generation(descriptor)
        finally:
            os.close(descriptor)
    return fields


# --- libext2fs ---

def libext2fs(program, image):
    """program: the built ext2read."""
    words = _output(program, "tree", image).split(b"\0")
    found = {}
    for at in range(0, len(words) - 1, 14):
        path, kind, size, mode, uid, gid, nlink, mtime, ctime, target, rdev, inode, generation, \
            xattrs = words[at:at + 14]
        found[path] = {
            "kind": kind.decode(), "inode": int(inode), "size": int(size), "mode": int(mode, 8),
            "uid": int(uid), "gid": int(gid), "nlink": int(nlink),
            "mtime": _split_time(mtime), "ctime": _split_time(ctime),
            "target": bytes.fromhex(target.decode()) if kind == b"symlink" else None,
            "rdev": tuple(map(int, rdev.split(b":"))) if rdev else None,
            "generation": int(generation), "xattrs": sorted(xattrs.decode().split())}
    return found


def _split_time(text):
    seconds, nanoseconds = text.split(b":")
    return int(seconds) * 10**9 + int(nanoseconds)


def changes(program, old, new):
    """{(inode, generation): [(start, end), ...]}: what differs in the files of two images."""
    found = {}
    for line in _output(program, "changes", old, new).splitlines():
        inode, generation, start, end = map(int, line.split())
        found.setdefault((inode, generation), []).append((start, end))
    return found


def _output(*argv):
    done = subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise RuntimeError("%s: %s" % (argv[0], done.stderr.decode(errors="replace")))
    return done.stdout


# --- debugfs ---

ENTRY = re.compile(rb"/(\d+)/(\d{6})/(-?\d+)/(-?\d+)/([^/]*)/(\d*)/\n")
TYPES = {b"regular": "file", b"directory": "dir", b"symlink": "symlink", b"FIFO": "fifo",
         b"socket": "socket", b"character special": "char", b"block special": "block"}
STAT = re.compile(
    rb"Inode: (?P<inode>\d+) +Type: (?P<type>[a-zA-Z ]+?) +Mode: +(?P<mode>\d+) .*?\n"
    rb"Generation: (?P<generation>\d+) .*?\n"
    rb"User: +(?P<uid>-?\d+) +Group: +(?P<gid>-?\d+) .*?Size: (?P<size>\d+)\n"
    rb".*?Links: (?P<nlink>\d+) .*?"
    rb"\n *ctime: (?P<ctime>\S+) .*?\n *mtime: (?P<mtime>\S+) ", re.DOTALL)
DEVICE = re.compile(rb"Device major/minor number: (\d+):(\d+)")
FAST = re.compile(rb'Fast link dest: "(.*)"\n\Z', re.DOTALL)


def _debugfs(image, commands):
    """What each command printed. It repeats each command before it; a pager would be a process for
    each."""
    done = subprocess.run(["debugfs", "-f", "-", os.fspath(image)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=True,
                          env={**os.environ, "DEBUGFS_PAGER": "__none__"},
                          input="".join(command + "\n" for command in commands).encode())
    said, end = [], len(done.stdout)
    for command in reversed(commands):
        head = b"debugfs: %s\n" % command.encode()
        start = done.stdout.rindex(head, 0, end)
        said.append(done.stdout[start + len(head):end])
        end = start
    return said[::-1]


def debugfs(image):
    """By debugfs, from ls and stat of each inode by its number."""
    paths, level = {b"/": 2}, [(b"", 2)]
    while level:
        below = []
        said = _debugfs(image, ["ls -p <%d>" % inode for _, inode in level])
        for (path, _), text in zip(level, said):
            for inode, mode, _uid, _gid, name, _size in ENTRY.findall(text):
                if name in (b"", b".", b".."):  # an unused entry has no name
                    continue
                paths[path + b"/" + name] = int(inode)
                if mode.startswith(b"04"):
                    below.append((path + b"/" + name, int(inode)))
        level = below
    inodes = sorted(set(paths.values()))
    shown = _debugfs(image, ["stat <%d>" % inode for inode in inodes])
    fields = {inode: _parsed(text) for inode, text in zip(inodes, shown)}
    return {path: fields[inode] for path, inode in paths.items()}


def _parsed(text):
    match = STAT.match(text)
    if not match:
        raise RuntimeError("debugfs says %r" % text[:500])
    fields = {name: int(match[name])
              for name in ("inode", "generation", "uid", "gid", "size", "nlink")}
    for name in ("uid", "gid"):  # as signed numbers
        fields[name] &= 0xffffffff
    fields["kind"] = TYPES[match["type"]]
    fields["mode"] = int(match["mode"], 8)
    for name in ("ctime", "mtime"):
        fields[name] = _time(match[name].decode())
    device = DEVICE.search(text) if fields["kind"] in ("char", "block") else None
    fields["rdev"] = (int(device[1]), int(device[2])) if device else None
    fast = FAST.search(text) if fields["kind"] == "symlink" else None
    fields["target"] = fast[1] if fast else None
    return fields


def _time(text):
    """0xSECONDS:EXTRA, with two more bits of seconds and the nanoseconds in the second word."""
    seconds, _, extra = text.partition(":")
    seconds, extra = int(seconds, 16), int(extra or "0", 16)
    seconds -= (seconds & 1 << 31) << 1
    return (seconds + ((extra & 3) << 32)) * 10**9 + (extra >> 2)


# --- comparing ---

def nameless(listing):
    """The same by inode number, without what only who has the key can read. A symlink's length is that of its target,
    in bytes that may be encrypted."""
    found = {}
    for fields in listing.values():
        hidden = ("target", "size") if fields["kind"] == "symlink" else ("target",)
        xattrs = [name for name in fields["xattrs"] if name != "encryption.c"]
        found[b"%d" % fields["inode"]] = {**fields, **dict.fromkeys(hidden), "xattrs": xattrs}
    return found


def differences(expected, actual, names=FIELDS, blind=()):
    """Readable lines. blind: fields that one of the two cannot see everywhere, and gives as None."""
    seen = {}
    for path, fields in actual.items():
        seen[path] = dict(fields)
        for name in blind if path in expected else ():
            if fields.get(name) is None or expected[path].get(name) is None:
                seen[path][name] = expected[path].get(name)
    return tree.diff(expected, seen, names=names)
