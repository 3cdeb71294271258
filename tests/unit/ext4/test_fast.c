/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fast commits of a guest: its inodes and ranges, behind the log. They say what a flush alone does not.
 */
#include "fastguest.h"

#include "base/mem.h"

static void flush(struct guest *g)
{
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, false));
}

/* The guest flushes before the last block of a fast commit. */
static void data_waits_for_its_fast_commit(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint64_t block = block_of(g->fs, "sparse", TW_OWNER_DATA);
	uint32_t ino = owner_of(g->fs, block).ino;
	uint8_t raw[FAST_INODE], data[BLOCK] = { 'n' };
	guest_write(g, block, data);
	flush(g);
	told(g, "");
	read_inode(g, ino, raw);
	fast_le32(raw + I_MTIME, 1234567890);
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
	told(g, "modified /sparse\n");
	/* Where none follows, it was a flush. */
	guest_write(g, block, data);
	flush(g);
	told(g, "");
	flush(g);
	told(g, "modified /sparse\n");
}

/* After a freeze Linux says that the log is in use with the next commit. */
static void a_fast_commit_in_an_empty_log_counts_when_the_log_is_in_use(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint32_t ino = owner_of(g->fs, block_of(g->fs, "sparse", TW_OWNER_DATA)).ino;
	uint8_t raw[FAST_INODE];
	uint8_t *sb = g->disk.bytes + (size_t)g->place[0] * BLOCK;
	be32(sb + 0x28, 0);
	write_superblock(g, 0, g->sequence);
	read_inode(g, ino, raw);
	fast_le16(raw + I_LINKS, 2);
	fast_name(&f->log, EXT4_FC_LINK, EXT4_ROOT_INO, ino, "quick");
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
	told(g, "");
	be32(sb + 0x28, JBD2_FAST_F);
	write_superblock(g, 1, g->sequence);
	told(g, "linked /quick\n");
}

static void restart(struct guest *g)
{
	struct tw_buf saved = TW_BUF_INIT;
	ok(ext4_save(g->fs, &saved));
	struct tw_fs_env env = g->fs->env;
	ext4_destroy(g->fs);
	g->fs = NULL;
	ok(ext4_load(&env, tw_span(saved.data, saved.len), (void **)&g->fs));
	tw_buf_deinit(&saved);
}

/* An empty log says that it has no area for fast commits. */
static void a_restart_while_the_log_is_empty_keeps_what_waits(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint32_t ino = owner_of(g->fs, block_of(g->fs, "sparse", TW_OWNER_DATA)).ino;
	uint8_t raw[FAST_INODE];
	uint8_t *sb = g->disk.bytes + (size_t)g->place[0] * BLOCK;
	read_inode(g, ino, raw);
	fast_le16(raw + I_LINKS, 2);
	fast_name(&f->log, EXT4_FC_LINK, EXT4_ROOT_INO, ino, "quick");
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
	told(g, "linked /quick\n");
	change(g, "set_inode_field sparse links_count 2;ln sparse quick");
	told(g, "modified /\n");
	be32(sb + 0x28, 0);
	checkpoint(g, true);
	restart(g);
	same_as_disk(g, "after a restart");
}

/* What is told after a restart is what was told without one. */
static void a_restart_before_a_flush_changes_nothing(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint64_t block = block_of(g->fs, "sparse", TW_OWNER_DATA);
	uint32_t ino = owner_of(g->fs, block).ino;
	uint8_t raw[FAST_INODE], data[BLOCK] = { 'n' };
	restart(g);
	flush(g);
	guest_write(g, block, data);
	flush(g);
	told(g, "");
	read_inode(g, ino, raw);
	fast_le32(raw + I_MTIME, 1234567890);
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
	told(g, "modified /sparse\n");
}

static uint64_t free_block(const struct guest *g, uint64_t from)
{
	while (owner_of(g->fs, from).kind)
		from++;
	return from;
}

static bool owns(const struct guest *g, uint32_t ino, uint64_t block)
{
	return owner_of(g->fs, block).kind == TW_OWNER_DATA && owner_of(g->fs, block).ino == ino;
}

