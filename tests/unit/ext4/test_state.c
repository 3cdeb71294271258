/* SPDX-License-Identifier: BSD-3-Clause */
/* An instance as bytes and back, on an image made by mkfs.ext4. */
#include "image.h"
#include "view_dump.h"

#include "ext4/ext4.h"
#include "ext4/module.h"
#include "record.h"

/* A damaged geometry may ask for more memory than there is. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

struct fixture {
	struct image *image;
	struct tw_fs_env env;
	struct ext4 *fs;
	struct tw_buf saved;
	unsigned events;
};

static struct tw_error *count(struct tw_event *event, void *arg)
{
	struct fixture *f = arg;
	assert_true(event->path.len && *(const char *)event->path.data == '/');
	f->events++;
	return NULL;
}

static int setup_with(void **state, const char *mkfs)
{
	struct fixture *f = calloc(1, sizeof(*f));
	f->image = image_new(mkfs);
	f->env = (struct tw_fs_env){ f->image->source, count, f, "test", NULL };
	ok(tw_fs_ext4.open(&f->env, (void **)&f->fs));
	ok(ext4_save(f->fs, &f->saved));
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, "");
}

static int setup_ext3(void **state)
{
	return setup_with(state, "-O ^extent,^64bit,^metadata_csum -I 128");
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	ext4_destroy(f->fs);
	image_free(f->image);
	tw_buf_deinit(&f->saved);
	free(f);
	return 0;
}

static struct tw_error *load(struct fixture *f, const void *bytes, size_t len, struct ext4 **out)
{
	*out = NULL;
	return ext4_load(&f->env, tw_span(bytes, len), (void **)out);
}

static void same(const struct ext4 *a, const struct ext4 *b, bool in_order)
{
	struct tw_buf x = TW_BUF_INIT, y = TW_BUF_INIT;
	dump(a, in_order, &x);
	dump(b, in_order, &y);
	assert_string_equal(x.data, y.data);
	tw_buf_deinit(&x);
	tw_buf_deinit(&y);
}

static void the_crawl_found_the_tree(void **state)
{
	struct fixture *f = *state;
	struct tw_buf path = TW_BUF_INIT;
	unsigned links = 0, slow = 0, nodes = 0;
	const struct tw_inode *inode = tw_view_inode_next(f->fs->view, 1);
	for (; inode; inode = tw_view_inode_next(f->fs->view, inode->ino + 1)) {
		struct tw_attr attr = tw_view_attr(f->fs->view, inode);
		uint32_t len;
		links += attr.nlink == 4 && S_ISREG(attr.mode);
		slow += tw_inode_target(inode, &len) && len == 91;
		nodes += ext4_root_find(f->fs, inode->ino) != NULL;
	}
	assert_int_equal(links, 1);
	assert_int_equal(slow, 1);
	assert_true(nodes >= 1);
	assert_true(tw_view_name_count(f->fs->view) > 165);
	tw_buf_deinit(&path);
}

static void attribute_blocks_that_nobody_has_are_forgotten(void **state)
{
	struct fixture *f = *state;
	for (uint64_t block = 1; block <= 1000; block++) {
		ok(ext4_attrs_has_block(f->fs, 12, block));
		ok(ext4_attrs_has_block(f->fs, 13, 7));
		ext4_attrs_sweep(f->fs);
	}
	assert_true(HASH_COUNT(f->fs->xattrs) < 200);
	assert_int_equal(ext4_block_find(f->fs->xattrs, 7)->ino, 1);
	assert_int_equal(ext4_block_find(f->fs->xattrs, 1000)->ino, 1);
	ok(ext4_attrs_has_block(f->fs, 12, 0));
	ok(ext4_attrs_has_block(f->fs, 13, 0));
	assert_int_equal(f->fs->xattr_block.n, 0);
}

/* A name's directory may be loaded after it. */
static void encrypted_names_stay_encrypted(void **state)
{
	struct fixture *f = *state;
	struct ext4 *again;
	struct tw_buf saved = TW_BUF_INIT;
	struct tw_inode *inode = tw_view_inode_next(f->fs->view, 12);
	for (; inode; inode = tw_view_inode_next(f->fs->view, inode->ino + 1))
		if (tw_inode_named(inode))
			tw_view_link(f->fs->view, inode, 0)->opaque = inode->ino % 2;
	ok(ext4_save(f->fs, &saved));
	ok(load(f, saved.data, saved.len, &again));
	same(f->fs, again, false);
	ext4_destroy(again);
	tw_buf_deinit(&saved);
}

static void what_was_saved_comes_back_equal(void **state)
{
	struct fixture *f = *state;
	struct ext4 *again;
	ok(load(f, f->saved.data, f->saved.len, &again));
	same(f->fs, again, false);
	struct tw_jbd2_position a = tw_jbd2_position(f->fs->journal);
	struct tw_jbd2_position b = tw_jbd2_position(again->journal);
	assert_int_equal(a.head, b.head);
	assert_int_equal(a.sequence, b.sequence);
	ext4_destroy(again);
}

/* The first name of an inode is the one that events speak of: a restart must not choose another one. */
static void names_keep_their_order(void **state)
{
	struct fixture *f = *state;
	struct ext4 *again;
	ok(load(f, f->saved.data, f->saved.len, &again));
	same(f->fs, again, true);
	ext4_destroy(again);
}

