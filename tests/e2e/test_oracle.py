# SPDX-License-Identifier: BSD-3-Clause
"""The oracle itself: an applier that lets a wrong event pass would prove nothing."""
import base64
import json
import os
import subprocess
import sys

import pytest

from lib import guestdisk, property, tree
from lib.workload import Mix


def entry(path, inode, kind="file", generation=1, **more):
    record = {"path": path, "inode": inode, "generation": generation, "kind": kind, "size": 0,
              "mode": "0644", "uid": 0, "gid": 0, "nlink": 1,
              "mtime": "2026-01-02T03:04:05.000000006Z", "ctime": "1969-12-31T23:59:59.500000000Z"}
    record.update(more)
    return record


def crawl():
    return tree.Tree.from_crawl(json.dumps(line) for line in (
        entry("/", 2, "dir"), entry("/d", 12, "dir"), entry("/d/f", 13), entry("/e", 14, "dir"),
        entry("/h1", 15, nlink=2), entry("/d/h2", 15, nlink=2),
        entry("/s", 16, "symlink", target="t"), entry("/d/sub", 17, "dir"),
        entry("/d/sub/x", 18)))


def event(verb, path, inode, kind="file", generation=1, **more):
    data = entry(path, inode, kind, generation, **more)
    subject = data.pop("path")
    return {"type": tree.PREFIX + verb, "subject": subject, "data": data}


GOOD = [
    event("created", "/d/new", 30),
    event("created", "/e/dir", 31, "dir"),
    event("renamed", "/e/dir/g", 13, old_path="/d/f"),
    event("linked", "/e/l", 13, nlink=2),
    event("unlinked", "/e/dir/g", 13, nlink=1),
    event("renamed", "/e/dir/moved", 17, "dir", old_path="/d/sub"),
    event("modified", "/e/dir/moved/x", 18, size=5, ranges=[[0, 5]]),
    event("renamed", "/d", 14, "dir", old_path="/e", exchange=True),
    event("truncated", "/d/dir/moved/x", 18, size=1),
    event("deleted", "/d/dir/moved/x", 18),
    event("deleted", "/d/dir/moved", 17, "dir"),
    event("attributes", "/s", 16, "symlink", target="t", uid=7),
    event("deleted", "/s", 16, "symlink"),
    event("created", "/s", 16, "fifo", generation=2),
]

BAD = {
    "created where there is a name": event("created", "/d/f", 30),
    "created below nothing": event("created", "/x/f", 30),
    "created below a file": event("created", "/h1/f", 30),
    "created with a living inode number": event("created", "/new", 13, generation=2),
    "created again": event("created", "/new", 13),
    "renamed from nowhere": event("renamed", "/new", 13, old_path="/d/g"),
    "renamed over a name": event("renamed", "/h1", 13, old_path="/d/f"),
    "renamed below itself": event("renamed", "/d/d", 12, "dir", old_path="/d"),
    "renamed as another inode": event("renamed", "/new", 18, old_path="/d/f"),
    "exchanged with nothing": event("renamed", "/x", 13, old_path="/d/f", exchange=True),
    "exchanged with its parent": event("renamed", "/d", 17, "dir", old_path="/d/sub",
                                       exchange=True),
    "linked an unknown inode": event("linked", "/new", 30),
    "linked a directory": event("linked", "/new", 12, "dir"),
    "unlinked the last name": event("unlinked", "/d/f", 13),
    "deleted one of two names": event("deleted", "/h1", 15),
    "deleted what is full": event("deleted", "/d/sub", 17, "dir"),
    "deleted another generation": event("deleted", "/d/f", 13, generation=2),
    "modified nothing": event("modified", "/d/g", 13),
    "modified another inode": event("modified", "/d/f", 18),
    "changed its kind": event("attributes", "/d/f", 13, "dir"),
    "ranges overlap": event("modified", "/d/f", 13, size=9, ranges=[[0, 5], [4, 2]]),
    "an empty range": event("modified", "/d/f", 13, size=9, ranges=[[0, 0]]),
    "a range beyond the end": event("modified", "/d/f", 13, size=9, ranges=[[4, 6]]),
    "an attribute that was not there": event("attributes", "/d/f", 13, xattrs={"removed": ["a"]}),
    "no such verb's path": event("attributes", "d/f", 13),
}


def test_good_events_apply():
    state = crawl()
    for good in GOOD:
        state.apply(good)
    found = state.listing()
    assert sorted(found) == [b"/", b"/d", b"/d/dir", b"/d/l", b"/e", b"/e/h2", b"/e/new", b"/h1",
                             b"/s"]
    assert found[b"/s"]["kind"] == "fifo"
    assert found[b"/d/l"] == found[b"/d/l"] | {
        "inode": 13, "nlink": 1, "mtime": 1767323045000000006, "ctime": -500000000}


