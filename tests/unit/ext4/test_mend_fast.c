/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fast commits, and writes that are missed while they count: a gap is mended by what is behind the log, and
 * what a recovery wrote in place without being seen is never taken for known.
 */
#include "fastguest.h"
#include "mending.h"

static void next_fast(struct fast_guest *f)
{
	f->log = (struct fastlog){ .tid = f->guest.sequence };
	fast_head(&f->log, 0);
}

static uint32_t number_of(const struct guest *g, const char *name)
{
	return owner_of(g->fs, block_of(g->fs, name, TW_OWNER_DATA)).ino;
}

/* Another name of a file, as a fast commit says it. */
static void link_fast(struct fast_guest *f, uint32_t ino, const char *name, unsigned links)
{
	uint8_t raw[FAST_INODE];
	read_inode(&f->guest, ino, raw);
	fast_le16(raw + I_LINKS, links);
	fast_name(&f->log, EXT4_FC_LINK, EXT4_ROOT_INO, ino, name);
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
}

/* ... and as it comes into the log, or is written in place. */
#define LINKED "set_inode_field sparse links_count 2;ln sparse quick"

static struct tw_error *write_log_superblock(struct guest *g, uint32_t start, uint32_t sequence)
{
	uint8_t sb[BLOCK];
	memcpy(sb, g->disk.bytes + (size_t)g->place[0] * BLOCK, BLOCK);
	be32(sb + 24, sequence);
	be32(sb + 28, start);
	memcpy(g->disk.bytes + (size_t)g->place[0] * BLOCK, sb, BLOCK);
	struct tw_write write = { (uint64_t)g->place[0] * BLOCK, BLOCK, sb, TW_RECORD_PAYLOAD, { 7, 0 }, false };
	return ext4_write(g->fs, &write);
}

static void what_a_fast_commit_said_unseen_is_told(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	g->missing = true;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	mend(g, "a gap");
	told(g, "linked /quick\n");
	assert_int_equal(g->nresync, 1);
	change(g, LINKED);
	told(g, "modified /\n");
	same_as_disk(g, "after the commit");
}

/* Nothing that was seen is read again, but for the last block. */
static void fast_commits_go_on_where_they_were(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint32_t ino = number_of(g, "sparse");
	for (unsigned links = 2; links < 6; links++) {
		char name[16];
		snprintf(name, sizeof(name), "seen%u", links);
		link_fast(f, ino, name, links);
	}
	told(g, "linked /seen2\nlinked /seen3\nlinked /seen4\nlinked /seen5\n");
	g->missing = true;
	link_fast(f, ino, "quick", 6);
	ok(try_mend(g));
	/* The superblocks, the log's first block, the last block, the new one and the one after it. */
	assert_in_range(g->read, 1, 14);
	told(g, "linked /quick\n");
	same_as_disk(g, "a gap");
	link_fast(f, ino, "quicker", 7);
	told(g, "linked /quicker\n");
	same_as_disk(g, "after the next one");
}

static void a_commit_unseen_ends_them(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	g->missing = true;
	change(g, LINKED);
	mend(g, "a commit in the gap");
	told(g, "modified /\n");
	next_fast(f);
	link_fast(f, number_of(g, "sparse"), "more", 3);
	told(g, "linked /more\n");
	same_as_disk(g, "fast commits of the next transaction");
}

static void a_commit_and_fast_commits_behind_it_are_read(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	g->missing = true;
	change(g, LINKED);
	checkpoint(g, false);
	next_fast(f);
	link_fast(f, number_of(g, "sparse"), "more", 3);
	mend(g, "a gap");
	told(g, "modified /\nlinked /more\n");
}