static struct tw_error *write_block(struct ext4 *fs, uint64_t block, const uint8_t *data)
{
	struct tw_write write = { block * 1024, 1024, data, TW_RECORD_PAYLOAD, { 5, 6 }, false };
	return ext4_write(fs, &write);
}

/* File data and a directory block that wait for their transaction. */
static void what_waits_is_saved_too(void **state)
{
	struct fixture *f = *state;
	struct tw_owner o;
	uint64_t data = 0, dir = 0;
	for (uint64_t at = 0; tw_owners_find(tw_view_owners(f->fs->view), at, UINT64_MAX, &o);
		at = o.block + o.count) {
		data = o.kind == TW_OWNER_DATA ? o.block : data;
		dir = o.kind == TW_OWNER_DIR && o.ino == EXT4_ROOT_INO ? o.block : dir;
	}
	assert_true(data && dir);
	uint8_t changed[1024];
	memcpy(changed, f->image->bytes + dir * 1024, sizeof(changed));
	changed[24 + 8] = 'L'; /* lost+found, or whatever comes first */
	ok(write_block(f->fs, data, changed));
	ok(write_block(f->fs, dir, changed));
	tw_buf_reset(&f->saved);
	ok(ext4_save(f->fs, &f->saved));
	struct ext4 *again;
	ok(load(f, f->saved.data, f->saved.len, &again));
	same(f->fs, again, false);
	f->events = 0;
	ok(ext4_settle(f->fs, (struct tw_time){ 1, 0 }, true));
	unsigned expected = f->events;
	assert_true(expected >= 2);
	f->events = 0;
	ok(ext4_settle(again, (struct tw_time){ 1, 0 }, true));
	assert_int_equal(f->events, expected);
	ext4_destroy(again);
}

static void loading_does_not_look_at_the_image(void **state)
{
	struct fixture *f = *state;
	struct ext4 *again;
	memset(f->image->bytes, 0xff, IMAGE_BYTES);
	ok(load(f, f->saved.data, f->saved.len, &again));
	same(f->fs, again, false);
	assert_string_equal(tw_fs_ext4.uuid(again), tw_fs_ext4.uuid(f->fs));
	ext4_destroy(again);
}

static void a_state_of_another_version_is_refused(void **state)
{
	struct fixture *f = *state;
	struct ext4 *again;
	f->saved.data[0] ^= 1;
	fails(load(f, f->saved.data, f->saved.len, &again), TW_BAD_DATA);
}

static void a_state_that_is_cut_off_is_refused(void **state)
{
	struct fixture *f = *state;
	for (size_t len = 0; len < f->saved.len; len += len < 4096 ? 1 : 61) {
		/* Exactly as long, so that the sanitizer sees the first byte too far. */
		char *cut = malloc(len ? len : 1);
		struct ext4 *again;
		memcpy(cut, f->saved.data, len);
		struct tw_error *err = load(f, cut, len, &again);
		free(cut);
		if (!err)
			fail_msg("%zu bytes of %zu were taken", len, f->saved.len);
		tw_error_destroy(err);
	}
}

/* Whatever a damaged state gives can be walked, settled, saved and destroyed. */
static void use(struct ext4 *fs)
{
	struct tw_buf out = TW_BUF_INIT;
	const struct tw_inode *inode = tw_view_inode_next(fs->view, 1);
	for (; inode; inode = tw_view_inode_next(fs->view, inode->ino + 1)) {
		tw_view_inode_path(fs->view, inode, &out);
		tw_buf_reset(&out);
	}
	tw_error_destroy(ext4_settle(fs, (struct tw_time){ 1, 0 }, true));
	tw_error_destroy(ext4_save(fs, &out));
	tw_buf_deinit(&out);
}

static void flipped_bits_are_refused_or_harmless(void **state)
{
	struct fixture *f = *state;
	struct dice dice = { 6 };
	char *copy = malloc(f->saved.len);
	for (unsigned round = 0; round < 1500; round++) {
		struct ext4 *again;
		memcpy(copy, f->saved.data, f->saved.len);
		/* The beginning and the end hold the counts. */
		size_t span = round % 3 == 1 ? 2000 : f->saved.len, at = roll(&dice, (uint32_t)span);
		if (round % 3 == 2)
			at = f->saved.len - 1 - roll(&dice, 3000);
		copy[at] ^= (char)(1 << roll(&dice, 8));
		struct tw_error *err = load(f, copy, f->saved.len, &again);
		if (!err)
			use(again);
		tw_error_destroy(err);
		ext4_destroy(again);
	}
	free(copy);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TEST3(f) { #f " (block maps)", f, setup_ext3, teardown, NULL }
	const struct CMUnitTest tests[] = {
		TEST(the_crawl_found_the_tree),
		TEST3(the_crawl_found_the_tree),
		TEST(attribute_blocks_that_nobody_has_are_forgotten),
		TEST(encrypted_names_stay_encrypted),
		TEST(what_was_saved_comes_back_equal),
		TEST3(what_was_saved_comes_back_equal),
		TEST(names_keep_their_order),
		TEST(what_waits_is_saved_too),
		TEST(loading_does_not_look_at_the_image),
		TEST(a_state_of_another_version_is_refused),
		TEST(a_state_that_is_cut_off_is_refused),
		TEST(flipped_bits_are_refused_or_harmless),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
