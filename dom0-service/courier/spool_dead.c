/* SPDX-License-Identifier: BSD-3-Clause */
/* Dead letters: events that a target has refused. */
#include "courier/spool_inside.h"

#include <inttypes.h>

struct tw_error *tw_spool_load_held(struct tw_spool *spool, struct tw_spool_lane *lane)
{
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_DEAD_HELD, 1, lane->id);
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_DEAD_HELD, &row));
	lane->held = row ? (uint64_t)sqlite3_column_int64(stmt, 0) : 0;
	lane->held_first = lane->held ? sqlite3_column_int64(stmt, 1) : 0;
	sqlite3_reset(stmt);
	return NULL;
}

struct letter {
	struct tw_spool *spool;
	const struct tw_spool_lane *lane;
	long status;
	const char *answer;
	bool held;
	int64_t event;
	struct tw_error *err;
};

static void write_letter(void *arg, const struct tw_chunk *chunk, uint32_t i, uint32_t n)
{
	struct letter *letter = arg;
	(void)n;
	size_t len;
	const char *body = tw_chunk_text(chunk, i, 1, &len);
	sqlite3_stmt *stmt = tw_spool_db_bind(&letter->spool->db, TW_SQL_DEAD_ADD, 7, letter->lane->target->id,
		letter->lane->id, (int64_t)letter->held, letter->event, tw_spool_now_ms(),
		(int64_t)letter->status, (int64_t)tw_chunk_type(chunk, i));
	sqlite3_bind_text(stmt, 8, letter->answer, -1, SQLITE_STATIC);
	sqlite3_bind_blob64(stmt, 9, body, len, SQLITE_STATIC);
	letter->err = tw_spool_db_run(&letter->spool->db, TW_SQL_DEAD_ADD);
}

static struct tw_error *add_letter(struct letter *letter)
{
	struct tw_picks one = { .last = -1 };
	tw_picks_add(&one, letter->event, 1);
	TW_TRY(tw_spool_db_begin(&letter->spool->db));
	struct tw_error *err = tw_spool_read(letter->spool, &one, write_letter, letter);
	tw_picks_deinit(&one);
	return err ? err : letter->err;
}

struct tw_error *tw_spool_hold(struct tw_spool *spool, struct tw_spool_lane *lane, long status,
	const char *answer, bool held)
{
	int64_t event = lane->plan[0].picks.first;
	struct letter letter = { .spool = spool,
		.lane = lane,
		.status = status,
		.answer = answer,
		.held = held,
		.event = event };
	TW_TRY(add_letter(&letter));
	TW_TRY(tw_spool_move(spool, lane, event, true));
	if (held) {
		if (!lane->held++)
			lane->held_first = event;
		return NULL;
	}
	lane->target->refused++;
	lane->target->dirty = true;
	return NULL;
}

struct tw_error *tw_spool_unhold(struct tw_spool *spool, struct tw_spool_lane *lane)
{
	if (!lane->held)
		return NULL;
	TW_TRY(tw_spool_move(spool, lane, lane->held_first - 1, true));
	tw_spool_db_bind(&spool->db, TW_SQL_DEAD_TAKE_BACK, 1, lane->id);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_DEAD_TAKE_BACK));
	lane->held = 0;
	return NULL;
}

/* The number of the i-th event. */
static int64_t pick_at(const struct tw_picks *picks, uint64_t i)
{
	struct tw_picks_walk walk = tw_picks_begin(picks);
	int64_t id;
	uint32_t n;
	while (tw_picks_next(&walk, &id, &n)) {
		if (i < n)
			return id + (int64_t)i;
		i -= n;
	}
	return 0;
}

struct tw_error *tw_spool_advance(struct tw_spool *spool, struct tw_spool_lane *lane, uint64_t i)
{
	int64_t event = pick_at(&lane->plan[0].picks, i);
	return event ? tw_spool_move(spool, lane, event, true) : NULL;
}

struct tw_error *tw_spool_bury(struct tw_spool *spool, struct tw_spool_lane *lane, uint64_t i, long status,
	const char *answer)
{
	struct letter letter = { .spool = spool,
		.lane = lane,
		.status = status,
		.answer = answer,
		.event = pick_at(&lane->plan[0].picks, i) };
	if (!letter.event)
		return NULL;
	TW_TRY(add_letter(&letter));
	lane->target->refused++;
	lane->target->dirty = true;
	return NULL;
}

struct tw_error *tw_spool_letters(struct tw_spool *spool, const struct tw_spool_target *target, int64_t after,
	uint64_t limit, tw_spool_letter_fn tell, void *arg)
{
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_DEAD_LIST, 3, after,
		target ? target->id : INT64_C(0), (int64_t)limit);
	for (;;) {
		bool row;
		TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_DEAD_LIST, &row));
		if (!row)
			return NULL;
		const struct tw_spool_letter letter = {
			.id = sqlite3_column_int64(stmt, 0),
			.target = (const char *)sqlite3_column_text(stmt, 1),
			.time_ms = sqlite3_column_int64(stmt, 2),
			.status = (long)sqlite3_column_int64(stmt, 3),
			.answer = (const char *)sqlite3_column_text(stmt, 4),
			.type = (unsigned int)sqlite3_column_int(stmt, 5),
			.body = sqlite3_column_blob(stmt, 6),
			.len = (size_t)sqlite3_column_bytes(stmt, 6),
		};
		tell(arg, &letter);
	}
}

/* A chunk with the letter's event, for its target alone. */
static struct tw_error *make_chunk(struct tw_spool *spool, int64_t id, struct tw_chunk **out)
{
	*out = NULL;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_DEAD_LIST, 3, id - 1, INT64_C(0), INT64_C(1));
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_DEAD_LIST, &row));
	struct tw_chunk *chunk = NULL;
	struct tw_error *err = NULL;
	if (row && sqlite3_column_int64(stmt, 0) == id) {
		chunk = tw_chunk_create();
		if (!chunk || !tw_chunk_add(chunk, (unsigned int)sqlite3_column_int(stmt, 5), 0,
				      sqlite3_column_blob(stmt, 6), (size_t)sqlite3_column_bytes(stmt, 6)))
			err = tw_error_nomem();
		else
			chunk->only = sqlite3_column_int64(stmt, 7);
	}
	if (row)
		sqlite3_reset(stmt);
	if (err)
		tw_chunk_destroy(chunk);
	else
		*out = chunk;
	return err;
}

struct tw_error *tw_spool_end_letter(struct tw_spool *spool, int64_t id, bool again, bool *found)
{
	TW_TRY(tw_spool_db_begin(&spool->db));
	struct tw_chunk *chunk = NULL;
	if (again) {
		TW_TRY(tw_spool_seal(spool));
		TW_TRY(make_chunk(spool, id, &chunk));
	}
	if (chunk)
		TW_TRY(tw_spool_seal_chunk(spool, chunk));
	tw_spool_db_bind(&spool->db, TW_SQL_DEAD_DROP, 1, id);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_DEAD_DROP));
	*found = sqlite3_changes64(spool->db.handle) > 0;
	return NULL;
}
