/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "view/view.h"

#include <stdio.h>
#include <sys/stat.h>

#define ROOT 2u
#define MAX_INO 10000u

static int setup(void **state)
{
	struct tw_view *view;
	ok(tw_view_create(MAX_INO, ROOT, 100000, 12, &view));
	struct tw_inode *root;
	ok(tw_view_inode_add(view, ROOT, &root));
	ok(tw_view_set_attr(view, root, &(struct tw_attr){ .mode = S_IFDIR | 0755 }));
	*state = view;
	return 0;
}

static int teardown(void **state)
{
	tw_view_destroy(*state);
	return 0;
}

static struct tw_name *name(struct tw_view *view, uint32_t dir, uint64_t block, uint32_t ino,
	const char *text)
{
	struct tw_name *out;
	ok(tw_view_name_add(view, dir, block, ino, text, (uint8_t)strlen(text), &out));
	return out;
}

static void path_is(const struct tw_view *view, const struct tw_name *of, const char *expected)
{
	struct tw_buf path = TW_BUF_INIT;
	assert_true(tw_view_path(view, of, &path));
	tw_buf_append(&path, "", 1);
	assert_string_equal(path.data, expected);
	tw_buf_deinit(&path);
}

static void no_path(const struct tw_view *view, const struct tw_name *of)
{
	struct tw_buf path = TW_BUF_INIT;
	assert_false(tw_view_path(view, of, &path));
	assert_int_equal(path.len, 0);
	tw_buf_deinit(&path);
}

static void a_path_leads_from_the_root(void **state)
{
	struct tw_view *view = *state;
	name(view, ROOT, 1, 11, "usr");
	name(view, 11, 2, 12, "share");
	struct tw_name *file = name(view, 12, 3, 13, "doc");
	path_is(view, file, "/usr/share/doc");
	struct tw_buf path = TW_BUF_INIT;
	assert_true(tw_view_inode_path(view, tw_view_inode(view, ROOT), &path));
	assert_int_equal(path.len, 1);
	assert_int_equal(path.data[0], '/');
	tw_buf_deinit(&path);
}

static void a_name_is_bytes(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *odd;
	ok(tw_view_name_add(view, ROOT, 1, 11, "\xff\x80\n\"", 4, &odd));
	path_is(view, odd, "/\xff\x80\n\"");
}

/* RFC 4648, section 5; one, two and three bytes more than a multiple of three. */
static void an_encrypted_name_is_shown_in_base64(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *names[3];
	struct tw_inode *dir;
	ok(tw_view_inode_add(view, 11, &dir));
	ok(tw_view_set_attr(view, dir,
		&(struct tw_attr){ .mode = S_IFDIR | 0755, .flags = TW_FLAG_ENCRYPTED }));
	name(view, ROOT, 1, 11, "plain");
	ok(tw_view_name_add(view, 11, 2, 12, "/\0\xff", 3, &names[0]));
	ok(tw_view_name_add(view, 12, 3, 13, "\xfb\xef\xbe", 3, &names[1]));
	path_is(view, names[0], "/plain/LwD_");
	path_is(view, names[1], "/plain/LwD_/\xfb\xef\xbe"); /* 12 is not encrypted */
	ok(tw_view_name_add(view, 11, 2, 14, "\xfb", 1, &names[0]));
	ok(tw_view_name_add(view, 11, 2, 15, "\xfb\xef", 2, &names[1]));
	ok(tw_view_name_add(view, 11, 2, 16, "\xfb\xef\xbe\xfb", 4, &names[2]));
	path_is(view, names[0], "/plain/-w");
	path_is(view, names[1], "/plain/--8");
	path_is(view, names[2], "/plain/----" "-w");
}

static void the_longest_encrypted_name_fits(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *longest;
	struct tw_inode *root = tw_view_inode(view, ROOT);
	char text[255], path[1 + 340 + 1] = "/";
	ok(tw_view_set_attr(view, root,
		&(struct tw_attr){ .mode = S_IFDIR | 0755, .flags = TW_FLAG_ENCRYPTED }));
	memset(text, 0xff, sizeof(text));
	memset(path + 1, '_', 340);
	ok(tw_view_name_add(view, ROOT, 1, 11, text, 255, &longest));
	path_is(view, longest, path);
}

static void the_longest_name_fits(void **state)
{
	struct tw_view *view = *state;
	char text[256], path[257];
	memset(text, 'x', 255);
	text[255] = 0;
	snprintf(path, sizeof(path), "/%s", text);
	path_is(view, name(view, ROOT, 1, 11, text), path);
}

