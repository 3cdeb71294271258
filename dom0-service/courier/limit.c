/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/limit.h"

#define DECREASE 0.7
#define LONGER_SHARE 0.0005 /* of a longer time in what is usual: a queue must not become that */
#define RECENT_SHARE 0.2   /* of any time in the recent mean, and of a shorter one in what is usual */
#define SLOWER 2.0	  /* recent answers that take so many times the usual are a queue at the target */
#define SLOWER_MS 5.0	  /* and so much longer at least: below it is noise */

void tw_limit_init(struct tw_limit *limit, unsigned int most)
{
	*limit = (struct tw_limit){ .now = 1, .most = most };
}

static void decrease(struct tw_limit *limit, uint64_t now)
{
	if (now < limit->hold_until)
		return;
	limit->now *= DECREASE;
	if (limit->now < 1)
		limit->now = 1;
	/* What is under way was sent before: let its answers pass. */
	limit->hold_until = now + (uint64_t)limit->recent_ms + 1;
}

void tw_limit_answer(struct tw_limit *limit, uint64_t now, uint64_t took_ms, bool overload)
{
	double took = (double)took_ms;
	if (overload) {
		decrease(limit, now);
		return;
	}
	if (limit->usual_ms <= 0) /* the first one */
		limit->usual_ms = limit->recent_ms = took + 0.1;
	limit->usual_ms += (took - limit->usual_ms) * (took > limit->usual_ms ? LONGER_SHARE : RECENT_SHARE);
	limit->recent_ms += (took - limit->recent_ms) * RECENT_SHARE;
	if (limit->recent_ms > limit->usual_ms * SLOWER && limit->recent_ms > limit->usual_ms + SLOWER_MS) {
		decrease(limit, now);
		return;
	}
	limit->now += 1 / limit->now;
	if (limit->now > limit->most)
		limit->now = limit->most;
}

unsigned int tw_limit_get(const struct tw_limit *limit)
{
	return (unsigned int)limit->now;
}
