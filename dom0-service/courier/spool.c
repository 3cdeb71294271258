/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/spool.h"

#include "base/scope.h"
#include "courier/spool_db.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>

/* Free space that events may not take: what is delivered must still be recorded. */
#define RESERVE_BYTES (16ull << 20)
#define RESERVE_SHARE 8 /* of a small file system, one part in this many */

struct tw_spool {
	struct tw_spool_db db;
	uint64_t max_bytes;
	uint64_t pages;	 /* of the file, with those in the WAL */
	uint64_t unused; /* of them: events take them before the file grows */
	int64_t last_id; /* of the event stored last */
	int64_t dropped; /* events up to here are deleted */
	struct tw_spool_stats stats;
	struct tw_spool_disk *disks;
	struct tw_spool_target *targets;
};

/* A type that the file holds may be anything. */
static bool wants(uint64_t mask, int64_t type)
{
	return type >= 0 && type < 64 && mask >> type & 1;
}

static struct tw_error *measure_file(struct tw_spool *spool)
{
	int64_t pages;
	int64_t unused;
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_PAGE_COUNT, &pages));
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_FREE_COUNT, &unused));
	spool->pages = (uint64_t)pages;
	spool->unused = (uint64_t)unused;
	spool->stats.bytes = (uint64_t)(pages - unused) * TW_SPOOL_PAGE_BYTES;
	return NULL;
}

/* Reads the counters that live in memory between commits. */
static struct tw_error *load(struct tw_spool *spool)
{
	int64_t events;
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_LAST_ID, &spool->last_id));
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_EVENT_COUNT, &events));
	spool->dropped = 0;
	spool->stats.events = (uint64_t)events;
	return measure_file(spool);
}

static struct tw_error *open_spool(struct tw_spool *spool, const char *path)
{
	TW_TRY(tw_spool_db_init(&spool->db, path));
	return load(spool);
}

struct tw_error *tw_spool_open(const char *path, uint64_t max_bytes, struct tw_spool **out)
{
	struct tw_spool *spool = calloc(1, sizeof(*spool));
	if (!spool)
		return tw_error_nomem();
	spool->max_bytes = max_bytes;
	struct tw_error *err = open_spool(spool, path);
	if (err)
		tw_spool_close(spool);
	else
		*out = spool;
	return err;
}

void tw_spool_close(struct tw_spool *spool)
{
	if (!spool)
		return;
	tw_spool_db_deinit(&spool->db);
	for (struct tw_spool_disk *disk = spool->disks; disk;) {
		struct tw_spool_disk *next = disk->next;
		free(disk->epoch);
		free(disk->source);
		free(disk);
		disk = next;
	}
	for (struct tw_spool_target *target = spool->targets; target;) {
		struct tw_spool_target *following = target->following;
		free(target);
		target = following;
	}
	free(spool);
}

bool tw_spool_has_room(struct tw_spool *spool)
{
	if (spool->stats.bytes >= spool->max_bytes)
		return false;
	struct statvfs fs;
	if (statvfs(spool->db.path, &fs) < 0)
		return true; /* the write itself will tell */
	uint64_t reserve = (uint64_t)fs.f_blocks * fs.f_frsize / RESERVE_SHARE;
	if (reserve > RESERVE_BYTES)
		reserve = RESERVE_BYTES;
	uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
	uint64_t claim = tw_spool_db_claim(&spool->db, spool->pages);
	return available >= claim && available - claim + spool->unused * TW_SPOOL_PAGE_BYTES > reserve;
}

/* Reads the row of disk->epoch; id stays 0 when there is none. */
static struct tw_error *load_disk(struct tw_spool *spool, struct tw_spool_disk *disk)
{
	disk->id = 0;
	disk->last = 0;
	disk->dirty = false;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_DISK_FIND, 0);
	sqlite3_bind_text(stmt, 1, disk->epoch, -1, SQLITE_STATIC);
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_DISK_FIND, &row));
	if (!row)
		return NULL;
	disk->id = sqlite3_column_int64(stmt, 0);
	disk->last = (uint64_t)sqlite3_column_int64(stmt, 1);
	const char *text = (const char *)sqlite3_column_text(stmt, 2);
	char *source = text ? strdup(text) : NULL;
	sqlite3_reset(stmt);
	if (!source)
		return tw_error_nomem();
	free(disk->source);
	disk->source = source;
	return NULL;
}

