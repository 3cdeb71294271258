/* SPDX-License-Identifier: BSD-3-Clause */
/* Targets and lanes of the spool: what is looked at, planned, acknowledged. */
#include "courier/spool_inside.h"

#include "base/scope.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A lane that lags looks at so many chunks before others get their turn. */
#define LOOK_CHUNKS 16

static void reset_draft(struct tw_spool_lane *lane)
{
	tw_picks_reset(&lane->draft.picks);
	lane->draft.bytes = 0;
	lane->looked = lane->cursor;
}

static void free_lane(struct tw_spool_lane *lane)
{
	if (!lane)
		return;
	for (unsigned int i = 0; i < TW_SPOOL_PLAN; i++)
		tw_picks_deinit(&lane->plan[i].picks);
	tw_picks_deinit(&lane->draft.picks);
	free(lane);
}

static void free_target(struct tw_spool_target *target)
{
	free(target->loss);
	for (unsigned int i = 0; i < TW_SPOOL_LANES; i++)
		free_lane(target->lanes[i]);
	free(target);
}

void tw_spool_free_targets(struct tw_spool *spool)
{
	for (struct tw_spool_target *target = spool->targets; target;) {
		struct tw_spool_target *following = target->following;
		free_target(target);
		target = following;
	}
	spool->targets = NULL;
}

/* --- from the file --- */

static struct tw_error *load_plan(struct tw_spool *spool, struct tw_spool_lane *lane)
{
	lane->nplan = 0;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_BATCH_LIST, 1, lane->id);
	for (;;) {
		bool row;
		TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_BATCH_LIST, &row));
		if (!row)
			return NULL;
		if (lane->nplan == TW_SPOOL_PLAN)
			return tw_error_create(TW_BAD_DATA, "spool %s plans more than %d batches for a target",
				spool->db.path, TW_SPOOL_PLAN);
		struct tw_spool_batch *batch = &lane->plan[lane->nplan++];
		batch->n = (uint64_t)sqlite3_column_int64(stmt, 0);
		batch->bytes = (uint64_t)sqlite3_column_int64(stmt, 4);
		struct tw_error *err = tw_picks_load(&batch->picks, sqlite3_column_int64(stmt, 1),
			sqlite3_column_int64(stmt, 2), (uint64_t)sqlite3_column_int64(stmt, 3),
			sqlite3_column_blob(stmt, 5), (size_t)sqlite3_column_bytes(stmt, 5));
		if (err) {
			sqlite3_reset(stmt);
			return tw_error_context(err, "spool %s", spool->db.path);
		}
	}
}

/* Takes a row of TW_SQL_LANE_LIST. */
static struct tw_error *take_lane(struct tw_spool_target *target, sqlite3_stmt *stmt)
{
	unsigned int index = target->nlanes;
	if (index >= TW_SPOOL_LANES || sqlite3_column_int64(stmt, 5) != index)
		return tw_error_create(TW_BAD_DATA, "the lanes of target %s are not in order", target->name);
	struct tw_spool_lane *lane = target->lanes[index];
	if (!lane)
		lane = target->lanes[index] = calloc(1, sizeof(*lane));
	if (!lane)
		return tw_error_nomem();
	lane->target = target;
	lane->index = index;
	lane->id = sqlite3_column_int64(stmt, 0);
	snprintf(lane->epoch, sizeof(lane->epoch), "%s", (const char *)sqlite3_column_text(stmt, 1));
	lane->next = (uint64_t)sqlite3_column_int64(stmt, 2);
	lane->acked = (uint64_t)sqlite3_column_int64(stmt, 3);
	lane->cursor = lane->stored_cursor = sqlite3_column_int64(stmt, 4);
	lane->dirty = false;
	reset_draft(lane);
	target->nlanes++;
	return NULL;
}

static struct tw_error *load_lanes(struct tw_spool *spool, struct tw_spool_target *target)
{
	target->nlanes = 0;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_LANE_LIST, 1, target->id);
	for (bool row = true; row;) {
		TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_LANE_LIST, &row));
		struct tw_error *err = row ? take_lane(target, stmt) : NULL;
		if (!err)
			continue;
		sqlite3_reset(stmt);
		return err;
	}
	for (unsigned int i = 0; i < target->nlanes; i++) {
		TW_TRY(load_plan(spool, target->lanes[i]));
		TW_TRY(tw_spool_load_held(spool, target->lanes[i]));
	}
	return NULL;
}

