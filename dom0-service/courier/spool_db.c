/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/spool_db.h"

#include "base/scope.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define VERSION 2
#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)
#define BUSY_MS 2000
#define GROWTH_BYTES (64 << 10)

static const char schema[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE disk (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE, source TEXT NOT NULL,"
	" last INTEGER NOT NULL);"
	/* id is the number of the chunk's last event. */
	"CREATE TABLE chunk (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, disk INTEGER NOT NULL,"
	" only INTEGER NOT NULL,"
	" sequence_first INTEGER NOT NULL, sequence_last INTEGER NOT NULL, time INTEGER NOT NULL,"
	" start INTEGER NOT NULL, events_coding INTEGER NOT NULL, events BLOB NOT NULL,"
	" body_coding INTEGER NOT NULL, body BLOB NOT NULL);"
	"CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
	" suspended INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0,"
	" refused INTEGER NOT NULL DEFAULT 0, loss_event INTEGER NOT NULL DEFAULT 0, loss BLOB);"
	"CREATE TABLE lane (id INTEGER PRIMARY KEY, target INTEGER NOT NULL, lane INTEGER NOT NULL,"
	" epoch TEXT NOT NULL, next INTEGER NOT NULL, acked INTEGER NOT NULL, cursor INTEGER NOT NULL,"
	" UNIQUE (target, lane));"
	"CREATE TABLE batch (lane INTEGER NOT NULL, n INTEGER NOT NULL, first INTEGER NOT NULL,"
	" last INTEGER NOT NULL, count INTEGER NOT NULL, bytes INTEGER NOT NULL, runs BLOB NOT NULL,"
	" PRIMARY KEY (lane, n)) WITHOUT ROWID;"
	"CREATE TABLE dead (id INTEGER PRIMARY KEY, target INTEGER NOT NULL, lane INTEGER NOT NULL,"
	" held INTEGER NOT NULL, event INTEGER NOT NULL, time INTEGER NOT NULL, status INTEGER NOT NULL,"
	" answer TEXT NOT NULL, type INTEGER NOT NULL, body BLOB NOT NULL);"
	"CREATE INDEX dead_lane ON dead (lane, held);"
	"PRAGMA application_id = 0x54575350;" /* "TWSP" */
	"PRAGMA user_version = " STRING(VERSION) ";"
	"COMMIT;";

#define CHUNK_COLUMNS                                                                                        \
	"id, count, disk, sequence_first, sequence_last, time, start, events_coding, events, body_coding, body, only"

static const char *const sql_text[TW_SQL_END] = {
	[TW_SQL_BEGIN] = "BEGIN IMMEDIATE",
	[TW_SQL_COMMIT] = "COMMIT",
	[TW_SQL_ROLLBACK] = "ROLLBACK",
	[TW_SQL_PAGE_COUNT] = "PRAGMA page_count",
	[TW_SQL_FREE_COUNT] = "PRAGMA freelist_count",
	[TW_SQL_GIVE_BACK] = "PRAGMA incremental_vacuum(" STRING(TW_SPOOL_GIVE_BACK_PAGES) ")",
	[TW_SQL_LAST_ID] = "SELECT max(ifnull((SELECT max(id) FROM chunk), 0),"
			   " ifnull((SELECT max(cursor) FROM lane), 0),"
			   " ifnull((SELECT max(last) FROM batch), 0),"
			   " ifnull((SELECT max(event) FROM dead), 0))",
	[TW_SQL_WRITTEN] = "SELECT start FROM chunk ORDER BY id DESC LIMIT 1",
	[TW_SQL_DISK_FIND] = "SELECT id, last, source FROM disk WHERE epoch = ?1",
	[TW_SQL_DISK_ADD] = "INSERT INTO disk (epoch, source, last) VALUES (?1, ?2, 0)",
	[TW_SQL_DISK_SET] = "UPDATE disk SET last = ?2 WHERE id = ?1",
	[TW_SQL_DISK_SOURCE] = "SELECT epoch, source FROM disk WHERE id = ?1",
	[TW_SQL_CHUNK_ADD] = "INSERT INTO chunk (" CHUNK_COLUMNS ")"
			     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
	[TW_SQL_CHUNK_AT] = "SELECT " CHUNK_COLUMNS " FROM chunk WHERE id >= ?1 ORDER BY id LIMIT 1",
	[TW_SQL_CHUNK_SINCE] = "SELECT id, count FROM chunk WHERE time >= ?1 ORDER BY id LIMIT 1",
	/* The rows are in the order of their time, so the search ends at the first that is young. */
	[TW_SQL_CHUNK_DROP] = "DELETE FROM chunk WHERE id <= min(?1, ifnull((SELECT id - count FROM chunk"
			      " WHERE time >= ?2 ORDER BY id LIMIT 1), ?1))",
	[TW_SQL_CHUNK_DROP_SOME] = "DELETE FROM chunk WHERE id IN"
				   " (SELECT id FROM chunk WHERE id <= ?1 ORDER BY id LIMIT 256)",
	[TW_SQL_DISK_OF_SOURCE] = "SELECT epoch FROM disk WHERE source = ?1 ORDER BY id DESC LIMIT 1",
	[TW_SQL_TARGET_FIND] = "SELECT id, suspended, dropped, refused, loss_event, loss FROM target WHERE name = ?1",
	[TW_SQL_TARGET_ADD] = "INSERT INTO target (name) VALUES (?1)",
	[TW_SQL_TARGET_SET] = "UPDATE target SET suspended = ?2, dropped = ?3, refused = ?4, loss_event = ?5, loss = ?6"
			     " WHERE id = ?1",
	[TW_SQL_TARGET_IDS] = "SELECT id FROM target",
	[TW_SQL_TARGET_DROP] = "DELETE FROM target WHERE id = ?1",
	[TW_SQL_LANE_LIST] = "SELECT id, epoch, next, acked, cursor, lane FROM lane WHERE target = ?1 ORDER BY lane",
	[TW_SQL_LANE_ADD] = "INSERT INTO lane (target, lane, epoch, next, acked, cursor)"
			    " VALUES (?1, ?2, ?4, 1, 0, ?3)",
	[TW_SQL_LANE_SET] = "UPDATE lane SET next = ?2, acked = ?3, cursor = ?4 WHERE id = ?1",
	[TW_SQL_LANE_DROP] = "DELETE FROM lane WHERE id = ?1",
	[TW_SQL_LANE_FORGET] = "DELETE FROM lane WHERE target = ?1",
	[TW_SQL_BATCH_LIST] = "SELECT n, first, last, count, bytes, runs FROM batch WHERE lane = ?1 ORDER BY n",
	[TW_SQL_BATCH_ADD] = "INSERT INTO batch (lane, n, first, last, count, bytes, runs)"
			     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	[TW_SQL_BATCH_DROP] = "DELETE FROM batch WHERE lane = ?1 AND n = ?2",
	[TW_SQL_BATCH_CLEAR] = "DELETE FROM batch WHERE lane = ?1",
	[TW_SQL_BATCH_FORGET] = "DELETE FROM batch WHERE lane IN (SELECT id FROM lane WHERE target = ?1)",
	[TW_SQL_DEAD_ADD] = "INSERT INTO dead (target, lane, held, event, time, status, type, answer, body)"
			    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
	[TW_SQL_DEAD_HELD] = "SELECT count(*), min(event) FROM dead WHERE lane = ?1 AND held = 1",
	[TW_SQL_DEAD_GIVE_UP] = "UPDATE dead SET held = 0 WHERE lane = ?1 AND held = 1",
	[TW_SQL_DEAD_TAKE_BACK] = "DELETE FROM dead WHERE lane = ?1 AND held = 1",
	[TW_SQL_DEAD_FORGET] = "DELETE FROM dead WHERE target = ?1",
	[TW_SQL_DEAD_LIST] = "SELECT dead.id, target.name, time, status, answer, type, body, target.id FROM dead"
			     " JOIN target ON target.id = dead.target WHERE held = 0 AND dead.id > ?1"
			     " AND (?2 = 0 OR target.id = ?2) ORDER BY dead.id LIMIT ?3",
	[TW_SQL_DEAD_DROP] = "DELETE FROM dead WHERE id = ?1 AND held = 0",
	[TW_SQL_DEAD_COUNT] = "SELECT count(*) FROM dead WHERE held = 0",
};

/* SQLite's last error in our terms: a full disk is ENOSPC, a damaged file is bad data. */
static struct tw_error *db_error(struct tw_spool_db *db)
{
	int rc = sqlite3_extended_errcode(db->handle);
	int errnum = sqlite3_system_errno(db->handle);
	const char *text = sqlite3_errmsg(db->handle);
	switch (rc & 0xff) {
	case SQLITE_NOMEM:
		return tw_error_nomem();
	case SQLITE_FULL:
		return tw_error_errno(ENOSPC, "spool %s", db->path);
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
		return tw_error_errno(errnum ? errnum : EIO, "spool %s: %s", db->path, text);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return tw_error_create(TW_BAD_DATA,
			"spool %s is damaged (%s)", db->path, text);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return tw_error_create(TW_UNAVAILABLE, "spool %s is in use by another courier", db->path);
	default:
		return tw_error_create(TW_IO, "spool %s: %s", db->path, text);
	}
}

static struct tw_error *exec(struct tw_spool_db *db, const char *sql)
{
	return sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK ? NULL : db_error(db);
}

/* First column of the first row, as a string that the caller frees. */
static struct tw_error *query(struct tw_spool_db *db, const char *sql, char **out)
{
	sqlite3_stmt *stmt = NULL;
	if (sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL) != SQLITE_OK)
		return db_error(db);
	struct tw_error *err = NULL;
	if (sqlite3_step(stmt) != SQLITE_ROW)
		err = db_error(db);
	const char *text = err ? NULL : (const char *)sqlite3_column_text(stmt, 0);
	if (!err && (!text || !(*out = strdup(text))))
		err = tw_error_nomem();
	sqlite3_finalize(stmt);
	return err;
}

static struct tw_error *check_version(struct tw_spool_db *db)
{
	TW_AUTO_FREE char *version = NULL;
	TW_AUTO_FREE char *tables = NULL;
	TW_AUTO_FREE char *health = NULL;
	TW_TRY(query(db, "PRAGMA user_version", &version));
	TW_TRY(query(db, "SELECT count(*) FROM sqlite_schema", &tables));
	if (strcmp(version, "0") == 0 && strcmp(tables, "0") == 0)
		return exec(db, schema);
	if (atoi(version) != VERSION)
		return tw_error_create(TW_UNSUPPORTED, "spool %s has version %s, expected %d", db->path, version,
			VERSION);
	TW_TRY(query(db, "PRAGMA quick_check(1)", &health));
	if (strcmp(health, "ok") != 0)
		return tw_error_create(TW_BAD_DATA,
			"spool %s is damaged (%s)", db->path, health);
	return NULL;
}

/* The WAL gets its room at once, so that what is delivered can be recorded on a disk that is full. Best effort:
 * tw_spool_db_claim() counts what is missing. */
static void reserve_wal(struct tw_spool_db *db)
{
	sqlite3_file *wal = NULL;
	sqlite3_int64 bytes = TW_SPOOL_WAL_BYTES;
	sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
	if (!wal || !wal->pMethods)
		return;
	wal->pMethods->xFileControl(wal, SQLITE_FCNTL_CHUNK_SIZE, &(int){ GROWTH_BYTES });
	wal->pMethods->xFileControl(wal, SQLITE_FCNTL_SIZE_HINT, &bytes);
}

static struct tw_error *open_file(struct tw_spool_db *db, const char *path)
{
	db->path = strdup(path);
	if (!db->path)
		return tw_error_nomem();
	/* Events name a guest's files: nobody else's business. */
	mode_t mask = umask(0077);
	int rc = sqlite3_open_v2(path, &db->handle,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	struct tw_error *err = NULL;
	if (!db->handle)
		err = tw_error_nomem();
	else if (rc != SQLITE_OK)
		err = db_error(db);
	if (!err) {
		sqlite3_extended_result_codes(db->handle, 1);
		sqlite3_busy_timeout(db->handle, BUSY_MS);
		/* With it, a hint of the size makes the file so large. */
		sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_CHUNK_SIZE, &(int){ GROWTH_BYTES });
		/* To say it again to a file that has it is a write. */
		struct stat st;
		if (stat(path, &st) == 0 && st.st_size == 0)
			sqlite3_exec(db->handle, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
		/* Exclusive: one courier a spool, and the WAL's index needs no shared memory. */
		err = exec(db, "PRAGMA page_size = " STRING(TW_SPOOL_PAGE_BYTES) ";"
			       "PRAGMA wal_autocheckpoint = " STRING(TW_SPOOL_WAL_PAGES) ";"
			       "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
			       "PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;"
			       /* A journal of a statement would go to a disk that may be full. */
			       "PRAGMA temp_store = MEMORY;"
			       "BEGIN IMMEDIATE; COMMIT;");
	}
	if (!err)
		reserve_wal(db);
	umask(mask);
	return err;
}

struct tw_error *tw_spool_db_init(struct tw_spool_db *db, const char *path)
{
	*db = (struct tw_spool_db){ 0 };
	TW_TRY(open_file(db, path));
	TW_TRY(check_version(db));
	for (int i = 0; i < TW_SQL_END; i++)
		if (sqlite3_prepare_v3(db->handle, sql_text[i], -1, SQLITE_PREPARE_PERSISTENT, &db->stmt[i],
			    NULL) != SQLITE_OK)
			return tw_error_context(db_error(db), "%s", sql_text[i]);
	return NULL;
}

void tw_spool_db_deinit(struct tw_spool_db *db)
{
	for (int i = 0; i < TW_SQL_END; i++)
		sqlite3_finalize(db->stmt[i]);
	sqlite3_close(db->handle);
	free(db->path);
	*db = (struct tw_spool_db){ 0 };
}

sqlite3_stmt *tw_spool_db_bind(struct tw_spool_db *db, enum tw_spool_sql sql, int n, ...)
{
	sqlite3_stmt *stmt = db->stmt[sql];
	sqlite3_reset(stmt);
	va_list ap;
	va_start(ap, n);
	for (int i = 1; i <= n; i++)
		sqlite3_bind_int64(stmt, i, va_arg(ap, int64_t));
	va_end(ap);
	return stmt;
}

struct tw_error *tw_spool_db_step(struct tw_spool_db *db, enum tw_spool_sql sql, bool *row)
{
	int rc = sqlite3_step(db->stmt[sql]);
	*row = rc == SQLITE_ROW;
	if (rc == SQLITE_ROW)
		return NULL;
	struct tw_error *err = rc == SQLITE_DONE ? NULL : db_error(db);
	sqlite3_reset(db->stmt[sql]);
	return err;
}

struct tw_error *tw_spool_db_run(struct tw_spool_db *db, enum tw_spool_sql sql)
{
	bool row = true;
	struct tw_error *err = NULL;
	while (!err && row)
		err = tw_spool_db_step(db, sql, &row);
	sqlite3_reset(db->stmt[sql]);
	return err;
}

struct tw_error *tw_spool_db_number(struct tw_spool_db *db, enum tw_spool_sql sql, int64_t *out)
{
	bool row = false;
	TW_TRY(tw_spool_db_step(db, sql, &row));
	*out = row ? sqlite3_column_int64(db->stmt[sql], 0) : 0;
	sqlite3_reset(db->stmt[sql]);
	return NULL;
}

static uint64_t file_bytes(const char *path, const char *suffix)
{
	char name[4096];
	struct stat st;
	snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) == 0 ? (uint64_t)st.st_size : 0;
}

uint64_t tw_spool_db_claim(struct tw_spool_db *db, uint64_t pages)
{
	uint64_t file = file_bytes(db->path, "");
	uint64_t wal = file_bytes(db->path, "-wal");
	uint64_t claim = 0;
	if (pages * TW_SPOOL_PAGE_BYTES > file)
		claim += pages * TW_SPOOL_PAGE_BYTES - file;
	if (TW_SPOOL_WAL_BYTES > wal)
		claim += TW_SPOOL_WAL_BYTES - wal;
	return claim;
}

void tw_spool_db_checkpoint(struct tw_spool_db *db)
{
	sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
}

/* SQLite writes a commit to its log first. A log on a disk that has no room for what the file grows by can
 * neither be emptied into it nor be begun anew, for ever. */
static struct tw_error *reserve(struct tw_spool_db *db)
{
	int64_t pages;
	TW_TRY(tw_spool_db_number(db, TW_SQL_PAGE_COUNT, &pages));
	sqlite3_int64 bytes = pages * TW_SPOOL_PAGE_BYTES;
	int rc = sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_SIZE_HINT, &bytes);
	return rc == SQLITE_OK || rc == SQLITE_NOTFOUND ? NULL : tw_error_errno(ENOSPC, "spool %s", db->path);
}

struct tw_error *tw_spool_db_commit(struct tw_spool_db *db)
{
	TW_TRY(reserve(db));
	TW_TRY(tw_spool_db_run(db, TW_SQL_COMMIT));
	db->open = false;
	return NULL;
}

struct tw_error *tw_spool_db_begin(struct tw_spool_db *db)
{
	if (db->open)
		return NULL;
	TW_TRY(tw_spool_db_run(db, TW_SQL_BEGIN));
	db->open = true;
	return NULL;
}
