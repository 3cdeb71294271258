/* SPDX-License-Identifier: BSD-3-Clause */
/* Mappings built by hand in a volume of 1 KiB blocks. */
#include "../check.h"

#include "ext4/ext4.h"

#include <stdlib.h>

enum { BLOCK = 1024, NBLOCKS = 4096 };

struct volume {
	struct ext4_geometry geo;
	uint8_t *blocks; /* NBLOCKS of them */
	uint8_t root[EXT4_MAP_BYTES];
	struct ext4_map map;
	unsigned reads;
};

static int setup(void **state)
{
	struct volume *v = calloc(1, sizeof(*v));
	v->blocks = calloc(NBLOCKS, BLOCK);
	v->geo = (struct ext4_geometry){ .blocksize = BLOCK, .blockbits = 10, .nblocks = NBLOCKS,
		.first_data_block = 1, .ninodes = 1000, .first_ino = 11 };
	*state = v;
	return 0;
}

static int teardown(void **state)
{
	struct volume *v = *state;
	ext4_map_deinit(&v->map);
	free(v->blocks);
	free(v);
	return 0;
}

static uint8_t *block_of(struct volume *v, uint64_t block)
{
	return v->blocks + block * BLOCK;
}

static struct tw_error *read_block(void *arg, uint64_t block, const uint8_t **out)
{
	struct volume *v = arg;
	assert_true(block < NBLOCKS);
	v->reads++;
	*out = block_of(v, block);
	return NULL;
}

static struct tw_error *walk(struct volume *v, uint32_t flags)
{
	return ext4_map_walk(&v->geo, 12, flags, v->root, read_block, v, &v->map);
}

static void le16(uint8_t *at, unsigned v)
{
	at[0] = (uint8_t)v;
	at[1] = (uint8_t)(v >> 8);
}

static void le32(uint8_t *at, uint32_t v)
{
	le16(at, v & 0xffff);
	le16(at + 2, v >> 16);
}

static void header(uint8_t *node, unsigned entries, unsigned depth)
{
	le16(node, 0xf30a);
	le16(node + 2, entries);
	le16(node + 4, entries);
	le16(node + 6, depth);
}

static void leaf(uint8_t *node, unsigned i, uint32_t lblk, unsigned len, uint64_t block)
{
	uint8_t *at = node + 12 + i * 12;
	le32(at, lblk);
	le16(at + 4, len);
	le16(at + 6, (unsigned)(block >> 32));
	le32(at + 8, (uint32_t)block);
}

static void inner(uint8_t *node, unsigned i, uint32_t lblk, uint64_t block)
{
	uint8_t *at = node + 12 + i * 12;
	le32(at, lblk);
	le32(at + 4, (uint32_t)block);
	le16(at + 8, (unsigned)(block >> 32));
}

static void extent_is(const struct volume *v, uint32_t i, uint32_t lblk, uint32_t count,
	uint64_t block, bool unwritten)
{
	assert_true(i < v->map.n);
	assert_int_equal(v->map.extents[i].lblk, lblk);
	assert_int_equal(v->map.extents[i].count, count);
	assert_int_equal(v->map.extents[i].block, block);
	assert_int_equal(v->map.extents[i].unwritten, unwritten);
}

static void extents_in_the_inode(void **state)
{
	struct volume *v = *state;
	header(v->root, 3, 0);
	leaf(v->root, 0, 0, 5, 100);
	leaf(v->root, 1, 5, 32768 + 7, 105);
	leaf(v->root, 2, 20, 1, 50);
	ok(walk(v, EXT4_EXTENTS_FL));
	assert_int_equal(v->map.n, 3);
	assert_int_equal(v->map.nnodes, 0);
	extent_is(v, 0, 0, 5, 100, false);
	extent_is(v, 1, 5, 7, 105, true);
	extent_is(v, 2, 20, 1, 50, false);
}

static void an_empty_tree_maps_nothing(void **state)
{
	struct volume *v = *state;
	header(v->root, 0, 0);
	ok(walk(v, EXT4_EXTENTS_FL));
	assert_int_equal(v->map.n, 0);
	memset(v->root, 0, sizeof(v->root));
	ok(walk(v, 0));
	assert_int_equal(v->map.n, 0);
}

