/* SPDX-License-Identifier: BSD-3-Clause */
/* The spool on a disk whose power fails, or whose room ends, at each write in turn. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <cmocka.h>

#include "courier/spool.h"
#include "faulty_vfs.h"

#define PATH "/faulty/spool.db"
#define SOURCE "/xen/host/uuid/xvda"
#define ROUNDS 20

/* What the program was told: an event or a batch counts when the commit said yes. */
struct told {
	uint64_t stored;	/* events of the disk */
	uint64_t acknowledged;	/* events, which the receiver has */
	uint64_t planned;	/* number of the last batch that may have been sent */
	char batch[4096];	/* and the first batch that is not acknowledged, as it would be sent */
	uint64_t batch_n;
};

struct run {
	struct tw_spool *spool;
	struct tw_spool_target *target;
	struct tw_spool_disk *disk;
	struct told told;
	uint64_t tried; /* events that were handed to the spool */
	int content[256]; /* what each of them said, when it was handed over last */
};

static bool failed(struct tw_error *err)
{
	bool is = err != NULL;
	tw_error_destroy(err);
	return is;
}

static bool open_run(struct run *run)
{
	static const struct tw_spool_filter all = { .mask = UINT64_MAX };
	if (failed(tw_spool_open(PATH, 1 << 30, &run->spool))) {
		run->spool = NULL;
		return false;
	}
	return !failed(tw_spool_target(run->spool, "t", 1, &all, &run->target)) &&
		!failed(tw_spool_disk(run->spool, "epoch", SOURCE, &run->disk)) &&
		!failed(tw_spool_commit(run->spool, true));
}

static struct tw_error *store(struct run *run, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		char body[700];
		uint64_t sequence = run->disk->last + 1;
		assert_true(sequence < 256);
		run->content[sequence] = rand() % 1000000;
		/* Some are long: a row has overflow pages then. */
		int len = snprintf(body, sizeof(body), "{\"n\":%llu,\"x\":%d,\"y\":\"%*s\"}",
			(unsigned long long)sequence, run->content[sequence], rand() % 600 + 1, "");
		TW_TRY(tw_spool_store(run->spool, run->disk, 1, body, (size_t)len));
		if (run->disk->last > run->tried)
			run->tried = run->disk->last;
	}
	return tw_spool_seal(run->spool);
}

static struct tw_error *plan(struct run *run, uint64_t events)
{
	const struct tw_spool_bounds bounds = { .events = events, .bytes = 1 << 20 };
	bool full;
	bool more;
	TW_TRY(tw_spool_look(run->spool, run->target->lanes[0], &bounds, &full, &more));
	return tw_spool_plan(run->spool, run->target->lanes[0]);
}

/* The numbers that stand in a batch, in order: "1 2 3 ". */
static struct tw_error *numbers(struct run *run, const struct tw_picks *picks, char *out, size_t size)
{
	struct tw_buf body = TW_BUF_INIT;
	struct tw_error *err = tw_spool_read_array(run->spool, picks, TW_CHUNK_EXTRAS, &body);
	tw_buf_append(&body, "", 1);
	size_t at = 0;
	for (const char *n = err ? NULL : strstr(body.data, "\"n\":"); n; n = strstr(n + 1, "\"n\":")) {
		assert_int_equal(atoi(strstr(n, "\"x\":") + 4), run->content[atoi(n + 4)]);
		at += (size_t)snprintf(out + at, size - at, "%lld ", atoll(n + 4));
	}
	out[at] = '\0';
	tw_buf_deinit(&body);
	return err;
}

/* After a commit that said yes. */
static struct tw_error *note(struct run *run)
{
	struct tw_spool_lane *lane = run->target->lanes[0];
	run->told.stored = run->disk->last;
	run->told.batch_n = 0;
	if (!lane->nplan)
		return NULL;
	TW_TRY(numbers(run, &lane->plan[0].picks, run->told.batch, sizeof(run->told.batch)));
	run->told.batch_n = lane->plan[0].n;
	run->told.planned = lane->plan[0].n;
	return NULL;
}