/* What was said of it before was said of another file. */
static void a_number_reused_in_a_fast_commit_begins_without_ranges(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint64_t old = free_block(g, BLOCKS / 2), between = free_block(g, old + 1),
		 new = free_block(g, between + 1);
	uint32_t ino = owner_of(g->fs, block_of(g->fs, "sparse", TW_OWNER_DATA)).ino;
	uint8_t raw[FAST_INODE];
	read_inode(g, ino, raw);
	fast_add(&f->log, ino, 500, old, 1, false);
	fast_name(&f->log, EXT4_FC_UNLINK, EXT4_ROOT_INO, ino, "sparse");
	raw[I_GENERATION]++;
	fast_inode(&f->log, ino, raw, FAST_INODE);
	fast_add(&f->log, ino, 600, between, 1, false);
	raw[I_GENERATION]++;
	fast_inode(&f->log, ino, raw, FAST_INODE);
	fast_add(&f->log, ino, 0, new, 1, false);
	fast_name(&f->log, EXT4_FC_CREAT, EXT4_ROOT_INO, ino, "other");
	commit_fast(f);
	told(g, "deleted /sparse\ncreated /other\n");
	assert_false(owns(g, ino, old));
	assert_false(owns(g, ino, between));
	assert_true(owns(g, ino, new));
}

/* What a recovery writes home is one state with what was told, when all of it is there: then the log
 * begins anew. */
static void a_recovery_of_fast_commits_is_looked_at_when_it_is_done(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint32_t ino = owner_of(g->fs, block_of(g->fs, "sparse", TW_OWNER_DATA)).ino;
	uint8_t raw[FAST_INODE];
	read_inode(g, ino, raw);
	fast_le16(raw + I_LINKS, 2);
	fast_name(&f->log, EXT4_FC_LINK, EXT4_ROOT_INO, ino, "quick");
	fast_inode(&f->log, ino, raw, FAST_INODE);
	commit_fast(f);
	told(g, "linked /quick\n");
	g->ahead = true;
	change_in_place(g, "set_inode_field sparse links_count 2;ln sparse quick");
	g->ahead = false;
	assert_true(g->nlate >= 2);
	for (size_t i = 0; i < g->nlate; i++) {
		see(g, g->late[i].block, g->late[i].data, false);
		flush(g);
		flush(g);
	}
	told(g, "");
	write_superblock(g, 1, g->sequence + 1);
	told(g, "modified /\n");
	same_as_disk(g, "after the recovery");
}

static uint32_t uid_of(const struct guest *g, uint32_t ino)
{
	return tw_view_attr(g->fs->view, tw_view_inode(g->fs->view, ino)).uid;
}

/* What a tool wrote there in between is not there any more. */
static void a_checkpoint_comes_over_what_waits_for_a_recovery(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint32_t ino = owner_of(g->fs, block_of(g->fs, "sparse", TW_OWNER_DATA)).ino;
	uint8_t raw[FAST_INODE];
	change(g, "set_inode_field sparse uid 9");
	void *committed = tw_memdup(g->next, IMAGE_BYTES);
	f->log = (struct fastlog){ .tid = g->sequence };
	fast_head(&f->log, 0);
	read_inode(g, EXT4_ROOT_INO, raw);
	fast_le32(raw + I_MTIME, 1234567890);
	fast_inode(&f->log, EXT4_ROOT_INO, raw, FAST_INODE);
	commit_fast(f);
	change_in_place(g, "set_inode_field sparse uid 10");
	assert_non_null(g->fs->direct);
	memcpy(g->next, committed, IMAGE_BYTES);
	free(committed);
	checkpoint(g, false);
	assert_null(g->fs->direct);
	uint64_t table = ext4_geometry_slot(&g->fs->geo, EXT4_ROOT_INO);
	memcpy(g->next + table * BLOCK + FAST_INODE, raw, FAST_INODE);
	guest_write(g, table, g->next + table * BLOCK);
	write_superblock(g, g->at, g->sequence + 1);
	assert_int_equal(uid_of(g, ino), 9);
}

