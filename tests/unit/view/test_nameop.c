/* SPDX-License-Identifier: BSD-3-Clause */
/* What names that came and went mean, and in which order it is told. */
#include "changes.h"

static void a_new_file_is_created(void **state)
{
	struct changes *c = *state;
	make(c, 11, FILE_MODE, 1);
	come(c, ROOT, "a", 11);
	expect(c, "created /a\n");
}

static void a_name_that_goes_with_its_inode_is_deleted(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	free_inode(c, 11);
	gone(c, ROOT, "a");
	expect(c, "deleted /a\n");
}

static void a_deleted_file_is_told_of_as_it_was(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 4711);
	free_inode(c, 11);
	gone(c, ROOT, "a");
	expect(c, "deleted /a\n");
	assert_int_equal(c->last.size, 4711);
	assert_int_equal(c->last.kind, TW_KIND_FILE);
	assert_int_equal(c->last.mode, 0644);
	assert_int_equal(c->last.nlink, 0);
	assert_int_equal(c->last.inode, 11);
}

/* The kernel keeps an open file after its last name has gone. */
static void a_file_that_is_still_open_is_deleted_with_its_last_name(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	touch(c, 11)->nlink = 0;
	gone(c, ROOT, "a");
	expect(c, "deleted /a\n");
	free_inode(c, 11);
	expect(c, "");
}

static void one_of_two_names_is_unlinked_the_last_one_deleted(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	put(c, ROOT, "b", 11, FILE_MODE);
	touch(c, 11)->nlink = 1;
	gone(c, ROOT, "a");
	expect(c, "unlinked /a\n");
	assert_int_equal(c->last.nlink, 1);
	free_inode(c, 11);
	gone(c, ROOT, "b");
	expect(c, "deleted /b\n");
}

static void all_names_gone_at_once_end_with_deleted(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	put(c, ROOT, "b", 11, FILE_MODE);
	put(c, ROOT, "c", 11, FILE_MODE);
	free_inode(c, 11);
	gone(c, ROOT, "b");
	gone(c, ROOT, "c");
	gone(c, ROOT, "a");
	expect(c, "unlinked /a\nunlinked /b\ndeleted /c\n");
}

static void one_more_name_is_linked(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	touch(c, 11)->nlink = 2;
	come(c, ROOT, "b", 11);
	expect(c, "linked /b\n");
	assert_int_equal(c->last.nlink, 2);
}

static void a_new_file_with_two_names_is_created_then_linked(void **state)
{
	struct changes *c = *state;
	make(c, 11, FILE_MODE, 1);
	come(c, ROOT, "a", 11);
	come(c, ROOT, "b", 11);
	expect(c, "created /a\nlinked /b\n");
}

static void a_moved_name_is_renamed(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "dir", 12, DIR_MODE);
	put(c, ROOT, "a", 11, FILE_MODE);
	gone(c, ROOT, "a");
	come(c, 12, "b", 11);
	expect(c, "renamed /dir/b <- /a\n");
}

static void what_a_rename_replaces_goes_first(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "new", 12, FILE_MODE);
	put(c, ROOT, "old", 11, FILE_MODE);
	gone(c, ROOT, "new");
	gone(c, ROOT, "old");
	come(c, ROOT, "old", 12);
	free_inode(c, 11);
	expect(c, "deleted /old\nrenamed /old <- /new\n");
}

static void a_replaced_name_of_several_is_unlinked_first(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "new", 11, FILE_MODE);
	put(c, ROOT, "old", 12, FILE_MODE);
	put(c, ROOT, "spare", 12, FILE_MODE);
	touch(c, 12)->nlink = 1;
	gone(c, ROOT, "new");
	gone(c, ROOT, "old");
	come(c, ROOT, "old", 11);
	expect(c, "unlinked /old\nrenamed /old <- /new\n");
}

static void a_chain_of_renames_begins_at_its_free_end(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "1", 11, FILE_MODE);
	put(c, ROOT, "2", 12, FILE_MODE);
	put(c, ROOT, "3", 13, FILE_MODE);
	for (const char *n = "123"; *n; n++)
		gone(c, ROOT, (char[]){ *n, 0 });
	come(c, ROOT, "2", 11);
	come(c, ROOT, "3", 12);
	come(c, ROOT, "4", 13);
	expect(c, "renamed /4 <- /3\nrenamed /3 <- /2\nrenamed /2 <- /1\n");
}

