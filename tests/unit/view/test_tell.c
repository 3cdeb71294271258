/* SPDX-License-Identifier: BSD-3-Clause */
/* What is told of an inode that changed under its name. */
#include "changes.h"

#include <stdio.h>

static void nothing_changed_is_nothing_told(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	touch(c, 11);
	expect(c, "");
}

static void each_attribute_counts(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	touch(c, 11)->mode = S_IFREG | 0600;
	expect(c, "attributes /a\n");
	touch(c, 11)->uid = 70000;
	expect(c, "attributes /a\n");
	touch(c, 11)->gid = 1;
	expect(c, "attributes /a\n");
	touch(c, 11)->flags = 0x10;
	expect(c, "attributes /a\n");
	touch(c, 11)->xattrs = 123;
	expect(c, "attributes /a\n");
	touch(c, 11)->mtime.nsec = 1;
	expect(c, "attributes /a\n");
	touch(c, 11)->ctime.sec = -1;
	expect(c, "attributes /a\n");
	touch(c, 11)->nlink = 9;
	expect(c, "attributes /a\n");
}

/* Where the content lies is nobody's business; that it is there is. */
static void inline_content_is_content(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	touch(c, 11)->flags = TW_FLAG_INLINE;
	expect(c, "");
	touch(c, 11)->flags = TW_FLAG_INLINE | 0x10;
	expect(c, "attributes /a\n");
	make(c, 12, FILE_MODE, 1);
	touch(c, 12)->flags = TW_FLAG_INLINE;
	touch(c, 12)->size = 44;
	come(c, ROOT, "b", 12);
	expect(c, "created /b 0+44\n");
}

/* Whoever knows the names says "digest". */
static struct tw_error *name_xattrs(void *arg, uint64_t old, uint64_t now, struct tw_event *event)
{
	static char text[64];
	static struct tw_bytes name;
	struct changes *c = arg;
	assert_ptr_not_equal(c, NULL);
	name = (struct tw_bytes){ text, (size_t)snprintf(text, sizeof(text), "%d>%d", (int)old, (int)now) };
	event->xattrs = &name;
	event->nxattrs_set = 1;
	return NULL;
}

static void attributes_are_named_where_they_changed(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	tw_changeset_set_xattrs(c->set, name_xattrs, c);
	touch(c, 11)->uid = 1;
	expect(c, "attributes /a\n");
	assert_int_equal(c->last.nxattrs_set, 0);
	touch(c, 11)->size = 100;
	touch(c, 11)->xattrs = 5;
	expect(c, "modified /a 0+100\nattributes /a\n");
	assert_int_equal(c->last.nxattrs_set, 1);
	assert_int_equal(c->last.xattrs->len, 3);
	assert_memory_equal(c->last.xattrs->data, "0>5", 3);
	/* Another inode of that number has what it has, whatever the old one had. */
	make(c, 11, FILE_MODE, 77);
	touch(c, 11)->xattrs = 5;
	expect(c, "deleted /a\ncreated /a\n");
	assert_memory_equal(c->last.xattrs->data, "0>5", 3);
	touch(c, 11)->xattrs = 0;
	expect(c, "attributes /a\n");
	assert_memory_equal(c->last.xattrs->data, "5>0", 3);
}

static void what_is_encrypted_says_so(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "d", 11, DIR_MODE);
	put(c, ROOT, "plain", 12, FILE_MODE);
	touch(c, 11)->flags = TW_FLAG_ENCRYPTED;
	expect(c, "attributes /d\n");
	assert_true(c->last.encrypted);
	make(c, 13, S_IFIFO | 0600, 1); /* has no flag of its own */
	come(c, 11, "\x01/\xff", 13);
	expect(c, "created /d/AS__\n");
	touch(c, 13)->uid = 5;
	expect(c, "attributes /d/AS__\n");
	assert_true(c->last.encrypted);
	touch(c, 12)->uid = 5;
	expect(c, "attributes /plain\n");
	assert_false(c->last.encrypted);
	/* The directory goes with its names: they look as before. */
	gone(c, 11, "\x01/\xff");
	gone(c, ROOT, "d");
	free_inode(c, 13);
	free_inode(c, 11);
	expect(c, "deleted /d/AS__\ndeleted /d\n");
	assert_true(c->last.encrypted);
}

static void the_root_has_attributes_too(void **state)
{
	struct changes *c = *state;
	touch(c, ROOT)->uid = 1;
	expect(c, "attributes /\n");
	assert_int_equal(c->last.inode, ROOT);
	assert_int_equal(c->last.kind, TW_KIND_DIR);
}

