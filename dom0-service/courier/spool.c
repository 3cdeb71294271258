/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/spool_inside.h"

#include "base/scope.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* Free space that events may not take: what is delivered must still be recorded. */
#define RESERVE_BYTES (16ull << 20)
#define RESERVE_SHARE 8 /* of a small file system, one part in this many */
/* Room that no event takes goes back to the file system when it is more than this and half of the file. */
#define MAKE_ROOM_STEPS 64
#define SPARE_PAGES (16u << 20) / TW_SPOOL_PAGE_BYTES

struct tw_error *tw_spool_random(char out[TW_SPOOL_EPOCH_SIZE])
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return tw_error_errno(errno, "getrandom");
	snprintf(out, TW_SPOOL_EPOCH_SIZE, "%016" PRIx64, random);
	return NULL;
}

int64_t tw_spool_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static struct tw_error *measure_file(struct tw_spool *spool)
{
	int64_t pages;
	int64_t unused;
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_PAGE_COUNT, &pages));
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_FREE_COUNT, &unused));
	spool->pages = (uint64_t)pages;
	spool->unused = (uint64_t)unused;
	return NULL;
}

/* Reads the counters that live in memory between commits. */
static struct tw_error *load(struct tw_spool *spool)
{
	int64_t written;
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_LAST_ID, &spool->last_id));
	TW_TRY(tw_spool_db_number(&spool->db, TW_SQL_WRITTEN, &written));
	spool->dropped = 0;
	spool->written = (uint64_t)written;
	struct tw_chunk *last;
	TW_TRY(tw_spool_chunk_at(spool, spool->last_id, &last));
	if (last)
		spool->written = last->start + last->text.len;
	return measure_file(spool);
}

static struct tw_error *open_spool(struct tw_spool *spool, const char *path)
{
	spool->coder = tw_chunk_coder_create();
	if (!spool->coder)
		return tw_error_nomem();
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

static void free_disk(struct tw_spool_disk *disk)
{
	tw_chunk_destroy(disk->open);
	free(disk->epoch);
	free(disk->source);
	free(disk);
}

struct tw_error *tw_spool_set_aside(const char *path, char **out)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	char stamp[32];
	time_t now = time(NULL);
	struct tm utc;
	gmtime_r(&now, &utc);
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &utc);
	TW_AUTO_FREE char *aside = NULL;
	for (int n = 0;; n++) {
		free(TW_STEAL(aside));
		if (asprintf(&aside, n ? "%s.damaged-%s-%d" : "%s.damaged-%s", path, stamp, n) < 0) {
			aside = NULL;
			return tw_error_nomem();
		}
		if (access(aside, F_OK) < 0)
			break;
	}
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		char from[4096];
		char to[4096];
		snprintf(from, sizeof(from), "%s%s", path, suffixes[i]);
		snprintf(to, sizeof(to), "%s%s", aside, suffixes[i]);
		if (rename(from, to) < 0 && errno != ENOENT)
			return tw_error_errno(errno, "%s", from);
	}
	*out = TW_STEAL(aside);
	return NULL;
}

void tw_spool_close(struct tw_spool *spool)
{
	if (!spool)
		return;
	tw_spool_db_deinit(&spool->db);
	tw_spool_cache_deinit(&spool->cache);
	tw_chunk_coder_destroy(spool->coder);
	tw_spool_free_targets(spool);
	tw_buf_deinit(&spool->coded);
	tw_buf_deinit(&spool->coded_index);
	for (struct tw_spool_disk *disk = spool->disks; disk;) {
		struct tw_spool_disk *next = disk->next;
		free_disk(disk);
		disk = next;
	}
	free(spool);
}

void tw_spool_set_limits(struct tw_spool *spool, uint64_t max_bytes, uint64_t keep_ms)
{
	spool->max_bytes = max_bytes;
	spool->keep_ms = keep_ms;
}

const char *tw_spool_path(const struct tw_spool *spool)
{
	return spool->db.path;
}

static uint64_t used_bytes(const struct tw_spool *spool)
{
	return (spool->pages - spool->unused) * TW_SPOOL_PAGE_BYTES;
}

bool tw_spool_has_room(struct tw_spool *spool)
{
	if (used_bytes(spool) >= spool->max_bytes)
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
		free_disk(disk);
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

/* Brings a disk of the file into memory. */
static struct tw_spool_disk *recall_disk(struct tw_spool *spool, int64_t id)
{
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_DISK_SOURCE, 1, id);
	bool row = false;
	struct tw_spool_disk *disk = NULL;
	struct tw_error *err = tw_spool_db_step(&spool->db, TW_SQL_DISK_SOURCE, &row);
	if (!err && row)
		err = remember_disk(spool, (const char *)sqlite3_column_text(stmt, 0),
			(const char *)sqlite3_column_text(stmt, 1), &disk);
	sqlite3_reset(stmt);
	tw_error_destroy(err);
	return disk;
}

