/* SPDX-License-Identifier: BSD-3-Clause */
/* What a target's own limits cost it, and events that it gets again. */
#include "courier/spool_inside.h"

#include "base/scope.h"
#include "event/event.h"
#include "event/json.h"
#include "event/time.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* At most so many chunks in a turn: others want theirs. */
#define TURN_CHUNKS 128
/* A backlog that is too long loses an eighth more than it must, so that it does not lose a little all the time. */
#define KEPT_SHARE(limit) ((limit) / 8 * 7)

/* The last event that the lane need not keep. */
static int64_t done_by(const struct tw_spool_lane *lane)
{
	int64_t done = lane->nplan ? lane->plan[0].picks.first - 1 : lane->cursor;
	return lane->held && lane->held_first - 1 < done ? lane->held_first - 1 : done;
}

static const char *verdict(const struct tw_spool *spool, const struct tw_chunk *chunk, uint64_t max_age_ms,
	uint64_t max_bytes)
{
	if (max_bytes && spool->written - chunk->start > max_bytes)
		return "max_bytes";
	if (max_age_ms && chunk->time_ms < tw_spool_now_ms() - (int64_t)max_age_ms)
		return "max_age";
	return NULL;
}

struct tw_error *tw_spool_exceeds(struct tw_spool *spool, const struct tw_spool_lane *lane,
	uint64_t max_age_ms, uint64_t max_bytes, const char **reason)
{
	struct tw_chunk *chunk;
	*reason = NULL;
	TW_TRY(tw_spool_chunk_at(spool, done_by(lane) + 1, &chunk));
	if (chunk)
		*reason = verdict(spool, chunk, max_age_ms, max_bytes);
	return NULL;
}

static bool wants(struct tw_spool *spool, const struct tw_spool_lane *lane, const struct tw_chunk *chunk,
	uint32_t i)
{
	const struct tw_spool_filter *filter = &lane->target->filter;
	unsigned int type = tw_chunk_type(chunk, i);
	if (type >= 64 || !(filter->mask >> type & 1))
		return false;
	size_t len;
	const char *body = tw_chunk_text(chunk, i, 1, &len);
	return !filter->wants ||
		filter->wants(filter->arg, tw_spool_source(spool, chunk->disk), type, body, len);
}

static void add_loss(struct tw_spool_loss *loss, const struct tw_chunk *chunk, uint64_t events)
{
	if (!events)
		return;
	if (!loss->events)
		loss->from_ms = chunk->time_ms;
	loss->until_ms = chunk->time_ms;
	loss->events += events;
	unsigned int i = 0;
	while (i < loss->ndisks && loss->disks[i].disk != chunk->disk)
		i++;
	if (i == sizeof(loss->disks) / sizeof(loss->disks[0])) {
		loss->more_disks = true;
		return;
	}
	if (i == loss->ndisks) {
		loss->ndisks++;
		loss->disks[i] =
			(struct tw_spool_lost_disk){ .disk = chunk->disk, .first = chunk->sequence_first };
	}
	loss->disks[i].last = chunk->sequence_last;
	loss->disks[i].events += events;
}

struct tw_error *tw_spool_enforce(struct tw_spool *spool, struct tw_spool_lane *lane, uint64_t max_age_ms,
	uint64_t max_bytes, uint64_t *lost, bool *more)
{
	struct tw_spool_target *target = lane->target;
	int64_t done = done_by(lane);
	int64_t goal = done;
	if (!target->loss)
		target->loss = calloc(1, sizeof(*target->loss));
	if (!target->loss)
		return tw_error_nomem();
	unsigned int turn = 0;
	for (; turn < TURN_CHUNKS; turn++) {
		struct tw_chunk *chunk;
		TW_TRY(tw_spool_chunk_at(spool, goal + 1, &chunk));
		const char *reason =
			chunk ? verdict(spool, chunk, KEPT_SHARE(max_age_ms), KEPT_SHARE(max_bytes)) : NULL;
		if (!reason)
			break;
		uint32_t i = goal + 1 > chunk->first ? (uint32_t)(goal + 1 - chunk->first) : 0;
		uint64_t events = 0;
		for (; tw_spool_lane_has(lane, chunk) && i < chunk->n; i++)
			events += wants(spool, lane, chunk, i);
		add_loss(target->loss, chunk, events);
		*lost += events;
		target->dropped += events;
		snprintf(target->loss->reason, sizeof(target->loss->reason), "%s", reason);
		goal = chunk->first + chunk->n - 1;
	}
	*more |= turn == TURN_CHUNKS;
	if (goal == done)
		return NULL;
	target->dirty = true;
	TW_TRY(tw_spool_unhold(spool, lane));
	return tw_spool_move(spool, lane, goal, true);
}

/* --- telling --- */

static void put_time(struct tw_json *json, const char *key, int64_t ms)
{
	char text[TW_TIME_TEXT_BYTES];
	const struct tw_time time = { .sec = ms / 1000, .nsec = (uint32_t)(ms % 1000) * 1000000 };
	tw_time_format(time, text);
	tw_json_text(json, key, text);
}

static void put_u64_text(struct tw_json *json, const char *key, uint64_t value)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, value);
	tw_json_text(json, key, text);
}

