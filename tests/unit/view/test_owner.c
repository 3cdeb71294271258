/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "view/owner.h"

#include <stdlib.h>

#define BUCKET 1024u

static struct tw_owners *new_map(uint64_t nblocks)
{
	struct tw_owners *owners;
	ok(tw_owners_create(nblocks, &owners));
	return owners;
}

static void set(struct tw_owners *owners, uint64_t block, uint32_t count, uint32_t ino,
	uint32_t lblk)
{
	struct tw_owner owner = { block, count, ino, lblk, TW_OWNER_DATA };
	ok(tw_owners_set(owners, &owner));
}

/* The logical block that a block is of its inode, or -1 when it is not this inode's. */
static int64_t lblk_of(const struct tw_owners *owners, uint64_t block, uint32_t ino)
{
	struct tw_owner o;
	if (!tw_owners_find(owners, block, 1, &o))
		return -1;
	assert_true(o.block <= block && block < o.block + o.count);
	return o.ino == ino ? (int64_t)o.lblk + (int64_t)(block - o.block) : -1;
}

static void an_empty_map_owns_nothing(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(100000);
	struct tw_owner o;
	assert_false(tw_owners_find(owners, 0, UINT64_MAX, &o));
	assert_false(tw_owners_find(owners, UINT64_MAX, 1, &o));
	assert_int_equal(tw_owners_count(owners), 0);
	tw_owners_destroy(owners);
}

static void an_interval_over_bucket_borders_is_found_at_every_block(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(4 * BUCKET);
	set(owners, BUCKET - 1, 2 * BUCKET + 2, 7, 100);
	assert_int_equal(lblk_of(owners, BUCKET - 2, 7), -1);
	for (uint32_t i = 0; i < 2 * BUCKET + 2; i++)
		assert_int_equal(lblk_of(owners, BUCKET - 1 + i, 7), 100 + i);
	assert_int_equal(lblk_of(owners, 3 * BUCKET + 1, 7), -1);
	assert_int_equal(tw_owners_count(owners), 4);
	tw_owners_destroy(owners);
}

static void what_follows_on_is_joined(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(BUCKET);
	set(owners, 10, 5, 7, 0);
	set(owners, 20, 5, 7, 10);
	assert_int_equal(tw_owners_count(owners), 2);
	set(owners, 15, 5, 7, 5);
	assert_int_equal(tw_owners_count(owners), 1);
	struct tw_owner o;
	assert_true(tw_owners_find(owners, 17, 1, &o));
	assert_int_equal(o.block, 10);
	assert_int_equal(o.count, 15);
	tw_owners_destroy(owners);
}

static void neighbours_of_another_inode_or_place_are_not_joined(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(BUCKET);
	set(owners, 10, 5, 7, 0);
	set(owners, 15, 5, 8, 5);
	set(owners, 20, 5, 8, 11);
	assert_int_equal(tw_owners_count(owners), 3);
	struct tw_owner other = { 25, 5, 8, 16, TW_OWNER_UNWRITTEN };
	ok(tw_owners_set(owners, &other));
	assert_int_equal(tw_owners_count(owners), 4);
	tw_owners_destroy(owners);
}

static void a_new_owner_in_the_middle_splits_the_old_one(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(BUCKET);
	set(owners, 0, 100, 7, 1000);
	set(owners, 40, 10, 8, 0);
	assert_int_equal(lblk_of(owners, 39, 7), 1039);
	assert_int_equal(lblk_of(owners, 40, 8), 0);
	assert_int_equal(lblk_of(owners, 49, 8), 9);
	assert_int_equal(lblk_of(owners, 50, 7), 1050);
	assert_int_equal(tw_owners_count(owners), 3);
	tw_owners_destroy(owners);
}

static void clearing_takes_only_what_that_owner_has(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(2 * BUCKET);
	set(owners, 0, 2 * BUCKET, 7, 0);
	set(owners, 1000, 200, 8, 0);
	ok(tw_owners_clear(owners, 990, 300, 7, TW_OWNER_DATA));
	assert_int_equal(lblk_of(owners, 989, 7), 989);
	assert_int_equal(lblk_of(owners, 990, 7), -1);
	assert_int_equal(lblk_of(owners, 1000, 8), 0);
	assert_int_equal(lblk_of(owners, 1199, 8), 199);
	assert_int_equal(lblk_of(owners, 1200, 7), -1);
	assert_int_equal(lblk_of(owners, 1290, 7), 1290);
	ok(tw_owners_clear(owners, 0, 2 * BUCKET, 8, TW_OWNER_DIR));
	assert_int_equal(lblk_of(owners, 1000, 8), 0);
	tw_owners_destroy(owners);
}

static void blocks_beyond_the_volume_are_passed_over(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(100);
	struct tw_owner o;
	set(owners, 90, UINT32_MAX, 7, 0);
	set(owners, 100, 1, 8, 0);
	set(owners, UINT64_MAX, 5, 8, 0);
	ok(tw_owners_clear(owners, 95, UINT64_MAX, 7, TW_OWNER_DATA));
	assert_int_equal(lblk_of(owners, 94, 7), 4);
	assert_false(tw_owners_find(owners, 95, UINT64_MAX, &o));
	tw_owners_destroy(owners);
}