const struct tw_spool_disk *tw_spool_find_disk(struct tw_spool *spool, int64_t id)
{
	for (const struct tw_spool_disk *disk = spool->disks; disk; disk = disk->next)
		if (disk->id == id)
			return disk;
	return recall_disk(spool, id);
}

const char *tw_spool_source(struct tw_spool *spool, int64_t id)
{
	const struct tw_spool_disk *disk = tw_spool_find_disk(spool, id);
	return disk ? disk->source : "";
}

struct tw_error *tw_spool_seal_chunk(struct tw_spool *spool, struct tw_chunk *chunk)
{
	const void *index;
	const void *text;
	size_t index_len;
	size_t text_len;
	chunk->first = spool->last_id + 1;
	chunk->time_ms = tw_spool_now_ms();
	chunk->start = spool->written;
	int index_coding = tw_chunk_code(spool->coder, &chunk->index, &spool->coded_index, &index, &index_len);
	int coding = tw_chunk_code(spool->coder, &chunk->text, &spool->coded, &text, &text_len);
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_CHUNK_ADD, 8, spool->last_id + chunk->n,
		(int64_t)chunk->n, chunk->disk, (int64_t)chunk->sequence_first, (int64_t)chunk->sequence_last,
		chunk->time_ms, (int64_t)chunk->start, (int64_t)index_coding);
	sqlite3_bind_blob64(stmt, 9, index, index_len, SQLITE_STATIC);
	sqlite3_bind_int(stmt, 10, coding);
	sqlite3_bind_blob64(stmt, 11, text, text_len, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 12, chunk->only);
	struct tw_error *err = tw_spool_db_run(&spool->db, TW_SQL_CHUNK_ADD);
	if (err) {
		tw_chunk_destroy(chunk);
		return err;
	}
	spool->last_id += chunk->n;
	spool->written += chunk->text.len;
	return tw_spool_cache_add(spool, chunk);
}

struct tw_error *tw_spool_seal(struct tw_spool *spool)
{
	while (spool->open) {
		struct tw_spool_disk *disk = spool->open;
		spool->open = disk->next_open;
		disk->open->disk = disk->id;
		TW_TRY(tw_spool_seal_chunk(spool, TW_STEAL(disk->open)));
	}
	return NULL;
}

/* The chunk that takes the disk's next event. */
static struct tw_error *open_chunk(struct tw_spool *spool, struct tw_spool_disk *disk, size_t len)
{
	if (disk->open && disk->open->text.len + len > TW_CHUNK_BYTES)
		TW_TRY(tw_spool_seal(spool));
	if (disk->open)
		return NULL;
	disk->open = tw_chunk_create();
	if (!disk->open)
		return tw_error_nomem();
	disk->next_open = spool->open;
	spool->open = disk;
	return NULL;
}

struct tw_error *tw_spool_skip(struct tw_spool *spool, struct tw_spool_disk *disk, uint64_t sequence)
{
	TW_TRY(tw_spool_db_begin(&spool->db));
	disk->last = sequence;
	disk->dirty = true;
	return NULL;
}

struct tw_error *tw_spool_store(struct tw_spool *spool, struct tw_spool_disk *disk, unsigned int type,
	const char *body, size_t len)
{
	TW_TRY(tw_spool_db_begin(&spool->db));
	if (spool->wanted >> type & 1) {
		TW_TRY(open_chunk(spool, disk, len));
		if (!tw_chunk_add(disk->open, type, disk->last + 1, body, len))
			return tw_error_nomem();
	}
	disk->last++;
	disk->dirty = true;
	return NULL;
}

/* --- the transaction --- */

static struct tw_error *write_disks(struct tw_spool *spool)
{
	for (struct tw_spool_disk *disk = spool->disks; disk; disk = disk->next) {
		if (!disk->dirty)
			continue;
		tw_spool_db_bind(&spool->db, TW_SQL_DISK_SET, 2, disk->id, (int64_t)disk->last);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_DISK_SET));
		disk->dirty = false;
	}
	return NULL;
}

int64_t tw_spool_floor(const struct tw_spool *spool)
{
	int64_t floor = spool->last_id;
	for (const struct tw_spool_target *t = spool->targets; t; t = t->following) {
		for (unsigned int i = 0; i < t->nlanes; i++) {
			const struct tw_spool_lane *lane = t->lanes[i];
			int64_t done = lane->nplan ? lane->plan[0].picks.first - 1 : lane->stored_cursor;
			if (lane->held && lane->held_first - 1 < done)
				done = lane->held_first - 1;
			if (done < floor)
				floor = done;
		}
	}
	return floor;
}