/* One transaction of the kind that the courier makes. */
static struct tw_error *work(struct run *run, int round)
{
	struct tw_spool_lane *lane = run->target->lanes[0];
	TW_TRY(store(run, (unsigned int)rand() % 6));
	TW_TRY(plan(run, (uint64_t)rand() % 5 + 1));
	if (round % 2 && lane->nplan) {
		run->told.acknowledged = (uint64_t)lane->plan[0].picks.last; /* the receiver has it, whatever follows */
		TW_TRY(tw_spool_acknowledge(run->spool, lane));
	}
	TW_TRY(tw_spool_commit(run->spool, round % 3 == 0));
	return note(run);
}

static void run_until_power_fails(struct run *run)
{
	srand(11);
	if (!open_run(run))
		return;
	for (int round = 0; round < ROUNDS; round++)
		if (failed(work(run, round)))
			return;
}

/* All that waits, in order, must be what was not acknowledged, and no more than was tried. */
static void expect_all_events(struct run *run, uint64_t from, uint64_t least, uint64_t most)
{
	struct tw_spool_lane *lane = run->target->lanes[0];
	uint64_t next = 0;
	for (;;) {
		assert_false(failed(plan(run, 1000)));
		if (!lane->nplan)
			break;
		char text[8192];
		assert_false(failed(numbers(run, &lane->plan[0].picks, text, sizeof(text))));
		for (char *at = text, *end; *at; at = end + 1) {
			uint64_t n = strtoull(at, &end, 10);
			if (!next) {
				assert_true(n <= from + 1); /* acknowledged ones may come again */
				next = n;
			}
			assert_int_equal(n, next);
			next++;
		}
		assert_false(failed(tw_spool_acknowledge(run->spool, lane)));
	}
	uint64_t last = next ? next - 1 : run->disk->last;
	assert_true(last >= least && last <= most);
	assert_int_equal(run->disk->last, last);
}

static void check_after_power_failure(const struct run *before)
{
	struct run after = { 0 };
	memcpy(after.content, before->content, sizeof(after.content));
	assert_true(open_run(&after)); /* it is no damaged file */
	assert_true(after.disk->last >= before->told.stored);
	assert_true(after.disk->last <= before->tried);
	struct tw_spool_lane *lane = after.target->lanes[0];
	/* The batch that may have been sent is the same, unless its acknowledgement was just being written. */
	if (before->told.batch_n && lane->nplan && lane->plan[0].n == before->told.batch_n) {
		char text[4096];
		assert_false(failed(numbers(&after, &lane->plan[0].picks, text, sizeof(text))));
		assert_string_equal(text, before->told.batch);
	}
	assert_true(lane->next > before->told.planned); /* no number is given twice */
	expect_all_events(&after, before->told.acknowledged, before->told.stored, before->tried);
	tw_spool_close(after.spool);
}

static void nothing_is_lost_or_invented_when_the_power_fails_at_any_write(void **state)
{
	(void)state;
	struct run whole = { 0 };
	faulty_reset();
	run_until_power_fails(&whole);
	uint64_t writes = faulty.writes;
	tw_spool_close(whole.spool);
	assert_true(writes > 100);
	for (uint64_t at = 1; at <= writes; at++) {
		for (unsigned int lot = 0; lot < 2; lot++) {
			struct run run = { 0 };
			faulty_reset();
			faulty.power_off_at = at;
			run_until_power_fails(&run);
			tw_spool_close(run.spool);
			faulty_power_on((unsigned int)at * 3 + lot);
			check_after_power_failure(&run);
		}
	}
	faulty_reset();
}

/* Like the courier: what failed for want of room is rolled back and tried again when there is some. */
static void run_with_full_disk(struct run *run)
{
	srand(11);
	for (int tries = 0; !open_run(run); tries++) {
		tw_spool_close(run->spool);
		assert_true(tries < 1000);
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (int tries = 0;; tries++) {
			if (!failed(work(run, round)))
				break;
			assert_true(tries < 1000);
			assert_false(failed(tw_spool_rollback(run->spool)));
			assert_int_equal(run->disk->last, run->told.stored);
		}
	}
}