static void a_search_stops_at_its_end(void **state)
{
	(void)state;
	struct tw_owners *owners = new_map(10 * BUCKET);
	struct tw_owner o;
	set(owners, 5 * BUCKET, 1, 7, 0);
	assert_false(tw_owners_find(owners, 0, 5 * BUCKET, &o));
	assert_true(tw_owners_find(owners, 0, 5 * BUCKET + 1, &o));
	assert_int_equal(o.block, 5 * BUCKET);
	assert_false(tw_owners_find(owners, 5 * BUCKET, 0, &o));
	tw_owners_destroy(owners);
}

struct cell {
	uint32_t ino, lblk;
	enum tw_owner_kind kind;
};

static void compare(const struct tw_owners *owners, const struct cell *model, uint64_t from,
	uint64_t to, uint64_t nblocks)
{
	for (uint64_t block = from; block < to && block < nblocks; block++) {
		struct tw_owner o;
		bool owned = tw_owners_find(owners, block, 1, &o);
		assert_int_equal(owned, model[block].kind != TW_OWNER_NONE);
		if (!owned)
			continue;
		assert_true(o.block <= block && block < o.block + o.count);
		assert_int_equal(o.ino, model[block].ino);
		assert_int_equal(o.kind, model[block].kind);
		assert_int_equal(o.lblk + (block - o.block), model[block].lblk);
	}
}

/* One random operation on both; returns where it was. */
static uint64_t operate(struct dice *dice, struct tw_owners *owners, struct cell *model,
	uint64_t nblocks, uint32_t *count)
{
	uint64_t block = roll(dice, (uint32_t)nblocks);
	*count = roll(dice, 8) ? 1 + roll(dice, 40) : roll(dice, 3 * BUCKET);
	if (!roll(dice, 3))
		block = (block & ~(uint64_t)(BUCKET - 1)) + roll(dice, 5) - (block >= BUCKET ? 2 : 0);
	uint32_t ino = 1 + roll(dice, 4);
	enum tw_owner_kind kind = TW_OWNER_DATA + roll(dice, 2);
	/* Mostly one file laid out in one piece, so that there is much to join. */
	uint32_t lblk = roll(dice, 4) ? (uint32_t)block : roll(dice, 1000);
	bool sets = roll(dice, 3);
	struct tw_owner owner = { block, *count, ino, lblk, kind };
	if (sets)
		ok(tw_owners_set(owners, &owner));
	else
		ok(tw_owners_clear(owners, block, *count, ino, kind));
	for (uint64_t i = 0; i < *count && block + i < nblocks; i++) {
		struct cell *cell = &model[block + i];
		if (sets)
			*cell = (struct cell){ ino, lblk + (uint32_t)i, kind };
		else if (cell->ino == ino && cell->kind == kind)
			*cell = (struct cell){ 0 };
	}
	return block;
}

static void random_operations_equal_an_array(void **state)
{
	(void)state;
	const uint64_t nblocks = 5 * BUCKET + 77;
	struct cell *model = calloc(nblocks, sizeof(*model));
	struct tw_owners *owners = new_map(nblocks);
	struct dice dice = { 1 };
	for (unsigned i = 0; i < 100000; i++) {
		uint32_t count;
		uint64_t block = operate(&dice, owners, model, nblocks, &count);
		compare(owners, model, block > 2 ? block - 2 : 0, block + 44, nblocks);
		if (count > 40)
			compare(owners, model, block + count - 2, block + count + 2, nblocks);
		if (i % 5000 == 0)
			compare(owners, model, 0, nblocks, nblocks);
		if (i % 500 == 0) {
			uint64_t from, to;
			tw_owners_part(owners, i / 500 % 2, 2, &from, &to);
			tw_owners_fit(owners, from, to);
		}
	}
	compare(owners, model, 0, nblocks, nblocks);
	tw_owners_destroy(owners);
	free(model);
}

/* Walking from interval to interval meets every owned block once and no other. */
static void a_walk_meets_every_interval_once(void **state)
{
	(void)state;
	const uint64_t nblocks = 3 * BUCKET;
	struct cell *model = calloc(nblocks, sizeof(*model));
	struct tw_owners *owners = new_map(nblocks);
	struct dice dice = { 2 };
	for (unsigned i = 0; i < 3000; i++)
		operate(&dice, owners, model, nblocks, &(uint32_t){ 0 });
	uint64_t at = 0, intervals = 0, owned = 0, expected = 0;
	struct tw_owner o;
	for (; tw_owners_find(owners, at, UINT64_MAX, &o); at = o.block + o.count) {
		assert_true(o.block >= at && o.count > 0);
		intervals++;
		owned += o.count;
	}
	for (uint64_t i = 0; i < nblocks; i++)
		expected += model[i].kind != TW_OWNER_NONE;
	assert_int_equal(owned, expected);
	assert_int_equal(intervals, tw_owners_count(owners));
	tw_owners_destroy(owners);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_map_owns_nothing),
		cmocka_unit_test(an_interval_over_bucket_borders_is_found_at_every_block),
		cmocka_unit_test(what_follows_on_is_joined),
		cmocka_unit_test(neighbours_of_another_inode_or_place_are_not_joined),
		cmocka_unit_test(a_new_owner_in_the_middle_splits_the_old_one),
		cmocka_unit_test(clearing_takes_only_what_that_owner_has),
		cmocka_unit_test(blocks_beyond_the_volume_are_passed_over),
		cmocka_unit_test(a_search_stops_at_its_end),
		cmocka_unit_test(random_operations_equal_an_array),
		cmocka_unit_test(a_walk_meets_every_interval_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
