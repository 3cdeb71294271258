/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/target_inside.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum tw_verdict tw_target_verdict(long status)
{
	if (status >= 200 && status <= 299)
		return TW_DELIVERED;
	switch (status) {
	case 408:
	case 425:
	case 429:
		return TW_RETRY;
	case 410:
		return TW_GONE;
	case 413:
		return TW_TOO_LARGE;
	default:
		return status >= 400 && status <= 499 ? TW_REFUSED : TW_RETRY;
	}
}

static struct tw_error *add_senders(struct tw_target *target)
{
	unsigned int n = target->plan->nlanes > target->plan->want ? target->plan->nlanes : target->plan->want;
	for (; target->nsenders < n; target->nsenders++)
		TW_TRY(tw_sender_create(target, target->nsenders, &target->senders[target->nsenders]));
	return NULL;
}

struct tw_error *tw_target_create(uv_loop_t *loop, struct tw_webhook *hook, struct tw_spool *spool,
	const struct tw_config_target *config, const struct tw_target_hooks *hooks, struct tw_target **out)
{
	struct tw_target *target = calloc(1, sizeof(*target));
	if (!target)
		return tw_error_nomem();
	target->loop = loop;
	target->hook = hook;
	target->spool = spool;
	target->config = config;
	target->hooks = *hooks;
	target->trusted = true;
	tw_limit_init(&target->limit, (unsigned int)config->concurrency);
	struct tw_error *err = tw_filter_create(config, &target->filter);
	if (!err) {
		const struct tw_spool_filter filter = tw_filter_for_spool(target->filter);
		err = tw_spool_target(spool, config->name, (unsigned int)config->concurrency, &filter,
			&target->plan);
	}
	if (!err)
		err = add_senders(target);
	if (!err) {
		*out = target;
		return NULL;
	}
	if (target->nsenders) {
		tw_target_destroy(target);
	} else {
		tw_filter_destroy(target->filter);
		free(target);
	}
	return err;
}

void tw_target_destroy(struct tw_target *target)
{
	if (!target)
		return;
	target->destroyed = true;
	for (unsigned int i = target->nsenders; i-- > 0;)
		tw_sender_destroy(target->senders[i]);
}

/* The filter of now in place of the one before, which the spool does not use any more. */
static struct tw_error *replace_filter(struct tw_target *target, const struct tw_config_target *config)
{
	struct tw_filter *filter;
	TW_TRY(tw_filter_create(config, &filter));
	const struct tw_spool_filter wanted = tw_filter_for_spool(filter);
	struct tw_error *err = tw_spool_target(target->spool, config->name, (unsigned int)config->concurrency,
		&wanted, &target->plan);
	if (err) {
		tw_filter_destroy(filter);
		return err;
	}
	tw_filter_destroy(target->filter);
	target->filter = filter;
	return NULL;
}

struct tw_error *tw_target_reconfigure(struct tw_target *target, struct tw_webhook *hook,
	const struct tw_config_target *config)
{
	bool moved = strcmp(target->config->url, config->url) != 0;
	target->hook = hook;
	TW_TRY(replace_filter(target, config));
	target->config = config;
	target->limit.most = (double)config->concurrency;
	if (target->limit.now > target->limit.most)
		target->limit.now = target->limit.most;
	target->bytes_max = 0;
	for (unsigned int i = 0; i < target->nsenders; i++) {
		target->senders[i]->renew = true;
		TW_TRY(tw_sender_renew(target->senders[i]));
	}
	if (moved && target->plan->suspended)
		TW_TRY(tw_target_suspend(target, false));
	return add_senders(target);
}

bool tw_target_is_renewed(const struct tw_target *target)
{
	for (unsigned int i = 0; i < target->nsenders; i++)
		if (target->senders[i]->renew)
			return false;
	return true;
}

struct tw_error *tw_target_forget(struct tw_target *target)
{
	struct tw_error *err = tw_spool_forget(target->spool, target->plan);
	tw_target_destroy(target);
	return err;
}

struct tw_error *tw_target_plan(struct tw_target *target, bool flush, bool *planned, bool *more)
{
	for (unsigned int i = 0; i < target->plan->nlanes; i++)
		TW_TRY(tw_sender_plan(target->senders[i], flush, planned, more));
	return NULL;
}

struct tw_error *tw_target_enforce(struct tw_target *target, const char *host, bool *more)
{
	const struct tw_config_target *config = target->config;
	uint64_t lost = 0;
	if (!config->max_age_ms && !config->max_bytes)
		return NULL;
	for (unsigned int i = 0; i < target->plan->nlanes; i++) {
		const char *reason;
		struct tw_spool_lane *lane = target->plan->lanes[i];
		if (target->senders[i]->state == TW_SENDER_SENDING)
			continue;
		TW_TRY(tw_spool_exceeds(target->spool, lane, config->max_age_ms, config->max_bytes, &reason));
		if (reason)
			TW_TRY(tw_spool_enforce(target->spool, lane, config->max_age_ms, config->max_bytes, &lost,
				more));
	}
	if (!lost)
		return NULL;
	tw_log(TW_LOG_WARN, config->name, "%llu events are dropped: %s", (unsigned long long)lost,
		target->plan->loss->reason);
	return tw_spool_tell_loss(target->spool, host, target->plan);
}

struct tw_error *tw_target_suspend(struct tw_target *target, bool suspended)
{
	target->last_error[0] = '\0';
	return tw_spool_suspend(target->spool, target->plan, suspended);
}

void tw_target_again(struct tw_target *target, int64_t since_ms)
{
	for (unsigned int i = 0; i < target->plan->nlanes; i++)
		target->senders[i]->again_ms = since_ms;
	target->hooks.changed(target->hooks.arg);
}

const struct tw_config_target *tw_target_config(const struct tw_target *target)
{
	return target->config;
}

const struct tw_spool_target *tw_target_spool(const struct tw_target *target)
{
	return target->plan;
}

void tw_target_kick(struct tw_target *target)
{
	unsigned int n = target->plan->nlanes;
	for (unsigned int i = 0; i < n; i++) {
		if (target->under_way >= tw_limit_get(&target->limit) || target->plan->suspended)
			return;
		struct tw_sender *sender = target->senders[(target->next_sender + i) % n];
		if (!tw_sender_ready(sender))
			continue;
		target->next_sender = (sender->index + 1) % n;
		tw_sender_send(sender);
	}
}

bool tw_target_idle(const struct tw_target *target)
{
	for (unsigned int i = 0; i < target->plan->nlanes; i++)
		if (tw_spool_backlog(target->spool, target->plan->lanes[i]))
			return false;
	return true;
}

void tw_target_stats(const struct tw_target *target, struct tw_target_stats *out)
{
	const struct tw_spool_target *plan = target->plan;
	const struct tw_spool_lane *first = plan->lanes[0];
	*out = (struct tw_target_stats){
		.name = target->config->name,
		.epoch = first->epoch,
		.next_batch = first->nplan ? first->plan[0].n : first->next,
		.delivered = target->delivered,
		.batches = target->batches,
		.retries = target->retries,
		.refused = plan->refused,
		.dropped = plan->dropped,
		.lanes = plan->nlanes,
		.concurrency = tw_limit_get(&target->limit),
		.last_status = target->last_status,
		.last_error = target->last_error,
		.suspended = plan->suspended,
	};
	for (unsigned int i = 0; i < plan->nlanes; i++)
		out->backlog += tw_spool_backlog(target->spool, plan->lanes[i]);
}
