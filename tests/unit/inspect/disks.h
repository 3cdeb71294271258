/* SPDX-License-Identifier: BSD-3-Clause */
/* A directory with an image, and a second image of the same disk some changes later. */
#ifndef INSPECT_DISKS_H
#define INSPECT_DISKS_H

#include "../check.h"

#include "inspect/disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK_BYTES (4u << 20)

struct disks {
	char dir[48];
	char image[64], ring[64], state[64];
	uint8_t *before, *after;
};

static inline void shell(const char *dir, const char *script)
{
	char command[4096];
	snprintf(command, sizeof(command), "set -e; PATH=/usr/sbin:/usr/bin:/sbin:/bin; cd %s; %s", dir,
		script);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

static inline uint8_t *file_bytes(const char *path)
{
	uint8_t *bytes = malloc(DISK_BYTES);
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	assert_int_equal(fread(bytes, 1, DISK_BYTES, file), DISK_BYTES);
	fclose(file);
	return bytes;
}

static inline int disks_setup(void **state)
{
	struct disks *d = calloc(1, sizeof(*d));
	char path[80];
	strcpy(d->dir, "/tmp/tapwire-disks-XXXXXX");
	assert_non_null(mkdtemp(d->dir));
	snprintf(d->image, sizeof(d->image), "%s/img", d->dir);
	snprintf(d->ring, sizeof(d->ring), "%s/ring", d->dir);
	snprintf(d->state, sizeof(d->state), "%s/state", d->dir);
	shell(d->dir, "mkdir -p t/etc; echo host >t/etc/hostname; echo x >t/file; ln t/file t/etc/link;"
		"mkfs.ext4 -q -F -b 1024 -d t img 4096 >/dev/null 2>&1; cp img after;"
		"(echo 'write t/file new'; echo 'mkdir etc/sub'; echo 'unlink etc/link'; echo 'sif file links_count 1';"
		" echo 'sif file mode 0100600') | debugfs -w -f - after >/dev/null 2>&1");
	d->before = file_bytes(d->image);
	snprintf(path, sizeof(path), "%s/after", d->dir);
	d->after = file_bytes(path);
	assert_memory_not_equal(d->before, d->after, DISK_BYTES);
	*state = d;
	return 0;
}

static inline int disks_teardown(void **state)
{
	struct disks *d = *state;
	shell(d->dir, "rm -rf t img after ring ring.cursor ring.bell ring.interest state");
	int ret = rmdir(d->dir);
	free(d->before);
	free(d->after);
	free(d);
	return ret;
}

/* Puts bytes of the image where they belong. */
static inline void image_write(const struct disks *d, uint64_t offset, const void *data, size_t len)
{
	int fd = open(d->image, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, data, len, (off_t)offset), len);
	close(fd);
}

static inline struct tw_error *no_event(const struct tw_event *event, void *arg)
{
	(void)event, (void)arg;
	return NULL;
}

static inline struct tw_error *walk_line(const struct tw_event *e, void *arg)
{
	tw_buf_printf(arg, "%.*s %d %llu %o %u %llu\n", (int)e->path.len, (const char *)e->path.data,
		e->kind, (unsigned long long)e->inode, e->mode, e->nlink, (unsigned long long)e->size);
	return NULL;
}

/* The tree of a disk as text; the caller frees. */
static inline char *tree_of(struct tw_disk *disk)
{
	struct tw_buf out = TW_BUF_INIT;
	ok(tw_disk_walk(disk, walk_line, &out));
	tw_buf_append(&out, "", 1);
	return out.data;
}

/* The tree that a crawl of the image as it is now gives. */
static inline char *tree_of_image(const struct disks *d)
{
	struct tw_disk *disk;
	ok(tw_disk_create(d->image, "test", no_event, NULL, &disk));
	ok(tw_disk_crawl(disk, true));
	char *tree = tree_of(disk);
	tw_disk_destroy(disk);
	return tree;
}

#define DISK_TEST(f) cmocka_unit_test_setup_teardown(f, disks_setup, disks_teardown)

#endif
