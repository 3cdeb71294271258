# SPDX-License-Identifier: BSD-3-Clause
"""One action, one transaction: exactly these events, in this order.

All actions run on one recording, each in a directory of its own with a sync before and after it.
What an action does to the times of the directories around it is left out of what is compared.
"""
import contextlib
import fcntl
import mmap
import os
import struct

import pytest

from lib import guestdisk, tree
from lib.calls import (COLLAPSE, FS_IOC_SETFLAGS, INSERT, KEEP_SIZE, PUNCH_HOLE, RENAME_EXCHANGE,
                       RENAME_WHITEOUT, ZERO, fallocate, link_open_file, renameat2)
from lib.life import Life

pytestmark = pytest.mark.usefixtures("mountable")

CASES = {}


def case(*expected, before=None):
    """An action with what must come of it: (type, subject, {field: value})."""
    def add(action):
        CASES[action.__name__] = (before, action, expected)
        return action
    return add


def put(path, length, letter=b"a"):
    with open(path, "wb") as file:
        file.write(letter * length)


def overwrite(path, offset, length):
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"z" * length, offset)
    os.close(descriptor)


def a_file(d):
    put(d + "/f", 20000)


def two_files(d):
    put(d + "/a", 100)
    put(d + "/b", 200)


def a_tree(d):
    os.makedirs(d + "/one/sub/deep")
    os.mkdir(d + "/two")
    put(d + "/one/sub/f", 10)
    put(d + "/one/sub/deep/g", 10)


@case(("created", "/f", {"kind": "file", "size": 0, "nlink": 1, "mode": "0644"}))
def create(d):
    put(d + "/f", 0)


@case(("created", "/f", {"size": 5000, "ranges": [[0, 5000]]}))
def create_with_content(d):
    put(d + "/f", 5000)


@case(("created", "/d", {"kind": "dir", "nlink": 2}))
def make_directory(d):
    os.mkdir(d + "/d")


@case(("created", "/d", {"kind": "dir", "nlink": 3}), ("created", "/d/e", {}),
      ("created", "/d/e/f", {"kind": "file"}))
def make_tree(d):
    os.makedirs(d + "/d/e")
    put(d + "/d/e/f", 0)


@case(("created", "/s", {"kind": "symlink", "target": "../x", "size": 4}),
      ("created", "/t", {"kind": "symlink", "target": "y" * 100, "size": 100}))
def make_symlinks(d):
    os.symlink("../x", d + "/s")
    os.symlink("y" * 100, d + "/t")


@case(("created", "/p", {"kind": "fifo"}), ("created", "/s", {"kind": "socket"}),
      ("created", "/c", {"kind": "char", "rdev_major": 1, "rdev_minor": 3}),
      ("created", "/b", {"kind": "block", "rdev_major": 259, "rdev_minor": 70000}))
def make_special(d):
    os.mkfifo(d + "/p")
    os.mknod(d + "/s", 0o140755)
    os.mknod(d + "/c", 0o20666, os.makedev(1, 3))
    os.mknod(d + "/b", 0o60660, os.makedev(259, 70000))


@case(("modified", "/f", {"ranges": [[8192, 4096]], "size": 20000}), before=a_file)
def overwrite_a_block(d):
    overwrite(d + "/f", 8192, 4096)


@case(("modified", "/f", {"ranges": [[0, 4096], [12288, 4096]]}), before=a_file)
def overwrite_two_blocks(d):
    overwrite(d + "/f", 10, 5)
    overwrite(d + "/f", 14000, 1)


@case(("modified", "/f", {"ranges": [[16384, 3716]], "size": 20100}), before=a_file)
def append(d):
    with open(d + "/f", "ab") as file:
        file.write(b"b" * 100)


@case(("truncated", "/f", {"size": 8192}), before=a_file)
def truncate_down(d):
    os.truncate(d + "/f", 8192)


@case(("truncated", "/f", {"size": 0}), before=a_file)
def truncate_to_nothing(d):
    os.truncate(d + "/f", 0)


@case(("renamed", "/b", {"old_path": "/a"}),
      before=lambda d: put(d + "/a", 10))
def rename(d):
    os.rename(d + "/a", d + "/b")