static void the_longest_extent_is_written(void **state)
{
	struct volume *v = *state;
	v->geo.nblocks = 1 << 20;
	header(v->root, 2, 0);
	leaf(v->root, 0, 0, 32768, 1);
	leaf(v->root, 1, 32768, 65535, 40000);
	ok(walk(v, EXT4_EXTENTS_FL));
	extent_is(v, 0, 0, 32768, 1, false);
	extent_is(v, 1, 32768, 32767, 40000, true);
}

static void a_tree_of_depth_two(void **state)
{
	struct volume *v = *state;
	header(v->root, 2, 2);
	inner(v->root, 0, 0, 10);
	inner(v->root, 1, 1000, 11);
	header(block_of(v, 10), 2, 1);
	inner(block_of(v, 10), 0, 0, 20);
	inner(block_of(v, 10), 1, 500, 21);
	header(block_of(v, 11), 1, 1);
	inner(block_of(v, 11), 0, 1000, 22);
	for (uint32_t i = 0; i < 3; i++) {
		header(block_of(v, 20 + i), 2, 0);
		leaf(block_of(v, 20 + i), 0, i * 500, 3, 100 + i * 10);
		leaf(block_of(v, 20 + i), 1, i * 500 + 3, 3, 200 + i * 10);
	}
	ok(walk(v, EXT4_EXTENTS_FL));
	assert_int_equal(v->map.n, 6);
	assert_int_equal(v->map.nnodes, 5);
	extent_is(v, 4, 1000, 3, 120, false);
	static const uint64_t nodes[] = { 10, 20, 21, 11, 22 };
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(v->map.nodes[i], nodes[i]);
}

/* One entry of a tree that is wrong in one way each. */
static void extents_of_nonsense_are_refused(void **state)
{
	struct volume *v = *state;
	static const struct { uint32_t lblk; unsigned len; uint64_t block; } cases[] = {
		{ 5, 0, 100 },		       /* empty */
		{ 4, 1, 100 },		       /* overlaps the one before */
		{ 0, 1, 100 },		       /* out of order */
		{ 5, 1, 0 },		       /* the boot block */
		{ 5, 1, NBLOCKS },	       /* beyond the end */
		{ 5, 2, NBLOCKS - 1 },	       /* over the end */
		{ 5, 1, 1ull << 47 },	       /* far beyond the end */
		{ 5, 32768, 100 },	       /* longer than the volume */
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		header(v->root, 2, 0);
		leaf(v->root, 0, 0, 5, 100);
		leaf(v->root, 1, cases[i].lblk, cases[i].len, cases[i].block);
		fails(walk(v, EXT4_EXTENTS_FL), TW_BAD_DATA);
		ext4_map_deinit(&v->map);
	}
}

static void the_last_logical_block_can_be_mapped(void **state)
{
	struct volume *v = *state;
	header(v->root, 1, 0);
	leaf(v->root, 0, UINT32_MAX, 1, 100);
	ok(walk(v, EXT4_EXTENTS_FL));
	extent_is(v, 0, UINT32_MAX, 1, 100, false);
}

static void a_header_of_nonsense_is_refused(void **state)
{
	struct volume *v = *state;
	static const struct { unsigned magic, entries, depth; } cases[] = {
		{ 0, 1, 0 }, { 0xf30b, 1, 0 }, { 0xf30a, 5, 0 }, { 0xf30a, 0xffff, 0 },
		{ 0xf30a, 1, 6 }, { 0xf30a, 1, 0xffff },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		header(v->root, cases[i].entries, cases[i].depth);
		le16(v->root, cases[i].magic);
		leaf(v->root, 0, 0, 1, 100);
		fails(walk(v, EXT4_EXTENTS_FL), TW_BAD_DATA);
		ext4_map_deinit(&v->map);
	}
}

static void a_node_must_have_its_depth_and_entries(void **state)
{
	struct volume *v = *state;
	static const struct { unsigned entries, depth; } cases[] = {
		{ 1, 1 }, { 1, 5 }, { 0, 0 }, { 85, 0 },
	};
	header(v->root, 1, 1);
	inner(v->root, 0, 0, 10);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		header(block_of(v, 10), cases[i].entries, cases[i].depth);
		leaf(block_of(v, 10), 0, 0, 1, 100);
		fails(walk(v, EXT4_EXTENTS_FL), TW_BAD_DATA);
		ext4_map_deinit(&v->map);
	}
}

