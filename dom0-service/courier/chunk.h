/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A chunk: events of one disk that came one after the other, as one row of the spool. Their bodies are
 * kept as text with commas between, so that a batch is cut out of it and not put together.
 */
#ifndef TW_COURIER_CHUNK_H
#define TW_COURIER_CHUNK_H

#include "base/buf.h"
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_CHUNK_BYTES (256u << 10) /* a chunk with so much text takes no more events */

struct tw_chunk {
	struct tw_chunk *older; /* in the spool's cache */
	struct tw_chunk *newer;
	int64_t first; /* number of its first event in the spool; 0: not known yet */
	uint32_t n;
	int64_t disk; /* row of its disk */
	int64_t only; /* row of the only target that it is for; 0: for all */
	uint64_t sequence_first;
	uint64_t sequence_last;
	int64_t time_ms;	/* when it was stored */
	uint64_t start;		/* bytes of all events that were ever stored before it */
	struct tw_buf text;
	struct tw_buf index; /* n times u32 where the event's text ends, then u32 type */
};

struct tw_chunk *tw_chunk_create(void);
void tw_chunk_destroy(struct tw_chunk *chunk);

/* Appends an event. False without memory: the chunk is as before. */
bool tw_chunk_add(struct tw_chunk *chunk, unsigned int type, uint64_t sequence, const char *body, size_t len);

unsigned int tw_chunk_type(const struct tw_chunk *chunk, uint32_t i);
/* The text of n events from i on, with commas between. */
const char *tw_chunk_text(const struct tw_chunk *chunk, uint32_t i, uint32_t n, size_t *len);

/* What comes last in an event, for targets that ask for it (event/encode.c). */
enum tw_chunk_extra { TW_CHUNK_CONTENT = 1, TW_CHUNK_SHA256 = 2, TW_CHUNK_EXTRAS = 3 };

/* The text of an event without the extras that are not in keep: the first *cut of its bytes, and the last *rest.
 * False: it has none of them. */
bool tw_chunk_strip(const char *body, size_t len, unsigned int keep, size_t *cut, size_t *rest);

/* How a column of a row is coded. */
enum { TW_CHUNK_PLAIN, TW_CHUNK_ZSTD };
/* What coding needs, to be used again and again. */
struct tw_chunk_coder;
struct tw_chunk_coder *tw_chunk_coder_create(void);
void tw_chunk_coder_destroy(struct tw_chunk_coder *coder);
/* Codes data for a row: returns the coding; *out is data itself, or what is in buf. */
int tw_chunk_code(struct tw_chunk_coder *coder, const struct tw_buf *data, struct tw_buf *buf, const void **out,
	size_t *len);
/* The reverse, into out. TW_BAD_DATA when it is not what tw_chunk_code() made. */
struct tw_error *tw_chunk_decode(int coding, const void *data, size_t len, struct tw_buf *out) TW_MUST_CHECK;
/* Checks that text and index belong together: everything else relies on it. */
struct tw_error *tw_chunk_check(const struct tw_chunk *chunk) TW_MUST_CHECK;

#endif
