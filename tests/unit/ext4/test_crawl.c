/* SPDX-License-Identifier: BSD-3-Clause */
/* Crawls of an image made by mkfs.ext4, with parts of it replaced by hand. No checksums, so that these count. */
#include "image.h"
#include "journal.h"

#include "ext4/ext4.h"
#include "ext4/module.h"
#include "record.h"

struct crawl {
	struct image *image;
	struct tw_fs_env env;
	struct ext4 *fs;
	struct tw_buf events;
};

static struct tw_error *keep_event(struct tw_event *event, void *arg)
{
	struct crawl *c = arg;
	tw_buf_printf(&c->events, "%s %.*s\n", tw_event_type_name(event->type) + 17,
		(int)event->path.len, (const char *)event->path.data);
	return NULL;
}

static int setup(void **state)
{
	struct crawl *c = calloc(1, sizeof(*c));
	c->image = image_new("-O ^metadata_csum,^64bit");
	c->env = (struct tw_fs_env){ c->image->source, keep_event, c, "test", NULL };
	ok(tw_fs_ext4.open(&c->env, (void **)&c->fs));
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	struct crawl *c = *state;
	ext4_destroy(c->fs);
	image_free(c->image);
	tw_buf_deinit(&c->events);
	free(c);
	return 0;
}

static struct tw_error *again(struct crawl *c)
{
	ext4_destroy(c->fs);
	c->fs = NULL;
	return tw_fs_ext4.open(&c->env, (void **)&c->fs);
}

static uint8_t *block_at(struct crawl *c, uint64_t block)
{
	return c->image->bytes + block * 1024;
}

/* An inode's slot in the image. */
static uint8_t *slot(struct crawl *c, uint32_t ino)
{
	const struct ext4_geometry *geo = &c->fs->geo;
	uint32_t group = (ino - 1) / geo->inodes_per_group, index = (ino - 1) % geo->inodes_per_group;
	return block_at(c, geo->itable[group]) + index * geo->inode_size;
}

static uint32_t lookup(const struct crawl *c, uint32_t dir, const char *name)
{
	const struct tw_inode *inode = tw_view_inode(c->fs->view, dir);
	for (uint32_t b = 0; inode && b < tw_inode_nblocks(inode); b++) {
		const struct tw_dirblock *holder = tw_view_dirblock_at(c->fs->view, inode, b);
		const struct tw_name *n = tw_view_block_names(c->fs->view, holder);
		for (; n; n = tw_view_block_next(c->fs->view, n))
			if (n->len == strlen(name) && !memcmp(n->bytes, name, n->len))
				return n->ino;
	}
	return 0;
}

static uint64_t first_block(const struct crawl *c, uint32_t ino)
{
	const struct tw_inode *inode = tw_view_inode(c->fs->view, ino);
	struct tw_extent one;
	uint32_t n = 0;
	const struct tw_extent *e = inode ? tw_inode_extents(inode, &one, &n) : NULL;
	assert_true(n);
	return e->block;
}

static void a_feature_that_is_not_followed_is_named(void **state)
{
	struct crawl *c = *state;
	c->image->bytes[1024 + 0x61] |= 0x10; /* dirdata */
	struct tw_error *err = again(c);
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), TW_UNSUPPORTED);
	assert_non_null(strstr(tw_error_message(err), "dirdata"));
	tw_error_destroy(err);
}

static void an_image_that_is_cut_off_is_refused(void **state)
{
	struct crawl *c = *state;
	c->env.source.bytes -= 1024;
	fails(again(c), TW_BAD_DATA);
	c->env.source.bytes = 1500;
	fails(again(c), TW_BAD_DATA);
}

static void without_a_root_directory_there_is_nothing(void **state)
{
	struct crawl *c = *state;
	memset(slot(c, 2), 0, c->fs->geo.inode_size);
	fails(again(c), TW_BAD_DATA);
}

static void without_a_journal_there_is_nothing(void **state)
{
	struct crawl *c = *state;
	uint8_t *journal = block_at(c, first_block(c, EXT4_JOURNAL_INO));
	uint8_t *inode = slot(c, EXT4_JOURNAL_INO);
	journal[0] ^= 1;
	fails(again(c), TW_BAD_DATA);
	journal[0] ^= 1;
	memset(inode, 0, 128);
	fails(again(c), TW_BAD_DATA);
}

