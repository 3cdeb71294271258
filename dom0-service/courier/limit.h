/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How many requests a target gets at a time: additive increase while its answers come as fast as they use to,
 * multiplicative decrease when it is overloaded (as TCP does with its window). Plain values, no I/O.
 */
#ifndef TW_COURIER_LIMIT_H
#define TW_COURIER_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct tw_limit {
	double now;	    /* between 1 and most */
	double most;
	double usual_ms;    /* how long an answer takes when nothing waits */
	double recent_ms;   /* and lately */
	uint64_t hold_until; /* no further decrease before this time: one for a trouble */
};

/* Starts at one request. */
void tw_limit_init(struct tw_limit *limit, unsigned int most);
/* An answer came after so long; overload: it said or showed that the target has too much to do. now is the
 * time in ms. */
void tw_limit_answer(struct tw_limit *limit, uint64_t now, uint64_t took_ms, bool overload);
/* Requests that may be under way. */
unsigned int tw_limit_get(const struct tw_limit *limit);

#endif