/* Whatever the block size, it holds the superblock or what boots. */
static void block_0_is_nobodys(void **state)
{
	struct volume *v = *state;
	v->geo.first_data_block = 0;
	header(v->root, 1, 0);
	leaf(v->root, 0, 0, 1, 0);
	fails(walk(v, EXT4_EXTENTS_FL), TW_BAD_DATA);
	ext4_map_deinit(&v->map);
	leaf(v->root, 0, 0, 1, 1);
	ok(walk(v, EXT4_EXTENTS_FL));
	ext4_map_deinit(&v->map);
	header(v->root, 1, 1);
	inner(v->root, 0, 0, 0);
	fails(walk(v, EXT4_EXTENTS_FL), TW_BAD_DATA);
}

static void a_node_out_of_range_is_not_read(void **state)
{
	struct volume *v = *state;
	static const uint64_t blocks[] = { 0, NBLOCKS, UINT32_MAX, 1ull << 47 };
	for (size_t i = 0; i < 4; i++) {
		header(v->root, 1, 1);
		inner(v->root, 0, 0, blocks[i]);
		fails(walk(v, EXT4_EXTENTS_FL), TW_BAD_DATA);
		ext4_map_deinit(&v->map);
	}
	assert_int_equal(v->reads, 0);
}

static void a_node_that_stands_twice_ends_the_walk(void **state)
{
	struct volume *v = *state;
	header(v->root, 4, 5);
	for (unsigned i = 0; i < 4; i++)
		inner(v->root, i, i, 10);
	for (unsigned depth = 4; depth > 0; depth--) {
		uint8_t *node = block_of(v, 14 - depth);
		header(node, 84, depth);
		for (unsigned i = 0; i < 84; i++)
			inner(node, i, i, 15 - depth);
	}
	header(block_of(v, 14), 84, 0);
	for (unsigned i = 0; i < 84; i++)
		leaf(block_of(v, 14), i, i, 1, 100);
	fails(walk(v, EXT4_EXTENTS_FL), TW_BAD_DATA);
	assert_true(v->reads < 100);
}

static void a_block_map_of_all_levels(void **state)
{
	struct volume *v = *state;
	for (unsigned i = 0; i < 12; i++)
		le32(v->root + i * 4, 100 + i);
	le32(v->root + 48, 20); /* indirect: 256 blocks */
	le32(v->root + 52, 21); /* double */
	le32(v->root + 56, 22); /* triple */
	le32(block_of(v, 20), 112);
	le32(block_of(v, 20) + 4, 113);
	le32(block_of(v, 20) + 255 * 4, 300);
	le32(block_of(v, 21) + 4, 23);
	le32(block_of(v, 23), 400);
	le32(block_of(v, 22), 24);
	le32(block_of(v, 24), 25);
	le32(block_of(v, 25) + 8, 500);
	ok(walk(v, 0));
	assert_int_equal(v->map.n, 4);
	extent_is(v, 0, 0, 14, 100, false);
	extent_is(v, 1, 12 + 255, 1, 300, false);
	extent_is(v, 2, 12 + 256 + 256, 1, 400, false);
	extent_is(v, 3, 12 + 256 + 65536 + 2, 1, 500, false);
	assert_int_equal(v->map.nnodes, 6);
}

static void block_maps_of_nonsense_are_refused(void **state)
{
	struct volume *v = *state;
	le32(v->root, NBLOCKS);
	fails(walk(v, 0), TW_BAD_DATA);
	ext4_map_deinit(&v->map);
	le32(v->root, UINT32_MAX);
	fails(walk(v, 0), TW_BAD_DATA);
	ext4_map_deinit(&v->map);
	le32(v->root, 0);
	le32(v->root + 48, NBLOCKS);
	fails(walk(v, 0), TW_BAD_DATA);
	assert_int_equal(v->reads, 0);
}

static void a_block_map_that_loops_ends(void **state)
{
	struct volume *v = *state;
	le32(v->root + 56, 22);
	for (unsigned i = 0; i < 256; i++)
		le32(block_of(v, 22) + i * 4, 22);
	fails(walk(v, 0), TW_BAD_DATA);
	assert_true(v->reads <= NBLOCKS + 1);
}

