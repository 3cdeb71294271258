/* SPDX-License-Identifier: BSD-3-Clause */
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* No checksums, so that what is patched is looked at. */
#define FIXED_TIME "set -e; PATH=/usr/sbin:/usr/bin:/sbin:/bin; export E2FSPROGS_FAKE_TIME=1700000000;"
_Static_assert(FUZZ_IMAGE_BYTES == 3072 << 10, "as in the scripts");
#define FIXED_IDS                                                                                   \
	" -U 12345678-1234-1234-1234-123456789abc -E hash_seed=12345678-1234-1234-1234-123456789abc" \
	" img 3072 >/dev/null 2>&1"

static const char plain[] =
	FIXED_TIME
	"mkdir -p t/d/e; echo x >t/d/file; ln t/d/file t/link; ln -s d/file t/fast; mkfifo t/fifo;"
	"ln -s /$(printf '%090d' 1) t/slow;"
	"for i in 0 1 2 3 4 5 6 7; do"
	" printf x | dd of=t/sparse bs=1k seek=$((i*2)) conv=notrunc 2>/dev/null; done;"
	"find t -exec touch -h -d @1700000000 {} +;"
	"mkfs.ext4 -q -F -b 1024 -N 64 -d t -O ^metadata_csum,^64bit,^resize_inode"
	FIXED_IDS;

static const char inodes[] =
	FIXED_TIME
	"mkdir -p t/d/e t/secret; echo x >t/d/file; ln t/d/file t/link; ln -s /$(printf '%0140d' 1) t/slow;"
	"for i in 0 1; do printf %0100d $i >t/d/n$i; done;"
	"printf '%02000d' 1 >value;"
	"find t -exec touch -h -d @1700000000 {} +;"
	"mkfs.ext4 -q -F -b 1024 -I 256 -N 64 -d t -O inline_data,ea_inode,encrypt,^metadata_csum,^64bit,^resize_inode"
	FIXED_IDS ";"
	"printf '%s\\n' 'ea_set d/file user.a 1' 'ea_set secret user.b 22' 'ea_set -f value d/file user.big'"
	" 'ea_set link security.c 333' 'sif secret flags 0x10000800' | debugfs -w -f - img >/dev/null 2>&1";

static uint8_t *make(const char *script)
{
	char dir[] = "/tmp/tapwire-fuzz-XXXXXX", command[4096], path[64];
	uint8_t *image = malloc(FUZZ_IMAGE_BYTES);
	if (!image || !mkdtemp(dir))
		abort();
	int n = snprintf(command, sizeof(command), "cd %s; ", dir);
	snprintf(command + n, sizeof(command) - (size_t)n, "%s", script);
	if (system(command) != 0)
		abort();
	snprintf(path, sizeof(path), "%s/img", dir);
	FILE *file = fopen(path, "rb");
	if (!file || fread(image, 1, FUZZ_IMAGE_BYTES, file) != FUZZ_IMAGE_BYTES)
		abort();
	fclose(file);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (system(command) != 0)
		abort();
	return image;
}

const uint8_t *fuzz_image(void)
{
	static uint8_t *image;
	if (!image)
		image = make(plain);
	return image;
}

const uint8_t *fuzz_image_of_inodes(void)
{
	static uint8_t *image;
	if (!image)
		image = make(inodes);
	return image;
}

struct tw_error *fuzz_read(void *arg, uint64_t offset, void *buf, size_t len)
{
	memcpy(buf, (const uint8_t *)arg + offset, len);
	return NULL;
}
