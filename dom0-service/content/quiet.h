/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of a volume that have changed and are waited for until they have been quiet for a time, each for
 * its own. Bounded: of those that find no place only the numbers are kept, a bit each, until there is
 * room. Clocks are whoever calls' milliseconds, and never go back. One thread.
 */
#ifndef TW_CONTENT_QUIET_H
#define TW_CONTENT_QUIET_H

#include "base/error.h"
#include "event/event.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_quiet;

struct tw_quiet_file {
	uint32_t ino;
	uint32_t transaction; /* that changed it last; 0: none, or not known */
	uint64_t quiet_ms;    /* to be waited for; at least 1 */
	uint32_t tries;       /* how often it has been put off since it changed */
	bool known;           /* sha256 is that of its content, which cannot be read later */
	uint8_t sha256[TW_SHA256_BYTES];
};

/* Knows at most max files by more than their numbers. */
struct tw_error *tw_quiet_create(size_t max, struct tw_quiet **out) TW_MUST_CHECK;
void tw_quiet_destroy(struct tw_quiet *quiet); /* NULL is fine */

/* The file has changed now: its time begins, or begins again. */
struct tw_error *tw_quiet_put(
	struct tw_quiet *quiet, const struct tw_quiet_file *file, int64_t now_ms) TW_MUST_CHECK;
/* The time of a file that is waited for begins again. False: it has no place. */
bool tw_quiet_again(struct tw_quiet *quiet, uint32_t ino, int64_t now_ms);
/* It is waited for no more. */
void tw_quiet_drop(struct tw_quiet *quiet, uint32_t ino);
bool tw_quiet_has(const struct tw_quiet *quiet, uint32_t ino);
/* What is known of it, until the next call that changes anything; NULL: it has no place. */
const struct tw_quiet_file *tw_quiet_get(const struct tw_quiet *quiet, uint32_t ino);

/* A file whose time is over; it is still waited for. False: there is none. */
bool tw_quiet_due(const struct tw_quiet *quiet, int64_t now_ms, struct tw_quiet_file *out);
/* When there will be one, on the clock of the calls above; INT64_MAX: never. */
int64_t tw_quiet_next(const struct tw_quiet *quiet);
/* A file that had found no place, which is forgotten with this: to be put again. 0: there is none, or there is
 * no room yet. */
uint32_t tw_quiet_take_late(struct tw_quiet *quiet);

/* Files with a place, and without. */
size_t tw_quiet_count(const struct tw_quiet *quiet);
size_t tw_quiet_late(const struct tw_quiet *quiet);
/* Calls each() for all of them; of those without a place, only the number is there. */
void tw_quiet_each(const struct tw_quiet *quiet,
	void (*each)(const struct tw_quiet_file *file, void *arg), void *arg);

#endif
