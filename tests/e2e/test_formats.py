# SPDX-License-Identifier: BSD-3-Clause
"""What ext2, ext3 and ext4 keep on a disk in other ways: clusters, inline data, values in inodes,
encryption, large blocks. Each is followed on a kernel's mount where the kernel here has it."""
import os
import re

import pytest

from lib import guestdisk, offline, property
from lib.workload import Mix
from test_property import random_mix
from test_replay import Recorded

pytestmark = pytest.mark.usefixtures("mountable")

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


# --- what no kernel here mounts: libext2fs writes it, in place or as a transaction ---

UNMOUNTABLE = {
    "blocks-64k": ("-b", "65536"),
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
    property.expect_equal(tapwire.crawl(recorded.image).listing(), state.listing(), "crawl of the image")


@pytest.mark.parametrize("name", UNMOUNTABLE)
def test_changes_in_place(tapwire, scratch, name):
    image, _ = made_offline(scratch, UNMOUNTABLE[name])
    assert offline.listing(image) == offline.of_tree(tapwire.crawl(image))
    with Recorded(tapwire, scratch, image) as recorded:
        for commands in rounds(scratch):
            offline.debugfs(recorded.disk, *commands, write=True)
    expect_followed(tapwire, recorded, offline.listing(image))


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
