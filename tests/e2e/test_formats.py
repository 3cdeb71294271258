# SPDX-License-Identifier: BSD-3-Clause
"""What ext2, ext3 and ext4 keep on a disk in other ways: clusters, inline data, values in inodes,
encryption, large blocks. Each is followed on a kernel's mount where the kernel here has it."""
import base64
import errno
import fcntl
import os
import random
import re
import shutil
import struct

import pytest

from lib import guestdisk, named, offline, property, tree, uml
from lib.mixattrs import acl
from lib.workload import Mix
from test_property import random_mix, record
from test_replay import Recorded

pytestmark = pytest.mark.usefixtures("mountable")

FS_IOC_SET_ENCRYPTION_POLICY, FS_IOC_ADD_ENCRYPTION_KEY = 0x800c6613, 0xc0506617
AES_256_XTS, AES_256_CTS = 1, 4

# mkfs options, kinds of operations that the format does not know.
FORMATS = {
    "clusters-16k": (("-O", "bigalloc", "-C", "16384"), ("shift",)),
    "clusters-64k-of-1k": (("-O", "bigalloc", "-b", "1024", "-C", "65536"), ("shift",)),
    "large-directories": (("-O", "large_dir", "-b", "1024"), ()),
    "two-superblocks": (("-O", "sparse_super2"), ()),
    "group-checksums": (("-O", "^metadata_csum,uninit_bg"), ()),
    "inodes-1024": (("-I", "1024"), ()),
    "checksum-seed": (("-O", "metadata_csum_seed"), ()),
    "orphan-file": (("-O", "orphan_file"), ()),
    "stable-inodes": (("-O", "stable_inodes"), ()),
    "meta-groups": (("-O", "meta_bg,^resize_inode"), ()),
    "inline-data": (("-O", "inline_data"), ()),
    "inline-data-1024": (("-O", "inline_data", "-I", "1024"), ()),
    "inline-data-1k": (("-O", "inline_data", "-b", "1024", "-I", "512", "-J", "size=4"), ()),
    "inline-data-clusters": (("-O", "inline_data,bigalloc"), ("shift",)),
    "no-file-types": (("-O", "^filetype"), ()),
    "ext3": (("-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file",
             "-I", "128"), ("allocate", "shift", "zero", "sparse")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_random_mix(tapwire, scratch, name, request):
    mkfs, without = FORMATS[name]
    random_mix(tapwire, scratch, 7, mkfs, 3000, request, "",
               [kind for kind in Mix.WEIGHTS if kind not in without])


def inline_data(root, sync):
    """Files, directories and symlinks at the size where they leave the inode, and on both sides."""
    rnd = random.Random(23)
    os.mkdir(root + "/files")
    names = [root + "/files/f%d" % number for number in range(60)]
    for number, name in enumerate(names):
        named.write_file(name, rnd.randbytes(number * 3))
    sync("made")
    for turn in range(12):
        for name in rnd.sample(names, 25):
            change_small(rnd, name)
        for number in range(40):  # a directory that grows out of its inode
            if rnd.random() < 0.3:
                os.makedirs(root + "/dirs/d%d" % (number % 7), exist_ok=True)
                named.write_file(root + "/dirs/d%d/n%d" % (number % 7, turn * 40 + number), b"x" * number)
        sync("turn %d" % turn)
    for number in range(7):
        directory = root + "/dirs/d%d" % number
        entries = sorted(os.listdir(directory))
        for name in entries[:-3]:
            os.unlink(directory + "/" + name)
        if number % 2:
            os.rename(directory, root + "/moved%d" % number)
        sync("thinned %d" % number)
    for length in (1, 59, 60, 61, 100, 150, 158, 159, 160, 161, 500):
        os.symlink("t" * length, root + "/s%d" % length)
    sync("symlinks")
    shutil.rmtree(root + "/files")
    sync("removed")


def change_small(rnd, name):
    """One change of a small file."""
    size = os.path.getsize(name)
    form = rnd.randrange(8)
    if form == 0:
        os.truncate(name, rnd.randint(0, size))
    elif form == 1:
        os.truncate(name, size + rnd.choice((1, 10, 100, 5000)))
    elif form == 2:
        os.setxattr(name, b"user.n%d" % rnd.randrange(3), rnd.randbytes(rnd.randint(0, 60)))
    elif form == 3:
        os.utime(name, ns=(0, rnd.randrange(10**18)))
    elif form == 4:
        named.write_file(name, rnd.randbytes(rnd.choice((0, 1, 59, 60, 61, 100, 156, 160, 164, 1000))))
    elif form == 5:
        os.rename(name, name + "~")
        named.write_file(name, rnd.randbytes(rnd.randint(0, 200)))
        os.unlink(name + "~")
    else:
        with open(name, "r+b") as file:
            file.seek(rnd.randint(0, size))
            file.write(rnd.randbytes(rnd.randint(1, 20)))


INLINE = {"256": (), "1024": ("-I", "1024"), "1k-blocks": ("-b", "1024", "-I", "512"),
          "block-maps": ("-O", "^extent,^64bit")}


@pytest.mark.slow
@pytest.mark.parametrize("name", INLINE)
def test_inline_data(tapwire, scratch, name):
    disk = record(tapwire, scratch, inline_data, ("-O", "inline_data", *INLINE[name]))
    events = property.check(tapwire, disk)
    assert len(events) > 500


@pytest.mark.parametrize("name", INLINE)
def test_inline_data_told_exactly(tapwire, scratch, name):
    """Content is told of when it changes, and only then; where it lies is no attribute."""
    def work(root, sync):
        named.write_file(root + "/f", b"a" * 50)
        sync("made")
        os.utime(root + "/f", ns=(0, 5))
        sync("touched")
        os.setxattr(root + "/f", b"user.a", b"1")
        sync("attribute")
        with open(root + "/f", "r+b") as file:
            file.write(b"b")
        sync("overwritten")
        with open(root + "/f", "ab") as file:
            file.write(b"c" * 20)
        sync("appended")
        os.truncate(root + "/f", 10)
        sync("cut")
        with open(root + "/f", "ab") as file:
            file.write(b"c" * 9000)
        sync("in blocks")
    disk = record(tapwire, scratch, work, ("-O", "inline_data", *INLINE[name]))
    told = {}
    left = [event for event in tapwire.infer(disk.base, disk.trace) if event.get("subject") == "/f"]
    for sync in disk.syncs:
        told[sync.label] = []
        while left and tree.rfc3339(left[0]["observedtime"]) <= sync.clock_ns:
            event = left.pop(0)
            told[sync.label].append((event["type"][len(tree.PREFIX):], event["data"].get("ranges")))
    assert told["made"] == [("created", [[0, 50]])]
    assert told["touched"] == [("attributes", None)]
    assert told["attribute"] == [("attributes", None)]
    assert told["overwritten"] == [("modified", [[0, 50]])]
    assert told["appended"] == [("modified", [[0, 70]])]
    assert told["cut"][0][0] == "truncated"
    assert ("modified", [[0, 9010]]) in told["in blocks"]
    assert {verb for verb, _ in told["in blocks"]} == {"modified"}


# --- extended attributes by name ---

def xattrs_of(root):
    """{path: {name: value}} of a mount."""
    found = {}
    for directory, _, names in os.walk(os.fsencode(root)):
        for path in [directory, *(os.path.join(directory, name) for name in names)]:
            if not os.path.islink(path):
                found[path[len(root):] or b"/"] = {
                    os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}
    return found


def attributes(root, sync, seen, large):
    """Attributes in every namespace, in the inode, in a block, shared, in an inode of their own."""
    rnd = random.Random(31)
    os.mkdir(root + "/d")
    paths = [root + "/d/f%d" % number for number in range(25)] + [root + "/d"]
    for path in paths[:-1]:
        named.write_file(path, b"x")
    sizes = (0, 1, 20, 60, 300, 900, 900) + large
    names = ("user.a", "user.b\u00fc", "user.same", "trusted.t", "security.x", "user.\udcff\udc80")

    def done(label):
        sync(label)
        seen[label] = xattrs_of(root)
    done("made")
    for turn in range(12):
        for path in rnd.sample(paths, 14):
            name = rnd.choice(names)
            try:
                if rnd.random() < 0.3 and name in os.listxattr(path):
                    os.removexattr(path, name)
                elif name == "user.same":  # blocks of the same content are shared
                    os.setxattr(path, name, b"s" * rnd.choice((700, 701)))
                else:
                    os.setxattr(path, name, rnd.randbytes(1) * rnd.choice(sizes))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        os.setxattr(paths[turn], "system.posix_acl_access", acl(rnd.randrange(3), 4))
        if turn % 3 == 0:
            os.removexattr(paths[turn], "system.posix_acl_access")
            os.setxattr(paths[-1], "system.posix_acl_default", acl(turn, 7))
            named.write_file(paths[-1] + "/inherits%d" % turn, b"")
        done("turn %d" % turn)
    for path in paths[:10]:
        os.unlink(path)
    done("removed")


XATTRS = {"inodes-256": ((), ()), "inodes-128": (("-I", "128"), ()), "inodes-1024": (("-I", "1024"), (2000,)),
          "own-inodes": (("-O", "ea_inode"), (2000, 5000, 60000)),
          "own-inodes-of-1k": (("-O", "ea_inode", "-b", "1024", "-I", "128"), (2000, 9000)),
          "inline-data": (("-O", "inline_data,ea_inode"), (5000,))}


def differs(was, now):
    """The names that came or changed."""
    return {name for name, value in now.items() if was.get(name) != value}


def check_names(tapwire, disk, seen, events):
    """At each sync: the names that the events left are the mount's, and what was told is what changed."""
    state, was = tapwire.crawl(disk.base), {}
    for sync in disk.syncs:
        told, wanted = {}, {}
        while events and tree.rfc3339(events[0]["observedtime"]) <= sync.clock_ns:
            event = events.pop(0)
            state.apply(event)
            for name in tree.xattr_names(event["data"], "set"):
                told.setdefault(event["data"]["inode"], set()).add(name)
        if sync.label not in seen:
            continue
        now = seen[sync.label]
        assert {path: state.lookup(path).xattrs for path in now} == {
            path: frozenset(xattrs) for path, xattrs in now.items()}, sync.label
        for path, xattrs in now.items():
            new = differs(was.get(path, {}), xattrs)
            if new:
                wanted.setdefault(state.lookup(path).inode, set()).update(new)
        assert not was or told == wanted, sync.label
        was = now
    return was


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "own-inodes" else pytest.mark.slow)
                                  for name in XATTRS])