static void a_moved_directory_changes_all_paths_below(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *dir = name(view, ROOT, 1, 11, "old");
	struct tw_name *file = name(view, 11, 2, 12, "file");
	name(view, ROOT, 1, 13, "other");
	tw_view_name_remove(view, dir);
	no_path(view, file);
	name(view, 13, 3, 11, "new");
	path_is(view, file, "/other/new/file");
}

static void hard_links_are_names_of_one_inode(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *first = name(view, ROOT, 1, 11, "first");
	struct tw_name *second = name(view, ROOT, 1, 11, "second");
	struct tw_buf path = TW_BUF_INIT;
	assert_int_equal(tw_view_name_count(view), 2);
	assert_int_equal(tw_view_inode_count(view), 2);
	path_is(view, second, "/second");
	/* The oldest one speaks for the inode while it is there. */
	assert_true(tw_view_inode_path(view, tw_view_inode(view, 11), &path));
	assert_memory_equal(path.data, "/first", 6);
	tw_buf_reset(&path);
	tw_view_name_remove(view, first);
	assert_true(tw_view_inode_path(view, tw_view_inode(view, 11), &path));
	assert_memory_equal(path.data, "/second", 7);
	tw_view_name_remove(view, second);
	assert_false(tw_view_inode_path(view, tw_view_inode(view, 11), &path));
	tw_buf_deinit(&path);
}

static void a_loop_of_directories_has_no_path(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *a = name(view, 12, 1, 11, "a");
	struct tw_name *b = name(view, 11, 2, 12, "b");
	struct tw_name *self = name(view, 13, 3, 13, "self");
	no_path(view, a);
	no_path(view, b);
	no_path(view, self);
}

static void a_lost_directory_has_no_path(void **state)
{
	struct tw_view *view = *state;
	no_path(view, name(view, 11, 1, 12, "orphan"));
}

static void a_path_deeper_than_linux_allows_is_refused_and_harmless(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *last = NULL;
	for (uint32_t i = 0; i < 3000; i++)
		last = name(view, i ? 10 + i : ROOT, 100 + i, 11 + i, "d");
	no_path(view, last);
}

static void inode_numbers_beyond_the_volume_are_refused(void **state)
{
	struct tw_view *view = *state;
	struct tw_inode *inode;
	struct tw_name *out;
	fails(tw_view_inode_add(view, 0, &inode), TW_BAD_DATA);
	fails(tw_view_inode_add(view, MAX_INO + 1, &inode), TW_BAD_DATA);
	fails(tw_view_name_add(view, UINT32_MAX, 1, 11, "x", 1, &out), TW_BAD_DATA);
	fails(tw_view_name_add(view, ROOT, 1, UINT32_MAX, "x", 1, &out), TW_BAD_DATA);
	assert_null(tw_view_inode(view, 0));
	assert_null(tw_view_inode(view, MAX_INO + 1));
	ok(tw_view_inode_add(view, MAX_INO, &inode));
	assert_ptr_equal(tw_view_inode(view, MAX_INO), inode);
}

static void inodes_are_met_in_the_order_of_their_numbers(void **state)
{
	struct tw_view *view = *state;
	static const uint32_t numbers[] = { 9999, 64, 63, 11, 128, 5000 };
	static const uint32_t sorted[] = { 2, 11, 63, 64, 128, 5000, 9999 };
	struct tw_inode *inode;
	for (size_t i = 0; i < 6; i++)
		ok(tw_view_inode_add(view, numbers[i], &inode));
	size_t n = 0;
	for (inode = tw_view_inode_next(view, 1); inode;
		inode = tw_view_inode_next(view, inode->ino + 1))
		assert_int_equal(inode->ino, sorted[n++]);
	assert_int_equal(n, 7);
	assert_null(tw_view_inode_next(view, MAX_INO + 1));
}

static void a_dropped_inode_is_gone(void **state)
{
	struct tw_view *view = *state;
	struct tw_inode *inode;
	ok(tw_view_inode_add(view, 11, &inode));
	ok(tw_view_set_attr(view, inode, &(struct tw_attr){ .mode = S_IFREG, .size = 5 }));
	tw_view_inode_drop(view, 11);
	tw_view_inode_drop(view, 11);
	assert_null(tw_view_inode(view, 11));
	assert_int_equal(tw_view_inode_count(view), 1);
	ok(tw_view_inode_add(view, 11, &inode));
	assert_int_equal(tw_view_attr(view, inode).size, 0);
}

