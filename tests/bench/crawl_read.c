/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The limit of a crawl: nothing but pread() of the bytes that it cannot do without, the used part of
 * the inode tables and the directories' blocks, in the disk's order. Where they are, libext2fs says
 * beforehand. crawl_read [-c] IMAGE; -c: from the disk, not from the page cache. Prints to standard
 * error how many seconds the reading alone took, and how many bytes there were.
 */
#define _GNU_SOURCE
#include <ext2fs/ext2fs.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1u << 20)

struct range {
	blk64_t block, count;
};

struct ranges {
	struct range *list;
	size_t n, cap;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void check(errcode_t err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "crawl_read: %s: error %ld\n", what, (long)err);
	exit(1);
}

static void add(struct ranges *r, blk64_t block, blk64_t count)
{
	if (!count)
		return;
	if (r->n == r->cap) {
		r->cap = r->cap ? 2 * r->cap : 1024;
		r->list = realloc(r->list, r->cap * sizeof(*r->list));
		if (!r->list)
			die("realloc");
	}
	r->list[r->n++] = (struct range){ block, count };
}

static int by_block(const void *a, const void *b)
{
	const struct range *x = a, *y = b;
	return x->block < y->block ? -1 : x->block > y->block;
}

/* Sorted, and neighbours made one. */
static void tidy(struct ranges *r)
{
	size_t n = 0;
	qsort(r->list, r->n, sizeof(*r->list), by_block);
	for (size_t i = 1; i < r->n; i++) {
		struct range *last = &r->list[n];
		if (last->block + last->count == r->list[i].block)
			last->count += r->list[i].count;
		else
			r->list[++n] = r->list[i];
	}
	r->n = r->n ? n + 1 : 0;
}

static void tables(ext2_filsys fs, struct ranges *r)
{
	unsigned per_block = EXT2_INODES_PER_BLOCK(fs->super);
	for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
		unsigned unused = 0;
		if (ext2fs_has_group_desc_csum(fs))
			unused = ext2fs_bg_flags_test(fs, g, EXT2_BG_INODE_UNINIT) ?
					 fs->super->s_inodes_per_group :
					 ext2fs_bg_itable_unused(fs, g);
		unsigned used = fs->super->s_inodes_per_group - unused;
		add(r, ext2fs_inode_table_loc(fs, g), (used + per_block - 1) / per_block);
	}
}

static int dir_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t count, blk64_t ref, int offset,
	void *arg)
{
	(void)fs, (void)count, (void)ref, (void)offset;
	add(arg, *block, 1);
	return 0;
}

static void directories(ext2_filsys fs, struct ranges *r)
{
	ext2_inode_scan inodes;
	struct ext2_inode inode;
	ext2_ino_t ino;
	check(ext2fs_open_inode_scan(fs, 0, &inodes), "inode scan");
	for (;;) {
		check(ext2fs_get_next_inode(inodes, &ino, &inode), "inode");
		if (!ino)
			break;
		if (inode.i_links_count && LINUX_S_ISDIR(inode.i_mode))
			check(ext2fs_block_iterate3(fs, ino, BLOCK_FLAG_DATA_ONLY, NULL, dir_block, r),
				"directory");
	}
	ext2fs_close_inode_scan(inodes);
}

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static unsigned long long read_all(int fd, const struct ranges *r, unsigned blocksize, char *buf)
{
	unsigned long long bytes = 0;
	for (size_t i = 0; i < r->n; i++) {
		unsigned long long at = r->list[i].block * blocksize;
		unsigned long long left = r->list[i].count * blocksize;
		while (left) {
			ssize_t n = pread(fd, buf, left < PIECE ? left : PIECE, (off_t)at);
			if (n <= 0)
				die("pread");
			at += (unsigned long long)n;
			left -= (unsigned long long)n;
			bytes += (unsigned long long)n;
		}
	}
	return bytes;
}

int main(int argc, char **argv)
{
	int cold = argc == 3 && !strcmp(argv[1], "-c");
	if (argc != 2 + cold) {
		fprintf(stderr, "usage: crawl_read [-c] IMAGE\n");
		return 2;
	}
	const char *image = argv[1 + cold];
	ext2_filsys fs;
	struct ranges r = { 0 };
	check(ext2fs_open(image, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs), image);
	tables(fs, &r);
	directories(fs, &r);
	tidy(&r);
	int fd = open(image, O_RDONLY);
	char *buf = malloc(PIECE);
	if (fd < 0 || !buf)
		die(image);
	memset(buf, 1, PIECE);
	if (cold && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		die("fadvise");
	double start = now();
	unsigned long long bytes = read_all(fd, &r, fs->blocksize, buf);
	fprintf(stderr, "%.6f s, %llu bytes, %zu ranges\n", now() - start, bytes, r.n);
	ext2fs_close_free(&fs);
	return 0;
}