static struct tw_error *load_loss(struct tw_spool_target *target, sqlite3_stmt *stmt)
{
	free(TW_STEAL(target->loss));
	target->loss_event = sqlite3_column_int64(stmt, 4);
	if (sqlite3_column_bytes(stmt, 5) != sizeof(*target->loss))
		return NULL;
	target->loss = malloc(sizeof(*target->loss));
	if (!target->loss)
		return tw_error_nomem();
	memcpy(target->loss, sqlite3_column_blob(stmt, 5), sizeof(*target->loss));
	if (target->loss->ndisks <= sizeof(target->loss->disks) / sizeof(target->loss->disks[0]))
		return NULL;
	return tw_error_create(TW_BAD_DATA, "what target %s has lost contradicts itself", target->name);
}

struct tw_error *tw_spool_load_target(struct tw_spool *spool, struct tw_spool_target *target)
{
	target->id = 0;
	target->nlanes = 0;
	target->dirty = false;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_TARGET_FIND, 0);
	sqlite3_bind_text(stmt, 1, target->name, -1, SQLITE_STATIC);
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_TARGET_FIND, &row));
	if (!row)
		return NULL;
	target->id = sqlite3_column_int64(stmt, 0);
	target->suspended = sqlite3_column_int64(stmt, 1) != 0;
	target->dropped = (uint64_t)sqlite3_column_int64(stmt, 2);
	target->refused = (uint64_t)sqlite3_column_int64(stmt, 3);
	struct tw_error *err = load_loss(target, stmt);
	sqlite3_reset(stmt);
	return err ? err : load_lanes(spool, target);
}

/* --- attaching --- */

static struct tw_error *add_lane(struct tw_spool *spool, const struct tw_spool_target *target,
	unsigned int index, int64_t cursor)
{
	char epoch[TW_SPOOL_EPOCH_SIZE];
	TW_TRY(tw_spool_random(epoch));
	TW_TRY(tw_spool_db_begin(&spool->db));
	sqlite3_stmt *stmt =
		tw_spool_db_bind(&spool->db, TW_SQL_LANE_ADD, 3, target->id, (int64_t)index, cursor);
	sqlite3_bind_text(stmt, 4, epoch, -1, SQLITE_STATIC);
	return tw_spool_db_run(&spool->db, TW_SQL_LANE_ADD);
}

struct tw_error *tw_spool_add_target(struct tw_spool *spool, struct tw_spool_target *target)
{
	TW_TRY(tw_spool_seal(spool));
	TW_TRY(tw_spool_db_begin(&spool->db));
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_TARGET_ADD, 0);
	sqlite3_bind_text(stmt, 1, target->name, -1, SQLITE_STATIC);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_TARGET_ADD));
	target->id = sqlite3_last_insert_rowid(spool->db.handle);
	for (unsigned int i = 0; i < target->want; i++)
		TW_TRY(add_lane(spool, target, i, spool->last_id));
	return tw_spool_load_target(spool, target);
}

static void sum_wanted(struct tw_spool *spool)
{
	spool->wanted = 0;
	for (const struct tw_spool_target *t = spool->targets; t; t = t->following)
		spool->wanted |= t->filter.mask;
}

/* Where all lanes are to meet before their number changes. */
static void aim(struct tw_spool_target *target)
{
	target->settle = 0;
	for (unsigned int i = 0; i < target->nlanes; i++)
		if (target->lanes[i]->cursor > target->settle)
			target->settle = target->lanes[i]->cursor;
}

static struct tw_error *attach(struct tw_spool *spool, const char *name, unsigned int lanes,
	struct tw_spool_target **out)
{
	for (struct tw_spool_target *t = spool->targets; t; t = t->following) {
		if (strcmp(t->name, name) != 0)
			continue;
		t->want = lanes;
		*out = t;
		return NULL;
	}
	struct tw_spool_target *target = calloc(1, sizeof(*target));
	if (!target)
		return tw_error_nomem();
	target->want = lanes;
	snprintf(target->name, sizeof(target->name), "%s", name);
	struct tw_error *err = tw_spool_load_target(spool, target);
	if (!err && !target->id)
		err = tw_spool_add_target(spool, target);
	if (err) {
		free_target(target);
		return err;
	}
	target->following = spool->targets;
	*out = spool->targets = target;
	return NULL;
}

