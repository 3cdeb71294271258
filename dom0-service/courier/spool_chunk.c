/* SPDX-License-Identifier: BSD-3-Clause */
/* Chunks of the spool: from memory while they are young, else from the file. */
#include "courier/spool_inside.h"

#include "base/scope.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Lanes that keep up never read the file. */
#define TAIL_BYTES (32u << 20)

static int64_t last_of(const struct tw_chunk *chunk)
{
	return chunk->first + chunk->n - 1;
}

static size_t bytes_of(const struct tw_chunk *chunk)
{
	return sizeof(*chunk) + chunk->text.cap + chunk->index.cap;
}

static void drop_oldest(struct tw_spool_cache *cache)
{
	struct tw_chunk *chunk = cache->tail[cache->at];
	cache->bytes -= bytes_of(chunk);
	cache->at++;
	cache->n--;
	tw_chunk_destroy(chunk);
}

static struct tw_error *make_room(struct tw_spool_cache *cache)
{
	if (cache->at + cache->n < cache->cap)
		return NULL;
	if (cache->at > cache->n) {
		memmove(cache->tail, cache->tail + cache->at, cache->n * sizeof(struct tw_chunk *));
		cache->at = 0;
		return NULL;
	}
	size_t cap = cache->cap ? cache->cap * 2 : 256;
	struct tw_chunk **grown = reallocarray(cache->tail, cap, sizeof(struct tw_chunk *));
	if (!grown)
		return tw_error_nomem();
	cache->tail = grown;
	cache->cap = cap;
	return NULL;
}

struct tw_error *tw_spool_cache_add(struct tw_spool *spool, struct tw_chunk *chunk)
{
	struct tw_spool_cache *cache = &spool->cache;
	struct tw_error *err = make_room(cache);
	if (err) {
		tw_chunk_destroy(chunk);
		tw_spool_cache_cut(cache, -1); /* what is missing in the tail must not look like a hole */
		return err;
	}
	cache->tail[cache->at + cache->n++] = chunk;
	cache->bytes += bytes_of(chunk);
	while (cache->bytes > TAIL_BYTES && cache->n > 1)
		drop_oldest(cache);
	return NULL;
}

void tw_spool_cache_cut(struct tw_spool_cache *cache, int64_t id)
{
	while (cache->n && last_of(cache->tail[cache->at + cache->n - 1]) > id) {
		struct tw_chunk *chunk = cache->tail[cache->at + --cache->n];
		cache->bytes -= bytes_of(chunk);
		tw_chunk_destroy(chunk);
	}
	for (size_t i = 0; i < TW_SPOOL_OLD_CHUNKS; i++) {
		tw_chunk_destroy(cache->old[i]);
		cache->old[i] = NULL;
	}
}

void tw_spool_cache_deinit(struct tw_spool_cache *cache)
{
	tw_spool_cache_cut(cache, -1);
	free(cache->tail);
	*cache = (struct tw_spool_cache){ 0 };
}

/* The chunk of the tail that has event id or follows it; NULL when the tail begins later. */
static struct tw_chunk *find_in_tail(const struct tw_spool_cache *cache, int64_t id)
{
	if (!cache->n || id < cache->tail[cache->at]->first)
		return NULL;
	size_t low = cache->at;
	size_t high = cache->at + cache->n - 1;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (last_of(cache->tail[middle]) < id)
			low = middle + 1;
		else
			high = middle;
	}
	return last_of(cache->tail[low]) >= id ? cache->tail[low] : NULL;
}

static struct tw_error *fill_chunk(sqlite3_stmt *stmt, struct tw_chunk *chunk)
{
	chunk->n = (uint32_t)sqlite3_column_int64(stmt, 1);
	chunk->first = sqlite3_column_int64(stmt, 0) - chunk->n + 1;
	chunk->disk = sqlite3_column_int64(stmt, 2);
	chunk->sequence_first = (uint64_t)sqlite3_column_int64(stmt, 3);
	chunk->sequence_last = (uint64_t)sqlite3_column_int64(stmt, 4);
	chunk->time_ms = sqlite3_column_int64(stmt, 5);
	chunk->start = (uint64_t)sqlite3_column_int64(stmt, 6);
	chunk->only = sqlite3_column_int64(stmt, 11);
	TW_TRY(tw_chunk_decode(sqlite3_column_int(stmt, 7), sqlite3_column_blob(stmt, 8),
		(size_t)sqlite3_column_bytes(stmt, 8), &chunk->index));
	TW_TRY(tw_chunk_decode(sqlite3_column_int(stmt, 9), sqlite3_column_blob(stmt, 10),
		(size_t)sqlite3_column_bytes(stmt, 10), &chunk->text));
	return tw_chunk_check(chunk);
}

