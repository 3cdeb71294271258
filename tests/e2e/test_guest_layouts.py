# SPDX-License-Identifier: BSD-3-Clause
"""Volumes in the hands of a guest with a kernel of its own: its device mapper, its LVM, a volume that grows while it is
mounted."""
import pytest

from lib import guestdisk, layout, lvm, tree, uml
from lib.layout import MIB, Watched

from lib.guard import Guard

pytestmark = [pytest.mark.usefixtures("mountable"), pytest.mark.slow]

# The disk is one physical volume, or two of them in partitions.
WHOLE = [(0, 512 * MIB)]
HALVES = [(MIB, 255 * MIB), (256 * MIB, 255 * MIB)]


@pytest.fixture
def guest():
    reason = uml.missing() or lvm.missing()
    if reason:
        pytest.skip("no such guest here: " + reason)


def prepare(scratch, ranges, *create):
    """A disk with a group vg0 on it, and a volume named root with a file system. Returns the image and the uuid."""
    image, guard = scratch / "disk.img", Guard()
    guestdisk.run("truncate", "-s", "512M", image)
    if len(ranges) > 1:
        layout.partition_table(image, "label: gpt\nstart=2048,size=255M\nstart=256MiB,size=255M\n")
    with lvm.Group(image, ranges, guard) as group:
        group.make("vg0")
        group.create("-n", "root", *create)
        parts = group.parts("vg0/root")
    with lvm.mapped(image, parts, scratch / "prepared", guard) as device:
        guestdisk.run("mke2fs", "-q", "-F", "-t", "ext4", device)
        uuid = layout.uuid_of(device)
    guard.close()
    return image, uuid


def expect(watched, uuid, listing):
    if not guestdisk.wait_until(lambda: watched.listing(uuid) == listing, 30):
        raise AssertionError("\n  ".join(["against the guest:", *tree.diff(listing, watched.listing(uuid)),
                                          watched.service.said()]))


def test_a_volume_grows_while_it_is_mounted(tapwire, scratch, guest):
    """lvextend and resize2fs, online, twice."""
    image, uuid = prepare(scratch, WHOLE, "-L", "64M", "vg0")
    with Watched(tapwire, scratch, image) as watched:
        shown = uml.run(watched.disk, scratch / "guest", """
lvm("vgchange", "-ay", "vg0")
root = mount("/dev/mapper/vg0-root")
work(root, 1, 200)
for turn in (2, 3):
    lvm("lvextend", "-L", "+100M", "vg0/root")
    run("resize2fs", "/dev/mapper/vg0-root")
    work(root, turn, 400)
show(root, "root")
run("umount", root)
""")
        expect(watched, uuid, shown["root"])
        events = watched.stop()
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]
    assert [event for event in events if event["type"].endswith(".resynced")]


def test_pvmove_while_it_is_mounted(tapwire, scratch, guest):
    """From one physical volume to the other, with files written all the time; then back, a part that is striped."""
    image, uuid = prepare(scratch, HALVES, "-L", "64M", "vg0")
    with Watched(tapwire, scratch, image) as watched:
        shown = uml.run(watched.disk, scratch / "guest", """
lvm("vgchange", "-ay", "vg0")
root = mount("/dev/mapper/vg0-root")
work(root, 1, 200)
lvm("lvextend", "-i", "2", "-I", "16k", "-L", "+64M", "vg0/root")
run("resize2fs", "/dev/mapper/vg0-root")
for turn, way in enumerate((("/dev/ubda1", "/dev/ubda2"), ("/dev/ubda2", "/dev/ubda1")), 2):
    writer = os.fork()
    if not writer:
        for number in range(5):
            work(root, 10 * turn + number, 100)
        os._exit(0)
    lvm("pvmove", "-i", "1", "--alloc", "anywhere", "-n", "root", *way)
    assert os.waitpid(writer, 0)[1] == 0
work(root, 99, 200)
show(root, "root")
run("umount", root)
""")
        expect(watched, uuid, shown["root"])
        events = watched.stop()
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]
    assert len([event for event in events if event["type"].endswith(".resynced")]) > 2


def test_a_snapshot_and_its_origin(tapwire, scratch, guest):
    """The origin is followed while there is a snapshot of it, which is named; and when that is gone again."""
    image, uuid = prepare(scratch, WHOLE, "-L", "64M", "vg0")
    with Watched(tapwire, scratch, image) as watched:
        shown = uml.run(watched.disk, scratch / "guest", """
lvm("vgchange", "-ay", "vg0")
root = mount("/dev/mapper/vg0-root")
work(root, 1, 200)
lvm("lvcreate", "-s", "-n", "before", "-L", "64M", "vg0/root")
work(root, 2, 400)
lvm("lvremove", "-f", "vg0/before")
work(root, 3, 200)
lvm("lvcreate", "-y", "-n", "other", "-L", "32M", "vg0")
run("mke2fs", "-q", "-t", "ext4", "/dev/mapper/vg0-other")
other = mount("/dev/mapper/vg0-other", "/run/mnt/other")
work(other, 4, 200)
show(root, "root")
show(other, "other")
run("umount", other)
run("umount", root)
""")
        expect(watched, uuid, shown["root"])
        found = watched.expect_event("volume.found", lambda event: event["data"]["place"] == "vg0/other"
                                     and "reason" not in event["data"])
        expect(watched, layout.about(found), shown["other"])
        events = watched.stop()
    assert not [event for event in events if event["type"].endswith((".lost", ".formatted"))]
    assert [event for event in events if "type snapshot" in event["data"].get("reason", "")]