static void a_block_that_two_directories_claim_is_loaded_once(void **state)
{
	struct crawl *c = *state;
	uint32_t big = lookup(c, 2, "big"), deep = lookup(c, 2, "deep");
	uint64_t names = tw_view_name_count(c->fs->view);
	assert_true(big && deep);
	memcpy(slot(c, deep) + 0x28, slot(c, big) + 0x28, 60);
	ok(again(c));
	assert_true(tw_view_name_count(c->fs->view) <= names);
}

static void a_mapping_of_nonsense_costs_that_file_only(void **state)
{
	struct crawl *c = *state;
	uint32_t sparse = lookup(c, 2, "sparse");
	uint64_t names = tw_view_name_count(c->fs->view);
	memset(slot(c, sparse) + 0x28, 0xff, 60);
	ok(again(c));
	assert_int_equal(tw_view_name_count(c->fs->view), names);
	struct tw_extent one;
	uint32_t n;
	tw_inode_extents(tw_view_inode(c->fs->view, sparse), &one, &n);
	assert_int_equal(n, 0);
}

static bool owns_anything(const struct crawl *c, uint32_t ino)
{
	struct tw_owner o;
	for (uint64_t at = 0; tw_owners_find(tw_view_owners(c->fs->view), at, UINT64_MAX, &o);
		at = o.block + o.count)
		if (o.ino == ino)
			return true;
	return false;
}

/* The slot of a file without links; dtime says whether it is deleted or only open. */
static uint32_t unlinked(struct crawl *c, uint32_t dtime)
{
	uint32_t sparse = lookup(c, 2, "sparse");
	uint8_t *raw = slot(c, sparse), *root = block_at(c, first_block(c, 2));
	for (size_t i = 8; i + 6 < 1024; i++)
		if (!memcmp(root + i, "sparse", 6))
			memset(root + i - 8, 0, 4);
	memset(raw + 0x1a, 0, 2);
	memcpy(raw + 0x14, &(uint32_t){ htole32(dtime) }, 4);
	return sparse;
}

/* Its mapping may still be there, and its blocks be another file's. */
static void a_deleted_inode_owns_nothing(void **state)
{
	struct crawl *c = *state;
	uint32_t ino = unlinked(c, 1700000000);
	ok(again(c));
	assert_false(owns_anything(c, ino));
}

/* On the list of orphans the field is the next one's number, 0 at the end. */
static void an_open_file_without_names_owns_its_blocks(void **state)
{
	struct crawl *c = *state;
	uint32_t ino = unlinked(c, 12);
	ok(again(c));
	assert_true(owns_anything(c, ino));
	memset(slot(c, ino) + 0x14, 0, 4);
	ok(again(c));
	assert_true(owns_anything(c, ino));
}

/* --- a journal that is not clean --- */

struct log {
	struct crawl *c;
	uint64_t place[8]; /* of the first log blocks, in the image */
	uint32_t at, sequence;
};

static struct log log_begin(struct crawl *c)
{
	struct log l = { .c = c, .at = 1 };
	const struct tw_inode *journal = tw_view_inode(c->fs->view, EXT4_JOURNAL_INO);
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *e = tw_inode_extents(journal, &one, &n);
	for (; n--; e++)
		for (uint32_t k = 0; k < e->count; k++)
			if (e->lblk + k < 8)
				l.place[e->lblk + k] = e->block + k;
	uint8_t *sb = block_at(c, l.place[0]);
	l.sequence = tw_be32(tw_span(sb, 1024), 24);
	be32(sb + 28, 1); /* s_start */
	return l;
}

static uint8_t *log_next(struct log *l)
{
	return block_at(l->c, l->place[l->at++]);
}

/* A transaction that writes one block. */
static void log_one(struct log *l, uint64_t block, const uint8_t *data)
{
	uint8_t *descriptor = log_next(l);
	log_header(descriptor, T_DESCRIPTOR, l->sequence);
	be32(descriptor + 12, (uint32_t)block);
	descriptor[12 + 7] = 8;
	memcpy(log_next(l), data, 1024);
	log_header(log_next(l), T_COMMIT, l->sequence++);
}