/* The first block of two was missed, and the other one comes; and the other way round. */
static void a_fast_commit_that_was_missed_in_part_becomes_whole(struct fast_guest *f, unsigned missed)
{
	struct guest *g = &f->guest;
	uint32_t ino = number_of(g, "sparse"), from = f->log.at;
	for (unsigned i = 0; i < 30; i++)
		fast_add(&f->log, ino, 500 + i, BLOCKS / 2 + i, 1, false);
	uint8_t raw[FAST_INODE];
	read_inode(g, ino, raw);
	fast_le16(raw + I_LINKS, 2);
	fast_inode(&f->log, ino, raw, FAST_INODE);
	fast_name(&f->log, EXT4_FC_LINK, EXT4_ROOT_INO, ino, "a-name-that-is-long-enough-to-need-another-block");
	fast_inode(&f->log, ino, raw, FAST_INODE);
	fast_tail(&f->log);
	assert_int_equal(f->log.at, from + 2);
	g->missing = true;
	guest_write(g, g->place[FAST_BEGIN + from + missed], f->log.blocks[from + missed]);
	ok(try_mend(g));
	told(g, "");
	guest_write(g, g->place[FAST_BEGIN + from + !missed], f->log.blocks[from + !missed]);
	told(g, "linked /a-name-that-is-long-enough-to-need-another-block\n");
}

static void the_first_block_of_a_fast_commit_may_be_missed(void **state)
{
	a_fast_commit_that_was_missed_in_part_becomes_whole(*state, 0);
}

static void the_last_block_of_a_fast_commit_may_be_missed(void **state)
{
	a_fast_commit_that_was_missed_in_part_becomes_whole(*state, 1);
}

/* Its place is behind the log, which goes round; what the stream brings once more is known. */
static void fast_commits_are_behind_a_log_that_goes_round(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	while (g->at < g->end - 12) {
		change(g, "mkdir dir");
		change(g, "rmdir dir");
	}
	checkpoint(g, false);
	uint32_t from = g->at;
	g->missing = true;
	for (unsigned i = 0; g->at >= from; i++)
		change(g, i % 2 ? "rmdir dir" : "mkdir dir");
	ok(try_mend(g));
	assert_true(g->fs->log_behind > g->at);
	next_fast(f);
	tw_buf_reset(&g->events);
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	told(g, "linked /quick\n");
}

/* --- while the guest goes on --- */

static void commit_it_all(struct guest *g)
{
	struct fast_guest *f = (struct fast_guest *)g;
	change(g, LINKED);
	next_fast(f);
	link_fast(f, number_of(g, "sparse"), "more", 3);
}

/* Whichever block is read then. */
static void a_commit_meanwhile_leaves_no_mixture(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	g->missing = true;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	g->meanwhile = commit_it_all;
	mend(g, "a commit meanwhile");
	change(g, "mkdir after");
	same_as_disk(g, "afterwards");
}

static unsigned reads_before;

static void commit_in_the_end(struct guest *g)
{
	if (reads_before--)
		g->meanwhile = commit_in_the_end;
	else
		commit_it_all(g);
}

static void a_commit_at_any_time_meanwhile_leaves_no_mixture(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	for (unsigned i = 0; i < 28; i++) {
		fast_end(state);
		fast_begin(state);
		f = *state;
		g = &f->guest;
		link_fast(f, number_of(g, "sparse"), "quick", 2);
		g->missing = true;
		if (i % 2) {
			change(g, "mkdir dir");
			change(g, "rmdir dir");
		} else {
			link_fast(f, number_of(g, "sparse"), "quicker", 3);
		}
		reads_before = i / 2;
		g->meanwhile = commit_in_the_end;
		ok(try_mend(g));
		if (!g->meanwhile)
			same_as_disk(g, "a commit meanwhile");
	}
}

/* --- recoveries --- */

static void a_recovery_unseen_is_read_at_home(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	change(g, "mkdir seen");
	checkpoint(g, false);
	next_fast(f);
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	g->missing = true;
	change_in_place(g, LINKED);
	write_superblock(g, 1, ++g->sequence);
	g->at = 1;
	mend(g, "a recovery");
	told(g, "modified /\n");
	change(g, "mkdir after");
	same_as_disk(g, "afterwards");
}