static struct tw_error *add_disk(struct tw_spool *spool, struct tw_spool_disk *disk)
{
	TW_TRY(tw_spool_db_begin(&spool->db));
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_DISK_ADD, 0);
	sqlite3_bind_text(stmt, 1, disk->epoch, -1, SQLITE_STATIC);
	sqlite3_bind_text(stmt, 2, disk->source, -1, SQLITE_STATIC);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_DISK_ADD));
	disk->id = sqlite3_last_insert_rowid(spool->db.handle);
	return NULL;
}

/* The disk of that epoch in memory, made when there is none. */
static struct tw_error *remember_disk(struct tw_spool *spool, const char *epoch, const char *source,
	struct tw_spool_disk **out)
{
	for (struct tw_spool_disk *disk = spool->disks; disk; disk = disk->next) {
		if (strcmp(disk->epoch, epoch) != 0)
			continue;
		*out = disk;
		return NULL;
	}
	struct tw_spool_disk *disk = calloc(1, sizeof(*disk));
	if (!disk)
		return tw_error_nomem();
	disk->epoch = strdup(epoch);
	disk->source = strdup(source);
	struct tw_error *err = tw_error_nomem();
	if (disk->epoch && disk->source)
		err = load_disk(spool, disk);
	if (err) {
		free(disk->epoch);
		free(disk->source);
		free(disk);
		return err;
	}
	disk->next = spool->disks;
	spool->disks = disk;
	*out = disk;
	return NULL;
}

struct tw_error *tw_spool_disk(struct tw_spool *spool, const char *epoch, const char *source,
	struct tw_spool_disk **out)
{
	struct tw_spool_disk *disk;
	TW_TRY(remember_disk(spool, epoch, source, &disk));
	if (strcmp(disk->source, source) != 0)
		return tw_error_create(TW_BAD_DATA, "disk epoch %s belongs to %s", epoch, disk->source);
	if (!disk->id)
		TW_TRY(add_disk(spool, disk));
	*out = disk;
	return NULL;
}

struct tw_error *tw_spool_store(struct tw_spool *spool, struct tw_spool_disk *disk, unsigned int type,
	const char *body, size_t len)
{
	TW_TRY(tw_spool_db_begin(&spool->db));
	bool wanted = false;
	for (const struct tw_spool_target *t = spool->targets; t; t = t->following)
		wanted |= wants(t->mask, type);
	if (wanted) {
		sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_EVENT_ADD, 4, spool->last_id + 1,
			disk->id, (int64_t)(disk->last + 1), (int64_t)type);
		sqlite3_bind_blob64(stmt, 5, body, len, SQLITE_STATIC);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_EVENT_ADD));
		spool->last_id++;
		spool->stats.events++;
	}
	disk->last++;
	disk->dirty = true;
	for (struct tw_spool_target *t = spool->targets; t; t = t->following) {
		if (!wants(t->mask, type))
			continue;
		t->waiting++;
		t->waiting_bytes += len;
	}
	return NULL;
}

static struct tw_error *load_plan(struct tw_spool *spool, struct tw_spool_target *target)
{
	target->nplan = 0;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_BATCH_LIST, 1, target->id);
	for (;;) {
		bool row;
		TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_BATCH_LIST, &row));
		if (!row)
			return NULL;
		if (target->nplan == TW_SPOOL_PLAN)
			return tw_error_create(TW_BAD_DATA, "spool %s plans more than %d batches for a target",
				spool->db.path, TW_SPOOL_PLAN);
		target->plan[target->nplan++] = (struct tw_spool_batch){
			.n = (uint64_t)sqlite3_column_int64(stmt, 0),
			.first = sqlite3_column_int64(stmt, 1),
			.last = sqlite3_column_int64(stmt, 2),
			.mask = (uint64_t)sqlite3_column_int64(stmt, 3),
			.count = (uint64_t)sqlite3_column_int64(stmt, 4),
		};
	}
}