@case(("renamed", "/c", {"old_path": "/a"}),
      before=lambda d: put(d + "/a", 10))
def rename_twice(d):
    os.rename(d + "/a", d + "/b")
    os.rename(d + "/b", d + "/c")


@case(("renamed", "/a\ufffd", {"old_path": "/a", "path_b64": None}),
      before=lambda d: put(d + "/a", 10))
def rename_to_no_utf8(d):
    os.rename(d + "/a", os.fsencode(d) + b"/a\xff")


@case(("deleted", "/b", {"size": 200}), ("renamed", "/b", {"old_path": "/a", "size": 100}),
      before=two_files)
def rename_over(d):
    os.rename(d + "/a", d + "/b")


@case(("deleted", "/b", {}), ("renamed", "/b", {"old_path": "/a"}),
      ("created", "/a", {"size": 7, "ranges": [[0, 7]]}), before=two_files)
def rename_over_and_make_anew(d):
    os.rename(d + "/a", d + "/b")
    put(d + "/a", 7)


@case(("renamed", "/two/new", {"old_path": "/one/sub", "kind": "dir"}), before=a_tree)
def move_directory(d):
    os.rename(d + "/one/sub", d + "/two/new")


@case(("renamed", "/two/new", {"old_path": "/one/sub", "kind": "dir"}),
      ("attributes", "/two/new/f", {"mode": "0600"}), before=a_tree)
def move_directory_and_change_below(d):
    os.rename(d + "/one/sub", d + "/two/new")
    os.chmod(d + "/two/new/f", 0o600)


@case(("renamed", "/deep", {"old_path": "/one/sub/deep"}),
      ("renamed", "/deep/sub", {"old_path": "/one/sub"}), before=a_tree)
def turn_inside_out(d):
    os.rename(d + "/one/sub/deep", d + "/deep")
    os.rename(d + "/one/sub", d + "/deep/sub")


@case(("renamed", "/a", {"old_path": "/b", "exchange": True, "size": 200}),
      ("attributes", "/b", {"size": 100}), before=two_files)
def exchange(d):
    renameat2(d + "/a", d + "/b", RENAME_EXCHANGE)


@case(("renamed", "/a", {"old_path": "/b", "exchange": True, "size": 200}),
      ("attributes", "/b", {"size": 100}), before=two_files)
def exchange_by_hand(d):
    os.rename(d + "/a", d + "/t")
    os.rename(d + "/b", d + "/a")
    os.rename(d + "/t", d + "/b")


@case(("renamed", "/g", {"old_path": "/f"}), ("created", "/f", {"kind": "char"}), before=a_file)
def whiteout(d):
    renameat2(d + "/f", d + "/g", RENAME_WHITEOUT)


@case(("linked", "/g", {"nlink": 2}), before=a_file)
def link(d):
    os.link(d + "/f", d + "/g")


def linked_file(d):
    put(d + "/a", 10)
    os.link(d + "/a", d + "/b")


@case(("unlinked", "/a", {"nlink": 1}), before=linked_file)
def unlink_one_name(d):
    os.unlink(d + "/a")


@case(("unlinked", "/a", {}), ("deleted", "/b", {"nlink": 0}), before=linked_file)
def unlink_both_names(d):
    os.unlink(d + "/a")
    os.unlink(d + "/b")


@case(("deleted", "/f", {"kind": "file", "size": 20000}), before=a_file)
def delete(d):
    os.unlink(d + "/f")


@case(("deleted", "/one/sub/f", {}), ("deleted", "/one/sub/deep/g", {}),
      ("deleted", "/one/sub/deep", {"kind": "dir"}), ("deleted", "/one/sub", {"kind": "dir"}),
      before=a_tree)
def delete_tree(d):
    guestdisk.run("rm", "-r", d + "/one/sub")


@case(("deleted", "/f", {"kind": "file"}), ("created", "/f", {"kind": "dir"}), before=a_file)
def delete_and_make_anew(d):
    os.unlink(d + "/f")
    os.mkdir(d + "/f")


@case()
def make_and_delete(d):
    put(d + "/f", 100)
    os.unlink(d + "/f")


@case(("attributes", "/f", {"size": 20000}), before=a_file)
def rename_there_and_back(d):
    """Only the time of the last change is another."""
    os.rename(d + "/f", d + "/g")
    os.rename(d + "/g", d + "/f")


