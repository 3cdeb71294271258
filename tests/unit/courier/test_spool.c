/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "courier/spool.h"

#define ALL UINT64_MAX
#define SOURCE "/xen/host/uuid/xvda"

struct fixture {
	char dir[64];
	char path[80];
	struct tw_spool *spool;
};

static void must(struct tw_error *err)
{
	if (err)
		fail_msg("%s", tw_error_message(err));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	strcpy(f->dir, "/tmp/tapwire-spool-XXXXXX");
	if (!f || !mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/spool.db", f->dir);
	must(tw_spool_open(f->path, 1 << 30, &f->spool));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[96];
	tw_spool_close(f->spool);
	static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
	for (size_t i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s%s", f->path, suffixes[i]);
		unlink(path);
	}
	int rc = rmdir(f->dir);
	free(f);
	return rc;
}

static void reopen(struct fixture *f)
{
	tw_spool_close(f->spool);
	f->spool = NULL;
	must(tw_spool_open(f->path, 1 << 30, &f->spool));
}

/* Stores events with the given types and bodies {"n":<sequence>}. */
static void store(struct fixture *f, const char *epoch, unsigned int n, unsigned int type)
{
	struct tw_spool_disk *disk;
	must(tw_spool_disk(f->spool, epoch, SOURCE, &disk));
	for (unsigned int i = 0; i < n; i++) {
		char body[64];
		snprintf(body, sizeof(body), "{\"n\":%llu}", (unsigned long long)disk->last + 1);
		must(tw_spool_store(f->spool, disk, type, body, strlen(body)));
	}
}

static void expect_batch(struct fixture *f, const struct tw_spool_batch *batch, const char *want)
{
	struct tw_buf body = TW_BUF_INIT;
	must(tw_spool_read_array(f->spool, &batch->picks, TW_CHUNK_EXTRAS, &body));
	tw_buf_append(&body, "", 1);
	assert_string_equal(body.data, want);
	tw_buf_deinit(&body);
}

static struct tw_spool_lane *attach_lane(struct fixture *f, const char *name, uint64_t mask)
{
	const struct tw_spool_filter filter = { .mask = mask };
	struct tw_spool_target *target;
	must(tw_spool_target(f->spool, name, 1, &filter, &target));
	assert_int_equal(target->nlanes, 1);
	return target->lanes[0];
}

/* Looks at what there is and plans a batch. */
static void plan(struct fixture *f, struct tw_spool_lane *lane, uint64_t events, uint64_t bytes)
{
	const struct tw_spool_bounds bounds = { .events = events, .bytes = bytes };
	bool full;
	bool more;
	must(tw_spool_seal(f->spool));
	must(tw_spool_look(f->spool, lane, &bounds, &full, &more));
	must(tw_spool_plan(f->spool, lane));
}

static void commit(struct fixture *f)
{
	must(tw_spool_commit(f->spool, true));
}

static uint64_t events_in(struct fixture *f)
{
	struct tw_spool_stats stats;
	tw_spool_stats(f->spool, &stats);
	return stats.events;
}

/* Events that are stored and in no plan. */
static uint64_t waiting(struct fixture *f, const struct tw_spool_lane *lane)
{
	must(tw_spool_seal(f->spool));
	uint64_t planned = 0;
	for (unsigned int i = 0; i < lane->nplan; i++)
		planned += lane->plan[i].picks.count;
	return tw_spool_backlog(f->spool, lane) - planned;
}

static void a_sequence_is_remembered(void **state)
{
	struct fixture *f = *state;
	attach_lane(f, "t", ALL);
	store(f, "epoch", 3, 1);
	commit(f);
	reopen(f);
	struct tw_spool_disk *disk;
	must(tw_spool_disk(f->spool, "epoch", SOURCE, &disk));
	assert_int_equal(disk->last, 3);
	must(tw_spool_disk(f->spool, "other", SOURCE, &disk));
	assert_int_equal(disk->last, 0);
}

static void an_epoch_belongs_to_one_source(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_disk *disk;
	must(tw_spool_disk(f->spool, "epoch", SOURCE, &disk));
	struct tw_error *err = tw_spool_disk(f->spool, "epoch", "/xen/host/uuid/xvdb", &disk);
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), TW_BAD_DATA);
	tw_error_destroy(err);
}

static void batches_are_cut_by_count_and_bytes(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *target;
	target = attach_lane(f, "t", ALL);
	store(f, "epoch", 5, 1);
	plan(f, target, 2, 1000);
	plan(f, target, 100, 17); /* [{"n":3},{"n":4}] has 17 bytes */
	plan(f, target, 100, 1); /* a batch has an event at least */
	plan(f, target, 100, 1000);
	commit(f);
	assert_int_equal(target->nplan, 3);
	assert_int_equal(waiting(f, target), 0);
	expect_batch(f, &target->plan[0], "[{\"n\":1},{\"n\":2}]");
	expect_batch(f, &target->plan[1], "[{\"n\":3},{\"n\":4}]");
	expect_batch(f, &target->plan[2], "[{\"n\":5}]");
	assert_int_equal(target->plan[2].n, 3);
}