static void indirect_blocks_that_map_nothing_are_not_walked_for_long(void **state)
{
	struct volume *v = *state;
	le32(v->root + 56, 22);
	for (unsigned i = 0; i < 256; i++) {
		le32(block_of(v, 22) + i * 4, 23);
		le32(block_of(v, 23) + i * 4, 24);
	}
	fails(walk(v, 0), TW_BAD_DATA);
	assert_true(v->reads < 1000);
}

/* Each block has its own indirect blocks: as sparse as a file can be. */
static void the_sparsest_file_can_be_mapped(void **state)
{
	struct volume *v = *state;
	le32(v->root + 56, 1000);
	for (unsigned i = 0; i < 256; i++) {
		le32(block_of(v, 1000) + i * 4, 1001 + i);
		le32(block_of(v, 1001 + i), 1300 + i);
		le32(block_of(v, 1300 + i), 1600 + i * 2);
	}
	ok(walk(v, 0));
	assert_int_equal(v->map.n, 256);
	assert_int_equal(v->map.nnodes, 513);
}

/* One indirect block, named again and again. */
static void a_block_map_maps_no_more_blocks_than_there_are(void **state)
{
	struct volume *v = *state;
	le32(v->root + 52, 21);
	for (unsigned i = 0; i < 256; i++) {
		le32(block_of(v, 21) + i * 4, 23);
		le32(block_of(v, 23) + i * 4, 1000 + i);
	}
	fails(walk(v, 0), TW_BAD_DATA);
}

static struct tw_error *read_nothing(void *arg, uint64_t block, const uint8_t **out)
{
	(void)arg, (void)block, (void)out;
	return tw_error_errno(5, "no disk");
}

static void an_error_of_the_reader_is_handed_on(void **state)
{
	struct volume *v = *state;
	header(v->root, 1, 1);
	inner(v->root, 0, 0, 10);
	fails(ext4_map_walk(&v->geo, 12, EXT4_EXTENTS_FL, v->root, read_nothing, v, &v->map), TW_IO);
}

/* Random bytes: whatever comes out keeps the promises of the interface. */
static void random_maps_are_in_order_and_in_range(void **state)
{
	struct volume *v = *state;
	struct dice dice = { 3 };
	for (unsigned round = 0; round < 20000; round++) {
		header(v->root, roll(&dice, 5), roll(&dice, 3));
		for (unsigned i = 12; i < EXT4_MAP_BYTES; i++)
			v->root[i] = roll(&dice, 3) ? 0 : (uint8_t)roll(&dice, 20);
		uint8_t *node = block_of(v, roll(&dice, 20));
		header(node, roll(&dice, 10), roll(&dice, 2));
		for (unsigned i = 12; i < 200; i++)
			node[i] = roll(&dice, 3) ? 0 : (uint8_t)roll(&dice, 20);
		struct tw_error *err = walk(v, roll(&dice, 2) ? EXT4_EXTENTS_FL : 0);
		uint64_t next = 0;
		for (uint32_t i = 0; !err && i < v->map.n; i++) {
			const struct tw_extent *e = &v->map.extents[i];
			assert_true(e->count && e->lblk >= next && e->block >= 1);
			assert_true(e->block + e->count <= NBLOCKS);
			next = (uint64_t)e->lblk + e->count;
		}
		tw_error_destroy(err);
		ext4_map_deinit(&v->map);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(extents_in_the_inode),
		TEST(an_empty_tree_maps_nothing),
		TEST(the_longest_extent_is_written),
		TEST(a_tree_of_depth_two),
		TEST(extents_of_nonsense_are_refused),
		TEST(the_last_logical_block_can_be_mapped),
		TEST(a_header_of_nonsense_is_refused),
		TEST(a_node_must_have_its_depth_and_entries),
		TEST(block_0_is_nobodys),
		TEST(a_node_out_of_range_is_not_read),
		TEST(a_node_that_stands_twice_ends_the_walk),
		TEST(a_block_map_of_all_levels),
		TEST(block_maps_of_nonsense_are_refused),
		TEST(a_block_map_that_loops_ends),
		TEST(indirect_blocks_that_map_nothing_are_not_walked_for_long),
		TEST(the_sparsest_file_can_be_mapped),
		TEST(a_block_map_maps_no_more_blocks_than_there_are),
		TEST(an_error_of_the_reader_is_handed_on),
		TEST(random_maps_are_in_order_and_in_range),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
