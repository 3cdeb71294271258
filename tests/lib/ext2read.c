/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A volume as libext2fs reads it, by code that is not the product's.
 *
 *   ext2read tree IMAGE          one record a name: its fields, each ended by a NUL
 *   ext2read changes OLD NEW     of each file of NEW, what differs from OLD: lines "inode generation start end",
 *                                in bytes, end exclusive. A file that OLD has not is compared with zeroes
 *
 * Fields: path, kind, size, mode (octal), uid, gid, links, mtime and ctime (seconds:ns), target (hexadecimal),
 * major:minor, inode, generation, names of extended attributes (each after a space). Names in an encrypted directory
 * are shown in base64.
 */
#include <ext2fs/ext2fs.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 16, SECTOR = 512, SKIP = 1 << 20 };

struct volume {
	ext2_filsys fs;
	size_t inode_size;
};

static void ok(errcode_t err, const char *what, uint64_t which)
{
	if (!err)
		return;
	fprintf(stderr, "ext2read: %s %" PRIu64 ": %s\n", what, which, error_message(err));
	exit(1);
}

static void *allocated(size_t size)
{
	void *memory = calloc(1, size);
	if (!memory)
		ok(EXT2_ET_NO_MEMORY, "memory", size);
	return memory;
}

static struct volume opened(const char *path)
{
	struct volume vol;
	ok(ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &vol.fs), path, 0);
	vol.inode_size = EXT2_INODE_SIZE(vol.fs->super);
	return vol;
}

/* As long as the volume's inodes, and never shorter than the structure. */
static struct ext2_inode_large *inode_of(struct volume *vol, ext2_ino_t ino)
{
	size_t size = vol->inode_size > sizeof(struct ext2_inode_large) ? vol->inode_size :
									    sizeof(struct ext2_inode_large);
	struct ext2_inode_large *inode = allocated(size);
	ok(ext2fs_read_inode_full(vol->fs, ino, (struct ext2_inode *)inode, (int)vol->inode_size), "inode", ino);
	return inode;
}

/* SECONDS:NANOSECONDS. Nanoseconds since the epoch do not always fit 64 bits. */
static void put_time(struct volume *vol, const struct ext2_inode_large *inode, uint32_t seconds,
	uint32_t extra, size_t extra_end)
{
	if (vol->inode_size <= EXT2_GOOD_OLD_INODE_SIZE ||
		EXT2_GOOD_OLD_INODE_SIZE + (size_t)inode->i_extra_isize < extra_end)
		extra = 0;
	printf("%" PRId64 ":%u%c", (int32_t)seconds + ((int64_t)(extra & 3) << 32), extra >> 2, 0);
}