static void an_event_tells_the_commit_and_the_new_state(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	struct tw_attr *attr = touch(c, 11);
	attr->uid = 1000;
	attr->mtime = (struct tw_time){ 5, 6 };
	expect(c, "attributes /a\n");
	assert_int_equal(c->last.time.sec, 100);
	assert_int_equal(c->last.observed.nsec, 6);
	assert_int_equal(c->last.transaction, 77);
	assert_int_equal(c->last.uid, 1000);
	assert_int_equal(c->last.mtime.nsec, 6);
	assert_false(c->last.resync);
}

static void written_bytes_are_modified_ranges(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	range(c, 11, 50, 10);
	range(c, 11, 0, 10);
	range(c, 11, 10, 5);
	range(c, 11, 55, 10);
	expect(c, "modified /a 0+15 50+15\n");
}

static void ranges_end_where_the_file_ends(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	range(c, 11, 0, 4096);
	range(c, 11, 8192, 4096);
	expect(c, "modified /a 0+100\n");
}

static void ranges_beyond_the_end_alone_are_nothing(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	range(c, 11, 4096, 4096);
	expect(c, "");
}

static void a_file_that_grew_is_modified_there(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	touch(c, 11)->size = 150;
	expect(c, "modified /a 100+50\n");
	assert_int_equal(c->last.size, 150);
}

static void a_file_that_shrank_is_truncated(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	touch(c, 11)->size = 20;
	expect(c, "truncated /a\n");
}

static void a_file_cut_and_written_is_truncated_then_modified(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	touch(c, 11)->size = 20;
	range(c, 11, 0, 5);
	expect(c, "truncated /a\nmodified /a 0+5\n");
}

static void content_and_attributes_are_two_events(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	struct tw_attr *attr = touch(c, 11);
	attr->mode = S_IFREG | 0600;
	attr->mtime.sec = 9;
	range(c, 11, 0, 5);
	expect(c, "modified /a 0+5\nattributes /a\n");
}

static void times_alone_ride_on_another_event(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	touch(c, 11)->ctime.sec = 9;
	gone(c, ROOT, "a");
	come(c, ROOT, "b", 11);
	expect(c, "renamed /b <- /a\n");
	assert_int_equal(c->last.ctime.sec, 9);
}

static void a_mode_that_changed_with_a_rename_is_told_by_its_new_path(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	touch(c, 11)->mode = S_IFREG | 0600;
	gone(c, ROOT, "a");
	come(c, ROOT, "b", 11);
	expect(c, "renamed /b <- /a\nattributes /b\n");
}

static void a_created_file_has_its_content_as_ranges(void **state)
{
	struct changes *c = *state;
	make(c, 11, FILE_MODE, 1);
	struct tw_inode *inode = tw_view_inode(c->view, 11);
	touch(c, 11)->size = 3 * 4096 - 5;
	const struct tw_extent extents[] = {
		{ 100, 0, 1, false }, { 101, 1, 1, true }, { 102, 2, 1, false } };
	ok(tw_inode_set_extents(inode, extents, 3));
	come(c, ROOT, "a", 11);
	expect(c, "created /a 0+4096 8192+4091\n");
}

/* A fast commit may have brought the inode without its name, and the commit brings the name alone. */
static void a_file_that_gets_its_name_later_has_its_content_as_ranges(void **state)
{
	struct changes *c = *state;
	make(c, 11, FILE_MODE, 1);
	touch(c, 11)->size = 4711;
	const struct tw_extent extent = { 100, 0, 2, false };
	ok(tw_inode_set_extents(tw_view_inode(c->view, 11), &extent, 1));
	expect(c, "");
	come(c, ROOT, "late", 11);
	expect(c, "created /late 0+4711\n");
}

static void a_created_directory_is_told_of_once(void **state)
{
	struct changes *c = *state;
	make(c, 11, DIR_MODE, 1);
	touch(c, 11)->size = 4096;
	make(c, 12, FILE_MODE, 1);
	come(c, ROOT, "d", 11);
	come(c, 11, "f", 12);
	expect(c, "created /d\ncreated /d/f\n");
}

static void a_directory_whose_entries_changed_is_modified(void **state)
{
	struct changes *c = *state;
	touch(c, ROOT)->mtime.sec = 5;
	make(c, 11, FILE_MODE, 1);
	come(c, ROOT, "a", 11);
	expect(c, "created /a\nmodified /\n");
	assert_int_equal(c->last.mtime.sec, 5);
}

static void a_symlink_is_created_and_deleted_with_its_target(void **state)
{
	struct changes *c = *state;
	make(c, 11, LINK_MODE, 1);
	struct tw_inode *inode = tw_view_inode(c->view, 11);
	ok(tw_inode_set_target(inode, "/etc/passwd", 11));
	come(c, ROOT, "l", 11);
	expect(c, "created /l -> /etc/passwd\n");
	free_inode(c, 11);
	ok(tw_inode_set_target(inode, NULL, 0));
	gone(c, ROOT, "l");
	expect(c, "deleted /l -> /etc/passwd\n");
}