static void two_names_that_change_places_are_an_exchange(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	put(c, ROOT, "b", 12, DIR_MODE);
	gone(c, ROOT, "a");
	gone(c, ROOT, "b");
	come(c, ROOT, "b", 11);
	come(c, ROOT, "a", 12);
	const struct tw_commit commit = { { 1, 0 }, { 1, 0 }, 1, false };
	touch_end(c);
	ok(tw_changeset_emit(c->set, &commit));
	tw_buf_append(&c->lines, "", 1);
	/* Either of the two may be the subject. */
	if (strcmp(c->lines.data, "renamed /b <-> /a\n"))
		assert_string_equal(c->lines.data, "renamed /a <-> /b\n");
	assert_true(c->last.exchange);
	assert_int_equal(name_of(c, ROOT, "b")->ino, 11);
	assert_int_equal(name_of(c, ROOT, "a")->ino, 12);
}

static void a_cycle_of_three_is_two_exchanges(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	put(c, ROOT, "b", 12, FILE_MODE);
	put(c, ROOT, "c", 13, FILE_MODE);
	for (const char *n = "abc"; *n; n++)
		gone(c, ROOT, (char[]){ *n, 0 });
	come(c, ROOT, "b", 11);
	come(c, ROOT, "c", 12);
	come(c, ROOT, "a", 13);
	const struct tw_commit commit = { { 1, 0 }, { 1, 0 }, 1, false };
	touch_end(c);
	ok(tw_changeset_emit(c->set, &commit));
	unsigned lines = 0;
	for (size_t i = 0; i < c->lines.len; i++)
		lines += c->lines.data[i] == '\n';
	tw_buf_append(&c->lines, "", 1);
	assert_int_equal(lines, 2);
	assert_non_null(strstr(c->lines.data, "<->"));
	assert_null(strstr(c->lines.data, "<- "));
	assert_int_equal(name_of(c, ROOT, "b")->ino, 11);
	assert_int_equal(name_of(c, ROOT, "c")->ino, 12);
	assert_int_equal(name_of(c, ROOT, "a")->ino, 13);
}

static void a_directory_moves_before_what_is_below_it(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "dir", 20, DIR_MODE);
	put(c, 20, "x", 11, FILE_MODE);
	make(c, 12, FILE_MODE, 1);
	gone(c, ROOT, "dir");
	come(c, ROOT, "moved", 20);
	gone(c, 20, "x");
	come(c, 20, "y", 11);
	come(c, 20, "z", 12);
	expect(c, "renamed /moved <- /dir\nrenamed /moved/y <- /moved/x\ncreated /moved/z\n");
}

static void a_new_directory_comes_before_its_entries(void **state)
{
	struct changes *c = *state;
	make(c, 11, FILE_MODE, 1);
	make(c, 12, DIR_MODE, 1);
	make(c, 13, DIR_MODE, 1);
	put(c, ROOT, "f", 14, FILE_MODE);
	come(c, 12, "x", 11);
	come(c, 13, "sub", 12);
	come(c, ROOT, "d", 13);
	gone(c, ROOT, "f");
	come(c, 12, "f", 14);
	expect(c, "created /d\ncreated /d/sub\ncreated /d/sub/x\nrenamed /d/sub/f <- /f\n");
}

static void a_deleted_directory_goes_after_its_entries(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "d", 11, DIR_MODE);
	put(c, 11, "sub", 12, DIR_MODE);
	put(c, 12, "x", 13, FILE_MODE);
	put(c, 12, "kept", 14, FILE_MODE);
	for (uint32_t ino = 11; ino <= 13; ino++)
		free_inode(c, ino);
	gone(c, ROOT, "d");
	gone(c, 11, "sub");
	gone(c, 12, "x");
	gone(c, 12, "kept");
	come(c, ROOT, "kept", 14);
	expect(c, "deleted /d/sub/x\nrenamed /kept <- /d/sub/kept\ndeleted /d/sub\ndeleted /d\n");
}