static void a_name_moves_between_blocks_of_its_directory(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *a = name(view, ROOT, 1, 11, "a"), *b = name(view, ROOT, 1, 12, "b");
	const struct tw_inode *root = tw_view_inode(view, ROOT);
	ok(tw_view_name_rehome(view, a, 7));
	assert_ptr_equal(tw_view_block_names(view, tw_view_dirblock(view, root, 7)), a);
	assert_ptr_equal(tw_view_block_names(view, tw_view_dirblock(view, root, 1)), b);
	ok(tw_view_name_rehome(view, b, 7));
	assert_null(tw_view_dirblock(view, root, 1));
	assert_int_equal(tw_inode_nblocks(root), 1);
	assert_int_equal(tw_inode_nentries(root), 2);
	path_is(view, a, "/a");
}

/* Against a plain count: blocks come and go in random order. */
static void directory_blocks_come_and_go(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *names[200] = { NULL };
	struct dice dice = { 5 };
	const struct tw_inode *root = tw_view_inode(view, ROOT);
	unsigned held = 0;
	for (unsigned i = 0; i < 50000; i++) {
		unsigned at = roll(&dice, 200);
		char text[16];
		snprintf(text, sizeof(text), "n%u", at);
		if (names[at] && roll(&dice, 2)) {
			ok(tw_view_name_rehome(view, names[at], roll(&dice, 70)));
		} else if (names[at]) {
			tw_view_name_remove(view, names[at]);
			names[at] = NULL;
			held--;
		} else {
			names[at] = name(view, ROOT, roll(&dice, 70), 11 + at, text);
			held++;
		}
		assert_int_equal(tw_inode_nentries(root), held);
	}
	unsigned found = 0;
	uint64_t last = 0;
	for (uint32_t b = 0; b < tw_inode_nblocks(root); b++) {
		const struct tw_dirblock *holder = tw_view_dirblock_at(view, root, b);
		const struct tw_name *n = tw_view_block_names(view, holder);
		assert_non_null(n);
		assert_true(!b || last < holder->block);
		last = holder->block;
		for (; n; n = tw_view_block_next(view, n)) {
			assert_int_equal(tw_view_name_block(view, n), holder->block);
			found++;
		}
	}
	assert_int_equal(found, held);
}

/* Names of all lengths come and go: what is given back is used again. */
static void names_of_all_lengths_come_and_go(void **state)
{
	struct tw_view *view = *state;
	struct tw_name *names[500] = { NULL };
	uint8_t text[255];
	struct dice dice = { 11 };
	for (unsigned i = 0; i < 100000; i++) {
		unsigned at = roll(&dice, 500);
		uint8_t len = (uint8_t)(1 + roll(&dice, i % 2000 < 1000 ? 255 : 5));
		if (names[at]) {
			for (unsigned k = 0; k < names[at]->len; k++)
				assert_int_equal(names[at]->bytes[k], (uint8_t)(at + k) | 1);
			tw_view_name_remove(view, names[at]);
			names[at] = NULL;
			continue;
		}
		for (unsigned k = 0; k < len; k++)
			text[k] = (uint8_t)(at + k) | 1;
		ok(tw_view_name_add(view, ROOT, at % 9, 11 + at % 60, text, len, &names[at]));
	}
}

static void what_inodes_share_is_kept_once_and_let_go(void **state)
{
	struct tw_view *view = *state;
	struct dice dice = { 3 };
	uint32_t uid[100] = { 0 };
	for (unsigned i = 0; i < 50000; i++) {
		uint32_t at = roll(&dice, 100);
		struct tw_inode *inode;
		ok(tw_view_inode_add(view, 11 + at, &inode));
		assert_int_equal(tw_view_attr(view, inode).uid, uid[at]);
		uid[at] = roll(&dice, 300);
		ok(tw_view_set_attr(view, inode, &(struct tw_attr){ .mode = S_IFREG, .uid = uid[at] }));
	}
}

static void times_and_sizes_come_back_as_they_were(void **state)
{
	struct tw_view *view = *state;
	static const struct tw_attr attrs[] = {
		{ .mode = S_IFREG, .mtime = { INT32_MIN, 999999999 }, .ctime = { -1, 0 }, .nlink = 65535 },
		{ .mode = S_IFREG, .mtime = { INT32_MAX + 3ll * (1ll << 32), (1u << 30) - 1 },
			.size = TW_SIZE_MAX, .generation = UINT32_MAX, .rdev = UINT32_MAX,
			.xattrs = UINT64_MAX, .flags = UINT32_MAX },
	};
	struct tw_inode *inode;
	ok(tw_view_inode_add(view, 11, &inode));
	for (size_t i = 0; i < 2; i++) {
		ok(tw_view_set_attr(view, inode, &attrs[i]));
		struct tw_attr back = tw_view_attr(view, inode);
		assert_int_equal(back.size, attrs[i].size);
		assert_int_equal(back.nlink, attrs[i].nlink);
		assert_true(back.mtime.sec == attrs[i].mtime.sec && back.ctime.sec == attrs[i].ctime.sec);
		assert_int_equal(back.mtime.nsec, attrs[i].mtime.nsec);
		assert_int_equal(back.rdev, attrs[i].rdev);
		assert_int_equal(back.generation, attrs[i].generation);
	}
}

