# SPDX-License-Identifier: BSD-3-Clause
"""What ext2, ext3 and ext4 keep on a disk in other ways: clusters, inline data, values in inodes,
encryption, large blocks. Each is followed on a kernel's mount where the kernel here has it."""
import pytest

from lib import guestdisk
from lib.workload import Mix
from test_property import random_mix

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