/* Reads the row of target->name and what hangs on it; id is 0 when there is none. */
static struct tw_error *load_target(struct tw_spool *spool, struct tw_spool_target *target)
{
	target->id = 0;
	target->dirty = false;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_TARGET_FIND, 0);
	sqlite3_bind_text(stmt, 1, target->name, -1, SQLITE_STATIC);
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_TARGET_FIND, &row));
	if (!row)
		return NULL;
	target->id = sqlite3_column_int64(stmt, 0);
	snprintf(target->epoch, sizeof(target->epoch), "%s", (const char *)sqlite3_column_text(stmt, 1));
	target->next = (uint64_t)sqlite3_column_int64(stmt, 2);
	target->cursor = sqlite3_column_int64(stmt, 3);
	sqlite3_reset(stmt);
	stmt = tw_spool_db_bind(&spool->db, TW_SQL_EVENT_WAITING, 2, target->cursor, (int64_t)target->mask);
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_EVENT_WAITING, &row));
	target->waiting = (uint64_t)sqlite3_column_int64(stmt, 0);
	target->waiting_bytes = (uint64_t)sqlite3_column_int64(stmt, 1);
	sqlite3_reset(stmt);
	return load_plan(spool, target);
}

static struct tw_error *add_target(struct tw_spool *spool, const char *name)
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return tw_error_errno(errno, "getrandom");
	char epoch[TW_SPOOL_EPOCH_SIZE];
	snprintf(epoch, sizeof(epoch), "%016" PRIx64, random);
	TW_TRY(tw_spool_db_begin(&spool->db));
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_TARGET_ADD, 0);
	sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
	sqlite3_bind_text(stmt, 2, epoch, -1, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 3, spool->last_id);
	return tw_spool_db_run(&spool->db, TW_SQL_TARGET_ADD);
}

struct tw_error *tw_spool_target(struct tw_spool *spool, const char *name, uint64_t mask,
	struct tw_spool_target **out)
{
	TW_AUTO_FREE struct tw_spool_target *target = calloc(1, sizeof(*target));
	if (!target)
		return tw_error_nomem();
	target->mask = mask;
	snprintf(target->name, sizeof(target->name), "%s", name);
	TW_TRY(load_target(spool, target));
	if (!target->id) {
		TW_TRY(add_target(spool, target->name));
		TW_TRY(load_target(spool, target));
	}
	target->following = spool->targets;
	*out = spool->targets = TW_STEAL(target);
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
		TW_TRY(tw_spool_db_begin(&spool->db));
		tw_spool_db_bind(&spool->db, TW_SQL_BATCH_FORGET, 1, id);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_BATCH_FORGET));
		tw_spool_db_bind(&spool->db, TW_SQL_TARGET_DROP, 1, id);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_TARGET_DROP));
		++*forgotten;
	}
}

/* Fills count and last of a batch that begins after the target's cursor. */
static struct tw_error *measure(struct tw_spool *spool, const struct tw_spool_target *target,
	uint64_t max_events, uint64_t max_bytes, struct tw_spool_batch *batch, uint64_t *bytes)
{
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_EVENT_SIZES, 1, target->cursor);
	while (batch->count < max_events) {
		bool row;
		TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_EVENT_SIZES, &row));
		if (!row)
			break;
		if (!wants(target->mask, sqlite3_column_int64(stmt, 1)))
			continue;
		uint64_t size = (uint64_t)sqlite3_column_int64(stmt, 2);
		/* A comma or bracket goes with each event. */
		if (batch->count && *bytes + size + batch->count + 2 > max_bytes)
			break;
		batch->last = sqlite3_column_int64(stmt, 0);
		batch->count++;
		*bytes += size;
	}
	sqlite3_reset(stmt);
	return NULL;
}

struct tw_error *tw_spool_plan(struct tw_spool *spool, struct tw_spool_target *target, uint64_t max_events,
	uint64_t max_bytes)
{
	if (target->nplan == TW_SPOOL_PLAN || !target->waiting)
		return NULL;
	struct tw_spool_batch batch = {
		.n = target->next,
		.first = target->cursor + 1,
		.mask = target->mask,
	};
	uint64_t bytes = 0;
	TW_TRY(measure(spool, target, max_events, max_bytes, &batch, &bytes));
	if (!batch.count)
		return tw_error_create(TW_BAD_DATA, "spool %s lacks %" PRIu64 " events that wait for a target",
			spool->db.path, target->waiting);
	TW_TRY(tw_spool_db_begin(&spool->db));
	tw_spool_db_bind(&spool->db, TW_SQL_BATCH_ADD, 6, target->id, (int64_t)batch.n, batch.first,
		batch.last, (int64_t)batch.mask, (int64_t)batch.count);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_BATCH_ADD));
	target->plan[target->nplan++] = batch;
	target->next++;
	target->cursor = batch.last;
	target->waiting -= batch.count;
	target->waiting_bytes -= bytes;
	target->dirty = true;
	return NULL;
}

