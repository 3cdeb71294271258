# SPDX-License-Identifier: BSD-3-Clause
"""The file systems that the oracle runs on: how each is made and mounted."""
import collections

Config = collections.namedtuple("Config", "mkfs options size aged kinds",
                                defaults=("", "96M", None, None))

BLOCKS_4K, BLOCKS_1K = ("-b", "4096"), ("-b", "1024")
# The smallest journals that mke2fs makes: 1,024 blocks, which wrap every second or so.
TINY_1K, TINY_4K = ("-b", "1024", "-J", "size=1"), ("-b", "4096", "-J", "size=4")


def _ext(kind, *args):
    return ("-t", kind, *args)


def _features(names, *args):
    return ("-t", "ext4", "-O", names, *(args or BLOCKS_4K))


# What a fast commit can say, and fsync often; anything else makes a whole transaction an ordinary one.
FAST = ("create", "write", "append", "appended", "direct", "synchronous", "shrink", "grow", "copy", "map", "punch",
        "unlink", "link", "rename_over", "symlink", "mkdir", "rmdir", "mknod", "chmod", "chown", "utimens", "orphan",
        "tmpfile", "close", *["fsync"] * 12)

# The mke2fs options of each name ("-t" included), what mount is told, the image's size; aged: tune2fs
# options that are given after the image was filled and half emptied again; kinds: what the mix is made of.
CONFIGS = {
    # sizes of blocks and inodes
    "ext4": Config(_ext("ext4", *BLOCKS_4K)),
    "blocks-2k": Config(_ext("ext4", "-b", "2048")),
    "blocks-1k": Config(_ext("ext4", *BLOCKS_1K)),
    "inodes-128": Config(_ext("ext4", *BLOCKS_4K, "-I", "128")),
    "inodes-512": Config(_ext("ext4", *BLOCKS_4K, "-I", "512")),
    "inodes-1024": Config(_ext("ext4", *BLOCKS_1K, "-I", "1024")),
    # older than ext4
    "ext2": Config(_ext("ext2", *BLOCKS_4K)),
    "ext2-old": Config(_ext("ext2", *BLOCKS_1K, "-I", "128", "-O", "none,sparse_super")),
    "ext3": Config(_ext("ext3", *BLOCKS_4K)),
    "ext3-old": Config(_ext("ext3", *TINY_1K, "-I", "128", "-O", "^dir_index,^resize_inode")),
    "no-journal": Config(_features("^has_journal")),
    "no-extents": Config(_features("^extent,^64bit", *BLOCKS_1K)),
    "no-64bit": Config(_features("^64bit")),
    "no-checksums": Config(_features("^metadata_csum")),
    "uninit-groups": Config(_features("^metadata_csum,uninit_bg", *BLOCKS_1K)),
    "no-file-types": Config(_features("^filetype")),
    "no-hash-trees": Config(_features("^dir_index")),
    # where things are
    "no-flexible-groups": Config(_features("^flex_bg", *BLOCKS_1K)),
    "meta-groups": Config(_features("meta_bg,^resize_inode", *BLOCKS_1K)),
    "sparse-super-2": Config(_features("sparse_super2,^resize_inode", *BLOCKS_1K)),
    # newer features
    "checksum-seed": Config(_features("metadata_csum_seed")),
    "large-directories": Config(_features("large_dir", *BLOCKS_1K)),
    "inline-data": Config(_features("inline_data")),
    "inline-data-large": Config(_features("inline_data", *BLOCKS_1K, "-I", "1024")),
    "clusters": Config(_features("bigalloc", *BLOCKS_4K, "-C", "16384")),
    "clusters-1k": Config(_features("bigalloc", *BLOCKS_1K, "-C", "65536")),
    "attribute-inodes": Config(_features("ea_inode")),
    "encrypted": Config(_features("encrypt"), "test_dummy_encryption"),
    "encrypted-inline": Config(_features("encrypt,inline_data"), "test_dummy_encryption"),
    "orphan-file": Config(_features("orphan_file")),
    "multi-mount": Config(_features("mmp", *BLOCKS_4K, "-E", "mmp_update_interval=1")),
    "modern": Config(_features(
        "inline_data,ea_inode,orphan_file,large_dir,metadata_csum_seed,fast_commit",
        *BLOCKS_4K)),
    # the journal
    "fast-commit": Config(_features("fast_commit")),
    "fast-commit-only": Config(_features("fast_commit"), kinds=FAST),
    "fast-commit-1k": Config(_features("fast_commit", *BLOCKS_1K), kinds=FAST),
    "fast-commit-wraps": Config(_features("fast_commit", "-b", "1024", "-J", "size=1,fast_commit_size=256"),
                                kinds=FAST),
    "journal-1m": Config(_ext("ext4", *TINY_1K)),
    "journal-4m": Config(_ext("ext4", *TINY_4K)),
    "journal-data": Config(_ext("ext4", *TINY_4K), "data=journal"),
    "journal-data-1k": Config(_ext("ext4", *TINY_1K), "data=journal"),
    "journal-32bit": Config(_features("^64bit,^metadata_csum", *TINY_1K)),
    "journal-checksum": Config(_features("^metadata_csum", *TINY_4K), "journal_checksum"),
    "journal-async": Config(_ext("ext4", *TINY_4K), "data=writeback,journal_async_commit"),
    "journal-fragmented": Config(_features("^has_journal", *BLOCKS_1K), "", "96M",
                                 ("-j", "-J", "size=4")),
    # ways to mount
    "writeback": Config(_ext("ext4", *BLOCKS_4K), "data=writeback"),
    "no-delayed-allocation": Config(_ext("ext4", *BLOCKS_4K), "nodelalloc"),
    "discard": Config(_ext("ext4", *BLOCKS_4K), "discard"),
    "read-unlocked": Config(_ext("ext4", *BLOCKS_1K), "dioread_nolock"),
    "read-locked": Config(_ext("ext4", *BLOCKS_4K), "dioread_lock"),
    "every-second": Config(_ext("ext4", *BLOCKS_4K), "commit=1"),
}

# Those that no kernel here mounts: they are made from a tree with mke2fs -d, and only read.
UNMOUNTED = {
    "blocks-64k": Config(_ext("ext4", "-b", "65536"), "", "512M"),
    "blocks-32k": Config(_ext("ext3", "-b", "32768"), "", "256M"),
    "case-folded": Config(_features("casefold", *BLOCKS_4K, "-E", "encoding=utf8")),
    "quota": Config(_features("quota,project", *BLOCKS_4K, "-E", "quotatype=usrquota:grpquota:prjquota")),
    "verity": Config(_features("verity,stable_inodes")),
    "wide": Config(_features("64bit,meta_bg,^resize_inode,large_dir,ea_inode", "-b", "1024", "-I", "512")),
}