struct tw_error *tw_spool_target(struct tw_spool *spool, const char *name, unsigned int lanes,
	const struct tw_spool_filter *filter, struct tw_spool_target **out)
{
	struct tw_spool_target *target;
	TW_TRY(attach(spool, name, lanes, &target));
	target->filter = *filter;
	sum_wanted(spool);
	aim(target);
	for (unsigned int i = 0; i < target->nlanes; i++)
		reset_draft(target->lanes[i]);
	*out = target;
	return NULL;
}

static struct tw_error *forget_rows(struct tw_spool *spool, int64_t id)
{
	static const enum tw_spool_sql sql[] = { TW_SQL_BATCH_FORGET, TW_SQL_LANE_FORGET, TW_SQL_DEAD_FORGET,
		TW_SQL_TARGET_DROP };
	TW_TRY(tw_spool_db_begin(&spool->db));
	for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++) {
		tw_spool_db_bind(&spool->db, sql[i], 1, id);
		TW_TRY(tw_spool_db_run(&spool->db, sql[i]));
	}
	return NULL;
}

struct tw_error *tw_spool_forget(struct tw_spool *spool, struct tw_spool_target *target)
{
	TW_TRY(forget_rows(spool, target->id));
	for (struct tw_spool_target **at = &spool->targets; *at; at = &(*at)->following) {
		if (*at != target)
			continue;
		*at = target->following;
		break;
	}
	free_target(target);
	sum_wanted(spool);
	return NULL;
}

static bool is_attached(const struct tw_spool *spool, int64_t id)
{
	for (const struct tw_spool_target *t = spool->targets; t; t = t->following)
		if (t->id == id)
			return true;
	return false;
}

/* The first target of the file that is not attached, 0 when there is none. */
static struct tw_error *find_other(struct tw_spool *spool, int64_t *id)
{
	*id = 0;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_TARGET_IDS, 0);
	bool row = true;
	while (row && !*id) {
		TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_TARGET_IDS, &row));
		if (row && !is_attached(spool, sqlite3_column_int64(stmt, 0)))
			*id = sqlite3_column_int64(stmt, 0);
	}
	sqlite3_reset(stmt);
	return NULL;
}

struct tw_error *tw_spool_forget_others(struct tw_spool *spool, unsigned int *forgotten)
{
	*forgotten = 0;
	for (;;) {
		int64_t id;
		TW_TRY(find_other(spool, &id));
		if (!id)
			return NULL;
		TW_TRY(forget_rows(spool, id));
		++*forgotten;
	}
}

struct tw_error *tw_spool_suspend(struct tw_spool *spool, struct tw_spool_target *target, bool suspended)
{
	TW_TRY(tw_spool_db_begin(&spool->db));
	target->suspended = suspended;
	target->dirty = true;
	return NULL;
}

/* --- looking --- */

struct look {
	const struct tw_spool_filter *filter;
	const struct tw_spool_bounds *bounds;
	struct tw_spool_batch *draft;
	const char *source;
	int64_t end; /* no event beyond it */
	bool full;
};

static bool wants(const struct look *look, const struct tw_chunk *chunk, uint32_t i, size_t *len)
{
	unsigned int type = tw_chunk_type(chunk, i);
	const char *text = tw_chunk_text(chunk, i, 1, len);
	if (chunk->only)
		return true;
	if (type >= 64 || !(look->filter->mask >> type & 1))
		return false;
	return !look->filter->wants ||
		look->filter->wants(look->filter->arg, look->source, type, text, *len);
}

/* Takes events of chunk from id on into the draft; returns the last that was looked at. */
static int64_t look_at(struct look *look, const struct tw_chunk *chunk, int64_t id)
{
	struct tw_spool_batch *draft = look->draft;
	int64_t last = chunk->first + chunk->n - 1;
	if (last > look->end)
		last = look->end;
	for (; id <= last; id++) {
		size_t len;
		if (!wants(look, chunk, (uint32_t)(id - chunk->first), &len))
			continue;
		/* A comma or bracket goes with each event. */
		uint64_t count = draft->picks.count;
		if (count && (count >= look->bounds->events ||
				draft->bytes + len + count + 2 > look->bounds->bytes)) {
			look->full = true;
			return id - 1;
		}
		tw_picks_add(&draft->picks, id, 1);
		draft->bytes += len;
	}
	return last;
}

