/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Without a journal, blocks that belong together come in any order, with flushes in between: the view
 * never holds what contradicts itself, and in the end it is what a crawl finds.
 */
#include "guest.h"

static void settle(struct guest *g)
{
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, false));
}

/* What the commands write is on the disk, and has not been seen. */
static void change_unseen(struct guest *g, const char *commands)
{
	g->ahead = true;
	change(g, commands);
	g->ahead = false;
}

static void see_late(struct guest *g, size_t i)
{
	see(g, g->late[i].block, g->late[i].data, false);
	settle(g);
}

static uint32_t count_names(struct guest *g, const struct tw_inode *inode)
{
	uint32_t n = 0;
	while (tw_view_link(g->fs->view, inode, n))
		n++;
	return n;
}

/* Every inode has the names that it says it has; a directory has one. */
static void names_are_links(struct guest *g)
{
	const struct tw_inode *inode = tw_view_inode_next(g->fs->view, g->fs->geo.first_ino);
	for (; inode; inode = tw_view_inode_next(g->fs->view, inode->ino + 1)) {
		const struct tw_attr attr = tw_view_attr(g->fs->view, inode);
		uint32_t names = count_names(g, inode);
		if (names != (S_ISDIR(attr.mode) ? 1 : attr.nlink))
			fail_msg("inode %u, mode %o, has %u names and %u links", inode->ino, attr.mode, names,
				attr.nlink);
	}
}

static void any_order_is_right_in_the_end(void **state)
{
	struct guest *g = *state;
	struct dice dice = { 11 };
	g->careful = true;
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned n = 1 + roll(&dice, 3); n; n--) {
			char command[160];
			random_command(&dice, command, sizeof(command));
			change_unseen(g, command);
		}
		/* The newest write of a block is the last one that comes. */
		while (g->nlate) {
			size_t i = roll(&dice, (unsigned)g->nlate);
			for (size_t k = 0; k < i; k++)
				if (g->late[k].block == g->late[i].block)
					i = k;
			see_late(g, i);
			names_are_links(g);
			memmove(&g->late[i], &g->late[i + 1], (g->nlate - i - 1) * sizeof(*g->late));
			g->nlate--;
		}
		settle(g);
		same_as_disk(g, "all blocks have come");
	}
}

static const struct tw_inode *named(struct guest *g, const char *wanted)
{
	const struct tw_inode *inode = tw_view_inode_next(g->fs->view, g->fs->geo.first_ino);
	for (; inode; inode = tw_view_inode_next(g->fs->view, inode->ino + 1)) {
		const struct tw_name *name = tw_view_link(g->fs->view, inode, 0);
		if (name && name->len == strlen(wanted) && !memcmp(name->bytes, wanted, name->len))
			return inode;
	}
	fail_msg("nothing is named %s", wanted);
	return NULL;
}

/* True when the slot of this inode is in the block. */
static bool has_slot(const struct guest *g, uint64_t block, uint32_t ino)
{
	uint32_t first, n = ext4_geometry_itable(&g->fs->geo, block, &first);
	return n && ino >= first && ino < first + n;
}

/* Somebody has to be wrong about the block until both have said what is theirs now. */
static void a_directorys_block_is_a_files_when_both_have_said_so(void **state)
{
	struct guest *g = *state;
	struct tw_extent one;
	uint32_t n;
	char command[600];
	change(g, "mkdir gives");
	for (unsigned i = 0; i < 20; i++) {
		snprintf(command, sizeof(command), "write t/empty %s%u", i < 19 ? "between" : "takes", i);
		change(g, command);
	}
	settle(g);
	const uint32_t gives = named(g, "gives")->ino, takes = named(g, "takes19")->ino;
	const uint64_t block = tw_inode_extents(named(g, "gives"), &one, &n)->block;
	tw_buf_reset(&g->events);
	/* An extent tree of one leaf (ext4_extents.h). */
	snprintf(command, sizeof(command),
		"rmdir gives;set_inode_field takes19 block[0] 0x1f30a;set_inode_field takes19 block[1] 4;"
		"set_inode_field takes19 block[2] 0;set_inode_field takes19 block[3] 0;"
		"set_inode_field takes19 block[4] 1;set_inode_field takes19 block[5] %llu;"
		"set_inode_field takes19 blocks 2;set_inode_field takes19 size 5",
		(unsigned long long)block);
	change_unseen(g, command);
	for (size_t i = 0; i < g->nlate; i++)
		if (has_slot(g, g->late[i].block, takes))
			see_late(g, i);
	assert_int_equal(g->events.len, 0);
	assert_int_equal(owner_of(g->fs, block).ino, gives);
	for (size_t i = 0; i < g->nlate; i++)
		if (!has_slot(g, g->late[i].block, takes))
			see_late(g, i);
	g->nlate = 0;
	assert_int_equal(owner_of(g->fs, block).ino, takes);
	assert_int_equal(owner_of(g->fs, block).kind, TW_OWNER_DATA);
	same_as_disk(g, "both have been seen");
	tw_buf_append(&g->events, "", 1);
	assert_non_null(strstr(g->events.data, "deleted /gives\n"));
	assert_non_null(strstr(g->events.data, "modified /takes19\n"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, guest_begin_unjournaled, guest_end)
	const struct CMUnitTest tests[] = {
		TEST(a_directorys_block_is_a_files_when_both_have_said_so),
		TEST(any_order_is_right_in_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