struct tw_error *tw_spool_read(struct tw_spool *spool, const struct tw_spool_batch *batch,
	struct tw_buf *out)
{
	sqlite3_stmt *stmt =
		tw_spool_db_bind(&spool->db, TW_SQL_EVENT_BODIES, 2, batch->first, batch->last);
	uint64_t count = 0;
	tw_buf_puts(out, "[");
	for (;;) {
		bool row;
		TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_EVENT_BODIES, &row));
		if (!row)
			break;
		if (!wants(batch->mask, sqlite3_column_int64(stmt, 0)))
			continue;
		if (count++)
			tw_buf_puts(out, ",");
		const void *body = sqlite3_column_blob(stmt, 1);
		tw_buf_append(out, body, (size_t)sqlite3_column_bytes(stmt, 1));
	}
	tw_buf_puts(out, "]");
	if (out->failed)
		return tw_error_nomem();
	if (count != batch->count)
		return tw_error_create(TW_BAD_DATA,
			"spool %s has %" PRIu64 " of the %" PRIu64 " events of batch %" PRIu64, spool->db.path,
			count, batch->count, batch->n);
	return NULL;
}

struct tw_error *tw_spool_acknowledge(struct tw_spool *spool, struct tw_spool_target *target)
{
	if (!target->nplan)
		return NULL;
	TW_TRY(tw_spool_db_begin(&spool->db));
	tw_spool_db_bind(&spool->db, TW_SQL_BATCH_DROP, 2, target->id, (int64_t)target->plan[0].n);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_BATCH_DROP));
	target->nplan--;
	memmove(&target->plan[0], &target->plan[1], target->nplan * sizeof(target->plan[0]));
	return NULL;
}

/* Writes the rows whose values were kept in memory. */
static struct tw_error *write_rows(struct tw_spool *spool)
{
	for (struct tw_spool_disk *disk = spool->disks; disk; disk = disk->next) {
		if (!disk->dirty)
			continue;
		tw_spool_db_bind(&spool->db, TW_SQL_DISK_SET, 2, disk->id, (int64_t)disk->last);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_DISK_SET));
		disk->dirty = false;
	}
	for (struct tw_spool_target *target = spool->targets; target; target = target->following) {
		/* Events that it does not want must not wait for it. */
		if (!target->waiting && target->cursor < spool->last_id) {
			target->cursor = spool->last_id;
			target->dirty = true;
		}
		if (!target->dirty)
			continue;
		tw_spool_db_bind(&spool->db, TW_SQL_TARGET_SET, 3, target->id, (int64_t)target->next,
			target->cursor);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_TARGET_SET));
		target->dirty = false;
	}
	return NULL;
}

/* Deletes the events that every target has acknowledged. */
static struct tw_error *drop_events(struct tw_spool *spool)
{
	int64_t floor = spool->last_id;
	for (const struct tw_spool_target *t = spool->targets; t; t = t->following) {
		int64_t done = t->nplan ? t->plan[0].first - 1 : t->cursor;
		if (done < floor)
			floor = done;
	}
	if (floor <= spool->dropped)
		return NULL;
	tw_spool_db_bind(&spool->db, TW_SQL_EVENT_DROP, 1, floor);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_EVENT_DROP));
	spool->dropped = floor;
	spool->stats.events -= (uint64_t)sqlite3_changes64(spool->db.handle);
	return NULL;
}

bool tw_spool_dirty(const struct tw_spool *spool)
{
	return spool->db.open;
}

struct tw_error *tw_spool_commit(struct tw_spool *spool)
{
	if (!spool->db.open)
		return NULL;
	TW_TRY(write_rows(spool));
	TW_TRY(drop_events(spool));
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_COMMIT));
	spool->db.open = false;
	return measure_file(spool);
}

struct tw_error *tw_spool_rollback(struct tw_spool *spool)
{
	/* Some errors make SQLite roll back by itself. */
	if (!sqlite3_get_autocommit(spool->db.handle))
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_ROLLBACK));
	spool->db.open = false;
	tw_spool_db_checkpoint(&spool->db);
	TW_TRY(load(spool));
	for (struct tw_spool_disk *disk = spool->disks; disk; disk = disk->next)
		TW_TRY(load_disk(spool, disk));
	for (struct tw_spool_target *target = spool->targets; target; target = target->following)
		TW_TRY(load_target(spool, target));
	return NULL;
}

void tw_spool_stats(const struct tw_spool *spool, struct tw_spool_stats *out)
{
	*out = spool->stats;
}