/* a/b becomes b/a. */
static void a_tree_can_be_turned_inside_out(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, DIR_MODE);
	put(c, 11, "b", 12, DIR_MODE);
	gone(c, ROOT, "a");
	gone(c, 11, "b");
	come(c, ROOT, "b", 12);
	come(c, 12, "a", 11);
	expect(c, "renamed /b <- /a/b\nrenamed /b/a <- /a\n");
}

/* a/b/c becomes c/b/a. */
static void a_deeper_tree_can_be_turned_inside_out(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, DIR_MODE);
	put(c, 11, "b", 12, DIR_MODE);
	put(c, 12, "c", 13, DIR_MODE);
	gone(c, ROOT, "a");
	gone(c, 11, "b");
	gone(c, 12, "c");
	come(c, ROOT, "c", 13);
	come(c, 13, "b", 12);
	come(c, 12, "a", 11);
	expect(c, "renamed /c <- /a/b/c\nrenamed /c/b <- /a/b\nrenamed /c/b/a <- /a\n");
}

/* mv a tmp; mkdir a; mv tmp a/old: the old one has to step aside for a moment. */
static void a_directory_can_move_below_a_new_one_of_its_name(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, DIR_MODE);
	put(c, 11, "x", 13, FILE_MODE);
	make(c, 12, DIR_MODE, 1);
	gone(c, ROOT, "a");
	come(c, ROOT, "a", 12);
	come(c, 12, "old", 11);
	expect(c, "renamed * <- /a\ncreated /a\n"
		"renamed /a/old <- *\n");
	assert_int_equal(name_of(c, 12, "old")->ino, 11);
}

static void a_reused_number_is_another_file(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	make(c, 11, FILE_MODE, 2);
	gone(c, ROOT, "a");
	come(c, ROOT, "b", 11);
	expect(c, "deleted /a\ncreated /b\n");
	assert_int_equal(c->last.generation, 2);
}

static void a_reused_number_under_the_same_name_is_another_file(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	make(c, 11, FILE_MODE, 2);
	expect(c, "deleted /a\ncreated /a\n");
}

static void a_number_reused_for_another_kind_is_another_file(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	make(c, 11, S_IFIFO | 0600, 1);
	expect(c, "deleted /a\ncreated /a\n");
	assert_int_equal(c->last.kind, TW_KIND_FIFO);
}

static void a_reused_directory_takes_its_entries_along(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "d", 11, DIR_MODE);
	put(c, 11, "x", 12, FILE_MODE);
	put(c, 11, "y", 13, FILE_MODE);
	make(c, 11, DIR_MODE, 2);
	make(c, 14, FILE_MODE, 1);
	free_inode(c, 12);
	free_inode(c, 13);
	gone(c, ROOT, "d");
	gone(c, 11, "x");
	gone(c, 11, "y");
	come(c, ROOT, "e", 11);
	come(c, 11, "z", 14);
	expect(c, "deleted /d/x\ndeleted /d/y\ndeleted /d\ncreated /e\ncreated /e/z\n");
}

/* What is in the new one needs it, and is told of by its name; the old one has to give the number up
 * before. */
static void a_reused_directory_goes_before_what_the_new_one_holds(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "d", 20, DIR_MODE);
	make(c, 20, DIR_MODE, 2);
	make(c, 11, FILE_MODE, 1);
	gone(c, ROOT, "d");
	come(c, ROOT, "e", 20);
	come(c, 20, "x", 11);
	expect(c, "deleted /d\ncreated /e\ncreated /e/x\n");
}

/* Another file waits for the place of the last one. */
static void deleted_comes_with_the_last_of_several_names(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 20, FILE_MODE);
	put(c, ROOT, "b", 20, FILE_MODE);
	make(c, 20, DIR_MODE, 2);
	make(c, 11, FILE_MODE, 1);
	gone(c, ROOT, "a");
	gone(c, ROOT, "b");
	come(c, ROOT, "b", 11);
	come(c, ROOT, "d", 20);
	expect(c, "unlinked /a\ndeleted /b\ncreated /b\ncreated /d\n");
}

/* The file in it was moved out and back meanwhile. */
static void an_entry_that_outlives_its_directory_steps_aside(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "d", 11, DIR_MODE);
	put(c, 11, "x", 12, FILE_MODE);
	make(c, 11, DIR_MODE, 2);
	expect(c, "renamed * <- /d/x\ndeleted /d\ncreated /d\n"
		"renamed /d/x <- *\n");
}

