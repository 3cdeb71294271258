# SPDX-License-Identifier: BSD-3-Clause
"""A volume that no kernel here mounts: debugfs (libext2fs) reads it and changes it, in place or, as a
kernel would, by a transaction in its journal."""
import os
import re
import subprocess

from . import guestdisk

KINDS = {"04": "dir", "10": "file", "12": "symlink", "02": "char", "06": "block", "01": "fifo",
         "14": "socket"}


def debugfs(image, *commands, write=False):
    """What debugfs says to a list of commands, echoed ones left out."""
    done = subprocess.run(["debugfs", *(["-w"] if write else []), "-f", "-", os.fspath(image)],
                          input="\n".join(commands).encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=True)
    return [line for line in done.stdout.split(b"\n") if not line.startswith(b"debugfs:")]


def listing(image):
    """{path: (inode, kind, mode, uid, gid, size)} as libext2fs reads it; a directory's size is 0."""
    found, below = {}, [(b"", 2)]
    while below:
        above, number = below.pop()
        for line in debugfs(image, "ls -p <%d>" % number):
            if not line.startswith(b"/"):
                continue
            # /inode/mode/uid/gid/name/size/
            match = re.fullmatch(rb"/(\d+)/(\d{2})(\d{4})/(\d+)/(\d+)/(.*)/(\d*)/", line)
            inode, kind, mode, uid, gid, name, size = match.groups()
            if inode == b"0" or name in (b".", b".."):
                continue
            path = above + b"/" + name
            found[path] = (int(inode), KINDS[kind.decode()], int(mode, 8), int(uid), int(gid), int(size or 0))
            if kind == b"04":
                below.append((path, int(inode)))
    return found


def of_tree(tree):
    """The same of a lib.tree.Tree."""
    return {path: (fields["inode"], fields["kind"], fields["mode"], fields["uid"], fields["gid"],
                   0 if fields["kind"] == "dir" else fields["size"])
            for path, fields in tree.listing().items() if path != b"/"}


def changed_blocks(old, new, size):
    """The numbers of the blocks that differ."""
    with open(old, "rb") as one, open(new, "rb") as other:
        return [number for number in range(os.path.getsize(new) // size)
                if one.read(size) != other.read(size)]


def _kind(block):
    """jbd2's block type: 2 commit, 3 and 4 superblock; 0 for what is none of its own."""
    return int.from_bytes(block[4:8], "big") if block[:4] == b"\xc0\x3b\x39\x98" else 0


def _order(block):
    """A kernel's: the superblock says where the log begins, the commit block comes last."""
    return {4: 0, 3: 0, 2: 2}.get(_kind(block), 1)


def commit(disk, changed, blocks, size):
    """Commits a transaction with these blocks, as they are in the image `changed`, to the journal of
    `disk`, and recovers it as a kernel would at the next mount."""
    made = changed + ".committed"
    guestdisk.copy_image(disk, made)
    with open(changed, "rb") as source, open(changed + ".blocks", "wb") as out:
        for block in blocks:
            source.seek(block * size)
            out.write(source.read(size))
    debugfs(made, "journal_open", "journal_write -b %s %s" % (
        ",".join(map(str, blocks)), changed + ".blocks"), "journal_close", write=True)
    written = {}
    with open(made, "rb") as source:
        for block in changed_blocks(disk, made, size):
            source.seek(block * size)
            written[block] = source.read(size)
    with open(disk, "r+b", buffering=0) as target:
        for block in sorted(written, key=lambda block: (_order(written[block]), block)):
            target.seek(block * size)
            target.write(written[block])
            os.fsync(target.fileno())
    guestdisk.run("e2fsck", "-y", "-E", "journal_only", disk)