static void a_planned_batch_is_the_same_after_a_restart(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *target;
	target = attach_lane(f, "t", 1 << 1 | 1 << 3);
	store(f, "epoch", 1, 1);
	store(f, "epoch", 1, 2);
	store(f, "epoch", 1, 3);
	plan(f, target, 100, 1000);
	commit(f);
	char epoch[TW_SPOOL_EPOCH_SIZE];
	strcpy(epoch, target->epoch);
	reopen(f);
	/* Another filter now, and more events: they are for the next batch. */
	target = attach_lane(f, "t", ALL);
	store(f, "epoch", 1, 2);
	assert_string_equal(target->epoch, epoch);
	assert_int_equal(target->nplan, 1);
	assert_int_equal(target->plan[0].n, 1);
	assert_int_equal(target->next, 2);
	expect_batch(f, &target->plan[0], "[{\"n\":1},{\"n\":3}]");
	plan(f, target, 100, 1000);
	expect_batch(f, &target->plan[1], "[{\"n\":4}]");
}

static void an_event_stays_until_the_last_target_has_it(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *a;
	struct tw_spool_lane *b;
	a = attach_lane(f, "a", ALL);
	b = attach_lane(f, "b", ALL);
	store(f, "epoch", 2, 1);
	plan(f, a, 100, 1000);
	plan(f, b, 1, 1000);
	commit(f);
	must(tw_spool_acknowledge(f->spool, a));
	commit(f);
	assert_int_equal(events_in(f), 2);
	must(tw_spool_acknowledge(f->spool, b));
	commit(f);
	assert_int_equal(events_in(f), 1);
	plan(f, b, 1, 1000);
	must(tw_spool_acknowledge(f->spool, b));
	commit(f);
	assert_int_equal(events_in(f), 0);
	reopen(f);
	assert_int_equal(events_in(f), 0);
}

static void what_nobody_wants_is_not_kept(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *a;
	struct tw_spool_lane *b;
	a = attach_lane(f, "a", 1 << 1);
	b = attach_lane(f, "b", 1 << 2);
	store(f, "epoch", 10, 3);
	must(tw_spool_seal(f->spool));
	assert_int_equal(events_in(f), 0);
	store(f, "epoch", 1, 1); /* wanted by a alone: b must not hold it back */
	plan(f, a, 100, 1000);
	plan(f, b, 100, 1000);
	assert_int_equal(b->nplan, 0);
	commit(f);
	must(tw_spool_acknowledge(f->spool, a));
	commit(f);
	assert_int_equal(events_in(f), 0);
}

static void a_new_target_begins_with_the_next_event(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *a;
	struct tw_spool_lane *b;
	a = attach_lane(f, "a", ALL);
	store(f, "epoch", 2, 1);
	b = attach_lane(f, "b", ALL);
	store(f, "epoch", 1, 1);
	assert_int_equal(waiting(f, a), 3);
	assert_int_equal(waiting(f, b), 1);
	assert_string_not_equal(a->epoch, b->epoch);
}

static void a_target_without_configuration_holds_nothing_back(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *a;
	struct tw_spool_lane *b;
	a = attach_lane(f, "a", ALL);
	b = attach_lane(f, "b", ALL);
	store(f, "epoch", 4, 1);
	plan(f, a, 1, 1000);
	plan(f, b, 2, 1000);
	commit(f);
	reopen(f);
	b = attach_lane(f, "b", ALL);
	unsigned int forgotten;
	must(tw_spool_forget_others(f->spool, &forgotten));
	assert_int_equal(forgotten, 1);
	must(tw_spool_acknowledge(f->spool, b));
	commit(f);
	assert_int_equal(events_in(f), 2);
}

static void a_rollback_returns_to_the_commit(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *target;
	target = attach_lane(f, "t", ALL);
	store(f, "epoch", 2, 1);
	plan(f, target, 1, 1000);
	commit(f);
	store(f, "epoch", 3, 1);
	store(f, "fresh", 1, 1);
	must(tw_spool_acknowledge(f->spool, target));
	plan(f, target, 100, 1000);
	must(tw_spool_rollback(f->spool));
	assert_int_equal(target->nplan, 1);
	assert_int_equal(target->plan[0].n, 1);
	assert_int_equal(waiting(f, target), 1);
	assert_int_equal(events_in(f), 2);
	struct tw_spool_disk *disk;
	must(tw_spool_disk(f->spool, "fresh", SOURCE, &disk));
	assert_int_equal(disk->last, 0);
	store(f, "epoch", 1, 1);
	plan(f, target, 100, 1000);
	commit(f);
	expect_batch(f, &target->plan[0], "[{\"n\":1}]");
	expect_batch(f, &target->plan[1], "[{\"n\":2},{\"n\":3}]");
}