bool tw_spool_lane_has(const struct tw_spool_lane *lane, const struct tw_chunk *chunk)
{
	return (!chunk->only || chunk->only == lane->target->id) &&
		(uint64_t)chunk->disk % lane->target->nlanes == lane->index;
}

struct tw_error *tw_spool_look(struct tw_spool *spool, struct tw_spool_lane *lane,
	const struct tw_spool_bounds *bounds, bool *full, bool *more)
{
	const struct tw_spool_target *target = lane->target;
	struct look look = {
		.filter = &target->filter,
		.bounds = bounds,
		.draft = &lane->draft,
		.end = target->want != target->nlanes ? target->settle : spool->last_id,
	};
	if (bounds->until && bounds->until < look.end)
		look.end = bounds->until;
	for (unsigned int turn = 0; lane->looked < look.end && !look.full && turn < LOOK_CHUNKS; turn++) {
		struct tw_chunk *chunk;
		TW_TRY(tw_spool_chunk_at(spool, lane->looked + 1, &chunk));
		if (!chunk || chunk->first > look.end) {
			lane->looked = look.end; /* what was there is no longer wanted by anyone */
			break;
		}
		int64_t id = chunk->first > lane->looked ? chunk->first : lane->looked + 1;
		int64_t last = chunk->first + chunk->n - 1;
		look.source = tw_spool_source(spool, chunk->disk);
		lane->looked = tw_spool_lane_has(lane, chunk) ? look_at(&look, chunk, id)
			: last < look.end		   ? last
							   : look.end;
	}
	if (lane->draft.picks.runs.failed)
		return tw_error_nomem();
	uint64_t count = lane->draft.picks.count;
	if (count && (count >= bounds->events || lane->draft.bytes + count + 1 >= bounds->bytes ||
			(bounds->until && lane->looked >= bounds->until)))
		look.full = true;
	*full = look.full;
	*more = !look.full && lane->looked < look.end;
	if (!count && lane->cursor != lane->looked) {
		lane->cursor = lane->looked;
		spool->untidy = true;
	}
	return NULL;
}

/* --- planning --- */

/* All that its bounds hold: nothing needs to be said about which. */
static bool is_one_run(const struct tw_picks *picks)
{
	return picks->count == (uint64_t)(picks->last - picks->first) + 1;
}

struct tw_error *tw_spool_plan(struct tw_spool *spool, struct tw_spool_lane *lane)
{
	if (lane->nplan == TW_SPOOL_PLAN || !lane->draft.picks.count)
		return NULL;
	const struct tw_picks *picks = &lane->draft.picks;
	TW_TRY(tw_spool_db_begin(&spool->db));
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_BATCH_ADD, 6, lane->id, (int64_t)lane->next,
		picks->first, picks->last, (int64_t)picks->count, (int64_t)lane->draft.bytes);
	sqlite3_bind_blob64(stmt, 7, picks->runs.data, is_one_run(picks) ? 0 : picks->runs.len, SQLITE_STATIC);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_BATCH_ADD));
	struct tw_spool_batch *slot = &lane->plan[lane->nplan++];
	struct tw_spool_batch spare = *slot;
	*slot = lane->draft;
	slot->n = lane->next++;
	lane->draft = spare;
	lane->cursor = lane->looked;
	lane->dirty = true;
	reset_draft(lane);
	return NULL;
}

/* The oldest batch is no longer in the plan. */
static void shift_plan(struct tw_spool_lane *lane)
{
	struct tw_spool_batch first = lane->plan[0];
	lane->nplan--;
	memmove(&lane->plan[0], &lane->plan[1], lane->nplan * sizeof(lane->plan[0]));
	lane->plan[lane->nplan] = first; /* its memory is used again */
}

