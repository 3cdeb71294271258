/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/spool_db.h"

#include "base/scope.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define VERSION 1
#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)
#define BUSY_MS 2000

static const char schema[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE disk (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE, source TEXT NOT NULL,"
	" last INTEGER NOT NULL);"
	"CREATE TABLE event (id INTEGER PRIMARY KEY, disk INTEGER NOT NULL, sequence INTEGER NOT NULL,"
	" type INTEGER NOT NULL, body BLOB NOT NULL);"
	"CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,"
	" next INTEGER NOT NULL, cursor INTEGER NOT NULL);"
	"CREATE TABLE batch (target INTEGER NOT NULL, n INTEGER NOT NULL, first INTEGER NOT NULL,"
	" last INTEGER NOT NULL, mask INTEGER NOT NULL, count INTEGER NOT NULL,"
	" PRIMARY KEY (target, n)) WITHOUT ROWID;"
	"PRAGMA application_id = 0x54575350;" /* "TWSP" */
	"PRAGMA user_version = 1;"
	"COMMIT;";

static const char *const sql_text[TW_SQL_END] = {
	[TW_SQL_BEGIN] = "BEGIN IMMEDIATE",
	[TW_SQL_COMMIT] = "COMMIT",
	[TW_SQL_ROLLBACK] = "ROLLBACK",
	[TW_SQL_PAGE_COUNT] = "PRAGMA page_count",
	[TW_SQL_FREE_COUNT] = "PRAGMA freelist_count",
	[TW_SQL_LAST_ID] = "SELECT max(ifnull((SELECT max(id) FROM event), 0),"
			   " ifnull((SELECT max(cursor) FROM target), 0),"
			   " ifnull((SELECT max(last) FROM batch), 0))",
	[TW_SQL_EVENT_COUNT] = "SELECT count(*) FROM event",
	[TW_SQL_DISK_FIND] = "SELECT id, last, source FROM disk WHERE epoch = ?1",
	[TW_SQL_DISK_ADD] = "INSERT INTO disk (epoch, source, last) VALUES (?1, ?2, 0)",
	[TW_SQL_DISK_SET] = "UPDATE disk SET last = ?2 WHERE id = ?1",
	[TW_SQL_EVENT_ADD] = "INSERT INTO event (id, disk, sequence, type, body) VALUES (?1, ?2, ?3, ?4, ?5)",
	[TW_SQL_EVENT_SIZES] = "SELECT id, type, length(body) FROM event WHERE id > ?1 ORDER BY id",
	[TW_SQL_EVENT_BODIES] = "SELECT type, body FROM event WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
	[TW_SQL_EVENT_WAITING] = "SELECT count(*), ifnull(sum(length(body)), 0) FROM event"
				 " WHERE id > ?1 AND (?2 >> type) & 1",
	[TW_SQL_EVENT_DROP] = "DELETE FROM event WHERE id <= ?1",
	[TW_SQL_TARGET_FIND] = "SELECT id, epoch, next, cursor FROM target WHERE name = ?1",
	[TW_SQL_TARGET_ADD] = "INSERT INTO target (name, epoch, next, cursor) VALUES (?1, ?2, 1, ?3)",
	[TW_SQL_TARGET_SET] = "UPDATE target SET next = ?2, cursor = ?3 WHERE id = ?1",
	[TW_SQL_TARGET_IDS] = "SELECT id FROM target",
	[TW_SQL_TARGET_DROP] = "DELETE FROM target WHERE id = ?1",
	[TW_SQL_BATCH_LIST] = "SELECT n, first, last, mask, count FROM batch WHERE target = ?1 ORDER BY n",
	[TW_SQL_BATCH_ADD] = "INSERT INTO batch (target, n, first, last, mask, count)"
			     " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	[TW_SQL_BATCH_DROP] = "DELETE FROM batch WHERE target = ?1 AND n = ?2",
	[TW_SQL_BATCH_FORGET] = "DELETE FROM batch WHERE target = ?1",
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
			"spool %s is damaged (%s); it is left as it is: move it away to start anew", db->path, text);
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
			"spool %s is damaged (%s); it is left as it is: move it away to start anew", db->path, health);
	return NULL;
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
		/* Exclusive: one courier a spool, and the WAL's index needs no shared memory. */
		err = exec(db, "PRAGMA page_size = " STRING(TW_SPOOL_PAGE_BYTES) ";"
			       "PRAGMA wal_autocheckpoint = " STRING(TW_SPOOL_WAL_PAGES) ";"
			       "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
			       "PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;"
			       "BEGIN IMMEDIATE; COMMIT;");
	}
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
	bool row;
	struct tw_error *err = tw_spool_db_step(db, sql, &row);
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

struct tw_error *tw_spool_db_begin(struct tw_spool_db *db)
{
	if (db->open)
		return NULL;
	TW_TRY(tw_spool_db_run(db, TW_SQL_BEGIN));
	db->open = true;
	return NULL;
}