/* A cache below the guest's file system writes what it has of a block once more, before its checkpoint. */
static void what_is_stale_is_forgotten_with_the_commit(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	uint32_t ino = owner_of(g->fs, block_of(g->fs, "sparse", TW_OWNER_DATA)).ino;
	uint64_t table = g->fs->geo.itable[0] + (uint64_t)(ino - 1) * FAST_INODE / BLOCK;
	uint8_t before[BLOCK], raw[FAST_INODE];
	memcpy(before, g->disk.bytes + table * BLOCK, BLOCK);
	change(g, "set_inode_field sparse uid 9");
	f->log = (struct fastlog){ .tid = g->sequence };
	fast_head(&f->log, 0);
	read_inode(g, EXT4_ROOT_INO, raw);
	fast_le32(raw + I_MTIME, 1234567890);
	fast_inode(&f->log, EXT4_ROOT_INO, raw, FAST_INODE);
	commit_fast(f);
	tw_buf_reset(&g->events);
	see(g, table, before, false);
	assert_non_null(g->fs->direct);
	change(g, "set_inode_field / uid 5");
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, true));
	assert_int_equal(uid_of(g, ino), 9);
	told(g, "attributes /\n");
}

static void new_inode(struct fast_guest *f, uint32_t ino, uint32_t like, unsigned links)
{
	uint8_t raw[FAST_INODE];
	read_inode(&f->guest, like, raw);
	fast_le16(raw + I_LINKS, links);
	raw[I_GENERATION] ^= 0x55;
	fast_inode(&f->log, ino, raw, FAST_INODE);
}

/* A name that Linux forgot in a fast commit: what is below it has no path before the full commit, which would
 * then find it where it is already. */
static void a_name_in_a_directory_without_one_waits_for_the_commit(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	const uint32_t dir = g->fs->geo.ninodes - 2, sub = dir + 1;
	new_inode(f, sub, EXT4_ROOT_INO, 2);
	fast_name(&f->log, EXT4_FC_CREAT, dir, sub, "sub");
	new_inode(f, dir, EXT4_ROOT_INO, 3);
	commit_fast(f);
	told(g, "");
	assert_null(tw_view_inode(g->fs->view, sub));
	assert_null(tw_view_inode(g->fs->view, dir));
}

static void names_in_new_directories_need_no_order(void **state)
{
	struct fast_guest *f = *state;
	struct guest *g = &f->guest;
	const uint32_t dir = g->fs->geo.ninodes - 2, sub = dir + 1, ino = dir + 2;
	uint32_t file = owner_of(g->fs, block_of(g->fs, "sparse", TW_OWNER_DATA)).ino;
	new_inode(f, ino, file, 1);
	fast_name(&f->log, EXT4_FC_CREAT, sub, ino, "file");
	new_inode(f, sub, EXT4_ROOT_INO, 2);
	fast_name(&f->log, EXT4_FC_CREAT, dir, sub, "sub");
	new_inode(f, dir, EXT4_ROOT_INO, 3);
	fast_name(&f->log, EXT4_FC_CREAT, EXT4_ROOT_INO, dir, "new");
	commit_fast(f);
	told(g, "created /new\ncreated /new/sub\ncreated /new/sub/file\n");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fast_begin, fast_end)
	const struct CMUnitTest tests[] = {
		TEST(data_waits_for_its_fast_commit),
		TEST(a_fast_commit_in_an_empty_log_counts_when_the_log_is_in_use),
		TEST(a_restart_while_the_log_is_empty_keeps_what_waits),
		TEST(a_restart_before_a_flush_changes_nothing),
		TEST(a_number_reused_in_a_fast_commit_begins_without_ranges),
		TEST(a_recovery_of_fast_commits_is_looked_at_when_it_is_done),
		TEST(a_checkpoint_comes_over_what_waits_for_a_recovery),
		TEST(what_is_stale_is_forgotten_with_the_commit),
		TEST(a_name_in_a_directory_without_one_waits_for_the_commit),
		TEST(names_in_new_directories_need_no_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