/* One part of it was seen, and one was missed. */
static void a_recovery_that_ends_unseen_is_read_at_home(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	g->ahead = true;
	change_in_place(g, LINKED);
	g->ahead = false;
	assert_true(g->nlate >= 2);
	for (size_t i = 0; i < g->nlate; i++)
		if (i)
			ok(tw_missed_add_range(&g->missed, g->late[i].block * BLOCK, BLOCK));
		else
			see(g, g->late[i].block, g->late[i].data, false);
	g->nlate = 0;
	g->missing = true;
	write_superblock(g, 1, ++g->sequence);
	mend(g, "a recovery");
	told(g, "modified /\n");
}

/* What it wrote in a gap is looked at when the next one has its end. */
static void a_recovery_that_was_missed_in_two_gaps_is_read_at_home(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	g->missing = true;
	change_in_place(g, LINKED);
	ok(try_mend(g));
	g->missing = true;
	write_superblock(g, 1, ++g->sequence);
	mend(g, "a recovery");
	told(g, "modified /\n");
}

/* The log's superblock moves on last: until then nothing tells a recovery from a guest at work. */
static void a_recovery_that_was_under_way_is_a_crawls(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	g->missing = true;
	change_in_place(g, LINKED);
	ok(try_mend(g));
	told(g, "");
	fails(write_log_superblock(g, 1, g->sequence + 1), TW_GAP);
}

static void so_it_is_when_their_fast_commits_are_refused(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	const uint32_t dir = g->fs->geo.ninodes - 2;
	change(g, "mkdir seen");
	next_fast(f);
	tw_buf_reset(&g->events);
	g->missing = true;
	fast_name(&f->log, EXT4_FC_CREAT, dir, number_of(g, "sparse"), "quick");
	commit_fast(f);
	change_in_place(g, LINKED);
	ok(try_mend(g));
	told(g, "");
	assert_false(g->fs->fast_applied);
	fails(write_log_superblock(g, 1, g->sequence + 1), TW_GAP);
}

/* A kernel might make more of it than we do. */
static void so_it_is_when_they_are_not_understood(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	change(g, "mkdir seen");
	next_fast(f);
	g->missing = true;
	fast_tag(&f->log, 77, "?", 1);
	commit_fast(f);
	change_in_place(g, LINKED);
	ok(try_mend(g));
	fails(write_log_superblock(g, 1, g->sequence + 1), TW_GAP);
}

static void so_it_is_when_it_began_while_the_gap_was_looked_at(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	/* The fast commit as well comes after what was read. */
	g->missing = true;
	change(g, "mkdir new");
	void *found;
	bool stands, again;
	struct tw_buf gathered = TW_BUF_INIT;
	ok(ext4_survey(g->fs, &found, &stands));
	tw_missed_tidy(&g->missed);
	ok(ext4_gather(found, &g->missed, &gathered, &again));
	ext4_gathered_destroy(found);
	ok(ext4_mend(g->fs, tw_span(gathered.data, gathered.len), &g->missed, (struct tw_time){ 9, 0 }));
	tw_buf_deinit(&gathered);
	g->missing = false;
	g->ahead = true;
	next_fast(f);
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	change_in_place(g, LINKED);
	g->ahead = false;
	/* Where the name is, only the directory's block tells. */
	for (size_t i = 0; i < g->nlate; i++)
		see(g, g->late[i].block, g->late[i].data,
			owner_of(g->fs, g->late[i].block).kind == TW_OWNER_DIR);
	g->nlate = 0;
	fails(write_log_superblock(g, 1, g->sequence + 1), TW_GAP);
}