static void a_device_is_told_with_its_number(void **state)
{
	struct changes *c = *state;
	make(c, 11, S_IFBLK | 0660, 1);
	touch(c, 11)->rdev = 259u << 20 | 70000;
	come(c, ROOT, "nvme", 11);
	expect(c, "created /nvme\n");
	assert_int_equal(c->last.kind, TW_KIND_BLOCK);
	assert_int_equal(c->last.rdev_major, 259);
	assert_int_equal(c->last.rdev_minor, 70000);
}

static void a_resync_is_flagged_in_every_event(void **state)
{
	struct changes *c = *state;
	const struct tw_commit commit = { { 1, 0 }, { 1, 0 }, 0, true };
	put(c, ROOT, "a", 11, FILE_MODE);
	put(c, ROOT, "b", 12, FILE_MODE);
	free_inode(c, 11);
	gone(c, ROOT, "a");
	touch(c, 12)->uid = 5;
	touch_end(c);
	ok(tw_changeset_emit(c->set, &commit));
	tw_buf_append(&c->lines, "", 1);
	assert_string_equal(c->lines.data, "deleted /a resync\nattributes /b resync\n");
}

static void too_many_ranges_are_joined_and_miss_nothing(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100000000);
	for (uint64_t i = 0; i < 5001; i++)
		range(c, 11, (i * 4007 % 5001) * 1000, 10);
	const struct tw_commit commit = { { 1, 0 }, { 1, 0 }, 1, false };
	touch_end(c);
	ok(tw_changeset_emit(c->set, &commit));
	tw_buf_append(&c->lines, "", 1);
	assert_true(c->last.nranges <= 1024 && c->last.nranges > 100);
	const char *at = c->lines.data;
	uint64_t next = 0;
	while ((at = strchr(at + 1, '+'))) {
		const char *number = at;
		while (number[-1] != ' ')
			number--;
		uint64_t offset = strtoull(number, NULL, 10), end = offset + strtoull(at + 1, NULL, 10);
		/* Between two ranges lies nothing that was reported. */
		assert_true(offset == next * 1000);
		next = (end + 999) / 1000;
	}
	assert_int_equal(next, 5001);
}

static void ranges_that_wait_survive_a_save(void **state)
{
	struct changes *c = *state;
	struct tw_buf saved = TW_BUF_INIT;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 100);
	range(c, 11, 5, 10);
	range(c, 11, 50, 10);
	tw_changeset_save_ranges(c->set, &saved);
	tw_changeset_destroy(c->set);
	ok(tw_changeset_create(c->view, keep_event, c, &c->set));
	struct tw_unpack in = { .span = tw_span(saved.data, saved.len) };
	ok(tw_changeset_load_ranges(c->set, &in));
	assert_false(in.failed);
	expect(c, "modified /a 5+10 50+10\n");
	tw_buf_deinit(&saved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHANGE_TEST(nothing_changed_is_nothing_told),
		CHANGE_TEST(each_attribute_counts),
		CHANGE_TEST(inline_content_is_content),
		CHANGE_TEST(attributes_are_named_where_they_changed),
		CHANGE_TEST(what_is_encrypted_says_so),
		CHANGE_TEST(the_root_has_attributes_too),
		CHANGE_TEST(an_event_tells_the_commit_and_the_new_state),
		CHANGE_TEST(written_bytes_are_modified_ranges),
		CHANGE_TEST(ranges_end_where_the_file_ends),
		CHANGE_TEST(ranges_beyond_the_end_alone_are_nothing),
		CHANGE_TEST(a_file_that_grew_is_modified_there),
		CHANGE_TEST(a_file_that_shrank_is_truncated),
		CHANGE_TEST(a_file_cut_and_written_is_truncated_then_modified),
		CHANGE_TEST(content_and_attributes_are_two_events),
		CHANGE_TEST(times_alone_ride_on_another_event),
		CHANGE_TEST(a_mode_that_changed_with_a_rename_is_told_by_its_new_path),
		CHANGE_TEST(a_created_file_has_its_content_as_ranges),
		CHANGE_TEST(a_file_that_gets_its_name_later_has_its_content_as_ranges),
		CHANGE_TEST(a_created_directory_is_told_of_once),
		CHANGE_TEST(a_directory_whose_entries_changed_is_modified),
		CHANGE_TEST(a_symlink_is_created_and_deleted_with_its_target),
		CHANGE_TEST(a_device_is_told_with_its_number),
		CHANGE_TEST(a_resync_is_flagged_in_every_event),
		CHANGE_TEST(too_many_ranges_are_joined_and_miss_nothing),
		CHANGE_TEST(ranges_that_wait_survive_a_save),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
