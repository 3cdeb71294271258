/* SPDX-License-Identifier: BSD-3-Clause */
/* The spool's SQLite file: opening, checking, statements, transactions. Private to the spool. */
#ifndef TW_COURIER_SPOOL_DB_H
#define TW_COURIER_SPOOL_DB_H

#include "base/error.h"
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

enum tw_spool_sql {
	TW_SQL_BEGIN,
	TW_SQL_COMMIT,
	TW_SQL_ROLLBACK,
	TW_SQL_PAGE_COUNT,
	TW_SQL_FREE_COUNT,
	TW_SQL_GIVE_BACK,
	TW_SQL_LAST_ID,
	TW_SQL_WRITTEN,
	TW_SQL_DISK_FIND,
	TW_SQL_DISK_ADD,
	TW_SQL_DISK_SET,
	TW_SQL_DISK_SOURCE,
	TW_SQL_DISK_OF_SOURCE,
	TW_SQL_CHUNK_ADD,
	TW_SQL_CHUNK_AT,
	TW_SQL_CHUNK_SINCE,
	TW_SQL_CHUNK_DROP,
	TW_SQL_CHUNK_DROP_SOME,
	TW_SQL_TARGET_FIND,
	TW_SQL_TARGET_ADD,
	TW_SQL_TARGET_SET,
	TW_SQL_TARGET_IDS,
	TW_SQL_TARGET_DROP,
	TW_SQL_LANE_LIST,
	TW_SQL_LANE_ADD,
	TW_SQL_LANE_SET,
	TW_SQL_LANE_DROP,
	TW_SQL_LANE_FORGET,
	TW_SQL_BATCH_LIST,
	TW_SQL_BATCH_ADD,
	TW_SQL_BATCH_DROP,
	TW_SQL_BATCH_CLEAR,
	TW_SQL_BATCH_FORGET,
	TW_SQL_DEAD_ADD,
	TW_SQL_DEAD_HELD,
	TW_SQL_DEAD_GIVE_UP,
	TW_SQL_DEAD_TAKE_BACK,
	TW_SQL_DEAD_FORGET,
	TW_SQL_DEAD_LIST,
	TW_SQL_DEAD_DROP,
	TW_SQL_DEAD_COUNT,
	TW_SQL_END
};

#define TW_SPOOL_PAGE_BYTES 4096
/* Committed pages go from the WAL to the file when there are so many. */
#define TW_SPOOL_WAL_PAGES 512
/* Pages that go back to the file system at a time. */
#define TW_SPOOL_GIVE_BACK_PAGES 1024
/* The WAL does not grow beyond this: those pages, and a transaction on top. */
#define TW_SPOOL_WAL_BYTES ((TW_SPOOL_WAL_PAGES + 256) * (TW_SPOOL_PAGE_BYTES + 24))

struct tw_spool_db {
	char *path;
	sqlite3 *handle;
	sqlite3_stmt *stmt[TW_SQL_END];
	bool open; /* a transaction is */
};

/* Opens or makes the file; see tw_spool_open(). */
struct tw_error *tw_spool_db_init(struct tw_spool_db *db, const char *path) TW_MUST_CHECK;
void tw_spool_db_deinit(struct tw_spool_db *db);

/* Resets a statement, binds n integers to its parameters 1..n and returns it. */
sqlite3_stmt *tw_spool_db_bind(struct tw_spool_db *db, enum tw_spool_sql sql, int n, ...);
/* Runs a bound statement; rows that it gives are passed over. */
struct tw_error *tw_spool_db_run(struct tw_spool_db *db, enum tw_spool_sql sql) TW_MUST_CHECK;
/* Steps a bound statement: *row tells whether there is one. It is reset after the last row and on error. */
struct tw_error *tw_spool_db_step(struct tw_spool_db *db, enum tw_spool_sql sql, bool *row) TW_MUST_CHECK;
/* Runs a statement without parameters that gives one integer. */
struct tw_error *tw_spool_db_number(struct tw_spool_db *db, enum tw_spool_sql sql, int64_t *out) TW_MUST_CHECK;
/* Bytes that the files will still take for what they hold and for the room that the WAL needs. */
uint64_t tw_spool_db_claim(struct tw_spool_db *db, uint64_t pages);
/* Moves what is committed from the WAL to the file, so that the WAL's room can be used again. Best effort. */
void tw_spool_db_checkpoint(struct tw_spool_db *db);
/* Opens a transaction when none is open. */
struct tw_error *tw_spool_db_begin(struct tw_spool_db *db) TW_MUST_CHECK;
/* Ends it. Without room on the disk for all of it, in the file as well as in the WAL: ENOSPC, and it stays open. */
struct tw_error *tw_spool_db_commit(struct tw_spool_db *db) TW_MUST_CHECK;

#endif
