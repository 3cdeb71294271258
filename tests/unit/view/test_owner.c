/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "base/parallel.h"
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

/* Gives back room, and changes nothing else. */
static void settle(struct tw_owners *owners)
{
	struct tw_fill *fill;
	ok(tw_fill_begin(owners, &fill));
	ok(tw_fill_settle(fill, 0, 2));
	ok(tw_fill_settle(fill, 1, 2));
	tw_fill_end(fill);
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
		if (i % 500 == 0)
			settle(owners);
	}
	compare(owners, model, 0, nblocks, nblocks);
	tw_owners_destroy(owners);
	free(model);
}

/* --- filling --- */

#define MAX_EXTENTS 6u
#define INODES 400u

/* Inode i + 1 of a volume: extents in the order of their logical blocks, at any place. */
struct plan {
	struct tw_owner extents[INODES][MAX_EXTENTS];
	uint32_t n[INODES];
	uint32_t order[INODES]; /* in which they are entered */
	struct tw_fill *fill;
	struct tw_filler fillers[2];
};

static void shuffle(struct dice *dice, uint32_t *at, uint32_t n)
{
	for (uint32_t i = n - 1; i; i--) {
		uint32_t k = roll(dice, i + 1), was = at[i];
		at[i] = at[k];
		at[k] = was;
	}
}

/* Where extent number i of the whole volume lies: each has a stretch of its own, or, contested,
 * anywhere. */
static uint64_t place_of(struct dice *dice, uint64_t nblocks, uint32_t stretch, bool contested)
{
	uint32_t width = (uint32_t)(nblocks / (INODES * MAX_EXTENTS));
	return contested && !roll(dice, 8) ? roll(dice, (uint32_t)nblocks) : (uint64_t)stretch * width;
}

static void make_plan(struct dice *dice, struct plan *plan, uint64_t nblocks, bool contested)
{
	static uint32_t stretches[INODES * MAX_EXTENTS];
	uint32_t width = (uint32_t)(nblocks / (INODES * MAX_EXTENTS)), k = 0;
	for (uint32_t i = 0; i < INODES * MAX_EXTENTS; i++)
		stretches[i] = i;
	shuffle(dice, stretches, INODES * MAX_EXTENTS);
	for (uint32_t i = 0; i < INODES; i++) {
		uint32_t lblk = 0;
		plan->order[i] = i;
		plan->n[i] = roll(dice, MAX_EXTENTS + 1);
		for (uint32_t e = 0; e < plan->n[i]; e++) {
			uint32_t count = 1 + roll(dice, contested ? 2 * width : width);
			plan->extents[i][e] = (struct tw_owner){
				place_of(dice, nblocks, stretches[k++], contested), count, i + 1,
				lblk, TW_OWNER_DATA + roll(dice, 2)};
			lblk += count + roll(dice, 2);
		}
	}
	shuffle(dice, plan->order, INODES);
}

static struct tw_error *fill_half(void *arg, unsigned thread)
{
	struct plan *plan = arg;
	struct tw_filler *filler = &plan->fillers[thread];
	*filler = (struct tw_filler){.fill = plan->fill};
	for (uint32_t i = thread; i < INODES; i += 2) {
		uint32_t inode = plan->order[i];
		for (uint32_t e = 0; e < plan->n[inode]; e++)
			TW_TRY(tw_fill_add(filler, &plan->extents[inode][e]));
		if (i % 32 < 2)
			tw_fill_rest(filler);
	}
	tw_fill_rest(filler);
	return NULL;
}

static struct tw_error *settle_half(void *arg, unsigned thread)
{
	const struct plan *plan = arg;
	return tw_fill_settle(plan->fill, thread, 2);
}

