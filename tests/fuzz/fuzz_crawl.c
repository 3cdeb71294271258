/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Input: patches to a small ext4 image: what part of it, where, how many bytes, and these. A byte
 * in front says how they come in: there before the crawl, written in place after it, or committed
 * through the journal after it; from 128 on it is the image whose inodes hold what they can.
 */
#include "base/log.h"
#include "ext4/ext4.h"
#include "ext4/module.h"
#include "input.h"
#include "record.h"

#include <stdlib.h>

enum { BLOCK = 1024, MAX_PATCHES = 64 };
enum how { BEFORE, IN_PLACE, JOURNAL };

static uint8_t *image; /* patched */
static uint32_t touched[MAX_PATCHES];
static unsigned ntouched;

/* Where the parts are, found once in the pristine image. */
static struct place {
	const uint8_t *image;
	uint32_t log[MAX_PATCHES + 3], table, root, nodes[2];
} places[2], place;

static struct tw_error *take_event(struct tw_event *event, void *arg)
{
	(void)arg;
	if (!event->path.len || *(const char *)event->path.data != '/')
		abort();
	return NULL;
}

static struct tw_fs_env env_of(uint8_t *bytes)
{
	return (struct tw_fs_env){ { .read = fuzz_read, .arg = bytes, .bytes = FUZZ_IMAGE_BYTES }, take_event,
		NULL, "fuzz", NULL };
}

static void find_places(const uint8_t *pristine)
{
	struct tw_fs_env env = env_of((uint8_t *)(uintptr_t)pristine);
	struct ext4 *fs;
	if (tw_fs_ext4.open(&env, (void **)&fs))
		abort();
	const struct tw_inode *journal = tw_view_inode(fs->view, EXT4_JOURNAL_INO);
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *e = tw_inode_extents(journal, &one, &n);
	for (; n--; e++)
		for (uint32_t k = 0; k < e->count; k++)
			if (e->lblk + k < MAX_PATCHES + 3)
				place.log[e->lblk + k] = (uint32_t)e->block + k;
	place.image = pristine;
	place.table = (uint32_t)fs->geo.itable[0];
	e = tw_inode_extents(tw_view_inode(fs->view, EXT4_ROOT_INO), &one, &n);
	place.root = n ? (uint32_t)e->block : place.table + 4;
	struct ext4_root *root = fs->roots;
	for (unsigned i = 0; root && i < 2 && i < root->nnodes; i++)
		place.nodes[i] = (uint32_t)root->nodes[i];
	ext4_destroy(fs);
}

static uint32_t part(uint32_t which)
{
	const uint32_t parts[] = { 1, 2, place.table, place.table + 1, place.table + 2,
		place.table + 3, place.root, place.log[0], place.log[1], place.nodes[0],
		place.root + 1, place.root + 2 };
	return parts[which % (sizeof(parts) / sizeof(*parts))];
}

static void patch(struct input *in)
{
	for (ntouched = 0; ntouched < MAX_PATCHES && in->size; ntouched++) {
		uint32_t which = take(in, 1);
		uint32_t block = which < 0xf0 ? part(which) : take(in, 2) % (FUZZ_IMAGE_BYTES / BLOCK);
		uint32_t at = take(in, 2) % BLOCK, len = take(in, 1) % 65;
		if (len > BLOCK - at)
			len = BLOCK - at;
		take_bytes(in, image + (size_t)block * BLOCK + at, len);
		touched[ntouched] = block;
	}
}

static struct tw_error *write_block(void *fs, uint32_t block, const uint8_t *data)
{
	struct tw_write write = { .offset = (uint64_t)block * BLOCK,
		.length = BLOCK,
		.payload = data,
		.flags = TW_RECORD_PAYLOAD,
		.time = { 1, 0 } };
	return tw_fs_ext4.write(fs, &write);
}

static void be32(uint8_t *at, uint32_t v)
{
	v = htobe32(v);
	memcpy(at, &v, 4);
}

static void header(uint8_t block[BLOCK], uint32_t type, uint32_t sequence)
{
	memset(block, 0, BLOCK);
	be32(block, 0xc03b3998);
	be32(block + 4, type);
	be32(block + 8, sequence);
}

/* One transaction with all patched blocks, as a guest without checksums would write it. */
static struct tw_error *commit(void *fs)
{
	uint8_t block[BLOCK], data[BLOCK];
	const uint32_t *at = place.log;
	memcpy(block, place.image + (size_t)*at * BLOCK, BLOCK);
	uint32_t sequence = tw_be32(tw_span(block, BLOCK), 24);
	be32(block + 28, 1);
	TW_TRY(write_block(fs, *at++, block));
	header(block, 1, sequence);
	for (unsigned i = 0; i < ntouched; i++) {
		be32(block + 12 + i * 8 + (i ? 16 : 0), touched[i]);
		block[12 + i * 8 + (i ? 16 : 0) + 7] = (uint8_t)((i ? 2 : 0) | (i + 1 == ntouched ? 8 : 0));
	}
	TW_TRY(write_block(fs, *at++, block));
	for (unsigned i = 0; i < ntouched; i++) {
		memcpy(data, image + (size_t)touched[i] * BLOCK, BLOCK);
		TW_TRY(write_block(fs, *at++, data));
	}
	header(block, 2, sequence);
	return write_block(fs, *at, block);
}

static struct tw_error *write_in_place(void *fs)
{
	for (unsigned i = 0; i < ntouched; i++)
		TW_TRY(write_block(fs, touched[i], image + (size_t)touched[i] * BLOCK));
	return NULL;
}

/* Whatever came of it can be walked and saved. */
static void use(struct ext4 *fs)
{
	struct tw_buf out = TW_BUF_INIT;
	tw_error_destroy(ext4_settle(fs, (struct tw_time){ 2, 0 }, true));
	const struct tw_inode *inode = tw_view_inode_next(fs->view, 1);
	for (; inode; inode = tw_view_inode_next(fs->view, inode->ino + 1)) {
		struct tw_event event = { 0 };
		tw_view_inode_path(fs->view, inode, &out);
		tw_buf_reset(&out);
		struct tw_attr attr = tw_view_attr(fs->view, inode);
		tw_error_destroy(ext4_attrs_names(fs, 0, attr.xattrs, &event));
	}
	tw_error_destroy(ext4_save(fs, &out));
	tw_buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint32_t first = take(&in, 1);
	enum how how = first % 3;
	void *fs = NULL;
	if (!image) {
		image = malloc(FUZZ_IMAGE_BYTES);
		if (!image)
			abort();
		tw_log_init("fuzz", TW_LOG_ERROR);
		find_places(fuzz_image());
		places[0] = place;
		memset(&place, 0, sizeof(place));
		find_places(fuzz_image_of_inodes());
		places[1] = place;
	}
	place = places[first >= 128];
	memcpy(image, place.image, FUZZ_IMAGE_BYTES);
	struct tw_fs_env env = env_of(image);
	if (how == BEFORE)
		patch(&in);
	struct tw_error *err = tw_fs_ext4.open(&env, &fs);
	if (!err && how != BEFORE) {
		patch(&in);
		err = how == JOURNAL ? commit(fs) : write_in_place(fs);
	}
	tw_error_destroy(err);
	if (fs)
		use(fs);
	ext4_destroy(fs);
	return 0;
}
