/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON text written onto a tw_buf, for what is said now and then (events have an encoder of their
 * own). A writer that runs out of memory remembers it: write everything, then let tw_json_end()
 * tell. Keys are C strings of our own.
 */
#ifndef TW_EVENT_JSON_H
#define TW_EVENT_JSON_H

#include "base/buf.h"
#include "base/error.h"
#include "event/put.h"
#include <stdbool.h>
#include <stdint.h>

struct tw_json {
	struct tw_put put;
	size_t start; /* the buffer's length before the first byte */
	bool comma;   /* before the next value */
};

/* Begins one JSON value at the end of out, which must outlive the writer and is not to be touched
 * until tw_json_end(). */
void tw_json_begin(struct tw_json *json, struct tw_buf *out);
/* On error, out is as it was before. */
struct tw_error *tw_json_end(struct tw_json *json) TW_MUST_CHECK;

void tw_json_open(struct tw_json *json, const char *key); /* "{"; key NULL: no key */
void tw_json_close(struct tw_json *json);
void tw_json_open_array(struct tw_json *json, const char *key);
void tw_json_close_array(struct tw_json *json);

/* For all of these: key NULL inside an array or at the top. */
void tw_json_u64(struct tw_json *json, const char *key, uint64_t value);
void tw_json_bool(struct tw_json *json, const char *key, bool value);
/* A C string; what is not UTF-8 becomes replacement characters. */
void tw_json_text(struct tw_json *json, const char *key, const char *value);

/* JSON text of somebody else, checked and put in on one line; null when it is no JSON. */
void tw_json_raw(struct tw_json *json, const char *key, const char *text, size_t len);

#endif