static void model_plan(const struct plan *plan, struct cell *model, uint64_t nblocks)
{
	for (uint32_t i = 0; i < INODES; i++)
		for (uint32_t e = 0; e < plan->n[i]; e++) {
			const struct tw_owner *o = &plan->extents[i][e];
			for (uint64_t k = 0; k < o->count && o->block + k < nblocks; k++)
				model[o->block + k] = (struct cell){
					o->ino, o->lblk + (uint32_t)k, o->kind};
		}
}

static void fill_and_compare(struct dice *dice, bool contested)
{
	static struct plan plan;
	const uint64_t nblocks = 40 * BUCKET + 77;
	struct cell *model = calloc(nblocks, sizeof(*model));
	struct tw_owners *owners = new_map(nblocks);
	make_plan(dice, &plan, nblocks, contested);
	ok(tw_fill_begin(owners, &plan.fill));
	ok(tw_parallel(2, fill_half, &plan));
	ok(tw_parallel(2, settle_half, &plan));
	tw_fill_end(plan.fill);
	for (int i = 0; i < 2; i++)
		tw_filler_deinit(&plan.fillers[i]);
	model_plan(&plan, model, nblocks);
	compare(owners, model, 0, nblocks, nblocks);
	tw_owners_destroy(owners);
	free(model);
}

static void filling_in_any_order_equals_setting_by_inode(void **state)
{
	(void)state;
	struct dice dice = { 3 };
	for (unsigned round = 0; round < 20; round++)
		fill_and_compare(&dice, false);
}

static void of_several_inodes_the_highest_has_a_contested_block(void **state)
{
	(void)state;
	struct dice dice = { 4 };
	for (unsigned round = 0; round < 20; round++)
		fill_and_compare(&dice, true);
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

static void metadata_is_noted_and_file_data_is_not(void **state)
{
	struct tw_owners *owners = new_map(1000);
	uint64_t block, count;
	(void)state;
	const struct tw_owner dir = {100, 2, 7, 0, TW_OWNER_DIR};
	const struct tw_owner data = {200, 5, 8, 0, TW_OWNER_DATA};
	/* Nobody asked yet. */
	ok(tw_owners_set(owners, &dir));
	assert_int_equal(tw_owners_next_note(owners, &block, &count), 0);
	ok(tw_owners_take_notes(owners));
	ok(tw_owners_set(owners, &data));
	ok(tw_owners_clear(owners, 200, 5, 8, TW_OWNER_DATA));
	assert_int_equal(tw_owners_next_note(owners, &block, &count), 0);
	ok(tw_owners_clear(owners, 100, 2, 7, TW_OWNER_DIR));
	assert_int_equal(tw_owners_next_note(owners, &block, &count), 1);
	assert_int_equal(block, 100);
	assert_int_equal(count, 2);
	assert_int_equal(tw_owners_next_note(owners, &block, &count), 0);
	tw_owners_destroy(owners);
}

static void too_many_notes_say_so_once(void **state)
{
	struct tw_owners *owners = new_map(1000);
	uint64_t block, count;
	(void)state;
	ok(tw_owners_take_notes(owners));
	for (uint64_t i = 0; i < 5000; i++) {
		const struct tw_owner node = {1 + i % 900, 1, 7, 0, TW_OWNER_NODE};
		ok(tw_owners_set(owners, &node));
	}
	assert_int_equal(tw_owners_next_note(owners, &block, &count), -1);
	assert_int_equal(tw_owners_next_note(owners, &block, &count), 0);
	const struct tw_owner node = {5, 1, 7, 0, TW_OWNER_NODE};
	ok(tw_owners_set(owners, &node));
	assert_int_equal(tw_owners_next_note(owners, &block, &count), 1);
	tw_owners_destroy(owners);
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
		cmocka_unit_test(filling_in_any_order_equals_setting_by_inode),
		cmocka_unit_test(of_several_inodes_the_highest_has_a_contested_block),
		cmocka_unit_test(a_walk_meets_every_interval_once),
		cmocka_unit_test(metadata_is_noted_and_file_data_is_not),
		cmocka_unit_test(too_many_notes_say_so_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