static void the_plan_has_a_bound(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *target;
	target = attach_lane(f, "t", ALL);
	store(f, "epoch", TW_SPOOL_PLAN + 5, 1);
	for (int i = 0; i < TW_SPOOL_PLAN + 5; i++)
		plan(f, target, 1, 1000);
	assert_int_equal(target->nplan, TW_SPOOL_PLAN);
	assert_int_equal(waiting(f, target), 5);
}

static void the_operators_limit_is_kept(void **state)
{
	struct fixture *f = *state;
	tw_spool_close(f->spool);
	must(tw_spool_open(f->path, 256 << 10, &f->spool));
	struct tw_spool_lane *target;
	target = attach_lane(f, "t", ALL);
	unsigned int stored = 0;
	while (tw_spool_has_room(f->spool)) {
		store(f, "epoch", 100, 1);
		commit(f);
		assert_true((stored += 100) < 1000000);
	}
	while (tw_spool_backlog(f->spool, target)) {
		plan(f, target, 1000, 100000);
		must(tw_spool_acknowledge(f->spool, target));
	}
	commit(f);
	assert_true(tw_spool_has_room(f->spool));
}

/* Whichever commit it is whose events need the room. */
static void what_is_only_kept_makes_room(void **state)
{
	struct fixture *f = *state;
	tw_spool_close(f->spool);
	must(tw_spool_open(f->path, 256 << 10, &f->spool));
	tw_spool_set_limits(f->spool, 256 << 10, 3600 * 1000);
	struct tw_spool_lane *lane = attach_lane(f, "t", ALL);
	for (int round = 0; round < 400; round++) {
		store(f, "epoch", 1000, 1);
		plan(f, lane, 1000, 100000);
		must(tw_spool_acknowledge(f->spool, lane));
		must(tw_spool_commit(f->spool, round / 200));
		if (!tw_spool_has_room(f->spool))
			fail_msg("round %d: no room", round);
	}
}

static void a_refused_batch_is_planned_anew_under_the_next_numbers(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *lane = attach_lane(f, "t", ALL);
	store(f, "epoch", 6, 1);
	plan(f, lane, 4, 1000);
	plan(f, lane, 4, 1000);
	commit(f);
	assert_int_equal(lane->next, 3);
	must(tw_spool_unplan(f->spool, lane));
	plan(f, lane, 2, 1000);
	plan(f, lane, 100, 1000);
	commit(f);
	reopen(f);
	lane = attach_lane(f, "t", ALL);
	assert_int_equal(lane->nplan, 2);
	assert_int_equal(lane->plan[0].n, 2); /* the second was never sent: its number is still free */
	expect_batch(f, &lane->plan[0], "[{\"n\":1},{\"n\":2}]");
	expect_batch(f, &lane->plan[1], "[{\"n\":3},{\"n\":4},{\"n\":5},{\"n\":6}]");
	assert_int_equal(lane->acked, 0);
	must(tw_spool_acknowledge(f->spool, lane));
	assert_int_equal(lane->acked, 2);
}

static void what_is_held_can_be_taken_back(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *lane = attach_lane(f, "t", ALL);
	store(f, "epoch", 3, 1);
	for (int i = 0; i < 2; i++) {
		plan(f, lane, 1, 1000);
		must(tw_spool_hold(f->spool, lane, 400, "no", true));
		commit(f);
	}
	reopen(f);
	lane = attach_lane(f, "t", ALL);
	assert_int_equal(lane->held, 2);
	assert_int_equal(events_in(f), 3); /* they may be needed again */
	must(tw_spool_unhold(f->spool, lane));
	plan(f, lane, 100, 1000);
	commit(f);
	expect_batch(f, &lane->plan[0], "[{\"n\":1},{\"n\":2},{\"n\":3}]");
	assert_int_equal(lane->plan[0].n, 3);
	must(tw_spool_acknowledge(f->spool, lane));
	commit(f);
	struct tw_spool_stats stats;
	tw_spool_stats(f->spool, &stats);
	assert_int_equal(stats.dead, 0);
}

static void what_is_held_is_given_up_when_a_later_event_is_accepted(void **state)
{
	struct fixture *f = *state;
	struct tw_spool_lane *lane = attach_lane(f, "t", ALL);
	store(f, "epoch", 2, 1);
	plan(f, lane, 1, 1000);
	must(tw_spool_hold(f->spool, lane, 400, "no", true));
	plan(f, lane, 1, 1000);
	expect_batch(f, &lane->plan[0], "[{\"n\":2}]");
	must(tw_spool_acknowledge(f->spool, lane));
	commit(f);
	struct tw_spool_stats stats;
	tw_spool_stats(f->spool, &stats);
	assert_int_equal(stats.dead, 1);
	assert_int_equal(stats.events, 0);
	assert_int_equal(lane->target->refused, 1);
}

