/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes are missed, and then only they are looked at: the view is what a crawl finds, whatever the
 * guest does meanwhile, and what follows is followed.
 */
#include "mending.h"

static int setup(void **state)
{
	return guest_begin(state, "-J size=1");
}

static int setup_ext3(void **state)
{
	return guest_begin(state, "-J size=1 -O ^extent");
}

static void what_was_committed_unseen_is_read_from_the_log(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	tw_buf_reset(&g->events);
	g->missing = true;
	change(g, "mkdir new;write t/etc/hostname new/file");
	change(g, "unlink third;rm sparse");
	mend(g, "a gap");
	told(g, "unlinked /third\ndeleted /sparse\ncreated /new\ncreated /new/file\nmodified /\n");
	assert_int_equal(g->nresync, 5);
	change(g, "mkdir new/after");
	same_as_disk(g, "afterwards");
	told(g, "created /new/after\nmodified /new\n");
}

/* A block at home is not even looked at while the log goes back far enough. */
static void a_small_gap_reads_little(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	g->missing = true;
	change(g, "set_inode_field sparse uid 70000");
	struct tw_buf gathered = TW_BUF_INIT;
	void *found;
	bool stands, again;
	ok(ext4_survey(g->fs, &found, &stands));
	assert_true(stands);
	g->read = 0;
	tw_missed_tidy(&g->missed);
	ok(ext4_gather(found, &g->missed, &gathered, &again));
	ext4_gathered_destroy(found);
	tw_buf_deinit(&gathered);
	/* The commit before; descriptor, table and commit, twice, as nothing tells its blocks from others,
	 * and the block after them; the superblocks of log and volume; and a last look at the log. */
	assert_in_range(g->read, 1, 16);
	mend(g, "a small gap");
}

static void what_has_left_the_log_is_read_at_home(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	g->missing = true;
	change(g, "mkdir new;write t/etc/hostname new/file");
	checkpoint(g, false);
	change(g, "symlink new/long /a/long/target/a/long/target/a/long/target/a/long/target/a/long/target");
	checkpoint(g, false);
	change(g, "rm sparse");
	assert_true(g->tail != 1);
	mend(g, "a long gap");
	change(g, "write t/sparse again");
	same_as_disk(g, "afterwards");
}

static void a_log_that_has_gone_round_is_no_matter(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	g->missing = true;
	for (unsigned i = 0; i < 40; i++) {
		char command[64];
		snprintf(command, sizeof(command), "mkdir d%u", i);
		change(g, command);
	}
	mend(g, "many transactions");
	for (unsigned i = 0; i < 40; i++) {
		char command[64];
		snprintf(command, sizeof(command), "rmdir d%u", i);
		change(g, command);
	}
	same_as_disk(g, "many more");
}

static void unmounted_and_mounted_again_is_no_matter(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	g->missing = true;
	change(g, "mkdir new");
	checkpoint(g, true);
	mend(g, "unmounted");
	g->missing = true;
	mount_disk(g);
	change(g, "write t/etc/hostname new/file");
	mend(g, "mounted again");
	change(g, "rm new/file");
	same_as_disk(g, "afterwards");
}

/* A tool that writes in place, while the journal is empty. */
static void what_was_written_in_place_unseen_is_found(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	checkpoint(g, true);
	g->missing = true;
	change_in_place(g, "set_inode_field sparse uid 70000");
	mend(g, "in place");
}

/* --- while the guest goes on --- */

static void commit_something(struct guest *g)
{
	change(g, "mkdir meanwhile;write t/sparse meanwhile/file;rm big/a-file-with-a-long-name-77");
}

static void commit_and_checkpoint(struct guest *g)
{
	commit_something(g);
	checkpoint(g, false);
	change(g, "rm meanwhile/file;set_inode_field meanwhile uid 7");
}

/* What is at home is newer then than what the log had in the beginning. */
static void what_is_committed_while_we_look_is_in_it(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	g->missing = true;
	change(g, "mkdir new;write t/etc/hostname new/file");
	g->meanwhile = commit_something;
	mend(g, "a commit meanwhile");
	change(g, "mkdir new/after");
	same_as_disk(g, "afterwards");
}

static void nothing_is_told_twice(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	tw_buf_reset(&g->events);
	g->missing = true;
	change(g, "mkdir new");
	g->meanwhile = commit_something;
	mend(g, "a commit meanwhile");
	told(g, "deleted /big/a-file-with-a-long-name-77\ncreated /new\ncreated /meanwhile\n"
		"created /meanwhile/file\nmodified /\n");
	change(g, "rmdir new");
	told(g, "deleted /new\nmodified /\n");
}