@case(("attributes", "/f", {"mode": "4750"}), before=a_file)
def chmod(d):
    os.chmod(d + "/f", 0o4750)


@case(("attributes", "/f", {"uid": 70000, "gid": 3000000000}), before=a_file)
def chown(d):
    os.chown(d + "/f", 70000, 3000000000)


@case(("attributes", "/f", {"mtime": "1969-12-31T23:59:59.999999999Z"}), before=a_file)
def touch(d):
    os.utime(d + "/f", ns=(0, -1))


@case(("attributes", "/f", {"mtime": "2446-05-10T22:38:54.000000001Z"}), before=a_file)
def touch_far_ahead(d):
    os.utime(d + "/f", ns=(0, 15032385534 * 10**9 + 1))


@case(("attributes", "/f", {"size": 20000}), before=a_file)
def set_small_attribute(d):
    os.setxattr(d + "/f", b"user.a", b"v")


@case(("attributes", "/f", {"size": 20000}), before=a_file)
def set_large_attribute(d):
    os.setxattr(d + "/f", b"user.a", b"v" * 3000)


@case(("attributes", "/f", {}), before=a_file)
def change_flags(d):
    descriptor = os.open(d + "/f", os.O_RDONLY)
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", 0x80000 | 0x40))
    os.close(descriptor)


# --- how data may be written ---

def on_file(work):
    """An action that works on the descriptor of /f."""
    def action(d):
        descriptor = os.open(d + "/f", os.O_RDWR)
        work(descriptor)
        os.close(descriptor)
    return action


@case(("modified", "/f", {"ranges": [[4096, 4096]], "size": 20000}), before=a_file)
def write_mapped(d):
    with open(d + "/f", "r+b") as file, mmap.mmap(file.fileno(), 20000) as memory:
        memory[5000:5010] = b"0123456789"


@case(("modified", "/f", {"ranges": [[8192, 8192]], "size": 20000}), before=a_file)
def write_direct(d):
    descriptor = os.open(d + "/f", os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, 8192) as aligned:
        aligned.write(b"d" * 8192)
        os.pwritev(descriptor, [aligned], 8192)
    os.close(descriptor)


@case(("modified", "/f", {"ranges": [[0, 4096]], "size": 20000}), before=a_file)
def write_synchronously(d):
    descriptor = os.open(d + "/f", os.O_WRONLY | os.O_SYNC)
    os.pwrite(descriptor, b"s" * 10, 0)
    os.close(descriptor)


@case(("modified", "/f", {"ranges": [[4096, 8192]], "size": 20000}), before=a_file)
def punch_a_hole(d):
    on_file(lambda f: fallocate(f, PUNCH_HOLE | KEEP_SIZE, 4096, 8192))(d)


@case(("modified", "/f", {"ranges": [[4096, 8192]], "size": 20000}), before=a_file)
def zero_a_range(d):
    on_file(lambda f: fallocate(f, ZERO | KEEP_SIZE, 4096, 8192))(d)


@case(("truncated", "/f", {"size": 15904}),
      ("modified", "/f", {"ranges": [[4096, 11808]], "size": 15904}), before=a_file)
def collapse_a_range(d):
    on_file(lambda f: fallocate(f, COLLAPSE, 4096, 4096))(d)


@case(("modified", "/f", {"ranges": [[4096, 20000]], "size": 24096}), before=a_file)
def insert_a_range(d):
    on_file(lambda f: fallocate(f, INSERT, 4096, 4096))(d)


@case(("attributes", "/f", {"size": 20000}), before=a_file)
def allocate_beyond_the_end(d):
    on_file(lambda f: fallocate(f, KEEP_SIZE, 40960, 8192))(d)


@case(("modified", "/f", {"size": 49152}), before=a_file)
def allocate_and_grow(d):
    on_file(lambda f: fallocate(f, 0, 40960, 8192))(d)


@case(("modified", "/f", {"size": 30000}), before=a_file)
def truncate_up(d):
    os.truncate(d + "/f", 30000)