static void put_lost_disks(struct tw_spool *spool, struct tw_json *json, const struct tw_spool_loss *loss)
{
	tw_json_open_array(json, "disks");
	for (unsigned int i = 0; i < loss->ndisks; i++) {
		const struct tw_spool_disk *disk = tw_spool_find_disk(spool, loss->disks[i].disk);
		tw_json_open(json, NULL);
		tw_json_text(json, "source", disk ? disk->source : "");
		tw_json_text(json, "epoch", disk ? disk->epoch : "");
		tw_json_u64(json, "first", loss->disks[i].first);
		tw_json_u64(json, "last", loss->disks[i].last);
		if (loss->disks[i].events)
			tw_json_u64(json, "events", loss->disks[i].events);
		tw_json_close(json);
	}
	tw_json_close_array(json);
	if (loss->more_disks)
		tw_json_bool(json, "more_disks", true);
}

static struct tw_error *encode_loss(struct tw_spool *spool, const struct tw_spool_disk *own, const char *target,
	const struct tw_spool_loss *loss, struct tw_buf *out)
{
	char id[TW_SPOOL_EPOCH_SIZE + 24];
	struct tw_json json;
	snprintf(id, sizeof(id), "%s-%" PRIu64, own->epoch, own->last + 1);
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_text(&json, "specversion", "1.0");
	tw_json_text(&json, "id", id);
	tw_json_text(&json, "source", own->source);
	tw_json_text(&json, "type", tw_event_type_name(TW_EVENT_SPOOL_DROPPED));
	if (target)
		tw_json_text(&json, "subject", target);
	put_time(&json, "time", tw_spool_now_ms());
	put_time(&json, "observedtime", tw_spool_now_ms());
	put_u64_text(&json, "sequence", own->last + 1);
	tw_json_text(&json, "datacontenttype", "application/json");
	tw_json_open(&json, "data");
	if (target)
		tw_json_text(&json, "target", target);
	tw_json_text(&json, "reason", loss->reason);
	if (loss->events) {
		tw_json_u64(&json, "events", loss->events);
		put_time(&json, "from", loss->from_ms);
		put_time(&json, "until", loss->until_ms);
	}
	put_lost_disks(spool, &json, loss);
	tw_json_close(&json);
	tw_json_close(&json);
	return tw_json_end(&json);
}

/* The courier's own events have a source and an epoch like a disk's. */
static struct tw_error *own_disk(struct tw_spool *spool, const char *host, struct tw_spool_disk **out)
{
	char source[300];
	char epoch[TW_SPOOL_EPOCH_SIZE];
	snprintf(source, sizeof(source), "/xen/%.255s/spool", host);
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_DISK_OF_SOURCE, 0);
	sqlite3_bind_text(stmt, 1, source, -1, SQLITE_STATIC);
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_DISK_OF_SOURCE, &row));
	if (row)
		snprintf(epoch, sizeof(epoch), "%s", (const char *)sqlite3_column_text(stmt, 0));
	sqlite3_reset(stmt);
	if (!row)
		TW_TRY(tw_spool_random(epoch));
	return tw_spool_disk(spool, epoch, source, out);
}

static struct tw_error *tell(struct tw_spool *spool, const char *host, const char *target,
	const struct tw_spool_loss *loss)
{
	struct tw_spool_disk *own;
	TW_TRY(own_disk(spool, host, &own));
	struct tw_buf body = TW_BUF_INIT;
	struct tw_error *err = encode_loss(spool, own, target, loss, &body);
	if (!err)
		err = tw_spool_store(spool, own, TW_EVENT_SPOOL_DROPPED, body.data, body.len);
	tw_buf_deinit(&body);
	return err;
}

struct tw_error *tw_spool_tell_loss(struct tw_spool *spool, const char *host, struct tw_spool_target *target)
{
	if (!target->loss)
		return NULL;
	TW_TRY(tell(spool, host, target->name, target->loss));
	TW_TRY(tw_spool_seal(spool));
	target->loss_event = spool->last_id;
	target->dirty = true;
	return NULL;
}

struct tw_error *tw_spool_tell_unknown(struct tw_spool *spool, const char *host,
	const struct tw_spool_disk *disk, uint64_t sequence)
{
	struct tw_spool_loss loss = { .reason = "no_spool", .ndisks = 1 };
	loss.disks[0] = (struct tw_spool_lost_disk){ .disk = disk->id, .first = 1, .last = sequence };
	return tell(spool, host, NULL, &loss);
}

/* --- again --- */

struct tw_error *tw_spool_begin_again(struct tw_spool *spool, struct tw_spool_lane *lane, int64_t since_ms,
	bool sent)
{
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_CHUNK_SINCE, 1, since_ms);
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_CHUNK_SINCE, &row));
	int64_t first = row ? sqlite3_column_int64(stmt, 0) - sqlite3_column_int64(stmt, 1) : spool->last_id;
	sqlite3_reset(stmt);
	if (first >= done_by(lane))
		return NULL;
	TW_TRY(tw_spool_unhold(spool, lane));
	return tw_spool_move(spool, lane, first, sent);
}
