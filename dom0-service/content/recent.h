/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was written to a disk lately, sector by sector, as the stream of writes says it: the image may
 * have gone on. Bounded: what was not touched for longest goes first. One thread.
 */
#ifndef TW_CONTENT_RECENT_H
#define TW_CONTENT_RECENT_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_recent;

/* Keeps at most max_bytes of content. */
struct tw_error *tw_recent_create(uint64_t max_bytes, struct tw_recent **out) TW_MUST_CHECK;
void tw_recent_destroy(struct tw_recent *recent); /* NULL is fine */

/* Sectors of the disk were written (offset and len are multiples of 512). */
struct tw_error *tw_recent_put(
	struct tw_recent *recent, uint64_t offset, const void *data, size_t len) TW_MUST_CHECK;
/* They were written with something that is not known. */
void tw_recent_drop(struct tw_recent *recent, uint64_t offset, uint64_t len);
void tw_recent_clear(struct tw_recent *recent);

/* Copies what is kept from offset on, at most len bytes (multiples of 512). Returns how many bytes that
 * are: 0 when the first sector is not kept; *missing is then how many, at most len, are not kept in a
 * row. */
size_t tw_recent_get(
	struct tw_recent *recent, uint64_t offset, void *data, size_t len, size_t *missing);

#endif