@case(("truncated", "/f", {"size": 3}), ("modified", "/f", {"ranges": [[0, 3]], "size": 3}), before=a_file)
def write_anew(d):
    with open(d + "/f", "wb") as file:
        file.write(b"new")


# --- inodes without a name ---

OPEN = {}


@case(("deleted", "/f", {"kind": "file", "size": 20000, "nlink": 0}), before=a_file)
def delete_while_open(d):
    OPEN["deleted"] = os.open(d + "/f", os.O_RDWR)
    os.unlink(d + "/f")


@case()
def write_to_what_was_deleted(_):
    os.pwrite(OPEN["deleted"], b"n" * 50000, 10000)


@case()
def change_what_was_deleted(_):
    os.fchmod(OPEN["deleted"], 0o600)
    os.ftruncate(OPEN["deleted"], 100)


@case()
def close_what_was_deleted(_):
    os.close(OPEN.pop("deleted"))


@case(("deleted", "/b", {"size": 200}), ("renamed", "/b", {"old_path": "/a"}), before=two_files)
def rename_over_while_open(d):
    OPEN["replaced"] = os.open(d + "/b", os.O_RDWR)
    os.rename(d + "/a", d + "/b")


@case()
def write_to_what_was_replaced(_):
    os.write(OPEN["replaced"], b"n" * 5000)
    os.close(OPEN.pop("replaced"))


@case()
def make_without_a_name(d):
    OPEN["tmpfile"] = os.open(d, os.O_RDWR | os.O_TMPFILE, 0o640)
    os.write(OPEN["tmpfile"], b"t" * 5000)


@case(("created", "/made_later", {"size": 5000, "ranges": [[0, 5000]], "nlink": 1, "mode": "0640"}))
def link_what_had_no_name(d):
    link_open_file(OPEN["tmpfile"], d + "/linked")
    os.rename(d + "/linked", d + "/made_later")
    os.close(OPEN.pop("tmpfile"))


@case(("created", "/f", {"size": 100, "ranges": [[0, 100]], "nlink": 1}))
def make_without_a_name_and_link(d):
    descriptor = os.open(d, os.O_RDWR | os.O_TMPFILE, 0o644)
    os.write(descriptor, b"t" * 100)
    link_open_file(descriptor, d + "/f")
    os.close(descriptor)


@case()
def make_without_a_name_and_close(d):
    os.close(os.open(d, os.O_RDWR | os.O_TMPFILE))


# --- directories and what lies below ---

@case(("renamed", "/one", {"old_path": "/two", "exchange": True, "kind": "dir"}), before=a_tree)
def exchange_directories(d):
    renameat2(d + "/one", d + "/two", RENAME_EXCHANGE)


@case(("renamed", "/one", {"old_path": "/two", "exchange": True}),
      ("modified", "/two/sub/deep/g", {"size": 11}), before=a_tree)
def change_below_what_was_exchanged(d):
    renameat2(d + "/one", d + "/two", RENAME_EXCHANGE)
    guestdisk.settle(d)
    with open(d + "/two/sub/deep/g", "ab") as file:
        file.write(b"x")


@case(("deleted", "/one/sub/f", {}), ("renamed", "/three", {"old_path": "/one"}),
      ("created", "/three/sub/new", {"size": 3}), before=a_tree)
def move_directory_and_work_below(d):
    os.rename(d + "/one", d + "/three")
    os.unlink(d + "/three/sub/f")
    put(d + "/three/sub/new", 3)


@case(("renamed", "/two/sub", {"old_path": "/one/sub"}),
      ("renamed", "/two/g", {"old_path": "/two/sub/deep/g"}), before=a_tree)
def move_directory_and_one_out_of_it(d):
    os.rename(d + "/one/sub", d + "/two/sub")
    os.rename(d + "/two/sub/deep/g", d + "/two/g")


@case()
def read_only(d):
    os.listdir(d)


