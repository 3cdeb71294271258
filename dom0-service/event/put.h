/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON text put onto a tw_buf through a cursor: the pieces that the encoder of events (hot) and the
 * general writer (json.h) are made of. Every piece asks for the room that it needs; without memory
 * the buffer is marked as failed and nothing is put. One thread.
 */
#ifndef TW_EVENT_PUT_H
#define TW_EVENT_PUT_H

#include "base/buf.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct tw_put {
	char *at;  /* the next byte */
	char *end; /* of the memory that is there */
	struct tw_buf *buf;
};

/* Goes on at the end of buf, which must not be touched before tw_put_end(). */
static inline void tw_put_begin(struct tw_put *put, struct tw_buf *buf)
{
	put->buf = buf;
	put->at = buf->data ? buf->data + buf->len : NULL;
	put->end = buf->data ? buf->data + buf->cap : NULL;
}

/* Gives the buffer its length, counted from its start. */
static inline void tw_put_end(const struct tw_put *put)
{
	if (put->at)
		put->buf->len = (size_t)(put->at - put->buf->data);
}

/* Makes room beyond what is there. False: no memory. */
bool tw_put_grow(struct tw_put *put, size_t n);

/* True when there is room for n bytes more. */
static inline bool tw_put_room(struct tw_put *put, size_t n)
{
	return (size_t)(put->end - put->at) >= n || tw_put_grow(put, n);
}

/* Text as it is. Inlined, so that a literal becomes a few stores. */
__attribute__((always_inline)) static inline void tw_put_text(
	struct tw_put *put, const char *text, size_t len)
{
	if (!tw_put_room(put, len))
		return;
	memcpy(put->at, text, len);
	put->at += len;
}

__attribute__((always_inline)) static inline void tw_put_literal(
	struct tw_put *put, const char *text)
{
	tw_put_text(put, text, strlen(text));
}

#define TW_DECIMAL_BYTES 20
/* Writes value in decimal, TW_DECIMAL_BYTES at most; returns the byte behind it. */
char *tw_decimal(char *at, uint64_t value);
/* Writes the last two decimal digits of value < 100. */
void tw_two_digits(char *at, unsigned value);

static inline void tw_put_u64(struct tw_put *put, uint64_t value)
{
	if (tw_put_room(put, TW_DECIMAL_BYTES))
		put->at = tw_decimal(put->at, value);
}

/* A JSON string with its quotes: escaped where JSON wants it, with U+FFFD for what is not UTF-8
 * (utf8.h). Returns true when all of it was UTF-8. */
bool tw_put_string(struct tw_put *put, const void *data, size_t n);

/* The base64 text of the bytes, without quotes. */
void tw_put_base64(struct tw_put *put, const void *data, size_t n);

#endif
