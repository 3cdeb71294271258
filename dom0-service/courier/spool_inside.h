/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the spool share. Private to the spool. */
#ifndef TW_COURIER_SPOOL_INSIDE_H
#define TW_COURIER_SPOOL_INSIDE_H

#include "courier/spool.h"
#include "courier/spool_db.h"

#define TW_SPOOL_OLD_CHUNKS 16

/* Chunks in memory: the youngest ones in their order, which most lanes read, and a few older ones. */
struct tw_spool_cache {
	struct tw_chunk **tail; /* tail[at..at + n): ascending, without holes */
	size_t at;
	size_t n;
	size_t cap;
	size_t bytes;
	struct tw_chunk *old[TW_SPOOL_OLD_CHUNKS];
	unsigned int next_old;
};

struct tw_spool {
	struct tw_spool_db db;
	uint64_t max_bytes;
	uint64_t keep_ms;
	uint64_t pages;	 /* of the file, with those in the WAL */
	uint64_t unused; /* of them: events take them before the file grows */
	int64_t last_id; /* of the event stored last */
	bool untidy;	 /* something was committed since the last tidy commit */
	int64_t dropped; /* chunks up to here are deleted */
	uint64_t written; /* bytes of all events that were ever stored */
	uint64_t wanted;  /* types that some target takes */
	struct tw_spool_disk *disks;
	struct tw_spool_disk *open; /* those with a chunk that is not sealed */
	struct tw_spool_target *targets;
	struct tw_spool_cache cache;
	struct tw_chunk_coder *coder;
	struct tw_buf coded;
	struct tw_buf coded_index;
};

/* Adds the chunk, which has its numbers, to the cache; takes it. */
struct tw_error *tw_spool_cache_add(struct tw_spool *spool, struct tw_chunk *chunk) TW_MUST_CHECK;
/* Forgets the chunks with events after id, and all older ones when id is negative. */
void tw_spool_cache_cut(struct tw_spool_cache *cache, int64_t id);
void tw_spool_cache_deinit(struct tw_spool_cache *cache);
/* The chunk that has event id, or else the next one; *out is NULL behind the last, and good until the next
 * call of a function of the spool. */
struct tw_error *tw_spool_chunk_at(struct tw_spool *spool, int64_t id, struct tw_chunk **out) TW_MUST_CHECK;

/* The source of a disk's row, "" when it is not known. */
const char *tw_spool_source(struct tw_spool *spool, int64_t disk);
/* The disk of that row, NULL when it is not known. */
const struct tw_spool_disk *tw_spool_find_disk(struct tw_spool *spool, int64_t id);
/* Reads a target and its lanes anew. */
struct tw_error *tw_spool_load_target(struct tw_spool *spool, struct tw_spool_target *target) TW_MUST_CHECK;
/* Enters a target: it starts with the next event that is stored. */
struct tw_error *tw_spool_add_target(struct tw_spool *spool, struct tw_spool_target *target) TW_MUST_CHECK;
/* Writes the rows of targets and lanes that have changed; all: also cursors that only passed over events
 * which are not wanted. */
struct tw_error *tw_spool_write_targets(struct tw_spool *spool, bool all) TW_MUST_CHECK;
void tw_spool_free_targets(struct tw_spool *spool);
/* Whether events of the chunk go through that lane. */
bool tw_spool_lane_has(const struct tw_spool_lane *lane, const struct tw_chunk *chunk);
/* Gives the chunk its numbers and stores it; takes it. */
struct tw_error *tw_spool_seal_chunk(struct tw_spool *spool, struct tw_chunk *chunk) TW_MUST_CHECK;
/* Reads what is held for a lane. */
struct tw_error *tw_spool_load_held(struct tw_spool *spool, struct tw_spool_lane *lane) TW_MUST_CHECK;
/* The last event that nobody waits for. */
int64_t tw_spool_floor(const struct tw_spool *spool);
/* Sixteen random hexadecimal digits. */
struct tw_error *tw_spool_random(char out[TW_SPOOL_EPOCH_SIZE]) TW_MUST_CHECK;
int64_t tw_spool_now_ms(void);

#endif