@pytest.fixture(scope="module")
def recording(tapwire, tmp_path_factory):
    """{case: its events}, the property checked on the way."""
    scratch = tmp_path_factory.mktemp("events")
    image = scratch / "disk.img"
    guestdisk.make_image(image, "512M")
    with guestdisk.mounted(image, scratch / "made") as root:
        for name, (before, _, _) in CASES.items():
            os.mkdir(os.path.join(root, name))
            if before:
                before(os.path.join(root, name))
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin) as disk:
        disk.sync("start")
        for name, (_, action, _) in CASES.items():
            action(os.path.join(disk.root, name))
            disk.sync(name)
    events = tapwire.infer(disk.base, disk.trace)
    found, left = {}, list(events)
    for sync in disk.syncs:
        found[sync.label] = []
        while left and tree.rfc3339(left[0]["observedtime"]) <= sync.clock_ns:
            found[sync.label].append(left.pop(0))
    return found


@pytest.mark.parametrize("name", CASES)
def test_action(recording, name):
    expected = CASES[name][2]
    seen = with_content([event for event in recording[name]
                         if event["type"].startswith(tree.PREFIX) and not around(event)])
    text = "\n".join(map(str, seen))
    prefix = "/" + name
    assert [(event["type"], event["subject"]) for event in seen] == [
        (tree.PREFIX + verb, prefix + path) for verb, path, _ in expected], text
    for event, (_, _, fields) in zip(seen, expected):
        for field, value in fields.items():
            assert field in event["data"], text
            if field == "old_path":
                value = prefix + value
            if value is not None:
                assert event["data"][field] == value, text
        assert ("exchange" in event["data"]) == ("exchange" in fields)


def around(event):
    """A directory of which only times, size and link count followed from its entries."""
    verb = event["type"][len(tree.PREFIX):]
    return verb in ("modified", "attributes") and event["data"]["kind"] == "dir"


def with_content(events):
    """New content may come a transaction later, when the blocks that were claimed unwritten are
    converted: that is no other action."""
    kept = []
    for event in events:
        first = next((other for other in kept if is_claim_of(other, event)), None)
        if first:
            told = first["data"].setdefault("ranges", [])
            told.extend(extent for extent in event["data"]["ranges"] if extent not in told)
        else:
            kept.append(event)
    return kept


def is_claim_of(event, later):
    """Whether `event` tells that the blocks were claimed whose content `later` tells."""
    one, two = event["data"], later["data"]
    if later["type"] != tree.PREFIX + "modified" or one["inode"] != two["inode"]:
        return False
    if event["type"] == tree.PREFIX + "created":
        return True
    return event["type"] == later["type"] and one["transaction"] < two["transaction"] and \
        one["ranges"] == two["ranges"]


def test_events_are_of_their_transaction(recording):
    """Every event carries its transaction, and they come in order."""
    transactions = [event["data"]["transaction"] for name in CASES for event in recording[name]
                    if event["type"].startswith(tree.PREFIX)]
    assert transactions == sorted(transactions)
    assert len(set(transactions)) > len(CASES) // 2


REUSED = {
    "file": lambda path: put(path, 4),
    "dir": os.mkdir,
    "symlink": lambda path: os.symlink("target", path),
    "fifo": os.mkfifo,
}


@pytest.mark.parametrize("before", ["file", "dir", "symlink"])
def test_an_inode_that_is_used_again_is_another(tapwire, scratch, before):
    """One number in one transaction for two inodes, because there is no other one left."""
    image = scratch / "disk.img"
    guestdisk.make_image(image, "16M", ("-N", "32"))
    with guestdisk.mounted(image, str(scratch / "made")) as root:
        REUSED[before](root + "/old")
        with contextlib.suppress(OSError):
            for number in range(100):
                put(root + "/filler%d" % number, 0)
    life = Life(tapwire, scratch, image)
    with life.booted() as root:
        life.sync(root, "start")
        (os.rmdir if before == "dir" else os.unlink)(root + "/old")
        for kind, make in REUSED.items():  # each in the place of the one before it, none but the last stays
            make(root + "/" + kind)
            if kind != "fifo":
                (os.rmdir if kind == "dir" else os.unlink)(root + "/" + kind)
        life.sync(root, "end")
    deleted, created = [event for event in life.check()
                        if event["type"].startswith(tree.PREFIX) and not around(event)]
    assert (deleted["subject"], created["subject"]) == ("/old", "/fifo")
    assert deleted["data"]["inode"] == created["data"]["inode"]
    assert deleted["data"]["generation"] != created["data"]["generation"]
    assert deleted["data"]["transaction"] == created["data"]["transaction"]