def test_attributes_are_named(tapwire, scratch, name):
    """The names of the attributes that the events tell of are those that the mount shows, and only
    attributes that changed are told of."""
    mkfs, large = XATTRS[name]
    seen = {}
    disk = record(tapwire, scratch, lambda root, sync: attributes(root, sync, seen, large), mkfs)
    last = check_names(tapwire, disk, seen, property.check(tapwire, disk))
    final = tapwire.crawl(disk.image)
    assert {path: final.lookup(path).xattrs for path in last} == {
        path: frozenset(xattrs) for path, xattrs in last.items()}


@pytest.mark.slow
def test_a_crawl_names_attributes_whoever_reads_them(tapwire, scratch):
    """Many inodes, read by several threads, some with the same attributes and some with their own."""
    image = scratch / "disk.img"
    guestdisk.make_image(image, "256M", ("-N", "20000"))
    with guestdisk.mounted(image, os.fspath(scratch / "mnt")) as root:
        for number in range(9000):
            named.write_file(root + "/f%d" % number, b"")
            os.setxattr(root + "/f%d" % number, "user.n%d" % (number % 7 if number % 3 else number), b"v")
            if number % 5 == 0:
                os.setxattr(root + "/f%d" % number, "security.selinux", b"label%d" % (number % 2))
        seen = xattrs_of(root)
    state = tapwire.crawl(image)
    assert {path: state.lookup(path).xattrs for path in seen} == {
        path: frozenset(xattrs) for path, xattrs in seen.items()}