static struct tw_error *load_chunk(struct tw_spool *spool, int64_t id, struct tw_chunk **out)
{
	*out = NULL;
	sqlite3_stmt *stmt = tw_spool_db_bind(&spool->db, TW_SQL_CHUNK_AT, 1, id);
	bool row;
	TW_TRY(tw_spool_db_step(&spool->db, TW_SQL_CHUNK_AT, &row));
	if (!row)
		return NULL;
	struct tw_chunk *chunk = tw_chunk_create();
	struct tw_error *err = chunk ? fill_chunk(stmt, chunk) : tw_error_nomem();
	sqlite3_reset(stmt);
	if (err) {
		tw_chunk_destroy(chunk);
		return tw_error_context(err, "spool %s", spool->db.path);
	}
	*out = chunk;
	return NULL;
}

struct tw_error *tw_spool_chunk_at(struct tw_spool *spool, int64_t id, struct tw_chunk **out)
{
	struct tw_spool_cache *cache = &spool->cache;
	*out = id <= spool->last_id ? find_in_tail(cache, id) : NULL;
	if (*out || id > spool->last_id)
		return NULL;
	for (size_t i = 0; i < TW_SPOOL_OLD_CHUNKS; i++) {
		*out = cache->old[i];
		if (*out && (*out)->first <= id && last_of(*out) >= id)
			return NULL;
	}
	TW_TRY(load_chunk(spool, id, out));
	if (!*out)
		return NULL;
	unsigned int slot = cache->next_old++ % TW_SPOOL_OLD_CHUNKS;
	tw_chunk_destroy(cache->old[slot]);
	cache->old[slot] = *out;
	return NULL;
}

struct tw_error *tw_spool_read(struct tw_spool *spool, const struct tw_picks *picks, tw_spool_take_fn take,
	void *arg)
{
	struct tw_picks_walk walk = tw_picks_begin(picks);
	int64_t id;
	uint32_t n;
	while (tw_picks_next(&walk, &id, &n)) {
		while (n) {
			struct tw_chunk *chunk;
			TW_TRY(tw_spool_chunk_at(spool, id, &chunk));
			if (!chunk || chunk->first > id)
				return tw_error_create(TW_BAD_DATA,
					"spool %s lacks event %" PRId64 ", which is planned", spool->db.path, id);
			uint32_t i = (uint32_t)(id - chunk->first);
			uint32_t part = chunk->n - i < n ? chunk->n - i : n;
			take(arg, chunk, i, part);
			id += part;
			n -= part;
		}
	}
	return NULL;
}

struct array {
	struct tw_buf *out;
	unsigned int keep;
	bool some;
};

static void append_some(struct array *array, const char *text, size_t len)
{
	if (array->some)
		tw_buf_append(array->out, ",", 1);
	array->some = true;
	tw_buf_append(array->out, text, len);
}

static void append_text(void *arg, const struct tw_chunk *chunk, uint32_t i, uint32_t n)
{
	struct array *array = arg;
	const uint32_t end = i + n;
	size_t len, cut, rest;
	uint32_t whole = i; /* from here on, events go as they are */
	for (; array->keep != TW_CHUNK_EXTRAS && i < end; i++) {
		const char *text = tw_chunk_text(chunk, i, 1, &len);
		if (!tw_chunk_strip(text, len, array->keep, &cut, &rest))
			continue;
		if (whole < i) {
			size_t before;
			const char *run = tw_chunk_text(chunk, whole, i - whole, &before);
			append_some(array, run, before);
		}
		append_some(array, text, cut);
		tw_buf_append(array->out, text + len - rest, rest);
		whole = i + 1;
	}
	if (whole == end)
		return;
	const char *text = tw_chunk_text(chunk, whole, end - whole, &len);
	append_some(array, text, len);
}

struct tw_error *tw_spool_read_array(struct tw_spool *spool, const struct tw_picks *picks, unsigned int keep,
	struct tw_buf *out)
{
	struct array array = { .out = out, .keep = keep };
	tw_buf_append(out, "[", 1);
	TW_TRY(tw_spool_read(spool, picks, append_text, &array));
	tw_buf_append(out, "]", 1);
	return out->failed ? tw_error_nomem() : NULL;
}