static void nothing_is_lost_or_invented_when_the_room_ends_at_any_write(void **state)
{
	(void)state;
	struct run whole = { 0 };
	faulty_reset();
	run_until_power_fails(&whole);
	uint64_t writes = faulty.writes;
	tw_spool_close(whole.spool);
	for (uint64_t at = 1; at <= writes; at++) {
		struct run run = { 0 };
		faulty_reset();
		faulty.full_from = at;
		faulty.full_until = at + 1 + at % 7;
		run_with_full_disk(&run);
		expect_all_events(&run, run.told.acknowledged, run.told.stored, run.told.stored);
		tw_spool_close(run.spool);
	}
	faulty_reset();
}

/* In place of libc's: the spool asks how large its files are, and what is left. */
int stat(const char *restrict path, struct stat *restrict out)
{
	const struct faulty_file *file = faulty_find(path, false);
	if (!file)
		return fstatat(AT_FDCWD, path, out, 0);
	*out = (struct stat){ .st_size = (off_t)file->size };
	return 0;
}

int statvfs(const char *restrict path, struct statvfs *restrict out)
{
	(void)path;
	size_t used = 0;
	for (size_t i = 0; i < FAULTY_FILES; i++)
		used += faulty.files[i].size;
	*out = (struct statvfs){ .f_frsize = 1, .f_blocks = faulty.room ? faulty.room : 1ul << 40 };
	out->f_bavail = used < out->f_blocks ? out->f_blocks - used : 0;
	return 0;
}

/* Of letters that no compression makes less. */
static struct tw_error *store_one(struct run *run)
{
	char body[20000];
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (char)('0' + rand() % 64);
	memcpy(body, "\"", 1);
	body[sizeof(body) - 1] = '"';
	for (size_t i = 1; i < sizeof(body) - 1; i++)
		if (body[i] == '\\')
			body[i] = '.';
	return tw_spool_store(run->spool, run->disk, 1, body, sizeof(body));
}

/* As much as comes at once from many inspectors. */
static struct tw_error *store_much(struct run *run)
{
	for (int i = rand() % 200; i >= 0; i--)
		TW_TRY(store_one(run));
	return tw_spool_commit(run->spool, false);
}

static struct tw_error *deliver(struct run *run)
{
	struct tw_spool_lane *lane = run->target->lanes[0];
	TW_TRY(plan(run, 5));
	if (lane->nplan)
		TW_TRY(tw_spool_acknowledge(run->spool, lane));
	return tw_spool_commit(run->spool, true);
}

/* Nobody else makes room then: what is delivered has to. */
static void a_disk_that_the_spool_itself_has_filled_is_of_use_again(void **state)
{
	(void)state;
	for (size_t room = 5 << 20; room < 10 << 20; room += 100000) {
		struct run run = { 0 };
		faulty_reset();
		assert_true(open_run(&run));
		faulty.room = room;
		for (int turn = 0; turn < 2; turn++) {
			assert_true(tw_spool_has_room(run.spool));
			while (tw_spool_has_room(run.spool))
				if (failed(store_much(&run)))
					assert_false(failed(tw_spool_rollback(run.spool)));
			for (int tries = 0; run.target->lanes[0]->cursor < (int64_t)run.disk->last ||
					run.target->lanes[0]->nplan; tries++) {
				assert_true(tries < 1000);
				if (failed(deliver(&run)))
					assert_false(failed(tw_spool_rollback(run.spool)));
			}
			for (int tries = 0; !tw_spool_has_room(run.spool); tries++) {
				assert_true(tries < 10);
				if (failed(tw_spool_commit(run.spool, true)))
					assert_false(failed(tw_spool_rollback(run.spool)));
			}
		}
		tw_spool_close(run.spool);
	}
	faulty_reset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_or_invented_when_the_power_fails_at_any_write),
		cmocka_unit_test(nothing_is_lost_or_invented_when_the_room_ends_at_any_write),
		cmocka_unit_test(a_disk_that_the_spool_itself_has_filled_is_of_use_again),
	};
	faulty_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