static void extents_come_back_as_they_were(void **state)
{
	struct tw_view *view = *state;
	static const struct tw_extent lists[][2] = {
		{ { 5, 0, 1, false } }, { { (1ull << 48) - 1, 0, 16383, true } },
		{ { 1ull << 48, 0, 1, false } }, { { 5, 0, 16384, false } }, { { 5, 1, 1, false } },
		{ { 5, 0, 1, false }, { 9, 1, 2, true } },
	};
	struct tw_inode *inode;
	ok(tw_view_inode_add(view, 11, &inode));
	for (unsigned i = 0; i < 30; i++) {
		const struct tw_extent *list = lists[i * 7 % 6];
		uint32_t n = list[1].count ? 2 : 1, found, len;
		struct tw_extent one;
		ok(tw_inode_set_extents(inode, list, n));
		if (i % 5 == 0)
			ok(tw_inode_set_target(inode, "there", 5));
		const struct tw_extent *back = tw_inode_extents(inode, &one, &found);
		assert_int_equal(found, n);
		for (uint32_t k = 0; k < n; k++)
			assert_true(back[k].block == list[k].block && back[k].lblk == list[k].lblk &&
				    back[k].count == list[k].count &&
				    back[k].unwritten == list[k].unwritten);
		if (i % 5 == 0)
			assert_string_equal(tw_inode_target(inode, &len), "there");
		if (i % 5 == 2)
			ok(tw_inode_set_target(inode, NULL, 0));
	}
	ok(tw_inode_set_extents(inode, NULL, 0));
	struct tw_extent one;
	uint32_t n;
	tw_inode_extents(inode, &one, &n);
	assert_int_equal(n, 0);
}

static void a_mode_says_the_kind(void **state)
{
	(void)state;
	static const struct { uint16_t mode; enum tw_kind kind; } cases[] = {
		{ S_IFREG, TW_KIND_FILE }, { S_IFDIR | 0777, TW_KIND_DIR }, { S_IFLNK, TW_KIND_SYMLINK },
		{ S_IFIFO, TW_KIND_FIFO }, { S_IFSOCK, TW_KIND_SOCKET }, { S_IFCHR, TW_KIND_CHAR },
		{ S_IFBLK, TW_KIND_BLOCK }, { 0, TW_KIND_NONE }, { 0xf000, TW_KIND_NONE },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(tw_mode_kind(cases[i].mode), cases[i].kind);
}

static void extents_are_claimed_and_released_by_kind(void **state)
{
	struct tw_view *view = *state;
	const struct tw_extent extents[] = { { 100, 0, 10, false }, { 110, 10, 10, true } };
	struct tw_owner o;
	ok(tw_view_claim_extents(view, 11, extents, 2, TW_OWNER_DATA));
	assert_true(tw_owners_find(tw_view_owners(view), 105, 1, &o));
	assert_int_equal(o.kind, TW_OWNER_DATA);
	assert_true(tw_owners_find(tw_view_owners(view), 115, 1, &o));
	assert_int_equal(o.kind, TW_OWNER_UNWRITTEN);
	assert_int_equal(o.lblk + (115 - o.block), 15);
	ok(tw_view_release_extents(view, 11, extents, 2, TW_OWNER_DATA));
	assert_false(tw_owners_find(tw_view_owners(view), 0, UINT64_MAX, &o));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_path_leads_from_the_root),
		TEST(a_name_is_bytes),
		TEST(an_encrypted_name_is_shown_in_base64),
		TEST(the_longest_encrypted_name_fits),
		TEST(the_longest_name_fits),
		TEST(a_moved_directory_changes_all_paths_below),
		TEST(hard_links_are_names_of_one_inode),
		TEST(a_loop_of_directories_has_no_path),
		TEST(a_lost_directory_has_no_path),
		TEST(a_path_deeper_than_linux_allows_is_refused_and_harmless),
		TEST(inode_numbers_beyond_the_volume_are_refused),
		TEST(inodes_are_met_in_the_order_of_their_numbers),
		TEST(a_dropped_inode_is_gone),
		TEST(a_name_moves_between_blocks_of_its_directory),
		TEST(directory_blocks_come_and_go),
		TEST(names_of_all_lengths_come_and_go),
		TEST(what_inodes_share_is_kept_once_and_let_go),
		TEST(times_and_sizes_come_back_as_they_were),
		TEST(extents_come_back_as_they_were),
		TEST(a_mode_says_the_kind),
		TEST(extents_are_claimed_and_released_by_kind),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
