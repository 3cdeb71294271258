/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A target at work: decides when a batch is due, sends the planned batches one after the other, and sends
 * each again until it is acknowledged.
 */
#ifndef TW_COURIER_TARGET_H
#define TW_COURIER_TARGET_H

#include "base/error.h"
#include "config/config.h"
#include "courier/spool.h"
#include "courier/webhook.h"
#include <stdbool.h>
#include <uv.h>

struct tw_target;

/* What the target tells its owner. Neither may destroy the target. */
struct tw_target_hooks {
	void *arg;
	void (*changed)(void *arg); /* a batch may be due or was acknowledged: plan, commit, kick */
	void (*failed)(void *arg, struct tw_error *err); /* takes err: the spool or libcurl failed */
};

struct tw_target_stats {
	const char *name;
	const char *epoch;
	uint64_t next_batch; /* number of the oldest batch that is not acknowledged, or of the next one */
	uint64_t delivered;  /* events acknowledged since the start */
	uint64_t batches;
	uint64_t retries;
	uint64_t backlog; /* events that are not acknowledged */
	long last_status; /* of HTTP; 0: none, or no whole answer */
	const char *last_error; /* "" when the last attempt was acknowledged */
};

/* What becomes of a batch that was answered with an HTTP status (0: not answered). */
enum tw_verdict { TW_DELIVERED, TW_RETRY };
enum tw_verdict tw_target_verdict(long status);

/* config, spool, hook and loop are borrowed and outlive the target. */
struct tw_error *tw_target_create(uv_loop_t *loop, struct tw_webhook *hook, struct tw_spool *spool,
	const struct tw_config_target *config, const struct tw_target_hooks *hooks, struct tw_target **out)
	TW_MUST_CHECK;
/* The loop must run once more for its handles to close. NULL is fine. */
void tw_target_destroy(struct tw_target *target);

/* Plans the batches that are due, or all that waits when flush is set. *planned tells whether a commit is
 * needed. */
struct tw_error *tw_target_plan(struct tw_target *target, bool flush, bool *planned) TW_MUST_CHECK;
/* Sends the oldest planned batch unless one is under way or waits for its next attempt. Only after a commit. */
void tw_target_kick(struct tw_target *target);
/* Whether everything is acknowledged. */
bool tw_target_idle(const struct tw_target *target);
/* The strings live as long as the target, last_error until its next attempt. */
void tw_target_stats(const struct tw_target *target, struct tw_target_stats *out);

#endif