static void log_revoke_one(struct log *l, uint64_t block)
{
	uint8_t *revoke = log_next(l);
	log_header(revoke, T_REVOKE, l->sequence);
	be32(revoke + 12, 20);
	be32(revoke + 16, (uint32_t)block);
	log_header(log_next(l), T_COMMIT, l->sequence++);
}

/* The root directory's block with "fifo" called "pipe". */
static void renamed_root(struct crawl *c, uint8_t *data)
{
	memcpy(data, block_at(c, first_block(c, 2)), 1024);
	for (size_t i = 0; i + 4 < 1024; i++)
		if (!memcmp(data + i, "fifo", 4))
			memcpy(data + i, "pipe", 4);
}

static void what_was_committed_is_in_the_crawl(void **state)
{
	struct crawl *c = *state;
	uint8_t data[1024];
	uint64_t root = first_block(c, 2);
	struct log l = log_begin(c);
	renamed_root(c, data);
	log_one(&l, root, data);
	ok(again(c));
	assert_int_equal(lookup(c, 2, "fifo"), 0);
	assert_true(lookup(c, 2, "pipe") != 0);
	assert_int_equal(tw_jbd2_position(c->fs->journal).head, 4);
	/* Its checkpoint says nothing new. */
	struct tw_write write = { root * 1024, 1024, data, TW_RECORD_PAYLOAD, { 1, 0 }, false };
	ok(ext4_write(c->fs, &write));
	ok(ext4_settle(c->fs, (struct tw_time){ 1, 0 }, true));
	assert_int_equal(c->events.len, 0);
}

static void what_was_revoked_later_is_not(void **state)
{
	struct crawl *c = *state;
	uint8_t data[1024];
	uint64_t root = first_block(c, 2);
	struct log l = log_begin(c);
	renamed_root(c, data);
	log_one(&l, root, data);
	log_revoke_one(&l, root);
	ok(again(c));
	assert_true(lookup(c, 2, "fifo") != 0);
}

static void what_was_written_again_after_its_revoke_is(void **state)
{
	struct crawl *c = *state;
	uint8_t data[1024];
	uint64_t root = first_block(c, 2);
	struct log l = log_begin(c);
	renamed_root(c, data);
	log_revoke_one(&l, root);
	log_one(&l, root, data);
	ok(again(c));
	assert_true(lookup(c, 2, "pipe") != 0);
}

static void what_was_not_committed_comes_when_it_is(void **state)
{
	struct crawl *c = *state;
	uint8_t data[1024], commit[1024];
	uint64_t root = first_block(c, 2);
	struct log l = log_begin(c);
	renamed_root(c, data);
	log_one(&l, root, data);
	memcpy(commit, block_at(c, l.place[3]), 1024);
	memset(block_at(c, l.place[3]), 0, 1024);
	ok(again(c));
	assert_true(lookup(c, 2, "fifo") != 0);
	struct tw_write write = { l.place[3] * 1024, 1024, commit, TW_RECORD_PAYLOAD,
		{ 1, 0 }, false };
	ok(ext4_write(c->fs, &write));
	tw_buf_append(&c->events, "", 1);
	assert_string_equal(c->events.data, "renamed /pipe\n");
	assert_true(lookup(c, 2, "pipe") != 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_feature_that_is_not_followed_is_named),
		TEST(an_image_that_is_cut_off_is_refused),
		TEST(without_a_root_directory_there_is_nothing),
		TEST(without_a_journal_there_is_nothing),
		TEST(a_block_that_two_directories_claim_is_loaded_once),
		TEST(a_mapping_of_nonsense_costs_that_file_only),
		TEST(a_deleted_inode_owns_nothing),
		TEST(an_open_file_without_names_owns_its_blocks),
		TEST(what_was_committed_is_in_the_crawl),
		TEST(what_was_revoked_later_is_not),
		TEST(what_was_written_again_after_its_revoke_is),
		TEST(what_was_not_committed_comes_when_it_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