# --- encryption: a kernel with the key, a disk without ---

def open_key(root, key=b"k" * 64):
    """Gives the file system a key; returns its policy, version 2."""
    spec = struct.pack("<II32s", 2, 0, b"")
    filled = bytearray(spec + struct.pack("<III28s", len(key), 0, 0, b"") + key)
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_ADD_ENCRYPTION_KEY, filled)
    finally:
        os.close(descriptor)
    identifier = bytes(filled[8:24])
    return struct.pack("<BBBB4s16s", 2, AES_256_XTS, AES_256_CTS, 0, b"", identifier)


def encrypt(directory, policy):
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SET_ENCRYPTION_POLICY, policy)
    finally:
        os.close(descriptor)


def by_number(listing):
    """({inode: fields}, [(inode of a directory, inode in it)]): what is the same with and without the
    key. A symlink's target and size are not."""
    inodes = {fields["inode"]: {name: fields[name] for name in tree.FIELDS if name not in (
        ("target", "size") if fields["kind"] == "symlink" else ())} for fields in listing.values()}
    edges = sorted((listing[path.rpartition(b"/")[0] or b"/"]["inode"], fields["inode"])
                   for path, fields in listing.items() if path != b"/")
    return inodes, edges


def names_on_disk(root, below):
    """{inode: names below a directory that is mounted without its key}, as they are on disk: the kernel
    shows two hashes and a name's first 149 bytes in base64."""
    found = {}
    for directory, kinds, names in os.walk(os.fspath(root) + below):
        for name in kinds + names:
            raw = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4))
            number = os.lstat(os.path.join(directory, name)).st_ino
            found.setdefault(number, set()).add(raw[8:8 + 149])
    return found