/* ... and a restart does not forget it. */
static void a_restart_keeps_what_was_not_seen(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	struct tw_buf saved = TW_BUF_INIT;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	g->missing = true;
	change_in_place(g, LINKED);
	ok(try_mend(g));
	size_t missed = g->fs->fast_missed.n;
	unsigned blocks = HASH_COUNT(g->fs->fast_blocks);
	assert_true(missed && blocks);
	ok(ext4_save(g->fs, &saved));
	struct tw_fs_env env = g->fs->env;
	ext4_destroy(g->fs);
	ok(ext4_load(&env, tw_span(saved.data, saved.len), (void **)&g->fs));
	tw_buf_deinit(&saved);
	assert_int_equal(g->fs->fast_missed.n, missed);
	assert_int_equal(HASH_COUNT(g->fs->fast_blocks), blocks);
	fails(write_log_superblock(g, 1, g->sequence + 1), TW_GAP);
}

static void a_commit_shows_that_there_was_no_recovery(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	g->missing = true;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	ok(try_mend(g));
	change(g, LINKED);
	checkpoint(g, true);
	same_as_disk(g, "unmounted");
}

/* A recovery that begins later is seen as a whole. */
static void where_none_counted_nothing_was_missed(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	g->missing = true;
	change(g, "mkdir new");
	ok(try_mend(g));
	checkpoint(g, false);
	next_fast(f);
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	change_in_place(g, LINKED);
	ok(write_log_superblock(g, 1, g->sequence + 1));
	told(g, "modified /\n");
	same_as_disk(g, "recovered");
}

/* --- logs that are emptied without a recovery --- */

static void unlink_fast(struct fast_guest *f, const char *name)
{
	uint32_t ino = number_of(&f->guest, name);
	fast_name(&f->log, EXT4_FC_UNLINK, EXT4_ROOT_INO, ino, name);
	commit_fast(f);
}

static void what_was_given_up_is_there_again(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	unlink_fast(f, "sparse");
	told(g, "deleted /sparse\n");
	g->missing = true;
	write_superblock(g, 0, g->sequence + 1);
	mend(g, "a tool");
	told(g, "created /sparse\nmodified /\n");
}

static void a_log_that_is_emptied_while_we_look_is_a_crawls(void **state)
{
	struct fast_guest *f = *state;
	unlink_fast(f, "sparse");
	fails(write_log_superblock(&f->guest, 0, f->guest.sequence + 1), TW_GAP);
}

/* Fast commits move a mapping without its nodes, which say what it was. */
static void a_mapping_that_was_given_up_is_read_from_its_nodes(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint8_t raw[FAST_INODE];
	change(g, "write t/etc/hostname pieces;"
		"punch pieces 0 0");
	uint32_t ino = 0;
	for (const struct ext4_root *root = g->fs->roots; root; root = root->hh.next)
		ino = S_ISREG(tw_view_mode(g->fs->view, tw_view_inode(g->fs->view, root->ino))) &&
				root->ino != EXT4_JOURNAL_INO ? root->ino : ino;
	assert_int_not_equal(ino, 0);
	checkpoint(g, false);
	next_fast(f);
	read_inode(g, ino, raw);
	fast_add(&f->log, ino, 5000, BLOCKS / 2 + 7, 1, false);
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
	g->missing = true;
	write_superblock(g, 0, g->sequence + 1);
	mend(g, "a tool");
}

/* A large recovery is looked at in parts. */
static void a_recovery_may_be_applied_before_it_is_done(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	g->fs->direct_most = 1;
	change_in_place(g, LINKED);
	ok(write_log_superblock(g, 1, g->sequence + 1));
	same_as_disk(g, "recovered");
}

/* ... and finds what was said already. */
static void a_recovery_need_not_write_what_is_not_new(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint8_t raw[FAST_INODE];
	uint32_t ino = number_of(g, "sparse");
	read_inode(g, ino, raw);
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
	assert_true(g->fs->fast_applied);
	ok(write_log_superblock(g, 1, g->sequence + 1));
	same_as_disk(g, "recovered");
}