/* The log has gone on from where it was to be read. */
static void a_log_that_was_given_back_meanwhile_is_begun_anew(void **state)
{
	struct guest *g = *state;
	struct tw_buf gathered = TW_BUF_INIT;
	void *found;
	bool stands, again = false;
	change(g, "mkdir seen");
	g->missing = true;
	change(g, "mkdir new");
	ok(ext4_survey(g->fs, &found, &stands));
	tw_missed_tidy(&g->missed);
	g->meanwhile = commit_and_checkpoint;
	g->read = 0;
	ok(ext4_gather(found, &g->missed, &gathered, &again));
	assert_true(again);
	ext4_gathered_destroy(found);
	tw_buf_deinit(&gathered);
	mend(g, "the second time");
}

static void miss_one_and_look(struct guest *g)
{
	switch (g->at - g->tail) {
	case 2:
		g->missing = true;
		break;
	case 3:
		ok(try_mend(g));
		break;
	default:
		break;
	}
}

/* All before it is at home, so the log begins with the transaction that is half there. */
static void a_gap_in_the_first_transaction_of_the_log_leaves_it_whole(void **state)
{
	struct guest *g = *state;
	change(g, "mkdir seen");
	checkpoint(g, false);
	g->logged = miss_one_and_look;
	change(g, "mkdir new;rm sparse");
	g->logged = NULL;
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, false));
	same_as_disk(g, "after its commit");
}

static unsigned reads_before;

static void commit_in_the_end(struct guest *g)
{
	if (reads_before--)
		g->meanwhile = commit_in_the_end;
	else
		log_commit_block(g);
}

/* The map of what was missed is not as fine as the log: it has the place of a block that is written later. */
static void a_commit_that_comes_while_we_look_is_the_streams(void **state)
{
	for (unsigned when = 0; when < 24; when++) {
		uint8_t block[BLOCK];
		guest_end(state);
		setup(state);
		struct guest *g = *state;
		change(g, "mkdir seen");
		g->missing = true;
		log_header(block, T_DESCRIPTOR, g->sequence);
		be32(block + 12, (uint32_t)block_of(g->fs, "sparse", TW_OWNER_DATA));
		block[12 + 7] = 8; /* the last one */
		log_put(g, block);
		log_put(g, g->next + block_of(g->fs, "sparse", TW_OWNER_DATA) * BLOCK);
		ok(tw_missed_add_range(&g->missed, (uint64_t)g->place[g->at] * BLOCK, BLOCK));
		reads_before = when;
		g->meanwhile = commit_in_the_end;
		ok(look_again(g));
		ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, false));
		g->meanwhile = NULL;
		see_late(g);
		ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, false));
	}
}

static void an_attribute_block_is_looked_at(void **state)
{
	struct guest *g = *state;
	change(g, "ea_set third user.old 1");
	g->missing = true;
	change(g, "ea_set third user.new 1;ea_rm third user.old");
	checkpoint(g, false);
	change(g, "mkdir other");
	checkpoint(g, false);
	mend(g, "attributes");
}

/* A directory's block is logged, revoked and given to a file; then the file gets what was logged. */
static void revoke_unseen(struct guest *g, bool logged_unseen)
{
	uint8_t logged[BLOCK];
	log_data(g, block_of(g->fs, "sparse", TW_OWNER_DATA));
	g->missing = logged_unseen;
	change(g, "mkdir dir");
	g->missing = true;
	uint64_t block = block_of(g->made, "dir", TW_OWNER_DIR);
	memcpy(logged, g->next + block * BLOCK, BLOCK);
	change(g, "rmdir dir");
	log_revocation(g, block);
	change(g, "write t/sparse file");
	mend(g, "a revocation");
	assert_int_equal(owner_of(g->fs, block).kind, TW_OWNER_DATA);
	tw_buf_reset(&g->events);
	guest_write(g, block, logged);
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, true));
	told(g, "modified /file\n");
}

/* What was logged of it is no checkpoint that is still to come. */
static void a_block_that_was_revoked_unseen_may_hold_the_same_as_data(void **state)
{
	revoke_unseen(*state, false);
}

static void a_block_that_was_logged_and_revoked_unseen_may_hold_the_same_as_data(void **state)
{
	revoke_unseen(*state, true);
}

static struct dice shared_dice;

static void random_change(struct guest *g)
{
	char command[160];
	random_command(&shared_dice, command, sizeof(command));
	change(g, command);
	if (g->place && !roll(&shared_dice, 4))
		checkpoint(g, false);
}

