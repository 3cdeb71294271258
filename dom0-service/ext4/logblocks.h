/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The blocks of a journal that were written and are not done with, by their place in the log.
 * Memory is used again: a block costs a copy, and no allocation once a journal has been followed
 * for a while.
 */
#ifndef TW_EXT4_LOGBLOCKS_H
#define TW_EXT4_LOGBLOCKS_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_logblock {
	uint8_t *data; /* NULL: it is not held */
	uint32_t crc;  /* crc32c of the data, begun with 0 */
	bool has_crc;
};

struct tw_logblocks;

/* For a log of n blocks. */
struct tw_error *tw_logblocks_create(
	uint32_t n, uint32_t blocksize, struct tw_logblocks **out) TW_MUST_CHECK;
void tw_logblocks_destroy(struct tw_logblocks *blocks); /* NULL is fine */

/* The block at a place, or NULL when it is not held. */
struct tw_logblock *tw_logblocks_find(const struct tw_logblocks *blocks, uint32_t at);
/* The block at a place, with room for its data; its content is undefined when it is new. Errors:
 * TW_BAD_DATA for a place beyond the log. */
struct tw_error *tw_logblocks_get(
	struct tw_logblocks *blocks, uint32_t at, struct tw_logblock **out) TW_MUST_CHECK;
void tw_logblocks_drop(struct tw_logblocks *blocks, uint32_t at);
void tw_logblocks_clear(struct tw_logblocks *blocks);
size_t tw_logblocks_count(const struct tw_logblocks *blocks);
/* Calls each(place, data, arg) for every block that is held, from the first place on. */
void tw_logblocks_each(const struct tw_logblocks *blocks,
	void (*each)(uint32_t at, const uint8_t *data, void *arg), void *arg);

#endif
