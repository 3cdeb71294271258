/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an event costs that is encoded and inserted into SQLite, a row of its own, in transactions as durable as the
 * spool's. Prints processor seconds and bytes, both of an event.
 *
 *   shippers_insert FILE EVENTS A_TRANSACTION
 */
#include "event/encode.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static const struct tw_disk_id disk = {
	.host = "bench",
	.domain_uuid = "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
	.domain_name = "guest",
	.domid = 7,
	.vdev = "xvda",
	.epoch = "bench",
};

static void must(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "shippers_insert: %s\n", what);
		exit(1);
	}
}

static void run(sqlite3 *db, const char *sql)
{
	must(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, sql);
}

static double cpu(void)
{
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
	       + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void encode(struct tw_encoder *encoder, unsigned long n, struct tw_buf *out)
{
	char path[32];
	int len = snprintf(path, sizeof(path), "/var/log/file-%lu", n % 1000);
	struct tw_time now = {1795906800, (uint32_t)n};
	struct tw_event event = {
		.type = TW_EVENT_FILE_MODIFIED,
		.sequence = n,
		.volume = "3f0c9a52-0000-4000-8000-000000000001",
		.time = now,
		.observed = now,
		.path = {path, (size_t)len},
		.kind = TW_KIND_FILE,
		.inode = 12 + n % 1000,
		.generation = 7,
		.size = n,
		.mode = 0644,
		.nlink = 1,
		.mtime = now,
		.ctime = now,
		.transaction = (uint32_t)n,
	};
	tw_buf_reset(out);
	must(!tw_encode_event(encoder, &event, out) && !out->failed, "encoding");
}

int main(int argc, char **argv)
{
	must(argc == 4, "FILE EVENTS A_TRANSACTION");
	unsigned long events = strtoul(argv[2], NULL, 10);
	unsigned long together = strtoul(argv[3], NULL, 10);
	sqlite3 *db;
	sqlite3_stmt *insert;
	must(events && together && sqlite3_open(argv[1], &db) == SQLITE_OK, argv[1]);
	run(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
		"CREATE TABLE event (id INTEGER PRIMARY KEY, body BLOB)");
	must(sqlite3_prepare_v2(db, "INSERT INTO event (body) VALUES (?)", -1, &insert, NULL) == SQLITE_OK, "insert");
	struct tw_encoder *encoder;
	must(!tw_encoder_create(&disk, &encoder), "encoder");
	struct tw_buf out = TW_BUF_INIT;
	double start = cpu();
	double bytes = 0;
	for (unsigned long n = 1; n <= events; n++) {
		if (n % together == 1 || together == 1)
			run(db, "BEGIN");
		encode(encoder, n, &out);
		bytes += (double)out.len;
		sqlite3_bind_blob(insert, 1, out.data, (int)out.len, SQLITE_STATIC);
		must(sqlite3_step(insert) == SQLITE_DONE, "step");
		sqlite3_reset(insert);
		if (n % together == 0 || n == events)
			run(db, "COMMIT");
	}
	printf("%.9f %.1f\n", (cpu() - start) / (double)events, bytes / (double)events);
	sqlite3_finalize(insert);
	sqlite3_close(db);
	tw_encoder_destroy(encoder);
	tw_buf_deinit(&out);
	return 0;
}