static void random_changes_are_found(void **state)
{
	struct guest *g = *state;
	shared_dice.state = 3;
	g->careful = true;
	for (unsigned i = 0; i < 25; i++) {
		unsigned seen = roll(&shared_dice, 3), missed = 1 + roll(&shared_dice, 6);
		while (seen--)
			random_change(g);
		g->missing = true;
		while (missed--)
			random_change(g);
		/* Without a log, nothing may happen meanwhile. */
		if (g->place && roll(&shared_dice, 2))
			g->meanwhile = commit_something;
		mend(g, "random changes");
		g->meanwhile = NULL;
	}
}

/* --- what only a crawl finds --- */

static void gather_fails(struct guest *g)
{
	struct tw_buf gathered = TW_BUF_INIT;
	void *found;
	bool stands, again;
	ok(ext4_survey(g->fs, &found, &stands));
	tw_missed_tidy(&g->missed);
	fails(ext4_gather(found, &g->missed, &gathered, &again), TW_GAP);
	ext4_gathered_destroy(found);
	tw_buf_deinit(&gathered);
}

static void another_file_system_is_a_crawls(void **state)
{
	struct guest *g = *state;
	uint8_t block[BLOCK];
	g->missing = true;
	memcpy(block, g->disk.bytes + EXT4_SUPERBLOCK_AT, BLOCK);
	block[0x108] ^= 1; /* s_mkfs_time */
	guest_write(g, 1, block);
	gather_fails(g);
	block[0x108] ^= 1;
	block[0x68] ^= 1; /* s_uuid */
	guest_write(g, 1, block);
	gather_fails(g);
}

/* An older copy of the disk has been written over it: its log goes back, too, but is another one. */
static void an_older_log_is_a_crawls(void **state)
{
	struct guest *g = *state;
	uint8_t *old = malloc(IMAGE_BYTES);
	change(g, "mkdir one");
	memcpy(old, g->disk.bytes, IMAGE_BYTES);
	change(g, "mkdir two");
	change(g, "mkdir three");
	memcpy(g->disk.bytes, old, IMAGE_BYTES);
	ok(tw_missed_add_range(&g->missed, 0, IMAGE_BYTES));
	free(old);
	gather_fails(g);
}

static void what_was_gathered_may_be_damaged(void **state)
{
	struct guest *g = *state;
	struct tw_buf gathered = TW_BUF_INIT;
	void *found;
	bool stands, again;
	g->missing = true;
	change(g, "mkdir new");
	ok(ext4_survey(g->fs, &found, &stands));
	tw_missed_tidy(&g->missed);
	ok(ext4_gather(found, &g->missed, &gathered, &again));
	ext4_gathered_destroy(found);
	fails(ext4_mend(g->fs, tw_span(gathered.data, gathered.len - 1), &g->missed,
		      (struct tw_time){ 9, 0 }),
		TW_BAD_DATA);
	tw_buf_deinit(&gathered);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, guest_end)
#define TEST3(f) { #f " (block maps)", f, setup_ext3, guest_end, NULL }
#define TEST_WITHOUT(f) { #f " (no journal)", f, guest_begin_unjournaled, guest_end, NULL }
	const struct CMUnitTest tests[] = {
		TEST(what_was_committed_unseen_is_read_from_the_log),
		TEST(a_small_gap_reads_little),
		TEST(what_has_left_the_log_is_read_at_home),
		TEST3(what_has_left_the_log_is_read_at_home),
		TEST(a_log_that_has_gone_round_is_no_matter),
		TEST(unmounted_and_mounted_again_is_no_matter),
		TEST(what_was_written_in_place_unseen_is_found),
		TEST(what_is_committed_while_we_look_is_in_it),
		TEST3(what_is_committed_while_we_look_is_in_it),
		TEST(nothing_is_told_twice),
		TEST(a_log_that_was_given_back_meanwhile_is_begun_anew),
		TEST(a_gap_in_the_first_transaction_of_the_log_leaves_it_whole),
		TEST(a_commit_that_comes_while_we_look_is_the_streams),
		TEST(an_attribute_block_is_looked_at),
		TEST(a_block_that_was_revoked_unseen_may_hold_the_same_as_data),
		TEST(a_block_that_was_logged_and_revoked_unseen_may_hold_the_same_as_data),
		TEST(random_changes_are_found),
		TEST3(random_changes_are_found),
		TEST_WITHOUT(random_changes_are_found),
		TEST(another_file_system_is_a_crawls),
		TEST(an_older_log_is_a_crawls),
		TEST(what_was_gathered_may_be_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
