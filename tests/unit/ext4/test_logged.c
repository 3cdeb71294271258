/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a block holds when the log and its home say it: what was written home is older than a commit,
 * or its checkpoint, or a change; and file data may go through the log, or lie where a directory was.
 */
#include "guest.h"

static int setup(void **state)
{
	return guest_begin(state, "-J size=1");
}

static void settle(struct guest *g)
{
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, false));
}

static void data_in_the_log_is_told_with_its_transaction(void **state)
{
	struct guest *g = *state;
	uint64_t block = block_of(g->fs, "sparse", TW_OWNER_DATA);
	log_data(g, block);
	told(g, "modified /sparse\n");
	guest_write(g, block, g->next + block * BLOCK);
	settle(g);
	told(g, "");
	/* No more is expected there: the same once more is a write. */
	guest_write(g, block, g->next + block * BLOCK);
	settle(g);
	told(g, "modified /sparse\n");
}

/* Its checkpoint would look the same, but there is none any more. */
static void a_revoked_block_may_hold_the_same_as_data(void **state)
{
	struct guest *g = *state;
	uint8_t logged[BLOCK];
	log_data(g, block_of(g->fs, "sparse", TW_OWNER_DATA));
	change(g, "mkdir dir");
	uint64_t block = block_of(g->fs, "dir", TW_OWNER_DIR);
	memcpy(logged, g->next + block * BLOCK, BLOCK);
	change(g, "rmdir dir");
	log_revocation(g, block);
	change(g, "write t/sparse file");
	assert_int_equal(owner_of(g->fs, block).kind, TW_OWNER_DATA);
	tw_buf_reset(&g->events);
	guest_write(g, block, logged);
	settle(g);
	told(g, "modified /file\n");
}

/* It is not even compared: nothing waits for the next flush. */
static void a_checkpoint_is_no_change(void **state)
{
	struct guest *g = *state;
	uint64_t block = block_of(g->fs, "deep", TW_OWNER_DIR);
	change(g, "symlink deep/link target;set_inode_field sparse uid 9");
	tw_buf_reset(&g->events);
	assert_non_null(ext4_block_find(g->fs->recent, block));
	checkpoint(g, false);
	assert_null(g->fs->direct);
	assert_null(ext4_block_find(g->fs->recent, block));
	/* What comes behind it does not wait for it any more. */
	change_in_place(g, "set_inode_field sparse uid 10");
	settle(g);
	told(g, "attributes /sparse\n");
	same_as_disk(g, "written in place");
}

static void what_was_written_home_before_a_commit_is_older(void **state)
{
	struct guest *g = *state;
	change_in_place(g, "set_inode_field sparse uid 9");
	assert_non_null(g->fs->direct);
	change(g, "set_inode_field sparse uid 10");
	told(g, "attributes /sparse\n");
	settle(g);
	told(g, "");
	same_as_disk(g, "written in place, then committed");
}

/* Nothing of the directory's block is written once its inode says that it is one. */
static void a_new_directory_may_be_written_before_its_inode(void **state)
{
	struct guest *g = *state;
	checkpoint(g, true);
	change_in_place(g, "mkdir dir;symlink dir/link target");
	settle(g);
	told(g, "created /dir\ncreated /dir/link\nmodified /\n");
	same_as_disk(g, "made in place");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, guest_end)
	const struct CMUnitTest tests[] = {
		TEST(data_in_the_log_is_told_with_its_transaction),
		TEST(a_revoked_block_may_hold_the_same_as_data),
		TEST(a_checkpoint_is_no_change),
		TEST(what_was_written_home_before_a_commit_is_older),
		TEST(a_new_directory_may_be_written_before_its_inode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