static void an_entry_that_only_changed_its_block_is_no_event(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	gone(c, ROOT, "a");
	come(c, ROOT, "a", 11);
	expect(c, "");
	assert_int_equal(tw_view_name_block(c->view, name_of(c, ROOT, "a")), ROOT * 100 + 1);
	assert_false(name_of(c, ROOT, "a")->removed);
}

static void a_name_in_two_blocks_at_once_is_one_name(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	put(c, ROOT, "b", 12, FILE_MODE);
	gone(c, ROOT, "a");
	come(c, ROOT, "a", 11);
	gone(c, ROOT, "b");
	come(c, ROOT, "c", 12);
	expect(c, "renamed /c <- /b\n");
}

static void a_file_made_and_removed_within_gives_nothing(void **state)
{
	struct changes *c = *state;
	make(c, 11, FILE_MODE, 1);
	free_inode(c, 11);
	expect(c, "");
}

static void a_file_without_a_name_is_created_when_it_is_linked(void **state)
{
	struct changes *c = *state;
	make(c, 11, FILE_MODE, 1);
	touch(c, 11)->nlink = 0;
	range(c, 11, 0, 10);
	expect(c, "");
	touch(c, 11)->nlink = 1;
	come(c, ROOT, "a", 11);
	expect(c, "created /a\n");
}

static void what_hangs_from_nowhere_is_not_told_of(void **state)
{
	struct changes *c = *state;
	put(c, 50, "x", 11, FILE_MODE);
	touch(c, 11)->size = 7;
	make(c, 12, FILE_MODE, 1);
	come(c, 50, "y", 12);
	expect(c, "");
	make(c, 50, DIR_MODE, 1);
	come(c, ROOT, "d", 50);
	expect(c, "created /d\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHANGE_TEST(a_new_file_is_created),
		CHANGE_TEST(a_name_that_goes_with_its_inode_is_deleted),
		CHANGE_TEST(a_deleted_file_is_told_of_as_it_was),
		CHANGE_TEST(a_file_that_is_still_open_is_deleted_with_its_last_name),
		CHANGE_TEST(one_of_two_names_is_unlinked_the_last_one_deleted),
		CHANGE_TEST(all_names_gone_at_once_end_with_deleted),
		CHANGE_TEST(one_more_name_is_linked),
		CHANGE_TEST(a_new_file_with_two_names_is_created_then_linked),
		CHANGE_TEST(a_moved_name_is_renamed),
		CHANGE_TEST(what_a_rename_replaces_goes_first),
		CHANGE_TEST(a_replaced_name_of_several_is_unlinked_first),
		CHANGE_TEST(a_chain_of_renames_begins_at_its_free_end),
		CHANGE_TEST(two_names_that_change_places_are_an_exchange),
		CHANGE_TEST(a_cycle_of_three_is_two_exchanges),
		CHANGE_TEST(a_directory_moves_before_what_is_below_it),
		CHANGE_TEST(a_new_directory_comes_before_its_entries),
		CHANGE_TEST(a_deleted_directory_goes_after_its_entries),
		CHANGE_TEST(a_tree_can_be_turned_inside_out),
		CHANGE_TEST(a_deeper_tree_can_be_turned_inside_out),
		CHANGE_TEST(a_directory_can_move_below_a_new_one_of_its_name),
		CHANGE_TEST(a_reused_number_is_another_file),
		CHANGE_TEST(a_reused_number_under_the_same_name_is_another_file),
		CHANGE_TEST(a_number_reused_for_another_kind_is_another_file),
		CHANGE_TEST(a_reused_directory_takes_its_entries_along),
		CHANGE_TEST(a_reused_directory_goes_before_what_the_new_one_holds),
		CHANGE_TEST(deleted_comes_with_the_last_of_several_names),
		CHANGE_TEST(an_entry_that_outlives_its_directory_steps_aside),
		CHANGE_TEST(an_entry_that_only_changed_its_block_is_no_event),
		CHANGE_TEST(a_name_in_two_blocks_at_once_is_one_name),
		CHANGE_TEST(a_file_made_and_removed_within_gives_nothing),
		CHANGE_TEST(a_file_without_a_name_is_created_when_it_is_linked),
		CHANGE_TEST(what_hangs_from_nowhere_is_not_told_of),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