#define PUT_TIME(vol, inode, name) \
	put_time(vol, inode, (inode)->i_##name, (inode)->i_##name##_extra, \
		offsetof(struct ext2_inode_large, i_##name##_extra) + 4)

static void put_target(struct volume *vol, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	char *target = allocated(CHUNK);
	unsigned got = 0;
	ext2_file_t file;
	uint64_t size = EXT2_I_SIZE(inode);
	if (!LINUX_S_ISLNK(inode->i_mode)) {
		;
	} else if (ext2fs_is_fast_symlink((struct ext2_inode *)inode)) {
		memcpy(target, inode->i_block, size);
	} else if (inode->i_flags & EXT4_INLINE_DATA_FL) {
		size_t len = CHUNK;
		ok(ext2fs_inline_data_get(vol->fs, ino, (struct ext2_inode *)inode, target, &len), "inline", ino);
	} else {
		ok(ext2fs_file_open2(vol->fs, ino, (struct ext2_inode *)inode, 0, &file), "symlink", ino);
		ok(ext2fs_file_read(file, target, CHUNK, &got), "symlink", ino);
		ext2fs_file_close(file);
	}
	for (uint64_t i = 0; LINUX_S_ISLNK(inode->i_mode) && i < size && i < CHUNK; i++)
		printf("%02x", (unsigned char)target[i]);
	putchar(0);
	free(target);
}

static int put_xattr(char *name, char *value, size_t value_len, void *arg)
{
	(void)value, (void)value_len, (void)arg;
	/* The content of a file that is kept in its inode is none; libext2fs has no name for one kind. */
	if (strcmp(name, "system.data"))
		printf(" %s%s", strcmp(name, "c") ? "" : "encryption.", name);
	return 0;
}

static void put_xattrs(struct volume *vol, ext2_ino_t ino)
{
	struct ext2_xattr_handle *handle;
	errcode_t err = ext2fs_xattrs_open(vol->fs, ino, &handle);
	/* The first attribute brings the feature. */
	if (err != EXT2_ET_MISSING_EA_FEATURE) {
		ok(err, "attributes", ino);
		ok(ext2fs_xattrs_read(handle), "attributes", ino);
		ext2fs_xattrs_iterate(handle, put_xattr, NULL);
		ext2fs_xattrs_close(&handle);
	}
	putchar(0);
}

static void put_device(const struct ext2_inode_large *inode)
{
	uint32_t old = inode->i_block[0], new = inode->i_block[1];
	if (!LINUX_S_ISCHR(inode->i_mode) && !LINUX_S_ISBLK(inode->i_mode))
		putchar(0);
	else if (old)
		printf("%u:%u%c", old >> 8 & 0xff, old & 0xff, 0);
	else
		printf("%u:%u%c", (new & 0xfff00) >> 8, (new & 0xff) | (new >> 12 & 0xfff00), 0);
}

static const char *kind_of(const struct ext2_inode_large *inode)
{
	static const char *const kinds[16] = {
		[1] = "fifo", [2] = "char", [4] = "dir", [6] = "block", [8] = "file", [10] = "symlink", [12] = "socket"
	};
	const char *kind = kinds[inode->i_mode >> 12];
	return kind ? kind : "?";
}

static void put_record(struct volume *vol, const char *path, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	printf("%s%c%s%c%" PRIu64 "%c%o%c%u%c%u%c%u%c", path, 0, kind_of(inode), 0,
		(uint64_t)EXT2_I_SIZE(inode), 0, inode->i_mode & 07777, 0, inode_uid(*inode), 0,
		inode_gid(*inode), 0, inode->i_links_count, 0);
	PUT_TIME(vol, inode, mtime);
	PUT_TIME(vol, inode, ctime);
	put_target(vol, ino, inode);
	put_device(inode);
	printf("%u%c%u%c", ino, 0, inode->i_generation, 0);
	put_xattrs(vol, ino);
}

/* --- the tree --- */

struct place {
	struct volume *vol;
	const char *path;
	bool opaque; /* names are bytes that say nothing */
};

/* RFC 4648's alphabet for URLs, without padding; the caller frees. */
static char *base64(const char *bytes, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char *text = allocated(len * 2 + 4), *at = text;
	for (size_t i = 0; i < len; i += 3) {
		unsigned char in[3] = { 0 };
		size_t n = len - i < 3 ? len - i : 3;
		memcpy(in, bytes + i, n);
		unsigned all = (unsigned)in[0] << 16 | (unsigned)in[1] << 8 | in[2];
		for (size_t k = 0; k <= n; k++)
			*at++ = digits[all >> (18 - 6 * k) & 63];
	}
	return text;
}

static void put_below(struct volume *vol, const char *path, ext2_ino_t ino);

static int on_entry(ext2_ino_t dir, int entry, struct ext2_dir_entry *dirent, int offset, int blocksize,
	char *buf, void *arg)
{
	struct place *place = arg;
	int len = ext2fs_dirent_name_len(dirent);
	const char *name = dirent->name;
	(void)dir, (void)entry, (void)offset, (void)blocksize, (void)buf;
	if (!dirent->inode || (len == 1 && name[0] == '.') || (len == 2 && !memcmp(name, "..", 2)))
		return 0;
	char *path, *shown = place->opaque ? base64(name, (size_t)len) : strndup(name, (size_t)len);
	if (asprintf(&path, "%s/%s", place->path[1] ? place->path : "", shown) < 0)
		ok(EXT2_ET_NO_MEMORY, "path", dirent->inode);
	put_below(place->vol, path, dirent->inode);
	free(path);
	free(shown);
	return 0;
}

static void put_below(struct volume *vol, const char *path, ext2_ino_t ino)
{
	struct ext2_inode_large *inode = inode_of(vol, ino);
	struct place place = { vol, path, inode->i_flags & EXT4_ENCRYPT_FL };
	put_record(vol, path, ino, inode);
	if (LINUX_S_ISDIR(inode->i_mode))
		ok(ext2fs_dir_iterate2(vol->fs, ino, 0, NULL, on_entry, &place), "directory", ino);
	free(inode);
}

/* --- changes of content --- */

/* A bit for each SKIP bytes of a file: whether any block is mapped there. */
struct coverage {
	uint64_t chunk_blocks, len;
	unsigned char *has;
};

static int on_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t logical, blk64_t ref, int offset, void *arg)
{
	struct coverage *coverage = arg;
	(void)fs, (void)block, (void)ref, (void)offset;
	uint64_t at = (uint64_t)logical / coverage->chunk_blocks;
	if (logical >= 0 && at < coverage->len)
		coverage->has[at] = 1;
	return 0;
}

static void cover(struct volume *vol, ext2_ino_t ino, struct ext2_inode_large *inode, struct coverage *coverage)
{
	coverage->chunk_blocks = SKIP / vol->fs->blocksize;
	if (inode->i_flags & EXT4_INLINE_DATA_FL)
		coverage->has[0] = 1;
	else
		ok(ext2fs_block_iterate3(vol->fs, ino, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, NULL, on_block,
			   coverage), "blocks", ino);
}

/* libext2fs reads inline data beyond a file's end: it is cut here. */
static unsigned read_at(ext2_file_t file, uint64_t offset, char *out, unsigned len)
{
	unsigned got = 0;
	__u64 size;
	memset(out, 0, len);
	if (!file)
		return 0;
	ok(ext2fs_file_get_lsize(file, &size), "size", offset);
	if (offset >= size)
		return 0;
	len = len < size - offset ? len : (unsigned)(size - offset);
	ok(ext2fs_file_llseek(file, offset, EXT2_SEEK_SET, NULL), "seek", offset);
	ok(ext2fs_file_read(file, out, len, &got), "read", offset);
	return got;
}

/* Of each sector that differs, from its first to its last byte that does. */
static void compare(const char *id, uint64_t base, const char *old, const char *new, unsigned len)
{
	for (unsigned at = 0; at < len; at += SECTOR) {
		unsigned end = at + SECTOR < len ? at + SECTOR : len, first = at;
		if (!memcmp(old + at, new + at, end - at))
			continue;
		while (old[first] == new[first])
			first++;
		while (old[end - 1] == new[end - 1])
			end--;
		printf("%s %" PRIu64 " %" PRIu64 "\n", id, base + first, base + end);
	}
}

static void compare_files(const char *id, ext2_file_t old, ext2_file_t new, const struct coverage *coverage)
{
	static char one[CHUNK], other[CHUNK];
	for (uint64_t i = 0; i < coverage->len; i++) {
		for (uint64_t at = i * SKIP; coverage->has[i] && at < (i + 1) * SKIP; at += CHUNK) {
			unsigned len = read_at(new, at, other, CHUNK);
			read_at(old, at, one, len ? len : 1);
			compare(id, at, one, other, len);
		}
	}
}

/* inode of NEW; OLD may have another file under this number, or none. */
static void put_changes(struct volume *old_vol, struct volume *vol, ext2_ino_t ino)
{
	struct ext2_inode_large *new = inode_of(vol, ino), *old = inode_of(old_vol, ino);
	ext2_file_t old_file = NULL, new_file = NULL;
	bool same = old->i_links_count && LINUX_S_ISREG(old->i_mode) && old->i_generation == new->i_generation;
	struct coverage coverage = { .len = EXT2_I_SIZE(new) / SKIP + 1 };
	char id[32];
	if (!LINUX_S_ISREG(new->i_mode) || !new->i_links_count)
		goto out;
	coverage.has = allocated(coverage.len);
	cover(vol, ino, new, &coverage);
	if (same) {
		cover(old_vol, ino, old, &coverage);
		ok(ext2fs_file_open2(old_vol->fs, ino, (struct ext2_inode *)old, 0, &old_file), "old file", ino);
	}
	ok(ext2fs_file_open2(vol->fs, ino, (struct ext2_inode *)new, 0, &new_file), "new file", ino);
	snprintf(id, sizeof(id), "%u %u", ino, new->i_generation);
	compare_files(id, old_file, new_file, &coverage);
	if (old_file)
		ext2fs_file_close(old_file);
	ext2fs_file_close(new_file);
	free(coverage.has);
out:
	free(new);
	free(old);
}

int main(int argc, char **argv)
{
	initialize_ext2_error_table();
	if (argc == 3 && !strcmp(argv[1], "tree")) {
		struct volume vol = opened(argv[2]);
		put_below(&vol, "/", EXT2_ROOT_INO);
		ext2fs_close(vol.fs);
	} else if (argc == 4 && !strcmp(argv[1], "changes")) {
		struct volume old = opened(argv[2]), new = opened(argv[3]);
		ok(ext2fs_read_inode_bitmap(new.fs), "bitmap", 0);
		for (ext2_ino_t ino = EXT2_FIRST_INO(new.fs->super); ino <= new.fs->super->s_inodes_count; ino++) {
			if (ext2fs_test_inode_bitmap2(new.fs->inode_map, ino))
				put_changes(&old, &new, ino);
		}
		ext2fs_close(old.fs);
		ext2fs_close(new.fs);
	} else {
		return 2;
	}
	return 0;
}