/* Events of both disks, planned by each lane of the target. */
static void lanes_share_the_disks_and_their_number_changes_without_loss(void **state)
{
	struct fixture *f = *state;
	const struct tw_spool_filter filter = { .mask = ALL };
	struct tw_spool_target *target;
	must(tw_spool_target(f->spool, "t", 1, &filter, &target));
	store(f, "a", 2, 1);
	store(f, "b", 2, 1);
	plan(f, target->lanes[0], 3, 1000);
	must(tw_spool_target(f->spool, "t", 2, &filter, &target));
	commit(f);
	assert_int_equal(target->nlanes, 1); /* a batch is under way */
	plan(f, target->lanes[0], 100, 1000);
	assert_int_equal(target->lanes[0]->nplan, 1); /* and what is behind it is for the new lanes */
	must(tw_spool_acknowledge(f->spool, target->lanes[0]));
	commit(f);
	assert_int_equal(target->nlanes, 2);
	store(f, "a", 1, 1);
	uint64_t count = 0;
	for (unsigned int i = 0; i < 2; i++) {
		plan(f, target->lanes[i], 100, 1000);
		commit(f);
		for (unsigned int k = 0; k < target->lanes[i]->nplan; k++)
			count += target->lanes[i]->plan[k].picks.count;
	}
	assert_int_equal(count, 2);
	assert_string_not_equal(target->lanes[0]->epoch, target->lanes[1]->epoch);
}

static void expect_refused(struct fixture *f, enum tw_code code, const char *part)
{
	struct tw_spool *spool = NULL;
	struct tw_error *err = tw_spool_open(f->path, 1 << 30, &spool);
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), code);
	assert_non_null(strstr(tw_error_message(err), part));
	assert_non_null(strstr(tw_error_message(err), f->path));
	tw_error_destroy(err);
}

static void a_spool_in_use_is_refused(void **state)
{
	struct fixture *f = *state;
	expect_refused(f, TW_UNAVAILABLE, "in use");
}

static void write_at(const char *path, long offset, const char *text)
{
	FILE *file = fopen(path, "r+b");
	assert_non_null(file);
	fseek(file, offset, SEEK_SET);
	fputs(text, file);
	fclose(file);
}

static void a_damaged_spool_is_left_alone(void **state)
{
	struct fixture *f = *state;
	attach_lane(f, "t", ALL);
	store(f, "epoch", 2000, 1);
	commit(f);
	tw_spool_close(f->spool);
	f->spool = NULL;
	struct stat before;
	struct stat after;
	write_at(f->path, 8192, "this is no page of a database; not at all; it is text");
	assert_int_equal(stat(f->path, &before), 0);
	expect_refused(f, TW_BAD_DATA, "damaged");
	write_at(f->path, 0, "and this is no header");
	expect_refused(f, TW_BAD_DATA, "damaged");
	assert_int_equal(stat(f->path, &after), 0);
	assert_true(before.st_size == after.st_size && before.st_ino == after.st_ino);
}

static void a_spool_of_the_future_is_refused(void **state)
{
	struct fixture *f = *state;
	tw_spool_close(f->spool);
	f->spool = NULL;
	write_at(f->path, 63, "\x03"); /* user_version, big-endian at 60 */
	expect_refused(f, TW_UNSUPPORTED, "version 3");
}

static void the_file_is_for_its_owner_alone(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_sequence_is_remembered),
		TEST(an_epoch_belongs_to_one_source),
		TEST(batches_are_cut_by_count_and_bytes),
		TEST(a_planned_batch_is_the_same_after_a_restart),
		TEST(an_event_stays_until_the_last_target_has_it),
		TEST(what_nobody_wants_is_not_kept),
		TEST(a_new_target_begins_with_the_next_event),
		TEST(a_target_without_configuration_holds_nothing_back),
		TEST(a_rollback_returns_to_the_commit),
		TEST(the_plan_has_a_bound),
		TEST(the_operators_limit_is_kept),
		TEST(what_is_only_kept_makes_room),
		TEST(a_refused_batch_is_planned_anew_under_the_next_numbers),
		TEST(what_is_held_can_be_taken_back),
		TEST(what_is_held_is_given_up_when_a_later_event_is_accepted),
		TEST(lanes_share_the_disks_and_their_number_changes_without_loss),
		TEST(a_spool_in_use_is_refused),
		TEST(a_damaged_spool_is_left_alone),
		TEST(a_spool_of_the_future_is_refused),
		TEST(the_file_is_for_its_owner_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