/* When room is needed, what is only kept goes, the oldest first. What this transaction stored counts. */
static struct tw_error *make_room(struct tw_spool *spool, int64_t floor)
{
	TW_TRY(measure_file(spool));
	for (int i = 0; i < MAKE_ROOM_STEPS && !tw_spool_has_room(spool); i++) {
		tw_spool_db_bind(&spool->db, TW_SQL_CHUNK_DROP_SOME, 1, floor);
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_CHUNK_DROP_SOME));
		if (!sqlite3_changes64(spool->db.handle))
			break;
		TW_TRY(measure_file(spool));
	}
	return NULL;
}

/* Deletes chunks that nobody waits for: those that are old enough, and more when room is needed. */
static struct tw_error *drop_chunks(struct tw_spool *spool)
{
	int64_t floor = tw_spool_floor(spool);
	if (!spool->keep_ms && floor <= spool->dropped)
		return NULL;
	int64_t until = spool->keep_ms ? tw_spool_now_ms() - (int64_t)spool->keep_ms : INT64_MAX;
	tw_spool_db_bind(&spool->db, TW_SQL_CHUNK_DROP, 2, floor, until);
	TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_CHUNK_DROP));
	spool->dropped = floor;
	return spool->keep_ms ? make_room(spool, floor) : NULL;
}

static struct tw_error *give_back(struct tw_spool *spool)
{
	if (spool->unused <= SPARE_PAGES || spool->unused < spool->pages / 2)
		return NULL;
	spool->untidy = true; /* a part at a time */
	return tw_spool_db_run(&spool->db, TW_SQL_GIVE_BACK);
}

bool tw_spool_dirty(const struct tw_spool *spool)
{
	return spool->db.open;
}

bool tw_spool_untidy(const struct tw_spool *spool)
{
	return spool->untidy || spool->db.open;
}

struct tw_error *tw_spool_commit(struct tw_spool *spool, bool tidy)
{
	if (tidy)
		TW_TRY(tw_spool_db_begin(&spool->db));
	if (!spool->db.open)
		return NULL;
	TW_TRY(tw_spool_seal(spool));
	TW_TRY(write_disks(spool));
	TW_TRY(tw_spool_write_targets(spool, tidy));
	spool->untidy = !tidy;
	if (tidy) {
		TW_TRY(drop_chunks(spool));
		TW_TRY(give_back(spool));
	} else if (spool->keep_ms) {
		TW_TRY(make_room(spool, tw_spool_floor(spool)));
	}
	TW_TRY(tw_spool_db_commit(&spool->db));
	return measure_file(spool);
}

static void drop_open(struct tw_spool *spool)
{
	for (; spool->open; spool->open = spool->open->next_open) {
		tw_chunk_destroy(spool->open->open);
		spool->open->open = NULL;
	}
}

struct tw_error *tw_spool_rollback(struct tw_spool *spool)
{
	/* Some errors make SQLite roll back by itself. */
	if (!sqlite3_get_autocommit(spool->db.handle))
		TW_TRY(tw_spool_db_run(&spool->db, TW_SQL_ROLLBACK));
	spool->db.open = false;
	tw_spool_db_checkpoint(&spool->db);
	drop_open(spool);
	tw_spool_cache_cut(&spool->cache, -1);
	TW_TRY(load(spool));
	for (struct tw_spool_disk *disk = spool->disks; disk; disk = disk->next)
		TW_TRY(load_disk(spool, disk));
	for (struct tw_spool_target *target = spool->targets; target; target = target->following) {
		TW_TRY(tw_spool_load_target(spool, target));
		if (!target->id)
			TW_TRY(tw_spool_add_target(spool, target));
	}
	return NULL;
}

bool tw_spool_waits(const struct tw_spool *spool)
{
	return spool->last_id > tw_spool_floor(spool);
}

void tw_spool_stats(struct tw_spool *spool, struct tw_spool_stats *out)
{
	int64_t dead = 0;
	struct tw_error *err = tw_spool_db_number(&spool->db, TW_SQL_DEAD_COUNT, &dead);
	tw_error_destroy(err);
	*out = (struct tw_spool_stats){
		.events = (uint64_t)(spool->last_id - tw_spool_floor(spool)),
		.bytes = used_bytes(spool),
		.file_bytes = spool->pages * TW_SPOOL_PAGE_BYTES,
		.dead = (uint64_t)dead,
	};
}