/* Another journal, made anew, may come to the same number. */
static void a_number_that_comes_again_is_of_other_fast_commits(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	tw_buf_reset(&g->events);
	g->missing = true;
	write_superblock(g, 5, g->sequence);
	next_fast(f);
	link_fast(f, number_of(g, "sparse"), "more", 2);
	mend(g, "another log");
	told(g, "unlinked /quick\nmodified /\nlinked /more\n");
}

/* An older copy of the disk. */
static void other_fast_commits_are_a_crawls(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint8_t none[BLOCK] = { 0 };
	link_fast(f, number_of(g, "sparse"), "quick", 2);
	g->missing = true;
	guest_write(g, g->place[FAST_BEGIN], none);
	void *found;
	bool stands, again;
	struct tw_buf gathered = TW_BUF_INIT;
	ok(ext4_survey(g->fs, &found, &stands));
	tw_missed_tidy(&g->missed);
	fails(ext4_gather(found, &g->missed, &gathered, &again), TW_GAP);
	ext4_gathered_destroy(found);
	tw_buf_deinit(&gathered);
}

/* --- what is written at home while they count --- */

/* A cache below the guest's file system writes what it has of a block once more, before its checkpoint. */
static void what_is_stale_is_forgotten_with_a_commit_that_was_missed(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint64_t table = ext4_geometry_slot(&g->fs->geo, number_of(g, "sparse"));
	uint8_t before[BLOCK];
	memcpy(before, g->disk.bytes + table * BLOCK, BLOCK);
	change(g, "set_inode_field sparse uid 9");
	next_fast(f);
	uint8_t raw[FAST_INODE];
	read_inode(g, EXT4_ROOT_INO, raw);
	fast_le32(raw + I_MTIME, 1234567890);
	fast_inode(&f->log, EXT4_ROOT_INO, raw, FAST_INODE);
	commit_fast(f);
	tw_buf_reset(&g->events);
	see(g, table, before, false);
	assert_non_null(g->fs->direct);
	g->missing = true;
	change(g, "set_inode_field / uid 5");
	ok(try_mend(g));
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, true));
	same_as_disk(g, "after the commit");
	told(g, "attributes /\n");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fast_begin, fast_end)
	const struct CMUnitTest tests[] = {
		TEST(what_a_fast_commit_said_unseen_is_told),
		TEST(fast_commits_go_on_where_they_were),
		TEST(a_commit_unseen_ends_them),
		TEST(a_commit_and_fast_commits_behind_it_are_read),
		TEST(the_first_block_of_a_fast_commit_may_be_missed),
		TEST(the_last_block_of_a_fast_commit_may_be_missed),
		TEST(fast_commits_are_behind_a_log_that_goes_round),
		TEST(a_commit_meanwhile_leaves_no_mixture),
		TEST(a_commit_at_any_time_meanwhile_leaves_no_mixture),
		TEST(a_recovery_unseen_is_read_at_home),
		TEST(a_recovery_that_ends_unseen_is_read_at_home),
		TEST(a_recovery_that_was_missed_in_two_gaps_is_read_at_home),
		TEST(a_recovery_that_was_under_way_is_a_crawls),
		TEST(so_it_is_when_their_fast_commits_are_refused),
		TEST(so_it_is_when_they_are_not_understood),
		TEST(so_it_is_when_it_began_while_the_gap_was_looked_at),
		TEST(a_restart_keeps_what_was_not_seen),
		TEST(a_commit_shows_that_there_was_no_recovery),
		TEST(where_none_counted_nothing_was_missed),
		TEST(what_was_given_up_is_there_again),
		TEST(a_log_that_is_emptied_while_we_look_is_a_crawls),
		TEST(a_mapping_that_was_given_up_is_read_from_its_nodes),
		TEST(a_recovery_may_be_applied_before_it_is_done),
		TEST(a_recovery_need_not_write_what_is_not_new),
		TEST(a_number_that_comes_again_is_of_other_fast_commits),
		TEST(other_fast_commits_are_a_crawls),
		TEST(what_is_stale_is_forgotten_with_a_commit_that_was_missed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