def names_told(state, below):
    found = {}
    for path, fields in state.listing().items():
        if path.startswith(below + b"/"):
            name = path.rpartition(b"/")[2]
            raw = base64.urlsafe_b64decode(name + b"=" * (-len(name) % 4))
            found.setdefault(fields["inode"], set()).add(raw[:149])
    return found


ENCRYPTED = {"4k": ("-O", "encrypt"), "1k": ("-O", "encrypt", "-b", "1024", "-J", "size=4"),
             "inline-data": ("-O", "encrypt,inline_data,stable_inodes")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCRYPTED)
def test_encrypted_directories(tapwire, scratch, name):
    """Without the key: the same tree but for names and targets, and the names as they are on disk."""
    image = scratch / "disk.img"
    guestdisk.make_image(image, "512M", ENCRYPTED[name])
    with guestdisk.GuestDisk(scratch, image, plugin=tapwire.plugin) as disk:
        disk.sync("start")
        policy = open_key(disk.root)
        for directory in ("/secret", "/other"):
            os.mkdir(disk.root + directory)
            encrypt(disk.root + directory, policy)
        named.write_file(disk.root + "/open", b"plain")
        mix = Mix(disk.root + "/secret", 5, [kind for kind in Mix.WEIGHTS if kind not in ("shift", "map")])
        mix.ops(1200, 100, lambda done: disk.sync("operation %d" % done))
        mix.close()
        shutil.rmtree(disk.root + "/other")
        disk.sync("end")
    events = tapwire.infer(disk.base, disk.trace)
    state, left = tapwire.crawl(disk.base), events
    for sync in disk.syncs:
        left = property.apply_until(state, left, sync.clock_ns)
        assert by_number(sync.listing) == by_number(state.listing()), sync.label
    property.expect_equal(tapwire.crawl(image).listing(), state.listing(), "crawl of the image")
    with guestdisk.mounted(image, scratch / "locked", "ro") as root:
        assert names_on_disk(root, "/secret") == names_told(state, b"/secret")
    for event in events:
        below = event.get("subject", "").startswith(("/secret", "/other"))
        assert event["data"].get("encrypted", False) == below, event


# --- what no kernel here mounts: libext2fs writes it, in place or as a transaction ---

UNMOUNTABLE = {
    "blocks-64k": ("-b", "65536"),
    "casefold": ("-O", "casefold", "-E", "encoding=utf8"),
    "verity": ("-O", "verity"),
    "attributes-in-blocks": ("-O", "ea_inode", "-I", "128"),
    "project-quota": ("-O", "project,quota"),
}
BLOCK_SIZE = re.compile(r"^Block size: *(\d+)$", re.M)


def some_files(directory):
    """A directory of several blocks, a file of several, links of both kinds."""
    os.makedirs(directory / "crowd")
    for number in range(1500):
        (directory / "crowd" / ("a-name-that-fills-its-block-sooner-%d" % number)).touch()
    (directory / "file").write_bytes(b"content" * 60000)
    os.link(directory / "file", directory / "crowd" / "again")
    os.symlink("file", directory / "fast")
    os.symlink("/far" * 40, directory / "slow")


def rounds(directory):
    """What is done, one round after the other."""
    (directory / "more").write_bytes(b"another" * 30000)
    yield ["ea_set file user.one 1", "ea_set crowd user.one 1", "ea_set crowd/again user.two 2"]
    # Linux changes an inode's ctime with its attributes, debugfs does not.
    yield ["ea_set file user.one 3", "ea_set crowd user.three 1", "ea_rm crowd user.one",
           "sif file ctime 20300101000000", "sif crowd ctime 20300101000000"]
    yield ["mkdir made", "write %s made/more" % (directory / "more"), "symlink made/far %s" % ("/away" * 20),
           "rm crowd/a-name-that-fills-its-block-sooner-7", "ln file made/hard"]
    yield ["set_inode_field file mode 0100755", "set_inode_field made uid 1000",
           "rm crowd/a-name-that-fills-its-block-sooner-1400", "mkdir made/below", "rm slow"]
    yield ["write %s crowd/a-name-that-is-new" % (directory / "more"), "rm made/more", "mkdir made/below/deep",
           "unlink made/hard", "sif made/far gid 7"]