@pytest.mark.parametrize("name", BAD)
def test_bad_event_is_a_violation(name):
    with pytest.raises(tree.Violation):
        crawl().apply(BAD[name])


def test_hard_links_share_fields():
    state = crawl()
    state.apply(event("modified", "/h1", 15, nlink=2, size=77))
    assert state.listing()[b"/d/h2"]["size"] == 77


def test_names_are_bytes():
    raw = b"/d/\xff\n"
    made = event("created", "/d/\ufffd\n", 30, path_b64=base64.b64encode(raw).decode())
    state = crawl()
    state.apply(made)
    assert raw in state.listing()


def test_diff_names_each_field():
    one, other = crawl().listing(), crawl()
    other.apply(event("attributes", "/d/f", 13, mode="0600", uid=5))
    other.apply(event("created", "/more", 30))
    lines = "\n".join(tree.diff(one, other.listing()))
    assert "b'/d/f' (inode 13): mode is 0600, should be 0644, uid is 5, should be 0" in lines
    assert "too many: b'/more'" in lines
    assert tree.diff(one, crawl().listing()) == []


@pytest.mark.parametrize("sequences", [["1", "3"], ["2"], ["1", "1"], [1]])
def test_sequence_with_a_hole(sequences):
    with pytest.raises(tree.Violation):
        tree.check_sequence([{"sequence": number, "id": str(at)}
                             for at, number in enumerate(sequences)])


def test_same_id_twice():
    with pytest.raises(tree.Violation):
        tree.check_sequence([{"sequence": "1", "id": "a"}, {"sequence": "2", "id": "a"}])


def test_uncovered_ranges():
    assert property.uncovered([(0, 10), (20, 30)], [(0, 5), (5, 5), (20, 10)]) == []
    assert property.uncovered([(0, 10)], []) == [(0, 10)]
    assert property.uncovered([(0, 10), (20, 30)], [(2, 3), (25, 100)]) == [(0, 2), (5, 10),
                                                                           (20, 25)]


def test_changed_sectors(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a" * 2000)
    other.write_bytes(b"a" * 600 + b"b" + b"a" * 399 + b"a" * 1000 + bytes(48) + b"c" * 4)
    os.truncate(other, 1 << 33)
    assert property.changed_sectors(one, other) == [(600, 601), (2048, 2052)]
    assert property.changed_sectors(None, one) == [(0, 2000)]


def test_find_times_before_the_epoch(tmp_path):
    for when in (-1, -10**9, -2 * 10**9 + 250000000, 0, 1, 10**9 + 5):
        os.utime(tmp_path, ns=(0, when))
        assert tree.listing(str(tmp_path))[b"/"]["mtime"] == when


def shape(root):
    """A listing without what a clock makes."""
    return {path: {field: fields[field] for field in ("kind", "size", "mode", "uid", "nlink")
                   if fields["kind"] != "dir" or field != "size"}
            for path, fields in tree.listing(root).items()}


@pytest.mark.usefixtures("mountable")
def test_same_seed_same_tree(scratch):
    """Through an NBD server as well as without: the mix depends on nothing but its seed."""
    def work(root):
        mix = Mix(root, 42)
        mix.ops(1500)
        mix.close()
        return shape(root)

    image = scratch / "disk"
    guestdisk.make_image(image, "512M")
    guestdisk.copy_image(image, scratch / "plain")
    with guestdisk.GuestDisk(scratch, image, plugin="file", record=False) as disk:
        served = work(disk.root)
    with guestdisk.mounted(scratch / "plain", scratch / "mnt") as root:
        assert work(root) == served
    assert len(served) > 100


@pytest.mark.usefixtures("mountable")
def test_killed_test_leaves_nothing(scratch):
    """SIGKILL of the process that mounted a disk: mount, loop device and servers go away."""
    script = (
        "import sys, time; sys.path.insert(0, %r)\n"
        "from lib import guestdisk\n"
        "guestdisk.make_image(%r, '64M')\n"
        "with guestdisk.GuestDisk(%r, %r, plugin='file', record=False) as disk:\n"
        "    open(disk.root + '/f', 'w').close()\n"
        "    print('mounted', flush=True)\n"
        "    time.sleep(60)\n" % (
            os.path.dirname(os.path.dirname(os.path.abspath(__file__))), str(scratch / "i"),
            str(scratch), str(scratch / "i")))
    victim = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert victim.stdout.readline() == b"mounted\n"
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
    assert guestdisk.wait_until(lambda: not guestdisk.left_below(scratch), 20), \
        guestdisk.left_below(scratch)