struct tw_error *tw_spool_acknowledge(struct tw_spool *spool, struct tw_spool_lane *lane)
{
	if (!lane->nplan)
		return NULL;
	TW_TRY(tw_spool_db_begin(&spool->db));
	tw_spool_db_bind(&spool->db, TW_SQL_BATCH_DROP, 2, lane->id, (int64_t)lane->plan[0].n);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_BATCH_DROP));
	if (lane->held) {
		tw_spool_db_bind(&spool->db, TW_SQL_DEAD_GIVE_UP, 1, lane->id);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_DEAD_GIVE_UP));
		lane->target->refused += lane->held;
		lane->target->dirty = true;
		lane->held = 0;
	}
	if (lane->target->loss && lane->plan[0].picks.last >= lane->target->loss_event &&
		lane->plan[0].picks.first <= lane->target->loss_event) {
		free(TW_STEAL(lane->target->loss)); /* it has been told */
		lane->target->dirty = true;
	}
	lane->acked = lane->plan[0].n;
	lane->dirty = true;
	shift_plan(lane);
	return NULL;
}

struct tw_error *tw_spool_move(struct tw_spool *spool, struct tw_spool_lane *lane, int64_t cursor, bool sent)
{
	TW_TRY(tw_spool_db_begin(&spool->db));
	if (lane->nplan) {
		tw_spool_db_bind(&spool->db, TW_SQL_BATCH_CLEAR, 1, lane->id);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_BATCH_CLEAR));
		lane->next = lane->plan[0].n + sent;
		lane->nplan = 0;
	}
	lane->cursor = cursor;
	lane->dirty = true;
	reset_draft(lane);
	return NULL;
}

struct tw_error *tw_spool_unplan(struct tw_spool *spool, struct tw_spool_lane *lane)
{
	return lane->nplan ? tw_spool_move(spool, lane, lane->plan[0].picks.first - 1, true) : NULL;
}

uint64_t tw_spool_backlog(const struct tw_spool *spool, const struct tw_spool_lane *lane)
{
	uint64_t count = lane->draft.picks.count + lane->held + (uint64_t)(spool->last_id - lane->looked);
	for (unsigned int i = 0; i < lane->nplan; i++)
		count += lane->plan[i].picks.count;
	return count;
}

/* --- rows --- */

/* The lanes are where they were to meet: from here on their number is another. */
static struct tw_error *resettle(struct tw_spool *spool, struct tw_spool_target *target)
{
	for (unsigned int i = 0; i < target->nlanes; i++) {
		const struct tw_spool_lane *lane = target->lanes[i];
		if (lane->nplan || lane->held || lane->cursor < target->settle)
			return NULL;
	}
	TW_TRY(tw_spool_db_begin(&spool->db));
	for (unsigned int i = target->want; i < target->nlanes; i++) {
		tw_spool_db_bind(&spool->db, TW_SQL_LANE_DROP, 1, target->lanes[i]->id);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_LANE_DROP));
	}
	for (unsigned int i = target->nlanes; i < target->want; i++)
		TW_TRY(add_lane(spool, target, i, target->settle));
	return tw_spool_load_target(spool, target);
}

static struct tw_error *write_lane(struct tw_spool *spool, struct tw_spool_lane *lane, bool all)
{
	if (!lane->dirty && (!all || lane->cursor == lane->stored_cursor))
		return NULL;
	tw_spool_db_bind(&spool->db, TW_SQL_LANE_SET, 4, lane->id, (int64_t)lane->next, (int64_t)lane->acked,
		lane->cursor);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_LANE_SET));
	lane->stored_cursor = lane->cursor;
	lane->dirty = false;
	return NULL;
}

static struct tw_error *write_target(struct tw_spool *spool, struct tw_spool_target *target, bool all)
{
	for (unsigned int i = 0; i < target->nlanes; i++)
		TW_TRY(write_lane(spool, target->lanes[i], all));
	if (!target->dirty)
		return NULL;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_TARGET_SET, 5, target->id,
		(int64_t)target->suspended, (int64_t)target->dropped, (int64_t)target->refused,
		target->loss_event);
	sqlite3_bind_blob(stmt, 6, target->loss, target->loss ? (int)sizeof(*target->loss) : 0, SQLITE_STATIC);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_TARGET_SET));
	target->dirty = false;
	return NULL;
}

struct tw_error *tw_spool_write_targets(struct tw_spool *spool, bool all)
{
	for (struct tw_spool_target *target = spool->targets; target; target = target->following) {
		bool unsettled = target->want != target->nlanes;
		TW_TRY(write_target(spool, target, all || unsettled));
		if (unsettled)
			TW_TRY(resettle(spool, target));
	}
	return NULL;
}