def made_offline(scratch, mkfs):
    tree_of = scratch / "tree"
    some_files(tree_of)
    image = scratch / "disk.img"
    guestdisk.make_image(image, "256M", (*mkfs, "-d", tree_of))
    return image, int(BLOCK_SIZE.search(guestdisk.run("dumpe2fs", "-h", image)).group(1))


def expect_followed(tapwire, recorded, expected):
    """Events over the crawl of the base are the crawl of the image, and what libext2fs says."""
    state = tapwire.crawl(recorded.base)
    for event in tapwire.infer(recorded.base, recorded.trace):
        state.apply(event)
    assert expected == offline.of_tree(state)
    final = tapwire.crawl(recorded.image)
    assert {path: final.lookup(path).xattrs for path in state.listing()} == {
        path: state.lookup(path).xattrs for path in state.listing()}
    property.expect_equal(tapwire.crawl(recorded.image).listing(), state.listing(), "crawl of the image")


@pytest.mark.slow
@pytest.mark.parametrize("name", UNMOUNTABLE)
def test_changes_in_place(tapwire, scratch, name):
    image, _ = made_offline(scratch, UNMOUNTABLE[name])
    assert offline.listing(image) == offline.of_tree(tapwire.crawl(image))
    with Recorded(tapwire, scratch, image) as recorded:
        for commands in rounds(scratch):
            offline.debugfs(recorded.disk, *commands, write=True)
    expect_followed(tapwire, recorded, offline.listing(image))


@pytest.mark.slow
@pytest.mark.parametrize("name", UNMOUNTABLE)
def test_changes_in_the_journal(tapwire, scratch, name):
    image, size = made_offline(scratch, UNMOUNTABLE[name])
    copy = os.fspath(scratch / "copy.img")
    before = os.fspath(scratch / "before.img")
    guestdisk.copy_image(image, copy)
    with Recorded(tapwire, scratch, image) as recorded:
        for commands in rounds(scratch):
            guestdisk.copy_image(copy, before)
            offline.debugfs(copy, *commands, write=True)
            offline.commit(recorded.disk, copy, offline.changed_blocks(before, copy, size), size)
    expect_followed(tapwire, recorded, offline.listing(copy))


def block_of(image, path, number):
    return int(offline.debugfs(image, "bmap %s %d" % (path, number))[0])


def test_what_lies_beyond_a_files_end_is_not_its_content(tapwire, scratch):
    """fs-verity: hashes of the content lie behind it. They give no ranges; that a file has become one
    with verity is an attribute."""
    image, size = made_offline(scratch, ("-O", "verity"))
    offline.debugfs(image, "set_inode_field file size 70000", write=True)
    with Recorded(tapwire, scratch, image) as recorded:
        for number in (-(-70000 // size), 131072 // size):
            at = block_of(image, "file", number)
            with open(recorded.disk, "r+b", buffering=0) as disk:
                disk.seek(at * size)
                disk.write(b"h" * size)
                os.fsync(disk.fileno())
        offline.debugfs(recorded.disk, "set_inode_field file flags 0x180000", write=True)
    events = [event for event in tapwire.infer(recorded.base, recorded.trace) if "subject" in event]
    assert [(event["type"], event["subject"], "ranges" in event["data"]) for event in events] == [
        (tree.PREFIX + "attributes", "/file", False)]


@pytest.mark.slow
def test_quotas(tapwire, scratch):
    """Quota files, which are inodes without names, kept by a kernel that has quotas."""
    reason = uml.missing()
    if reason:
        pytest.skip("no such guest here: " + reason)
    image = scratch / "disk.img"
    guestdisk.make_image(image, "256M", ("-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"))
    with Recorded(tapwire, scratch, image) as recorded:
        shown = uml.run(recorded.disk, scratch / "guest", """
for module in ("quota_tree", "quota_v2"):
    run("insmod", "/usr/lib/uml/modules/%s/kernel/fs/quota/%s.ko" % (os.uname().release, module))
root = mount("/dev/ubda")
work(root, 1, 600)
show(root, "root")
run("umount", root)
""")
    state = tapwire.crawl(recorded.base)
    for event in tapwire.infer(recorded.base, recorded.trace):
        state.apply(event)
    property.expect_equal(shown["root"], state.listing(), "against the guest")
    property.expect_equal(tapwire.crawl(image).listing(), state.listing(), "crawl of the image")
