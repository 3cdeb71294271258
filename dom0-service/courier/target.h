/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A target at work: decides when a batch is due, sends the planned batches of its lanes, each lane one after the
 * other, and deals with the answers (courier/sender.c): acknowledged, to be sent again, refused.
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
	void (*changed)(void *arg); /* a batch may be due or was answered: plan, commit, kick */
	void (*failed)(void *arg, struct tw_error *err); /* takes err: the spool or libcurl failed */
};

struct tw_target_stats {
	const char *name;
	const char *epoch;   /* of its first lane */
	uint64_t next_batch; /* of the first lane: the oldest that is not acknowledged, or the next one */
	uint64_t delivered;  /* events acknowledged since the start */
	uint64_t batches;
	uint64_t retries;
	uint64_t backlog; /* events that are not acknowledged */
	uint64_t refused; /* events that went to the dead letters, ever */
	uint64_t dropped; /* events that its limits cost it, ever */
	unsigned int lanes;
	unsigned int concurrency; /* requests that it may have under way now */
	long last_status; /* of HTTP; 0: none, or no whole answer */
	const char *last_error; /* "" when the last attempt was acknowledged */
	bool suspended;	  /* it answered 410 */
};

/* What becomes of a batch that was answered with an HTTP status (0: not answered). */
enum tw_verdict {
	TW_DELIVERED,
	TW_RETRY,     /* 408, 425, 429, 5xx, a redirect that is not followed, no answer */
	TW_REFUSED,   /* an event in it is not wanted: any other 4xx */
	TW_TOO_LARGE, /* 413 */
	TW_GONE	      /* 410: nothing is wanted any more */
};
enum tw_verdict tw_target_verdict(long status);

/* config, spool, hook and loop are borrowed and outlive the target. */
struct tw_error *tw_target_create(uv_loop_t *loop, struct tw_webhook *hook, struct tw_spool *spool,
	const struct tw_config_target *config, const struct tw_target_hooks *hooks, struct tw_target **out)
	TW_MUST_CHECK;
/* The loop must run once more for its handles to close. NULL is fine. */
void tw_target_destroy(struct tw_target *target);

/* Goes on with other settings; config replaces the one before, which a request that is under way may use until
 * tw_target_is_renewed(). The name is the same. */
struct tw_error *tw_target_reconfigure(struct tw_target *target, struct tw_webhook *hook,
	const struct tw_config_target *config) TW_MUST_CHECK;
bool tw_target_is_renewed(const struct tw_target *target);
/* Destroys it, and what the spool has for it. */
struct tw_error *tw_target_forget(struct tw_target *target) TW_MUST_CHECK;

/* Plans the batches that are due, or all that waits when flush is set. *planned: a commit is needed. *more:
 * there is more to look at, in another turn. */
struct tw_error *tw_target_plan(struct tw_target *target, bool flush, bool *planned, bool *more)
	TW_MUST_CHECK;
/* Drops what is beyond the target's own limits and stores an event that tells of it. *more: see above. */
struct tw_error *tw_target_enforce(struct tw_target *target, const char *host, bool *more) TW_MUST_CHECK;
/* Ends a suspension, or begins one. */
struct tw_error *tw_target_suspend(struct tw_target *target, bool suspended) TW_MUST_CHECK;
/* Sends again what has come in since then and is still there. */
void tw_target_again(struct tw_target *target, int64_t since_ms);
const struct tw_config_target *tw_target_config(const struct tw_target *target);
const struct tw_spool_target *tw_target_spool(const struct tw_target *target);
/* Sends what is planned, as far as it may be sent now. Only after a commit. */
void tw_target_kick(struct tw_target *target);
/* Whether everything is acknowledged. */
bool tw_target_idle(const struct tw_target *target);
/* The strings live as long as the target, last_error until its next attempt. */
void tw_target_stats(const struct tw_target *target, struct tw_target_stats *out);

#endif
