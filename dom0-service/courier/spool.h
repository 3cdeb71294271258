/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spool: events that some target has not acknowledged yet, in an SQLite file (WAL, synchronous=FULL).
 * An event is stored once; a target has a cursor and up to TW_SPOOL_PLAN planned batches. A planned batch is a range of
 * events, the filter of that moment and a number, so it is the same batch after any restart.
 *
 * Everything between two tw_spool_commit() calls is one transaction: what came in, what was planned and what
 * was acknowledged. Nothing may be promised to a peer or sent to a target before the commit returned NULL.
 * After an error from a function that writes, tw_spool_rollback() returns the spool to its last commit.
 */
#ifndef TW_COURIER_SPOOL_H
#define TW_COURIER_SPOOL_H

#include "base/buf.h"
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

#define TW_SPOOL_PLAN 8
#define TW_SPOOL_EPOCH_SIZE 17 /* sixteen hexadecimal digits and a NUL */
#define TW_SPOOL_NAME_SIZE 65

struct tw_spool;

/* A disk epoch that sends or sent events; read it, change it only through the functions below. */
struct tw_spool_disk {
	struct tw_spool_disk *next;
	int64_t id;    /* 0: not in the file (rolled back) */
	uint64_t last; /* sequence of the last event stored */
	bool dirty;
	char *epoch;
	char *source;
};

struct tw_spool_batch {
	uint64_t n;     /* counts up by one within the target's epoch */
	int64_t first;  /* events first..last, of these the types in mask */
	int64_t last;
	uint64_t mask;
	uint64_t count; /* events */
};

/* A target as the spool knows it; read it, change it only through the functions below. */
struct tw_spool_target {
	struct tw_spool_target *following;
	int64_t id;
	bool dirty;
	char name[TW_SPOOL_NAME_SIZE];
	char epoch[TW_SPOOL_EPOCH_SIZE]; /* new when its numbers start again */
	uint64_t mask;	  /* the types that it wants now */
	uint64_t next;	  /* number of the batch that is planned next */
	int64_t cursor;	  /* the last event that is acknowledged, planned or not wanted */
	struct tw_spool_batch plan[TW_SPOOL_PLAN]; /* the oldest first */
	unsigned int nplan;
	uint64_t waiting;	/* wanted events after the cursor */
	uint64_t waiting_bytes; /* and the bytes of their bodies */
};

/* Opens or makes the file. A file that is damaged, of another version or in use by another courier is an
 * error and is left as it is. The spool refuses events when it holds max_bytes; *out is the caller's. */
struct tw_error *tw_spool_open(const char *path, uint64_t max_bytes, struct tw_spool **out) TW_MUST_CHECK;
/* Rolls back what is not committed and closes; NULL is fine. */
void tw_spool_close(struct tw_spool *spool);

/* Whether events may be stored: false at max_bytes, and when the file system is nearly full, so that there
 * is room to record what is delivered. */
bool tw_spool_has_room(struct tw_spool *spool);

/* Finds or enters the disk epoch. The pointer lives as long as the spool. An epoch with another source than
 * before is TW_BAD_DATA. */
struct tw_error *tw_spool_disk(struct tw_spool *spool, const char *epoch, const char *source,
	struct tw_spool_disk **out) TW_MUST_CHECK;
/* Stores one event under the sequence disk->last + 1 and counts it for every target that wants its type (what
 * nobody wants takes no room). type is below 64. */
struct tw_error *tw_spool_store(struct tw_spool *spool, struct tw_spool_disk *disk, unsigned int type,
	const char *body, size_t len) TW_MUST_CHECK;

/* Finds or enters a target (name: see tapwire.conf(5)); a new one starts with the next event that is stored.
 * The pointer lives as long as the spool. mask: see tw_spool_target. */
struct tw_error *tw_spool_target(struct tw_spool *spool, const char *name, uint64_t mask,
	struct tw_spool_target **out) TW_MUST_CHECK;
/* Forgets the targets that tw_spool_target() was not called for; *forgotten says how many. */
struct tw_error *tw_spool_forget_others(struct tw_spool *spool, unsigned int *forgotten) TW_MUST_CHECK;

/* Plans the next batch of waiting events, at most max_events and max_bytes (at least one event). Does
 * nothing when the plan is full or nothing waits. */
struct tw_error *tw_spool_plan(struct tw_spool *spool, struct tw_spool_target *target, uint64_t max_events,
	uint64_t max_bytes) TW_MUST_CHECK;
/* Appends the batch as a JSON array. */
struct tw_error *tw_spool_read(struct tw_spool *spool, const struct tw_spool_batch *batch,
	struct tw_buf *out) TW_MUST_CHECK;
/* The target's oldest planned batch is delivered. */
struct tw_error *tw_spool_acknowledge(struct tw_spool *spool, struct tw_spool_target *target) TW_MUST_CHECK;

/* Whether there is something to commit. */
bool tw_spool_dirty(const struct tw_spool *spool);
/* Deletes what nobody waits for and makes everything durable. */
struct tw_error *tw_spool_commit(struct tw_spool *spool) TW_MUST_CHECK;
/* Forgets what was not committed: targets and disks are as the last commit left them. */
struct tw_error *tw_spool_rollback(struct tw_spool *spool) TW_MUST_CHECK;

struct tw_spool_stats {
	uint64_t events; /* in the spool */
	uint64_t bytes;	 /* of the file that are in use */
};
void tw_spool_stats(const struct tw_spool *spool, struct tw_spool_stats *out);

#endif
