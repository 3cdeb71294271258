/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a batch is written for its receiver, and what is asked of the answer beyond its status. A batch's text
 * depends on its events and the target's settings alone: it is the same at each redelivery.
 */
#ifndef TW_COURIER_FORMAT_H
#define TW_COURIER_FORMAT_H

#include "base/buf.h"
#include "base/error.h"
#include "config/config.h"
#include "courier/spool.h"
#include "courier/target.h"
#include "courier/webhook.h"

const char *tw_format_content_type(enum tw_format format);
/* Appends the body. */
struct tw_error *tw_format_body(struct tw_spool *spool, const struct tw_config_target *config,
	const struct tw_picks *picks, struct tw_buf *out) TW_MUST_CHECK;
/* The URL for the batch of that webhook-id, the caller's; NULL: the target's own. */
struct tw_error *tw_format_url(const struct tw_config_target *config, const char *id, char **out) TW_MUST_CHECK;

/* What an answer says of a batch's events, when it says more than its status. */
struct tw_judgement {
	enum tw_verdict verdict;
	long status; /* for TW_REFUSED: of the first event that is refused */
	char answer[512];
	/* TW_DELIVERED with some events refused: */
	struct tw_refused {
		uint64_t i; /* in the batch */
		long status;
		char reason[256];
	} *refused;
	size_t nrefused;
	/* The events before that one are taken, that one is refused, what follows was not looked at; 0: not so. */
	uint64_t stopped_at;
};

/* result is of a batch of count events. */
struct tw_error *tw_format_judge(enum tw_format format, const struct tw_webhook_result *result, uint64_t count,
	struct tw_judgement *out) TW_MUST_CHECK;
void tw_judgement_deinit(struct tw_judgement *judgement);

#endif
