/* SPDX-License-Identifier: BSD-3-Clause */
/* A small ext4 image in memory, made by mkfs.ext4 from a tree with some of everything. */
#ifndef EXT4_IMAGE_H
#define EXT4_IMAGE_H

#include "../check.h"

#include "volume/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_BYTES (4u << 20)

struct image {
	uint8_t *bytes;
	struct tw_source source;
};

static inline struct tw_error *image_read(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct image *image = arg;
	memcpy(buf, image->bytes + offset, len);
	return NULL;
}

static inline void shell(const char *dir, const char *script)
{
	char command[4096];
	snprintf(command, sizeof(command), "set -e; PATH=/usr/sbin:/usr/bin:/sbin:/bin; cd %s; %s", dir,
		script);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

/* Hard links, a directory of many blocks, a file with many extents, symlinks of both kinds, a fifo. */
#define IMAGE_TREE                                                                                 \
	"mkdir -p t/etc t/big t/deep/a/b/c;"                                                       \
	"echo host >t/etc/hostname; ln t/etc/hostname t/etc/second; ln t/etc/hostname t/third;"    \
	"ln t/etc/hostname t/deep/fourth; ln -s etc/hostname t/fast; mkfifo t/fifo;"               \
	"ln -s /$(printf '%090d' 1) t/slow; chmod 4711 t/third; : >t/empty;"                       \
	"i=0; while [ $i -lt 150 ]; do : >t/big/a-file-with-a-long-name-$i; i=$((i+1)); done;"    \
	"i=0; while [ $i -lt 40 ]; do"                                                             \
	" dd if=/dev/zero of=t/sparse bs=1k count=1 seek=$((i*3)) conv=notrunc 2>/dev/null;"      \
	" printf x | dd of=t/sparse bs=1k seek=$((i*3)) conv=notrunc 2>/dev/null; i=$((i+1)); done;"

/* mkfs: more arguments of mkfs.ext4. */
static inline struct image *image_new(const char *mkfs)
{
	struct image *image = calloc(1, sizeof(*image));
	char dir[] = "/tmp/tapwire-image-XXXXXX", script[2048], path[64];
	assert_non_null(mkdtemp(dir));
	snprintf(script, sizeof(script), "%s mkfs.ext4 -q -F -b 1024 -d t %s img %u >/dev/null 2>&1",
		IMAGE_TREE, mkfs, IMAGE_BYTES / 1024);
	shell(dir, script);
	snprintf(path, sizeof(path), "%s/img", dir);
	FILE *file = fopen(path, "rb");
	image->bytes = malloc(IMAGE_BYTES);
	assert_int_equal(fread(image->bytes, 1, IMAGE_BYTES, file), IMAGE_BYTES);
	fclose(file);
	shell("/tmp", (snprintf(script, sizeof(script), "rm -rf %s", dir), script));
	image->source = (struct tw_source){
		.read = image_read, .arg = image, .bytes = IMAGE_BYTES, .parallel = true };
	return image;
}

static inline void image_free(struct image *image)
{
	free(image->bytes);
	free(image);
}

/* A random command of debugfs; many of them fail, as the name is taken or is not there. */
static inline void random_command(struct dice *dice, char *out, size_t size)
{
	static const char *const commands[][2] = { { "mkdir", "" }, { "write t/sparse", "" },
		{ "write t/etc/hostname", "" }, { "symlink", "target" }, { "rm", "" }, { "rm", "" },
		{ "rmdir", "" }, { "ea_set", "user.a b" }, { "set_inode_field", "mtime 1234567" },
		{ "set_inode_field", "uid 9" },
		{ "symlink", "/a/target/that/is/long/enough/not/to/be/in/the/inode/itself/but/in/a/block" } };
	static const char *const dirs[] = { "", "deep/", "deep/a/", "etc/", "A/", "B/", "deep/A/" };
	unsigned which = roll(dice, 11);
	snprintf(out, size, "%s %s%c %s", commands[which][0], dirs[roll(dice, 7)],
		(int)('A' + roll(dice, 4)), commands[which][1]);
}

#endif
