/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a crawl cannot do without, by libext2fs alone: every inode in use, every name of every
 * directory, nothing kept. Prints how many of both.
 */
#include <ext2fs/ext2fs.h>

#include <stdio.h>

struct counts {
	unsigned long long inodes, names;
};

static int count_name(ext2_ino_t dir, int entry, struct ext2_dir_entry *dirent, int offset,
	int blocksize, char *buf, void *arg)
{
	struct counts *counts = arg;
	(void)dir, (void)dirent, (void)offset, (void)blocksize, (void)buf;
	if (entry == DIRENT_OTHER_FILE)
		counts->names++;
	return 0;
}

static errcode_t scan(ext2_filsys fs, struct counts *counts)
{
	ext2_inode_scan inodes;
	errcode_t err = ext2fs_open_inode_scan(fs, 0, &inodes);
	if (err)
		return err;
	for (;;) {
		struct ext2_inode_large inode;
		ext2_ino_t ino;
		err = ext2fs_get_next_inode_full(inodes, &ino, (struct ext2_inode *)&inode,
			sizeof(inode));
		if (err || !ino)
			break;
		if (!inode.i_links_count || (ino != EXT2_ROOT_INO && ino < EXT2_FIRST_INO(fs->super)))
			continue;
		counts->inodes++;
		if (!LINUX_S_ISDIR(inode.i_mode))
			continue;
		err = ext2fs_dir_iterate2(fs, ino, 0, NULL, count_name, counts);
		if (err)
			break;
	}
	ext2fs_close_inode_scan(inodes);
	return err;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: crawl_scan IMAGE\n");
		return 2;
	}
	struct counts counts = { 0 };
	ext2_filsys fs;
	errcode_t err = ext2fs_open(argv[1], EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs);
	if (!err) {
		err = scan(fs, &counts);
		ext2fs_close_free(&fs);
	}
	if (err) {
		fprintf(stderr, "crawl_scan: %s: error %ld\n", argv[1], (long)err);
		return 1;
	}
	printf("%llu inodes, %llu names\n", counts.inodes, counts.names);
	return 0;
}
