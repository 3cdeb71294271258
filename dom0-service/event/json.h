/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON text written onto a tw_buf, through libyajl. A writer that runs out of memory remembers it:
 * write everything, then let tw_json_end() tell. Keys are C strings of our own; values may be
 * anything, and what is not UTF-8 goes through tw_json_bytes().
 */
#ifndef TW_EVENT_JSON_H
#define TW_EVENT_JSON_H

#include "base/buf.h"
#include "base/error.h"
#include "event/event.h"
#include <stdbool.h>
#include <stdint.h>
#include <yajl/yajl_gen.h>

struct tw_json {
	yajl_gen gen;
	struct tw_buf *out;
	size_t start; /* out's length before the first byte */
	bool failed;
};

/* Begins one JSON value at the end of out, which must outlive the writer. */
void tw_json_begin(struct tw_json *json, struct tw_buf *out);
/* Ends it and frees what the writer holds. On error, out is as it was before. */
struct tw_error *tw_json_end(struct tw_json *json) TW_MUST_CHECK;

void tw_json_open(struct tw_json *json, const char *key); /* "{"; key NULL: no key */
void tw_json_close(struct tw_json *json);
void tw_json_open_array(struct tw_json *json, const char *key);
void tw_json_close_array(struct tw_json *json);

/* For all of these: key NULL inside an array or at the top. */
void tw_json_u64(struct tw_json *json, const char *key, uint64_t value);
void tw_json_bool(struct tw_json *json, const char *key, bool value);
/* A C string that is known to be UTF-8; others become replacement characters. */
void tw_json_text(struct tw_json *json, const char *key, const char *value);
/* RFC 3339 in UTC with nanoseconds; a year outside 0 to 9999 is clamped to the nearest instant that
 * RFC 3339 can say, and so are nanoseconds beyond a second (an inode's field has 30 bits). */
void tw_json_time(struct tw_json *json, const char *key, struct tw_time value);
/* Bytes that should be UTF-8: the string, and where it is not, the string with replacement
 * characters and "<key>_b64" with the raw bytes. Not for arrays. */
void tw_json_bytes(struct tw_json *json, const char *key, struct tw_bytes value);
/* The first half of tw_json_bytes: the readable string alone. */
void tw_json_readable(struct tw_json *json, const char *key, struct tw_bytes value);
/* The second half: "<key>_b64", and only when the bytes are not UTF-8. */
void tw_json_raw_bytes(struct tw_json *json, const char *key, struct tw_bytes value);

/* JSON text of somebody else, checked and put in on one line; null when it is no JSON. */
void tw_json_raw(struct tw_json *json, const char *key, const char *text, size_t len);

/* Room for a time's text and its NUL. */
#define TW_TIME_TEXT_BYTES 32
/* The text of tw_json_time, without quotes. */
void tw_time_format(struct tw_time value, char out[static TW_TIME_TEXT_BYTES]);

#endif
